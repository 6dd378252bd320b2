"""Semantic FPN and UPerNet on ADE20K at 512 x 512, as mmsegmentation trains and evaluates them."""

import textwrap

BODY = """\
Global:
  checkpoints: null
  pretrained_model: null
  output_dir: ./output/{name}
  device: gpu
  seed: 0
  epochs: 10                # of {iterations} iterations
  save_interval: 1
  eval_during_train: True
  eval_interval: 1
  print_batch_step: 50
  image_shape: [3, 512, 512]
  save_inference_dir: ./inference/{name}

Arch:
  name: {arch}
  class_num: 150
  pretrained: {pretrained}
  use_sync_bn: True
  backbone:
{backbone}
  inference:
{inference}

Loss:
  Train:
    - CrossEntropyLoss: {{weight: 1.0{auxiliary}}}

Optimizer:
  name: AdamW
  beta1: 0.9
  beta2: 0.999
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
            scale: [2048, 512]
            ratio_range: [0.5, 2.0]
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
      batch_size: {batch_size}
      iterations: {iterations}
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
  PostProcess:
    class_id_map_file: ./configs/segmentation/ade20k_labels.txt

Metric:
  Train:
    - PixelAccuracy:
  Eval:
    - MeanIoU:
"""
NORMALIZE = """\
        - Normalize:
            mean: [123.675, 116.28, 103.53]
            std: [58.395, 57.12, 57.375]"""


def recipe(
    header: str,
    name: str,
    arch: str,
    backbone: str,
    pretrained: str,
    optimizer: str,
    batch_size: int,
    iterations: int,
    auxiliary: str = "",
    inference: str = "mode: whole\n",
) -> str:
    """The text of a YAML file.

    header: comment lines. name: of the run's folders. arch: the segmentor. backbone: the lines of
    Arch.backbone. pretrained: its weights. optimizer: the lines of Optimizer after AdamW's own, its
    `lr` included. batch_size: images of one process. iterations: of one of the 10 epochs.
    auxiliary: more keys of the loss, after a comma. inference: the lines of Arch.inference.
    """
    return header + BODY.format(
        name=name,
        arch=arch,
        backbone=textwrap.indent(backbone, "    ").rstrip(),
        pretrained=pretrained,
        optimizer=optimizer,
        batch_size=batch_size,
        iterations=iterations,
        auxiliary=auxiliary,
        inference=textwrap.indent(inference, "    ").rstrip(),
        normalize=NORMALIZE,
        infer_normalize=NORMALIZE.replace("\n    ", "\n").removeprefix("    "),
    )
