"""Writes configs/detection/mask_rcnn_nextvit_{small,base,large}_{1x,3x}_coco.yaml from this table;
`--check` only compares.
"""

from pathlib import Path

from ppcls_nextvit.cli.common import write_generated

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "detection"

# variant -> of the official training log's last evaluation: box AP, box AP50, mask AP, mask AP50;
# then MB of memory per GPU and hours from its first line to its last
OFFICIAL = {
    "1x": {
        "small": ("45.9", "68.3", "41.8", "65.1", "7231", "7.1"),
        "base": ("47.2", "69.6", "42.8", "66.5", "9720", "8.4"),
        "large": ("48.0", "69.8", "43.2", "67.0", "12213", "9.6"),
    },
    "3x": {
        "small": ("48.0", "69.7", "43.2", "66.8", "13208", "17.5"),
        "base": ("49.5", "71.1", "44.4", "68.3", "17580", "21.3"),
        "large": ("50.2", "71.6", "44.8", "68.7", "22487", "24.8"),
    },
}
DROP_PATH = {"small": 0.1, "base": 0.2, "large": 0.2}
SCALES = "[" + ", ".join(f"[1333, {side}]" for side in range(480, 801, 32)) + "]"
RECIPES = {
    "1x": {
        "epochs": 12,
        "milestones": [8, 11],
        "spared": "bn norm",
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
        "spared": "norm",
        "augment": f"""\
        - RandomFlip:
            prob: 0.5
        - AutoAugment:
            policies:
              - - Resize:
                    scale: &scales {SCALES}
                    multiscale_mode: value
              - - Resize:
                    scale: [[1333, 400], [1333, 500], [1333, 600]]
                    multiscale_mode: value
                - RandomCrop:
                    size: [384, 600]
                    crop_type: absolute_range
                - Resize:
                    scale: *scales
                    multiscale_mode: value
""",
    },
}
BODY = """\
# Mask R-CNN on Next-ViT-{letter}, COCO 2017, {schedule} ({epochs} epochs): the official recipe.
# Source: bytedance/Next-ViT, detection (configs, training logs; mmdetection 2.23).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/detection/{name}.yaml
# Arch.pretrained: the ImageNet-1K weights at 224, which fill the backbone. Data: COCO 2017 as its archives unpack.
# Hardware and time there: 8 GPUs (model not named in the log), {memory} MB each, {hours} h with its evaluations.
# Expected: box AP {box} (AP50 {box50}), mask AP {mask} (AP50 {mask50}), its log's last epoch. Not yet reproduced here.
# Learning rate: for 8 processes of 2 images. Nothing scales it for you.
# Weight decay spares every parameter whose name contains {spared_words}; biases of other layers decay, as there.
# Not from here but the heads' own: IoU 0.7 / 0.3 for anchors, 0.5 for proposals (low-quality matches in both), a half and a quarter of
#   the samples positive, L1 losses, RoIAlign on 7 x 7 and 14 x 14 cells (ppcls_nextvit/detection).
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

AMP:
  use_amp: True
  level: O1
  dtype: float16
  scale_loss: 512.0
  use_dynamic_loss_scaling: False

Arch:
  name: MaskRCNN
  class_num: 80
  pretrained: ./output/NextViT_{variant}_224/best_model
  backbone:
    name: NextViT_{variant}
    drop_path_rate: {drop_path}
    frozen_stages: 1
    norm_eval: True
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
    warmup_ratio: 1e-6

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


def config(schedule, variant):
    """(file name without suffix, its text)."""
    keys, name = RECIPES[schedule], f"mask_rcnn_nextvit_{variant}_{schedule}_coco"
    box, box50, mask, mask50, memory, hours = OFFICIAL[schedule][variant]
    spared_words = " or ".join(f"'{word}'" for word in keys["spared"].split())
    return name, BODY.format(
        **keys,
        name=name,
        schedule=schedule,
        variant=variant,
        letter=variant[0].upper(),
        box=box,
        box50=box50,
        mask=mask,
        mask50=mask50,
        memory=memory,
        hours=hours,
        drop_path=DROP_PATH[variant],
        spared_words=spared_words,
    )


def all_configs():
    """{path: text} of the six files."""
    made = [
        config(schedule, variant) for schedule, variants in OFFICIAL.items() for variant in variants
    ]
    return {CONFIGS / f"{name}.yaml": text for name, text in made}


def main(argv=None) -> int:
    return write_generated(
        "tools/make_detection_configs.py", __doc__.splitlines()[0], all_configs, argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
