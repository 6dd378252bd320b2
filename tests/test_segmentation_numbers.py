"""Loss, metric and inference of segmentation, against numbers worked out by hand."""

import math

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.models.segmentors.inference import Inference, best_class, segment, window_starts
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks.segmentation.losses import build_loss
from ppcls_nextvit.tasks.segmentation.metrics import build_metric
from ppcls_nextvit.tasks.segmentation.views import Views

# two classes, 1 x 4 pixels: logit differences ln 3, 0, -ln 3 and one that is ignored
LOGITS = paddle.to_tensor(np.float32([[[[math.log(3), 0, 0, 50]], [[0, 0, math.log(3), 0]]]]))
LABEL = paddle.to_tensor(np.uint8([[[0, 1, 0, 255]]]))
PIXELS = [math.log(4 / 3), math.log(2), math.log(4)]  # -log of 3/4, 1/2, 1/4


@pytest.mark.parametrize(
    "keys, expected",
    [
        ({}, sum(PIXELS) / 4),
        ({"avg_non_ignore": True}, sum(PIXELS) / 3),
        ({"weight": 2.0}, sum(PIXELS) / 2),
        ({"ignore_index": 1}, (PIXELS[0] + PIXELS[2]) / 4),
    ],
)
def test_cross_entropy_by_hand(keys, expected):
    parts = build_loss([{"CrossEntropyLoss": keys}])([LOGITS], LABEL)
    assert list(parts) == ["decode"] and float(parts["decode"]) == pytest.approx(expected, rel=1e-6)


def test_the_auxiliary_head_weighs_its_share():
    parts = build_loss([{"CrossEntropyLoss": {"auxiliary_weight": 0.4}}])([LOGITS, -LOGITS], LABEL)
    assert list(parts) == ["decode", "auxiliary"]
    assert float(parts["decode"]) == pytest.approx(sum(PIXELS) / 4)
    assert float(parts["auxiliary"]) == pytest.approx(0.4 * (PIXELS[2] + PIXELS[1] + PIXELS[0]) / 4)


def test_an_ignored_or_hopeless_pixel_has_the_gradient_it_should():
    logits = paddle.to_tensor(np.float32([[[[-100.0, 3.0]], [[100.0, 7.0]]]]), stop_gradient=False)
    parts = build_loss([{"CrossEntropyLoss": {}}])(
        [logits], paddle.to_tensor(np.uint8([[[0, 255]]]))
    )
    parts["decode"].backward()
    # of 200 / 2 pixels; Paddle's own kernel cuts it off at 64
    assert float(parts["decode"]) == pytest.approx(100.0)
    assert logits.grad.numpy().tolist() == [[[[-0.5, 0.0]], [[0.5, 0.0]]]]


def test_a_picture_without_a_labelled_pixel_costs_nothing():
    parts = build_loss([{"CrossEntropyLoss": {"avg_non_ignore": True}}])(
        [LOGITS], paddle.full([1, 1, 4], 255, "uint8")
    )
    assert float(parts["decode"]) == 0.0


def test_mean_iou_by_hand():
    """Classes 0 and 1 met, 2 only predicted, 3 neither: IoU 2/3, 1/3, 0/1; accuracy 2/3, 1/2;
    pixels 3/5.
    """
    metric = build_metric([{"MeanIoU": {}}], 4)
    metric.update(np.array([[0, 0, 1]]), np.array([[0, 0, 0]]))
    metric.update(np.array([[1, 2], [0, 3]]), np.array([[1, 1], [255, 255]]))
    counts = metric.counts()
    assert counts.dtype == np.int64 and counts[0] == 2
    result = metric.result(counts.astype(np.float64))  # as the sum over processes comes
    assert result["class_iou"] == pytest.approx([2 / 3, 1 / 3, 0, None])
    assert result["class_acc"] == pytest.approx([2 / 3, 1 / 2, None, None])
    assert result["mIoU"] == pytest.approx((2 / 3 + 1 / 3) / 3)
    assert result["mAcc"] == pytest.approx((2 / 3 + 1 / 2) / 2) and result["aAcc"] == pytest.approx(
        3 / 5
    )
    # the first decides which model is best
    assert metric.names == tuple(result)[:3] == ("mIoU", "mAcc", "aAcc")


def test_counts_of_parts_add_up():
    rng = np.random.default_rng(0)
    images = [
        (rng.integers(0, 5, (6, 7)), rng.choice([0, 1, 2, 3, 4, 255], (6, 7))) for _ in range(4)
    ]
    whole, parts = (
        build_metric([{"MeanIoU": {}}], 5),
        [build_metric([{"MeanIoU": {}}], 5) for _ in range(2)],
    )
    for i, pair in enumerate(images):
        whole.update(*pair), parts[i % 2].update(*pair)
    assert whole.result(whole.counts()) == whole.result(parts[0].counts() + parts[1].counts())


def test_an_empty_set_is_refused():
    metric = build_metric([{"MeanIoU": {}}], 2)
    with pytest.raises(ValueError, match="no image was evaluated"):
        metric.result(metric.counts())
    metric.update(np.zeros((2, 3), np.int64), np.full((2, 3), 255))
    with pytest.raises(
        ValueError, match="no pixel of the evaluation set is labelled, all are ignored"
    ):
        metric.result(metric.counts())


def test_pixel_accuracy_leaves_the_ignored_out():
    metric = build_metric([{"PixelAccuracy": {}}], 3)
    metric.update(np.array([[[0, 1, 2, 2]]]), np.array([[[0, 1, 0, 255]]]))
    assert metric.counts().tolist() == [1, 2, 3] and metric.result(metric.counts()) == {
        "aAcc": pytest.approx(2 / 3)
    }


@pytest.mark.parametrize("name", ["MeanIoU", "PixelAccuracy"])
def test_a_batch_counts_as_its_images(name):
    rng = np.random.default_rng(0)
    prediction, label = rng.integers(0, 3, (4, 5, 6)), rng.choice([0, 1, 2, 255], (4, 5, 6))
    batch, images = (build_metric([{name: {}}], 3) for _ in range(2))
    batch.update(prediction, label)
    for pair in zip(prediction, label, strict=True):
        images.update(*pair)
    assert batch.counts()[0] == 4 and batch.counts().tolist() == images.counts().tolist()


def test_another_ignored_label_leaves_255_ignored():
    pixels, iou = (
        build_metric([{name: {"ignore_index": 0}}], 3) for name in ("PixelAccuracy", "MeanIoU")
    )
    pixels.update(np.array([[[0, 1, 2, 2]]]), np.array([[[0, 1, 1, 255]]]))
    iou.update(np.array([[0, 1, 2, 2]]), np.array([[0, 1, 1, 255]]))
    assert pixels.counts().tolist() == [1, 1, 2] and iou.result(iou.counts())["class_iou"] == [
        None,
        0.5,
        0,
    ]


@pytest.mark.parametrize(
    "length, expected",
    [
        (100, [0]),
        (512, [0]),
        (513, [0, 1]),
        (683, [0, 171]),
        (853, [0, 341]),
        (854, [0, 341, 342]),
        (2048, [0, 341, 682, 1023, 1364, 1536]),
    ],
)
def test_windows_of_512_every_341(length, expected):
    assert window_starts(length, 512, 341) == expected


class Recorder:
    """Stands for a model whose logits at a pixel are (value, -value) of the image's first channel;
    keeps the shapes it was asked for.
    """

    num_classes = 2

    def __init__(self):
        self.shapes = []

    def __call__(self, images):
        self.shapes.append(tuple(images.shape[2:]))
        return paddle.concat([images[:, :1], -images[:, :1]], axis=1)

    decode = __call__


def test_sliding_a_pixelwise_model_changes_nothing():
    """Whatever the overlap, the mean over windows of a model that sees single pixels is the model
    itself.
    """
    image = paddle.randn([2, 3, 5, 9])
    views, originals = [(image, [(5, 9), (4, 7)])], [(5, 9), (4, 7)]
    whole, slide = Recorder(), Recorder()
    inference = Inference(mode="slide", crop_size=(4, 4), stride=(3, 3))
    labels = [
        segment(model, views, originals, how)
        for model, how in ((whole, Inference()), (slide, inference))
    ]
    # 2 rows, 3 columns
    assert whole.shapes == [(5, 9)] and slide.shapes == [(4, 4)] * 6
    for one, other, shape in zip(*labels, originals, strict=True):
        assert one.shape == list(shape) and np.array_equal(one.numpy(), other.numpy())
    # padding cut off
    assert np.array_equal(labels[0][1].numpy(), (image[1, 0, :4, :7] < 0).astype("int64").numpy())


def test_overlapping_windows_are_averaged():
    """The model answers with the first pixel of what it sees against a constant 1.4; where two
    windows answer, their mean counts.
    """

    class FirstPixel:
        num_classes = 2

        def __call__(self, images):
            value = paddle.full([1, 1, *images.shape[2:]], float(images[0, 0, 0, 0]))
            return paddle.concat([value, paddle.full_like(value, 1.4)], axis=1)

    image = paddle.zeros([1, 3, 1, 6])
    # windows at 0 and 2 answer 0 and 2; where both are seen, 1
    image[:, :, :, 2:] = 2.0
    (labels,) = segment(
        FirstPixel(),
        [(image, [(1, 6)])],
        [(1, 6)],
        Inference(mode="slide", crop_size=(1, 4), stride=(1, 2)),
    )
    assert labels.numpy().tolist() == [[1, 1, 1, 1, 0, 0]]


def test_logits_are_resized_to_the_original_bilinearly_with_half_pixel_centres():
    image = paddle.to_tensor(np.float32([[[[-3.0, 1.0]]]])).expand([1, 3, 1, 2])
    (labels,) = segment(Recorder(), [(image, [(1, 2)])], [(1, 8)], Inference())
    # at 8 pixels the values are -3, -3, -2.5, -1.5, -0.5, 0.5, 1, 1; corners aligned, they would be
    # -3, -2.43, ..., -0.14, 0.43, 1
    assert labels.numpy().tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize("device", ["cpu", "gpu:0"])
@pytest.mark.parametrize(
    "padded, shape, original",
    [((20, 31), (20, 31), (20, 31)), ((20, 31), (17, 30), (40, 19)), ((9, 8), (9, 8), (5, 40))],
)
def test_the_best_class_is_that_of_the_logits_resized_twice(
    monkeypatch, device, padded, shape, original
):
    """To the input's size, cut to what is image, to the original's; here in float64, on a CPU and
    by what runs elsewhere.
    """
    monkeypatch.setattr(paddle.device, "get_device", lambda: device)
    logits = paddle.to_tensor(np.random.default_rng(4).standard_normal((6, 5, 8)))
    resized = F.interpolate(logits.unsqueeze(0), size=padded, mode="bilinear")[
        :, :, : shape[0], : shape[1]
    ]
    expected = F.interpolate(resized, size=original, mode="bilinear")[0].argmax(axis=0).numpy()
    assert np.array_equal(
        best_class(logits.astype("float32"), padded, shape, original).numpy(), expected
    )
    assert expected.shape == original and len(np.unique(expected)) == 6


def test_flip_and_scales_average_probabilities():
    """Views (1, 3 pixels) and their mirror images through a model that sees the column: worked out
    with numpy.
    """

    class Columns:
        def __call__(self, images):
            columns = paddle.arange(images.shape[3], dtype="float32").expand(
                [1, 1, *images.shape[2:]]
            )
            return paddle.concat([images[:, :1] + columns, 2 * images[:, 1:2]], axis=1)

    rng = np.random.default_rng(3)
    views = [
        (paddle.to_tensor(rng.standard_normal((1, 3, 4, w), dtype=np.float32) * 2), [(4, w)])
        for w in (6, 8)
    ]
    (labels,) = segment(Columns(), views, [(4, 6)], Inference(ratios=(1.0, 1.25), flip=True))
    expected = 0
    for image, _ in views:
        upright = F.interpolate(Columns()(image), size=[4, 6], mode="bilinear")
        mirror = F.interpolate(Columns()(image.flip(-1)), size=[4, 6], mode="bilinear")
        expected = expected + F.softmax(upright, axis=1) + F.softmax(mirror, axis=1).flip(-1)
    assert np.array_equal(labels.numpy(), expected[0].argmax(axis=0).numpy())
    assert len(set(labels.numpy().reshape(-1).tolist())) == 2


@pytest.mark.parametrize(
    "more, views",
    [({}, 1), ({"flip": True}, 2), ({"ratios": (0.5, 1.0)}, 2), ({"ratios": (2.0,)}, 1)],
)
def test_an_image_of_several_views_is_averaged(more, views):
    assert Inference(**more).averages == (views > 1)


def test_of_several_views_probabilities_are_averaged_and_not_logits():
    """Of three classes: of two, both have the same winner."""
    views = iter([[4.0, 0.0, 0.0], [-10.0, 1.0, 0.0]])  # whose sum is largest for class 1

    def model(images):
        logits = paddle.to_tensor(next(views)).reshape([1, 3, 1, 1])
        return logits.expand([1, 3, *images.shape[2:]])

    image = paddle.zeros([1, 3, 2, 4])
    (labels,) = segment(model, [(image, [(2, 4)])], [(2, 4)], Inference(flip=True))
    assert labels.numpy().tolist() == [[0] * 4] * 2


def test_a_mirrored_view_keeps_its_padding_at_the_right():
    model, image = Recorder(), paddle.zeros([1, 3, 2, 4])
    image[:, :, :, :3] = paddle.to_tensor([1.0, -1.0, -1.0])
    (labels,) = segment(model, [(image, [(2, 3)])], [(2, 3)], Inference(flip=True))
    assert labels.numpy().tolist() == [[0, 1, 1]] * 2


@pytest.mark.parametrize("scale", [[100, 66], [[100, 66]]])
def test_views_scale_what_resize_has_and_cut_to_whole_pixels(scale):
    pytest.importorskip("cv2", reason="needs the extra `cv2`")
    ops = [{"Resize": {"scale": scale}}, {"Normalize": {"mean": [0, 0, 0], "std": [1, 1, 1]}}]
    views = Views(ops, Inference(ratios=(0.5, 1.0, 1.75)), "here", min_size=32)
    made = list(views(np.full((80, 100, 3), 7, np.uint8), "name"))
    # scales [50, 33], [100, 66], [175, 115]; of 80 x 100 they hold 33 x 41, 66 x 83, 115 x 144
    assert [list(image.shape) for image, _ in made] == [
        [1, 3, 33, 41],
        [1, 3, 66, 83],
        [1, 3, 115, 144],
    ]
    assert [list(map(tuple, shapes)) for _, shapes in made] == [
        [(33, 41)],
        [(66, 83)],
        [(115, 144)],
    ] and float(made[0][0].max()) == 7
    with pytest.raises(
        ImageError, match="name: 18 x 50 pixels when transformed; the model needs 32 or more"
    ):
        list(views(np.zeros((24, 66, 3), np.uint8), "name"))
    with pytest.raises(ConfigError, match="there is no Resize"):
        Views([{"Normalize": {}}], Inference(ratios=(0.5,)), "here")
