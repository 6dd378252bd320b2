"""List the models with their parameters and multiply-adds.

    nextvit models
    nextvit models NextViT_small --size 384

Multiply-adds of one square image, by the rule of the paper's FLOPs; `fused` is the model that an
export writes. Detectors and segmentors take any of the classifiers as their backbone.
"""

import argparse
from typing import List, NamedTuple

from .common import add_imports

__all__ = ["Cost", "cost_of"]


class Cost(NamedTuple):
    """What a model costs: trainable values, multiply-adds of one image, [C, H, W] of its maps."""

    parameters: int
    multiply_adds: int
    fused_parameters: int
    fused_multiply_adds: int
    maps: List[List[int]]


def cost_of(name: str, size: int) -> Cost:
    """The Cost of the classifier `name` for a square image of `size` pixels."""
    import paddle

    from ..models import create_model, fuse_bn
    from ..models.complexity import count_macs, count_parameters

    model = create_model(name)
    model.eval()
    fused = fuse_bn(model)
    with paddle.no_grad():
        maps = fused.forward_features(paddle.zeros([1, model.in_channels, size, size]))
    parameters, fused_parameters = count_parameters(model), count_parameters(fused)
    multiply_adds = count_macs(model, size)
    nothing_to_fuse = fused_parameters == parameters
    return Cost(
        parameters,
        multiply_adds,
        fused_parameters,
        multiply_adds if nothing_to_fuse else count_macs(fused, size),
        [each.shape[1:] for each in maps],
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="one model, with its maps and published weights")
    parser.add_argument(
        "--size", type=int, default=224, metavar="PIXELS", help="default: %(default)s"
    )
    add_imports(parser)


def run(args: argparse.Namespace) -> int:
    import paddle

    paddle.set_device("cpu")
    return _describe(args.name, args.size) if args.name else _list(args.size)


def _list(size: int) -> int:
    from ..models import MODELS
    from ..models.registry import backbone_names
    from ..schema import yaml_parameters
    from ..tasks import TASKS

    print(f"{'classifier':28}{'parameters':>12}{f'multiply-adds, {size} px':>25}{'fused':>10}")
    for name in backbone_names():
        cost = cost_of(name, size)
        print(
            f"{name:28}{cost.parameters:>12,}{_giga(cost.multiply_adds):>25}"
            f"{_giga(cost.fused_multiply_adds):>10}"
        )
    on_backbones = [name for name in MODELS if "backbone" in yaml_parameters(MODELS.get(name))]
    for task in TASKS:
        names = sorted(name for name in on_backbones if MODELS.get(name).task == task)
        if names:
            print(f"{task}: {', '.join(names)}")
    return 0


def _describe(name: str, size: int) -> int:
    from .. import zoo
    from ..models import MODELS
    from ..schema import yaml_parameters

    entry = MODELS.get(name)
    print(f"{name}, {entry.task}")
    keys = [str(parameter) for parameter in yaml_parameters(entry).values()]
    print(f"arguments: {', '.join(keys)}")
    if "backbone" not in yaml_parameters(entry):
        cost = cost_of(name, size)
        print(f"parameters: {cost.parameters:,}; fused {cost.fused_parameters:,}")
        print(
            f"multiply-adds of {size} x {size} pixels: {_giga(cost.multiply_adds)}; fused "
            f"{_giga(cost.fused_multiply_adds)}"
        )
        print(f"maps: {' '.join('x'.join(map(str, shape)) for shape in cost.maps)}")
    for record in zoo.WEIGHTS.values():
        if record.model == name:
            figures = ", ".join(f"{metric} {value}" for metric, value in record.published.items())
            print(f"weights: {record.name}: {figures}")
    return 0


def _giga(count: int) -> str:
    return f"{count / 1e9:.2f} G"
