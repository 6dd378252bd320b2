"""Next-ViT's published recipes: ImageNet-1K from scratch, fine-tuned and from the SSLD-6M weights;
COCO; ADE20K.

Each file is complete, because users copy one; the tables keep them in step.
"""

from typing import Any, NamedTuple, Optional

from templates import classification, mask_rcnn, segmentation

VARIANTS = ("small", "base", "large")
DROP_PATH = {"small": 0.1, "base": 0.2, "large": 0.2}
PRETRAINED = "./output/NextViT_{variant}_224/best_model"


class Classification(NamedTuple):
    """top1: % of the log's best epoch. epoch: its minutes:seconds. memory: MB of a GPU. top1_whole:
    % at crop ratio 1.0 (PaddleClas). ssld: published % of the SSLD-6M weights.
    """

    top1: str
    epoch: str
    memory: str
    top1_whole: Optional[str]
    ssld: str


class Detection(NamedTuple):
    """AP and AP50 of boxes and masks, %. memory: MB of a GPU. hours: from the log's first line to
    its last.
    """

    box: str
    box50: str
    mask: str
    mask50: str
    memory: str
    hours: str


class Segmentation(NamedTuple):
    """mIoU %, single scale (log), then multi-scale and flip (README; UPerNet only); the same of the
    SSLD-6M backbone. hours; memory: MB of a GPU.
    """

    single: str
    multi: Optional[str]
    ssld: str
    ssld_multi: Optional[str]
    hours: str
    memory: str


# Classification.

# variant -> resolution -> figures of the official training log (top-1 at its crop ratio .875)
CLASSIFICATION = {
    "small": {
        224: Classification("82.49", "3:54", "20458", None, "84.8"),
        384: Classification("83.58", "10:58", "29510", "84.01", "85.8"),
    },
    "base": {
        224: Classification("83.21", "5:00", "24593", None, "85.1"),
        384: Classification("84.27", "13:48", "36795", "84.65", "86.1"),
    },
    "large": {
        224: Classification("83.58", "6:13", "28734", None, "85.4"),
        384: Classification("84.68", "16:51", "44082", "84.92", "86.4"),
    },
}

SCRATCH_HEADER = """\
# Next-ViT-{letter}, ImageNet-1K, {size} x {size}, 300 epochs from scratch: the official recipe.
# Source: bytedance/Next-ViT, classification (README command, defaults of main.py, training log).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/{name}.yaml
# Hardware and time there: 8 GPUs (model not named in the log), {memory} MB each, {epoch} min per epoch = {hours} h.
# Expected top-1: {top1} (its log's best epoch; resize 256, centre crop 224: crop ratio .875). Not yet reproduced here.
# Learning rate: 5e-4 * global batch / 512 = 5e-4 * 2048 / 512 = 2e-3 for 8 processes of 256. With another global batch, scale
#   learning_rate by hand; warmup_start_lr and eta_min stay. Nothing scales it for you.
# Differs from PaddleClas's file of this name: global batch 2048 and 2e-3 (there 1024 and 1e-3, the same rule); TimmCosine per epoch
#   over all 300 epochs (there Cosine per step, after the warm-up); gradient norm clipped to 5 (there not at all); every batch mixed
#   by TimmMixup, MixUp or CutMix in equal shares (there by OpSampler, to the same end); drop_last True; save_interval 10 (300 saved
#   epochs fill a disk).
"""
FINETUNE_HEADER = """\
# Next-ViT-{letter}, ImageNet-1K, {size} x {size}: the official 30-epoch fine-tune of the 224 weights.
# Source: bytedance/Next-ViT, classification (README command, defaults of main.py, training log).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/{name}.yaml
# Global.pretrained_model: the best 224 weights of configs/NextViT_{variant}_224.yaml, or any converted 224 checkpoint.
# Hardware and time there: 8 GPUs (model not named in the log), {memory} MB each, {epoch} min per epoch = {hours} h.
# Expected top-1: {top1} (its log's best epoch; resize 438, centre crop 384: crop ratio .875). Not yet reproduced here.
#   PaddleClas and timm evaluate with crop ratio 1.0 (resize 384): {top1_whole} with the same weights. Do not compare across crops.
# Learning rate: constant, 5e-6 * global batch / 512 = 5e-6 * 1024 / 512 = 1e-5 for 8 processes of 128; with another global batch,
#   scale it by hand.{lr_note}
# Differs from PaddleClas's file of this name, which is the 300-epoch recipe from scratch at 384 (1e-3, weight decay 0.1).
"""
BASE_LR_NOTE = """ The official log of this one model prints 0.000003 (2.5e-6 to 3.5e-6), not the README's 1e-5 written
#   here."""
SSLD_HEADER = """\
# Next-ViT-{letter} SSLD-6M, {size} x {size}: evaluate the published weights, or fine-tune from them.
# Source: bytedance/Next-ViT publishes these weights only: no training code, data list or recipe. The 6M images were mined in the way
#   of SSLD (arXiv:2103.05959); the weights are not distilled by PaddleClas's SSLD.
# Global.pretrained_model: the published file, converted by weight_conversion/ (or PaddleClas's NextViT_{variant}_{size}_ssld_pretrained).
# Evaluate: python tools/eval.py -c configs/{name}.yaml
# Expected top-1: {ssld} (README; resize {resize}, centre crop {size}: crop ratio .875). Not yet measured here.
# The training part is the official 30-epoch fine-tune ({size} pixels, constant 1e-5 for 8 processes of 128: 5e-6 * 1024 / 512), OUR
#   choice as a start for data of your own; no published number belongs to it, nor hardware or time.
# PaddleClas has no file of this name; there Arch.use_ssld chooses the weights.
"""

SCRATCH_OPTIMIZER = """\
  weight_decay: 0.1
  no_weight_decay_name: .bias norm
  one_dim_param_no_weight_decay: True
  clip_global_norm: 5.0
  lr:
    name: TimmCosine
    learning_rate: 2e-3
    eta_min: 1e-5
    warmup_epoch: 20
    warmup_start_lr: 1e-6
    late_start: True      # epochs 0 and 1 at warmup_start_lr, as the reference runs
"""
FINETUNE_OPTIMIZER = """\
  weight_decay: 1e-8
  no_weight_decay_name: .bias norm
  one_dim_param_no_weight_decay: True
  clip_global_norm: 5.0
  lr:
    name: ConstLR
    learning_rate: 1e-5
"""


def classification_recipe(variant: str, size: int, ssld: bool) -> tuple[str, str]:
    """(file name, its text)."""
    log = CLASSIFICATION[variant][size]
    arch = f"NextViT_{variant}_{size}"
    name = f"{arch}_ssld" if ssld else arch
    scratch = size == 224 and not ssld
    epochs = 300 if scratch else 30
    resize = {224: 256, 384: 438}[size]
    minutes, seconds = map(int, log.epoch.split(":"))
    header = (SSLD_HEADER if ssld else SCRATCH_HEADER if scratch else FINETUNE_HEADER).format(
        **log._asdict(),
        name=name,
        variant=variant,
        letter=variant[0].upper(),
        size=size,
        resize=resize,
        hours=f"{epochs * (60 * minutes + seconds) / 3600:.1f}",
        lr_note=BASE_LR_NOTE if variant == "base" else "",
    )
    pretrained = f"./weights/{name}" if ssld else PRETRAINED.format(variant=variant)
    text = classification.recipe(
        header,
        arch,
        size,
        resize,
        epochs,
        batch_size=256 if scratch else 128,
        optimizer=SCRATCH_OPTIMIZER if scratch else FINETUNE_OPTIMIZER,
        pretrained_model="null" if scratch else pretrained,
    )
    return f"{name}.yaml", text


# Detection.

# schedule -> variant -> figures of the official training log, its last evaluation
DETECTION = {
    "1x": {
        "small": Detection("45.9", "68.3", "41.8", "65.1", "7231", "7.1"),
        "base": Detection("47.2", "69.6", "42.8", "66.5", "9720", "8.4"),
        "large": Detection("48.0", "69.8", "43.2", "67.0", "12213", "9.6"),
    },
    "3x": {
        "small": Detection("48.0", "69.7", "43.2", "66.8", "13208", "17.5"),
        "base": Detection("49.5", "71.1", "44.4", "68.3", "17580", "21.3"),
        "large": Detection("50.2", "71.6", "44.8", "68.7", "22487", "24.8"),
    },
}
# of the names of parameters that do not decay
SPARED = {"1x": "bn norm", "3x": "norm"}
DETECTION_HEADER = """\
# Mask R-CNN on Next-ViT-{letter}, COCO 2017, {schedule} ({epochs} epochs): the official recipe.
# Source: bytedance/Next-ViT, detection (configs, training logs; mmdetection 2.23).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/detection/{name}.yaml
# Arch.pretrained: the ImageNet-1K weights at 224, which fill the backbone. Data: COCO 2017 as its archives unpack.
# Hardware and time there: 8 GPUs (model not named in the log), {memory} MB each, {hours} h with its evaluations.
# Expected: box AP {box} (AP50 {box50}), mask AP {mask} (AP50 {mask50}), its log's last epoch. Not yet reproduced here.
# Learning rate: for 8 processes of 2 images. Nothing scales it for you.
# Weight decay spares every parameter whose name contains {spared_words}; biases of other layers decay, as there.
# Not from here but the heads' own: IoU 0.7 / 0.3 for anchors, 0.5 for proposals (low-quality matches in both), a half and a quarter of
#   the samples positive, L1 losses, RoIAlign on 7 x 7 and 14 x 14 cells (ppcls_nextvit/models/detectors).
"""
DETECTION_BACKBONE = """\
name: NextViT_{variant}
drop_path_rate: {drop_path}
frozen_stages: 1
norm_eval: True
"""


def detection_recipe(variant: str, schedule: str) -> tuple[str, str]:
    """(file name, its text)."""
    name = f"mask_rcnn_nextvit_{variant}_{schedule}_coco"
    header = DETECTION_HEADER.format(
        **DETECTION[schedule][variant]._asdict(),
        name=name,
        schedule=schedule,
        epochs=mask_rcnn.SCHEDULES[schedule]["epochs"],
        letter=variant[0].upper(),
        spared_words=" or ".join(f"'{word}'" for word in SPARED[schedule].split()),
    )
    text = mask_rcnn.recipe(
        header,
        name,
        schedule,
        backbone=DETECTION_BACKBONE.format(variant=variant, drop_path=DROP_PATH[variant]),
        pretrained=PRETRAINED.format(variant=variant),
        spared=SPARED[schedule],
    )
    return f"detection/{name}.yaml", text


# Segmentation.

# recipe -> variant -> figures of the official training log, its last line, and of the README
SEGMENTATION = {
    "semfpn_80k": {
        "small": Segmentation("46.53", None, "48.82", None, "2.6", "68371"),
        "base": Segmentation("48.61", None, "50.20", None, "3.3", "68629"),
        "large": Segmentation("49.11", None, "50.50", None, "3.7", "68888"),
    },
    "upernet_160k": {
        "small": Segmentation("48.08", "49.0", "49.77", "50.8", "9.8", "40336"),
        "base": Segmentation("50.38", "51.1", "51.83", "52.8", "20.2", "20600"),
        "large": Segmentation("50.14", "50.8", "51.45", "52.0", "23.1", "20857"),
    },
}
SEGMENTORS: dict[str, dict[str, Any]] = {
    "semfpn_80k": {
        "title": "Semantic FPN",
        "arch": "SemanticFPN",
        "batch_size": 4,
        "iterations": 4000,
        "auxiliary": "",
        "note": """\
# '80k' are 40,000 iterations of 8 x 4 images here, as many images as 80,000 iterations of 16: the official configuration halves them.
# Weight decay is on every parameter, norms and biases too, as there.
""",
        "optimizer": """\
  weight_decay: 1e-4
  lr:
    name: MMCVPoly
    learning_rate: 1e-4
    power: 0.9
    min_lr: 1e-6
""",
    },
    "upernet_160k": {
        "title": "UPerNet",
        "arch": "UPerNet",
        "batch_size": 2,
        "iterations": 16000,
        "auxiliary": ", auxiliary_weight: 0.4",
        "note": """\
# Weight decay spares every parameter whose name contains 'bn' or 'norm'; biases of other layers decay, as there.
""",
        "optimizer": """\
  weight_decay: 0.01
  no_weight_decay_name: bn norm
  lr:
    name: MMCVPoly
    learning_rate: 6e-5
    power: 1.0
    min_lr: 0.0
    warmup_iters: 1500
    warmup_ratio: 1e-6
""",
    },
}

SEGMENTATION_HEADER = """\
# {title} on Next-ViT-{letter}, ADE20K, {total:,} iterations, 512 x 512: the official recipe.
# Source: bytedance/Next-ViT, segmentation (configs, training logs; mmsegmentation 0.23).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/segmentation/{name}.yaml
# Arch.pretrained: the ImageNet-1K weights at 224, which fill the backbone. Data: ADE20K as its archive unpacks.
# Hardware and time there: 8 GPUs (model not named in the log), {memory} MB each, {hours} h.
# Expected mIoU: {single} single scale (the log's last line){multi}; with the SSLD-6M backbone {ssld}.
# Not yet reproduced here.
# Multi-scale and flip: tools/eval.py ... -o Arch.inference.ratios=[0.5,0.75,1.0,1.25,1.5,1.75] -o Arch.inference.flip=True
# Learning rate: for 8 processes of {batch_size} images. Nothing scales it for you.
{note}\
"""
SEGMENTATION_BACKBONE = """\
name: NextViT_{variant}
extra_norms: True
drop_path_rate: 0.2
"""


def segmentation_recipe(variant: str, recipe: str) -> tuple[str, str]:
    """(file name, its text)."""
    log = SEGMENTATION[recipe][variant]
    keys = dict(SEGMENTORS[recipe])
    name = f"{recipe}_nextvit_{variant}_ade20k"
    header = SEGMENTATION_HEADER.format(
        title=keys.pop("title"),
        note=keys.pop("note"),
        letter=variant[0].upper(),
        total=10 * keys["iterations"],
        iterations=keys["iterations"],
        batch_size=keys["batch_size"],
        name=name,
        memory=log.memory,
        hours=log.hours,
        single=log.single,
        multi=f", {log.multi} multi-scale and flip (README)" if log.multi else "",
        ssld=f"{log.ssld} and {log.ssld_multi}" if log.ssld_multi else log.ssld,
    )
    text = segmentation.recipe(
        header,
        name,
        backbone=SEGMENTATION_BACKBONE.format(variant=variant),
        pretrained=PRETRAINED.format(variant=variant),
        **keys,
    )
    return f"segmentation/{name}.yaml", text


def recipes() -> dict[str, str]:
    """{path below configs/: text} of the twelve, six and six files."""
    made = [
        classification_recipe(variant, size, ssld)
        for variant in VARIANTS
        for size in (224, 384)
        for ssld in (False, True)
    ]
    made += [detection_recipe(variant, schedule) for schedule in DETECTION for variant in VARIANTS]
    made += [segmentation_recipe(variant, recipe) for recipe in SEGMENTORS for variant in VARIANTS]
    return dict(made)
