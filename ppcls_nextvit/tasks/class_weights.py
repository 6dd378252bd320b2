"""Weights of classes in losses, as a user's list: verified, and as an array."""

import math
from typing import Any, List, Optional, Sequence

import numpy as np

from ..schema import ConfigError, coerce, named_entries, shown

__all__ = ["check_class_weights", "weight_array"]


def weight_array(weights: Optional[Sequence[float]]) -> Optional[np.ndarray]:
    """float32 [C] of the user's `weights`; None for none. ValueError for weights that are negative,
    not finite, or all 0.
    """
    if weights is None:
        return None
    bad = [weight for weight in weights if not (math.isfinite(weight) and weight >= 0)]
    if bad or not any(weights):
        raise ValueError(
            f"class_weights must be finite numbers of 0 or more, not all of them 0; got "
            f"{shown(bad[0] if bad else list(weights))}"
        )
    return np.array(weights, np.float32)


def check_class_weights(items: Any, where: str, class_num: int) -> None:
    """Verify `class_weights` of every entry of a YAML list of losses, and of the `losses` in an
    entry. ConfigError for weights that cannot be meant, or of another number than `class_num`.
    """
    for _, arguments, place in named_entries(items, where):
        given = arguments or {}
        if given.get("class_weights") is not None:
            _check(given["class_weights"], f"{place}.class_weights", class_num)
        check_class_weights(given.get("losses"), f"{place}.losses", class_num)


def _check(given: Any, where: str, class_num: int) -> None:
    weights = coerce(given, List[float], where)
    try:
        weight_array(weights)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    if len(weights) != class_num:
        raise ConfigError(
            f"{where}: {len(weights)} weights for {class_num} classes (Arch.class_num); give one "
            f"for each class, in their order"
        )
