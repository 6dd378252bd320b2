"""What the tasks share: models with their weights, loaders, class names, the images to predict."""

import glob
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import paddle

from .. import export
from ..config import Config
from ..data import Loader, build_loader, lists
from ..data.agreement import NamesFile, check_data, compare_transforms
from ..data.datasets.files import EXTENSIONS, files_below, is_image_name
from ..data.datasets.registry import Dataset
from ..data.lists import numbered_lines, read_class_names
from ..engine.distributed import Processes
from ..engine.logger import logger
from ..files import read_text
from ..hub import pretrained_source
from ..models import create_model
from ..models.registry import is_backbone
from ..schema import ConfigError, shown, shown_text
from ..weights import load_weights
from ..weights.load import resolve

__all__ = [
    "CLASS_NAMES",
    "PHOTOS",
    "build_loaders",
    "build_model",
    "class_names",
    "class_names_text",
    "compared_photos",
    "images_of",
    "json_text",
    "list_images",
    "milliseconds",
    "named",
    "trained_model",
    "write_class_names",
    "write_json",
]

Images = Union[str, Path, Sequence[str]]  # see list_images

CLASS_NAMES = "class_names.txt"  # of a run
PHOTOS = Path(export.__file__).parent / "photos"


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
    if training:
        # a model that is for evaluation alone says so before any data are read
        model.train()
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
    source = whole or _pretrained(config) or config.Global.checkpoints
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
            "Arch.use_ssld: no weights; add Arch.pretrained: True to fetch them, or give their "
            "file as Global.pretrained_model"
        )
    return model


def _pretrained(config: Config) -> Optional[str]:
    """What load_weights takes for Arch.pretrained, fetched if need be; None without."""
    arch = config.Arch
    if not arch.pretrained:
        return None
    backbone = arch.arguments.get("backbone") or {}
    return pretrained_source(arch.pretrained, backbone.get("name", arch.name), arch.use_ssld)


def class_names(config: Config, dataset: Any = None) -> List[str]:
    """Names by class index from Infer.PostProcess.class_id_map_file, else those that the `dataset`
    knows (its folders, its categories), else, of a classifier with 1000 classes, ImageNet-1K's,
    else the indices.
    """
    known = _own_names(config, dataset)
    if known is not None:
        return known
    if config.Arch.class_num == 1000 and is_backbone(config.Arch.name):
        logger.info("1000 classes without class_id_map_file: their names are ImageNet-1K's")
        return read_class_names(Path(lists.__file__).with_name(lists.PACKAGED[0]))
    return [str(index) for index in range(config.Arch.class_num)]


def _own_names(config: Config, dataset: Any) -> Optional[List[str]]:
    """The names that the configuration or the dataset states; None where neither does."""
    path = config.Infer.class_id_map_file if config.Infer else None
    if path:
        return read_class_names(path, config.Arch.class_num)
    known = getattr(dataset, "class_names", None) or []
    return list(known) if len(known) == config.Arch.class_num else None


def named(batch: Dict[str, Any], dataset: Dataset) -> Dict[str, Any]:
    """`batch` with `names`, what messages call its images, if it tells their `index`."""
    if "index" not in batch:
        return batch
    return {**batch, "names": [dataset.name(index) for index in batch["index"].tolist()]}


def write_class_names(config: Config, dataset: Any, directory: Union[str, Path]) -> None:
    """class_names.txt in `directory`, a class_id_map_file, by which the weights of a run can be
    used wherever its data are not; not for a model whose classes have no names.
    """
    path, names = Path(directory) / CLASS_NAMES, _own_names(config, dataset)
    if names is not None:
        path.write_text(class_names_text(names), encoding="utf-8", errors="backslashreplace")
    else:
        path.unlink(missing_ok=True)


def _compare_with_resumed(config: Config, prefix: str, dataset: Any) -> None:
    """ConfigError where the run that saved `prefix` numbered its classes differently: nothing else
    would tell.
    """
    path, names = Path(prefix).parent / CLASS_NAMES, _own_names(config, dataset)
    if names is None or not path.is_file():
        return
    theirs, ours = (text.splitlines() for text in (read_text(path), class_names_text(names)))
    differ = [pair for pair in zip(theirs, ours) if pair[0] != pair[1]]
    if differ:
        raise ConfigError(
            f"{path}: the run that is resumed has the class {shown(differ[0][0])}, now it is "
            f"{shown(differ[0][1])}; resume with the same classes in the same order, or give the "
            f"weights as Global.pretrained_model"
        )


def class_names_text(names: Sequence[str]) -> str:
    """The content of a class_id_map_file: a line `id name` for each of `names`."""
    words = [" ".join(name.split()) for name in names]
    return "".join(f"{index} {name or index}\n" for index, name in enumerate(words))


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
    # read where nothing is compared with it, too: the pictures of the finished run need it
    names_file = NamesFile(path, class_names(config)) if path and training else None
    check_data(train, evaluation, names_file, speaks=processes.is_main)
    if training and config.Global.checkpoints:
        _compare_with_resumed(config, config.Global.checkpoints, train)
    if training and evaluation is not None and config.Infer and processes.is_main:
        evaluated = config.section("DataLoader.Eval.dataset").get("transform_ops")
        compare_transforms(evaluated, config.Infer.transforms)
    return loaders


def trained_model(config: Config) -> Tuple[paddle.nn.Layer, str]:
    """(model in eval mode, path of the weights' file) for Global.pretrained_model, or a file in
    Arch.pretrained; every key must fit.

    Arch.pretrained of a detector or segmentor is its backbone's, and not enough. ConfigError
    without weights: an untrained model predicts noise.
    """
    source = config.Global.pretrained_model
    if not source and "backbone" not in config.Arch.arguments:
        source = _pretrained(config)
    if not source:
        raise ConfigError(
            f"{config.path}: no weights, and an untrained model predicts noise; give -o "
            f"Global.pretrained_model=FILE"
        )
    model = build_model(config)
    model.eval()
    return model, resolve(source)


def list_images(source: Images) -> List[Path]:
    """The images that `source` names: a file; a folder, with all folders below it; a pattern such
    as `photos/*.png` or `photos/**/a*.jpg`; a text file, .txt, with a path in each line, relative
    to the working directory or to the file; `-`, standard input with such lines; or several of
    these. Sorted by folder and name, but those of a text as it lists them.

    A warning counts what is left out of a folder by its ending. FileNotFoundError where there is
    nothing, or no image; ConfigError for a list without lines.
    """
    if not isinstance(source, (str, Path)):
        return [path for part in source for path in list_images(part)]
    path = Path(source)
    if source == "-":
        lines = [line.strip() for line in sys.stdin]
        return _paths_of([Path(line) for line in lines if line], "standard input", Path())
    if path.is_dir():
        found = files_below(os.fspath(path))
        return _images_among([path / name for name in (*found.images, *found.others)], path)
    if path.suffix.lower() == ".txt" and path.exists():
        return _listed(path)
    if path.exists() or path.is_symlink():
        return [path]
    if "://" in str(source):
        raise FileNotFoundError(f"{source}: addresses are not fetched; give the path of a file")
    if glob.has_magic(str(source)):
        matches = sorted(map(Path, glob.iglob(str(source), recursive=True)))
        return _images_among([match for match in matches if not match.is_dir()], path)
    raise FileNotFoundError(f"{source}: no such file or directory")


def compared_photos(source: Optional[Images]) -> List[Path]:
    """The photos that an export is compared on: those of `source`, else those of the package."""
    return list_images(source) if source else sorted(PHOTOS.glob("*.jpg"))


def _images_among(paths: Sequence[Path], source: Path) -> List[Path]:
    """Those of `paths` that are images by their names, of which others are told."""
    found = [path for path in paths if is_image_name(path.name)]
    others = [path for path in paths if not is_image_name(path.name)]
    where = "no images in this directory" if source.is_dir() else "no image is called so"
    if not found:
        raise FileNotFoundError(
            f"{source}: {where}; expected files ending in {' '.join(EXTENSIONS)}"
        )
    if others:
        logger.warning(
            "%s: %d files are left out by their endings; the first is %s",
            shown_text(source),
            len(others),
            shown_text(others[0]),
        )
    return found


def _listed(path: Path) -> List[Path]:
    """The paths in the lines of a text file."""
    lines = [Path(line.strip()) for _, line in numbered_lines(path)]
    return _paths_of(lines, str(path), path.parent)


def _paths_of(lines: List[Path], where: str, folder: Path) -> List[Path]:
    """`lines`, those that are not in the working directory as seen from `folder`."""
    if not lines:
        raise ConfigError(f"{where}: the list is empty; expected the path of an image in each line")
    return [line if line.exists() else folder / line for line in lines]


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


def json_text(results: Any) -> str:
    """The results as JSON, a line for each value."""
    return json.dumps(results, indent=1, ensure_ascii=False)


def write_json(path: Union[str, Path], results: Any) -> None:
    """The results as a JSON list. A file that is there is replaced by the whole list or not at all.
    What UTF-8 has no bytes for, as in names of files, is written as JSON's escapes.
    """
    text = json_text(results) + "\n"
    data, path = text.encode("utf-8", "backslashreplace"), Path(path).absolute()
    if path.parts[1:2] == ("dev",) or (path.exists() and not path.is_file()):
        path.write_bytes(data)  # a terminal or a pipe
        return
    path = path.resolve()
    draft = path.with_name(f".{os.getpid()}.json.tmp")
    draft.write_bytes(data)
    os.replace(draft, path)
