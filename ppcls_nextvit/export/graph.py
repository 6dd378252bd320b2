"""The shape in which a model is exported: the same numbers from fewer and cheaper operators, for
every target alike.

Every BatchNorm is folded (`fuse_bn`). Attention stays channels-first: queries, keys with values,
and the projection are 1x1 convolutions on maps, not products with tokens, so nothing is transposed
but the operands of a product, which every runtime does within the product. The attention's scale is
in the queries' weights. The head is a 1x1 convolution of the pooled map. A size is read
at run time only where it is unknown while the graph is recorded: once per NTB.
"""

import copy

import paddle
from paddle import nn
from paddle.nn import functional as F

from ..models import NextViT, fuse_bn
from ..models.backbones.nextvit import HEAD_DIM, NTB, SequencePool, WindowPool
from ..models.layers import PointwiseConv2D

__all__ = ["Classifier", "Features", "export_form"]


def export_form(layer):
    """A copy of `layer` in eval mode whose Next-ViTs, itself or within it, have the shape above;
    `layer` is untouched.
    """
    if isinstance(layer, NextViT):
        layer = fuse_bn(layer)
        _replace(layer, NTB, _NTB)
    else:
        layer = copy.deepcopy(layer)
        layer.eval()
        _replace(layer, NextViT, export_form)
    return layer


def _replace(layer, kind, make):
    """Put `make(child)` in the place of each child of that kind, at any depth."""
    with paddle.no_grad():
        for parent in layer.sublayers(include_self=True):
            for name, child in list(parent.named_children()):
                if isinstance(child, kind):
                    parent.add_sublayer(name, make(child))


class Classifier(nn.Layer):
    """The export form of a NextViT with a head: images [B, C, H, W] -> logits or, with `softmax`,
    probabilities, [B, num_classes].
    """

    def __init__(self, model, softmax=False):
        super().__init__()
        if not model.num_classes:
            raise ValueError(
                "the model has no head, so there are no classes to export; export its feature "
                "maps (--features)"
            )
        self.body, self.softmax = export_form(model), softmax
        with paddle.no_grad():
            self.head = _pointwise(self.body.proj_head[0])
        self.eval()

    def forward(self, x):
        """x: [B, C, H, W] -> [B, num_classes]."""
        pooled = self.body.avgpool(self.body.forward_features(x)[-1])
        logits = self.head(pooled).flatten(1)
        return F.softmax(logits, axis=-1) if self.softmax else logits


class Features(nn.Layer):
    """The export form of a NextViT's body: images [B, C, H, W] -> four maps (see
    NextViT.forward_features).
    """

    def __init__(self, model):
        super().__init__()
        self.body = export_form(model)

    def forward(self, x):
        """x: [B, C, H, W] -> four maps [B, C_i, H / stride_i, W / stride_i]."""
        return self.body.forward_features(x)


class _NTB(nn.Layer):
    """An NTB of a fused model, its attention on maps."""

    def __init__(self, block):
        super().__init__()
        self.patch_embed, self.projection, self.mhca, self.mlp = (
            block.patch_embed,
            block.projection,
            block.mhca,
            block.mlp,
        )
        self.e_mhsa = _E_MHSA(block.e_mhsa)

    def forward(self, x):
        """x: [B, C_in, H, W] -> [B, C, H', W'], halved where the block has a stride."""
        x = self.patch_embed(x)  # [B, C_mhsa, H, W]
        x = x + self.e_mhsa(x)
        local = self.projection(x)  # [B, C_mhca, H, W]
        local = local + self.mhca(local)
        x = paddle.concat([x, local], axis=1)  # [B, C, H, W]
        return x + self.mlp(x)


class _E_MHSA(nn.Layer):
    """E-MHSA from a map [B, C, H, W] to a map of the same shape.

    The attention is kept as [M, N], so that values times it is the output, channels-first. The
    other way round, softmax(q^T k) over the last axis, Paddle's oneDNN (3.3.1) is wrong: for a
    transposed operand with one pooled token, and for one that is reshaped before.
    """

    def __init__(self, attention):
        super().__init__()
        self.num_heads, self.sr = attention.num_heads, attention.sr
        self.q, self.kv = (
            _pointwise(attention.q, gain=attention.scale),
            _pointwise(attention.k, attention.v),
        )
        self.proj = _pointwise(attention.proj)

    def pool(self, x):
        """[B, C, H, W] -> M pooled tokens, as a map [B, C, ., .]; see the pools of
        models/nextvit.py.
        """
        if isinstance(self.sr, SequencePool):
            window = (self.sr.window, 1)
            return F.avg_pool2d(x.reshape([0, x.shape[1], -1, 1]), window, stride=window)
        if isinstance(self.sr, WindowPool):
            return F.avg_pool2d(x, self.sr.sr_ratio, stride=self.sr.sr_ratio, ceil_mode=True)
        return x

    def forward(self, x):
        """x: [B, C, H, W] -> the same shape."""
        heads = self.num_heads
        # [B, heads, HEAD_DIM, N]
        q = self.q(x).reshape([0, heads, HEAD_DIM, -1])
        kv = self.kv(self.pool(x)).reshape([0, 2 * heads, HEAD_DIM, -1])
        # [B, heads, HEAD_DIM, M]
        k, v = paddle.split(kv, 2, axis=1)
        attention = F.softmax(k.transpose([0, 1, 3, 2]) @ q, axis=2)  # [B, heads, M, N]
        # [B, heads, HEAD_DIM, N]
        out = v @ attention
        known = min(x.shape[1:]) > 0
        return self.proj(out.reshape([0, *x.shape[1:]] if known else paddle.shape(x)))


def _pointwise(*linears, gain=1.0):
    """The 1x1 convolution whose output channels are those of `linears` one after the other, times
    `gain`.
    """
    # [in, out]
    weight = paddle.concat([linear.weight for linear in linears], axis=1) * gain
    conv = PointwiseConv2D(*weight.shape)
    conv.weight.set_value(weight.T.unsqueeze([-1, -1]))
    conv.bias.set_value(paddle.concat([linear.bias for linear in linears]) * gain)
    return conv
