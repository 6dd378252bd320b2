"""From a user's data to a configuration that trains on it, by rules that are stated and printed."""

import functools
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import yaml

from .. import zoo
from ..models import MODELS, create_model
from ..models.complexity import count_macs, count_parameters
from ..models.registry import is_backbone
from ..schema import ConfigError
from ..tasks.common import CLASS_NAMES
from .choices import Choices, global_section
from .dense_recipes import detection, segmentation
from .layouts import LAYOUTS
from .own_data import OwnData

__all__ = ["Plan", "described", "plan"]

# of a training step in float32 at 224 pixels, measured on a CPU: 0.030 of NextViT_small, 0.036 of
# TransNeXt_tiny
BYTES_PER_MULTIPLY_ADD = 0.036
BYTES_PER_PARAMETER = 16  # weight, gradient and AdamW's two averages
LARGEST_BATCH = 64
FEWEST_BATCHES = 4  # of an epoch
SCRATCH = {"epochs": 100, "rate": 5e-4}
FINE_TUNED = {"epochs": 20, "rate": 1.5e-4}
RATE_BATCH = 64  # of the rates above; another goes by the square root
FEW_CLASSES = 5  # up to which the five best say nothing


@dataclass(frozen=True)
class Plan:
    """A configuration, with what was decided and why, a line each."""

    content: Dict[str, Any]
    said: Tuple[str, ...]

    def text(self, command: str) -> str:
        """The YAML file that reproduces the run. command: what it was made by."""
        head = [f"Made by: {command}", *self.said]
        body = yaml.safe_dump(self.content, sort_keys=False, allow_unicode=True)
        return "".join(f"# {' '.join(line.split())}\n" for line in head) + body


def plan(data: OwnData, choices: Choices) -> Plan:
    """What to train on `data`, whose lists are placed in choices.folder, as its YAML will be.
    ConfigError for choices that cannot be.
    """
    MODELS.get(choices.model, "--model")
    if not is_backbone(choices.model):
        raise ConfigError(f"--model {choices.model}: give a classifier, such as NextViT_small")
    said = [described(data), *data.notes]
    content = RECIPES[data.holds](data, choices, said)
    if data.names is not None:
        path = str(choices.folder / CLASS_NAMES)
        content["Infer"]["PostProcess"]["class_id_map_file"] = path
    return Plan(content, tuple(said))


def described(data: OwnData) -> str:
    """What the data are, on a line."""
    train, evaluation = data.images
    kind = LAYOUTS[data.layout].described
    counts = ""
    if data.counts[0]:
        low, high = min(data.counts[0]), max(data.counts[0])
        counts = f", {low} to {high} of a class" if low != high else f", {low} of each class"
    split = " (split here, each class by itself)" if data.split else ""
    return (
        f"data: {data.root}, {kind}: {data.class_num} classes, {train} images to train{counts}, "
        f"{evaluation} to evaluate{split}"
    )


def _classification(data: OwnData, choices: Choices, said: List[str]) -> Dict[str, Any]:
    size = _size(choices, said)
    batch = _batch(data, choices, size, said)
    tuned = FINE_TUNED if choices.pretrained else SCRATCH
    epochs = choices.epochs or int(tuned["epochs"])
    why = "of pretrained weights" if choices.pretrained else "from scratch"
    said.append(f"epochs: {epochs}" + (f" ({why})" if choices.epochs is None else ""))
    rate = choices.learning_rate
    if rate is None:
        rate = float(f"{tuned['rate'] * (batch / RATE_BATCH) ** 0.5:.2g}")
        said.append(
            f"learning rate: {rate:g} ({tuned['rate']:g} {why}, by the root of {batch} / "
            f"{RATE_BATCH} images a step), AdamW, cosine after 1 epoch of warm-up"
        )
    else:
        said.append(f"learning rate: {rate:g}, AdamW, cosine after 1 epoch of warm-up")
    said.append("augmentation: random crops, mirroring, RandAugment; label smoothing 0.1")
    evaluation = zoo.Preprocessing(size, 0.875).transform_ops()
    topk = [1] if data.class_num <= FEW_CLASSES else [1, 5]
    arch: Dict[str, Any] = {"name": choices.model, "class_num": data.class_num}
    if choices.pretrained:
        arch["pretrained"] = choices.pretrained
    return {
        "Global": global_section(choices, epochs, [3, size, size]),
        "Arch": arch,
        "Loss": {"Train": [{"CELoss": {"epsilon": 0.1}}], "Eval": [{"CELoss": {}}]},
        "Optimizer": {
            "name": "AdamW",
            "weight_decay": 0.05,
            "one_dim_param_no_weight_decay": True,
            "clip_global_norm": 5.0,
            "lr": {
                "name": "Cosine",
                "learning_rate": rate,
                "eta_min": float(f"{rate / 100:.2g}"),
                "warmup_epoch": min(1, epochs - 1),
                "warmup_start_lr": float(f"{rate / 100:.2g}"),
            },
        },
        "DataLoader": {
            "Train": _loader(
                {**data.train, "transform_ops": _train_ops(size)}, batch, choices, True
            ),
            "Eval": _loader(
                {**data.evaluation, "transform_ops": evaluation}, batch, choices, False
            ),
        },
        "Infer": {
            "transforms": evaluation,
            "batch_size": min(batch, 16),
            "PostProcess": {"topk": min(5, data.class_num)},
        },
        "Metric": {"Train": [{"TopkAcc": {"topk": [1]}}], "Eval": [{"TopkAcc": {"topk": topk}}]},
    }


def _size(choices: Choices, said: List[str]) -> int:
    written = re.search(r"_(\d{3})$", choices.model)
    size = choices.size or (int(written[1]) if written else 224)
    why = "as asked" if choices.size else f"of {choices.model}"
    said.append(f"image size: {size} x {size} ({why})")
    return size


def _batch(data: OwnData, choices: Choices, size: int, said: List[str]) -> int:
    """The largest power of two that half of the free memory holds, that is at most LARGEST_BATCH
    and leaves FEWEST_BATCHES batches an epoch.
    """
    if choices.batch_size:
        said.append(f"batch size: {choices.batch_size} (as asked)")
        return choices.batch_size
    multiply_adds, parameters = _costs(choices.model, data.class_num, size)
    image = multiply_adds * BYTES_PER_MULTIPLY_ADD
    room = choices.memory / 2 - parameters * BYTES_PER_PARAMETER
    most = min(LARGEST_BATCH, max(room / image, 2), max(data.images[0] / FEWEST_BATCHES, 2))
    batch = 1 << (int(most).bit_length() - 1)
    memory, each = f"{choices.memory / 1e9:.1f} GB", f"{image / 1e6:.0f} MB"
    said.append(
        f"batch size: {batch} (a power of two up to {LARGEST_BATCH}, in half of the {memory} of "
        f"free memory at {each} an image, {FEWEST_BATCHES} batches an epoch or more)"
    )
    return batch


@functools.lru_cache
def _costs(name: str, class_num: int, size: int) -> Tuple[int, int]:
    """(multiply-adds of an image, parameters) of a classifier."""
    model = create_model(name, num_classes=class_num)
    model.eval()
    return count_macs(model, size), count_parameters(model)


def _train_ops(size: int) -> List[Dict[str, Any]]:
    *_, normalize = zoo.Preprocessing(size, 1.0).transform_ops()
    return [
        {"DecodeImage": {"to_rgb": True}},
        {"RandomResizedCrop": {"size": size, "interpolation": "bicubic", "backend": "pil"}},
        {"RandFlipImage": {"flip_code": 1}},
        {
            "TimmAutoAugment": {
                "config_str": "rand-m9-mstd0.5-inc1",
                "interpolation": "bicubic",
                "img_size": size,
            }
        },
        normalize,
    ]


def _loader(
    dataset: Dict[str, Any], batch_size: int, choices: Choices, training: bool
) -> Dict[str, Any]:
    return {
        "dataset": dataset,
        "sampler": {
            "name": "DistributedBatchSampler",
            "batch_size": batch_size,
            "drop_last": False,
            "shuffle": training,
        },
        "loader": {"num_workers": choices.workers},
    }


RECIPES = {"class": _classification, "objects": detection, "pixels": segmentation}
