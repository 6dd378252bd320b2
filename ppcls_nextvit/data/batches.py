"""The batches of one epoch: samples loaded in their order, each with its own random stream, and
another image in the place of one that cannot be read.
"""

from typing import Any, Dict, List, Optional

import numpy as np

from .datasets.registry import Dataset, Sample
from .images import ImageError
from .samplers import Sampler, generator

__all__ = ["EpochBatches"]


class EpochBatches:
    """The batches of one epoch from `first_step` on, a sequence: item i is batch first_step + i, a
    dict of arrays and of `bad`, the numbers of the images that were replaced. ImageError if one
    could not be.
    """

    def __init__(self, dataset: Dataset, sampler: Sampler, epoch: int, first_step: int):
        self.dataset = dataset
        self.sampler = sampler
        self.epoch = epoch
        self.first_step = first_step
        self.indices, self.occurrences = sampler.order(epoch)

    def __len__(self) -> int:
        return max(0, len(self.sampler) - self.first_step)

    def __getitem__(self, item: int) -> Dict[str, Any]:
        return self.made(item)

    def made(self, item: int, memory: Optional[np.ndarray] = None) -> Dict[str, Any]:
        """Batch `item`. memory: bytes where images that the dataset only stacks may stand; each is
        moved there while the processor's cache still has it.
        """
        step, size = self.first_step + item, self.sampler.batch_size
        part = slice(step * size, (step + 1) * size)
        indices = self.indices[part].tolist()
        places = zip(indices, self.occurrences[part].tolist())
        if hasattr(self.dataset, "read_ahead"):
            self.dataset.read_ahead(indices)
        bad: List[int] = []
        samples: List[Sample] = []
        for index, occurrence in places:
            sample = self.sample(index, occurrence, bad)
            if memory is not None and getattr(self.dataset, "stacks_images", False):
                sample = {**sample, "image": _moved(sample["image"], memory, len(samples))}
            samples.append(sample)
        rng = generator("batch", self.sampler.seed, self.epoch, step, self.sampler.rank)
        return {**self.dataset.collate(samples, rng), "bad": bad}

    def sample(self, index: int, occurrence: int, bad: List[int]) -> Sample:
        """What the dataset loads as number `index`, or, by the policy, as another in its place;
        `bad` gets the unreadable ones. ImageError where the policy allows no other, or no more.
        """
        place = self.sampler.seed, self.epoch, index, occurrence
        replacements, used = None, index
        while True:
            try:
                return self.dataset.load(used, generator("sample", *place))
            except ImageError as error:
                bad.append(used)
                if self.dataset.bad_images.policy == "raise":
                    raise
                limit = self.dataset.bad_images.limit
                if len(set(bad)) > limit:
                    raise ImageError(
                        f"{error}; more than {limit} bad images (bad_images.limit)"
                    ) from error
                replacements = replacements or generator("replacement", *place)
                used = int(replacements.integers(len(self.dataset)))


def _moved(image: np.ndarray, memory: np.ndarray, number: int) -> np.ndarray:
    """`image` at the place of image `number` of those of its size in the bytes `memory`, or where
    it was if there is no room.
    """
    start = number * image.nbytes
    if start + image.nbytes > len(memory):
        return image
    place = memory[start : start + image.nbytes].view(image.dtype).reshape(image.shape)
    np.copyto(place, image)
    return place
