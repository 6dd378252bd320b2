"""The engines that the benchmark compares, by name.

The standard library alone is imported with these modules: an engine's own is, where it is made, so
that an ImportError says what is not installed.
"""

from typing import Any, NamedTuple

from .classifiers import (
    InBfloat16,
    OursEager,
    PaddleEager,
    PaddleInference,
    SizedTorchEager,
    TimmOnnx,
    TorchAutocast,
    TorchEager,
    WithoutOperators,
    create_ours,
    create_ours_fused,
    create_paddleclas,
    create_timm,
    create_timm_compiled,
    create_timm_fused,
    create_transnext,
)
from .deployed import Deployed, Gemm
from .detectors import Parts, create_dense, create_paddleseg_upernet, create_untimed
from .pipelines import AVERAGE, LARGE, OursPipeline, TimmPipeline

__all__ = ["ENGINES", "Engine"]


class Engine(NamedTuple):
    """kind: a class, made of (made_by, variant, size, threads, folder). tasks: what it can time."""

    kind: type
    made_by: Any
    tasks: tuple[str, ...]


def _deployed(target, precision):
    return Engine(Deployed, (target, precision), ("latency",))


def _dense(task, create):
    return Engine(Parts, create, (task,))


ENGINES = {
    "ours onnx": _deployed("onnx", "fp32"),
    "ours openvino": _deployed("openvino", "fp32"),
    "ours paddle": _deployed("paddle", "fp32"),
    "ours openvino bf16": _deployed("openvino", "bf16"),
    "ours paddle bf16": _deployed("paddle", "bf16"),
    "ours openvino int8": _deployed("openvino", "int8"),
    "ours onnx int8": _deployed("onnx", "int8"),
    "ours paddle int8": _deployed("paddle", "int8"),
    "ours eager": Engine(OursEager, create_ours, ("latency", "train")),
    "ours without operators": Engine(WithoutOperators, create_ours, ("latency", "train")),
    "ours bf16": Engine(InBfloat16, create_ours, ("train",)),
    "ours fused": Engine(PaddleEager, create_ours_fused, ("latency",)),
    "paddleclas eager": Engine(PaddleEager, create_paddleclas, ("latency", "train")),
    "paddleclas inference": Engine(PaddleInference, create_paddleclas, ("latency",)),
    "timm eager": Engine(TorchEager, create_timm, ("latency", "train")),
    "timm bf16": Engine(TorchAutocast, create_timm, ("train",)),
    "timm fused": Engine(TorchEager, create_timm_fused, ("latency",)),
    "timm compile": Engine(TorchEager, create_timm_compiled, ("latency",)),
    "timm onnx": Engine(TimmOnnx, create_timm_fused, ("latency",)),
    "transnext eager": Engine(SizedTorchEager, create_transnext, ("latency", "train")),
    "ours data": Engine(OursPipeline, (AVERAGE, "pil", False), ("data",)),
    "ours data scaled": Engine(OursPipeline, (AVERAGE, "pil", True), ("data",)),
    "ours data cv2": Engine(OursPipeline, (AVERAGE, "cv2", False), ("data",)),
    "timm data": Engine(TimmPipeline, AVERAGE, ("data",)),
    "ours data large": Engine(OursPipeline, (LARGE, "pil", False), ("data",)),
    "ours data large scaled": Engine(OursPipeline, (LARGE, "pil", True), ("data",)),
    "timm data large": Engine(TimmPipeline, LARGE, ("data",)),
    "ours mask_rcnn": _dense(
        "detection",
        create_dense("MaskRCNN", drop_path_rate=0.1, frozen_stages=1, norm_eval=True),
    ),
    "paddledet mask_rcnn": _dense(
        "detection", create_untimed("ppdet", "its released detectors do not run on Paddle 3")
    ),
    "mmdet mask_rcnn": _dense(
        "detection", create_untimed("mmdet", "it has no Next-ViT of its own")
    ),
    "ours upernet": _dense(
        "segmentation", create_dense("UPerNet", extra_norms=True, drop_path_rate=0.2)
    ),
    "paddleseg upernet": _dense("segmentation", create_paddleseg_upernet),
    "ours semfpn": _dense(
        "segmentation", create_dense("SemanticFPN", extra_norms=True, drop_path_rate=0.2)
    ),
    "mmseg upernet": _dense(
        "segmentation", create_untimed("mmseg", "it has no Next-ViT of its own")
    ),
    # no engine: it takes turns with those of `latency`
    "gemm": Engine(Gemm, None, ()),
}
