"""DINO's decoder: queries that attend to each other and to the encoder's memory, and whose boxes
every layer refines. Reference: DinoTransformerDecoder of mmdetection 3; parameter names equal its.
"""

from typing import List, Optional, Sequence, Tuple

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from .boxes import inverse_sigmoid
from .deformable import MultiScaleDeformableAttention, Shapes
from .transformer import FFN, MLP, MultiheadAttention, box_sines, initialise_transformer

__all__ = ["DinoDecoder"]

REFINEMENT_EPS = 1e-3


class DinoDecoderLayer(nn.Layer):
    """Self-attention, deformable cross-attention, FFN, each with its residual and LayerNorm."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(channels, heads)
        self.cross_attn = MultiScaleDeformableAttention(channels, heads, levels, points)
        self.ffn = FFN(channels, hidden)
        self.norms = nn.LayerList([nn.LayerNorm(channels) for _ in range(3)])

    def forward(self, query, position, memory, references, shapes, valid, blocked):
        """query, position: [B, Q, C]; memory: [B, S, C]; references: [B, Q, levels, 4] -> [B, Q,
        C]. The rest as in DinoDecoder.
        """
        placed = query + position
        query = self.norms[0](query + self.self_attn(placed, placed, query, blocked))
        looked = self.cross_attn(query + position, memory, references, shapes, valid)
        query = self.norms[1](query + looked)
        return self.norms[2](query + self.ffn(query))


class DinoDecoder(nn.Layer):
    """`depth` layers, and one norm that the heads see all of them through."""

    def __init__(
        self, channels: int, heads: int, levels: int, points: int, hidden: int, depth: int
    ) -> None:
        super().__init__()
        self.layers = nn.LayerList(
            [DinoDecoderLayer(channels, heads, levels, points, hidden) for _ in range(depth)]
        )
        self.ref_point_head = MLP(2 * channels, channels, channels, 2)
        self.norm = nn.LayerNorm(channels)
        initialise_transformer(self, nn.initializer.XavierUniform())
        for layer in self.layers:
            layer.cross_attn.initialise()

    def forward(
        self,
        query: Tensor,
        boxes: Tensor,
        memory: Tensor,
        ratios: Tensor,
        shapes: Shapes,
        reg_branches: Sequence[nn.Layer],
        valid: Optional[Tensor] = None,
        blocked: Optional[Tensor] = None,
    ) -> Tuple[List[Tensor], List[Tensor]]:
        """(outputs, references) of each layer: [B, Q, C] normed, and the boxes [B, Q, 4] (cx, cy,
        w, h) that it started from, to which its head adds.

        query: [B, Q, C]; boxes: [B, Q, 4], the first; memory: [B, S, C]; ratios: [B, levels, 2],
        see valid_ratios; reg_branches: of each layer what moves boxes; valid: bool [B, S]; blocked:
        bool [Q, Q]. A layer looks from boxes without gradient, but its head adds to boxes through
        which the layer before learns too ("look forward twice").
        """
        outputs, references, scale = [], [boxes], paddle.concat([ratios, ratios], axis=-1)
        for layer, branch in zip(self.layers, reg_branches):
            looked_from = boxes.unsqueeze(2) * scale.unsqueeze(1)  # [B, Q, levels, 4]
            sines = box_sines(looked_from[:, :, 0], query.shape[-1] // 2)
            position = self.ref_point_head(sines.astype(query.dtype))
            query = layer(query, position, memory, looked_from, shapes, valid, blocked)
            outputs.append(self.norm(query))
            if len(outputs) < len(self.layers):
                moved = F.sigmoid(branch(query) + inverse_sigmoid(boxes, REFINEMENT_EPS))
                references.append(moved)
                # of what a recorded program detaches, Paddle (3.3.1) frees the memory early
                boxes = moved.detach() if paddle.in_dynamic_mode() else moved
        return outputs, references
