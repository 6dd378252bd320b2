"""Which task a model is for."""

from typing import Dict, Type

from ..config import Config
from ..models import MODELS
from .base import Task
from .classification.task import ClassificationTask
from .detection.task import DetectionTask
from .segmentation.task import SegmentationTask

__all__ = ["TASKS", "task_of"]

TASKS: Dict[str, Type[Task]] = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "segmentation": SegmentationTask,
}


def task_of(config: Config) -> Type[Task]:
    """The task class of the model that `config.Arch` names."""
    return TASKS[MODELS.get(config.Arch.name, "Arch.name").task]
