"""What is recorded for Paddle Inference computes what the model does: eagerly, and in its oneDNN
kernels, at sizes that were not traced.
"""

import itertools

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F

from ppcls_nextvit.export import processor, static
from ppcls_nextvit.export.verify import Signature
from ppcls_nextvit.models.detectors.boxes import batched_nms
from ppcls_nextvit.models.recording import for_paddle_inference, paddle_inference, with_one_more
from ppcls_nextvit.models.resizing import adaptive_average, resize, resize_nearest

LENGTHS = [(1, 1), (1, 5), (5, 1), (4, 8), (7, 13), (13, 7)]  # from, to


def linear(x, new):
    """x [..., n] at the centres of `new` equal parts, by numpy."""
    n = x.shape[-1]
    positions = (np.arange(new) + 0.5) * n / new - 0.5
    return np.apply_along_axis(lambda row: np.interp(positions, np.arange(n), row), -1, x)


def nearest(x, new):
    return x[..., np.arange(new) * x.shape[-1] // new]


@pytest.mark.parametrize("rows, columns", itertools.product(LENGTHS, LENGTHS[:4]))
@pytest.mark.parametrize("own, numpys", [(resize, linear), (resize_nearest, nearest)])
def test_resizes_are_right_with_and_without_interpolation(own, numpys, rows, columns):
    x = paddle.randn([2, 3, rows[0], columns[0]])
    size = [rows[1], columns[1]]
    expected = numpys(numpys(x.numpy().swapaxes(2, 3), size[0]).swapaxes(2, 3), size[1])
    np.testing.assert_allclose(own(x, size).numpy(), expected, atol=2e-6)
    with paddle_inference():
        for given in (size, paddle.to_tensor(size)):
            np.testing.assert_allclose(own(x, given).numpy(), expected, atol=2e-6)
    assert not for_paddle_inference()


@pytest.mark.parametrize("size, bins", [((1, 1), 1), ((7, 1), 3), ((5, 9), 6), ((2, 3), 2)])
def test_averages_without_products_over_one(size, bins):
    x = paddle.randn([2, 3, *size])
    with paddle_inference():
        found = adaptive_average(x, bins)
    np.testing.assert_allclose(found.numpy(), F.adaptive_avg_pool2d(x, bins).numpy(), atol=1e-6)


class Parts(nn.Layer):
    """A convolution, whose result is in oneDNN's own layout, and what comes of it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(3, 8, 3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        size = paddle.shape(x)[2:]
        chosen = paddle.nonzero(x.flatten() > 1.0).flatten()
        rows = paddle.gather(x.reshape([-1, 1]), chosen, axis=0)
        doubled = with_one_more(lambda x: paddle.concat([2 * x - 1, x], axis=-1), rows)
        return (
            resize(x, 2 * size),
            resize_nearest(x, 2 * size - 1),
            adaptive_average(x, 1),
            adaptive_average(x, 3),
            doubled,
        )


def test_parts_in_onednn(tmp_path):
    paddle.seed(0)
    layer = Parts()
    layer.eval()
    names = ("doubled", "nearest", "mean", "averages", "chosen")
    signature = Signature({"x": (None, 3, None, None)}, names)
    static.write(layer, tmp_path, signature, "fp32", ())
    run = static.load(tmp_path, signature)
    for shape in [(1, 3, 8, 6), (2, 3, 5, 1), (1, 3, 1, 1), (3, 3, 1, 7)]:
        # of zeros nothing is chosen
        for x in (paddle.randn(shape), paddle.zeros(shape)):
            found = run({"x": x.numpy()})
            for name, expected in zip(names, layer(x), strict=True):
                np.testing.assert_allclose(found[name], expected.numpy(), atol=1e-5, err_msg=name)
    assert found["chosen"].shape == (0, 2)


def test_suppression_with_a_row_more_keeps_the_same_boxes():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (40, 2)).astype("float32")
    boxes = paddle.to_tensor(np.concatenate([corners, corners + 20], axis=1))
    scores = paddle.to_tensor(rng.uniform(0.1, 1, 40).astype("float32"))
    groups = paddle.to_tensor(rng.integers(0, 3, 40))
    expected = batched_nms(boxes, scores, groups, 0.4)
    with paddle_inference():
        found = batched_nms(boxes, scores, groups, 0.4)
    # the row more is the last, and as an index beyond all rows left out by the recorded operator
    assert found[found < 40].tolist() == expected.tolist()


@pytest.mark.parametrize(
    "flags, precisions, expected, reason",
    [
        ("fpu avx512_bf16 amx_bf16", ("fp32", "bf16"), "bf16", "amx_bf16"),
        ("fpu avx512_bf16", ("fp32", "bf16"), "bf16", "avx512_bf16"),
        ("fpu avx512_bf16x", ("fp32", "bf16"), "fp32", "not known to compute"),
        ("fpu avx512_bf16", ("fp32", "fp16"), "fp32", "no bf16"),
        (None, ("fp32", "bf16"), "fp32", "not known to compute"),
    ],
)
def test_auto_is_what_the_processor_computes_in(
    tmp_path, monkeypatch, flags, precisions, expected, reason
):
    path = tmp_path / "cpuinfo"
    if flags is not None:
        path.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(processor, "CPUINFO", path)
    precision, why = processor.automatic_precision(precisions)
    assert precision == expected and reason in why
