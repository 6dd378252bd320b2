"""Batches of Paddle tensors from a `DataLoader.Train` or `DataLoader.Eval` section, the same ones
for every number of worker processes.
"""

import logging
from collections import deque
from dataclasses import dataclass
from typing import Any, Callable, Deque, Dict, Generator, Iterator, List, Optional, Set, Tuple

import numpy as np
import paddle

from ..schema import ConfigError, require_keys, shown, shown_text
from .batches import EpochBatches
from .datasets.registry import DATASETS, ONCE, SECTIONS, Dataset
from .images import ImageError
from .samplers import SAMPLERS, Sampler
from .workers import Workers, usable_workers

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

    def __post_init__(self) -> None:
        if self.num_workers < 0 or self.prefetch_factor < 1:
            raise ValueError(
                f"expected num_workers >= 0 and prefetch_factor >= 1, got {self.num_workers} and "
                f"{self.prefetch_factor}"
            )


def _named(section: Dict[str, Any], key: str, where: str) -> Tuple[str, Dict[str, Any], str]:
    """(name, other keys, place) of the mapping `section[key]`."""
    entry, place = section.get(key), f"{where}.{key}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{place}: expected a mapping with a name, got {shown(entry)}")
    arguments = dict(entry)
    # PaddleClas's samplers may be nameless
    name = arguments.pop("name", "DistributedBatchSampler" if key == "sampler" else None)
    if not isinstance(name, str):
        raise ConfigError(f"{place}.name: missing; it says which {key} to build")
    return name, arguments, place


def check_loader(section: Any, mode: str, where: Optional[str] = None) -> None:
    """Verify every name, key and value of a DataLoader section without touching the disk; mode:
    'Train' or 'Eval'. Raises ConfigError.
    """
    where = where or f"DataLoader.{mode}"
    if mode not in ("Train", "Eval"):
        raise ConfigError(f"{where}: the modes are Train and Eval, got {shown(mode)}")
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: expected a mapping, got {shown(section)}")
    require_keys(section, ("dataset", "sampler", "loader"), where)
    name, arguments, place = _named(section, "dataset", where)
    arguments = DATASETS.check(name, arguments, place)
    DATASETS.get(name).check(arguments, mode, place)
    SECTIONS.build("RemoteOptions", arguments.get("remote"), f"{place}.remote")
    bad_images = SECTIONS.build("BadImages", arguments.get("bad_images"), f"{place}.bad_images")
    if mode == "Eval" and bad_images.policy == "skip":
        raise ConfigError(f"{place}.bad_images: {ONCE}")
    name, arguments, place = _named(section, "sampler", where)
    # a dataset so large that only the keys can be wrong
    SAMPLERS.build(name, arguments, place, range(2**62), 0, 1, 0, mode == "Train")
    SECTIONS.build("LoaderOptions", section.get("loader"), f"{where}.loader")


def build_loader(
    section: Any,
    mode: str,
    *,
    num_classes: Optional[int],
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
) -> "Loader":
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
    options = SECTIONS.build("LoaderOptions", section.get("loader"), f"{where}.loader")
    return Loader(dataset, sampler, options)


Batch = Dict[str, Any]
Convert = Callable[[Batch], Batch]


def _tensors(batch: Batch) -> Batch:
    """`batch` with tensors of its own for its arrays."""
    return {
        key: paddle.to_tensor(value) if isinstance(value, np.ndarray) else value
        for key, value in batch.items()
    }


def _read_ahead(batches: Generator[Batch, None, None]) -> Iterator[Batch]:
    """`batches` with tensors on the device, brought there by a thread of Paddle's reader."""
    errors: List[Exception] = []
    without: Deque[Batch] = deque()  # of each batch what has no elements, which Paddle cannot bring

    class Stream(paddle.io.IterableDataset):
        def __iter__(self) -> Iterator[Batch]:
            try:
                for batch in batches:
                    empty = {key: value for key, value in batch.items() if not np.size(value)}
                    without.append(empty)
                    yield {key: value for key, value in batch.items() if key not in empty}
            except Exception as error:  # of which Paddle would say that some thread failed
                errors.append(error)

    reader = iter(paddle.io.DataLoader(Stream(), batch_size=None, return_list=True))
    try:
        for batch in reader:
            yield {**batch, **_tensors(without.popleft())}
    finally:
        reader._try_shutdown_all()  # Paddle keeps the last one
        batches.close()
    if errors:
        raise errors[0]


class Loader:
    """`loader.epoch(e)` yields the batches of epoch e: dicts of Paddle tensors, of a dataset of
    classification image float32 [B, 3, H, W] and label int64 [B], with label_b int64 [B] and lam
    float32 [B] where batch_transform_ops are configured.

    num_images: of the whole dataset, over all processes. batch_size: of this process. bad_images:
    different images replaced so far. lost_worker: what happened to a worker that is no more, or
    None; the loader loads the rest of the epoch by itself then. The batches depend on (seed, epoch,
    step, rank, world_size) alone.
    """

    def __init__(self, dataset: Dataset, sampler: Sampler, options: LoaderOptions):
        self.dataset = dataset
        self.sampler = sampler
        self.options = options
        self.num_images = len(dataset)
        self.batch_size = sampler.batch_size
        self.replaced: Set[int] = set()
        self.lost_worker: Optional[str] = None
        self.num_workers = usable_workers(options.num_workers)

    def __len__(self) -> int:
        """Batches per epoch of this process."""
        return len(self.sampler)

    @property
    def bad_images(self) -> int:
        """How many different images were replaced so far."""
        return len(self.replaced)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Dict[str, paddle.Tensor]]:
        """Iterate over the batches of `epoch` from `first_step` on; what comes before is not
        loaded. ImageError names a bad image.
        """
        batches = EpochBatches(self.dataset, self.sampler, epoch, first_step)
        # a device copies while the step before computes
        on_cpu = paddle.device.get_device() == "cpu"
        source = self._loaded(batches, _tensors) if on_cpu else _read_ahead(self._loaded(batches))
        for batch in source:
            self._count(batch.pop("bad"))
            yield batch

    def _loaded(
        self, batches: EpochBatches, convert: Optional[Convert] = None
    ) -> Generator[Batch, None, None]:
        """What `convert` makes of the items of `batches`, loaded by the workers where there are any
        and while they live; without it the items, with arrays that are good until the next is asked
        for.
        """
        made = 0
        if self.num_workers:
            made = yield from self._from_workers(batches, convert)
        for item in range(made, len(batches)):
            yield convert(batches[item]) if convert else batches[item]

    def _from_workers(
        self, batches: EpochBatches, convert: Optional[Convert]
    ) -> Generator[Batch, None, int]:
        """As `_loaded`, until a worker is lost; returns how many items there were."""
        shared = (
            self.batch_size * self.dataset.sample_bytes if self.options.use_shared_memory else 0
        )
        workers = Workers(
            batches.made,
            len(batches),
            self.num_workers,
            self.options.prefetch_factor,
            shared,
        )
        try:
            for made in range(len(batches)):
                batch = workers.take()
                if batch is None:
                    self.lost_worker = workers.lost
                    log.warning("%s; this process loads the rest of the epoch", workers.lost)
                    return made
                if convert:
                    batch = convert(batch)
                    workers.give_back()
                yield batch
        finally:
            workers.end()
        return len(batches)

    def _count(self, bad: List[int]) -> None:
        """Count the images that were replaced. ImageError above the limit."""
        limit = self.dataset.bad_images.limit
        for index in bad:
            if index not in self.replaced:
                self.replaced.add(index)
                log.warning(
                    "%s: bad image, replaced by another (%d of at most %d)",
                    shown_text(self.dataset.name(index)),
                    len(self.replaced),
                    limit,
                )
        if len(self.replaced) > limit:
            raise ImageError(
                f"{self.dataset.name(bad[-1])}: more than {limit} bad images (bad_images.limit)"
            )
