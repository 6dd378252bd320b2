"""The kinds of explanation, by name: each makes Explanations of a model and its images."""

from dataclasses import dataclass
from functools import partial
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
import paddle
from paddle import Tensor

from ..config import Config
from ..data.images import ImageError
from ..engine.logger import logger
from ..models import create_model
from ..schema import ConfigError
from ..tasks import task_of
from ..tasks.common import images_of
from ..tasks.inputs import InputImage, Source, input_images
from ..tasks.results import output_stems
from ..tasks.subject import Subject, View, class_indices
from . import figures
from .attention import attention
from .cam import METHODS, ClassMap, class_maps
from .erf import SHARES, Area, areas, receptive_fields
from .explanation import Explanation, rounded
from .features import principal_components
from .fourier import block_maps, spectrum
from .multiscale import modes_of, size_curves

__all__ = ["KINDS", "Kind", "Settings", "explain"]

NOTHING = (
    "nothing was found that could be looked at; name classes or points, or lower "
    "Infer.PostProcess.score_threshold"
)
MOST_ALONG = 16  # points along an axis
TRAINED, UNTRAINED = "after training", "before training"


@dataclass(frozen=True)
class Settings:
    """What may be said of an explanation; see `nextvit explain -h`.

    points: (x, y) in pixels of the image as the model sees it; none: its centre. grid: so many
    points along each axis instead. objects: the centres of what a detector finds instead. heads:
    each apart. every_block: not the last of each stage alone. classes: names or indices. method:
    'grad', 'hires' or 'eigen', see class_maps. stage: from 1, whose map is looked at. untrained: an
    untrained model, too. sizes: of multiscale. agreement: of multiscale, without truth, on the
    images.
    """

    points: Tuple[Tuple[int, int], ...] = ()
    grid: int = 0
    objects: bool = False
    heads: bool = False
    every_block: bool = False
    classes: Sequence[Union[str, int]] = ()
    method: Optional[str] = None
    stage: Optional[int] = None
    untrained: bool = False
    sizes: Tuple[int, ...] = ()
    agreement: bool = False

    def __post_init__(self) -> None:
        if sum((bool(self.points), bool(self.grid), self.objects)) > 1:
            raise ConfigError("give one of points, grid and objects, which all say where")
        if self.method not in (None, *METHODS):
            raise ConfigError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}")
        if self.method == "eigen" and self.classes:
            raise ConfigError("method eigen knows no classes; leave classes out, or choose another")
        if isinstance(self.classes, str):
            raise ConfigError(f"classes: expected a list of names or indices, got {self.classes!r}")
        if not 0 <= self.grid <= MOST_ALONG:
            raise ConfigError(f"grid: must be from 1 to {MOST_ALONG}, got {self.grid}")
        if len(self.points) > MOST_ALONG**2:
            raise ConfigError(f"points: at most {MOST_ALONG**2}, got {len(self.points)}")


class Kind(NamedTuple):
    """One kind. make(config, images, settings, told) -> Explanations; told: to be called after each
    step of work. settings: the names of the Settings that it heeds. steps(config, images, settings)
    -> how many steps there will be.
    """

    make: Callable[..., Iterator[Explanation]]
    settings: Tuple[str, ...]
    steps: Callable[..., int]

    @property
    def of_each(self) -> bool:
        """Whether there is an Explanation for each image, not one of all: then `make` takes
        `failed`, see for_each.
        """
        return self.steps is one_each


def explain(
    kind: str,
    config: Config,
    images: Optional[Source] = None,
    settings: Optional[Settings] = None,
    told: Optional[Callable[[], Any]] = None,
) -> Iterator[Explanation]:
    """The Explanations of a trained model: one for each image of kinds attention, cam, fourier and
    features, one of all images of erf and multiscale.

    kind: a name of KINDS. images: as Model.predict takes; None: Infer.infer_imgs (multiscale:
    DataLoader.Eval). told: called after each step of work. ConfigError for what cannot be meant,
    ImageError for an image that cannot be read or is too large, FileNotFoundError for none.
    """
    chosen = checked(kind, config, settings or Settings())
    found = None if kind == "multiscale" else images_to_explain(config, images)
    if kind == "multiscale":
        found = images  # type: ignore[assignment]
    return KINDS[kind].make(config, found, chosen, told or (lambda: None))


def checked(kind: str, config: Config, settings: Settings) -> Settings:
    """`settings`, if `kind` is one and heeds all that differs from the default. ConfigError."""
    if kind not in KINDS:
        raise ConfigError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    plain = Settings()
    for name in vars(plain):
        if getattr(settings, name) != getattr(plain, name) and name not in KINDS[kind].settings:
            heeded = ", ".join(KINDS[kind].settings) or "no settings"
            raise ConfigError(f"{name}: is not for {kind}, which has {heeded}")
    return settings


def images_to_explain(config: Config, images: Optional[Source]) -> List[InputImage]:
    """The images, of Infer.infer_imgs if none are given. ConfigError for none at all."""
    if images is None:
        return [InputImage(str(path), path) for path in images_of(config)]
    found = list(input_images(images))
    if not found:
        raise ConfigError("images: there is none; give one or more")
    return found


def stems(images: Sequence[InputImage], kind: str) -> List[str]:
    """The names of the files of each image."""
    of_files = iter(output_stems([image.path for image in images if image.path is not None]))
    names = [image.name if image.path is None else next(of_files) for image in images]
    return [f"{name}_{kind}" for name in names]


def subject_of(config: Config) -> Subject:
    """The trained model of `config`. ConfigError without weights."""
    return task_of(config).subject(config)


def for_each(
    kind: str,
    look: Callable[[Subject, View, Settings], Any],
    config: Config,
    images: Sequence[InputImage],
    settings: Settings,
    told: Callable[[], Any],
    failed: Optional[Callable[[ImageError], Any]] = None,
) -> Iterator[Explanation]:
    """An Explanation for each image of what `look` finds: (arrays, numbers, drawing), or None where
    there is nothing to look at, of which a warning tells. failed: called with the error of an image
    that cannot be looked at; without it that is raised.
    """
    subject = subject_of(config)
    for image, stem in zip(images, stems(images, kind)):
        try:
            view = subject.view(image)
        except ImageError as error:
            if failed is None:
                raise
            failed(error)
            told()
            continue
        seen = look(subject, view, settings)
        if seen is None:
            logger.warning("%s: %s", image.name, NOTHING)
        else:
            arrays, numbers, draw = seen
            told_of = {"file_name": image.name, "size": list(view.picture.shape[:2])}
            yield Explanation(stem, arrays, {**told_of, **numbers}, draw)
        image.release()
        told()


def look_attention(subject: Subject, view: View, settings: Settings) -> Any:
    """Of kind attention."""
    points = points_of(subject, view, settings)
    if not points:
        return None
    found = attention(subject.backbone, view.x, points, settings.every_block)
    arrays = {f"point{i}.{block.name}": block.maps for i, row in enumerate(found) for block in row}
    told = [
        {"point": list(point), "blocks": [block.numbers() for block in row]}
        for point, row in zip(points, found)
    ]
    draw = partial(figures.attention_figure, view.picture, points, found, settings.heads)
    return arrays, {"points": told}, draw


def points_of(subject: Subject, view: View, settings: Settings) -> List[Tuple[int, int]]:
    """The points that `settings` mean; none for objects where none are found."""
    height, width = view.shape
    if settings.objects:
        with paddle.no_grad():
            boxes = [one.box for one in subject.evidence(view) if one.box is not None]
        centres = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes]
        return [(min(int(x), width - 1), min(int(y), height - 1)) for x, y in centres]
    if settings.grid:
        rows, columns = (
            [int((i + 0.5) * side / settings.grid) for i in range(settings.grid)]
            for side in (height, width)
        )
        return [(x, y) for y in rows for x in columns]
    return list(settings.points) or [(width // 2, height // 2)]


def look_cam(subject: Subject, view: View, settings: Settings) -> Any:
    """Of kind cam."""
    wanted = class_indices(subject.names, settings.classes) if settings.classes else None
    method: Any = settings.method
    found: List[ClassMap] = class_maps(subject, view, wanted, method, settings.stage)
    if not found:
        return None
    arrays = {str(i): one.values for i, one in enumerate(found)}
    told = {"method": settings.method or "default", "maps": [one.numbers() for one in found]}
    return arrays, told, partial(figures.class_map_figure, view.picture, found)


def look_features(subject: Subject, view: View, settings: Settings) -> Any:
    """Of kind features."""
    with paddle.no_grad():
        maps = [m[0].numpy() for m in subject.backbone.forward_features(view.x)]
    found = [principal_components(m) for m in maps]
    arrays = {f"stage{i}": one.colours for i, one in enumerate(found, 1)}
    told = [
        {"stage": i, "size": list(m.shape[1:]), "explained": rounded(one.explained)}
        for i, (m, one) in enumerate(zip(maps, found), 1)
    ]
    return arrays, {"stages": told}, partial(figures.component_figure, view.picture, found)


def look_fourier(subject: Subject, view: View, settings: Settings) -> Any:
    """Of kind fourier."""
    maps = block_maps(subject.backbone, view.x)
    # a map of one cell has no frequencies
    found = {place: spectrum(m) for place, m in maps.items() if max(m.shape[1:]) > 1}
    if not found:
        raise ImageError(
            "every map has a single cell, which has no frequencies; take larger images"
        )
    arrays = {f"stage{s}.block{b}": one.relative for (s, b), one in found.items()}
    told = [
        {
            "block": f"stage{s}.block{b}",
            "frequencies": rounded(one.frequencies),
            "relative_log_amplitude": rounded(one.relative),
        }
        for (s, b), one in found.items()
    ]
    return arrays, {"blocks": told}, partial(figures.spectrum_figure, found)


def untrained_backbone(config: Config) -> Any:
    """The backbone of `config` with the weights that training begins with, without Arch.pretrained,
    drawn by Global.seed.
    """
    paddle.seed(config.Global.seed)
    arguments = {"num_classes": config.Arch.class_num, **config.Arch.arguments}
    model = create_model(config.Arch.name, **arguments)
    model.eval()
    return getattr(model, "backbone", model)


def make_erf(
    config: Config, images: Sequence[InputImage], settings: Settings, told: Callable[[], Any]
) -> Iterator[Explanation]:
    """Of kind erf: one Explanation of all images."""
    subject = subject_of(config)
    backbones: Dict[str, Any] = {}
    if settings.untrained:
        backbones[UNTRAINED] = untrained_backbone(config)
    backbones[TRAINED if settings.untrained else ""] = subject.backbone
    rows: Dict[str, List[np.ndarray]] = {}
    found: Dict[str, List[Mapping[float, Area]]] = {}
    for label, backbone in backbones.items():
        rows[label] = receptive_fields(backbone, seen(subject, images), told)
        found[label] = [areas(field) for field in rows[label]]
    arrays = {
        f"{label or TRAINED}, stage{i}": field
        for label, fields in rows.items()
        for i, field in enumerate(fields, 1)
    }
    told_of = {
        "images": len(images),
        "size": list(next(iter(arrays.values())).shape),
        "shares": list(SHARES),
        "fields": [
            {
                "weights": label or TRAINED,
                "stage": i,
                "areas": [{k: rounded(v) for k, v in a._asdict().items()} for a in one.values()],
            }
            for label, of_label in found.items()
            for i, one in enumerate(of_label, 1)
        ],
    }
    yield Explanation("erf", arrays, told_of, partial(figures.field_figure, rows, found))


def seen(subject: Subject, images: Sequence[InputImage]) -> Iterator[Tensor]:
    """The images as the model sees them, one after the other."""
    for image in images:
        yield subject.view(image).x
        image.release()


def make_multiscale(
    config: Config, images: Optional[Source], settings: Settings, told: Callable[[], Any]
) -> Iterator[Explanation]:
    """Of kind multiscale: one Explanation."""
    if settings.agreement and images is None:
        images = images_of(config)
    if images is not None and not settings.agreement:
        raise ConfigError(
            "images: multiscale measures on DataLoader.Eval; on images, without their "
            "truth, it compares predictions: say agreement, too"
        )
    found = size_curves(config, sizes_of(config, settings), images, told)
    arrays = {mode: np.array(values) for mode, values in found.values.items()}
    told_of = {
        "figure": found.figure,
        "trained": found.trained,
        "sizes": list(found.sizes),
        "values": {mode: rounded(values) for mode, values in found.values.items()},
    }
    draw = partial(figures.curves_figure, found.sizes, found.values, found.figure, found.trained)
    yield Explanation("multiscale", arrays, told_of, draw)


def sizes_of(config: Config, settings: Settings) -> Tuple[int, ...]:
    """The sizes of the settings; by default 1 to 3 times that of Global.image_shape, by halves."""
    side = config.Global.image_shape[1]
    usual = (round(side * factor) for factor in (1, 1.5, 2, 2.5, 3))
    return settings.sizes or tuple(size for size in usual if size <= 1024)


def one_each(config: Config, images: Sequence[InputImage], settings: Settings) -> int:
    """A step for each image."""
    return len(images)


KINDS: Dict[str, Kind] = {
    "attention": Kind(
        partial(for_each, "attention", look_attention),
        ("points", "grid", "objects", "heads", "every_block"),
        one_each,
    ),
    "cam": Kind(partial(for_each, "cam", look_cam), ("classes", "method", "stage"), one_each),
    "erf": Kind(
        make_erf, ("untrained",), lambda c, images, settings: len(images) * (1 + settings.untrained)
    ),
    "fourier": Kind(partial(for_each, "fourier", look_fourier), (), one_each),
    "features": Kind(partial(for_each, "features", look_features), (), one_each),
    "multiscale": Kind(
        make_multiscale,
        ("sizes", "agreement"),
        lambda config, _, settings: len(modes_of(config)) * len(sizes_of(config, settings)),
    ),
}
