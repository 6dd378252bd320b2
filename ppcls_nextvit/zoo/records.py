"""A published file of weights as a record: where from, of which model, how evaluated, what was
published, what was measured here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Optional, Tuple

__all__ = ["Preprocessing", "Table", "Weights"]

ASKS = "https://drive.google.com/"
IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


@dataclass(frozen=True)
class Preprocessing:
    """How a published top-1 was evaluated: shorter side to `resize_short`, centre crop of `crop`
    pixels, ImageNet mean and std.

    warp: the whole image to `crop` x `crop` pixels instead, whatever its proportions.
    """

    crop: int
    crop_ratio: float
    interpolation: str = "bicubic"
    warp: bool = False

    @property
    def resize_short(self) -> int:
        """Pixels; the fraction is cut off, as all three sources do (384 / 0.875 -> 438, 224 / 0.95
        -> 235).
        """
        return int(self.crop / self.crop_ratio)

    def transform_ops(self) -> list[dict[str, Any]]:
        """The list for `data.transforms.pipeline.Preprocess`, or for `transform_ops` in a YAML."""
        target = {"size": self.crop} if self.warp else {"resize_short": self.resize_short}
        crop = [] if self.warp else [{"CropImage": {"size": self.crop}}]
        return [
            {"DecodeImage": {"to_rgb": True}},
            {"ResizeImage": {**target, "interpolation": self.interpolation, "backend": "pil"}},
            *crop,
            {
                "NormalizeImage": {
                    "scale": 1 / 255,
                    "mean": IMAGENET_MEAN,
                    "std": IMAGENET_STD,
                    "order": "",
                }
            },
        ]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One published file.

    model, arguments: for `create_model`, but for num_classes, which is the file's; of a detector or
        segmentor the arguments name its backbone.
    evaluations: {metric: further arguments, which go before `arguments`, with which that figure was
        measured}, where it was otherwise than with `arguments`.
    where: the address that the source's own pages or code state. file: the name under which a user
    keeps it.
    preprocess: None for detection and segmentation, whose input `protocol` describes.
    transforms: of a detector or segmentor, those of evaluation where they are not the ones with
        which reproduce/datasets.py evaluates most.
    published: {metric: %}; `DATASET/top1` for classification (imagenet, imagenet-a, -r, -sketch,
        -v2, -real), `imagenet-c/mce`, `coco/box_map`, `coco/mask_map`, `ade20k/miou` (single
        scale), `ade20k/miou_ms` (multi-scale and flip), `ade20k/miou_ms_interpolation` (the same
        with the position bias interpolated).
    params_m, gflops: as the source prints them, each counting in its own way (see
    docs/model_zoo.md).
    measured: {metric: %} by this project, `log` being the file in the repository that shows it.
    """

    name: str
    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    task: str
    head: str
    pretraining: str
    source: str
    where: str
    file: str
    published: Mapping[str, float]
    params_m: float
    gflops: Optional[float]
    preprocess: Optional[Preprocessing] = None
    transforms: Tuple[Mapping[str, Any], ...] = ()
    protocol: str = ""
    measured: Optional[Mapping[str, float]] = None
    log: Optional[str] = None

    def __post_init__(self) -> None:
        if (self.measured is None) != (self.log is None):
            raise ValueError(f"{self.name}: measured figures need their log, and a log its figures")
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))
        object.__setattr__(self, "evaluations", MappingProxyType(dict(self.evaluations)))
        object.__setattr__(self, "published", MappingProxyType(dict(self.published)))

    @property
    def url(self) -> Optional[str]:
        """The address from which a program can fetch the file; None where only a person can (Google
        Drive asks before it gives a large file).
        """
        direct = self.where.startswith("https://") and not self.where.startswith(ASKS)
        return self.where if direct else None

    @property
    def variant(self) -> str:
        """The name of the backbone: of a classifier the model's own."""
        return self.arguments.get("backbone", {}).get("name", self.model)

    @property
    def backbone_arguments(self) -> Mapping[str, Any]:
        """Those of `arguments` that are the backbone's, beside its name."""
        arguments = self.arguments.get("backbone", self.arguments)
        return {key: value for key, value in arguments.items() if key != "name"}


@dataclass(frozen=True)
class Table:
    """Records that are shown together, on docs/model_zoo.md. metrics: {title of a column: key of
    `published`}.
    """

    title: str
    note: str
    records: Tuple[Weights, ...]
    metrics: Mapping[str, str]
