"""Which images a process sees, in which order: a pure function of (seed, epoch, rank, world_size).

`sampler.order(epoch)` -> (indices, occurrences), two int64 arrays [n] of this process. An
occurrence counts the appearances of one image within the epoch, so that each draws its own
augmentation. Batch `step` is their slice [step * batch_size, (step + 1) * batch_size).
The processes take turns image by image: step s of W processes with batch B sees the images of step
s of one process with batch W * B.
"""

import numpy as np

from ..schema import ConfigError, Registry

__all__ = [
    "SAMPLERS",
    "AspectRatioSampler",
    "DistributedBatchSampler",
    "IterationSampler",
    "RASampler",
    "generator",
]

SAMPLERS = Registry("sampler")
STREAMS = {"order": 1, "sample": 2, "batch": 3, "replacement": 4}


def generator(stream, *place):
    """The numpy Generator of one place, e.g. generator('sample', seed, epoch, index, occurrence).
    Streams are independent of each other.
    """
    return np.random.default_rng((STREAMS[stream], *place))


class BatchSampler:
    """What the samplers share. dataset: the whole set; pad: in training, all processes get equally
    many.
    """

    def __init__(self, dataset, rank, world_size, seed, pad, batch_size, drop_last, shuffle):
        num_images = len(dataset)
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, got {batch_size}")
        if num_images < world_size:
            raise ConfigError(
                f"{num_images} images for {world_size} processes: every process needs one; start "
                f"fewer processes"
            )
        if drop_last and not pad:
            raise ConfigError(
                "drop_last: True would leave images out of the evaluation; write False"
            )
        self.num_images, self.rank, self.world_size, self.seed, self.pad = (
            num_images,
            rank,
            world_size,
            seed,
            pad,
        )
        self.batch_size, self.drop_last, self.shuffle = batch_size, drop_last, shuffle
        if len(self) == 0:
            raise ConfigError(
                f"no whole batch: {self.images_per_epoch()} images per process and epoch, "
                f"batch_size {batch_size} and "
                "drop_last: True; reduce the batch size"
            )

    def permutation(self, epoch):
        """All image numbers, shuffled for this epoch if the sampler shuffles."""
        return (
            generator("order", self.seed, epoch, 0, 0).permutation(self.num_images)
            if self.shuffle
            else np.arange(self.num_images)
        )

    def __len__(self):
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
        dataset,
        rank,
        world_size,
        seed,
        pad,
        *,
        batch_size: int,
        drop_last: bool = False,
        shuffle: bool = False,
    ):
        super().__init__(dataset, rank, world_size, seed, pad, batch_size, drop_last, shuffle)

    def images_per_epoch(self):
        """Images of this process."""
        return -(-(self.num_images - (0 if self.pad else self.rank)) // self.world_size)

    def order(self, epoch):
        """(indices, occurrences) of this process in `epoch`, int64 [n] each; see the module's
        docstring.
        """
        indices = self.permutation(epoch)
        occurrences = np.zeros(self.num_images, np.int64)
        if self.pad:
            missing = -self.num_images % self.world_size
            indices = np.concatenate([indices, indices[:missing]])
            occurrences = np.concatenate([occurrences, np.ones(missing, np.int64)])
        return indices[self.rank :: self.world_size], occurrences[self.rank :: self.world_size]


@SAMPLERS.register
class RASampler(BatchSampler):
    """Repeated augmentation (Berman et al. 2019, arXiv:1902.05509; DeiT's and PaddleClas's
    RASampler).

    Every image appears `num_repeats` times, the appearances next to each other and so on different
    processes; the epoch ends after as many images as the set has (rounded down to a multiple of
    256, as in DeiT, if it has 256), so that not all images come up in each.
    """

    def __init__(
        self,
        dataset,
        rank,
        world_size,
        seed,
        pad,
        *,
        batch_size: int,
        drop_last: bool = False,
        shuffle: bool = False,
        num_repeats: int = 3,
    ):
        if num_repeats < 1:
            raise ConfigError(f"num_repeats must be 1 or more, got {num_repeats}")
        if not pad:
            raise ConfigError(
                "RASampler is for training; evaluation needs DistributedBatchSampler, which sees "
                "every image once"
            )
        self.num_repeats = num_repeats
        super().__init__(dataset, rank, world_size, seed, pad, batch_size, drop_last, shuffle)

    def images_per_epoch(self):
        """Images of this process."""
        return (self.num_images // 256 * 256 or self.num_images) // self.world_size

    def order(self, epoch):
        """(indices, occurrences) of this process in `epoch`, int64 [n] each; an occurrence is from
        0 to num_repeats - 1.
        """
        mine = np.arange(self.images_per_epoch()) * self.world_size + self.rank
        return self.permutation(epoch)[mine // self.num_repeats], mine % self.num_repeats


@SAMPLERS.register
class AspectRatioSampler(BatchSampler):
    """Batches of images that are all wider than high, or none of them, so that little padding is
    needed; for sets with `aspect_ratios`.

    As mmdetection's (Distributed)GroupSampler: every image once an epoch, each of the two groups
    filled up with repetitions of its own images to whole batches of all processes, and the batches
    in random order.
    """

    def __init__(
        self, dataset, rank, world_size, seed, pad, *, batch_size: int, shuffle: bool = True
    ):
        if not pad:
            raise ConfigError(
                "AspectRatioSampler is for training; evaluation needs DistributedBatchSampler, "
                "which sees every image once"
            )
        # a range: only the keys are checked
        if not hasattr(dataset, "aspect_ratios") and not isinstance(dataset, range):
            raise ConfigError(
                "AspectRatioSampler needs a dataset that knows the sizes of its images, such as "
                "COCODataset"
            )
        ratios = getattr(dataset, "aspect_ratios", np.ones(1))
        self.groups = [
            group
            for group in (np.flatnonzero(ratios <= 1), np.flatnonzero(ratios > 1))
            if group.size
        ]
        super().__init__(dataset, rank, world_size, seed, pad, batch_size, False, shuffle)

    def images_per_epoch(self):
        """Images of this process."""
        together = self.batch_size * self.world_size
        return sum(-(-len(group) // together) for group in self.groups) * self.batch_size

    def order(self, epoch):
        """(indices, occurrences) of this process in `epoch`, int64 [n] each, n a multiple of the
        batch size.
        """
        rng, together = (
            generator("order", self.seed, epoch, 0, 0),
            self.batch_size * self.world_size,
        )
        indices, occurrences = [], []
        for group in self.groups:
            group = rng.permutation(group) if self.shuffle else group
            positions = np.arange(-(-len(group) // together) * together)
            indices.append(group[positions % len(group)])
            occurrences.append(positions // len(group))
        indices, occurrences = (
            np.concatenate(parts).reshape(-1, together) for parts in (indices, occurrences)
        )
        batches = rng.permutation(len(indices)) if self.shuffle else np.arange(len(indices))
        return tuple(
            part[batches, self.rank :: self.world_size].ravel() for part in (indices, occurrences)
        )


@SAMPLERS.register
class IterationSampler(BatchSampler):
    """Epochs of `iterations` batches, for recipes that count iterations: one goes on where the last
    ended in an endless sequence of passes over the set, each shuffled anew. Batches reach across
    the end of a pass."""

    def __init__(
        self,
        dataset,
        rank,
        world_size,
        seed,
        pad,
        *,
        batch_size: int,
        iterations: int,
        shuffle: bool = True,
    ):
        if iterations < 1:
            raise ConfigError(f"iterations must be 1 or more, got {iterations}")
        if not pad:
            raise ConfigError(
                "IterationSampler is for training; evaluation needs DistributedBatchSampler, "
                "which sees every image once"
            )
        self.iterations = iterations
        super().__init__(dataset, rank, world_size, seed, pad, batch_size, False, shuffle)

    def images_per_epoch(self):
        """Images of this process."""
        return self.iterations * self.batch_size

    def order(self, epoch):
        """(indices, occurrences) of this process in `epoch`, int64 [n] each; an occurrence is a
        pass over the set.
        """
        count = self.images_per_epoch()
        passes, places = np.divmod(
            (epoch * count + np.arange(count)) * self.world_size + self.rank, self.num_images
        )
        first = passes[0]
        order = np.stack([self.permutation(number) for number in range(first, passes[-1] + 1)])
        return order[passes - first, places], passes - first
