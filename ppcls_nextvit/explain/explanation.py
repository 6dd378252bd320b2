"""What is found by looking at a network: numbers, and the picture of them."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Mapping, Union

import numpy as np

from ..engine.curves import pyplot
from ..tasks.common import write_json

__all__ = ["Explanation", "rounded"]

DPI = 120
MOST_PIXELS = 40_000  # along a side; Matplotlib draws up to 65,535


@dataclass(frozen=True)
class Explanation:
    """One picture with its numbers.

    name: of its files, e.g. dog_cam. arrays: all that was computed, by name, for who goes on with
    it. numbers: what JSON says. draw: makes the Matplotlib figure.
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    numbers: Mapping[str, Any]
    draw: Callable[[], Any]

    def figure(self) -> Any:
        """The picture, a new Matplotlib figure. ImportError, which names the extra, without
        Matplotlib.
        """
        return self.draw()

    def save(self, folder: Union[str, Path]) -> List[Path]:
        """Write NAME.png and NAME.json into `folder`, which is made if it is not there; the two
        paths.
        """
        folder = Path(folder)
        picture, numbers = folder / f"{self.name}.png", folder / f"{self.name}.json"
        picture.parent.mkdir(parents=True, exist_ok=True)  # names of images in folders have theirs
        figure = self.figure()
        with warnings.catch_warnings():
            # of letters that no font here has there was a warning already
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            # without Matplotlib's version: equal numbers give equal files
            dpi = min(DPI, MOST_PIXELS / max(figure.get_size_inches()))
            figure.savefig(picture, dpi=dpi, bbox_inches="tight", metadata={"Software": None})
        pyplot().close(figure)
        write_json(numbers, self.numbers)
        return [picture, numbers]


def rounded(values: Any) -> Any:
    """Numbers as JSON lists, with six significant digits."""
    array = np.asarray(values, np.float64)
    if array.ndim == 0:
        return float(f"{float(array):.6g}")
    return [rounded(part) for part in array]
