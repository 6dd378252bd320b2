"""Top-k accuracy as integer counts."""

import numpy as np
import paddle
import pytest

from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks.classification.metrics import build_metric


def topk(*ks):
    return build_metric([{"TopkAcc": {"topk": list(ks)}}])


def test_counts_by_hand():
    metric = topk(1, 2)
    metric.update(
        paddle.to_tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]),
        paddle.to_tensor([1, 1, 0]),
    )
    metric.update(paddle.to_tensor([[3.0, 2.0, 1.0]]), paddle.to_tensor([0]))
    assert metric.counts().tolist() == [4, 2, 3] and metric.counts().dtype == np.int64
    assert metric.result(metric.counts()) == {"top1": 0.5, "top2": 0.75}
    metric.reset()
    assert metric.counts().tolist() == [0, 0, 0]


def test_counts_equal_a_sort_and_sum_exactly_over_processes():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((103, 20)).astype("float32"), rng.integers(0, 20, 103)
    best_first = np.argsort(-logits, axis=1)
    expected = [103] + [int((best_first[:, :k] == labels[:, None]).any(1).sum()) for k in (1, 5)]
    shares = []
    for rank in range(3):  # 35 + 34 + 34 images
        metric = topk(1, 5)
        metric.update(paddle.to_tensor(logits[rank::3]), paddle.to_tensor(labels[rank::3]))
        shares.append(metric.counts())
    assert sum(shares).tolist() == expected
    assert topk(1, 5).result(sum(shares)) == {"top1": expected[1] / 103, "top5": expected[2] / 103}


def test_more_than_all_classes_is_always_right_as_in_paddleclas():
    metric = topk(1, 5)
    # PaddleClas's labels have a second axis
    metric.update(paddle.to_tensor([[0.0, 1.0, 2.0]]), paddle.to_tensor([[0]]))
    assert metric.counts().tolist() == [1, 0, 1]


def test_ties_go_to_the_lower_class_and_not_a_number_is_wrong():
    metric = topk(1)
    metric.update(paddle.zeros([4, 4]), paddle.to_tensor([0, 1, 2, 3]))
    assert metric.counts().tolist() == [4, 1]
    metric.reset()
    metric.update(
        paddle.to_tensor([[float("nan")] * 2, [float("nan"), 1.0], [0.0, float("nan")]]),
        paddle.to_tensor([0, 1, 0]),
    )
    assert metric.counts().tolist() == [3, 0]


def test_one_number_is_a_list_of_one():
    assert build_metric([{"TopkAcc": {"topk": 3}}]).topk == [3]
    assert build_metric([{"TopkAcc": None}]).topk == [1, 5]


@pytest.mark.parametrize(
    "items, message",
    [
        (
            [{"TopKAcc": {}}],
            r"Metric.Eval.0.TopKAcc: unknown metric 'TopKAcc'. Did you mean 'TopkAcc'",
        ),
        ([{"TopkAcc": {"k": 1}}], "TopkAcc.k: unknown key"),
        ([{"TopkAcc": {"topk": [0]}}], "1 or more; got \\[0\\]"),
        ([{"TopkAcc": {"topk": [1, 1]}}], "different numbers"),
        ([{"TopkAcc": {}}, {"TopkAcc": {}}], "top1, top5 would be told twice"),
        ({"TopkAcc": {}}, "Metric.Eval: expected a list"),
    ],
)
def test_bad_lists_are_refused_by_name(items, message):
    with pytest.raises(ConfigError, match=message):
        build_metric(items)


def test_an_empty_evaluation_is_an_error():
    with pytest.raises(ValueError, match="no image was evaluated"):
        topk(1).result(topk(1).counts())
