"""How a network is held while it is looked at: unchanged, and in little memory."""

import contextlib
from typing import Any, Iterator, List

from paddle import Tensor, nn

__all__ = ["held", "watched_maps"]


@contextlib.contextmanager
def held(model: nn.Layer, backbone: Any) -> Iterator[None]:
    """Within the block `model`, in eval mode, takes gradients to its input and maps, none to its
    weights, and computes the activations of each block of `backbone` again instead of keeping them:
    a gradient takes the memory of one block. Afterwards everything is as it was.
    """
    still = [(parameter, parameter.stop_gradient) for parameter in model.parameters()]
    blocks: List[Any] = [block for stage in backbone.blocks() for block in stage]
    recompute = getattr(backbone, "recompute", False)
    model.eval()
    for parameter, _ in still:
        parameter.stop_gradient = True
    for block in blocks:
        # of the block alone, whose parts stay in eval mode: what recompute goes by
        block.training = True
    backbone.recompute = True
    try:
        yield
    finally:
        backbone.recompute = recompute
        for block in blocks:
            block.training = False
        for parameter, stop_gradient in still:
            parameter.stop_gradient = stop_gradient


@contextlib.contextmanager
def watched_maps(backbone: Any) -> Iterator[List[Tensor]]:
    """A list that has, after a forward pass within the block, the maps of the backbone's stages."""
    maps: List[Tensor] = []
    forward_features = backbone.forward_features

    def watched(x: Tensor) -> List[Tensor]:
        maps[:] = forward_features(x)
        return list(maps)

    backbone.forward_features = watched
    try:
        yield maps
    finally:
        del backbone.forward_features
