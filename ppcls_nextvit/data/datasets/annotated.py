"""What the datasets of detection and segmentation share."""

import functools
import logging
from abc import ABC, abstractmethod
from typing import Any, Dict, List, Optional, Sequence, Tuple, TypeVar

import numpy as np

from ...schema import ConfigError, shown_text
from ..images import ImageError, Upright, decode_upright
from ..packed import PackedNames
from ..transforms.joint import JointPipeline, fixed_pipeline, padded
from .files import Files
from .registry import SECTIONS, BadImages, Batch, ClassCounts, Sample

__all__ = ["AnnotatedDataset", "thinned"]

log = logging.getLogger(__name__)
Item = TypeVar("Item")

# of the arrays that every batch has beside the images
TYPES = {
    "index": np.int64,
    "shape": np.int32,
    "original": np.int32,
    "scale": np.float32,
    "flip": bool,
}


def thinned(items: List[Item], count: Optional[int]) -> List[Item]:
    """`count` of the items at equal distances; all of them for None, or if there are no more.
    ConfigError below 1.
    """
    if count is not None and count < 1:
        raise ConfigError(f"sample_num: expected 1 or more images, got {count}")
    if count is None or count >= len(items):
        return items
    return [items[number * len(items) // count] for number in range(count)]


class AnnotatedDataset(ABC):
    """Images with annotations (boxes, masks, label maps), transformed together. A Dataset but for
    `truth`, `class_counts` and `annotation_bytes`, which a subclass has.

    Annotations are those of the upright image, as every program shows it.
    class_num: of the model, None: unknown. source: what says which images there are, for messages.
    files, names: the images. mode: 'train', or 'val' without annotations in the samples.
    """

    class_names: Optional[List[str]] = None

    def __init__(
        self,
        class_num: Optional[int],
        source: str,
        files: Files,
        names: Sequence[str],
        mode: str,
        transform_ops: Optional[list],
        bad_images: Optional[dict],
    ):
        names = PackedNames.of(names)
        if names.may_hold("\\"):
            names = PackedNames.of(files.named(names))
        self.class_num = class_num
        self.source = source
        self.files = files
        self.names = names
        self.training = mode == "train"
        self.transform = JointPipeline(transform_ops)
        self.bad_images: BadImages = SECTIONS.build("BadImages", bad_images, "bad_images")
        files.check(names, each=self.bad_images.policy == "raise")
        self._told_of_exif = False

    @abstractmethod
    def truth(self, index: int, shape: Tuple[int, int]) -> Sample:
        """The annotations of an image of `shape` = (height, width), as keys of a sample; see
        ppcls_nextvit.data.transforms.joint. ImageError where they do not fit the image.
        """

    @abstractmethod
    def class_counts(self) -> ClassCounts:
        """How much of each class there is; see Dataset."""

    @property
    @abstractmethod
    def annotation_bytes(self) -> int:
        """The bytes of the annotations in a training sample for each pixel, or more."""

    @functools.cached_property
    def sample_bytes(self) -> int:
        """The memory of a sample in a batch, or more; see Dataset."""
        pixels = self.transform.max_pixels(self._largest())
        # wide and high images in one batch are padded to what holds both
        pixels *= 2
        # three channels in float32
        return int(pixels * (12 + (self.annotation_bytes if self.training else 0)))

    def _largest(self) -> float:
        """The pixels of the largest image, or of the largest of some."""
        largest = 0
        for index in thinned(list(range(len(self))), 8):
            try:
                image = self.upright(index).image
            except ImageError:  # which is told when its turn comes
                continue
            largest = max(largest, image.width * image.height)
        return largest or 1 << 20

    @staticmethod
    def check(arguments: Dict[str, Any], mode: str, where: str) -> None:
        """ConfigError for transforms that cannot be built, for another `mode` than DataLoader's,
        and for chance in evaluation.
        """
        expected = "train" if mode == "Train" else "val"
        if arguments["mode"] != expected:
            raise ConfigError(
                f"{where}.mode: DataLoader.{mode} needs {expected!r}, got {arguments['mode']!r}"
            )
        build = JointPipeline if mode == "Train" else fixed_pipeline
        build(arguments.get("transform_ops"), f"{where}.transform_ops")

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The path of an image, for messages."""
        return self.files.path(self.names[index])

    def upright(self, index: int) -> Upright:
        """An image and how it was turned. ImageError if it cannot be read."""
        return decode_upright(self.files.read(self.names[index]), self.name(index))

    def image(self, index: int) -> np.ndarray:
        """An image as uint8 [H, W, 3], RGB, upright. ImageError if it cannot be read.

        Warns, once, of one that was turned while its size cannot tell whether the annotations were
        drawn on the upright image.
        """
        image, turned = self.upright(index)
        if turned != 1 and (turned < 5 or image.width == image.height) and not self._told_of_exif:
            self._told_of_exif = True
            log.warning(
                "%s: EXIF's orientation %d turns it upright, and annotations are those of the "
                "upright image; its size cannot tell whether they were drawn so. Others may be "
                "like this",
                shown_text(self.name(index)),
                turned,
            )
        return np.asarray(image)

    def why_another_size(self, index: int) -> str:
        """What a message about an image that is of another size than its annotations adds."""
        turned = self.upright(index).turned
        if turned == 1:
            return ""
        return (
            f"; EXIF's orientation {turned} turns the image upright, and annotations must be those "
            f"of the upright image"
        )

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Begin to read these images, which are loaded next, where that helps."""
        self.files.read_ahead([self.names[index] for index in indices])

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """One sample as ppcls_nextvit.data.transforms.joint describes it, with `index` and the
        file's size, `original`.
        """
        image = self.image(index)
        original = image.shape[:2]
        annotations = self.truth(index, original) if self.training else {}
        sample = {"image": image, "scale": (1.0, 1.0), "flip": False, **annotations}
        sample = self.transform(sample, rng, self.name(index))
        shape = sample["image"].shape[:2]
        return {"shape": shape, **sample, "index": index, "original": original}

    def collate(self, samples: List[Sample], rng: np.random.Generator) -> Batch:
        """The batch: image float32 [B, 3, H, W] with zeros up to the largest, index int64 [B],
        shape and original int32 [B, 2], scale float32 [B, 2], flip bool [B]."""
        size = np.max([sample["image"].shape[:2] for sample in samples], axis=0).tolist()
        images = [
            padded(sample["image"].transpose(2, 0, 1).astype(np.float32, copy=False), size)
            for sample in samples
        ]
        batch = {"image": np.stack(images)}
        for key, kind in TYPES.items():
            batch[key] = np.array([sample[key] for sample in samples], kind)
        return batch
