"""Learning rates: PaddleClas's, recorded from its own classes, and the published ones of the
official recipe.
"""

import json
import math

import pytest

from ppcls_nextvit.engine.schedule import build_schedule
from ppcls_nextvit.schema import ConfigError

WARM = {"warmup_epoch": 2, "warmup_start_lr": 0.01}
PEAK = {"learning_rate": 0.1, **WARM}
ONE_CYCLE = {"name": "OneCycleLR", "max_learning_rate": 0.1}
CYCLIC = {
    "name": "Cyclic",
    "base_learning_rate": 0.02,
    "max_learning_rate": 0.1,
    "step_size_up": 2,
    "step_size_down": 3,
    "exp_gamma": 0.9,
    **WARM,
}
PIECES = {"name": "Piecewise", "decay_epochs": [1, 3], "values": [0.1, 0.05, 0.01], **WARM}
EPOCH = {"by_epoch": True}

# 6 epochs of 5 steps; learning rates of steps 0, 4, 9, 10, 14, 22, 29 from a run of PaddleClas's
# ppcls/optimizer/learning_rate.py on paddlepaddle 3.3.1, driven as its training loop does (a
# scheduler steps after each batch, with by_epoch after each epoch).
STEPS = (0, 4, 9, 10, 14, 22, 29)
PADDLECLAS = [
    ({"name": "ConstLR", **PEAK}, [0.01, 0.046, 0.091, 0.1, 0.1, 0.1, 0.1]),
    (
        {"name": "Cosine", "eta_min": 0.02, **PEAK},
        [0.01, 0.046, 0.091, 0.1, 0.09236068, 0.04763932, 0.020492466],
    ),
    (
        {"name": "Step", "step_size": 2, "gamma": 0.5, **PEAK},
        [0.01, 0.046, 0.091, 0.1, 0.1, 0.05, 0.05],
    ),
    (
        {"name": "MultiStepDecay", "milestones": [1, 3], **PEAK},
        [0.01, 0.046, 0.091, 0.1, 0.1, 0.01, 0.001],
    ),
    (PIECES, [0.01, 0.046, 0.091, 0.1, 0.1, 0.05, 0.01]),
    (
        {"name": "Linear", "end_lr": 0.01, "power": 2.0, **PEAK},
        [0.01, 0.046, 0.091, 0.1, 0.0676, 0.0244, 0.010225],
    ),
    (
        {"name": "Linear", "end_lr": 0.01, "cycle": True, **PEAK},
        [0.01, 0.046, 0.091, 0.1, 0.082, 0.046, 0.0145],
    ),
    ({**CYCLIC, "mode": "triangular"}, [0.01, 0.014, 0.019, 0.02, 0.046666667, 0.1, 0.046666667]),
    ({**CYCLIC, "mode": "triangular2"}, [0.01, 0.014, 0.019, 0.02, 0.046666667, 0.04, 0.023333333]),
    (
        {**CYCLIC, "mode": "exp_range"},
        [0.01, 0.014, 0.019, 0.02, 0.037496, 0.042594363, 0.023602271],
    ),
    ({**ONE_CYCLE, **WARM}, [0.01, 0.046, 0.091, 0.004, 0.052, 0.091311939, 0.046263495]),
    (
        {**ONE_CYCLE, **WARM, "anneal_strategy": "linear"},
        [0.01, 0.046, 0.091, 0.004, 0.052, 0.080952381, 0.047619048],
    ),
    (
        {**ONE_CYCLE, **WARM, "three_phase": True},
        [0.01, 0.046, 0.091, 0.004, 0.052, 0.052, 0.0034970215],
    ),
    (
        {"name": "CosineFixmatch", "learning_rate": 0.1, "num_warmup_steps": 7},
        [0.0, 0.057142857, 0.099286633, 0.098397311, 0.09137768, 0.062444283, 0.025331752],
    ),
    (
        {"name": "Cosine", "eta_min": 0.02, **PEAK, **EPOCH},
        [0.01, 0.01, 0.055, 0.1, 0.1, 0.06, 0.031715729],
    ),
    (
        {"name": "Step", "step_size": 2, "gamma": 0.5, **PEAK, **EPOCH},
        [0.01, 0.01, 0.055, 0.1, 0.1, 0.05, 0.05],
    ),
    (
        {"name": "MultiStepDecay", "milestones": [1, 3], **PEAK, **EPOCH},
        [0.01, 0.01, 0.055, 0.1, 0.1, 0.01, 0.001],
    ),
    ({**PIECES, **EPOCH}, [0.01, 0.01, 0.055, 0.1, 0.1, 0.05, 0.01]),
    ({**CYCLIC, **EPOCH}, [0.01, 0.01, 0.015, 0.02, 0.02, 0.1, 0.073333333]),
]


@pytest.mark.parametrize(
    "section, expected",
    PADDLECLAS,
    ids=[f"{i}-{section['name']}" for i, (section, _) in enumerate(PADDLECLAS)],
)
def test_values_are_paddleclas_values(section, expected):
    schedule = build_schedule(section, 6, 5)
    assert [schedule.lr(step) for step in STEPS] == pytest.approx(expected, rel=1e-7)


def test_linear_by_epoch_warms_up_in_epochs_too():
    schedule = build_schedule({"name": "Linear", **PEAK, **EPOCH}, 6, 5)
    assert [schedule.lr(5 * epoch) for epoch in range(6)] == pytest.approx(
        [0.01, 0.055, 0.1, 0.075, 0.05, 0.025]
    )


def test_warmup_longer_than_the_run_never_decays():
    schedule = build_schedule({"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": 9}, 4, 5)
    assert [schedule.lr(step) for step in (0, 10, 19)] == pytest.approx([0.0, 0.05, 0.095])


def test_one_cycle_peaks_at_phase_pct_and_ends_at_the_end():
    schedule = build_schedule({**ONE_CYCLE, "phase_pct": 0.5, "anneal_strategy": "linear"}, 4, 5)
    assert [schedule.lr(step) for step in (0, 9, 19, 50)] == pytest.approx(
        [0.004, 0.1, 1e-10, 1e-10]
    )


def test_piecewise_with_a_learning_rate_falls_to_a_tenth_every_30_epochs():
    schedule = build_schedule({"name": "Piecewise", "learning_rate": 0.1}, 70, 2)
    assert [schedule.lr(2 * epoch) for epoch in (0, 29, 30, 59, 60, 69)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


OFFICIAL = {
    "name": "TimmCosine",
    "learning_rate": "2e-3",
    "eta_min": "1e-5",
    "warmup_epoch": 20,
    "warmup_start_lr": "1e-6",
}


@pytest.mark.parametrize(
    "epoch, published", [(0, 1e-6), (1, 1e-6), (2, 1.01e-4), (20, 1.9e-3), (21, 1.978e-3)]
)
def test_the_official_recipe_runs_at_the_logged_rates(epoch, published):
    schedule = build_schedule(OFFICIAL, 300, 625)
    # the logs print four digits at most
    for step in (0, 624):
        assert schedule.lr(625 * epoch + step) == pytest.approx(
            published, rel=2e-3 if epoch == 2 else 5e-4
        )


def test_timm_cosine_spans_all_epochs_and_the_late_start_can_be_switched_off():
    late, prompt = (
        build_schedule(OFFICIAL, 300, 1),
        build_schedule({**OFFICIAL, "late_start": False}, 300, 1),
    )
    assert all(late.lr(epoch + 1) == prompt.lr(epoch) for epoch in range(300))
    # the middle of the cosine is the middle of the run
    assert prompt.lr(150) == pytest.approx((2e-3 + 1e-5) / 2)
    assert prompt.lr(300) == pytest.approx(1e-5)


POLY_UPERNET = {
    "name": "MMCVPoly",
    "learning_rate": "6e-5",
    "power": 1.0,
    "min_lr": 0.0,
    "warmup_iters": 1500,
    "warmup_ratio": "1e-6",
}
POLY_FPN = {"name": "MMCVPoly", "learning_rate": "1e-4", "power": 0.9, "min_lr": "1e-6"}
STEP_MASK_RCNN = {
    "name": "MMCVStep",
    "learning_rate": "1e-4",
    "milestones": [8, 11],
    "warmup_iters": 500,
    "warmup_ratio": "1e-6",
}
# (section, epochs, steps per epoch, {1-based iteration: rate}) of the reference's published
# training logs
MM_LOGS = [
    (
        POLY_UPERNET,
        10,
        16000,
        {
            50: 1.959e-06,
            100: 3.958e-06,
            1000: 3.971e-05,
            1500: 5.940e-05,
            1550: 5.942e-05,
            160000: 3.750e-10,
        },
    ),
    (POLY_FPN, 10, 4000, {50: 9.989e-05, 1000: 9.777e-05, 1550: 9.654e-05, 40000: 1.007e-06}),
    (
        STEP_MASK_RCNN,
        12,
        7330,
        {
            50: 9.800e-06,
            500: 9.980e-05,
            7 * 7330 + 50: 1e-4,
            8 * 7330 + 50: 1e-5,
            11 * 7330 + 50: 1e-6,
        },
    ),
]


@pytest.mark.parametrize(
    "section, epochs, steps, logged", MM_LOGS, ids=["upernet", "semantic_fpn", "mask_rcnn"]
)
def test_the_dense_recipes_run_at_the_logged_rates(section, epochs, steps, logged):
    schedule = build_schedule(section, epochs, steps)
    for iteration, rate in logged.items():
        # the logs have four digits
        assert schedule.lr(iteration - 1) == pytest.approx(rate, rel=5e-4), iteration
    # 1e-6 of the rate, not 0
    assert build_schedule(POLY_UPERNET, 10, 16000).lr(0) == pytest.approx(6e-11)


def test_a_section_without_a_name_is_a_constant():
    assert build_schedule({"learning_rate": "1e-5"}, 30, 1251).lr(30_000) == 1e-5


PLATEAU = [  # PaddleClas's classes observed these accuracies and ran the next epoch at these rates
    (
        {"mode": "max", "patience": 1, "cooldown": 1, "factor": 0.5},
        [
            0.1,
            0.1,
            0.1,
            0.05,
            0.05,
            0.05,
            0.05,
            0.05,
            0.025,
            0.025,
            0.025,
            0.025,
            0.025,
            0.0125,
            0.0125,
            0.0125,
        ],
    ),
    (
        {
            "mode": "min",
            "patience": 0,
            "threshold": 0.05,
            "threshold_mode": "abs",
            "factor": 0.3,
            "min_lr": 0.02,
        },
        [0.1, 0.03] + [0.02] * 14,
    ),
    (
        {"mode": "max", "patience": 0, "threshold": 0.1},
        [
            0.1,
            0.1,
            1e-2,
            1e-3,
            1e-4,
            1e-5,
            1e-5,
            1e-6,
            1e-7,
            1e-8,
            1e-8,
            1e-8,
            1e-8,
            1e-8,
            1e-8,
            1e-8,
        ],
    ),
]
ACCURACIES = [
    0.1,
    0.2,
    0.2,
    0.19,
    0.18,
    0.18,
    0.3,
    0.29,
    0.28,
    0.27,
    0.26,
    0.31,
    0.2,
    0.1,
    0.09,
    0.08,
]


@pytest.mark.parametrize("keys, expected", PLATEAU, ids=["max", "min", "relative"])
def test_reduce_on_plateau_reduces_where_paddleclas_does(keys, expected):
    schedule = build_schedule({"name": "ReduceOnPlateau", "learning_rate": 0.1, **keys}, 20, 3)
    rates = []
    for epoch, accuracy in enumerate(ACCURACIES):
        schedule.observe(epoch, accuracy)
        rates.append(schedule.lr(3 * epoch + 3))
    assert rates == pytest.approx(expected, rel=1e-7)


def test_reduce_on_plateau_of_a_loss_waits_while_it_falls():
    keys = {"name": "ReduceOnPlateau", "learning_rate": 0.1, "mode": "min", "patience": 0}
    schedule = build_schedule({**keys, "threshold": 1e-3, "threshold_mode": "abs"}, 20, 1)
    rates = []
    for epoch, loss in enumerate([2.0, 1.5, 1.0, 0.9995, 0.5, 0.6]):
        schedule.observe(epoch, loss)
        rates.append(schedule.lr(epoch + 1))
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.001])


@pytest.mark.parametrize("value", ["2", math.nan, math.inf, True])
@pytest.mark.parametrize("key", ["current", "best", "bad_observations", "cooldown_left"])
def test_a_damaged_memory_of_the_plateau_is_refused(key, value):
    schedule = build_schedule({"name": "ReduceOnPlateau", "learning_rate": 0.1}, 20, 1)
    with pytest.raises(ValueError, match=f"the saved schedule's {key} must be a number"):
        schedule.load_state_dict({**schedule.state_dict(), key: value})


@pytest.mark.parametrize("keys, _", PLATEAU, ids=["max", "min", "relative"])
def test_reduce_on_plateau_resumes_anywhere(keys, _):
    section = {"name": "ReduceOnPlateau", "learning_rate": 0.1, **keys}
    whole = build_schedule(section, 20, 1)
    interrupted = build_schedule(section, 20, 1)
    for epoch, accuracy in enumerate(ACCURACIES):
        resumed = build_schedule(section, 20, 1)
        resumed.load_state_dict(json.loads(json.dumps(interrupted.state_dict())))
        interrupted = resumed
        for schedule in (whole, interrupted):
            schedule.observe(epoch, accuracy)
        assert interrupted.lr(epoch) == whole.lr(epoch)
    assert interrupted.state_dict() == whole.state_dict()


def test_other_schedules_need_no_memory_and_refuse_a_foreign_one():
    schedule = build_schedule({"name": "Cosine", "learning_rate": 0.1}, 6, 5)
    before = [schedule.lr(step) for step in range(30)]
    schedule.observe(0, 0.5)
    schedule.load_state_dict(schedule.state_dict())
    assert [schedule.lr(step) for step in range(30)] == before
    with pytest.raises(ValueError, match="resume with the Optimizer.lr of the saved run"):
        schedule.load_state_dict(
            build_schedule({"name": "ReduceOnPlateau", "learning_rate": 0.1}, 6, 5).state_dict()
        )


@pytest.mark.parametrize(
    "section, message",
    [
        ({"name": "Cosin", "learning_rate": 0.1}, "Did you mean 'Cosine'"),
        (
            {"name": "Cosine", "learnin_rate": 0.1},
            r"Optimizer.lr.learnin_rate: unknown key. Did you mean 'learning_rate'",
        ),
        ({"name": "Cosine"}, "Optimizer.lr.learning_rate: missing"),
        ({"name": "Cosine", "learning_rate": "fast"}, "expected float, got 'fast'"),
        (
            {"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": -1},
            "warmup_epoch must be 0 or more; got -1",
        ),
        (
            {"name": "Piecewise", "decay_epochs": [1, 2], "values": [0.1, 0.2]},
            "values must be one more than decay_epochs",
        ),
        ({"name": "Piecewise", "decay_epochs": [2, 1], "values": [3, 2, 1]}, "must be increasing"),
        (
            {"name": "Piecewise", "decay_epochs": [2], "values": [2, 1], "learning_rate": 0.1},
            "either decay_epochs and values, or",
        ),
        (
            {"name": "Step", "learning_rate": 0.1, "step_size": 0.1, "gamma": 0.1},
            "at least one step",
        ),
        ({"name": "OneCycleLR", "max_learning_rate": 0.1, "phase_pct": 0.01}, "phase_pct"),
        (
            {"name": "TimmCosine", "learning_rate": 0.1, "warmup_epoch": -7},
            "warmup_epoch must be 0 or more; got -7",
        ),
        ({"name": "MMCVPoly", "learning_rate": 0.1, "warmup_ratio": 0}, "warmup_ratio above 0"),
        ({"name": "MMCVStep", "learning_rate": 0.1, "milestones": [11, 8]}, "must be increasing"),
        (0.1, "expected a mapping"),
    ],
)
def test_bad_sections_are_refused_by_name(section, message):
    with pytest.raises(ConfigError, match=message):
        build_schedule(section, 6, 5)


def test_a_run_without_steps_is_refused():
    with pytest.raises(ConfigError, match="3 epochs of 0"):
        build_schedule({"learning_rate": 0.1}, 3, 0)


def test_the_official_recipe_in_a_run_shorter_than_its_warm_up():
    """`-o Global.epochs=3` on the 300-epoch file: three epochs of its warm-up, the first two at its
    start.
    """
    section = {
        "name": "TimmCosine",
        "learning_rate": 2e-3,
        "eta_min": 1e-5,
        "warmup_epoch": 20,
        "warmup_start_lr": 1e-6,
    }
    schedule = build_schedule(section, 3, 10)
    assert [schedule.lr(step) for step in (0, 19, 20, 29)] == pytest.approx(
        [1e-6, 1e-6, 1.0095e-4, 1.0095e-4], rel=1e-9
    )
