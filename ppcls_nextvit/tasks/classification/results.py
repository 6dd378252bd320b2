"""What a classifier says of one image, and its picture."""

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw

from ..fonts import draw_text, shortened
from ..inputs import InputImage
from ..pictures import LINE, TEXT, fitted, fitting
from ..results import Result

__all__ = ["ClassScore", "ClassificationResult", "LabelsResult"]

SIDE = 384  # of the picture, in pixels
BAR = (120, 170, 220)
NO_LABEL = "no label"  # of an image without any, where predictions are shown


class ClassScore(NamedTuple):
    """A class and its probability."""

    class_id: int
    label_name: str
    score: float


class ClassificationResult(Result):
    """probabilities: float32 [classes]. names: of all classes. topk: how many classes are listed if
    nobody says.
    """

    def __init__(
        self, image: InputImage, probabilities: np.ndarray, names: Sequence[str], topk: int = 5
    ) -> None:
        super().__init__(image, names)
        self.probabilities = probabilities
        self.topk = min(topk, len(names))

    def line(self) -> str:
        """The names that are listed, with their probabilities."""
        return ", ".join(f"{name} {score:.4f}" for _, name, score in self.top()) or NO_LABEL

    def top(self, count: int = 0) -> List[ClassScore]:
        """The `count` most probable classes (0: `topk`), best first."""
        order = np.argsort(-self.probabilities, kind="stable")[: count or self.topk].tolist()
        return [ClassScore(i, self.names[i], float(self.probabilities[i])) for i in order]

    def caption(self) -> Tuple[str, str]:
        """Two lines below a small picture: the best name, its probability."""
        (best,) = self.top(1)
        return best.label_name, f"{100 * best.score:.1f} %"

    def to_dict(self) -> Dict[str, Any]:
        """{file_name, class_ids, scores, label_names}, of the classes that `top` lists."""
        best = self.top()
        return {
            "file_name": self.file_name,
            "class_ids": [one.class_id for one in best],
            "scores": [one.score for one in best],
            "label_names": [one.label_name for one in best],
        }

    def rows(self) -> List[Dict[str, Any]]:
        """A row for each of the `topk` best classes, with its rank from 1."""
        return [
            {"file_name": self.file_name, "rank": rank, **one._asdict()}
            for rank, one in enumerate(self.top(), 1)
        ]

    def pictures(self) -> Mapping[str, Image.Image]:
        """The picture above its best classes and their probabilities, as bars."""
        picture, best = fitted(self.image.picture(), SIDE), self.top()
        rows = max(len(best), 1)
        sheet = Image.new("RGB", (SIDE, picture.height + rows * LINE + 4), "white")
        sheet.paste(picture, ((SIDE - picture.width) // 2, 0))
        draw = ImageDraw.Draw(sheet)
        if not best:
            draw_text(draw, (4, picture.height + 4), NO_LABEL, "black", TEXT)
        for row, (_, name, score) in enumerate(best):
            top = picture.height + 4 + row * LINE
            draw.rectangle((0, top, round(SIDE * score), top + LINE - 3), BAR)
            text = fitting(f"{100 * score:5.1f} %  {shortened(name)}", SIDE - 8)
            draw_text(draw, (4, top), text, "black", TEXT)
        return {"_classes.png": sheet}


class LabelsResult(ClassificationResult):
    """As ClassificationResult, for several labels an image: those are there whose probability is
    `threshold` or more, be it none.
    """

    def __init__(
        self, image: InputImage, probabilities: np.ndarray, names: Sequence[str], threshold: float
    ) -> None:
        super().__init__(image, probabilities, names)
        self.threshold = threshold

    def top(self, count: int = 0) -> List[ClassScore]:
        """The classes that are there, in their order; or the `count` most probable ones, be they
        there or not, best first.
        """
        if count:
            return super().top(count)
        found = np.flatnonzero(self.probabilities >= self.threshold).tolist()
        return [ClassScore(i, self.names[i], float(self.probabilities[i])) for i in found]

    def caption(self) -> Tuple[str, str]:
        """Two lines below a small picture: the labels, their probabilities."""
        found = self.top()
        scores = ", ".join(f"{100 * one.score:.0f} %" for one in found)
        return ", ".join(one.label_name for one in found) or NO_LABEL, scores

    def rows(self) -> List[Dict[str, Any]]:
        """A row for each class that is there."""
        return [{"file_name": self.file_name, **one._asdict()} for one in self.top()]
