"""Mask R-CNN on COCO 2017 by mmdetection's two schedules: 1x at one size, 3x at many sizes with
crops.
"""

import textwrap

from .crops import multi_scale_crops

SCHEDULES = {
    "1x": {
        "epochs": 12,
        "milestones": [8, 11],
        "augment": """\
        - Resize:
            scale: [1333, 800]
        - RandomFlip:
            prob: 0.5
""",
    },
    "3x": {
        "epochs": 36,
        "milestones": [27, 33],
        "augment": multi_scale_crops(1333),
    },
}
MIXED_PRECISION = """\
AMP:
  use_amp: True
  level: O1
  dtype: float16
  scale_loss: 512.0
  use_dynamic_loss_scaling: False

"""
BODY = """\
Global:
  checkpoints: null
  pretrained_model: null
  output_dir: ./output/{name}
  device: gpu
  seed: 0
  epochs: {epochs}
  save_interval: 1
  eval_during_train: True
  eval_interval: 1
  print_batch_step: 50
  image_shape: [3, 800, 1333]
  save_inference_dir: ./inference/{name}

{precision}\
Arch:
  name: MaskRCNN
  class_num: 80
  pretrained: {pretrained}
  backbone:
{backbone}
  fpn_channels: 256
  fc_channels: 1024
  mask_convs: 4
  anchor_scales: [8.0]
  anchor_ratios: [0.5, 1.0, 2.0]
  train_proposals: [2000, 1000]     # per level before the suppression, per image after it
  test_proposals: [1000, 1000]
  rpn_nms_threshold: 0.7
  rpn_samples: 256
  roi_samples: 512
  score_threshold: 0.05
  nms_threshold: 0.5
  max_detections: 100

Optimizer:
  name: AdamW
  beta1: 0.9
  beta2: 0.999
  weight_decay: 0.05
  no_weight_decay_name: {spared}
  lr:
    name: MMCVStep
    learning_rate: 1e-4
    milestones: {milestones}
    gamma: 0.1
    warmup_iters: 500
    warmup_ratio: {warmup_ratio}

DataLoader:
  Train:
    dataset:
      name: COCODataset
      image_root: ./dataset/coco/train2017
      annotation_path: ./dataset/coco/annotations/instances_train2017.json
      mode: train
      transform_ops:
{augment}\
        - Normalize:
            mean: [123.675, 116.28, 103.53]
            std: [58.395, 57.12, 57.375]
        - Pad:
            size_divisor: 32
    sampler:
      name: AspectRatioSampler
      batch_size: 2
      shuffle: True
    loader:
      num_workers: 6
  Eval:
    dataset:
      name: COCODataset
      image_root: ./dataset/coco/val2017
      annotation_path: ./dataset/coco/annotations/instances_val2017.json
      mode: val
      transform_ops: &eval
        - Resize:
            scale: [1333, 800]
        - Normalize:
            mean: [123.675, 116.28, 103.53]
            std: [58.395, 57.12, 57.375]
        - Pad:
            size_divisor: 32
    sampler:
      name: DistributedBatchSampler
      batch_size: 1
      drop_last: False
      shuffle: False
    loader:
      num_workers: 4

Infer:
  infer_imgs: ./dataset/coco/val2017
  transforms: *eval
  PostProcess:
    score_threshold: 0.3
    class_id_map_file: ./configs/detection/coco_labels.txt
"""


def recipe(
    header: str,
    name: str,
    schedule: str,
    backbone: str,
    pretrained: str,
    spared: str,
    mixed_precision: bool = True,
    warmup_ratio: str = "1e-6",
) -> str:
    """The text of a YAML file.

    header: comment lines. name: of the run's folders. schedule: a key of SCHEDULES. backbone: the
    lines of Arch.backbone. pretrained: its weights. spared: words of the names of parameters that
    do not decay. warmup_ratio: of the rate at the first step, as YAML writes it.
    """
    return header + BODY.format(
        **SCHEDULES[schedule],
        name=name,
        backbone=textwrap.indent(backbone, "    ").rstrip(),
        pretrained=pretrained,
        spared=spared,
        precision=MIXED_PRECISION if mixed_precision else "",
        warmup_ratio=warmup_ratio,
    )
