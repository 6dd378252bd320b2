"""The published TransNeXt weights: the tables of the official repository."""

from collections.abc import Iterator
from typing import Any

from .records import Preprocessing, Table, Weights

OFFICIAL = "DaiShiResearch/TransNeXt"
IMAGENET = "ImageNet-1K"
# where the addresses were read
READ_IN = {OFFICIAL: "README.md of DaiShiResearch/TransNeXt, commit 2000243, its tables' links"}
PRETRAINING_IN_SHORT = {IMAGENET: IMAGENET}

# Tables of the README of DaiShiResearch/TransNeXt: parameters (M), GFLOPs, then the figures in %:
# top-1 on ImageNet, -A, -R, -Sketch and -V2; mCE on ImageNet-C.
SCRATCH_METRICS = (
    "imagenet/top1",
    "imagenet-a/top1",
    "imagenet-c/mce",
    "imagenet-r/top1",
    "imagenet-sketch/top1",
    "imagenet-v2/top1",
)
SCRATCH = {
    "micro": (12.8, 2.7, (82.5, 29.9, 50.8, 45.8, 33.0, 72.6)),
    "tiny": (28.2, 5.7, (84.0, 39.9, 46.5, 49.6, 37.6, 73.8)),
    "small": (49.7, 10.3, (84.7, 47.1, 43.9, 52.5, 39.7, 74.8)),
    "base": (89.7, 18.4, (84.8, 50.6, 43.5, 53.9, 41.4, 75.1)),
}
FINETUNED_METRICS = tuple(metric for metric in SCRATCH_METRICS if metric != "imagenet-c/mce")
FINETUNED = {
    "small": (49.7, 32.1, (86.0, 58.3, 56.4, 43.2, 76.8)),
    "base": (89.7, 56.3, (86.2, 61.6, 57.7, 44.7, 77.0)),
}
AGGREGATED = (13.1, 3.3, 82.6)
MASK_RCNN = {  # parameters (M), box mAP, mask mAP
    "tiny": (47.9, 49.9, 44.6),
    "small": (69.3, 51.1, 45.5),
    "base": (109.2, 51.7, 45.9),
}
DINO = {  # (levels, variant): parameters (M), box mAP
    (4, "tiny"): (47.8, 55.1),
    (5, "tiny"): (48.1, 55.7),
    (5, "small"): (69.6, 56.6),
    (5, "base"): (110, 57.1),
}
# parameters (M), GFLOPs (its author, in answer to a question), mIoU at one scale, then at several
# with flip: the position bias interpolated, and extrapolated
UPERNET = {
    "tiny": (59, 245, 51.1, 51.5, 51.7),
    "small": (80, 273, 52.2, 52.5, 52.8),
    "base": (121, 319, 53.0, 53.5, 53.7),
}
MASK2FORMER = {  # parameters (M), mIoU
    "tiny": (47.5, 53.4),
    "small": (69.0, 54.1),
    "base": (109, 54.7),
}
SEVERAL_SCALES = {
    "ade20k/miou_ms": {
        "backbone": {"position_bias": "extrapolation"},
        "inference": {"mode": "whole"},
    },
    "ade20k/miou_ms_interpolation": {
        "backbone": {"table_size": 800},
        "inference": {"mode": "whole"},
    },
}
DETECTION_PROTOCOL = "COCO val2017; shorter side 800, longer at most 1333"
DINO_PROTOCOL = f"{DETECTION_PROTOCOL}; not padded"
SEGMENTATION_PROTOCOL = (
    "ADE20K val; within 2048 x 512 in proportion; one scale: windows of 512 x 512, 341 apart; "
    "several: whole image; GFLOPs at 512 x 512"
)
MASK2FORMER_PROTOCOL = (
    "ADE20K val; within 2048 x 512 in proportion, whole image, padded to multiples of 32"
)


def _official(variant: str, name: str, repository: str, file: str, **rest: Any) -> Weights:
    """A record of the official repository; `rest`: what Weights has beyond these."""
    return Weights(
        name=f"transnext_{variant}.{name}.official",
        pretraining=IMAGENET,
        source=OFFICIAL,
        where=f"https://huggingface.co/DaiShiResearch/{repository}/resolve/main/{file}",
        file=file,
        **rest,
    )


def _classifier(
    variant: str, size: int, repository: str, pretrain_size: int = 224, **rest: Any
) -> Weights:
    """Images of 384 pixels and more are warped, not cropped."""
    warped = Preprocessing(size, 1.0, warp=True)
    return _official(
        variant,
        f"in1k_{size}",
        f"transnext-{repository}",
        f"transnext_{repository.replace('-', '_')}.pth",
        model=f"TransNeXt_{variant}",
        arguments={"pretrain_size": pretrain_size},
        task="classification",
        head="1000 classes",
        preprocess=warped if size >= 384 else Preprocessing(size, 0.875),
        **rest,
    )


def _classification() -> Iterator[Weights]:
    for variant, (params, gflops, figures) in SCRATCH.items():
        yield _classifier(
            variant,
            224,
            f"{variant}-224-1k",
            published=dict(zip(SCRATCH_METRICS, figures)),
            params_m=params,
            gflops=gflops,
        )
    for variant, (params, gflops, finetuned) in FINETUNED.items():
        yield _classifier(
            variant,
            384,
            f"{variant}-384-1k-ft-1k",
            published=dict(zip(FINETUNED_METRICS, finetuned)),
            params_m=params,
            gflops=gflops,
        )
    params, gflops, top1 = AGGREGATED
    yield _classifier(
        "micro_AAAA",
        256,
        "micro-AAAA-256-1k",
        pretrain_size=256,
        published={"imagenet/top1": top1},
        params_m=params,
        gflops=gflops,
    )


def _backbone(variant: str, table_size: int) -> dict[str, Any]:
    """Of a detector or segmentor whose position bias is interpolated from a table for images of
    `table_size` pixels.
    """
    return {
        "name": f"TransNeXt_{variant}",
        "pretrain_size": 224,
        "position_bias": "interpolation",
        "table_size": table_size,
    }


def _detection() -> Iterator[Weights]:
    for variant, (params, box, mask) in MASK_RCNN.items():
        yield _official(
            variant,
            "mask_rcnn_1x",
            f"maskrcnn-transnext-{variant}-coco",
            f"mask_rcnn_transnext_{variant}_fpn_1x_coco_in1k.pth",
            model="MaskRCNN",
            arguments={"backbone": _backbone(variant, 800)},
            task="detection",
            head="Mask R-CNN 1x",
            published={"coco/box_map": box, "coco/mask_map": mask},
            params_m=params,
            gflops=None,
            protocol=DETECTION_PROTOCOL,
        )


def _dino() -> Iterator[Weights]:
    for (levels, variant), (params, box) in DINO.items():
        yield _official(
            variant,
            f"dino_{levels}scale_12e",
            f"dino-{levels}scale-transnext-{variant}-coco",
            f"dino_{levels}scale_transnext_{variant}_12e_in1k.pth",
            model="DINO",
            arguments={"backbone": _backbone(variant, 800), "num_levels": levels},
            task="detection",
            head=f"DINO {levels} levels, 12 epochs",
            published={"coco/box_map": box},
            params_m=params,
            gflops=None,
            transforms=({"Resize": {"scale": [1333, 800]}}, {"Normalize": {}}),
            protocol=DINO_PROTOCOL,
        )


def _segmentation() -> Iterator[Weights]:
    for variant, (params, gflops, single, interpolated, extrapolated) in UPERNET.items():
        yield _official(
            variant,
            "upernet_160k_in1k",
            f"upernet-transnext-{variant}-ade",
            f"upernet_transnext_{variant}_512x512_160k_ade20k_in1k.pth",
            model="UPerNet",
            arguments={
                "backbone": _backbone(variant, 512),
                "inference": {"mode": "slide", "crop_size": [512, 512], "stride": [341, 341]},
            },
            evaluations=SEVERAL_SCALES,
            task="segmentation",
            head="UPerNet 160k",
            published={
                "ade20k/miou": single,
                "ade20k/miou_ms": extrapolated,
                "ade20k/miou_ms_interpolation": interpolated,
            },
            params_m=params,
            gflops=gflops,
            protocol=SEGMENTATION_PROTOCOL,
        )


def _mask2former() -> Iterator[Weights]:
    for variant, (params, miou) in MASK2FORMER.items():
        yield _official(
            variant,
            "mask2former_160k_in1k",
            f"mask2former-transnext-{variant}-ade",
            f"mask2former_transnext_{variant}_512x512_160k_ade20k_in1k.pth",
            model="Mask2Former",
            arguments={"backbone": _backbone(variant, 512)},
            task="segmentation",
            head="Mask2Former 160k",
            published={"ade20k/miou": miou},
            params_m=params,
            gflops=None,
            transforms=(
                {"Resize": {"scale": [2048, 512]}},
                {"Normalize": {}},
                {"Pad": {"size_divisor": 32}},
            ),
            protocol=MASK2FORMER_PROTOCOL,
        )


CLASSIFICATION = tuple(_classification())
DETECTION = tuple(_detection())
QUERY_DETECTION = tuple(_dino())
SEGMENTATION = tuple(_segmentation())
QUERY_SEGMENTATION = tuple(_mask2former())
RECORDS = (*CLASSIFICATION, *DETECTION, *QUERY_DETECTION, *SEGMENTATION, *QUERY_SEGMENTATION)
TABLES = (
    Table(
        f"Classification: {OFFICIAL}",
        "GFLOPs are multiply-adds as fvcore counts them. -C is the mean corruption error, of which "
        "less is better. At 384 images are warped to the square, not cropped.",
        CLASSIFICATION,
        {
            "top-1": "imagenet/top1",
            "-A": "imagenet-a/top1",
            "-C": "imagenet-c/mce",
            "-R": "imagenet-r/top1",
            "-Sketch": "imagenet-sketch/top1",
            "-V2": "imagenet-v2/top1",
        },
    ),
    Table(
        f"Detection: {OFFICIAL}, Mask R-CNN on COCO",
        f"{DETECTION_PROTOCOL}. The position bias is interpolated from 800 x 800.",
        DETECTION,
        {"box mAP": "coco/box_map", "mask mAP": "coco/mask_map"},
    ),
    Table(
        f"Detection: {OFFICIAL}, DINO on COCO",
        f"{DINO_PROTOCOL}. The position bias is interpolated from 800 x 800.",
        QUERY_DETECTION,
        {"box mAP": "coco/box_map"},
    ),
    Table(
        f"Segmentation: {OFFICIAL}, UPerNet on ADE20K",
        f"{SEGMENTATION_PROTOCOL}. ms: scales 0.5 to 1.75, and flipped, the position bias "
        "extrapolated, or interpolated from 800 x 800.",
        SEGMENTATION,
        {
            "mIoU": "ade20k/miou",
            "mIoU ms": "ade20k/miou_ms",
            "mIoU ms, interpolated": "ade20k/miou_ms_interpolation",
        },
    ),
    Table(
        f"Segmentation: {OFFICIAL}, Mask2Former on ADE20K",
        f"{MASK2FORMER_PROTOCOL}.",
        QUERY_SEGMENTATION,
        {"mIoU": "ade20k/miou"},
    ),
)
