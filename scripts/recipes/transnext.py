"""TransNeXt's published recipes: ImageNet-1K from scratch at 224 (AAAA: 256), fine-tuned at 384;
COCO; ADE20K.

Each file is complete, because users copy one; the tables keep them in step.
"""

from templates import classification, mask_rcnn, segmentation

# Classification.

# published top-1 in %, drop path
SCRATCH = {
    ("micro", 224): ("82.5", 0.15),
    ("tiny", 224): ("84.0", 0.25),
    ("small", 224): ("84.7", 0.45),
    ("base", 224): ("84.8", 0.6),
    ("micro_AAAA", 256): ("82.6", 0.15),
}
FINETUNED = {"small": ("86.0", 0.7), "base": ("86.2", 0.8)}
PRETRAINED = "./output/TransNeXt_{variant}_224/best_model"

SCRATCH_HEADER = """\
# {title}, ImageNet-1K, {size} x {size}, 300 epochs from scratch: the official recipe.
# Source: DaiShiResearch/TransNeXt, classification (configs, defaults of main.py).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/{name}.yaml
# Hardware and time there: 8 GPUs; neither model nor time is stated.
# Expected top-1: {top1} (README; resize {resize}, centre crop {size}: crop ratio .875). Not yet reproduced here.
# Learning rate: 1e-3 for a global batch of 1024, 8 processes of 128. Nothing scales it for you.
# Repeated augmentation: an image is taken three times, augmented anew each time; an epoch is as many images as the dataset has, and so
#   sees a third of it.
# Weight decay spares what the model itself spares (query_embedding, relative_pos_bias_local, cpb, temperature), biases, and parameters
#   of one axis; learnable_tokens and learnable_bias decay, as there.
# The size of pretraining, the unit of the position bias, is {size}: weights from here keep it at any other size.
# PaddleClas has no TransNeXt.
"""
FINETUNE_HEADER = """\
# {title}, ImageNet-1K, {size} x {size}: the official 5-epoch fine-tune of the 224 weights.
# Source: DaiShiResearch/TransNeXt, classification (configs/finetune, defaults of main.py).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/{name}.yaml
# Global.pretrained_model: the best 224 weights of configs/TransNeXt_{variant}_224.yaml, or any converted 224 checkpoint.
# Hardware and time there: 8 GPUs; neither model nor time is stated.
# Expected top-1: {top1} (README; the whole image warped to {size} x {size}, no crop). Not yet reproduced here.
# Learning rate: constant, 1e-5 for a global batch of 1024, 8 processes of 128. Nothing scales it for you.
# MixUp stays, CutMix is off; images repeat as in the 224 recipe. pretrain_size stays 224: the position bias was learnt in this unit.
# Weight decay spares what the model itself spares (query_embedding, relative_pos_bias_local, cpb, temperature), biases, and parameters
#   of one axis; learnable_tokens and learnable_bias decay, as there.
# PaddleClas has no TransNeXt.
"""
OPTIMIZER = """\
  weight_decay: 0.05
  no_weight_decay_name: .bias
  one_dim_param_no_weight_decay: True
  clip_global_norm: 1.0
  lr:
"""
SCRATCH_OPTIMIZER = f"""\
{OPTIMIZER}\
    name: TimmCosine
    learning_rate: 1e-3
    eta_min: 1e-5
    warmup_epoch: 5
    warmup_start_lr: 1e-6
    late_start: True      # epochs 0 and 1 at warmup_start_lr, as the reference runs
"""
FINETUNE_OPTIMIZER = f"""\
{OPTIMIZER}\
    name: ConstLR
    learning_rate: 1e-5
"""


def classification_recipe(variant: str, size: int) -> tuple[str, str]:
    """(file name, its text)."""
    scratch = (variant, size) in SCRATCH
    top1, drop_path = SCRATCH[variant, size] if scratch else FINETUNED[variant]
    name = f"TransNeXt_{variant}_{size}"
    resize = int(size / 0.875) if scratch else None
    header = (SCRATCH_HEADER if scratch else FINETUNE_HEADER).format(
        title=f"TransNeXt-{variant.replace('_', '-').capitalize().replace('aaaa', 'AAAA')}",
        name=name,
        variant=variant,
        size=size,
        resize=resize,
        top1=top1,
    )
    pretrain_size = 256 if variant == "micro_AAAA" else 224
    text = classification.recipe(
        header,
        name,
        size,
        resize,
        epochs=300 if scratch else 5,
        batch_size=128,
        optimizer=SCRATCH_OPTIMIZER if scratch else FINETUNE_OPTIMIZER,
        pretrained_model="null" if scratch else PRETRAINED.format(variant=variant),
        arguments=f"  drop_path_rate: {drop_path}\n  pretrain_size: {pretrain_size}\n",
        sampler="RASampler",
        cutmix=1.0 if scratch else 0.0,
    )
    return f"{name}.yaml", text


# Detection and segmentation.

# variant -> drop path, of both
DENSE_DROP_PATH = {"tiny": 0.4, "small": 0.6, "base": 0.7}
# of the names of parameters that do not decay; the heads' norms are called bn, and do
SPARED = "query_embedding relative_pos_bias_local cpb temperature norm"
# variant -> published box AP, mask AP in %
MASK_RCNN = {"tiny": ("49.9", "44.6"), "small": ("51.1", "45.5"), "base": ("51.7", "45.9")}
# variant -> published mIoU in %: one scale; six and flip, the position bias interpolated; the same,
# extrapolated
UPERNET = {
    "tiny": ("51.1", "51.5", "51.7"),
    "small": ("52.2", "52.5", "52.8"),
    "base": ("53.0", "53.5", "53.7"),
}
BACKBONE = """\
name: TransNeXt_{variant}
drop_path_rate: {drop_path}
pretrain_size: 224
position_bias: interpolation
table_size: {table_size}
"""
DETECTION_HEADER = """\
# Mask R-CNN on TransNeXt-{title}, COCO 2017, 1x (12 epochs): the official recipe.
# Source: DaiShiResearch/TransNeXt, detection/maskrcnn (configs; mmdetection 2.28).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/detection/{name}.yaml
# Arch.pretrained: the ImageNet-1K weights at 224, which fill the backbone. Data: COCO 2017 as its archives unpack.
# Hardware and time there: 8 GPUs; neither model nor time is stated.
# Expected: box AP {box}, mask AP {mask} (README). Not yet reproduced here.
# Learning rate: for 8 processes of 2 images. Nothing scales it for you.
# Position bias: computed for 800 x 800 and interpolated from there to each image's size, in training and evaluation.
# Weight decay spares the parameters whose names have one of the words of no_weight_decay_name; biases of other layers decay, as there.
# {precision}
# Not from here but the heads' own: IoU 0.7 / 0.3 for anchors, 0.5 for proposals (low-quality matches in both), a half and a quarter of
#   the samples positive, L1 losses, RoIAlign on 7 x 7 and 14 x 14 cells (ppcls_nextvit/models/detectors).
"""
SINGLE_PRECISION = "Single precision, as there (the base model's recipe alone is mixed)."
MIXED_PRECISION = "Mixed precision as there, of this model's recipe alone."
SEGMENTATION_HEADER = """\
# UPerNet on TransNeXt-{title}, ADE20K, 160,000 iterations, 512 x 512: the official recipe.
# Source: DaiShiResearch/TransNeXt, segmentation/upernet (configs; mmsegmentation 0.30).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/segmentation/{name}.yaml
# Arch.pretrained: the ImageNet-1K weights at 224, which fill the backbone. Data: ADE20K as its archive unpacks.
# Hardware and time there: 8 GPUs; neither model nor time is stated.
# Expected mIoU (README), of one and the same weights; not yet reproduced here:
#   {single} one scale: windows of 512 x 512, 341 apart, as this file says;
#   {interpolated} six scales and flip, the position bias interpolated from 800 x 800: -o Arch.backbone.table_size=800
#   {extrapolated} the same, the position bias extrapolated to each size: -o Arch.backbone.position_bias=extrapolation
# Multi-scale and flip: tools/eval.py ... -o Arch.inference.mode=whole -o Arch.inference.ratios=[0.5,0.75,1.0,1.25,1.5,1.75] -o Arch.inference.flip=True
# Learning rate: for 8 processes of 2 images. Nothing scales it for you.
# Weight decay spares the parameters whose names have one of the words of no_weight_decay_name; the heads' norms (bn) and biases decay,
#   as there.
"""
SLIDE = """\
mode: slide
crop_size: [512, 512]
stride: [341, 341]
"""
UPERNET_OPTIMIZER = f"""\
  weight_decay: 0.05
  no_weight_decay_name: {SPARED}
  lr:
    name: MMCVPoly
    learning_rate: 6e-5
    power: 1.0
    min_lr: 0.0
    warmup_iters: 1500
    warmup_ratio: 1e-6
"""


def dense_backbone(variant: str, table_size: int) -> str:
    """The lines of Arch.backbone. table_size: pixels."""
    return BACKBONE.format(
        variant=variant, drop_path=DENSE_DROP_PATH[variant], table_size=table_size
    )


def detection_recipe(variant: str) -> tuple[str, str]:
    """(file name, its text)."""
    name = f"mask_rcnn_transnext_{variant}_1x_coco"
    mixed = variant == "base"
    box, mask = MASK_RCNN[variant]
    header = DETECTION_HEADER.format(
        title=variant.capitalize(),
        name=name,
        box=box,
        mask=mask,
        precision=MIXED_PRECISION if mixed else SINGLE_PRECISION,
    )
    text = mask_rcnn.recipe(
        header,
        name,
        "1x",
        backbone=dense_backbone(variant, 800),
        pretrained=PRETRAINED.format(variant=variant),
        spared=SPARED,
        mixed_precision=mixed,
        warmup_ratio="1e-3",
    )
    return f"detection/{name}.yaml", text


def segmentation_recipe(variant: str) -> tuple[str, str]:
    """(file name, its text)."""
    name = f"upernet_160k_transnext_{variant}_ade20k"
    single, interpolated, extrapolated = UPERNET[variant]
    header = SEGMENTATION_HEADER.format(
        title=variant.capitalize(),
        name=name,
        single=single,
        interpolated=interpolated,
        extrapolated=extrapolated,
    )
    text = segmentation.recipe(
        header,
        name,
        "UPerNet",
        backbone=dense_backbone(variant, 512),
        pretrained=PRETRAINED.format(variant=variant),
        optimizer=UPERNET_OPTIMIZER,
        batch_size=2,
        iterations=16000,
        auxiliary=", auxiliary_weight: 0.4",
        inference=SLIDE,
    )
    return f"segmentation/{name}.yaml", text


def recipes() -> dict[str, str]:
    """{path below configs/: text} of the seven, three and three files."""
    finetuned = [(variant, 384) for variant in FINETUNED]
    made = [classification_recipe(variant, size) for variant, size in [*SCRATCH, *finetuned]]
    made += [detection_recipe(variant) for variant in MASK_RCNN]
    made += [segmentation_recipe(variant) for variant in UPERNET]
    return dict(made)
