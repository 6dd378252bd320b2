"""Which images a process sees, in which order: a pure function of (seed, epoch, rank, world_size).

The processes take turns image by image: step s of W processes with batch B sees the images of step
s of one process with batch W * B.
"""

from abc import ABC, abstractmethod
from typing import Protocol, Sized, Tuple, runtime_checkable

import numpy as np

from ..schema import ConfigError, Registry

__all__ = [
    "SAMPLERS",
    "AspectRatioSampler",
    "DistributedBatchSampler",
    "IterationSampler",
    "RASampler",
    "Sampler",
    "WindowSampler",
    "generator",
]

SAMPLERS = Registry("sampler")
STREAMS = {"order": 1, "sample": 2, "batch": 3, "replacement": 4}

Order = Tuple[np.ndarray, np.ndarray]  # indices and occurrences, see Sampler


@runtime_checkable
class Sampler(Protocol):
    """What a loader needs of a sampler. An entry of SAMPLERS builds one from the dataset, the rank
    and number of processes, the seed, whether it is for training, and the user's keys.
    """

    seed: int
    rank: int
    batch_size: int  # of this process

    def order(self, epoch: int) -> Order:
        """(indices, occurrences) of this process in `epoch`, int64 [n] each.

        An occurrence counts the appearances of one image within the epoch, so that each draws its
        own augmentation. Batch `step` is their slice [step * batch_size, (step + 1) * batch_size).
        """

    def __len__(self) -> int:
        """Batches per epoch of this process."""


def generator(stream: str, *place: int) -> np.random.Generator:
    """The numpy Generator of one place, e.g. generator('sample', seed, epoch, index, occurrence).
    Streams are independent of each other.
    """
    return np.random.default_rng((STREAMS[stream], *place))


class BatchSampler(ABC):
    """What the samplers share. training: all processes get equally many images."""

    def __init__(
        self,
        dataset: Sized,
        rank: int,
        world_size: int,
        seed: int,
        training: bool,
        batch_size: int,
        drop_last: bool,
        shuffle: bool,
    ):
        num_images = len(dataset)
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, got {batch_size}")
        if num_images < world_size:
            raise ConfigError(
                f"{num_images} images for {world_size} processes: every process needs one; start "
                f"fewer processes"
            )
        if drop_last and not training:
            raise ConfigError(
                "drop_last: True would leave images out of the evaluation; write False"
            )
        self.num_images = num_images
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.training = training
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.shuffle = shuffle
        if len(self) == 0:
            raise ConfigError(
                f"no whole batch: {self.images_per_epoch()} images per process and epoch, "
                f"batch_size {batch_size} and drop_last: True; reduce the batch size"
            )

    @abstractmethod
    def images_per_epoch(self) -> int:
        """Images of this process."""

    @abstractmethod
    def order(self, epoch: int) -> Order:
        """(indices, occurrences) of this process in `epoch`, int64 [n] each; see Sampler."""

    def permutation(self, epoch: int) -> np.ndarray:
        """All image numbers, shuffled for this epoch if the sampler shuffles."""
        if not self.shuffle:
            return np.arange(self.num_images)
        return generator("order", self.seed, epoch, 0, 0).permutation(self.num_images)

    def __len__(self) -> int:
        """Batches per epoch of this process."""
        whole, rest = divmod(self.images_per_epoch(), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)


@SAMPLERS.register
class DistributedBatchSampler(BatchSampler):
    """Every image once an epoch. `batch_size` is per process.

    In training the processes are made equally long by repeating the epoch's first images; in
    evaluation they are not, so that every image is counted exactly once, and their numbers of
    batches may differ.
    """

    def __init__(
        self,
        dataset: Sized,
        rank: int,
        world_size: int,
        seed: int,
        training: bool,
        *,
        batch_size: int,
        drop_last: bool = False,
        shuffle: bool = False,
    ):
        super().__init__(dataset, rank, world_size, seed, training, batch_size, drop_last, shuffle)

    def images_per_epoch(self) -> int:
        """Images of this process."""
        return -(-(self.num_images - (0 if self.training else self.rank)) // self.world_size)

    def order(self, epoch: int) -> Order:
        """(indices, occurrences) of this process in `epoch`, int64 [n] each."""
        indices = self.permutation(epoch)
        rest = self.num_images % self.world_size
        again = indices[:0]
        if self.training and rest and self.rank >= rest:
            again = indices[self.rank - rest : self.rank - rest + 1]
        # a copy, not a view that would keep the numbers of all processes in each
        mine = np.concatenate([indices[self.rank :: self.world_size], again])
        occurrences = np.zeros(len(mine), np.int64)
        occurrences[len(mine) - len(again) :] = 1
        return mine, occurrences


@SAMPLERS.register
class RASampler(BatchSampler):
    """Repeated augmentation (Berman et al. 2019, arXiv:1902.05509; DeiT's and PaddleClas's
    RASampler).

    Every image appears `num_repeats` times, the appearances next to each other and so on different
    processes; the epoch ends after as many images as the dataset has (rounded down to a multiple of
    256, as in DeiT, if it has 256), so that not all images come up in each.
    """

    def __init__(
        self,
        dataset: Sized,
        rank: int,
        world_size: int,
        seed: int,
        training: bool,
        *,
        batch_size: int,
        drop_last: bool = False,
        shuffle: bool = False,
        num_repeats: int = 3,
    ):
        if num_repeats < 1:
            raise ConfigError(f"num_repeats must be 1 or more, got {num_repeats}")
        _refuse_evaluation(self, training)
        self.num_repeats = num_repeats
        super().__init__(dataset, rank, world_size, seed, training, batch_size, drop_last, shuffle)

    def images_per_epoch(self) -> int:
        """Images of this process."""
        return (self.num_images // 256 * 256 or self.num_images) // self.world_size

    def order(self, epoch: int) -> Order:
        """(indices, occurrences) of this process in `epoch`, int64 [n] each; an occurrence is from
        0 to num_repeats - 1.
        """
        mine = np.arange(self.images_per_epoch()) * self.world_size + self.rank
        return self.permutation(epoch)[mine // self.num_repeats], mine % self.num_repeats


def _refuse_evaluation(sampler: BatchSampler, training: bool) -> None:
    """ConfigError, for a sampler that repeats or leaves out images, unless it is for training."""
    if not training:
        raise ConfigError(
            f"{type(sampler).__name__} is for training; evaluation needs DistributedBatchSampler, "
            "which sees every image once"
        )


@SAMPLERS.register
class AspectRatioSampler(BatchSampler):
    """Batches of images that are all wider than high, or none of them, so that little padding is
    needed; for datasets with `aspect_ratios`.

    As mmdetection's (Distributed)GroupSampler: every image once an epoch, each of the two groups
    filled up with repetitions of its own images to whole batches of all processes, and the batches
    in random order.
    """

    def __init__(
        self,
        dataset: Sized,
        rank: int,
        world_size: int,
        seed: int,
        training: bool,
        *,
        batch_size: int,
        shuffle: bool = True,
    ):
        _refuse_evaluation(self, training)
        # a range: only the keys are checked
        if not hasattr(dataset, "aspect_ratios") and not isinstance(dataset, range):
            raise ConfigError(
                "AspectRatioSampler needs a dataset that knows the sizes of its images, such as "
                "COCODataset"
            )
        ratios = getattr(dataset, "aspect_ratios", np.ones(1))
        groups = np.flatnonzero(ratios <= 1), np.flatnonzero(ratios > 1)
        self.groups = [group for group in groups if group.size]
        super().__init__(dataset, rank, world_size, seed, training, batch_size, False, shuffle)

    def images_per_epoch(self) -> int:
        """Images of this process."""
        together = self.batch_size * self.world_size
        return sum(-(-len(group) // together) for group in self.groups) * self.batch_size

    def order(self, epoch: int) -> Order:
        """(indices, occurrences) of this process in `epoch`, int64 [n] each, n a multiple of the
        batch size.
        """
        rng = generator("order", self.seed, epoch, 0, 0)
        together = self.batch_size * self.world_size
        of_groups = []
        for group in self.groups:
            shuffled = rng.permutation(group) if self.shuffle else group
            positions = np.arange(-(-len(group) // together) * together)
            of_groups.append((shuffled[positions % len(group)], positions // len(group)))
        # [batches, images of all processes]
        indices, occurrences = (
            np.concatenate(parts).reshape(-1, together) for parts in zip(*of_groups)
        )
        batches = rng.permutation(len(indices)) if self.shuffle else np.arange(len(indices))
        mine = np.s_[batches, self.rank :: self.world_size]
        return indices[mine].ravel(), occurrences[mine].ravel()


@SAMPLERS.register
class IterationSampler(BatchSampler):
    """Epochs of `iterations` batches, for recipes that count iterations: one goes on where the last
    ended in an endless sequence of passes over the dataset, each shuffled anew. Batches reach
    across the end of a pass."""

    def __init__(
        self,
        dataset: Sized,
        rank: int,
        world_size: int,
        seed: int,
        training: bool,
        *,
        batch_size: int,
        iterations: int,
        shuffle: bool = True,
    ):
        if iterations < 1:
            raise ConfigError(f"iterations must be 1 or more, got {iterations}")
        _refuse_evaluation(self, training)
        self.iterations = iterations
        super().__init__(dataset, rank, world_size, seed, training, batch_size, False, shuffle)

    def images_per_epoch(self) -> int:
        """Images of this process."""
        return self.iterations * self.batch_size

    def order(self, epoch: int) -> Order:
        """(indices, occurrences) of this process in `epoch`, int64 [n] each; an occurrence is a
        pass over the dataset.
        """
        count = self.images_per_epoch()
        passes, places = np.divmod(
            (epoch * count + np.arange(count)) * self.world_size + self.rank, self.num_images
        )
        first = passes[0]
        order = np.stack([self.permutation(number) for number in range(first, passes[-1] + 1)])
        return order[passes - first, places], passes - first


@SAMPLERS.register
class WindowSampler(DistributedBatchSampler):
    """Every image once an epoch, in a random order whose reads stay near each other, for data that
    are read in large pieces: runs of `run` neighbouring images come in random order, and within
    each `window` of the images that follow each other so the order is random again."""

    def __init__(
        self,
        dataset: Sized,
        rank: int,
        world_size: int,
        seed: int,
        training: bool,
        *,
        batch_size: int,
        drop_last: bool = False,
        run: int = 1000,
        window: int = 20000,
    ):
        if min(run, window) < 1:
            raise ConfigError(f"run and window must be 1 or more, got {run} and {window}")
        _refuse_evaluation(self, training)
        self.run = run
        self.window = window
        super().__init__(
            dataset, rank, world_size, seed, training, batch_size=batch_size, drop_last=drop_last
        )

    def permutation(self, epoch: int) -> np.ndarray:
        """All image numbers, shuffled for this epoch."""
        rng = generator("order", self.seed, epoch, 0, 0)
        images = np.arange(self.num_images)
        runs = rng.permutation(-(-self.num_images // self.run))
        by_run = np.argsort(runs[images // self.run], kind="stable")
        return by_run[np.lexsort((rng.random(self.num_images), images // self.window))]
