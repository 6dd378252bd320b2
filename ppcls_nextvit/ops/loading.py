"""Loading the compiled operators, once in a process."""

import functools
import logging
from typing import Optional

from . import building

__all__ = ["is_loaded", "require", "status_line"]

LOG = logging.getLogger(__name__)
ADVICE = "build with nextvit build-ops"
SLOWER = 1.7  # a training step of Next-ViT-S without the operators; docs/performance.md


def is_loaded() -> bool:
    """Whether the compiled operators are there; the first call loads them."""
    return _failure() is None


def require() -> None:
    """RuntimeError where the compiled operators are not there."""
    if not is_loaded():
        raise RuntimeError("the compiled operators are not built; run nextvit build-ops")


@functools.cache
def _failure() -> Optional[str]:
    """Load them; None, or why they are not there."""
    path = building.library_path()
    if not path.is_file():
        return "not built"
    from paddle.utils.cpp_extension.extension_utils import load_op_meta_info_and_register_op

    try:
        load_op_meta_info_and_register_op(str(path))
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        LOG.warning("ops: %s cannot be loaded: %s; %s --force", path, reason[0], ADVICE)
        return "not loadable"
    return None


def status_line() -> str:
    """What models use, in one line."""
    failure = _failure()
    if failure is None:
        less = "" if building.has_onednn() else f"; Paddle's products: no {building.ONEDNN}"
        return f"ops: compiled ({building.library_path()}){less}"
    return f"ops: {failure} (sliced form, {SLOWER} x slower); {ADVICE}"
