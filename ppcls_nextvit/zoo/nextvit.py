"""The published Next-ViT weights: the tables of the official repository, PaddleClas and timm."""

from collections.abc import Iterator
from typing import Any

from .records import Preprocessing, Table, Weights

SIZES = ("small", "base", "large")
PRETRAINING = {
    "in1k": "ImageNet-1K",
    "in1k6m": "ImageNet-1K, first 6 M images mined in the way of SSLD",
}
PRETRAINING_IN_SHORT = {
    PRETRAINING["in1k"]: "ImageNet-1K",
    PRETRAINING["in1k6m"]: "SSLD-6M first",
}
OFFICIAL = "bytedance/Next-ViT"
PADDLECLAS = "PaddleClas"
TIMM = "timm"
# where the addresses of each source were read
READ_IN = {
    OFFICIAL: "README.md of bytedance/Next-ViT of 2022-08-26, its tables' links",
    PADDLECLAS: "MODEL_URLS of its NextViT backbone, develop of 2024-10-18",
    TIMM: "hf_hub_id of timm/models/nextvit.py, commit 0737cf2; timm keeps model.safetensors there",
}

# Tables of the README of bytedance/Next-ViT: parameters (M), GFLOPs, then the figures in %, then
# the id of its Google Drive link.
OFFICIAL_CLASSIFICATION = {  # top-1
    ("in1k", 224): (
        (31.7, 5.8, 82.5, "1yoJFpMdnwVseEEnSJxF8CIZ_txn1o_aS"),
        (44.8, 8.3, 83.2, "1zaYLlDKMI0OUcYBPoGPXR8lKdrsBq3qp"),
        (57.8, 10.8, 83.6, "15hiQhAu_YNXboVPsbXpuaflfYkodkYZk"),
    ),
    ("in1k", 384): (
        (31.7, 17.3, 83.6, "1lBBqXFFjWdaPq-zqKyW0uTsToQh43mP_"),
        (44.8, 24.6, 84.3, "1D1oZUBHEpWb8uzoRuLs-aFcyjX74zzb3"),
        (57.8, 32.0, 84.7, "1MMGeXeIqrL8UXYuHEFdMArPDd-8L51Ag"),
    ),
    ("in1k6m", 224): (
        (31.7, 5.8, 84.8, "1b7ChnlT3uG3pTaZjtwYtnAaxAESF0MqK"),
        (44.8, 8.3, 85.1, "1qYtex2EZ23TzVqaFlGh14hAxVjfuILWv"),
        (57.8, 10.8, 85.4, "1F5iLING3RzNbuZb4RwL7NLZZmJulKW3N"),
    ),
    ("in1k6m", 384): (
        (31.7, 17.3, 85.8, "104jeld9rJq8vwJ-i-RqlzF3mJzXCcQp9"),
        (44.8, 24.6, 86.1, "17bCu4EbxOUmhgPCP5wlDH_p8m35oTT38"),
        (57.8, 32.0, 86.4, "1ZuLswj2xbUdg_t8TugjSJwDsHuIuMSIC"),
    ),
}
OFFICIAL_MASK_RCNN = {  # box mAP, mask mAP
    "1x": (
        (51.8, 290, 45.9, 41.8, "12epWrFRenpGdiPcXAgzSRoV-hmgsYZ5i"),
        (64.9, 340, 47.2, 42.8, "1gptltvAQCaaOdhfgKhjgvke9S_8OYiWO"),
        (77.9, 391, 48.0, 43.2, "1-CPrwe4ZtgOCVV9YOzZoQunMUYDmlUgv"),
    ),
    "3x": (
        (51.8, 290, 48.0, 43.2, "1LESqQyyaw4iZqHM31ia24Rq8v33q5PP7"),
        (64.9, 340, 49.5, 44.4, "1blDx9nf58kZKWB1XUpQdZDlBRuDGFlmc"),
        (77.9, 391, 50.2, 44.8, "1OIGevcsrAkTmb0hKmBD4iSI_WPdIZ_MA"),
    ),
}
OFFICIAL_SEMANTIC_FPN = {  # mIoU
    "in1k": (
        (36.3, 208, 46.5, "1AnmFR984FUuTrb5xx-Q1rR7pd0EEZKKL"),
        (49.3, 260, 48.6, "1ts748a9EoMA1QlYzW1PoWYdV0Ec0zk16"),
        (62.4, 331, 49.1, "1XX64ugyL0OV6BeDn1A5UwbvM3nwt6fns"),
    ),
    "in1k6m": (
        (36.3, 208, 48.8, "1eDpfMNuLmQUSlMlaPnfkWKZO0N7D5GP-"),
        (49.3, 260, 50.2, "18tFAqzMU8Axw8mSKMGVx5guFrJabcwT1"),
        (62.4, 331, 50.5, "1HJpFyWAtd5kZGDCI2Phe_2TkKLjVQ7G8"),
    ),
}
OFFICIAL_UPERNET = {  # mIoU at one scale, mIoU at several scales with flip
    "in1k": (
        (66.3, 968, 48.1, 49.0, "1Zi-kW7jQM5Ii1ohmHqTZYSaxUoIzNjTJ"),
        (79.3, 1020, 50.4, 51.1, "1n4VgTsGhDg1D5MeDvlGXmwrgZpST2xHm"),
        (92.4, 1072, 50.1, 50.8, "1M4_8nQz8F_sinsxeRZvFm7o6b8paSyTz"),
    ),
    "in1k6m": (
        (66.3, 968, 49.8, 50.8, "181f8aBlCuPnAnmxFERikVElR1W2HSxCG"),
        (79.3, 1020, 51.8, 52.8, "1TTzJ7wqP00KkzoH16j1T-1CooXMVI0tP"),
        (92.4, 1072, 51.5, 52.0, "1_AgzLJ0ieO8cUohmvm2bjN9eYz6dvuSI"),
    ),
}
# PaddleClas, its model page for NextViT: parameters (M, BatchNorm statistics included), GFLOPs,
# top-1.
PADDLECLAS_CLASSIFICATION = {
    ("in1k", 224): ((31.80, 5.79, 82.48), (44.88, 8.26, 83.24), (57.95, 10.73, 83.63)),
    ("in1k", 384): ((31.80, 17.00, 84.01), (44.88, 24.27, 84.65), (57.95, 31.53, 84.92)),
    ("in1k6m", 224): ((31.80, 5.79, 84.72), (44.88, 8.26, 85.00), (57.95, 10.73, 85.36)),
    ("in1k6m", 384): ((31.80, 17.00, 85.97), (44.88, 24.27, 86.34), (57.95, 31.53, 86.54)),
}
# timm, results/results-*.csv: top-1 on ImageNet, -A, -R, -Sketch, -V2 (matched frequency), and by
# the ReaL labels.
TIMM_DATASETS = (
    "imagenet",
    "imagenet-a",
    "imagenet-r",
    "imagenet-sketch",
    "imagenet-v2",
    "imagenet-real",
)
TIMM_PARAMS_M = (31.76, 44.82, 57.87)
TIMM_CLASSIFICATION = {
    ("in1k", 224): (
        (82.626, 26.640, 46.833, 33.815, 71.430, 87.794),
        (83.498, 31.253, 49.553, 36.538, 72.750, 88.477),
        (83.654, 33.027, 50.910, 37.867, 73.100, 88.404),
    ),
    ("in1k", 384): (
        (84.036, 41.747, 48.130, 33.990, 73.070, 88.906),
        (84.706, 46.413, 49.963, 35.927, 74.220, 89.284),
        (84.930, 49.320, 52.140, 38.824, 74.440, 89.293),
    ),
    ("in1k6m", 224): (
        (84.872, 42.533, 58.587, 45.020, 75.170, 89.323),
        (85.186, 47.307, 60.790, 48.046, 75.500, 89.506),
        (85.514, 49.520, 61.927, 48.073, 76.270, 89.668),
    ),
    ("in1k6m", 384): (
        (85.966, 58.080, 60.393, 46.434, 76.450, 89.984),
        (86.372, 62.773, 63.600, 49.645, 77.770, 90.187),
        (86.544, 65.373, 64.827, 49.795, 77.730, 90.211),
    ),
}
DETECTION_PROTOCOL = "COCO val2017; shorter side 800, longer at most 1333; GFLOPs at 800 x 1280"
SEGMENTATION_PROTOCOL = (
    "ADE20K val; within 2048 x 512 in proportion, whole image; GFLOPs at 512 x 2048"
)


def _drive(identifier: str) -> str:
    return f"https://drive.google.com/file/d/{identifier}/view"


def _official(size: str, name: str, tag: str, drive: str, **rest: Any) -> Weights:
    """A record of the official repository; `rest`: what Weights has beyond these."""
    return Weights(
        name=f"nextvit_{size}.{name}.official",
        pretraining=PRETRAINING[tag],
        source=OFFICIAL,
        where=_drive(drive),
        **rest,
    )


def _official_classification() -> Iterator[Weights]:
    for (tag, pixels), rows in OFFICIAL_CLASSIFICATION.items():
        for size, (params, gflops, top1, drive) in zip(SIZES, rows):
            yield _official(
                size,
                f"{tag}_{pixels}",
                tag,
                drive,
                model=f"NextViT_{size}",
                task="classification",
                head="1000 classes",
                published={"imagenet/top1": top1},
                params_m=params,
                gflops=gflops,
                file=f"nextvit_{size}_{tag}_{pixels}.pth",
                preprocess=Preprocessing(pixels, 0.875),
            )


def _official_detection() -> Iterator[Weights]:
    for schedule, rows in OFFICIAL_MASK_RCNN.items():
        for size, (params, gflops, box, mask, drive) in zip(SIZES, rows):
            yield _official(
                size,
                f"mask_rcnn_{schedule}",
                "in1k",
                drive,
                model="MaskRCNN",
                arguments={"backbone": {"name": f"NextViT_{size}"}},
                task="detection",
                head=f"Mask R-CNN {schedule}",
                published={"coco/box_map": box, "coco/mask_map": mask},
                params_m=params,
                gflops=gflops,
                file=f"mask_rcnn_{schedule}_nextvit_{size}.pth",
                protocol=DETECTION_PROTOCOL,
            )


def _official_segmentation() -> Iterator[Weights]:
    def record(
        model: str, head: str, short: str, size: str, tag: str, drive: str, **rest: Any
    ) -> Weights:
        suffix = "" if tag == "in1k" else f"_{tag}"
        return _official(
            size,
            f"{short}_{tag}",
            tag,
            drive,
            model=model,
            arguments={"backbone": {"name": f"NextViT_{size}", "extra_norms": True}},
            task="segmentation",
            head=head,
            file=f"{short}_nextvit_{size}{suffix}.pth",
            protocol=SEGMENTATION_PROTOCOL,
            **rest,
        )

    for tag, fpn_rows in OFFICIAL_SEMANTIC_FPN.items():
        for size, (params, gflops, miou, drive) in zip(SIZES, fpn_rows):
            yield record(
                "SemanticFPN",
                "Semantic FPN 80k",
                "fpn_80k",
                size,
                tag,
                drive,
                published={"ade20k/miou": miou},
                params_m=params,
                gflops=gflops,
            )
    for tag, upernet_rows in OFFICIAL_UPERNET.items():
        for size, (params, gflops, single, multi, drive) in zip(SIZES, upernet_rows):
            yield record(
                "UPerNet",
                "UPerNet 160k",
                "upernet_160k",
                size,
                tag,
                drive,
                published={"ade20k/miou": single, "ade20k/miou_ms": multi},
                params_m=params,
                gflops=gflops,
            )


def _paddleclas() -> Iterator[Weights]:
    for (tag, pixels), rows in PADDLECLAS_CLASSIFICATION.items():
        ssld = "ssld_" if tag == "in1k6m" else ""
        for size, (params, gflops, top1) in zip(SIZES, rows):
            file = f"NextViT_{size}_{pixels}_{ssld}pretrained.pdparams"
            yield Weights(
                name=f"nextvit_{size}.{tag}_{pixels}.paddleclas",
                model=f"NextViT_{size}",
                task="classification",
                head="1000 classes",
                pretraining=PRETRAINING[tag],
                source=PADDLECLAS,
                where=f"https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/{file}",
                file=file,
                published={"imagenet/top1": top1},
                params_m=params,
                gflops=gflops,
                preprocess=Preprocessing(pixels, 0.875 if pixels == 224 else 1.0),
            )


def _timm() -> Iterator[Weights]:
    for (tag, pixels), rows in TIMM_CLASSIFICATION.items():
        ssld = "ssld_6m_" if tag == "in1k6m" else ""
        for size, params, figures in zip(SIZES, TIMM_PARAMS_M, rows):
            theirs = f"nextvit_{size}.bd_{ssld}in1k{'' if pixels == 224 else '_384'}"
            yield Weights(
                name=f"nextvit_{size}.{tag}_{pixels}.timm",
                model=f"NextViT_{size}",
                task="classification",
                head="1000 classes",
                pretraining=PRETRAINING[tag],
                source=TIMM,
                where=f"https://huggingface.co/timm/{theirs}/resolve/main/model.safetensors",
                file=f"{theirs}.safetensors",
                published={
                    f"{dataset}/top1": figure for dataset, figure in zip(TIMM_DATASETS, figures)
                },
                params_m=params,
                gflops=None,
                preprocess=Preprocessing(pixels, 0.95 if pixels == 224 else 1.0),
            )


CLASSIFICATION = tuple(_official_classification())
DETECTION = tuple(_official_detection())
SEGMENTATION = tuple(_official_segmentation())
CLASSIFICATION_PADDLECLAS = tuple(_paddleclas())
CLASSIFICATION_TIMM = tuple(_timm())
RECORDS = (
    *CLASSIFICATION,
    *DETECTION,
    *SEGMENTATION,
    *CLASSIFICATION_PADDLECLAS,
    *CLASSIFICATION_TIMM,
)
TOP1 = {"top-1": "imagenet/top1"}
TABLES = (
    Table(
        f"Classification: {OFFICIAL}",
        "GFLOPs are multiply-adds as fvcore counts them. Of SSLD-6M only weights were published: "
        "no recipe, no list of the 6 M images, which were mined in the way of SSLD. Files whose "
        "names the source does not state are named here in its manner.",
        CLASSIFICATION,
        TOP1,
    ),
    Table(
        f"Classification: {PADDLECLAS}",
        "Converted by PaddleClas from the official files. Its parameters include BatchNorm's "
        "running statistics, its GFLOPs (`paddle.flops`) leave out the attention products.",
        CLASSIFICATION_PADDLECLAS,
        TOP1,
    ),
    Table(
        f"Classification: {TIMM}",
        "Top-1 on ImageNet, -A and -R (among the 200 classes of each), -Sketch, -V2 (matched "
        "frequency) and by the ReaL labels, from timm's tables of results. `tools/reproduce.py "
        "--set a|r|sketch|v2|real|c` evaluates these sets, and ImageNet-C.",
        CLASSIFICATION_TIMM,
        {
            **TOP1,
            "-A": "imagenet-a/top1",
            "-R": "imagenet-r/top1",
            "-Sketch": "imagenet-sketch/top1",
            "-V2": "imagenet-v2/top1",
            "-ReaL": "imagenet-real/top1",
        },
    ),
    Table(
        f"Detection: {OFFICIAL}, Mask R-CNN on COCO",
        f"{DETECTION_PROTOCOL}. Parameters as the source counts them: trainable ones, with the "
        "classification head that a detector does not use.",
        DETECTION,
        {"box mAP": "coco/box_map", "mask mAP": "coco/mask_map"},
    ),
    Table(
        f"Segmentation: {OFFICIAL}, Semantic FPN and UPerNet on ADE20K",
        f"{SEGMENTATION_PROTOCOL}; ms: scales 0.5 to 1.75, and flipped. Parameters as the source "
        "counts them, with the classification head that a segmentor does not use. Its 331 G for "
        "Semantic FPN with the large model do not fit the other two; about 312 would.",
        SEGMENTATION,
        {"mIoU": "ade20k/miou", "mIoU ms": "ade20k/miou_ms"},
    ),
)
