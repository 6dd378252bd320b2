"""Whether the disk has room for what a run will save."""

import shutil
from pathlib import Path
from typing import Dict, Sequence, Type

from paddle import nn
from paddle.optimizer import SGD, Momentum, Optimizer

from .checkpoint import SUFFIXES, CheckpointError
from .logger import logger

__all__ = ["check_disk", "set_bytes"]

# arrays of a parameter's size that an optimiser remembers for each
MOMENTS: Dict[Type[Optimizer], int] = {SGD: 0, Momentum: 1}
MOMENTS_OF_OTHERS = 2
FLOAT32_BYTES = 4


def set_bytes(model: nn.Layer, optimizer: Optimizer, with_ema: bool) -> int:
    """About how large a checkpoint set is."""
    sizes = [tensor.size for tensor in model.state_dict().values()]
    trained = [p.size for p in model.parameters() if not p.stop_gradient]
    moments = MOMENTS.get(type(optimizer), MOMENTS_OF_OTHERS)
    numbers = sum(sizes) * (1 + with_ema) + moments * sum(trained)
    return FLOAT32_BYTES * int(numbers)


def check_disk(
    directory: Path, size: int, kept: Sequence[str], others: int, replaces: bool = True
) -> None:
    """CheckpointError if the disk of `directory` has no room for the sets `kept`, of about `size`
    bytes each, and for one that is being written; a warning if it has none for so many `others`.
    replaces: whether they take the place of those that are there.
    """
    free = shutil.disk_usage(directory).free
    there = sum(_bytes_of(directory, name) for name in kept) if replaces else 0
    needed = size * (len(kept) + 1) - there
    planned = needed + size * others
    if free < needed:
        raise CheckpointError(
            f"{directory}: the disk has {_mb(free)} free, and {', '.join(kept)} need about "
            f"{_mb(needed)}; make room, or give another Global.output_dir"
        )
    if free < planned:
        logger.warning(
            "%s: the disk has %s free, and the run's %d checkpoints need about %s; "
            "Global.save_interval says how many there are",
            directory,
            _mb(free),
            len(kept) + others,
            _mb(planned),
        )


def _bytes_of(directory: Path, name: str) -> int:
    files = [directory / f"{name}{suffix}" for suffix in SUFFIXES]
    return sum(file.stat().st_size for file in files if file.is_file())


def _mb(size: float) -> str:
    return f"{max(size, 0) / 1e6:.0f} MB"
