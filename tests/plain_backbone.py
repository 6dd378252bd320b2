"""A backbone from outside the package, and no Next-ViT: with it the contracts are tested beside the
package's own families.
"""

from typing import List, Optional, Sequence, Tuple

from paddle import Tensor, nn
from paddle.nn import functional as F

from ppcls_nextvit.models.backbones.base import BaseBackbone
from ppcls_nextvit.models.folding import fold_after
from ppcls_nextvit.models.layers import DropPath, recompute_block


class Halving(nn.Layer):
    """3x3 convolution of stride 2, BatchNorm, ReLU; then a second one, a residual branch."""

    def __init__(self, in_channels: int, channels: int, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2D(in_channels, channels, 3, stride=2, padding=1, bias_attr=False)
        self.norm = nn.BatchNorm2D(channels)
        self.branch = nn.Conv2D(channels, channels, 3, padding=1)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C_in, H, W] -> [B, C, ceil(H / 2), ceil(W / 2)]."""
        x = F.relu(self.norm(self.conv(x)))
        return x + self.drop_path(self.branch(x))

    def fold_norms(self) -> None:
        """The norm into the convolution before it."""
        fold_after(self.conv, self.norm)
        self.norm = nn.Identity()


class PlainConv(BaseBackbone):
    """A stem of stride 2, then four stages that halve the map and double the channels."""

    toy = {"width": 8}

    def __init__(
        self,
        *,
        num_classes: Optional[int] = 1000,
        in_channels: int = 3,
        width: int = 32,
        drop_path_rate: float = 0.0,
        recompute: bool = False,
        frozen_stages: int = 0,
        norm_eval: bool = False,
    ) -> None:
        super().__init__(
            num_classes, in_channels, drop_path_rate, recompute, frozen_stages, norm_eval
        )
        self.stage_channels = tuple(width * 2**stage for stage in range(4))
        self.stem = Halving(in_channels, width)
        before = (width, *self.stage_channels)
        self.features = nn.LayerList(
            [Halving(*pair, drop_path_rate) for pair in zip(before, self.stage_channels)]
        )
        if num_classes is not None:
            channels = self.stage_channels[-1]
            self.proj_head = nn.Linear(channels, num_classes) if num_classes else nn.Identity()
        self.hold_still()

    def stages(self) -> List[Tuple[str, Tuple[str, ...]]]:
        """The stem, the four stages and the head."""
        stages = [(f"stage{i + 1}", (f"features.{i}.",)) for i in range(len(self.features))]
        return [("stem", ("stem.",)), *stages, ("head", self.head_prefixes)]

    def forward_features(self, x: Tensor) -> List[Tensor]:
        """x: [B, in_channels, H, W] -> four maps of strides 4, 8, 16, 32."""
        self.check_size(x)
        x = self.stem(x)
        maps = []
        for stage in self.features:
            x = recompute_block(stage, x) if self.recompute and stage.training else stage(x)
            maps.append(x)
        return maps

    def forward_head(self, maps: Sequence[Tensor]) -> Tensor:
        """The four maps -> logits [B, num_classes]."""
        return self.proj_head(maps[-1].mean([2, 3]))
