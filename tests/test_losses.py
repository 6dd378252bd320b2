"""Losses: PaddleClas's values, recorded from its own classes, timm's order of smoothing and mixing,
and the teacher.
"""

import numpy as np
import paddle
import pytest

from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks.classification.losses import LOSSES, build_loss, target_distribution

LOGITS = [[2.0, -1.0, 0.5, 0.0], [0.1, 0.2, 0.3, -2.0]]
TEACHER = [[1.0, 0.0, 0.0, -1.0], [0.0, 0.0, 2.0, 1.0]]
LABEL = {"label": [0, 3]}
MIXED = {"label": [0, 3], "label_b": [3, 0], "lam": [0.3, 0.3]}
SOFT = {"soft_label": [[0.3, 0.0, 0.0, 0.7], [0.7, 0.0, 0.0, 0.3]]}  # the same thing
SMOOTH = {"name": "CELoss", "epsilon": 0.1}

# Both samples above through PaddleClas's CELoss, SoftTargetCrossEntropy and KLDivLoss (ppcls/loss)
# on paddlepaddle 3.3.1.
PADDLECLAS = [
    ({"name": "CELoss"}, LABEL, 1.8402214),
    (SMOOTH, LABEL, 1.8389711),
    (SMOOTH, MIXED, 1.8074713),
    (SMOOTH, SOFT, 1.8074713),
    ({"name": "MixCELoss", "epsilon": 0.1}, MIXED, 1.8074713),
    ({"name": "CELoss"}, MIXED, 1.8052213),
    ({"name": "SoftTargetCrossEntropy"}, SOFT, 1.8052213),
    ({"name": "DistillationLoss", "teacher": {"name": "T"}}, LABEL, 0.5623291),
    ({"name": "DistillationLoss", "teacher": {"name": "T"}, "temperature": 1}, MIXED, 0.3689537),
]


def batch_of(values):
    types = {"label": "int64", "label_b": "int64", "lam": "float32", "soft_label": "float32"}
    batch = {key: paddle.to_tensor(value, dtype=types[key]) for key, value in values.items()}
    return {**batch, "teacher_logits": paddle.to_tensor(TEACHER)}


def build(section):
    return LOSSES.build(
        section["name"], {key: value for key, value in section.items() if key != "name"}, "Loss"
    )


@pytest.mark.parametrize("section, batch, expected", PADDLECLAS)
def test_values_are_paddleclas_values(section, batch, expected):
    assert float(build(section)(paddle.to_tensor(LOGITS), batch_of(batch))) == pytest.approx(
        expected, rel=3e-6
    )


def test_smoothing_a_mixed_batch_equals_timms_mixup_targets():
    """timm's Mixup smooths both one-hots (off = eps / C, on = 1 - eps + off), then mixes;
    SoftTargetCrossEntropy follows.
    """
    rng = np.random.default_rng(0)
    logits, a, b = rng.standard_normal((8, 10)), rng.integers(0, 10, 8), rng.integers(0, 10, 8)
    lam = rng.uniform(0, 1, (8, 1))
    smooth = np.full((8, 10), 0.1 / 10)
    smooth_a, smooth_b = smooth.copy(), smooth.copy()
    smooth_a[np.arange(8), a] = smooth_b[np.arange(8), b] = 1 - 0.1 + 0.1 / 10
    target = lam * smooth_a + (1 - lam) * smooth_b
    log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    batch = batch_of({"label": a, "label_b": b, "lam": lam[:, 0]})
    np.testing.assert_allclose(target_distribution(batch, 10, 0.1).numpy(), target, rtol=1e-6)
    loss = build(SMOOTH)(paddle.to_tensor(logits, dtype="float32"), batch)
    assert float(loss) == pytest.approx(float(-(target * log_probability).sum(1).mean()), rel=1e-6)


def test_hard_distillation_is_cross_entropy_with_the_teachers_choice():
    hard = build({"name": "DistillationLoss", "teacher": {"name": "T"}, "kind": "hard"})
    cross_entropy = build({"name": "CELoss"})
    logits = paddle.to_tensor(LOGITS)
    assert float(hard(logits, batch_of(LABEL))) == pytest.approx(
        float(cross_entropy(logits, batch_of({"label": [0, 2]}))), rel=1e-6
    )


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_and_the_teacher_gets_no_gradient():
    loss = build({"name": "DistillationLoss", "teacher": {"name": "T"}})
    student, teacher = (
        paddle.to_tensor(TEACHER, stop_gradient=False),
        paddle.to_tensor(TEACHER, stop_gradient=False),
    )
    value = loss(student, {"teacher_logits": teacher})
    value.backward()
    assert float(value) == pytest.approx(0, abs=1e-6) and teacher.grad is None
    np.testing.assert_allclose(student.grad.numpy(), 0, atol=1e-6)


def test_half_precision_logits_are_computed_in_float32():
    """The sum of the two losses is beyond float16, and each beyond the 64 at which Paddle's
    log_softmax stops on CPU.
    """
    logits = paddle.to_tensor(
        np.array([[60000.0, 20000.0]] * 2, dtype="float16"), stop_gradient=False
    )
    loss = build({"name": "CELoss"})(logits, batch_of({"label": [1, 1]}))
    loss.backward()
    assert loss.dtype == paddle.float32 and float(loss) == 40000.0
    assert logits.grad.numpy().tolist() == [[0.5, -0.5]] * 2


def test_a_list_is_a_weighted_sum_with_named_parts():
    teacher = {"name": "NextViT_base_224", "pretrained": "weights"}
    combined = build_loss(
        [
            {"CELoss": {"weight": 0.5}},
            {"DistillationLoss": {"weight": 2.0, "teacher": teacher, "temperature": 1}},
            {"CELoss": {"weight": 1.0, "epsilon": 0.1}},
        ]
    )
    logits = paddle.to_tensor(LOGITS, stop_gradient=False)
    total, parts = combined(logits, batch_of(LABEL))
    assert list(parts) == ["CELoss", "DistillationLoss", "CELoss_2"]
    assert [float(part) for part in parts.values()] == pytest.approx(
        [0.5 * 1.8402214, 2 * 0.3689537, 1.8389711], rel=1e-6
    )
    assert float(total) == pytest.approx(sum(float(part) for part in parts.values()), rel=1e-6)
    assert not total.stop_gradient and all(part.stop_gradient for part in parts.values())
    assert combined.teacher == teacher
    assert build_loss([{"CELoss": {"weight": 1.0}}]).teacher is None


@pytest.mark.parametrize(
    "items, message",
    [
        ([{"CEloss": {}}], r"Loss.Train.0.CEloss: unknown loss 'CEloss'. Did you mean 'CELoss'"),
        (
            [{"CELoss": {"epsilonn": 0.1}}],
            r"Loss.Train.0.CELoss.epsilonn: unknown key. Did you mean 'epsilon'",
        ),
        (
            [{"CELoss": {"epsilon": 1.0}}],
            r"epsilon \(label smoothing\) must be in \[0, 1\); got 1.0",
        ),
        ([{"CELoss": {}, "MixCELoss": {}}], "Loss.Train.0: expected one entry"),
        ([], "expected a list of losses"),
        ([{"DistillationLoss": {}}], "DistillationLoss.teacher: missing"),
        ([{"DistillationLoss": {"teacher": {"pretrained": "x"}}}], "teacher needs a name"),
        ([{"DistillationLoss": {"teacher": {"name": "T"}, "kind": "warm"}}], "kind: got 'warm'"),
        (
            [
                {"DistillationLoss": {"teacher": {"name": "T"}}},
                {"DistillationLoss": {"teacher": {"name": "U"}}},
            ],
            "2 losses have a teacher",
        ),
    ],
)
def test_bad_lists_are_refused_by_name(items, message):
    with pytest.raises(ConfigError, match=message):
        build_loss(items)


def test_class_counts_that_differ_are_named():
    logits = paddle.to_tensor(LOGITS)
    with pytest.raises(ValueError, match="soft_label has 3 classes, the model 4"):
        build({"name": "CELoss"})(logits, {"soft_label": paddle.ones([2, 3])})
    with pytest.raises(
        ValueError, match=r"the student's logits are \[2, 4\], the teacher's \[2, 3\]"
    ):
        build({"name": "DistillationLoss", "teacher": {"name": "T"}})(
            logits, {"teacher_logits": paddle.ones([2, 3])}
        )
