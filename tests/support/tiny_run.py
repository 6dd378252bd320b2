"""A run small enough for tests: a shallow Next-ViT, 32 px, a few dozen real images of
Fashion-MNIST.
"""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from ppcls_nextvit.tasks import load_config

from .paths import ROOT

DATA = ROOT / "dataset" / "fashion_mnist"
NORMALIZE = {
    "NormalizeImage": {
        "scale": "1.0/255.0",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "order": "",
    }
}


def write_config(directory, train=48, test=30, batch_size=8, **sections):
    """Write lists of the first images of every class and a YAML beside them; returns the YAML's
    path.

    sections: replace or add whole sections, e.g. EMA={"decay": 0.9}. Global and Arch are merged key
    by key.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("test", test)):
        lines = (DATA / f"{name}_list.txt").read_text().splitlines()
        (directory / f"{name}_list.txt").write_text(
            "\n".join(lines[:: len(lines) // count][:count]) + "\n"
        )

    def loader(name, transforms, shuffle, **dataset):
        return {
            "dataset": {
                "name": "ImageNetDataset",
                "image_root": str(DATA / "images.zip"),
                "cls_label_path": str(directory / f"{name}_list.txt"),
                "transform_ops": transforms,
                **dataset,
            },
            "sampler": {
                "name": "DistributedBatchSampler",
                "batch_size": batch_size,
                "drop_last": False,
                "shuffle": shuffle,
            },
            "loader": {"num_workers": 0},
        }

    decode = [{"DecodeImage": {"to_rgb": True, "channel_first": False}}]
    resize = [{"ResizeImage": {"size": 32, "interpolation": "bicubic", "backend": "pil"}}]
    content = {
        "Global": {
            "epochs": 2,
            "device": "cpu",
            "output_dir": str(directory / "output"),
            "print_batch_step": 1,
            "save_interval": 0,
            "image_shape": [3, 32, 32],
            **sections.pop("Global", {}),
        },
        "Arch": {
            "name": "NextViT_small",
            "class_num": 10,
            "depths": [1, 1, 5, 1],
            **sections.pop("Arch", {}),
        },
        "Loss": {
            "Train": [{"CELoss": {"weight": 1.0, "epsilon": 0.1}}],
            "Eval": [{"CELoss": {"weight": 1.0}}],
        },
        "Optimizer": {
            "name": "AdamW",
            "weight_decay": 0.05,
            "clip_global_norm": 5.0,
            "one_dim_param_no_weight_decay": True,
            "lr": {"name": "Cosine", "learning_rate": 1e-3, "warmup_epoch": 1},
        },
        "DataLoader": {
            "Train": loader(
                "train", decode + resize + [{"RandFlipImage": {"flip_code": 1}}, NORMALIZE], True
            ),
            "Eval": loader("test", decode + resize + [NORMALIZE], False),
        },
        "Infer": {
            "infer_imgs": "none",
            "batch_size": 4,
            "transforms": decode + resize + [NORMALIZE, {"ToCHWImage": None}],
            "PostProcess": {
                "name": "Topk",
                "topk": 3,
                "class_id_map_file": str(DATA / "labels.txt"),
            },
        },
        "Metric": {"Eval": [{"TopkAcc": {"topk": [1, 5]}}]},
        **sections,
    }
    path = directory / "tiny.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def launch(path, processes, *overrides):
    """tools/train.py under paddle.distributed.launch with so many CPU processes; asserts success
    and returns the output directory.
    """
    config = load_config(path, overrides)
    command = [
        sys.executable,
        "-m",
        "paddle.distributed.launch",
        f"--nproc_per_node={processes}",
        "--log_dir",
        str(path.parent / f"log{processes}"),
        str(ROOT / "tools" / "train.py"),
        "-c",
        str(path),
    ]
    for override in overrides:
        command += ["-o", override]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return config.output_dir
