"""Our models inside PaddleClas, PaddleDetection and PaddleSeg: one adapter for each, made from the
registry of models. It imports its suite when it is called.

    from ppcls_nextvit.hosts import paddleclas
    paddleclas.register()
"""

import importlib
from types import ModuleType
from typing import Sequence

__all__ = ["import_suite"]


def import_suite(suite: str, modules: Sequence[str], install: str) -> ModuleType:
    """The first of `modules` that is there; ImportError with the command `install` if none is, or
    naming what the suite itself lacks.
    """
    for module in modules:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise ImportError(
                    f"{suite} cannot be imported, as the module {error.name!r} is not installed"
                ) from error
    raise ImportError(f"{suite} is not installed: {install}, or put a checkout of it on PYTHONPATH")
