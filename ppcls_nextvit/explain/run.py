"""Explanations of the images of a configuration, as files: a PNG and a JSON each."""

import sys
from pathlib import Path
from typing import Any, List, Optional, Union

from ..config import Config
from ..engine.curves import pyplot
from ..engine.distributed import start_processes
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
) -> List[Path]:
    """Write the Explanations of `kind` into the folder `out`; the paths of all files. What each
    raises, see kinds.explain; what is missing is known before the model is built.
    """
    checked(kind, config, settings)
    pyplot()
    start_processes(config.Global.device)
    source: Any = images
    if kind != "multiscale":
        source = images_to_explain(config, images)
    written = []
    with bar(KINDS[kind].steps(config, source, settings), kind) as shown:
        for one in KINDS[kind].make(config, source, settings, shown.update):
            written += one.save(out)
    return written


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
