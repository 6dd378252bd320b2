"""Work in a process of its own: it needs a Paddle with other flags, or may end its process."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any, Callable, Tuple

from .verify import ExportError

__all__ = ["in_own_process"]


def in_own_process(function: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
    """`function(*arguments)`, run in a process that was started with `environment` added to its
    own, and is kept for the next call.

    ExportError if that process dies.
    """
    try:
        return _process(tuple(environment.items())).submit(function, *arguments).result()
    except BrokenProcessPool as error:
        _process.cache_clear()
        raise ExportError(
            "the process that writes the files ended before it was done; is there enough memory, "
            'and does the script that asks for it have `if __name__ == "__main__":`?'
        ) from error


@cache
def _process(environment: Tuple[Tuple[str, str], ...]) -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    before = {name: os.environ.get(name) for name, _ in environment}
    # Paddle reads its flags when the new process imports it
    os.environ.update(environment)
    try:
        pool.submit(os.getpid).result()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
    return pool
