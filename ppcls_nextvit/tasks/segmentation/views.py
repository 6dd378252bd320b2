"""The views of an image that multi-scale inference takes: the evaluation transforms at every
ratio.
"""

from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import paddle

from ...data.transforms.joint import JointPipeline
from ...models.segmentors.inference import Inference
from ...schema import ConfigError
from ..joint import model_input

__all__ = ["Views"]


class Views:
    """The evaluation transforms at every ratio of an Inference. transform_ops: a YAML list; where
    there are ratios, with Resize in it. min_size: the smallest height and width that the model
    takes.
    """

    def __init__(
        self,
        transform_ops: List[Dict[str, Any]],
        inference: Inference,
        where: str,
        min_size: int = 1,
    ):
        names = [name for entry in transform_ops for name in entry]
        if inference.ratios != (1.0,) and "Resize" not in names:
            raise ConfigError(
                f"{where}: Arch.inference.ratios scale the size that Resize has, and there is no "
                f"Resize"
            )
        self.min_size = min_size
        self.pipelines = [
            JointPipeline(_scaled(transform_ops, ratio), where) for ratio in inference.ratios
        ]

    def __call__(
        self, image: np.ndarray, name: str
    ) -> Iterator[Tuple[paddle.Tensor, List[Tuple[int, int]]]]:
        """image: uint8 [H, W, 3], RGB -> what `segment` takes. ImageError, beginning with `name`,
        for an image that is too small, or that a transform cannot take."""
        for pipeline in self.pipelines:
            array, shape, _ = model_input(image, pipeline, name, self.min_size)
            yield paddle.to_tensor(array), [shape]


def _scaled(transform_ops: List[Dict[str, Any]], ratio: float) -> List[Dict[str, Any]]:
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


def _times(scale: Any, ratio: float) -> List[Any]:
    """The pair `scale`, or the list of one, multiplied."""
    return [_times(side, ratio) if isinstance(side, list) else int(side * ratio) for side in scale]
