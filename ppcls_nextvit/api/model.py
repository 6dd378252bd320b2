"""A trained model in Python: load it, predict, evaluate, explain, export."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

from ..config import Config
from ..data.images import ImageError
from ..engine.distributed import start_processes
from ..explain import Explanation, Settings
from ..explain import explain as explanations
from ..export.opened import Opened, is_export, open_export
from ..export.target import Exported
from ..models import MODELS
from ..schema import ConfigError
from ..tasks import TASKS, task_of
from ..tasks import evaluate as evaluate_config
from ..tasks.base import ExportRequest
from ..tasks.inputs import Source, input_images
from ..tasks.results import Predictor, Result, Results, predictions
from .other_data import evaluate_on
from .sources import Asked, config_of, fetched, override_texts, with_device

__all__ = ["Model", "evaluate", "export_model", "load"]

Path_ = Union[str, "os.PathLike[str]"]


def load(
    source: Path_,
    *,
    weights: Optional[Path_] = None,
    pretrained: Union[bool, str] = False,
    names: Optional[Sequence[str]] = None,
    device: str = "auto",
    options: Optional[Mapping[str, Any]] = None,
    **arguments: Any,
) -> "Model":
    """A model with its weights, its preprocessing and its classes' names, ready to predict.

    source: the folder of a run (its best weights are taken), the folder of an export (run by its
        own engine, on a CPU), a file of weights in a run's folder or under its published name, a
        name of the zoo (`list_weights()`) whose file is on this disk, the name of a classifier
        (`list_models()`) with `weights`, or a YAML.
    weights: a file of any format that load_weights reads, or a name of the zoo.
    pretrained: for the name of a classifier or of the zoo: True, a name of the zoo or its middle
        ('in1k6m_384'), hf:OWNER/NAME, or an address, fetched into the cache if they are not here.
    names: of the classes, in place of those that are known. Without names in the run or the YAML,
        1000 classes have ImageNet-1K's.
    device: auto, cpu, gpu, ... options: {'Infer.PostProcess.topk': 3}: values of the
        configuration, as of `-o`.
    arguments: of the network, where `source` is its name; see `create_model`.
    Raises ConfigError for what cannot be meant, FileNotFoundError for what is not there, LoadError
    for weights that do not fit; all say on one line what to do.
    """
    source = os.fspath(source)
    if is_export(Path(source)):
        if weights is not None or arguments or options:
            raise ConfigError(f"{source}: an export has its weights and settings; give it alone")
        opened = open_export(Path(source))
        task = MODELS.get(opened.model_name).task
        predictor = TASKS[task].exported_predictor(opened)
        return Model(source, task, predictor, names=names, opened=opened)
    if pretrained:
        if weights is not None:
            raise ConfigError("give weights (a file) or pretrained (fetched by name), not both")
        weights = fetched(source, pretrained)
    asked = Asked(
        source,
        None if weights is None else os.fspath(weights),
        arguments,
        override_texts(options or {}),
    )
    config = with_device(config_of(asked), device)
    start_processes(device)
    task = MODELS.get(config.Arch.name).task
    return Model(source, task, task_of(config).predictor(config), config, names)


class Model:
    """A model that predicts. task: 'classification', 'detection' or 'segmentation'. names: of its
    classes. config: how it was built; None of an export, which is `opened`.
    """

    def __init__(
        self,
        source: str,
        task: str,
        predictor: Predictor,
        config: Optional[Config] = None,
        names: Optional[Sequence[str]] = None,
        opened: Optional[Opened] = None,
    ) -> None:
        self.source = source
        self.task = task
        self.predictor = predictor
        self.config = config
        self.opened = opened
        if names is not None:
            if len(names) != len(predictor.names):
                raise ConfigError(
                    f"names: got {len(names)}, but {source} has {len(predictor.names)} classes"
                )
            predictor.names = list(names)

    def __repr__(self) -> str:
        return f"Model({self.source!r}, task={self.task!r}, {len(self.names)} classes)"

    @property
    def names(self) -> List[str]:
        """The names of the classes, in order."""
        return list(self.predictor.names)

    def predict(
        self,
        images: Source,
        *,
        batch_size: Optional[int] = None,
        errors: str = "raise",
        progress: bool = False,
    ) -> Results:
        """Results of all `images`, in order.

        images: the path of an image, of a folder with all below it, a pattern ('photos/*.jpg'), a
            .txt with a path in each line; a PIL image; uint8 [H, W, 3] in the order RGB, [H, W], or
            [N, H, W, 3] for several; the bytes of a file; or any iterable of these, such as a list
            or a generator.
        batch_size: how many images run at a time (default: the model's own). errors: 'raise' stops
        at the first image that cannot be read with an ImageError, 'keep' puts a result in its place
        whose `error` says why. progress: show a bar, if tqdm is there.
        """
        found: Any = self.stream(images, batch_size=batch_size, errors=errors)
        if progress:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                raise ImportError("progress needs tqdm: pip install tqdm") from None
            found = tqdm(found, unit="image")
        return Results(found)

    def stream(
        self, images: Source, *, batch_size: Optional[int] = None, errors: str = "raise"
    ) -> Iterator[Result]:
        """As `predict`, one result after the other, in the memory of one batch: for folders and
        streams of any length.
        """
        if errors not in ("raise", "keep"):
            raise ValueError(f"errors: expected 'raise' or 'keep', got {errors!r}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
        for result in predictions(self.predictor, input_images(images), batch_size):
            if result.error is not None and errors == "raise":
                raise ImageError(result.error)
            yield result

    def evaluate(
        self, data: Optional[Path_] = None, layout: Optional[str] = None
    ) -> Dict[str, Any]:
        """{metric: value, ..., images} on DataLoader.Eval of the run or the YAML, or on the folder
        `data` of one of the layouts that `train` takes: on the part of it that is for evaluation,
        or, where no part is, on all. Or `data` is a YAML, whose DataLoader.Eval is taken. An
        export, run by its own engine, needs `data`. ConfigError without data, and for data of other
        classes.
        """
        if data is not None:
            return evaluate_on(self.opened or self._config("evaluated"), Path(data), layout)
        if self.opened is not None:
            raise ConfigError(
                f"{self.source}: an export names no images to be evaluated on; give data=FOLDER, "
                f"or the YAML of its run"
            )
        return evaluate_config(self._config("evaluated"))

    def explain(
        self, kind: str, images: Optional[Source] = None, **settings: Any
    ) -> List[Explanation]:
        """What the network sees (`nextvit explain`): an Explanation for each image, or of kinds
        erf and multiscale one of all, with its `arrays`, `numbers`, `figure()` and `save(folder)`.

        kind: attention, cam, erf, fourier, features or multiscale. images: as `predict` takes;
        None: Infer.infer_imgs. settings: see explain.Settings. ConfigError for what cannot be
        meant and for an export, ImageError for an image that cannot be read or is too large,
        ValueError for a network that has no such thing, a point outside of the image.
        """
        config = self._config("explained")
        return list(explanations(kind, config, images, Settings(**settings)))

    def export(self, directory: Path_, to: str = "paddle", **request: Any) -> Exported:
        """Write the model for another program into `directory`; see `export_model`."""
        config = self._config("exported")
        settings = replace(config.Global, save_inference_dir=os.fspath(directory))
        return task_of(config).export(
            replace(config, Global=settings), ExportRequest(to=to, **request)
        )

    def _config(self, what: str) -> Config:
        if self.config is None:
            raise ConfigError(
                f"{self.source}: is an export; only what it was made of can be {what}"
            )
        return self.config


def evaluate(
    source: Path_,
    data: Optional[Path_] = None,
    layout: Optional[str] = None,
    **arguments: Any,
) -> Dict[str, Any]:
    """{metric: value, ..., images} of a run or a YAML on its own evaluation dataset, or of these
    and of an export on `data`, see Model.evaluate. arguments: those of `load`.
    """
    return load(source, **arguments).evaluate(data, layout)


def export_model(
    source: Path_,
    directory: Path_,
    to: str = "paddle",
    *,
    precision: str = "fp32",
    batch: Optional[int] = None,
    size: Any = None,
    photos: Optional[str] = None,
    **arguments: Any,
) -> Exported:
    """Write a model for another program into `directory`, compared with the model before it is
    kept.

    to: paddle, onnx, openvino, tensorrt, lite, coreml, ... precision, batch, size, photos: see
    ExportRequest. arguments: those of `load`. Raises what `nextvit export` says on one line;
    nothing was written then.
    """
    import paddle

    paddle.set_device("cpu")  # where the files are compared with the model
    request = {"precision": precision, "batch": batch, "size": size, "photos": photos}
    return load(source, device="cpu", **arguments).export(directory, to, **request)
