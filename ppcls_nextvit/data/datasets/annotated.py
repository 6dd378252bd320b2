"""What the datasets of detection and segmentation share."""

from abc import ABC, abstractmethod
from typing import Any, Dict, List, Optional, Tuple, TypeVar

import numpy as np

from ...schema import ConfigError
from ..images import decode_image
from ..transforms.joint import JointPipeline, fixed_pipeline, padded
from .files import Files
from .registry import SECTIONS, BadImages, Batch, Sample

__all__ = ["AnnotatedDataset", "thinned"]

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
    `truth`, which a subclass has.

    files, names: the images. mode: 'train', or 'val' without annotations in the samples.
    """

    def __init__(
        self,
        files: Files,
        names: List[str],
        mode: str,
        transform_ops: Optional[list],
        bad_images: Optional[dict],
    ):
        files.check(names)
        self.files = files
        self.names = names
        self.training = mode == "train"
        self.transform = JointPipeline(transform_ops)
        self.bad_images: BadImages = SECTIONS.build("BadImages", bad_images, "bad_images")
        # three channels in float32, eight masks
        self.sample_bytes = int(self.transform.max_pixels(1 << 20) * 20)

    @abstractmethod
    def truth(self, index: int, shape: Tuple[int, int]) -> Sample:
        """The annotations of an image of `shape` = (height, width), as keys of a sample; see
        ppcls_nextvit.data.transforms.joint. ImageError where they do not fit the image.
        """

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

    def image(self, index: int) -> np.ndarray:
        """An image as uint8 [H, W, 3], RGB. ImageError if it cannot be read."""
        return decode_image(self.files.read(self.names[index]), name=self.name(index))

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
