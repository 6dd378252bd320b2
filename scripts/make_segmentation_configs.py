"""Writes configs/segmentation/{semfpn_80k,upernet_160k}_nextvit_{small,base,large}_ade20k.yaml from
this table; `--check` only compares.
"""

from pathlib import Path

from ppcls_nextvit.cli.common import write_generated

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "segmentation"

# variant -> mIoU %: in the official training log's last line (single scale), in the README
# (multi-scale and flip; UPerNet only), and the same of the SSLD-6M backbone; then hours and MB of
# memory per GPU in that log
OFFICIAL = {
    "semfpn_80k": {
        "small": ("46.53", None, "48.82", None, "2.6", "68371"),
        "base": ("48.61", None, "50.20", None, "3.3", "68629"),
        "large": ("49.11", None, "50.50", None, "3.7", "68888"),
    },
    "upernet_160k": {
        "small": ("48.08", "49.0", "49.77", "50.8", "9.8", "40336"),
        "base": ("50.38", "51.1", "51.83", "52.8", "20.2", "20600"),
        "large": ("50.14", "50.8", "51.45", "52.0", "23.1", "20857"),
    },
}
RECIPES = {
    "semfpn_80k": {
        "title": "Semantic FPN",
        "arch": "SemanticFPN",
        "batch_size": 4,
        "iterations": 4000,
        "auxiliary": "",
        "note": """\
# '80k' are 40,000 iterations of 8 x 4 images here, as many images as 80,000 iterations of 16: the official configuration halves them.
# Weight decay is on every parameter, norms and biases too, as there.
""",
        "optimizer": """\
  weight_decay: 1e-4
  lr:
    name: MMCVPoly
    learning_rate: 1e-4
    power: 0.9
    min_lr: 1e-6
""",
    },
    "upernet_160k": {
        "title": "UPerNet",
        "arch": "UPerNet",
        "batch_size": 2,
        "iterations": 16000,
        "auxiliary": ", auxiliary_weight: 0.4",
        "note": """\
# Weight decay spares every parameter whose name contains 'bn' or 'norm'; biases of other layers decay, as there.
""",
        "optimizer": """\
  weight_decay: 0.01
  no_weight_decay_name: bn norm
  lr:
    name: MMCVPoly
    learning_rate: 6e-5
    power: 1.0
    min_lr: 0.0
    warmup_iters: 1500
    warmup_ratio: 1e-6
""",
    },
}

BODY = """\
# {title} on Next-ViT-{letter}, ADE20K, {total:,} iterations, 512 x 512: the official recipe.
# Source: bytedance/Next-ViT, segmentation (configs, training logs; mmsegmentation 0.23).
# Run: python -m paddle.distributed.launch --gpus 0,1,2,3,4,5,6,7 tools/train.py -c configs/segmentation/{name}.yaml
# Arch.pretrained: the ImageNet-1K weights at 224, which fill the backbone. Data: ADE20K as its archive unpacks.
# Hardware and time there: 8 GPUs (model not named in the log), {memory} MB each, {hours} h.
# Expected mIoU: {single} single scale (the log's last line){multi}; with the SSLD-6M backbone {ssld}.
# Not yet reproduced here.
# Multi-scale and flip: tools/eval.py ... -o Arch.inference.ratios=[0.5,0.75,1.0,1.25,1.5,1.75] -o Arch.inference.flip=True
# Learning rate: for 8 processes of {batch_size} images. Nothing scales it for you.
{note}\
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
  pretrained: ./output/NextViT_{variant}_224/best_model
  use_sync_bn: True
  backbone:
    name: NextViT_{variant}
    extra_norms: True
    drop_path_rate: 0.2
  inference:
    mode: whole

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


def config(recipe, variant):
    """(file name without suffix, its text)."""
    single, multi, ssld, ssld_multi, hours, memory = OFFICIAL[recipe][variant]
    keys, name = RECIPES[recipe], f"{recipe}_nextvit_{variant}_ade20k"
    text = BODY.format(
        **keys,
        name=name,
        variant=variant,
        letter=variant[0].upper(),
        total=10 * keys["iterations"],
        single=single,
        multi=f", {multi} multi-scale and flip (README)" if multi else "",
        memory=memory,
        hours=hours,
        ssld=f"{ssld} and {ssld_multi}" if ssld_multi else ssld,
        normalize=NORMALIZE,
        infer_normalize=NORMALIZE.replace("\n    ", "\n").removeprefix("    "),
    )
    return name, text


def all_configs():
    """{path: text} of the six files."""
    made = [
        config(recipe, variant) for recipe, variants in OFFICIAL.items() for variant in variants
    ]
    return {CONFIGS / f"{name}.yaml": text for name, text in made}


def main(argv=None) -> int:
    return write_generated(
        "tools/make_segmentation_configs.py", __doc__.splitlines()[0], all_configs, argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
