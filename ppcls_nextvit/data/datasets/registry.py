"""The registry of datasets, and what every dataset offers."""

from dataclasses import dataclass
from typing import Any, Dict, List, Literal, Optional, Protocol, runtime_checkable

import numpy as np

from ...schema import Registry

__all__ = ["BadImages", "ClassCounts", "DATASETS", "Dataset"]


DATASETS = Registry("dataset")
SECTIONS = Registry("section")
ONCE = "evaluation counts every image once, as it is; remove this"

Sample = Dict[str, Any]  # one image and what is known of it
Batch = Dict[str, np.ndarray]


@SECTIONS.register
@dataclass(frozen=True, kw_only=True)
class BadImages:
    """What to do with a training image that cannot be read: `raise` (stop the run with its path),
    or `skip` (another image takes its place, a warning names it) for up to `limit` different
    images."""

    policy: Literal["raise", "skip"] = "raise"
    limit: int = 0

    def __post_init__(self) -> None:
        if self.limit < 0 or (self.limit > 0) != (self.policy == "skip"):
            raise ValueError(
                f"policy skip needs a limit of 1 or more, policy raise none; got "
                f"policy={self.policy}, limit={self.limit}"
            )


@dataclass(frozen=True)
class ClassCounts:
    """How much of each class a dataset holds. counts: int64 [classes]. unit: what is counted.
    looked_at: so many of its images were; the others are not known. hint: what to say, beside the
    numbers, where a class has none.
    """

    counts: np.ndarray
    unit: Literal["images", "labels", "objects", "pixels"]
    looked_at: int
    hint: str = ""


@runtime_checkable
class Dataset(Protocol):
    """What a loader needs of a dataset. An entry of DATASETS builds one from the number of classes
    of the model (None: unknown) and the user's keys.

    bad_images: what to do with an image that cannot be read. sample_bytes: the memory of one sample
    in a batch, or more, for which the loader shares memory with its workers; it may load some to
    know. source: the file or folder that says what is in it, for messages. class_names: in the
    order of the classes, None where the source has none. A dataset that knows the sizes of its
    images has `aspect_ratios`, width / height as float [len(dataset)], too; one whose images take
    time to come has `read_ahead(indices)`, which begins to read those of the next batch; one whose
    `collate` makes `stacked` (data/memory.py) of its samples' `image` has `stacks_images`, True.
    """

    bad_images: BadImages
    source: str
    class_names: Optional[List[str]]

    @property
    def sample_bytes(self) -> int:
        """See above."""

    def __len__(self) -> int:
        """The number of images."""

    def name(self, index: int) -> str:
        """The path of an image, for messages."""

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """One sample, transformed, with the draws of the transforms from `rng`. ImageError,
        beginning with the path, for an image that cannot be read or transformed.
        """

    def collate(self, samples: List[Sample], rng: np.random.Generator) -> Batch:
        """The samples of a batch as arrays. ImageError for samples that do not fit together."""

    def class_counts(self) -> ClassCounts:
        """How much of each class there is, as far as a second tells. ImageError for a label file
        that cannot be read.
        """

    @staticmethod
    def check(arguments: Dict[str, Any], mode: str, where: str) -> None:
        """Verify more of the user's keys than their types, before the disk is touched. mode:
        'Train' or 'Eval'. ConfigError, beginning with `where`.
        """
