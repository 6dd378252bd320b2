"""What is wrong with the objects of data."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence, Tuple

from ..data.datasets.coco import why_not_learnt
from ..data.datasets.coco_json import annotations_by_image, disagreement, read_coco
from ..schema import shown_text
from .own_data import OwnData

__all__ = ["ClassTable", "ObjectFindings", "examined_objects", "some"]

TINY = 8  # pixels of the longer side of a box
SHOWN = 3


@dataclass
class ClassTable:
    """What there is of each class. rows: (name, to train with, to evaluate on), in `unit`."""

    title: str = ""
    unit: str = ""
    rows: Sequence[Tuple[str, float, float]] = ()

    def lines(self) -> List[str]:
        """As text, the titles first."""
        width = max(len(self.title), *(len(shown_text(name, 40)) for name, _, _ in self.rows))
        number = ".2f" if self.unit.startswith("%") else "d"
        return [
            f"{self.title:{width}} {'train':>8} {'evaluation':>11}",
            *(
                f"{shown_text(name, 40):{width}} {train:>8{number}} {evaluation:>11{number}}"
                for name, train, evaluation in self.rows
            ),
        ]


@dataclass
class ObjectFindings:
    """Lines as of doctor.Findings. images: (folder, names) of training and evaluation. sizes:
    {(split, name): (width, height)} as the json says. boxes: the roots of their areas, in pixels.
    """

    facts: List[str] = field(default_factory=list)
    errors: List[str] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)
    images: List[Tuple[str, List[str]]] = field(default_factory=list)
    sizes: Dict[Tuple[str, str], Tuple[int, int]] = field(default_factory=dict)
    counts: ClassTable = field(default_factory=ClassTable)
    boxes: List[float] = field(default_factory=list)


def examined_objects(data: OwnData) -> ObjectFindings:
    """Everything about the objects of both json files. ConfigError, with file and entry, for what
    cannot be read at all.
    """
    found = ObjectFindings()
    counts = []
    for split, section in (("train", data.train), ("evaluation", data.evaluation)):
        path = section["annotation_path"]
        content = read_coco(path)
        names = [image["file_name"] for image in content["images"]]
        found.images.append((section["image_root"], names))
        for image in content["images"]:
            found.sizes[split, image["file_name"]] = (image["width"], image["height"])
        counts.append(_objects(content, path, split, found))
    names = list(data.names or ())
    rows = [(name, counts[0][name], counts[1][name]) for name in names]
    found.counts = ClassTable("objects of", "objects", rows)
    found.facts += found.counts.lines()
    for name, train, evaluation in rows:
        if not train:
            found.errors.append(f"no object of {shown_text(name)!r} to train with")
        elif not evaluation:
            found.warnings.append(f"no object of {shown_text(name)!r} to evaluate on")
    return found


def _objects(
    content: Dict[str, List[Dict[str, Any]]], path: str, split: str, found: ObjectFindings
) -> Counter:
    """The objects of each class that can be learnt; what is wrong with others goes to `found`."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    of_image = annotations_by_image(content, path)
    counts: Counter = Counter()
    wrong: Dict[str, List[str]] = {}
    tiny, empty, again = [], [], []
    for image in content["images"]:
        annotations = of_image[image["id"]]
        if not annotations:
            empty.append(image["file_name"])
        boxes = set()
        for annotation in annotations:
            if annotation["iscrowd"]:
                continue
            why = why_not_learnt(annotation, image["height"], image["width"])
            told = f"annotation {annotation['id']} of {image['file_name']}"
            if why is None and disagreement(annotation, image):
                why = "a mask elsewhere than the box"
            if why:
                wrong.setdefault(why, []).append(told)
                continue
            counts[names[annotation["category_id"]]] += 1
            width, height = annotation["bbox"][2:]
            box = (annotation["category_id"], *annotation["bbox"])
            if box in boxes:
                again.append(told)
            boxes.add(box)
            found.boxes.append((width * height) ** 0.5)
            if max(annotation["bbox"][2:]) < TINY:
                tiny.append(told)
    for why, annotations_ in wrong.items():
        found.errors.append(f"{split}: objects, {why}: {len(annotations_)} ({some(annotations_)})")
    for what, examples in (
        (f"objects smaller than {TINY} pixels", tiny),
        ("images without an object", empty),
        ("objects with the box and class of another", again),
    ):
        if examples:
            found.warnings.append(f"{split}: {what}: {len(examples)} ({some(examples)})")
    return counts


def some(names: Sequence[str]) -> str:
    """The first of `names`, and how many there are beyond."""
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(shown_text(name, 200) for name in names[:SHOWN]) + more
