"""A classifier on ImageNet-1K: the published augmentation, mixing and evaluation of the DeiT line
of recipes.
"""

from collections.abc import Sequence
from typing import Optional

NORMALIZE = """\
NormalizeImage:
    scale: 1.0/255.0
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
    order: ''
"""
DECODE = """\
DecodeImage:
    to_rgb: True
    channel_first: False
"""
TRAIN_TRANSFORMS = (
    DECODE,
    """\
RandomResizedCrop:
    size: {size}
    interpolation: bicubic
    backend: pil
""",
    """\
RandFlipImage:
    flip_code: 1
""",
    """\
TimmAutoAugment:
    config_str: rand-m9-mstd0.5-inc1
    interpolation: bicubic
    img_size: {size}
""",
    NORMALIZE,
    """\
RandomErasing:
    EPSILON: 0.25
    sl: 0.02
    sh: 1.0/3.0
    r1: 0.3
    attempt: 10
    use_log_aspect: True
    mode: pixel
""",
)
EVAL_TRANSFORMS = (
    DECODE,
    """\
ResizeImage:
    resize_short: {resize}
    interpolation: bicubic
    backend: pil
""",
    """\
CropImage:
    size: {size}
""",
    NORMALIZE,
)
# instead of the crop: the whole image to the square
WARPED_EVAL_TRANSFORMS = (
    DECODE,
    """\
ResizeImage:
    size: {size}
    interpolation: bicubic
    backend: pil
""",
    NORMALIZE,
)

BODY = """\
Global:
  checkpoints: null
  pretrained_model: {pretrained_model}
  output_dir: ./output/
  device: gpu
  seed: 0
  save_interval: 10
  eval_during_train: True
  eval_interval: 1
  epochs: {epochs}
  print_batch_step: 10
  use_visualdl: False
  image_shape: [3, {size}, {size}]
  save_inference_dir: ./inference
  to_static: False

AMP:
  use_amp: True
  use_fp16_test: False
  scale_loss: 128.0
  use_dynamic_loss_scaling: True
  use_promote: False
  level: O1

Arch:
  name: {arch}
  class_num: 1000
{arguments}
Loss:
  Train:
    - CELoss:
        weight: 1.0
        epsilon: 0.1
  Eval:
    - CELoss:
        weight: 1.0

Optimizer:
  name: AdamW
  beta1: 0.9
  beta2: 0.999
  epsilon: 1e-8
{optimizer}
DataLoader:
  Train:
    dataset:
      name: ImageNetDataset
      image_root: ./dataset/ILSVRC2012/
      cls_label_path: ./dataset/ILSVRC2012/train_list.txt
      transform_ops:
{train_transforms}
      batch_transform_ops:
        - TimmMixup:
            mixup_alpha: 0.8
            cutmix_alpha: {cutmix}
            prob: 1.0
            switch_prob: 0.5
    sampler:
      name: {sampler}
      batch_size: {batch_size}
      drop_last: True
      shuffle: True
    loader:
      num_workers: 8
      use_shared_memory: True
  Eval:
    dataset:
      name: ImageNetDataset
      image_root: ./dataset/ILSVRC2012/
      cls_label_path: ./dataset/ILSVRC2012/val_list.txt
      transform_ops:
{eval_transforms}
    sampler:
      name: DistributedBatchSampler
      batch_size: 128
      drop_last: False
      shuffle: False
    loader:
      num_workers: 4
      use_shared_memory: True

Infer:
  infer_imgs: ./dataset/ILSVRC2012/val
  batch_size: 10
  transforms:
{infer_transforms}
  PostProcess:
    name: Topk
    topk: 5
    class_id_map_file: null

Metric:
  Eval:
    - TopkAcc:
        topk: [1, 5]
"""


def transforms(blocks: Sequence[str], indent: int, **values: int) -> str:
    """YAML list items, each block's lines indented by `indent` spaces."""
    lines = []
    for block in blocks:
        first, *rest = block.format(**values).splitlines()
        lines += [" " * indent + "- " + first] + [" " * indent + line for line in rest]
    return "\n".join(lines)


def recipe(
    header: str,
    arch: str,
    size: int,
    resize: Optional[int],
    epochs: int,
    batch_size: int,
    optimizer: str,
    pretrained_model: str = "null",
    arguments: str = "",
    sampler: str = "DistributedBatchSampler",
    cutmix: float = 1.0,
) -> str:
    """The text of a YAML file.

    header: comment lines. size, resize: pixels of the crop, and of the shorter side before
    evaluation's crop; without `resize` evaluation warps the whole image to `size`. batch_size:
    images of one process. optimizer: the lines of Optimizer after AdamW's own, its `lr` included.
    arguments: further lines of Arch. sampler: of training. cutmix: alpha; 0 leaves CutMix out.
    """
    sizes = {"size": size} if resize is None else {"size": size, "resize": resize}
    evaluation = WARPED_EVAL_TRANSFORMS if resize is None else EVAL_TRANSFORMS
    body = BODY.format(
        arch=arch,
        size=size,
        epochs=epochs,
        pretrained_model=pretrained_model,
        batch_size=batch_size,
        optimizer=optimizer,
        train_transforms=transforms(TRAIN_TRANSFORMS, 8, size=size),
        eval_transforms=transforms(evaluation, 8, **sizes),
        infer_transforms=transforms((*evaluation, "ToCHWImage:\n"), 4, **sizes),
        arguments=arguments,
        sampler=sampler,
        cutmix=cutmix,
    )
    return header + body
