"""TransNeXt's published recipes of Mask2Former on ADE20K; its others are in transnext.py."""

from templates import mask2former

from .transnext import BACKBONE, PRETRAINED

# variant -> published mIoU in %, drop path
MASK2FORMER = {"tiny": ("53.4", 0.3), "small": ("54.1", 0.5), "base": ("54.7", 0.6)}
HEADER = """\
# Mask2Former on TransNeXt-{title}, ADE20K, 160,000 iterations, 512 x 512: the official recipe.
# Source: DaiShiResearch/TransNeXt, segmentation/mask2former (configs; mmsegmentation 1.0).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/segmentation/{name}.yaml
# Arch.pretrained: the ImageNet-1K weights at 224, which fill the backbone. Data: ADE20K as its archive unpacks.
# Hardware and time there: 8 GPUs; neither model nor time is stated.
# Expected mIoU (README): {miou}, one scale, whole images. Not yet reproduced here.
# Learning rate: for 8 processes of 2 images. Nothing scales it for you.
# Position bias: computed for 512 x 512 and interpolated from there to each image's size, in training and evaluation.
# The backbone learns at a tenth of the rate, but for norm4 and patch_embed4, which the official file's loop leaves out.
# Weight decay spares what the model itself spares, parameters of one axis (norms, biases), and the queries' and levels' embeddings;
#   pixel_decoder.level_encoding decays, as there.
"""
OPTIMIZER = r"""  weight_decay: 0.05
  no_weight_decay_name: decode_head.query_embed decode_head.query_feat decode_head.level_embed
  one_dim_param_no_weight_decay: True
  clip_global_norm: 0.01
  groups:
    - {match: '^backbone\.(?!norm4\.|patch_embed4\.)', lr_multiplier: 0.1}
  lr:
    name: MMCVPoly
    learning_rate: 1e-4
    power: 0.9
    min_lr: 0.0
"""


def recipe(variant: str) -> tuple[str, str]:
    """(file name, its text)."""
    miou, drop_path = MASK2FORMER[variant]
    name = f"mask2former_160k_transnext_{variant}_ade20k"
    text = mask2former.recipe(
        HEADER.format(title=variant.capitalize(), name=name, miou=miou),
        name,
        backbone=BACKBONE.format(variant=variant, drop_path=drop_path, table_size=512),
        pretrained=PRETRAINED.format(variant=variant),
        optimizer=OPTIMIZER,
    )
    return f"segmentation/{name}.yaml", text


def recipes() -> dict[str, str]:
    """{path below configs/: text} of the three files."""
    return dict(recipe(variant) for variant in MASK2FORMER)
