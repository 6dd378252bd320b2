"""Mask2Former on ADE20K at 512 x 512, as mmsegmentation trains and evaluates it."""

import textwrap

from .segmentation import NORMALIZE

# shorter sides in pixels, one of which is drawn; the longer one is at most 2048
SIDES = [int(512 * tenth * 0.1) for tenth in range(5, 21)]
BODY = """\
Global:
  checkpoints: null
  pretrained_model: null
  output_dir: ./output/{name}
  device: gpu
  seed: 0
  epochs: 32                # of 5000 iterations
  save_interval: 1
  eval_during_train: True
  eval_interval: 1
  print_batch_step: 50
  image_shape: [3, 512, 512]
  save_inference_dir: ./inference/{name}

Arch:
  name: Mask2Former
  class_num: 150
  pretrained: {pretrained}
  backbone:
{backbone}
  num_queries: 100
  encoder_layers: 6
  decoder_layers: 9
  num_points: 12544
  oversample_ratio: 3.0
  importance_ratio: 0.75
  inference:
    mode: whole

Optimizer:
  name: AdamW
  beta1: 0.9
  beta2: 0.999
  epsilon: 1e-8
{optimizer}
DataLoader:
  Train:
    dataset:
      name: ADE20KDataset
      dataset_root: ./dataset/ADEChallengeData2016
      mode: train
      reduce_zero_label: True
      transform_ops:
        - Resize:
            scale: {scales}
            multiscale_mode: value
        - RandomCrop:
            size: [512, 512]
            cat_max_ratio: 0.75
        - RandomFlip:
            prob: 0.5
        - PhotoMetricDistortion:
{normalize}
        - Pad:
            size: [512, 512]
    sampler:
      name: IterationSampler
      batch_size: 2
      iterations: 5000
    loader:
      num_workers: 4
  Eval:
    dataset:
      name: ADE20KDataset
      dataset_root: ./dataset/ADEChallengeData2016
      mode: val
      reduce_zero_label: True
      transform_ops:
        - Resize:
            scale: [2048, 512]
{normalize}
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
  infer_imgs: ./dataset/ADEChallengeData2016/images/validation
  transforms:
    - Resize:
        scale: [2048, 512]
{infer_normalize}
    - Pad:
        size_divisor: 32
  PostProcess:
    class_id_map_file: ./configs/segmentation/ade20k_labels.txt

Metric:
  Eval:
    - MeanIoU:
"""


def recipe(header: str, name: str, backbone: str, pretrained: str, optimizer: str) -> str:
    """The text of a YAML file.

    header: comment lines. name: of the run's folders. backbone: the lines of Arch.backbone.
    pretrained: its weights. optimizer: the lines of Optimizer after AdamW's own, its `lr` included.
    """
    return header + BODY.format(
        name=name,
        backbone=textwrap.indent(backbone, "    ").rstrip(),
        pretrained=pretrained,
        optimizer=optimizer,
        scales="[" + ", ".join(f"[2048, {side}]" for side in SIDES) + "]",
        normalize=NORMALIZE,
        infer_normalize=NORMALIZE.replace("\n    ", "\n").removeprefix("    "),
    )
