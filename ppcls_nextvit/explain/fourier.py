"""Which frequencies the blocks let pass: the amplitudes of their maps' Fourier transforms.

After Park and Kim 2022, "How do vision transformers work?", arXiv:2202.06709, whose figures show
the logarithm of the amplitude relative to that of frequency 0. Here a frequency is the distance
from 0 in the plane, over all directions.
"""

import contextlib
from typing import Dict, List, NamedTuple, Tuple

import numpy as np
import paddle
from paddle import Tensor

from ..models.api import Backbone

__all__ = ["Spectrum", "block_maps", "spectrum"]

# amplitudes below this share of the largest are rounding, and count as it
FLOOR = 1e-8


class Spectrum(NamedTuple):
    """frequencies: float64 [n], from 0 to 1, the shortest wave of two cells (the papers' pi).
    amplitudes: float64 [n], means over channels and directions. relative: float64 [n], natural
    logarithms of the amplitudes, less that of frequency 0.
    """

    frequencies: np.ndarray
    amplitudes: np.ndarray
    relative: np.ndarray


def spectrum(features: np.ndarray) -> Spectrum:
    """The Spectrum of a map [C, H, W]. ValueError for a map of a single cell, which has no
    frequencies.
    """
    height, width = features.shape[1:]
    if max(height, width) < 2:
        raise ValueError(f"a map of {height} x {width} cells has no frequencies")
    transformed = np.abs(np.fft.fft2(features.astype(np.float64), axes=(1, 2))).mean(0)
    rows, columns = np.fft.fftfreq(height) * 2, np.fft.fftfreq(width) * 2
    radius = np.hypot(rows[:, None], columns[None, :])
    # rings as wide as the finest step, the last at the shortest wave; corners beyond are left out
    count = max(height, width) // 2
    ring = np.rint(radius * count).astype(int)
    inside = ring <= count
    cells = np.bincount(ring[inside], minlength=count + 1)
    sums = np.bincount(ring[inside], transformed[inside], minlength=count + 1)
    # of a narrow map a ring may have no cell
    known = cells > 0
    amplitudes = sums[known] / cells[known]
    shown = np.log(np.maximum(amplitudes, FLOOR * max(amplitudes.max(), 1e-300)))
    return Spectrum(np.flatnonzero(known) / count, amplitudes, shown - shown[0])


def block_maps(backbone: Backbone, x: Tensor) -> Dict[Tuple[int, int], np.ndarray]:
    """{(stage, block): map [C, H, W] that the block gives} of the image x [1, C, H, W]; both count
    from 1. ValueError for a backbone that tells no blocks.
    """
    outputs: Dict[Tuple[int, int], Tensor] = {}

    def keep(place: Tuple[int, int]):  # type: ignore[no-untyped-def]
        def hook(layer: paddle.nn.Layer, inputs: object, output: Tensor) -> None:
            outputs[place] = output

        return hook

    stages: List[List[paddle.nn.Layer]] = backbone.blocks()
    if not stages:
        raise ValueError(f"{type(backbone).__name__} does not tell its blocks")
    with contextlib.ExitStack() as stack, paddle.no_grad():
        for stage, blocks in enumerate(stages, 1):
            for number, block in enumerate(blocks, 1):
                hook = block.register_forward_post_hook(keep((stage, number)))
                stack.callback(hook.remove)
        maps = backbone.forward_features(x)
    return {place: _as_map(out, maps[place[0] - 1]) for place, out in outputs.items()}


def _as_map(output: Tensor, of_stage: Tensor) -> np.ndarray:
    """What a block gives, [1, C, H, W] or tokens [1, N, C], as [C, H, W] of its stage's size."""
    if output.ndim == 4:
        return output[0].numpy()
    return output[0].transpose([1, 0]).reshape([-1, *of_stage.shape[2:]]).numpy()
