"""How far found objects are from others, by numbers worked out by hand."""

import numpy as np
import pytest

from ppcls_nextvit.tasks.detection.differences import (
    matched_difference,
    score_difference,
    set_difference,
)

ONE = np.array([[0, 0.8, 10, 10, 30, 30]])
TWO = np.array([[0, 0.8, 10, 10, 30, 30], [1, 0.4, 50, 50, 70, 90]])
NONE = np.zeros((0, 6))
MASKS = np.ones((1, 2, 2))


def moved(rows, **columns):
    rows = rows.copy()
    for name, value in columns.items():
        rows[:, {"label": 0, "score": 1, "x1": 2}[name]] = value
    return rows


def test_one_too_few_or_too_many_is_a_difference():
    assert set_difference(NONE, NONE) == 0 == matched_difference(NONE, NONE)
    assert set_difference(ONE, NONE) == set_difference(NONE, ONE) == 1
    assert matched_difference(ONE, NONE) == matched_difference(NONE, ONE) == 1


@pytest.mark.parametrize(
    "output, expected",
    [
        (TWO[::-1], 0.0),  # any order
        (moved(TWO, x1=[11, 51]), 0.0),  # nearly the same places
        (ONE, 0.16 / (0.64 + 0.8)),  # the second is missing: its square
        (moved(TWO, score=[0.7, 0.4]), (0.8 * 0.1 + 0.7 * 0.1) / (0.8 + 0.65)),
        (moved(TWO, label=[1, 1]), 2 * 0.64 / 1.6),  # another class
        (moved(TWO, x1=[25, 50]), 2 * 0.64 / 1.6),  # another place: a quarter of the box
    ],
)
def test_objects_are_matched_by_class_and_place_and_count_by_score(output, expected):
    assert matched_difference(output, TWO) == pytest.approx(expected)


def test_of_ties_the_scores_alone_are_compared():
    elsewhere = moved(TWO, x1=[0, 0])
    assert score_difference(elsewhere, TWO) == 0 == score_difference(NONE, TWO)
    assert score_difference(moved(TWO, score=[0.8, 0.2]), TWO) == pytest.approx(0.25 / 100)
    assert score_difference(MASKS, 0 * MASKS) == 0


def test_masks_in_low_precision_are_compared_by_their_mean():
    assert matched_difference(MASKS, 0.5 * MASKS) == 0.5
    assert matched_difference(MASKS[:0], MASKS[:0]) == 0
