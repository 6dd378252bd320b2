"""mmdetection's multi-scale training with crops, which Mask R-CNN 3x and DETR-like detectors share."""

SCALES = "[" + ", ".join(f"[1333, {side}]" for side in range(480, 801, 32)) + "]"


def multi_scale_crops(longest: int) -> str:
    """The lines of the transforms after the boxes are read: an image is mirrored at random, and
    resized to one of SCALES, at once or after a resize to at most `longest` pixels and a crop.
    """
    before = ", ".join(f"[{longest}, {side}]" for side in (400, 500, 600))
    return f"""\
        - RandomFlip:
            prob: 0.5
        - AutoAugment:
            policies:
              - - Resize:
                    scale: &scales {SCALES}
                    multiscale_mode: value
              - - Resize:
                    scale: [{before}]
                    multiscale_mode: value
                - RandomCrop:
                    size: [384, 600]
                    crop_type: absolute_range
                - Resize:
                    scale: *scales
                    multiscale_mode: value
"""
