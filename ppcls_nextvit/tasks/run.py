"""Train and evaluate what a configuration says."""

import json
from pathlib import Path
from typing import Any, Dict, Optional

from ..config import Config
from ..engine import train as loop
from ..engine.curves import pyplot
from ..engine.distributed import start_processes
from ..engine.page import write_page
from ..export.opened import Opened
from ..schema import ConfigError
from .registry import task_of

__all__ = ["evaluate", "train"]


def train(config: Config, overwrite: bool = False) -> int:
    """Train as the Config says; see engine.train.train for what it writes and raises. overwrite:
    remove an earlier run in the folder, in place of setting it aside there.

    Returns the exit status: 0, or 128 + signal number after a stop that saved a checkpoint.
    """
    return loop.train(config, task_of(config), overwrite)


def evaluate(
    config: Config, report: Optional[Path] = None, opened: Optional[Opened] = None
) -> Dict[str, Any]:
    """{metric: value, ..., images} of Global.pretrained_model (or Global.checkpoints) on
    DataLoader.Eval. Works in many processes too. ConfigError without weights.

    report: a folder that gets report.html, results.csv and the pictures; for one process. opened:
    an export, whose program is asked in place of a model (see exported.config_of_export).
    """
    given = config.Global.pretrained_model or config.Global.checkpoints or config.Arch.pretrained
    if opened is None and not given:
        raise ConfigError(
            f"{config.path}: nothing to evaluate; give weights: -o Global.pretrained_model=FILE"
        )
    processes = start_processes(config.Global.device)
    kind = task_of(config)
    model = None if opened is None else kind.exported_model(opened)
    task = kind(config, processes, training=False, model=model)
    if report is None:
        return task.evaluate()
    if processes.many:
        raise ConfigError("a report is made by one process; evaluate without the launcher")
    pyplot()  # a missing extra must show now
    report.mkdir(parents=True, exist_ok=True)
    result = task.evaluate()
    with open(report / "log.jsonl", "w", encoding="utf-8") as file:
        file.write(json.dumps({"kind": "eval", **result}) + "\n")
    summary = f"{task.best_metric}: {result[task.best_metric]:.4f} of {result['images']} images"
    weights = config.Global.pretrained_model or config.Global.checkpoints or config.path
    write_page(report, config.Arch.name, summary, task.report(report) or {}, weights)
    return result
