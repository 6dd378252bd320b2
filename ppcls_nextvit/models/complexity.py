"""What a model costs: parameters and multiply-adds, by one rule.

Multiply-adds of one image are those of every convolution, Linear and attention product (Q K^T and
attention V), plus two for each value that a BatchNorm scales and shifts and one for each value that
the last pool averages. Activations, softmax, additions and strided pools are free. This is how
fvcore counts, which the Next-ViT paper's "FLOPs" are; `paddle.flops`, PaddleClas's source, leaves
the attention products out.
"""

import math

import paddle
from paddle import nn

from .backbones.nextvit import E_MHSA
from .layers import BATCH_NORMS

__all__ = ["count_macs", "count_parameters"]


def count_parameters(model):
    """The number of trainable values; BatchNorm's running statistics are none."""
    return sum(math.prod(p.shape) for p in model.parameters() if not p.stop_gradient)


def count_macs(model, image_size):
    """Multiply-adds of one image in evaluation, found by running one.

    model: a Next-ViT, fused or not. image_size: pixels, one number or (height, width). ValueError
    below 32.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    total = 0

    def hook(count):
        def add(layer, inputs, output):
            nonlocal total
            total += count(layer, inputs[0], output)

        return add

    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    handles = [
        layer.register_forward_post_hook(hook(count))
        for layer, _ in modes
        for kind, count in RULES
        if isinstance(layer, kind)
    ]
    handles += [
        layer.sr.register_forward_post_hook(hook(attention))
        for layer, _ in modes
        if isinstance(layer, E_MHSA)
    ]
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


def attention(pool, x, pooled):
    """The two products of an E-MHSA, whose pool turns [1, C, H, W] into [1, C, M]: N * M * C each,
    N = H * W.
    """
    return 2 * x.size * pooled.shape[-1]


RULES = (
    # [out, in / groups, kh, kw]
    (nn.Conv2D, lambda layer, x, y: y.size * math.prod(layer.weight.shape[1:])),
    # [in, out]
    (nn.Linear, lambda layer, x, y: y.size * layer.weight.shape[0]),
    (BATCH_NORMS, lambda layer, x, y: 2 * y.size),
    (nn.AdaptiveAvgPool2D, lambda layer, x, y: x.size),
)
