"""TransNeXt's published recipes: ImageNet-1K from scratch at 224 (AAAA: 256), fine-tuned at 384.

Each file is complete, because users copy one; the tables keep them in step.
"""

from templates import classification

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


def recipe(variant: str, size: int) -> tuple[str, str]:
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


def recipes() -> dict[str, str]:
    """{path below configs/: text} of the seven files."""
    finetuned = [(variant, 384) for variant in FINETUNED]
    return dict(recipe(variant, size) for variant, size in [*SCRATCH, *finetuned])
