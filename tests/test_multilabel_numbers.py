"""Losses and metrics for several labels an image, and weights of classes: PaddleClas's values,
recorded from its own classes, formulas in NumPy, and what is refused.
"""

import numpy as np
import paddle
import pytest

from ppcls_nextvit.engine.distributed import Processes
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks.classification.losses import LOSSES
from ppcls_nextvit.tasks.classification.metrics import METRICS, build_metric, gathered
from ppcls_nextvit.tasks.classification.multilabel_metrics import average_precision
from ppcls_nextvit.tasks.classification.task import ClassificationTask

assert ClassificationTask  # which registers the entries of all modules
RATIO = [0.1, 0.4, 0.7, 0.25]


def example():
    """(logits float32 [6, 4], labels float32 [6, 4])."""
    rng = np.random.default_rng(5)
    logits = (3 * rng.standard_normal((6, 4))).astype("float32")
    return logits, (rng.random((6, 4)) < 0.4).astype("float32")


def value(name, keys, logits, label, **batch):
    """(loss, its slope)."""
    tensor = paddle.to_tensor(logits, stop_gradient=False)
    batch = {"label": paddle.to_tensor(label), **batch}
    loss = LOSSES.build(name, keys, "Loss")(tensor, batch)
    loss.backward()
    return float(loss), tensor.grad.numpy()


OTHER = {
    "gamma_pos": 0,
    "gamma_neg": 2,
    "clip": 0.1,
    "disable_focal_loss_grad": False,
    "reduction": "mean",
}
# The example through PaddleClas's classes (ppcls/loss/multilabelloss.py) on paddlepaddle 3.3.1
PADDLECLAS = [
    ("MultiLabelLoss", {}, 1.2493188),
    ("MultiLabelLoss", {"epsilon": 0.1}, 1.2416183),
    ("MultiLabelLoss", {"size_sum": True}, 4.9972758),
    ("MultiLabelLoss", {"weight_ratio": True}, 1.9995289),
    ("MultiLabelLoss", {"weight_ratio": True, "size_sum": True, "epsilon": 0.2}, 7.8024201),
    ("MultiLabelAsymmetricLoss", {}, 17.9551868),
    ("MultiLabelAsymmetricLoss", OTHER, 0.8334724),
    ("MultiLabelAsymmetricLoss", {"clip": None}, 22.7699642),
]


@pytest.mark.parametrize("name, keys, expected", PADDLECLAS)
def test_values_are_paddleclas_values(name, keys, expected):
    ratio = paddle.to_tensor(RATIO)
    assert value(name, keys, *example(), label_ratio=ratio)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["MultiLabelLoss", "MultiLabelAsymmetricLoss"])
def test_certainty_and_low_precision_have_finite_slopes(name):
    _, label = example()
    for sign in (1, -1):
        loss, slope = value(name, {}, sign * 200 * (2 * label - 1), label)
        assert np.isfinite(loss) and np.isfinite(slope).all()
    wrong = value("MultiLabelLoss", {}, -200 * (2 * label - 1), label)
    assert wrong[0] == pytest.approx(200) and np.abs(wrong[1]).min() == pytest.approx(1 / 24)
    half = LOSSES.build(name, {}, "Loss")(
        paddle.to_tensor(example()[0]).astype("float16"), {"label": paddle.to_tensor(label)}
    )
    assert half.dtype == paddle.float32


def test_labels_of_another_shape_are_named():
    logits, label = example()
    with pytest.raises(ValueError, match=r"of shape \[6, 4\]; got labels of shape \[6\]"):
        value("MultiLabelLoss", {}, logits, label[:, 0])
    with pytest.raises(ValueError, match="set label_ratio: True in the dataset"):
        value("MultiLabelLoss", {"weight_ratio": True}, logits, label)


# ---- weights of classes, focal loss

WEIGHTS = [0.5, 2.0, 1.0, 0.0]
CLASSES = np.array([0, 3, 1, 1, 2, 0])


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("gamma", [None, 0.0, 0.5, 2.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("mixed", [False, True])
def test_weighted_and_focal_values_are_those_of_the_formula(gamma, epsilon, weights, mixed):
    """Without mixing, PyTorch's and Paddle's weighted cross entropy, smoothed."""
    logits, _ = example()
    logs = log_softmax(logits)
    cost = -logs * (1 - np.exp(logs)) ** (gamma or 0.0)
    lam, others = np.linspace(0.2, 1, 6)[:, None], np.roll(CLASSES, 1)
    share = lam * np.eye(4)[CLASSES] + (1 - lam) * np.eye(4)[others]
    target = share if mixed else np.eye(4)[CLASSES]
    w = np.array(weights or [1.0] * 4)
    expected = (w * ((1 - epsilon) * target + epsilon / 4) * cost).sum() / (w * target).sum()
    keys = {"epsilon": epsilon, "class_weights": weights}
    name = "CELoss" if gamma is None else "FocalLoss"
    batch = {"label_b": paddle.to_tensor(others), "lam": paddle.to_tensor(lam[:, 0])}
    keys |= {} if gamma is None else {"gamma": gamma}
    found = value(name, keys, logits, CLASSES, **(batch if mixed else {}))
    assert found[0] == pytest.approx(expected, rel=1e-5) and np.isfinite(found[1]).all()


def test_a_batch_of_classes_that_do_not_count_costs_nothing():
    loss, slope = value("CELoss", {"class_weights": WEIGHTS}, example()[0], np.full(6, 3))
    assert loss == 0 and not slope.any()


@pytest.mark.parametrize("name", ["CELoss", "FocalLoss"])
def test_weights_of_another_number_are_named(name):
    with pytest.raises(ValueError, match="2 class_weights, but the model has 4 classes"):
        value(name, {"class_weights": [1.0, 2.0]}, example()[0], CLASSES)


# ---- metrics


def scored(items, logits, label, batch=7):
    metric = build_metric(items)
    for start in range(0, len(logits), batch):
        metric.update(
            paddle.to_tensor(logits[start : start + batch]),
            paddle.to_tensor(label[start : start + batch]),
        )
    return metric.result(gathered(metric, Processes()))


def ranking():
    """(logits [40, 5], labels [40, 5], of which the last class has none)."""
    rng = np.random.default_rng(7)
    logits = rng.standard_normal((40, 5)).astype("float32")
    label = (rng.random((40, 5)) < 0.3).astype("float32")
    label[:, 4] = 0
    return logits, label


# The same through PaddleClas's MultiLabelMAP (ppcls/metric/metrics.py)
@pytest.mark.parametrize(
    "map_type, expected", [("integral", 0.3114991707204505), ("11point", 0.3635880023380023)]
)
def test_the_mean_average_precision_is_paddleclas_s(map_type, expected):
    found = scored([{"MultiLabelMAP": {"map_type": map_type}}], *ranking())
    assert found == {"MultiLabelMAP": pytest.approx(expected, rel=1e-12)}


def test_average_precision_by_hand():
    """Right, wrong, right; then all equal; then the worst order."""
    assert average_precision(np.array([3, 2, 1]), np.array([1, 0, 1])) == (1 + 2 / 3) / 2
    assert average_precision(np.zeros(4), np.array([1, 0, 0, 0])) == 0.25
    assert average_precision(np.array([1, 2]), np.array([1, 0])) == 0.5
    eleven = average_precision(np.array([3, 2, 1]), np.array([1, 0, 1]), "11point")
    assert eleven == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    tens = average_precision(np.arange(10)[::-1], np.r_[np.ones(3), np.zeros(7)], "11point")
    assert tens == 1.0


def test_order_and_batches_change_nothing():
    logits, label = ranking()
    logits = logits.round()  # many are equal
    order = np.random.default_rng(0).permutation(40)
    items = [{"MultiLabelMAP": None}, {"AccuracyScore": None}, {"HammingDistance": None}]
    assert scored(items, logits, label) == scored(items, logits[order], label[order], batch=1)


def test_counted_metrics_by_hand():
    logits = np.float32([[2, -1, 0], [-3, 1, -1], [0.5, 0.5, 0.5]])
    label = np.float32([[1, 0, 1], [0, 1, 0], [1, 0, 0]])
    items = [
        {"HammingDistance": None},
        {"AccuracyScore": {"base": "sample"}},
    ]
    expected = {"label_accuracy": 7 / 9, "HammingDistance": 2 / 9, "AccuracyScore": 2 / 3}
    assert scored(items, logits, label) == pytest.approx(expected)
    assert scored([{"AccuracyScore": None}], logits, label) == {"AccuracyScore": 7 / 9}
    # from 0.6 on, which is a logit of 0.405: the first image loses a label
    high = scored([{"AccuracyScore": {"base": "sample", "threshold": 0.6}}], logits, label)
    assert high == {"AccuracyScore": 1 / 3}


def test_what_is_no_number_is_wrong():
    nan = np.full((2, 2), np.nan, "float32")
    label = np.float32([[1, 0], [0, 1]])
    items = [{"AccuracyScore": None}, {"MultiLabelMAP": None}]
    assert scored(items, nan, label) == {"AccuracyScore": 0.0, "MultiLabelMAP": 0.5}


class OneOf(Processes):
    """A process of two that hears `others`, the vectors that the other one sends."""

    def sum(self, values):
        return np.asarray(values, np.float64) + self.others.pop(0)


def test_processes_tell_together_what_one_tells():
    logits, label = ranking()
    parts = [(logits[:25], label[:25]), (logits[25:], label[25:])]
    metrics = []
    for part in parts:
        metric = METRICS.build("MultiLabelMAP", {}, "Metric")
        metric.update(*map(paddle.to_tensor, part))
        metrics.append(metric)
    # what the second process sends: its sizes, then its images behind those of the first
    sizes = np.array([0, 0, 15, 5])
    images = np.zeros((2, 40, 5))
    images[:, 25:] = np.stack(parts[1])
    first = OneOf(rank=0, world_size=2)
    object.__setattr__(first, "others", [sizes, images.reshape(-1)])
    alone = scored([{"MultiLabelMAP": None}], logits, label)
    assert metrics[0].result(metrics[0].gather(first)) == alone
    # and one that had no image
    empty = METRICS.build("MultiLabelMAP", {}, "Metric")
    idle = OneOf(rank=1, world_size=2)
    whole = np.stack([logits, label])
    object.__setattr__(idle, "others", [np.array([40, 5, 0, 0]), whole.reshape(-1)])
    assert empty.result(empty.gather(idle)) == alone


def test_the_best_model_is_chosen_by_what_is_better_when_larger():
    assert build_metric([{"HammingDistance": None}]).names[0] == "label_accuracy"
    both = build_metric([{"MultiLabelMAP": None}, {"HammingDistance": None}])
    assert both.names == ["MultiLabelMAP", "label_accuracy", "HammingDistance"]


@pytest.mark.parametrize(
    "items, message",
    [
        ([{"AccuracyScore": {"base": "image"}}], "base: got 'image'"),
        ([{"AccuracyScore": {"threshold": 1}}], "threshold must be a probability between 0 and 1"),
        ([{"MultiLabelMAP": {"map_type": "12point"}}], "map_type: got '12point'"),
        ([{"AccuracyScore": {}}, {"AccuracyScore": {"base": "sample"}}], "AccuracyScore would be"),
    ],
)
def test_bad_metrics_are_refused_by_name(items, message):
    with pytest.raises(ConfigError, match=message):
        build_metric(items)


def test_nothing_to_measure_is_an_error():
    for name in ("AccuracyScore", "HammingDistance", "MultiLabelMAP"):
        metric = build_metric([{name: None}])
        with pytest.raises(ValueError, match="no image"):
            metric.result(gathered(metric, Processes()))
    with pytest.raises(ValueError, match="no image of the evaluation set has a label"):
        scored([{"MultiLabelMAP": None}], np.zeros((3, 2), "float32"), np.zeros((3, 2), "float32"))
