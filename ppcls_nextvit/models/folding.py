"""BatchNorm folded into a neighbouring convolution or Linear, and Linears as 1x1 convolutions: what
the fused and the export forms of the families are made with.

A folded norm becomes an Identity, its keys are gone, and a convolution that had no bias has one: a
strict load therefore notices which kind a checkpoint is.
"""

import copy
from typing import Optional, Tuple

import paddle
from paddle import Tensor, nn

from .layers import PointwiseConv2D

__all__ = ["as_pointwise", "fold_after", "fold_before", "folded"]


def folded(model: nn.Layer) -> nn.Layer:
    """A deep copy of `model` in eval mode in which every layer with a method `fold_norms()` has
    folded its norms; `model` is untouched.
    """
    copied = copy.deepcopy(model)
    copied.eval()
    with paddle.no_grad():
        for layer in copied.sublayers(include_self=True):
            if hasattr(layer, "fold_norms"):
                layer.fold_norms()
    return copied


def fold_after(conv: nn.Layer, norm: nn.Layer) -> None:
    """`norm` follows the convolution `conv`: scale its filters, shift by its bias, which is made if
    there is none. Nothing is done for an Identity.
    """
    affine = _affine(norm)
    if affine is None:
        return
    scale, shift = affine
    if conv.bias is None:
        conv.bias = conv.create_parameter([scale.shape[0]], dtype=conv.weight.dtype, is_bias=True)
    conv.bias.set_value(conv.bias * scale + shift)
    conv.weight.set_value(conv.weight * scale.reshape([-1, 1, 1, 1]))


def fold_before(layer: nn.Layer, *norms: nn.Layer) -> None:
    """`norms`, in this order, precede a Linear [in, out] or a 1x1 convolution [out, in, 1, 1] with
    bias. Nothing is done for an Identity.
    """
    for norm in reversed(norms):
        affine = _affine(norm)
        if affine is None:
            continue
        scale, shift = affine
        if isinstance(layer, nn.Linear):
            layer.bias.set_value(layer.bias + shift @ layer.weight)
            layer.weight.set_value(layer.weight * scale.unsqueeze(-1))
        else:
            layer.bias.set_value(layer.bias + layer.weight.flatten(1) @ shift)
            layer.weight.set_value(layer.weight * scale.reshape([1, -1, 1, 1]))


def as_pointwise(*linears: nn.Linear, gain: float = 1.0) -> PointwiseConv2D:
    """The 1x1 convolution whose output channels are those of `linears` one after the other, times
    `gain`.
    """
    # [in, out]
    weight = paddle.concat([linear.weight for linear in linears], axis=1) * gain
    conv = PointwiseConv2D(*weight.shape)
    conv.weight.set_value(weight.T.unsqueeze([-1, -1]))
    conv.bias.set_value(paddle.concat([linear.bias for linear in linears]) * gain)
    return conv


def _affine(norm: nn.Layer) -> Optional[Tuple[Tensor, Tensor]]:
    """What a BatchNorm in eval mode applies: (scale, shift), each [C]; None for an Identity."""
    if isinstance(norm, nn.Identity):
        return None
    scale = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)
    return scale, norm.bias - norm._mean * scale
