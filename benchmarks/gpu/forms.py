"""The two operators in torch's own, which derives their gradients: what the compiled ones are held
against and timed beside.
"""

from typing import Sequence, Tuple

import torch
from torch.nn import functional as F

__all__ = ["aggregated_attention", "deformable_attention"]


def aggregated_attention(
    q,
    kv,
    pooled_kv,
    embedding,
    temperature,
    lengths,
    local_bias,
    position_bias,
    tokens,
    token_bias,
    *,
    size: Tuple[int, int],
    window: int,
    unit: bool = True,
):
    """The unfold form of TransNeXt's attention: keys and values are copied window by window.

    Arguments and result: those of ppcls_nextvit.ops.aggregated_attention.
    """  # fmt: skip
    heads, dim = embedding.shape
    batch, n, _ = q.shape

    def split(x):
        """[B, T, heads * dim] -> [B, heads, T, dim]."""
        return x.reshape(batch, -1, heads, dim).transpose(1, 2)

    def divided(x):
        return F.normalize(x, dim=-1) if unit else x

    q = divided(split(q))
    k, v = (split(x) for x in kv.chunk(2, dim=-1))
    pooled_k, pooled_v = (split(x) for x in pooled_kv.chunk(2, dim=-1))
    scaled = (q + embedding[:, None]) * temperature[:, None, None] * lengths[:, None]
    near_k, near_v = (unfolded(x, size, window) for x in (divided(k), v))
    near = torch.einsum("bhnd,bhndz->bhnz", scaled, near_k) + local_bias[:, None]
    inside = unfolded(torch.ones_like(q[:1, :1, :, :1]), size, window)[0, 0, :, 0] > 0
    near = near.masked_fill(~inside, float("-inf"))
    far = scaled @ divided(pooled_k).transpose(-2, -1) + position_bias
    weights = torch.cat([near, far], dim=-1).softmax(dim=-1)
    near, far = weights.split([window**2, weights.shape[-1] - window**2], dim=-1)
    near = near + q @ tokens + token_bias[:, None]
    out = torch.einsum("bhnz,bhndz->bhnd", near, near_v) + far @ pooled_v
    return out.transpose(1, 2).reshape(batch, n, heads * dim)


def unfolded(x, size: Tuple[int, int], window: int):
    """[B, heads, N, d] -> [B, heads, N, d, window**2], zeros outside the map."""
    batch, heads, n, dim = x.shape
    maps = x.transpose(-2, -1).reshape(batch, heads * dim, *size)
    columns = F.unfold(maps, window, padding=window // 2)
    return columns.reshape(batch, heads, dim, window**2, n).permute(0, 1, 4, 2, 3)


def deformable_attention(value, locations, weights, *, shapes: Sequence[Tuple[int, int]]):
    """The grid_sample form. Arguments and result: those of ppcls_nextvit.ops.deformable_attention,
    in another order.
    """
    batch, _, heads, dim = value.shape
    queries = locations.shape[1]
    levels = value.split([height * width for height, width in shapes], dim=1)
    total = 0
    for level, (tokens, (height, width)) in enumerate(zip(levels, shapes, strict=True)):
        maps = tokens.permute(0, 2, 3, 1).reshape(batch * heads, dim, height, width)
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        samples = F.grid_sample(maps, grid, align_corners=False)  # [B * heads, D, Q, points]
        share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
        total = total + (samples * share).sum(-1)
    return total.reshape(batch, heads * dim, queries).transpose(1, 2)
