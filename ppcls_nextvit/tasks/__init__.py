"""The tasks: classification, detection, segmentation; each folder holds all that one task is."""

from .check import check, import_parts, load_config
from .registry import TASKS, task_of
from .run import evaluate, train

__all__ = ["TASKS", "check", "evaluate", "import_parts", "load_config", "task_of", "train"]
