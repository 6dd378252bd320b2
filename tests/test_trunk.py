"""A program reduced up to its trunk: what leads to the maps is int8 or float16, what follows stays
float32 to the last bit.
"""

from functools import partial

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.export.onnx import to_onnx
from ppcls_nextvit.export.trunk import WithTrunk, trunk_of
from ppcls_nextvit.export.verify import ExportError, Signature, eager

SIGNATURE = Signature({"image": (1, 3, None, None), "scale": (1, 2)}, ("rows",))
NEEDS = {
    "onnx": ("paddle2onnx", "onnxslim", "onnxruntime"),
    "openvino": ("paddle2onnx", "onnxslim", "openvino", "nncf"),
}


class Toy(nn.Layer):
    """Two maps, of which a head with weights of its own chooses the best places."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2D(3, 8, 3, padding=1)
        self.neck = Neck()
        self.head = nn.Linear(8, 4)

    def forward(self, image, scale):
        """image [1, 3, H, W], scale [1, 2] -> [5, 4]."""
        maps = self.neck(nn.functional.relu(self.body(image)))
        rows = paddle.concat([x.flatten(2)[0].transpose([1, 0]) for x in maps])
        rows = self.head(rows) * scale[0, 0]
        return (rows[paddle.topk(rows[:, 0], 5)[1]],)


class Neck(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(8, 8, 3, stride=2, padding=1)

    def forward(self, x):
        """Two maps, the second of half the size."""
        return [x, self.conv(x)]


@pytest.fixture(scope="module")
def toy():
    paddle.seed(3)
    model = Toy()
    model.eval()
    return model


def test_the_maps_follow_the_outputs(toy):
    given = paddle.randn([1, 3, 8, 8]), paddle.ones([1, 2])
    rows, *maps = WithTrunk(toy, "neck")(*given)
    assert [x.shape for x in maps] == [[1, 8, 8, 8], [1, 8, 4, 4]]
    assert np.array_equal(rows.numpy(), toy(*given)[0].numpy())
    assert trunk_of(["rows", "trunk0", "trunk1"], SIGNATURE) == ["trunk0", "trunk1"]
    with pytest.raises(ExportError, match="Toy has no part 'necks', up to which"):
        WithTrunk(toy, "necks")


@pytest.mark.parametrize(
    "precision, to", [("fp16", "onnx"), ("int8", "onnx"), ("int8", "openvino")]
)
def test_what_follows_the_trunk_stays_float(toy, tmp_path, precision, to):
    for package in NEEDS[to]:
        pytest.importorskip(package, reason=f"needs the extras {to} and int8")
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((3, 16, 16), dtype=np.float32) for _ in range(4)]
    write = partial(TARGETS[to].write, folder=tmp_path, signature=SIGNATURE, images=images)
    write(WithTrunk(toy, "neck"), precision=precision)
    run, exact = TARGETS[to].load(tmp_path, SIGNATURE, precision), eager(toy, SIGNATURE)
    for size in (16, 24):  # the second was not calibrated on
        image = rng.standard_normal((1, 3, size, size), dtype=np.float32)
        batch = {"image": image, "scale": np.float32([[3, 1]])}
        found, expected = run(batch)["rows"], exact(batch)["rows"]
        assert found.shape == expected.shape == (5, 4)
        # the best by score; int8 may choose others of nearly the same
        difference = np.abs(found[:, 0] - expected[:, 0]).max() / np.abs(expected).max()
        assert 0 < difference < {"fp16": 1e-2, "int8": 0.1}[precision]
    weights = toy.head.weight.numpy()
    constants, types, outputs = onnx_file(tmp_path) if to == "onnx" else openvino_file(tmp_path)
    assert any(x.dtype == np.float32 and np.array_equal(x, weights) for x in constants)
    low = [x for x in constants if x.shape in ((8, 3, 3, 3), (8, 8, 3, 3))]
    assert {x.dtype for x in low} == {np.dtype({"fp16": "float16", "int8": "int8"}[precision])}
    assert len(low) == 2 and outputs == ["rows"]
    assert types & {"Cast", "QuantizeLinear", "FakeQuantize"}


def onnx_file(folder):
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(f"{folder}/inference.onnx").graph
    constants = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    return constants, {node.op_type for node in graph.node}, [x.name for x in graph.output]


def openvino_file(folder):
    import openvino

    model = openvino.Core().read_model(f"{folder}/inference.xml")
    operators = model.get_ops()
    constants = [x.get_data() for x in operators if x.get_type_name() == "Constant"]
    names = [x.get_any_name() for x in model.outputs]
    return constants, {x.get_type_name() for x in operators}, names


def test_a_model_whose_types_do_not_fit_is_refused(toy, monkeypatch):
    """As those of Mask2Former in fp16, whose converter leaves float32 beside float16."""
    pytest.importorskip("paddle2onnx", reason="needs the extra onnx")
    import onnx

    def wrong(model, full_check):
        raise onnx.shape_inference.InferenceError("B has inconsistent type\nand more")

    monkeypatch.setattr(onnx.checker, "check_model", wrong)
    with pytest.raises(ExportError, match="has no right ONNX in fp32: B has inconsistent type$"):
        to_onnx(toy.body, Signature({"image": (1, 3, 8, 8)}, ("y",)))


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_without_a_trunk_all_is_reduced(toy, tmp_path, to):
    for package in NEEDS[to]:
        pytest.importorskip(package, reason=f"needs the extras {to} and int8")
    images = [np.random.default_rng(0).standard_normal((3, 8, 8), dtype=np.float32)] * 2
    signature = Signature({"image": (1, 3, 8, 8)}, ("y",))
    TARGETS[to].write(toy.body, tmp_path, signature, "int8", images)
    constants, _, outputs = (onnx_file if to == "onnx" else openvino_file)(tmp_path)
    assert outputs == ["y"] and any(x.dtype == np.int8 and x.size == 216 for x in constants)
