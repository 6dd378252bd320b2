"""The pictures and the page of a training run that is done."""

from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict

from ..files import described
from .curves import draw_curves
from .logger import logger
from .page import Table, write_page
from .progress import Stopped, StopSignal

__all__ = ["draw_end"]


def draw_end(
    directory: Path, name: str, task: Any, best_so_far: str, evaluated: bool, stop: StopSignal
) -> None:
    """Draw them into the run's folder, whatever becomes of them: the run itself is saved. name: of
    the model. evaluated: whether the task has an evaluation to draw.
    """
    tables: Dict[str, Table] = {}
    summary = f"{task.best_metric}: {best_so_far}"
    pictures: Dict[str, Callable[[], Any]] = {
        "curves.png": partial(draw_curves, directory, task.shown, task.best_metric)
    }
    if evaluated:
        pictures["pictures of the evaluation"] = partial(task.report, directory)
    pictures["report.html"] = partial(write_page, directory, name, summary, tables)
    for picture, draw in pictures.items():
        try:
            with stop.at_once():
                tables.update(draw() or {})
        except Stopped:
            logger.warning("%s: not drawn, because of signal %d", picture, stop.number)
        except Exception as error:  # of any kind
            expected = isinstance(error, (ValueError, OSError, ImportError))
            logger.warning(
                "%s: could not be drawn: %s", picture, described(error), exc_info=not expected
            )
