"""Our models in PaddleSeg, wheel 2.8.0 or checkout: backbones for its heads, our heads, and `train`
and `evaluate` by its own core.

In its YAML dialect (configs/paddleseg/), with one section more, `run`, for what its own program
takes on the command line:

    model: {type: NextViTUPerNet, num_classes: 150, backbone: {type: NextViT_small, extra_norms:
    True, pretrained: FILE}}
    run: {device: gpu, save_dir: output/upernet, save_interval: 16000}
"""

import importlib
import inspect
import logging
import os
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Literal, Optional, Sequence, Tuple

import paddle
from paddle import Tensor, nn

from ..files import parsing
from ..models import MODELS, backbone_names, build_backbone, list_models
from ..models.resizing import resize_like
from ..schema import ConfigError, Registry, require_keys, shown
from ..weights import load_weights
from . import import_suite
from .safety import check_suite_yaml, safe_checkpoints

__all__ = ["evaluate", "register", "train"]

logger = logging.getLogger("ppcls_nextvit")
INSTALL = "pip install --no-deps paddleseg==2.8.0"
SECTIONS = (
    "batch_size",
    "iters",
    "model",
    "train_dataset",
    "val_dataset",
    "optimizer",
    "lr_scheduler",
    "loss",
    "test_config",
    "run",
    "export",
    "distill_loss",
    "to_static_training",
)
PREFIX = "NextViT"  # of our heads' names there, where it has heads of the same names
RUN = Registry("section")


def register() -> List[str]:
    """Add our backbones to BACKBONES, NextViT_{small,base,large} among them, and our segmentors
    whose losses are PaddleSeg's to MODELS, NextViT{SemanticFPN,UPerNet}; returns their names.
    ImportError without PaddleSeg.

    A backbone takes in_channels, pretrained (any file of load_weights: its backbone is taken) and
    the keys of a `backbone` mapping here (see create_model); it has feat_channels and returns four
    maps. The heads take num_classes, backbone (such a one), pretrained (the whole segmentor) and
    their own keys; PaddleSeg's losses apply to the logits, then to the auxiliary ones, which
    UPerNet alone has.
    """
    suite = import_suite("PaddleSeg", ("paddleseg",), INSTALL)
    from paddleseg.cvlibs import manager

    if suite.__version__ == "2.8.0":
        _shim_0d_tensors()
    heads = [name for name in list_models("segmentation") if not MODELS.get(name).brings_losses]
    made: Dict[str, Tuple[Any, Any]] = {
        **{name: (manager.BACKBONES, _backbone(name)) for name in backbone_names()},
        **{f"{PREFIX}{name}": (manager.MODELS, _head(name)) for name in heads},
    }
    for name, (components, component) in made.items():
        if name not in components.components_dict:
            component.__name__ = name
            components.add_component(component)
    return list(made)


def _shim_0d_tensors() -> None:
    """PaddleSeg 2.8.0 is older than Paddle's 0-D tensors and strict types: what three of its
    modules expect, put into these alone.
    """
    core: Any = importlib.import_module("paddleseg.core.train")
    metrics: Any = importlib.import_module("paddleseg.utils.metrics")
    loss: Any = importlib.import_module("paddleseg.models.losses.cross_entropy_loss")
    if metrics.paddle is not paddle:
        return  # done before
    losses = core.loss_computation
    # it logs value[0]
    core.loss_computation = lambda *args, **named: [
        value.reshape([1]) for value in losses(*args, **named)
    ]
    # of one sum per class
    metrics.paddle = SimpleNamespace(**{**vars(paddle), "concat": paddle.stack})
    # x a float mask
    loss.paddle = SimpleNamespace(
        **{**vars(paddle), "ones_like": lambda label: paddle.ones_like(label, "float32")}
    )


class Hosted(nn.Layer):
    """What PaddleSeg asks of a backbone, mixed into a family of ours; the model that holds it sets
    training mode without calling train(), so forward does.
    """

    @property
    def feat_channels(self) -> List[int]:
        """Channels of the four maps, as PaddleSeg's heads ask for them."""
        return list(self.stage_channels)

    # traced as it is: the source transformation of an export would make tensors of sizes
    @paddle.jit.not_to_static
    def forward(self, x: Tensor) -> List[Tensor]:
        """x: [B, C, H, W] -> four maps."""
        if self.training:
            self.train()
        return super().forward(x)


def _backbone(name: str) -> Callable[..., nn.Layer]:
    def build(in_channels: int = 3, pretrained: Optional[str] = None, **arguments: Any) -> nn.Layer:
        section = {"name": name, "in_channels": in_channels, **arguments}
        network = build_backbone(section, "model.backbone", Hosted)
        if pretrained:
            report = load_weights(network, pretrained, backbone_only=True)
            logger.info("backbone from %s: %s", pretrained, report)
        return network

    return build


def _head(name: str) -> type:
    class Head(MODELS.get(name)):  # type: ignore[misc]
        """The segmentor on a backbone that the suite has made already."""

        neck: Any

        def __init__(
            self,
            num_classes: int,
            backbone: nn.Layer,
            pretrained: Optional[str] = None,
            **arguments: Any,
        ) -> None:
            super().__init__(num_classes=num_classes, backbone=backbone, **arguments)
            if isinstance(self.neck, nn.Identity):
                del self.neck
                # the suite calls paddle.flops, which takes no Layer whose input is a list
                self.neck = list
            if pretrained:
                report = load_weights(self, pretrained, head="fresh_on_mismatch")
                logger.info("weights from %s: %s", pretrained, report)

        @paddle.jit.not_to_static
        def forward(self, image: Tensor) -> List[Tensor]:
            """[B, C, H, W] -> the list of logits [B, num_classes, H, W] that PaddleSeg expects; in
            evaluation of the decode head alone.
            """
            if not self.training:
                return [super().forward(image)]
            return [resize_like(logits, image) for logits in self.forward_heads(image)]

    return Head


def _build(
    config_path: os.PathLike | str, overrides: Sequence[str]
) -> Tuple[Any, Any, Dict[str, Any]]:
    """(Config, SegBuilder, checked arguments of `run`) of a YAML in PaddleSeg's dialect."""
    register()
    check_suite_yaml(config_path, "_base_")
    from paddleseg.core import evaluate as evaluation
    from paddleseg.cvlibs import Config, SegBuilder
    from paddleseg.utils import utils

    with parsing(str(config_path)):
        config = Config(str(config_path), opts=list(overrides) or None)
    require_keys(config.dic, SECTIONS, config_path)
    require_keys(
        config.test_config, inspect.signature(evaluation).parameters, f"{config_path}: test_config"
    )
    run = RUN.check("run", config.dic.pop("run", None), f"{config_path}: run")
    utils.set_device(run.get("device", "cpu"))
    utils.set_seed(run.get("seed"))
    return config, SegBuilder(config), run


def _made(builder: Any, *parts: str) -> List[Any]:
    """Those parts of the builder; what it says about a key or value that it does not know as a
    ConfigError.
    """
    try:
        return [getattr(builder, part) for part in parts]
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(str(error)) from error


@safe_checkpoints()
def train(config_path: os.PathLike | str, overrides: Sequence[str] = ()) -> int:
    """Train by PaddleSeg's core.train from a YAML in its dialect; overrides as 'section.key=value'.
    Returns the exit status 0.

    Checkpoints that the file names, `run.resume_model` too, are read by the package's own reader.
    Raises ConfigError for sections, keys and values that PaddleSeg does not know, ImportError
    without PaddleSeg.
    """
    config, builder, run = _build(config_path, overrides)
    return _train(config, builder, **run)


@RUN.register(name="run")
def _train(
    config: Any,
    builder: Any,
    *,
    device: Literal["cpu", "gpu", "xpu", "npu", "mlu"] = "cpu",
    seed: Optional[int] = None,
    do_eval: bool = True,
    save_dir: str = "./output",
    save_interval: int = 1000,
    log_iters: int = 10,
    num_workers: int = 0,
    resume_model: Optional[str] = None,
    keep_checkpoint_max: int = 5,
    use_vdl: bool = False,
    use_ema: bool = False,
    precision: Literal["fp32", "fp16"] = "fp32",
    amp_level: Literal["O1", "O2"] = "O1",
) -> int:
    from paddleseg.core import train as fit
    from paddleseg.utils import utils

    if resume_model is not None:
        _check_resumed(resume_model)
    model, dataset, optimizer, losses = _made(
        builder, "model", "train_dataset", "optimizer", "loss"
    )
    held_out = _made(builder, "val_dataset")[0] if do_eval else None
    fit(
        utils.convert_sync_batchnorm(model, device),
        dataset,
        val_dataset=held_out,
        optimizer=optimizer,
        losses=losses,
        iters=config.iters,
        batch_size=config.batch_size,
        test_config=config.test_config,
        save_dir=save_dir,
        save_interval=save_interval,
        log_iters=log_iters,
        num_workers=num_workers,
        resume_model=resume_model,
        use_vdl=use_vdl,
        keep_checkpoint_max=keep_checkpoint_max,
        use_ema=use_ema,
        precision=precision,
        amp_level=amp_level,
        to_static_training=config.to_static_training,
    )
    return 0


def _check_resumed(folder: str) -> None:
    """ConfigError for a folder from which PaddleSeg cannot resume: it takes the step from its
    name.
    """
    files = ("model.pdparams", "model.pdopt")
    missing = [name for name in files if not os.path.isfile(os.path.join(folder, name))]
    number = os.path.normpath(folder).rpartition("_")[2]
    if missing or not (number.isdecimal() and len(number) < 10):
        lacks = f", and there is no {' and no '.join(missing)}" if missing else ""
        raise ConfigError(
            f"run.resume_model: expected a folder iter_N as PaddleSeg saves it, got "
            f"{shown(folder)}{lacks}"
        )


@safe_checkpoints()
def evaluate(
    config_path: os.PathLike | str,
    weights: os.PathLike | str | None = None,
    overrides: Sequence[str] = (),
) -> Dict[str, float]:
    """{'miou', 'accuracy'} on val_dataset, by PaddleSeg's core.evaluate.

    weights: a segmentor's, any file of load_weights; None: those of `model.pretrained`. ConfigError
    if there are none.
    """
    config, builder, run = _build(config_path, overrides)
    if not weights and not config.dic["model"].get("pretrained"):
        raise ConfigError(
            f"{config_path}: nothing to evaluate; give weights: -o model.pretrained=FILE"
        )
    from paddleseg.core import evaluate as evaluation

    model, dataset = _made(builder, "model", "val_dataset")
    if weights:
        logger.info("weights from %s: %s", weights, load_weights(model, weights))
    miou, accuracy, *_ = evaluation(
        model, dataset, num_workers=run.get("num_workers", 0), **config.test_config
    )
    return {"miou": float(miou), "accuracy": float(accuracy)}
