"""Evaluate a checkpoint on the evaluation set of a configuration."""

from ..engine.distributed import start_processes
from ..engine.log import logger
from ..schema import ConfigError
from .registry import task_of


def evaluate(config):
    """{metric: value, ..., images} of Global.pretrained_model (or Global.checkpoints) on
    DataLoader.Eval. Works in many processes too.
    """
    if not (config.Global.pretrained_model or config.Global.checkpoints or config.Arch.pretrained):
        raise ConfigError(
            f"{config.path}: nothing to evaluate; give weights: -o Global.pretrained_model=FILE"
        )
    processes = start_processes(config.Global.device)
    task = task_of(config)(config, processes, training=False)
    result = task.evaluate()
    logger.info("%s", result)
    return result
