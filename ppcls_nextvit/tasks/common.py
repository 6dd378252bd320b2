"""What the tasks share: models with their weights, loaders, class names, the images to predict."""

import json
import time
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple, Union

import paddle

from .. import export
from ..config import Config
from ..data import Loader, build_loader
from ..data.agreement import NamesFile, check_data
from ..data.datasets.files import EXTENSIONS, is_image_name
from ..data.lists import read_class_names
from ..engine.distributed import Processes
from ..engine.logger import logger
from ..models import create_model
from ..schema import ConfigError
from ..weights import load_weights
from ..weights.load import resolve

__all__ = [
    "PHOTOS",
    "build_loaders",
    "build_model",
    "class_names",
    "images_of",
    "list_images",
    "milliseconds",
    "trained_model",
    "write_json",
]

PHOTOS = Path(export.__file__).parent / "photos"  # which exports are compared on by default


def build_model(config: Config, training: bool = False) -> paddle.nn.Layer:
    """The model that Arch names, with the weights of Global.pretrained_model, Arch.pretrained or
    Global.checkpoints if one is given.

    training: a head of another class count then stays at its initial values, which the logged
    report says; else it is a LoadError. Global.checkpoints is then the loop's to load, and nothing
    else is loaded. Of a detector or segmentor Arch.pretrained is the backbone's alone, to train
    from; ConfigError without weights for the rest where nothing is trained.
    """
    model = create_model(
        config.Arch.name, num_classes=config.Arch.class_num, **config.Arch.arguments
    )
    # what the run began with may be gone by now
    if training and config.Global.checkpoints:
        return model
    whole, backbone_only = config.Global.pretrained_model, "backbone" in config.Arch.arguments
    if backbone_only and not training:
        whole, backbone_only = whole or config.Global.checkpoints, False
        if not whole:
            raise ConfigError(
                f"{config.path}: no weights for {config.Arch.name}'s heads; give -o "
                f"Global.pretrained_model=FILE"
            )
    source: Any = whole or config.Arch.pretrained or config.Global.checkpoints
    if source:
        report = load_weights(
            model,
            source,
            head="fresh_on_mismatch" if training else "strict",
            backbone_only=backbone_only and not whole,
        )
        logger.info("weights from %s: %s", source, report)
    elif config.Arch.use_ssld:
        raise ConfigError(
            "Arch.use_ssld: the SSLD weights cannot be downloaded from here; give their file as "
            "Global.pretrained_model"
        )
    return model


def class_names(config: Config) -> List[str]:
    """Names by class index from Infer.PostProcess.class_id_map_file; the index itself where there
    is no map.
    """
    path = config.Infer.class_id_map_file if config.Infer else None
    return (
        read_class_names(path, config.Arch.class_num)
        if path
        else [str(index) for index in range(config.Arch.class_num)]
    )


def build_loaders(config: Config, processes: Processes, training: bool) -> List[Optional[Loader]]:
    """(Loader of DataLoader.Train, Loader of DataLoader.Eval), for this one of the `processes`;
    None for one that is not needed. ConfigError where the data and the class names contradict each
    other.
    """
    place = {
        "num_classes": config.Arch.class_num,
        "rank": processes.rank,
        "world_size": processes.world_size,
        "seed": config.Global.seed,
    }
    needed = {"Train": training, "Eval": not training or config.Global.eval_during_train}
    loaders = [
        build_loader(config.section(f"DataLoader.{mode}"), mode, **place) if wanted else None
        for mode, wanted in needed.items()
    ]
    train, evaluation = (None if loader is None else loader.dataset for loader in loaders)
    path = config.Infer.class_id_map_file if config.Infer else None
    compared = train is not None and train.class_names and path
    names_file = NamesFile(path, class_names(config)) if path and compared else None
    check_data(train, evaluation, names_file, speaks=processes.is_main)
    return loaders


def trained_model(config: Config) -> Tuple[paddle.nn.Layer, str]:
    """(model in eval mode, path of the weights' file) for Global.pretrained_model, or a file in
    Arch.pretrained; every key must fit.

    Arch.pretrained of a detector or segmentor is its backbone's, and not enough. ConfigError
    without weights: an untrained model predicts noise.
    """
    source: Any = config.Global.pretrained_model or (
        "backbone" not in config.Arch.arguments and config.Arch.pretrained
    )
    if not source:
        raise ConfigError(
            f"{config.path}: no weights, and an untrained model predicts noise; give -o "
            f"Global.pretrained_model=FILE"
        )
    model = build_model(config)
    model.eval()
    return model, resolve(source)


def list_images(source: Union[str, Path]) -> List[Path]:
    """[source] for a file; for a directory its image files (by ending), sorted by name, without
    those of its own folders.

    FileNotFoundError if there is no such file or directory, or no image in it.
    """
    source = Path(source)
    if not source.is_dir():
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such file or directory")
        return [source]
    found = sorted(path for path in source.iterdir() if is_image_name(path.name))
    if not found:
        raise FileNotFoundError(
            f"{source}: no images in this directory; expected files ending in "
            f"{' '.join(EXTENSIONS)}"
        )
    return found


def milliseconds(function: Callable[[], Any]) -> float:
    """How long one call takes, the device's work included."""
    start = time.perf_counter()
    function()
    # which Paddle's synchronize refuses
    if paddle.device.get_device() != "cpu":
        paddle.device.synchronize()
    return 1000 * (time.perf_counter() - start)


def images_of(config: Config) -> List[Path]:
    """The images of Infer.infer_imgs, else of Global.infer_imgs, see list_images. ConfigError if
    neither is given.
    """
    source = config.section("Infer").infer_imgs or config.Global.infer_imgs
    if not source:
        raise ConfigError(f"{config.path}: no images; give -o Infer.infer_imgs=FILE_OR_DIRECTORY")
    return list_images(source)


def write_json(path: Union[str, Path], results: Any) -> None:
    """The results as a JSON list."""
    Path(path).write_text(
        json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
