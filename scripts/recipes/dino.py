"""DINO's recipes on COCO: TransNeXt's published ones, and the same on Next-ViT-S.

Each file is complete, because users copy one; the table keeps them in step.
"""

from templates import dino

# (levels, variant) -> published box AP in %, drop path
TRANSNEXT = {
    (4, "tiny"): ("55.1", 0.3),
    (5, "tiny"): ("55.7", 0.3),
    (5, "small"): ("56.6", 0.5),
    (5, "base"): ("57.1", 0.6),
}
PRETRAINED = "./output/{variant}_224/best_model"

HEADER = """\
# DINO ({levels} levels) on TransNeXt-{title}, COCO 2017, 12 epochs: the official recipe.
# Source: DaiShiResearch/TransNeXt, detection/dino (configs; mmdetection 3.0).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/detection/{name}.yaml
# Arch.pretrained: the ImageNet-1K weights at 224, which fill the backbone. Data: COCO 2017 as its archives unpack.
# Hardware and time there: 8 GPUs; neither model nor time is stated.
# Expected: box AP {box} (README). Not yet reproduced here.
# Learning rate: for 16 images a step, 8 processes of 1 image, twice (update_freq). Nothing scales it for you. No warm-up, as there.
# A tenth of it for the backbone, but for its last norm and patch embedding, which the reference's own loop leaves out.
# Weight decay spares what the model itself spares (query_embedding, relative_pos_bias_local, cpb, temperature) and parameters of one
#   axis; learnable_tokens, learnable_bias and the heads' embeddings decay, as there.
# Position bias: computed for 800 x 800 and interpolated from there to each image's size, in training and evaluation.
# Single precision, as there: its fp16 is a key that mmdetection 3 does not read.
"""
BACKBONE = """\
name: TransNeXt_{variant}
drop_path_rate: {drop_path}
pretrain_size: 224
position_bias: interpolation
table_size: 800
"""
SLOWED = r"^backbone\.(?!norm4\.|patch_embed4\.)"

NEXTVIT_HEADER = """\
# DINO (4 levels) on Next-ViT-S, COCO 2017, 12 epochs: TransNeXt's DINO recipe on another backbone.
# Source: DaiShiResearch/TransNeXt, detection/dino (configs; mmdetection 3.0). Next-ViT was not published with DINO: no figure belongs
#   to this recipe, nor hardware or time.
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/detection/{name}.yaml
# Arch.pretrained: the ImageNet-1K weights at 224, which fill the backbone. Data: COCO 2017 as its archives unpack.
# Learning rate: for 16 images a step, 8 processes of 1 image, twice (update_freq). Nothing scales it for you. No warm-up; a tenth of it
#   for the backbone, whose BatchNorm statistics stay: a batch is one image.
# Weight decay spares parameters of one axis.
"""
NEXTVIT_BACKBONE = """\
name: NextViT_small
drop_path_rate: 0.1
norm_eval: True
"""


def transnext_recipe(levels: int, variant: str) -> tuple[str, str]:
    """(file name, its text)."""
    box, drop_path = TRANSNEXT[levels, variant]
    name = f"dino_{levels}scale_transnext_{variant}_12e_coco"
    header = HEADER.format(levels=levels, title=variant.capitalize(), name=name, box=box)
    text = dino.recipe(
        header,
        name,
        levels,
        backbone=BACKBONE.format(variant=variant, drop_path=drop_path),
        pretrained=PRETRAINED.format(variant=f"TransNeXt_{variant}"),
        slowed=SLOWED,
    )
    return f"detection/{name}.yaml", text


def nextvit_recipe() -> tuple[str, str]:
    """(file name, its text)."""
    name = "dino_4scale_nextvit_small_12e_coco"
    text = dino.recipe(
        NEXTVIT_HEADER.format(name=name),
        name,
        4,
        backbone=NEXTVIT_BACKBONE,
        pretrained=PRETRAINED.format(variant="NextViT_small"),
        slowed=r"^backbone\.",
    )
    return f"detection/{name}.yaml", text


def recipes() -> dict[str, str]:
    """{path below configs/: text} of the five files."""
    made = [transnext_recipe(levels, variant) for levels, variant in TRANSNEXT]
    return dict([*made, nextvit_recipe()])
