"""The stages' maps as colours: their first three principal components."""

from typing import NamedTuple

import numpy as np

__all__ = ["Components", "principal_components"]

COLOURS = 3
# of the values, what is below the first and above the last is cut off: single tokens stand far out
RANGE = (1, 99)  # per cent


class Components(NamedTuple):
    """colours: float64 [H, W, 3] in [0, 1]. explained: float64 [3], their shares of the map's
    variance.
    """

    colours: np.ndarray
    explained: np.ndarray


def principal_components(features: np.ndarray) -> Components:
    """The tokens of a map [C, H, W] by their first three principal components, each stretched to
    [0, 1]. A component's sign, which nothing tells, makes its largest loading positive; one without
    variance is 0.5.
    """
    channels, height, width = features.shape
    tokens = features.reshape(channels, -1).T.astype(np.float64)
    tokens = tokens - tokens.mean(0)
    values, vectors = np.linalg.eigh(tokens.T @ tokens)
    # eigh's are rising
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    count = min(COLOURS, channels)
    total, colours = values.sum(), np.full((height * width, COLOURS), 0.5)
    explained = np.zeros(COLOURS)
    for i in range(count):
        # what is left by rounding is no component
        if values[i] <= 1e-12 * max(total, 1e-300):
            break
        vector = vectors[:, i]
        projected = tokens @ (vector * np.sign(vector[np.abs(vector).argmax()]))
        low, high = np.percentile(projected, RANGE)
        if high > low:
            colours[:, i] = ((projected - low) / (high - low)).clip(0, 1)
        explained[i] = values[i] / total
    return Components(colours.reshape(height, width, COLOURS), explained)
