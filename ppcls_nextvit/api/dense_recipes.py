"""From a user's data with objects or with labels of pixels to a configuration: a published recipe
of the network, on these data.
"""

from pathlib import Path
from typing import Any, Dict, List, Tuple

from ..config.reading import read_yaml
from ..config.recipes import find, names
from ..schema import ConfigError
from .choices import Choices, global_section
from .own_data import OwnData

__all__ = ["detection", "segmentation"]

DETECTOR_BATCH, DETECTOR_RATE = 2, 1e-4 / 16
SEGMENTOR_BATCH, SEGMENTOR_EPOCHS, CROP = 4, 40, 512
# names of recipes by the backbone's, the first that there is
WITH_MASKS = ("mask_rcnn_{}_1x_coco.yaml",)
OF_BOXES = ("dino_4scale_{}_12e_coco.yaml", "dino_5scale_{}_12e_coco.yaml")
OF_PIXELS = ("semfpn_80k_{}_ade20k.yaml", "upernet_160k_{}_ade20k.yaml")
PUBLISHED_BATCH = {"SemanticFPN": 32, "UPerNet": 16}  # images a step, of the recipes' rates


def detection(data: OwnData, choices: Choices, said: List[str]) -> Dict[str, Any]:
    """Mask R-CNN for objects with outlines, DINO for boxes alone. said: gets what was decided."""
    kind = "Mask R-CNN" if data.masks else "DINO, of boxes without outlines,"
    recipe = _recipe(choices.model, WITH_MASKS if data.masks else OF_BOXES, kind)
    if choices.size:
        raise ConfigError("--size: a detector's images keep their proportions; use -o instead")
    content = read_yaml(recipe)
    batch, epochs = choices.batch_size or DETECTOR_BATCH, choices.epochs or 12
    rate = choices.learning_rate or DETECTOR_RATE * batch
    steps = _steps(epochs)[-len(content["Optimizer"]["lr"]["milestones"]) :]
    said += [
        f"model: {kind} on {choices.model}, by the recipe {recipe.name}",
        f"batch size: {batch}, epochs: {epochs}",
        f"learning rate: {rate:g} (1e-4 for 16 images a step), lower after {steps} epochs",
    ]
    _own(content, data, choices, epochs, content["Global"]["image_shape"])
    content["Optimizer"]["lr"].update(learning_rate=rate, milestones=steps)
    content["DataLoader"]["Train"]["sampler"]["batch_size"] = batch
    return content


def segmentation(data: OwnData, choices: Choices, said: List[str]) -> Dict[str, Any]:
    """Semantic FPN, or UPerNet where the backbone has no recipe of it."""
    recipe = _recipe(choices.model, OF_PIXELS, "Semantic FPN or UPerNet")
    content = read_yaml(recipe)
    head = content["Arch"]["name"]
    batch = choices.batch_size or SEGMENTOR_BATCH
    epochs, crop = choices.epochs or SEGMENTOR_EPOCHS, choices.size or CROP
    published = PUBLISHED_BATCH[head]
    base = float(content["Optimizer"]["lr"]["learning_rate"])
    rate = choices.learning_rate or float(f"{base * (batch / published) ** 0.5:.2g}")
    said += [
        f"model: {head} on {choices.model}, by the recipe {recipe.name}",
        f"image size: crops of {crop} x {crop} of images whose shorter side is {crop} (--size)",
        f"batch size: {batch}, epochs: {epochs}",
        f"learning rate: {rate:g} ({base:g} by the root of {batch} / {published} images a step)",
    ]
    _own(content, data, choices, epochs, [3, crop, crop])
    content["Arch"].update(inference={"mode": "whole"}, use_sync_bn=False)
    if "table_size" in content["Arch"]["backbone"]:
        content["Arch"]["backbone"]["table_size"] = crop
    content["Optimizer"]["lr"]["learning_rate"] = rate
    content["DataLoader"]["Train"]["sampler"] = {
        "name": "DistributedBatchSampler",
        "batch_size": batch,
        "drop_last": data.images[0] > batch,
        "shuffle": True,
    }
    training = content["DataLoader"]["Train"]["dataset"]["transform_ops"]
    evaluation = content["DataLoader"]["Eval"]["dataset"]["transform_ops"]
    for ops in (training, evaluation, content["Infer"]["transforms"]):
        _resize(ops, crop)
    return content


def _resize(ops: List[Dict[str, Any]], crop: int) -> None:
    """Sizes in a recipe's transforms: those of ADE20K are crops of 512 of images of 2048 x 512."""
    for entry in ops:
        for name, arguments in entry.items():
            if name == "Resize":
                arguments["scale"] = [4 * crop, crop]
            elif name in ("RandomCrop", "Pad"):
                arguments["size"] = [crop, crop]


def _recipe(model: str, patterns: Tuple[str, ...], kind: str) -> Path:
    """The packaged recipe of a backbone. ConfigError, with the backbones that have one."""
    for pattern in patterns:
        found = find(pattern.format(model.lower()))
        if found is not None:
            return found
    parts = [pattern.split("{}") for pattern in patterns]
    having = {
        name[len(begin) : -len(end)]
        for name in (Path(each).name for each in names())
        for begin, end in parts
        if name.startswith(begin) and name.endswith(end)
    }
    raise ConfigError(
        f"--model {model}: there is no {kind} recipe on this backbone; there is on "
        f"{', '.join(sorted(having))}"
    )


def _own(
    content: Dict[str, Any], data: OwnData, choices: Choices, epochs: int, shape: List[int]
) -> None:
    """What a recipe has of the user's: data, classes, weights to begin with, the run."""
    content["Global"] = global_section(choices, epochs, shape)
    content.pop("AMP", None)
    content["Arch"].update(class_num=data.class_num, pretrained=choices.pretrained)
    backbone = content["Arch"]["backbone"]
    if not choices.pretrained:  # what starts from scratch must not be held still
        backbone.update({key: 0 for key in ("frozen_stages",) if key in backbone})
        backbone.update({key: False for key in ("norm_eval",) if key in backbone})
    for mode, section in (("Train", data.train), ("Eval", data.evaluation)):
        loader = content["DataLoader"][mode]
        given = loader["dataset"]
        kept = {key: given[key] for key in ("transform_ops", "filter_empty") if key in given}
        loader["dataset"] = {**section, **kept}
        loader["loader"] = {"num_workers": choices.workers}
    content["Infer"]["infer_imgs"] = None
    content["Infer"]["PostProcess"]["class_id_map_file"] = None


def _steps(epochs: int) -> List[int]:
    """After which epochs the rate falls: two thirds and eleven twelfths, as of 12 epochs."""
    return [max(round(epochs * 2 / 3), 1), max(round(epochs * 11 / 12), 1)]
