"""Joint transforms: of an image together with its annotations (boxes, masks, label maps).

A sample is a dict; `transform(sample, rng)` returns another, rng being a numpy Generator. Its keys,
where H, W are the image's:

    image         uint8 [H, W, 3], RGB; float32 after Normalize
    scale         (y, x): the factors by which it was resized
    flip          whether it is mirrored
    shape         (height, width) before padding
  detection:
    boxes         float32 [N, 4]: left, top, right, bottom in pixels
    labels        int64 [N]
    masks         uint8 [N, H, W], 0 or 1
    ignore_boxes  float32 [M, 4]: crowds
  segmentation:
    segmentation  uint8 [H, W], IGNORE where nothing is to be learnt

The transforms do what those of the same names do in mmdetection 2 and mmsegmentation 0.x, on whose
recipes the published weights were trained; a draw has the same distribution, not the same bits.
Pixels are OpenCV's (extra `cv2`).
"""

from .colour import Normalize, PhotoMetricDistortion
from .common import IGNORE, counted_pixels, opencv, padded
from .geometry import Pad, RandomCrop, RandomFlip, Resize, rescaled_size
from .pipeline import AutoAugment, JointPipeline, fixed_pipeline

__all__ = [
    "AutoAugment",
    "IGNORE",
    "JointPipeline",
    "Normalize",
    "Pad",
    "PhotoMetricDistortion",
    "RandomCrop",
    "RandomFlip",
    "Resize",
    "counted_pixels",
    "fixed_pipeline",
    "opencv",
    "padded",
    "rescaled_size",
]
