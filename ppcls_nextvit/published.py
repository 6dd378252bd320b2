"""What the authors of Next-ViT published about their weights; what was measured here stands beside it once a log exists."""
from dataclasses import dataclass
from typing import Optional

__all__ = ["PUBLISHED", "Published"]


@dataclass(frozen=True)
class Published:
    """ImageNet-1K top-1 in %, from the README of bytedance/Next-ViT (crop ratio 0.875 at both sizes: resize 256 or 438, centre crop)."""

    in1k: float                             # trained on ImageNet-1K
    ssld_6m: float                          # first on 6 million images mined in the SSLD way
    measured: Optional[float] = None        # by this project's evaluation, with the in1k weights


PUBLISHED = {
    ("NextViT_small", 224): Published(82.5, 84.8),
    ("NextViT_base", 224): Published(83.2, 85.1),
    ("NextViT_large", 224): Published(83.6, 85.4),
    ("NextViT_small", 384): Published(83.6, 85.8),
    ("NextViT_base", 384): Published(84.3, 86.1),
    ("NextViT_large", 384): Published(84.7, 86.4),
}
