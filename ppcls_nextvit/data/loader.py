"""Batches of Paddle tensors from a `DataLoader.Train` or `DataLoader.Eval` section, the same ones
for every number of worker processes.
"""

import functools
import logging
import os
import signal
import threading
import time
from dataclasses import dataclass

import numpy as np
import paddle

from ..schema import ConfigError, require_keys
from .datasets.registry import DATASETS, ONCE, SECTIONS
from .images import ImageError
from .samplers import SAMPLERS, generator

GRACE_S = 60  # how long a worker outlives a SIGTERM

__all__ = ["Loader", "build_loader", "check_loader"]

log = logging.getLogger(__name__)


@SECTIONS.register
@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """num_workers: processes that load (0: the training process itself); each prepares
    `prefetch_factor` batches ahead.
    """

    num_workers: int = 0
    use_shared_memory: bool = True
    prefetch_factor: int = 2

    def __post_init__(self):
        if self.num_workers < 0 or self.prefetch_factor < 1:
            raise ValueError(
                f"expected num_workers >= 0 and prefetch_factor >= 1, got {self.num_workers} and "
                f"{self.prefetch_factor}"
            )


def _named(section, key, where):
    """(name, other keys, place) of the mapping `section[key]`."""
    entry, place = section.get(key), f"{where}.{key}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{place}: expected a mapping with a name, got {entry!r}")
    arguments = dict(entry)
    # PaddleClas's samplers may be nameless
    name = arguments.pop("name", "DistributedBatchSampler" if key == "sampler" else None)
    if not isinstance(name, str):
        raise ConfigError(f"{place}.name: missing; it says which {key} to build")
    return name, arguments, place


def check_loader(section, mode, where=None):
    """Verify every name, key and value of a DataLoader section without touching the disk; mode:
    'Train' or 'Eval'. Raises ConfigError.
    """
    where = where or f"DataLoader.{mode}"
    if mode not in ("Train", "Eval"):
        raise ConfigError(f"{where}: the modes are Train and Eval, got {mode!r}")
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: expected a mapping, got {section!r}")
    require_keys(section, ("dataset", "sampler", "loader"), where)
    name, arguments, place = _named(section, "dataset", where)
    arguments = DATASETS.check(name, arguments, place)
    DATASETS.get(name).check(arguments, mode, place)
    bad_images = SECTIONS.build("BadImages", arguments.get("bad_images"), f"{place}.bad_images")
    if mode == "Eval" and bad_images.policy == "skip":
        raise ConfigError(f"{place}.bad_images: {ONCE}")
    name, arguments, place = _named(section, "sampler", where)
    # a set so large that only the keys can be wrong
    SAMPLERS.build(name, arguments, place, range(2**62), 0, 1, 0, mode == "Train")
    SECTIONS.build("LoaderOptions", section.get("loader"), f"{where}.loader")


def build_loader(section, mode, *, num_classes, rank=0, world_size=1, seed=0):
    """The Loader of `section` = the mapping under DataLoader.Train or DataLoader.Eval; mode 'Train'
    or 'Eval'.

    num_classes: upper bound of the labels (None: unknown). rank, world_size: this process and their
    number. seed: 0 or more. Raises ConfigError for a wrong key, list or label, FileNotFoundError
    for a missing list, folder or zip file.
    """
    where = f"DataLoader.{mode}"
    check_loader(section, mode, where)
    dataset = DATASETS.build(*_named(section, "dataset", where), num_classes)
    sampler = SAMPLERS.build(
        *_named(section, "sampler", where), dataset, rank, world_size, seed, mode == "Train"
    )
    return Loader(
        dataset, sampler, SECTIONS.build("LoaderOptions", section.get("loader"), f"{where}.loader")
    )


class EpochBatches(paddle.io.Dataset):
    """The batches of one epoch from `first_step` on, as a Paddle dataset: item i is batch
    first_step + i, a dict of arrays.

    It holds also `bad`, a list: the numbers of the images that were replaced; `empty`: {key:
    (shape, type)} of the arrays without elements, which Paddle 3.3 cannot bring from a worker; and
    in place of all that `error`, if an image could not be replaced.
    """

    def __init__(self, dataset, sampler, epoch, first_step):
        super().__init__()
        self.dataset, self.sampler, self.epoch, self.first_step = (
            dataset,
            sampler,
            epoch,
            first_step,
        )
        self.indices, self.occurrences = sampler.order(epoch)

    def __len__(self):
        return max(0, len(self.sampler) - self.first_step)

    def __getitem__(self, i):
        step = self.first_step + i
        try:
            return self.batch(step)
        except ImageError as error:
            # as data: the training process raises one plain line, not a worker's traceback
            return {"error": np.frombuffer(str(error).encode(), np.uint8)}

    def batch(self, step):
        """Batch number `step` of the epoch, from its own random streams: see the class."""
        size, seed = self.sampler.batch_size, self.sampler.seed
        part, bad = slice(step * size, (step + 1) * size), []
        samples = [
            self.sample(index, occurrence, bad)
            for index, occurrence in zip(
                self.indices[part].tolist(), self.occurrences[part].tolist()
            )
        ]
        batch = self.dataset.collate(
            samples, generator("batch", seed, self.epoch, step, self.sampler.rank)
        )
        empty = {
            key: (list(array.shape), str(array.dtype))
            for key, array in batch.items()
            if not array.size
        }
        return {
            **{key: array for key, array in batch.items() if key not in empty},
            "empty": empty,
            "bad": bad,
        }

    def sample(self, index, occurrence, bad):
        """What the dataset loads as number `index`, or, by the policy, as another in its place;
        `bad` gets the unreadable ones.
        """
        place = self.sampler.seed, self.epoch, index, occurrence
        replacements, used = generator("replacement", *place), index
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
                used = int(replacements.integers(len(self.dataset)))


def _start_worker(parent, worker):
    """Runs first in a worker process. `parent`: process number of the trainer, with which the
    worker ends.

    Paddle's own watch for a killed parent sits behind a blocking read and never runs (3.3.1).
    Ctrl-C in a terminal and a scheduler's SIGTERM reach workers too. They go on, so that the
    trainer can finish its step, save and end them; a lost worker would end the trainer at once.
    """

    def leave_later(number, frame):
        timer = threading.Timer(GRACE_S, os._exit, [128 + number])
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave_later)

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # workers are the parallelism: OpenCV's threads would only compete with them
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(0)


def _end_workers(source):
    """End the workers of an iterator that may not be exhausted. Paddle links the last iterator
    globally, so that it would not do it yet.
    """
    if hasattr(source, "_workers"):
        source._try_shutdown_all(1)
        for worker in source._workers:
            worker.kill()


def _fits_shared_memory(sample_bytes, batch_size, options):
    """Whether /dev/shm has room for the batches in flight; containers often give it 64 MB."""
    needed = batch_size * sample_bytes * options.num_workers * options.prefetch_factor
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return False
    if stat.f_bavail * stat.f_frsize >= needed:
        return True
    log.warning(
        "/dev/shm has %d MB free, %d MB may be needed: workers send batches through pipes instead",
        stat.f_bavail * stat.f_frsize >> 20,
        needed >> 20,
    )
    return False


class Loader:
    """`loader.epoch(e)` yields the batches of epoch e: dicts of Paddle tensors, of a set of
    classified images image float32 [B, 3, H, W] and label int64 [B], with label_b int64 [B] and lam
    float32 [B] where batch_transform_ops are configured.

    num_images: of the whole set, over all processes. batch_size: of this process. bad_images:
    different images replaced so far. The batches depend on (seed, epoch, step, rank, world_size)
    alone.
    """

    def __init__(self, dataset, sampler, options):
        self.dataset, self.sampler, self.options = dataset, sampler, options
        self.num_images, self.batch_size = len(dataset), sampler.batch_size
        self.replaced = set()
        self.shared_memory = bool(
            options.num_workers
            and options.use_shared_memory
            and _fits_shared_memory(dataset.sample_bytes, sampler.batch_size, options)
        )

    def __len__(self):
        """Batches per epoch of this process."""
        return len(self.sampler)

    @property
    def bad_images(self):
        """How many different images were replaced so far."""
        return len(self.replaced)

    def epoch(self, epoch, first_step=0):
        """Iterate over the batches of `epoch` from `first_step` on; what comes before is not
        loaded. ImageError names a bad image.
        """
        batches = EpochBatches(self.dataset, self.sampler, epoch, first_step)
        if self.options.num_workers and len(batches):
            loader = paddle.io.DataLoader(
                batches,
                batch_size=None,
                num_workers=min(self.options.num_workers, len(batches)),
                use_shared_memory=self.shared_memory,
                prefetch_factor=self.options.prefetch_factor,
                worker_init_fn=functools.partial(_start_worker, os.getpid()),
                return_list=True,
            )
            source = iter(loader)
        else:
            source = (batches[i] for i in range(len(batches)))
        try:
            for batch in source:
                if "error" in batch:
                    raise ImageError(np.asarray(batch["error"]).tobytes().decode())
                self._count(batch.pop("bad"))
                batch.update(
                    {key: np.zeros(*described) for key, described in batch.pop("empty").items()}
                )
                yield {
                    key: value if isinstance(value, paddle.Tensor) else paddle.to_tensor(value)
                    for key, value in batch.items()
                }
        finally:
            _end_workers(source)

    def _count(self, bad):
        for index in bad:
            if index not in self.replaced:
                self.replaced.add(index)
                log.warning(
                    "%s: bad image, replaced by another (%d of at most %d)",
                    self.dataset.name(index),
                    len(self.replaced),
                    self.dataset.bad_images.limit,
                )
        if len(self.replaced) > self.dataset.bad_images.limit:
            raise ImageError(
                f"{self.dataset.name(bad[-1])}: more than {self.dataset.bad_images.limit} bad "
                f"images (bad_images.limit)"
            )
