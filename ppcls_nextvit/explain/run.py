"""Explanations of the images of a configuration, as files: a PNG and a JSON each."""

import sys
from functools import partial
from pathlib import Path
from typing import Any, Callable, List, Optional, Union

from ..config import Config
from ..data.images import ImageError
from ..engine.curves import pyplot
from ..engine.distributed import start_processes
from ..engine.logger import logger
from ..tasks.inputs import Source
from .kinds import KINDS, Settings, checked, images_to_explain

__all__ = ["OUT", "run"]

OUT = "output/explain"


def run(
    kind: str,
    config: Config,
    settings: Settings,
    out: Union[str, Path] = OUT,
    images: Optional[Source] = None,
    said: Callable[[Path], Any] = lambda path: None,
) -> List[Path]:
    """Write the Explanations of `kind` into the folder `out`; the paths of all files, with each of
    which `said` is called. What each raises, see kinds.explain; what is missing is known before the
    model is built. Of several images one that cannot be looked at costs none of the others: its
    error is logged, and at the end an ImageError counts them.
    """
    checked(kind, config, settings)
    pyplot()
    start_processes(config.Global.device)
    source: Any = images
    if kind != "multiscale":
        source = images_to_explain(config, images)
    written: List[Path] = []
    errors: List[ImageError] = []
    make: Any = KINDS[kind].make
    if KINDS[kind].of_each and len(source) > 1:
        make = partial(make, failed=lambda error: noted(error, errors))
    with bar(KINDS[kind].steps(config, source, settings), kind) as shown:
        for one in make(config, source, settings, shown.update):
            for path in one.save(out):
                written.append(path)
                said(path)
    if errors:
        raise ImageError(
            f"{len(errors)} of {len(source)} images could not be looked at; the first: {errors[0]}"
        )
    return written


def noted(error: ImageError, errors: List[ImageError]) -> None:
    """Log the error of an image and keep it."""
    logger.error("%s", error)
    errors.append(error)


def bar(total: int, text: str) -> Any:
    """A progress bar on a terminal; elsewhere one that prints nothing."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            "the progress bar needs tqdm: pip install 'ppcls_nextvit[train]'"
        ) from error
    return tqdm(
        total=total, desc=text, file=sys.stderr, leave=False, disable=not sys.stderr.isatty()
    )
