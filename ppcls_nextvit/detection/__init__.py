"""Object detection and instance segmentation: Mask R-CNN, its heads, predictions and export."""

from .mask_rcnn import Detections, MaskRCNN

__all__ = ["Detections", "MaskRCNN"]
