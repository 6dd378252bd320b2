"""Mask2Former's transformer decoder and what it predicts: queries that look only where the mask
each has drawn so far is.

Cheng et al. 2022, arXiv:2112.01527; reference: Mask2FormerHead of mmdetection 3, whose parameter
names these are.
"""

from typing import List, NamedTuple, Sequence

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ..detectors.transformer import (
    FFN,
    MultiheadAttention,
    initialise_transformer,
    linear_default,
)
from ..layers import Linear
from ..recording import for_paddle_inference
from ..resizing import resize
from .pixel_decoder import LEVELS, Memory, PixelDecoder

__all__ = ["Mask2FormerHead", "Predictions", "semantic"]


class Predictions(NamedTuple):
    """What is said of each query: of its class, the last of which is none, and of its mask."""

    logits: Tensor  # [B, Q, classes + 1]
    masks: Tensor  # [B, Q, H, W]: logits at the finest map's size


class MaskedDecoderLayer(nn.Layer):
    """Masked cross-attention, self-attention, FFN, each with its residual and LayerNorm."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(channels, heads)
        self.cross_attn = MultiheadAttention(channels, heads)
        self.ffn = FFN(channels, hidden)
        self.norms = nn.LayerList([nn.LayerNorm(channels) for _ in range(3)])

    def forward(self, query, position, keys, values, blocked):
        """query: [B, Q, C]; position: [Q, C]; keys, values: [B, K, C]; blocked: bool [B, 1, Q, K]
        -> [B, Q, C].
        """
        seen = self.cross_attn(query + position, keys, values, blocked)
        query = self.norms[0](query + seen)
        placed = query + position
        query = self.norms[1](query + self.self_attn(placed, placed, query))
        return self.norms[2](query + self.ffn(query))


class MaskedDecoder(nn.Layer):
    """`depth` layers, and one norm through which predictions see the queries."""

    def __init__(self, channels: int, heads: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.LayerList(
            [MaskedDecoderLayer(channels, heads, hidden) for _ in range(depth)]
        )
        self.post_norm = nn.LayerNorm(channels)
        initialise_transformer(self, nn.initializer.XavierNormal())


class Mask2FormerHead(nn.Layer):
    """Pixel decoder, transformer decoder, predictions. Arguments: see Mask2Former."""

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        num_queries: int,
        channels: int,
        heads: int,
        points: int,
        encoder_hidden: int,
        encoder_layers: int,
        decoder_hidden: int,
        decoder_layers: int,
    ) -> None:
        super().__init__()
        self.pixel_decoder = PixelDecoder(
            in_channels, channels, heads, points, encoder_hidden, encoder_layers
        )
        self.transformer_decoder = MaskedDecoder(channels, heads, decoder_hidden, decoder_layers)
        normal = nn.initializer.Normal(0.0, 1.0)
        self.query_embed = nn.Embedding(num_queries, channels, weight_attr=normal)
        self.query_feat = nn.Embedding(num_queries, channels, weight_attr=normal)
        self.level_embed = nn.Embedding(LEVELS, channels, weight_attr=normal)
        self.cls_embed = Linear(channels, num_classes + 1)
        self.mask_embed = nn.Sequential(
            Linear(channels, channels),
            nn.ReLU(),
            Linear(channels, channels),
            nn.ReLU(),
            Linear(channels, channels),
        )
        for layer in (self.cls_embed, *self.mask_embed):
            if isinstance(layer, nn.Linear):
                linear_default(layer.weight, channels)
                linear_default(layer.bias, channels)

    def forward(self, maps: Sequence[Tensor]) -> List[Predictions]:
        """The backbone's four maps, finest first -> the Predictions before the first layer of the
        decoder and after each.
        """
        features, memories = self.pixel_decoder(maps)
        return self.decode(features, memories)

    def decode(self, features: Tensor, memories: Sequence[Memory]) -> List[Predictions]:
        """As forward, of what the pixel decoder gives: features [B, C, H, W]; the layers take turns
        at the memories, and the mask before a layer says where in its memory each query looks.
        """
        values = [memory.tokens + level for memory, level in zip(memories, self.level_embed.weight)]
        keys = [value + memory.position for value, memory in zip(values, memories)]
        # else its norm would be a constant, of which Paddle Inference (3.3.1) loses the outputs
        batch = paddle.shape(features)[0] if for_paddle_inference() else features.shape[0]
        query = self.query_feat.weight.unsqueeze(0).expand([batch, -1, -1])
        found = [self.predictions(query, features)]
        for i, layer in enumerate(self.transformer_decoder.layers):
            turn = i % LEVELS
            blocked = outside(found[-1].masks, memories[turn])
            query = layer(query, self.query_embed.weight, keys[turn], values[turn], blocked)
            found.append(self.predictions(query, features))
        return found

    def predictions(self, query: Tensor, features: Tensor) -> Predictions:
        """query: [B, Q, C]; features: [B, C, H, W]."""
        query = self.transformer_decoder.post_norm(query)
        masks = paddle.matmul(self.mask_embed(query), features.flatten(2))
        size = paddle.shape(features)[2:] if min(features.shape) < 0 else features.shape[2:]
        masks = masks.reshape([-1, query.shape[1], size[0], size[1]])
        return Predictions(self.cls_embed(query), masks)


def outside(masks: Tensor, memory: Memory) -> Tensor:
    """bool [B, 1, Q, h * w]: which tokens of a memory a query must not look at, because its mask,
    logits [B, Q, H, W], is not there; none of them if it is nowhere.
    """
    # of what a recorded program detaches, Paddle (3.3.1) frees the memory early
    masks = masks.detach() if paddle.in_dynamic_mode() else masks
    inside = F.sigmoid(resize(masks, memory.size)).flatten(2)
    nowhere = inside.max(axis=-1, keepdim=True) < 0.5
    return paddle.logical_and(inside < 0.5, paddle.logical_not(nowhere)).unsqueeze(1)


def semantic(found: Predictions, image: Tensor) -> Tensor:
    """[B, classes, H, W] at the size of `image` [B, 3, H, W]: of each class the sum over the
    queries of its probability times the mask's.
    """
    size = paddle.shape(image)[2:] if min(image.shape) < 0 else image.shape[2:]
    masks = F.sigmoid(resize(found.masks, size)).flatten(2)
    classes = F.softmax(found.logits, axis=-1)[..., :-1]
    scores = paddle.matmul(classes, masks, transpose_x=True)
    return scores.reshape([-1, classes.shape[-1], size[0], size[1]])
