"""Figure of merit against the size of the images, for each way in which a network takes sizes that
it was not trained on.
"""

from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..config import Config
from ..engine.distributed import start_processes
from ..models import MODELS, variant_of
from ..schema import ConfigError, yaml_parameters
from ..tasks import check, task_of
from ..tasks.inputs import Source, input_images
from ..tasks.results import Result, predictions

__all__ = ["Curves", "modes_of", "size_curves"]

POOLED = 32  # pixels that a pooled key stands for, along each axis, in every stage
PLAIN = "plain"


@dataclass(frozen=True)
class Curves:
    """values: {mode: figure of merit for each of `sizes`}, in [0, 1]. figure: its name. trained:
    the side of the images of training.
    """

    sizes: Tuple[int, ...]
    values: Mapping[str, List[float]]
    figure: str
    trained: int


def backbone_arguments(config: Config) -> Tuple[str, Dict[str, Any], bool]:
    """(name, arguments, whether they are those of Arch.backbone) of the backbone of `config`."""
    inner = config.Arch.arguments.get("backbone")
    if inner is None:
        return config.Arch.name, dict(config.Arch.arguments), False
    return inner["name"], {k: v for k, v in inner.items() if k != "name"}, True


def trained_size(config: Config) -> int:
    """The side of the images of training, as far as the configuration says."""
    _, arguments, _ = backbone_arguments(config)
    return arguments.get("table_size") or config.Global.image_shape[1]


def modes_of(config: Config) -> Dict[str, Dict[str, Any]]:
    """{mode: arguments of the backbone that bring it about}: of a network with a position bias
    extrapolation, interpolation and linear (as many pooled keys at every size as in training); of
    another 'plain'.
    """
    name, _, _ = backbone_arguments(config)
    known, trained = yaml_parameters(MODELS.get(name)), trained_size(config)
    if not {"position_bias", "table_size", "fixed_pool_size"} <= set(known):
        return {PLAIN: {}}
    plain = {"position_bias": "extrapolation", "table_size": None, "fixed_pool_size": None}
    return {
        "extrapolation": plain,
        "interpolation": {**plain, "position_bias": "interpolation", "table_size": trained},
        "linear": {**plain, "fixed_pool_size": max(trained // POOLED, 1)},
    }


def in_mode(config: Config, arguments: Mapping[str, Any]) -> Config:
    """`config` with these arguments of its backbone."""
    name, own, inner = backbone_arguments(config)
    changed = {**own, **arguments}
    if inner:
        changed = {**config.Arch.arguments, "backbone": {"name": name, **changed}}
    return check(replace(config, Arch=replace(config.Arch, arguments=changed)))


def size_curves(
    config: Config,
    sizes: Sequence[int],
    images: Optional[Source] = None,
    told: Optional[Callable[[], Any]] = None,
) -> Curves:
    """The Curves of a trained model over square images of `sizes`: the figure that chooses its best
    weights, on DataLoader.Eval; or, with `images`, which need no truth, how far its predictions
    agree with those at the size of training.

    told: called after each size of each mode. ConfigError for sizes that it does not take, and
    without data.
    """
    name, _, _ = backbone_arguments(config)
    least = getattr(variant_of(name).family, "min_size", 1)
    if not sizes or min(sizes) < least or max(sizes) > 1024 or len(set(sizes)) < len(sizes):
        raise ConfigError(
            f"sizes: expected different ones from {least} to 1024 pixels, got "
            f"{', '.join(map(str, sizes)) or 'none'}"
        )
    if images is None and "Eval" not in config.DataLoader:
        raise ConfigError(
            f"{config.path}: no DataLoader.Eval to measure on; give images, on which predictions "
            f"are compared"
        )
    task: Any = task_of(config)
    start_processes(config.Global.device)
    trained, reference = trained_size(config), None
    if images is not None:
        reference = _results(task.resized(config, trained), images)
    values: Dict[str, List[float]] = {}
    figure = "agreement"
    for mode, arguments in modes_of(config).items():
        values[mode] = []
        for side in sizes:
            sized = in_mode(task.resized(config, side), arguments)
            if reference is not None:
                value = _agreement(task, reference, _results(sized, images))
            else:
                figure, value = _evaluated(sized)
            values[mode].append(value)
            if told:
                told()
    return Curves(tuple(sizes), values, figure, trained)


def _evaluated(config: Config) -> Tuple[str, float]:
    """(name, value) of the figure that chooses the best weights."""
    task = task_of(config)(config, start_processes(config.Global.device), training=False)
    return task.best_metric, float(task.evaluate()[task.best_metric])


def _results(config: Config, images: Any) -> List[Result]:
    results = list(predictions(task_of(config).predictor(config), input_images(images)))
    for result in results:
        if result.error is not None:
            raise ConfigError(result.error)
    return results


def _agreement(task: Any, reference: Sequence[Result], results: Sequence[Result]) -> float:
    shares = [task.agreement(a, b) for a, b in zip(reference, results)]
    return sum(shares) / len(shares)
