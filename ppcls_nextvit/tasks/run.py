"""Train and evaluate what a configuration says."""

from typing import Any, Dict

from ..config import Config
from ..engine import train as loop
from ..engine.distributed import start_processes
from ..schema import ConfigError
from .registry import task_of

__all__ = ["evaluate", "train"]


def train(config: Config, overwrite: bool = False) -> int:
    """Train as the Config says; see engine.train.train for what it writes and raises. overwrite:
    remove an earlier run in the folder, in place of setting it aside there.

    Returns the exit status: 0, or 128 + signal number after a stop that saved a checkpoint.
    """
    return loop.train(config, task_of(config), overwrite)


def evaluate(config: Config) -> Dict[str, Any]:
    """{metric: value, ..., images} of Global.pretrained_model (or Global.checkpoints) on
    DataLoader.Eval. Works in many processes too. ConfigError without weights.
    """
    if not (config.Global.pretrained_model or config.Global.checkpoints or config.Arch.pretrained):
        raise ConfigError(
            f"{config.path}: nothing to evaluate; give weights: -o Global.pretrained_model=FILE"
        )
    processes = start_processes(config.Global.device)
    task = task_of(config)(config, processes, training=False)
    return task.evaluate()
