"""What the families of backbones share: the arguments that all of them take, frozen stages, fixed
statistics, and the plain answers to the questions of api.Backbone.
"""

from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

from paddle import Tensor, nn

from ..folding import folded
from ..layers import BATCH_NORMS

__all__ = ["BaseBackbone"]

UNKNOWN = -1  # an axis of an image while an export is traced


class BaseBackbone(nn.Layer):
    """A classifier of four stages, or with `num_classes=None` a backbone, after api.Backbone.

    A family sets `stage_channels`, builds its layers after super().__init__(), calls `hold_still()`
    when all are there, and defines `forward_features`, `forward_head` and `stages`.
    """

    task = "classification"
    stage_channels: Tuple[int, ...]
    stage_strides: Tuple[int, ...] = (4, 8, 16, 32)
    min_size = 32
    body_prefixes: Tuple[str, ...] = ("stem.", "features.")
    head_prefixes: Tuple[str, ...] = ("proj_head.",)
    # the arguments of the smallest model of the family, for tests and placeholders
    toy: Dict[str, Any] = {}

    def __init__(
        self,
        num_classes: Optional[int] = 1000,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        recompute: bool = False,
        frozen_stages: int = 0,
        norm_eval: bool = False,
    ) -> None:
        super().__init__()
        if (num_classes or 0) < 0 or in_channels < 1:
            raise ValueError(
                f"num_classes must be 0 or more and in_channels 1 or more; got {num_classes} and "
                f"{in_channels}"
            )
        stages = len(self.stage_strides)
        if not 0 <= frozen_stages <= stages:
            raise ValueError(
                f"frozen_stages must be from 0 (nothing) to {stages} (stem and all stages); got "
                f"{frozen_stages}"
            )
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.drop_path_rate = drop_path_rate
        self.recompute = recompute
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    def hold_still(self) -> None:
        """Take the parameters of the frozen stages out of training. The last act of a family's
        __init__.
        """
        prefixes = self._frozen_prefixes()
        for name, parameter in self.named_parameters():
            if name.startswith(prefixes):
                parameter.stop_gradient = True

    def train(self, mode: bool = True) -> "BaseBackbone":
        """Training mode, but for what `frozen_stages` and `norm_eval` hold still. Returns self.

        A Layer sets the mode of those below it without calling their train(): whoever holds a
        backbone calls this one's in its own.
        """
        if not mode:
            return self.eval()
        super().train()
        prefixes = self._frozen_prefixes()
        for name, layer in self.named_sublayers():
            fixed = self.norm_eval and isinstance(layer, BATCH_NORMS)
            if fixed or f"{name}.".startswith(prefixes):
                # not eval(), which would set Paddle's global tracer to evaluation
                layer.training = False
        return self

    def forward(self, x: Tensor) -> Any:
        """x: [B, in_channels, H, W] -> logits [B, num_classes]; of a backbone,
        forward_features(x).
        """
        maps = self.forward_features(x)
        if self.num_classes is None:
            return maps
        return self.forward_head(maps)

    def forward_features(self, x: Tensor) -> List[Tensor]:
        """x: [B, in_channels, H, W] -> maps [B, stage_channels[i], H / stage_strides[i], W /
        stage_strides[i]], finest first, sizes rounded up. ValueError below min_size.
        """
        raise NotImplementedError

    def forward_head(self, maps: Sequence[Tensor]) -> Tensor:
        """What forward_features gave -> logits [B, num_classes]."""
        raise NotImplementedError

    def stages(self) -> List[Tuple[str, Tuple[str, ...]]]:
        """(name, prefixes of its keys) of the stem, each stage and the head, in this order."""
        raise NotImplementedError

    def blocks(self) -> List[List[nn.Layer]]:
        """The blocks of each stage, in the order of the forward pass; none of a family that does
        not tell.
        """
        return []

    def check_size(self, x: Tensor) -> None:
        """ValueError for anything but images [B, in_channels, H, W] of min_size or more."""
        if len(x.shape) != 4 or x.shape[1] not in (self.in_channels, UNKNOWN):
            raise ValueError(
                f"expected images [batch, {self.in_channels}, height, width] (the channels are "
                f"in_channels, in YAML Arch.in_channels); got {list(x.shape)}"
            )
        height, width = x.shape[2:]
        # they may be UNKNOWN
        if 0 <= height < self.min_size or 0 <= width < self.min_size:
            raise ValueError(
                f"the input must be at least {self.min_size} x {self.min_size} pixels; got "
                f"{height} x {width}"
            )

    def no_weight_decay(self) -> Set[str]:
        """Names of parameters that are never decayed: none."""
        return set()

    def fuse(self) -> "BaseBackbone":
        """A new model in eval mode whose layers have folded their norms, by `fold_norms()`."""
        return folded(self)

    def export_form(self) -> "BaseBackbone":
        """A new model in eval mode, as it is exported: the fused one."""
        return self.fuse()

    def _frozen_prefixes(self) -> Tuple[str, ...]:
        if not self.frozen_stages:
            return ()
        return tuple(
            prefix for _, prefixes in self.stages()[: self.frozen_stages + 1] for prefix in prefixes
        )
