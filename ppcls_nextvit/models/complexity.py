"""What a model costs: parameters and multiply-adds, by one rule.

Multiply-adds of one image are those of every convolution, Linear and attention product (Q K^T and
attention V), plus two for each value that a BatchNorm scales and shifts, five for each that a
LayerNorm does, and one for each that the last pool averages. Activations, softmax, additions and
strided pools are free. This is how fvcore counts, which the papers' "FLOPs" are; `paddle.flops`,
PaddleClas's source, leaves the attention products out.

A layer with products of its own beside its parts says how many by a method `macs(*inputs, out)`, of
what its forward takes and gives.
"""

import math
from typing import Any, Callable, Optional, Tuple, Union

import paddle
from paddle import nn

from .layers import BATCH_NORMS

__all__ = ["count_macs", "count_parameters"]


def count_parameters(model: nn.Layer) -> int:
    """The number of trainable values; BatchNorm's running statistics are none."""
    return sum(math.prod(p.shape) for p in model.parameters() if not p.stop_gradient)


def count_macs(model: nn.Layer, image_size: Union[int, Tuple[int, int]]) -> int:
    """Multiply-adds of one image in evaluation, found by running one.

    model: any of MODELS, fused or not. image_size: pixels, one number or (height, width).
    ValueError for a size that the model refuses.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    total = 0

    def hook(count: Callable[..., int]) -> Callable[..., None]:
        def add(layer: Any, inputs: Any, output: Any) -> None:
            nonlocal total
            total += count(layer, *inputs, output)

        return add

    layers = model.sublayers(include_self=True)
    modes = [(layer, layer.training) for layer in layers]
    counts = [(layer, _rule(layer)) for layer in layers]
    handles = [layer.register_forward_post_hook(hook(count)) for layer, count in counts if count]
    model.eval()
    try:
        with paddle.no_grad():
            model(paddle.zeros([1, model.in_channels, height, width]))
    finally:
        for handle in handles:
            handle.remove()
        for layer, mode in modes:
            layer.training = mode
    return total


def _rule(layer: nn.Layer) -> Optional[Callable[..., int]]:
    """The count(layer, *inputs, out) of what `layer` multiplies itself; None for nothing."""
    if hasattr(layer, "macs"):
        return type(layer).macs
    return next((count for kind, count in RULES if isinstance(layer, kind)), None)


RULES: Tuple[Tuple[Any, Callable[..., int]], ...] = (
    # [out, in / groups, kh, kw]
    (nn.Conv2D, lambda layer, x, y: y.size * math.prod(layer.weight.shape[1:])),
    # [in, out]
    (nn.Linear, lambda layer, x, y: y.size * layer.weight.shape[0]),
    (BATCH_NORMS, lambda layer, x, y: 2 * y.size),
    (nn.LayerNorm, lambda layer, x, y: 5 * y.size),
    (nn.AdaptiveAvgPool2D, lambda layer, x, y: x.size),
)
