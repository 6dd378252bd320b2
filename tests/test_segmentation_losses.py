"""Losses of label maps: PaddleSeg's values, recorded from its own classes, the formulas in NumPy,
and what is refused.
"""

import numpy as np
import paddle
import pytest

from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.tasks.segmentation.losses import LOSSES, build_loss
from ppcls_nextvit.tasks.segmentation.task import SegmentationTask
from support.paths import ROOT

SEMFPN = ROOT / "configs" / "quickstart" / "nuclei_semfpn.yaml"
WEIGHTS = [0.5, 2.0, 1.0]


def example(classes=3, seed=3):
    """Logits float32 [2, classes, 12, 10] and labels [2, 12, 10], with 35 pixels to ignore."""
    rng = np.random.default_rng(seed)
    logits = (2 * rng.standard_normal((2, classes, 12, 10))).astype("float32")
    label = rng.integers(0, classes, (2, 12, 10))
    label[0, :3] = label[1, 5, 5:] = 255
    return logits, label


def value(name, keys, logits, label):
    """(the decode head's part, the slope of the logits)."""
    tensor = paddle.to_tensor(logits, stop_gradient=False)
    parts = LOSSES.build(name, keys, "Loss")([tensor], paddle.to_tensor(label))
    (part,) = parts.values()
    part.backward()
    return float(part), tensor.grad.numpy()


# The example through PaddleSeg 2.8.0's classes (paddleseg/models/losses) on paddlepaddle 3.3.1
PADDLESEG = [
    ("DiceLoss", {}, 3, 0.7029839),
    ("DiceLoss", {"class_weights": WEIGHTS, "smooth": 0.5}, 3, 0.8183157),
    ("FocalLoss", {"alpha": 0.3, "gamma": 1.5}, 2, 0.3865047),
    ("LovaszSoftmaxLoss", {}, 3, 0.7826685),
    ("LovaszSoftmaxLoss", {"classes": [0, 2]}, 3, 0.7988666),
]


@pytest.mark.parametrize("name, keys, classes, expected", PADDLESEG)
def test_values_are_paddleseg_values(name, keys, classes, expected):
    assert value(name, keys, *example(classes))[0] == pytest.approx(expected, rel=1e-6)


def probabilities(logits):
    """float64 [pixels, classes], of the pixels in order."""
    exponent = np.exp(logits.astype(np.float64))
    share = exponent / exponent.sum(axis=1, keepdims=True)
    return share.transpose(0, 2, 3, 1).reshape(-1, logits.shape[1])


def hard_pixels(p, limit):
    return -np.log(p[p < limit]).mean()


def formulas(logits, label):
    """(name, keys, value by the formula) in float64, over what is not ignored."""
    label = label.reshape(-1)
    counted = label != 255
    truth = label[counted]
    p = probabilities(logits)[counted, truth]
    weights = np.array(WEIGHTS)[truth]
    cost = -np.log(p)
    mean_weight = {"class_weights": WEIGHTS, "avg_non_ignore": True}
    yield "CrossEntropyLoss", mean_weight, (weights * cost).sum() / weights.sum()
    yield "CrossEntropyLoss", {"class_weights": WEIGHTS}, (weights * cost).sum() / label.size
    yield "MultiClassFocalLoss", {"num_class": 3, "alpha": 0.7}, (0.7 * (1 - p) ** 2 * cost).mean()
    yield "MultiClassFocalLoss", {"gamma": 0.0}, cost.mean()
    # a threshold below the 60th lowest probability, one above it, and more to keep than there is
    for thresh, kept in ((0.05, 60), (0.3, 20)):
        limit = max(thresh, np.sort(p)[kept - 1])
        keys = {"thresh": thresh, "min_kept": kept}
        yield "OhemCrossEntropyLoss", keys, hard_pixels(p, limit)
    yield "OhemCrossEntropyLoss", {"min_kept": 205}, cost.mean()
    both = np.eye(3)[truth]
    rest = probabilities(logits)[counted]
    hinge = [lovasz(both[:, c], rest[:, c]) for c in range(3)]
    yield "LovaszSoftmaxLoss", {"classes": "all"}, np.mean(hinge)


def lovasz(truth, p):
    """The sum of each error times what its pixel, as the next worst, takes from the IoU."""
    error = np.abs(truth - p)
    order, total, last = np.argsort(-error), 0.0, 0.0
    for count in range(1, len(order) + 1):
        worst = order[:count]
        missed, false = truth[worst].sum(), (1 - truth[worst]).sum()
        loss = 1 - (truth.sum() - missed) / (truth.sum() + false)
        total += error[order[count - 1]] * (loss - last)
        last = loss
    return total


@pytest.mark.parametrize("number", range(8))
def test_values_are_those_of_the_formulas(number):
    name, keys, expected = list(formulas(*example()))[number]
    assert value(name, keys, *example())[0] == pytest.approx(expected, rel=1e-5)


LEARN = [
    ("CrossEntropyLoss", {"class_weights": WEIGHTS}),
    ("OhemCrossEntropyLoss", {"min_kept": 50}),
    ("DiceLoss", {}),
    ("FocalLoss", {"gamma": 0.5}),
    ("MultiClassFocalLoss", {"gamma": 0.5}),
    ("LovaszSoftmaxLoss", {}),
]


@pytest.mark.parametrize("name, keys", LEARN)
def test_slopes_are_those_of_the_values_and_ignored_pixels_have_none(name, keys):
    logits, label = example()
    slope = value(name, keys, logits, label)[1]
    assert not slope.transpose(0, 2, 3, 1)[label == 255].any()
    rng = np.random.default_rng(0)
    step = rng.standard_normal(logits.shape).astype("float32")
    ends = [value(name, keys, logits + sign * 1e-3 * step, label)[0] for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(float((slope * step).sum()), rel=0.02)


@pytest.mark.parametrize("name, keys", LEARN)
def test_nothing_to_learn_costs_nothing_and_certainty_has_finite_slopes(name, keys):
    logits, label = example()
    cost, slope = value(name, keys, logits, np.full_like(label, 255))
    empty = 0.0 if name != "DiceLoss" else pytest.approx(0, abs=1e-6)
    assert cost == empty and np.abs(slope).max() == 0
    sure = 200 * np.eye(3, dtype="float32")[np.where(label == 255, 0, label)].transpose(0, 3, 1, 2)
    for sign in (1, -1):
        cost, slope = value(name, keys, sign * sure, label)
        assert np.isfinite(cost) and np.isfinite(slope).all()


def test_classes_that_count_nothing_are_not_learnt_from():
    logits, label = example()
    keys = {"class_weights": [0, 1, 1], "avg_non_ignore": True}
    cost, slope = value("CrossEntropyLoss", keys, logits, label)
    assert cost > 0 and not slope.transpose(0, 2, 3, 1)[label == 0].any()
    only = value("CrossEntropyLoss", keys, logits, np.zeros_like(label))
    assert only[0] == 0 and not only[1].any()


def test_a_mixed_loss_adds_its_losses_by_head():
    logits, label = example()
    losses = [{"CrossEntropyLoss": {"auxiliary_weight": 0.5}}, {"DiceLoss": None}]
    mixed = build_loss([{"MixedLoss": {"losses": losses, "coef": [0.8, 0.2]}}])
    maps = [paddle.to_tensor(logits), paddle.to_tensor(-logits)]
    parts = {name: float(part) for name, part in mixed(maps, paddle.to_tensor(label)).items()}
    alone = {
        f"{head}_{name}": share * float(part)
        for (name, loss), share in zip(mixed.losses.items(), (0.8, 0.2), strict=True)
        for head, part in loss(maps, paddle.to_tensor(label)).items()
    }
    assert parts == pytest.approx(alone, rel=1e-6) and list(parts) == [
        "decode_CrossEntropyLoss",
        "auxiliary_CrossEntropyLoss",
        "decode_DiceLoss",
        "auxiliary_DiceLoss",
    ]


@pytest.mark.parametrize(
    "name, keys, message",
    [
        ("OhemCrossEntropyLoss", "{thresh: 1.5}", "thresh must be a probability above 0"),
        ("OhemCrossEntropyLoss", "{min_kept: 0}", "min_kept 1 or more; got 0.7, 0"),
        ("DiceLoss", "{smooth: -1}", "smooth must be 0 or more; got -1"),
        ("FocalLoss", "{alpha: 2}", "alpha must be from 0 to 1"),
        ("MultiClassFocalLoss", "{gamma: -1}", "gamma 0 or more"),
        ("MultiClassFocalLoss", "{num_class: 3}", "num_class is 3, but the model has 2 classes"),
        ("LovaszSoftmaxLoss", "{classes: some}", "classes"),
        ("LovaszSoftmaxLoss", "{classes: [-1]}", "numbers of classes; got"),
        ("LovaszSoftmaxLoss", "{classes: [0, 2]}", "names class 2, but the model has 2 classes"),
        ("CrossEntropyLoss", "{class_weights: [1, -1]}", "class_weights: .* 0 or more.* got -1"),
        ("CrossEntropyLoss", "{class_weights: [1, .nan]}", "class_weights.1: expected float"),
        ("CrossEntropyLoss", "{class_weights: [1, .inf]}", "finite numbers.* got inf"),
        ("CrossEntropyLoss", "{class_weights: [0, 0]}", "not all of them 0"),
        ("DiceLoss", "{class_weights: [1, 1, 1]}", "3 weights for 2 classes"),
        ("MixedLoss", "{losses: [{DiceLoss: {}}], coef: [1, 2]}", "got 2 for 1"),
        ("MixedLoss", "{losses: [{DiceLoss: {}}], coef: [-1]}", "coef must be 0 or more"),
        ("MixedLoss", "{losses: [], coef: []}", "1 or more losses; got 0 for 0"),
        ("MixedLoss", "{losses: [{DiceLoss: {}}, {DiceLoss: {}}], coef: [1, 1]}", "given once"),
        ("MixedLoss", "{losses: [{DiceLos: {}}], coef: [1]}", "Did you mean 'DiceLoss'"),
        (
            "MixedLoss",
            "{losses: [{DiceLoss: {class_weights: [1]}}], coef: [1]}",
            "Loss.Train.0.MixedLoss.losses.0.DiceLoss.class_weights: 1 weights for 2 classes",
        ),
    ],
)
def test_bad_values_are_refused_before_the_data_are_touched(name, keys, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_config(SEMFPN, [f"Loss.Train=[{{{name}: {keys}}}]"])
    assert "\n" not in str(error.value)


def test_weights_of_other_classes_are_named():
    logits, label = example()
    with pytest.raises(ValueError, match="2 class_weights, but the model has 3 classes"):
        value("CrossEntropyLoss", {"class_weights": [1.0, 1.0]}, logits, label)


def test_several_labels_an_image_are_for_classifiers():
    with pytest.raises(ConfigError, match="use_multilabel: is for classifiers, which SemanticFPN"):
        load_config(SEMFPN, ["Global.use_multilabel=True"])
    assert load_config(SEMFPN, ["Loss.Eval=null"])


@pytest.mark.parametrize("name, keys", LEARN)
def test_every_loss_loads_by_name(name, keys):
    weights = {"class_weights": [1, 2]} if "class_weights" in keys else keys
    config = load_config(SEMFPN, [f"Loss.Train=[{{{name}: {weights}}}]".replace("'", "")])
    SegmentationTask.check(config)
