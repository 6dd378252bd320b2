"""Fold every BatchNorm of a Next-ViT into a neighbouring convolution or Linear, for inference.

A transformation returns a new model whose structure shows it: a folded norm becomes an Identity,
its keys are gone, and a convolution that had no bias has one. A strict load therefore notices which
kind a checkpoint is.
"""

import copy

import paddle
from paddle import nn

from .backbones.nextvit import MHCA, NCB, NTB, ConvBNReLU, NextViT, PatchEmbed

__all__ = ["fuse_bn"]


def fuse_bn(model):
    """A deep copy of `model` in eval mode with its BatchNorms folded; `model` is untouched.

    Folded are the norms after a convolution (stem, patch embeddings, MHCA) and before a linear
    layer (the pre-norms of MLP and E-MHSA, including the norm of pooled tokens, and the last norm,
    which commutes with the average pool). Only a model without a head keeps its last norm. The
    reference's merge_bn does the pre-norms alone. Raises TypeError for anything that is not a
    Next-ViT.
    """
    if not isinstance(model, NextViT):
        raise TypeError(f"fuse_bn knows Next-ViT only; got {type(model).__name__}")
    fused = copy.deepcopy(model)
    fused.eval()
    with paddle.no_grad():
        for block in fused.sublayers():
            if isinstance(block, (ConvBNReLU, PatchEmbed)):
                _fold_after(block, "conv")
            elif isinstance(block, MHCA):
                _fold_after(block, "group_conv3x3")
            elif isinstance(block, NCB):
                _fold_before(block.mlp.conv1, block.norm)
                block.norm = nn.Identity()
            elif isinstance(block, NTB):
                attention = block.e_mhsa
                _fold_before(attention.q, block.norm1)
                # they see norm1, the pool, then the pooled tokens' own norm
                for linear in (attention.k, attention.v):
                    _fold_before(linear, block.norm1, attention.norm)
                _fold_before(block.mlp.conv1, block.norm2)
                block.norm1, block.norm2, attention.norm = (
                    nn.Identity(),
                    nn.Identity(),
                    nn.Identity(),
                )
        if fused.num_classes and isinstance(fused.norm, nn.BatchNorm2D):
            _fold_before(fused.proj_head[0], fused.norm)
            fused.norm = nn.Identity()
    return fused


def _affine(norm):
    """The scale and shift, each [C], that a BatchNorm in eval mode applies; None for an
    Identity.
    """
    if isinstance(norm, nn.Identity):
        return None
    scale = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)
    return scale, norm.bias - norm._mean * scale


def _fold_after(block, name):
    """`block.norm` follows the convolution `block.<name>`: scale its filters, shift through a
    bias.
    """
    affine = _affine(block.norm)
    if affine is None:
        return
    scale, shift = affine
    conv = getattr(block, name)
    if conv.bias is None:
        conv.bias = conv.create_parameter([scale.shape[0]], dtype=conv.weight.dtype, is_bias=True)
    conv.bias.set_value(conv.bias * scale + shift)
    conv.weight.set_value(conv.weight * scale.reshape([-1, 1, 1, 1]))
    block.norm = nn.Identity()


def _fold_before(layer, *norms):
    """`norms`, in this order, precede a Linear [in, out] or a 1x1 convolution [out, in, 1, 1]."""
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
