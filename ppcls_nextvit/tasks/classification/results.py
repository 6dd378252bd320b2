"""What a classifier says of one image, and its picture."""

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..fonts import draw_text, shortened
from ..inputs import InputImage
from ..pictures import LINE, TEXT, fitted, fitting
from ..results import Result

__all__ = ["ClassScore", "ClassificationResult"]

SIDE = 384  # of the picture, in pixels
BAR = (120, 170, 220)


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

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {score:.4f}" for _, name, score in self.top())
        return f"ClassificationResult({self.file_name}: {best})"

    def top(self, count: int = 0) -> List[ClassScore]:
        """The `count` most probable classes (0: `topk`), best first."""
        order = np.argsort(-self.probabilities, kind="stable")[: count or self.topk].tolist()
        return [ClassScore(i, self.names[i], float(self.probabilities[i])) for i in order]

    def to_dict(self) -> Dict[str, Any]:
        """{file_name, class_ids, scores, label_names}, of the `topk` best, best first."""
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
        sheet = Image.new("RGB", (SIDE, picture.height + len(best) * LINE + 4), "white")
        sheet.paste(picture, ((SIDE - picture.width) // 2, 0))
        draw = ImageDraw.Draw(sheet)
        for row, (_, name, score) in enumerate(best):
            top = picture.height + 4 + row * LINE
            draw.rectangle((0, top, round(SIDE * score), top + LINE - 3), BAR)
            text = fitting(f"{100 * score:5.1f} %  {shortened(name)}", SIDE - 8)
            draw_text(draw, (4, top), text, "black", TEXT)
        return {"_classes.png": sheet}
