"""Evaluate a checkpoint on the evaluation set of a configuration."""
from ..schema import ConfigError
from .classification import ClassificationTask
from .distributed import start_processes
from .log import logger


def evaluate(config, task_class=ClassificationTask):
    """{metric: value, loss, images} of Global.pretrained_model (or Global.checkpoints) on DataLoader.Eval. Works in many processes too."""
    if not (config.Global.pretrained_model or config.Global.checkpoints or config.Arch.pretrained):
        raise ConfigError(f"{config.path}: nothing to evaluate; give weights: -o Global.pretrained_model=FILE")
    processes = start_processes(config.Global.device)
    task = task_class(config, processes, training=False)
    result = task.evaluate()
    logger.info("%s", result)
    return result
