"""DINO on COCO 2017 for 12 epochs: mmdetection's schedule and multi-scale crops."""

import textwrap

from .crops import multi_scale_crops

BODY = """\
Global:
  checkpoints: null
  pretrained_model: null
  output_dir: ./output/{name}
  device: gpu
  seed: 0
  epochs: 12
  update_freq: 2            # batches per step of the optimiser
  save_interval: 1
  eval_during_train: True
  eval_interval: 1
  print_batch_step: 50
  image_shape: [3, 800, 1333]
  save_inference_dir: ./inference/{name}

Arch:
  name: DINO
  class_num: 80
  pretrained: {pretrained}
  backbone:
{backbone}
  num_levels: {num_levels}
  num_queries: 900
  channels: 256
  heads: 8
  points: 4
  hidden: 2048
  encoder_layers: 6
  decoder_layers: 6
  dn_queries: 100
  label_noise: 0.5
  box_noise: 1.0
  max_detections: 300

Optimizer:
  name: AdamW
  beta1: 0.9
  beta2: 0.999
  weight_decay: 0.05
  one_dim_param_no_weight_decay: True
  clip_global_norm: 0.1
  groups:
    - {{match: '{slowed}', lr_multiplier: 0.1}}
  lr:
    name: MMCVStep
    learning_rate: 1e-4
    milestones: [11]
    gamma: 0.1

DataLoader:
  Train:
    dataset:
      name: COCODataset
      image_root: ./dataset/coco/train2017
      annotation_path: ./dataset/coco/annotations/instances_train2017.json
      mode: train
      filter_empty: False
      transform_ops:
{augment}\
        - Normalize:
            mean: [123.675, 116.28, 103.53]
            std: [58.395, 57.12, 57.375]
    sampler:
      name: DistributedBatchSampler
      batch_size: 1
      drop_last: False
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
    header: str, name: str, num_levels: int, backbone: str, pretrained: str, slowed: str
) -> str:
    """The text of a YAML file.

    header: comment lines. name: of the run's folders. backbone: the lines of Arch.backbone.
    pretrained: its weights. slowed: a regular expression of the parameters at a tenth of the rate.
    """
    return header + BODY.format(
        name=name,
        num_levels=num_levels,
        backbone=textwrap.indent(backbone, "    ").rstrip(),
        pretrained=pretrained,
        slowed=slowed,
        augment=multi_scale_crops(4200),
    )
