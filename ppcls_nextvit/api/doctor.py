"""What is wrong with a folder of data, before hours of training: unreadable images, the same image
in training and evaluation, classes without images, boxes that cannot be meant.
"""

import hashlib
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from ..data.datasets.files import Files, files_below, open_files
from ..data.images import ImageError, open_image
from ..data.lists import read_label_list
from ..schema import shown_text
from .own_data import OwnData
from .own_objects import ClassTable, ObjectFindings, examined_objects
from .own_pixels import examined_pixels

__all__ = ["Findings", "examined"]

SHOWN = 5  # examples of a finding
TINY_SIDE = 32  # pixels; networks take no smaller images
LONGEST_SHAPE = 5  # times the other side
NEAR_BITS = 3  # of 64, by which perceptual hashes of one picture differ at most
ALIKE = 0.995  # correlation of two thumbnails of one picture, at least
THUMBNAIL = 16  # pixels
MOST_COMPARED = 500  # with one image, of those whose hashes share a band
BANDS = 4  # of 16 bits: two hashes that differ in 3 bits are equal in one of them
FLAT = 4.0  # standard deviation of grey values, below which a picture has no hash
UNEVEN = 20  # times the images of the smallest class
SPLITS = ("train", "evaluation")


@dataclass
class Findings:
    """What was found: lines. errors make a run fail or its figures wrong; warnings are worth a
    look; facts are neither.
    """

    facts: List[str] = field(default_factory=list)
    errors: List[str] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)
    counts: ClassTable = field(default_factory=ClassTable)
    sides: List[Tuple[int, int]] = field(default_factory=list)  # (width, height) of each image
    boxes: List[float] = field(default_factory=list)  # roots of the boxes' areas, in pixels

    def to_dict(self) -> Dict[str, List[str]]:
        """{facts, warnings, errors}."""
        return {"facts": self.facts, "warnings": self.warnings, "errors": self.errors}

    def several(self, kind: str, what: str, examples: Sequence[str]) -> None:
        """One finding of `kind` for all `examples`, of which the first are named; none for none."""
        if examples:
            more = f", and {len(examples) - SHOWN} more" if len(examples) > SHOWN else ""
            named = ", ".join(shown_text(example, 200) for example in examples[:SHOWN])
            getattr(self, kind).append(f"{what}: {len(examples)} ({named}{more})")


class Entry(NamedTuple):
    """An image of a dataset. label: None where it has objects instead."""

    split: str
    name: str
    label: Optional[int]


@dataclass
class Seen:
    """What was read of an image."""

    entry: Entry
    size: Tuple[int, int]  # (width, height)
    digest: str
    picture: Optional[int]  # perceptual hash, 64 bits; None of a flat picture
    thumbnail: np.ndarray  # float16 [256], mean 0, deviation 1


def examined(data: OwnData, progress: Any = None) -> Findings:
    """Everything that is found in `data`; every image is read. progress: called with (done, all)
    images.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data.write_lists(place)
        return _examined(data.placed(place), progress)


def _examined(data: OwnData, progress: Any) -> Findings:
    findings = Findings()
    objects = ObjectFindings()
    if data.holds != "class":
        objects = examined_objects(data) if data.holds == "objects" else examined_pixels(data)
        findings.facts += objects.facts
        findings.errors += objects.errors
        findings.warnings += objects.warnings
        findings.counts, findings.boxes = objects.counts, objects.boxes
        entries = {
            split: (open_files(root), [Entry(split, name, None) for name in names])
            for split, (root, names) in zip(SPLITS, objects.images)
        }
    else:
        entries = dict(_labelled(data))
        _count_classes(data, entries, findings)
    seen = _read(entries, findings, progress)
    _check_sizes(seen, objects.sizes, findings)
    _find_copies(seen, findings)
    _find_likenesses(seen, findings)
    return findings


def _labelled(data: OwnData) -> Iterator[Tuple[str, Tuple[Files, List[Entry]]]]:
    """(split, (files, entries)) of both splits of a classifier's data."""
    for split, section in zip(SPLITS, (data.train, data.evaluation)):
        files = open_files(section["image_root"])
        if section["name"] == "ImageFolder":
            pairs = [
                (name, label)
                for label, folder in enumerate(data.names or ())
                for name in files_below(section["image_root"], folder).images
            ]
        else:
            names, labels = read_label_list(
                section["cls_label_path"], data.class_num, section.get("delimiter", " ")
            )
            pairs = list(zip(files.named(names), labels))
        yield split, (files, [Entry(split, name, label) for name, label in pairs])


def _count_classes(
    data: OwnData, entries: Dict[str, Tuple[Files, List[Entry]]], findings: Findings
) -> None:
    names = data.names or [str(index) for index in range(data.class_num)]
    counts = {
        split: Counter(entry.label for entry in listed) for split, (_, listed) in entries.items()
    }
    train, evaluation = (counts[split] for split in SPLITS)
    rows = [(name, train[label], evaluation[label]) for label, name in enumerate(names)]
    findings.counts = ClassTable("class", "images", rows)
    findings.facts += findings.counts.lines()
    none = [name for label, name in enumerate(names) if not counts["train"][label]]
    findings.several("errors", "classes without a training image", none)
    none = [name for label, name in enumerate(names) if not counts["evaluation"][label]]
    findings.several("warnings", "classes without an evaluation image", none)
    filled = [count for count in counts["train"].values() if count]
    if filled and max(filled) > UNEVEN * min(filled):
        findings.warnings.append(
            f"classes are uneven: from {min(filled)} to {max(filled)} training images"
        )


def _read(
    entries: Dict[str, Tuple[Files, List[Entry]]], findings: Findings, progress: Any
) -> List[Seen]:
    """What was read of every image that can be read; the others are errors."""
    seen, unreadable, done = [], [], 0
    total = sum(len(listed) for _, listed in entries.values())
    for files, listed in entries.values():
        for entry in listed:
            try:
                data = files.read(entry.name)
                picture = open_image(data, files.path(entry.name))
                digest = hashlib.sha256(data).hexdigest()
                hashed, thumbnail = _picture_hash(picture), _thumbnail(picture)
                seen.append(Seen(entry, picture.size, digest, hashed, thumbnail))
            except (ImageError, OSError) as error:
                unreadable.append(str(error))
            done += 1
            if progress:
                progress(done, total)
    findings.several("errors", "images that cannot be read", unreadable)
    return seen


def _picture_hash(picture: Image.Image) -> Optional[int]:
    """64 bits: whether each of 8 x 9 grey areas is brighter than its right neighbour. Survives
    another size, compression and brightness. None of a flat picture.
    """
    areas = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    if areas.std() < FLAT:
        return None
    bits = (areas[:, :-1] > areas[:, 1:]).reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _thumbnail(picture: Image.Image) -> np.ndarray:
    side = (THUMBNAIL, THUMBNAIL)
    grey = np.asarray(picture.convert("L").resize(side, Image.Resampling.BOX), np.float32)
    return ((grey - grey.mean()) / max(grey.std(), 1e-3)).reshape(-1).astype(np.float16)


def _check_sizes(
    seen: Sequence[Seen], stated: Dict[Tuple[str, str], Tuple[int, int]], findings: Findings
) -> None:
    if not seen:
        return
    findings.sides = [one.size for one in seen]
    sides = np.array(findings.sides)
    low, middle, high = sides.min(axis=0), np.median(sides, axis=0).astype(int), sides.max(axis=0)
    findings.facts.append(
        f"{len(seen)} images can be read; width x height from {low[0]} x {low[1]} to "
        f"{high[0]} x {high[1]}, median {middle[0]} x {middle[1]}"
    )
    small = [_place(one) for one in seen if min(one.size) < TINY_SIDE]
    findings.several("warnings", f"images with a side below {TINY_SIDE} pixels", small)
    long = [_place(one) for one in seen if max(one.size) > LONGEST_SHAPE * min(one.size)]
    findings.several("warnings", f"images {LONGEST_SHAPE} times as long as high, or more", long)
    other = [
        f"{_place(one)} has {one.size[0]} x {one.size[1]}"
        for one in seen
        if (size := stated.get((one.entry.split, one.entry.name))) and size != one.size
    ]
    findings.several("errors", "images of another size than the json says", other)


def _place(one: Seen) -> str:
    return f"{one.entry.split} {one.entry.name}"


def _find_copies(seen: Sequence[Seen], findings: Findings) -> None:
    """Files of the same bytes."""
    of_digest: Dict[str, List[Seen]] = defaultdict(list)
    for one in seen:
        of_digest[one.digest].append(one)
    copies = [group for group in of_digest.values() if len(group) > 1]
    across = [group for group in copies if len({one.entry.split for one in group}) > 1]
    findings.several(
        "errors",
        "images in training and in evaluation, the same file",
        list(map(_pair, across)),
    )
    doubtful = [group for group in copies if len({one.entry.label for one in group}) > 1]
    findings.several(
        "errors", "images of several classes, the same file", list(map(_pair, doubtful))
    )
    rest = [group for group in copies if group not in across and group not in doubtful]
    findings.several("warnings", "images that are there more than once", list(map(_pair, rest)))


def _find_likenesses(seen: Sequence[Seen], findings: Findings) -> None:
    """Pictures that look the same in training and in evaluation, but are other files."""
    bands: Dict[Tuple[int, int], List[Seen]] = defaultdict(list)
    evaluation = [one for one in seen if one.entry.split == SPLITS[1] and one.picture is not None]
    for one in seen:
        if one.entry.split == SPLITS[0] and one.picture is not None:
            for key in _bands(one.picture):
                bands[key].append(one)
    alike = []
    for one in evaluation:
        assert one.picture is not None
        near = (
            other
            for key in _bands(one.picture)
            for other in bands[key][:MOST_COMPARED]
            if other.digest != one.digest
            and bin((other.picture or 0) ^ one.picture).count("1") <= NEAR_BITS
            and _correlation(other, one) >= ALIKE
        )
        found = next(near, None)
        if found is not None:
            alike.append(_pair([found, one]))
    findings.several("warnings", "evaluation images that look like one of training", alike)


def _correlation(one: Seen, other: Seen) -> float:
    return float(one.thumbnail.astype(np.float32) @ other.thumbnail.astype(np.float32)) / (
        THUMBNAIL * THUMBNAIL
    )


def _bands(picture: int) -> List[Tuple[int, int]]:
    return [(band, picture >> 16 * band & 0xFFFF) for band in range(BANDS)]


def _pair(group: Sequence[Seen]) -> str:
    """The first two of a group, of different splits if there are."""
    first = group[0]
    second = next((one for one in group if one.entry.split != first.entry.split), group[1])
    return f"{_place(first)} = {_place(second)}"
