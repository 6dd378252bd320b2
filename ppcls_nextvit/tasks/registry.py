"""Which task a model is for. Each is a class with the interface that classification.py
describes.
"""

from ..models import MODELS

__all__ = ["task_of"]


def task_of(config):
    """The task class of the model that `config.Arch` names; imported here, because each needs its
    own extras.
    """
    task = MODELS.get(config.Arch.name, "Arch.name").task
    if task == "detection":
        from .detection.task import DetectionTask

        return DetectionTask
    if task == "segmentation":
        from .segmentation.task import SegmentationTask

        return SegmentationTask
    from .classification.task import ClassificationTask

    return ClassificationTask
