"""What a classifier's last block attends to, as a further output of its exports."""

from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from paddle import Tensor, nn

from ...export.verify import Compare, relative_difference
from ...schema import ConfigError

__all__ = [
    "ATTENTION",
    "WithAttention",
    "check_target",
    "compared_apart",
    "describe_attention",
]

ATTENTION = "attention"  # the output
TARGETS = ("paddle", "onnx")


class WithAttention(nn.Layer):
    """`model`, a classifier of `backbone`, or its export form, with what the last block of the last
    stage attends to.
    """

    def __init__(self, model: nn.Layer, backbone: Any) -> None:
        super().__init__()
        self.model = model
        # in a list: it is a part of the model already
        self.attention = [last_attention(backbone)]
        self.eval()

    def forward(self, x: Tensor) -> List[Tensor]:
        """x: [B, C, H, W] -> what the model gives; [B, N, N], the means over the heads: what each
        of N tokens of the last map, in raster order, attends to.
        """
        (layer,), kept = self.attention, []
        hook = layer.attn_drop.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            out = self.model(x)
        finally:
            hook.remove()
        weights = kept[0].mean(1)
        keys_first = getattr(layer, "keys_first", False)
        return [out, weights.transpose([0, 2, 1]) if keys_first else weights]


def last_attention(backbone: Any) -> Any:
    """The attention in the last block of the last stage, in which every token sees every other.
    ConfigError where there is none.
    """
    blocks = backbone.blocks()
    last = blocks[-1][-1].sublayers() if blocks else []
    found = [layer for layer in last if hasattr(layer, "attn_drop")]
    if len(found) != 1 or getattr(found[0], "window", 0) > 0:
        raise ConfigError(
            f"--attention is for models whose last block lets every token see every other; that "
            f"of {type(backbone).__name__} does not: {_reason(found)}"
        )
    return found[0]


def _reason(found: List[Any]) -> str:
    return "it sees a window and pooled tokens" if found else "it has no attention"


def check_target(name: str, features: bool) -> None:
    """ConfigError for an export that has no such output."""
    if name not in TARGETS:
        raise ConfigError(
            f"--attention is of --to {' and '.join(TARGETS)}; an export to {name} has the scores "
            f"alone"
        )
    if features:
        raise ConfigError("--attention goes with the scores; leave one of it and --features out")


def describe_attention(backbone: Any, size: Optional[Tuple[int, int]]) -> Dict[str, Any]:
    """What export.json says of the output: of the pixel (x, y) the row is y // stride * columns + x
    // stride, in which the weight of each token stands likewise. size: (height, width) of the
    images; of any, the grid is not known.
    """
    stride = backbone.stage_strides[-1]
    return {
        "output": ATTENTION,
        "stage": len(backbone.blocks()),
        "block": len(backbone.blocks()[-1]),
        "heads": "mean",
        "stride": stride,
        "grid": [-(-side // stride) for side in size] if size else None,
    }


def compared_apart(of_scores: Compare) -> Compare:
    """`of_scores` for the scores [B, classes], relative_difference for the weights."""

    def compare(output: np.ndarray, expected: np.ndarray) -> float:
        return (of_scores if expected.ndim == 2 else relative_difference)(output, expected)

    return compare
