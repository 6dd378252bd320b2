"""The views of an image that multi-scale inference takes: the evaluation transforms at every
ratio.
"""

import numpy as np
import paddle

from ...data.images import ImageError
from ...data.transforms.joint import JointPipeline
from ...models.backbones.nextvit import MIN_INPUT_SIZE
from ...schema import ConfigError

__all__ = ["Views"]


class Views:
    """The evaluation transforms at every ratio of an Inference. transform_ops: a YAML list; where
    there are ratios, with Resize in it.
    """

    def __init__(self, transform_ops, inference, where):
        names = [name for entry in transform_ops for name in entry]
        if inference.ratios != (1.0,) and "Resize" not in names:
            raise ConfigError(
                f"{where}: Arch.inference.ratios scale the size that Resize has, and there is no "
                f"Resize"
            )
        self.pipelines = [
            JointPipeline(_scaled(transform_ops, ratio), where) for ratio in inference.ratios
        ]

    def __call__(self, image, name):
        """image: uint8 [H, W, 3], RGB -> what `segment` takes. ImageError, beginning with `name`,
        for an image that is too small, or that a transform cannot take."""
        for pipeline in self.pipelines:
            sample = pipeline(
                {"image": image, "scale": (1.0, 1.0), "flip": False}, np.random.default_rng(0), name
            )
            array = np.ascontiguousarray(sample["image"].transpose(2, 0, 1)[None], np.float32)
            height, width = array.shape[2:]
            if min(height, width) < MIN_INPUT_SIZE:
                raise ImageError(
                    f"{name}: {height} x {width} pixels when transformed; the model needs "
                    f"{MIN_INPUT_SIZE} or more"
                )
            yield paddle.to_tensor(array), [sample.get("shape", (height, width))]


def _scaled(transform_ops, ratio):
    """The transforms with the scale of Resize multiplied and cut to whole pixels."""
    return [
        {
            name: {**arguments, "scale": _times(arguments["scale"], ratio)}
            if name == "Resize"
            else arguments
        }
        for entry in transform_ops
        for name, arguments in entry.items()
    ]


def _times(scale, ratio):
    """The pair `scale`, or the list of one, multiplied."""
    return [_times(side, ratio) if isinstance(side, list) else int(side * ratio) for side in scale]
