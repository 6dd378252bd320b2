"""Next-ViT in PaddleSeg, wheel 2.8.0 or checkout: backbones for its heads, our heads, and `train`
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
from types import SimpleNamespace
from typing import Literal, Optional

import paddle

from ..models import MODELS, build_backbone
from ..models.backbones.nextvit import VARIANTS, NextViT
from ..models.segmentors.heads import resize_like
from ..schema import ConfigError, Registry, require_keys
from ..weights import load_weights
from . import import_suite

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
HEADS = ("SemanticFPN", "UPerNet")
RUN = Registry("section")


def register():
    """Add BACKBONES NextViT_{small,base,large} and MODELS NextViT{SemanticFPN,UPerNet}; returns
    their names. ImportError without PaddleSeg.

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
    made = {
        **{name: (manager.BACKBONES, _backbone(name)) for name in VARIANTS},
        **{f"NextViT{name}": (manager.MODELS, _head(name)) for name in HEADS},
    }
    for name, (components, component) in made.items():
        if name not in components.components_dict:
            component.__name__ = name
            components.add_component(component)
    return list(made)


def _shim_0d_tensors():
    """PaddleSeg 2.8.0 is older than Paddle's 0-D tensors and strict types: what three of its
    modules expect, put into these alone.
    """
    core, metrics, loss = (
        importlib.import_module(f"paddleseg.{name}")
        for name in ("core.train", "utils.metrics", "models.losses.cross_entropy_loss")
    )
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


class Backbone(NextViT):
    """NextViT as PaddleSeg knows a backbone; the model that holds it sets training mode without
    calling train(), so forward does.
    """

    @property
    def feat_channels(self):
        """Channels of the four maps, as PaddleSeg's heads ask for them."""
        return list(self.stage_channels)

    # traced as it is: the source transformation of an export would make tensors of sizes
    @paddle.jit.not_to_static
    def forward(self, x):
        if self.training:
            self.train()
        return super().forward(x)


def _backbone(name):
    def build(in_channels=3, pretrained=None, **arguments):
        network = build_backbone(
            {"name": name, "in_channels": in_channels, **arguments}, where="model.backbone"
        )
        network.__class__ = Backbone
        if pretrained:
            logger.info(
                "backbone from %s: %s",
                pretrained,
                load_weights(network, pretrained, backbone_only=True),
            )
        return network

    return build


def _head(name):
    class Head(MODELS.get(name)):
        def __init__(self, num_classes, backbone, pretrained=None, **arguments):
            # built around a placeholder: the suite makes the backbone first
            super().__init__(
                num_classes=num_classes,
                backbone={"name": "NextViT_small", "depths": (1, 1, 5, 1)},
                **arguments,
            )
            self.backbone, self.in_channels = backbone, backbone.in_channels
            if isinstance(self.neck, paddle.nn.Identity):
                del self.neck
                # the suite calls paddle.flops, which takes no Layer whose input is a list
                self.neck = list
            if pretrained:
                logger.info(
                    "weights from %s: %s",
                    pretrained,
                    load_weights(self, pretrained, head="fresh_on_mismatch"),
                )

        @paddle.jit.not_to_static
        def forward(self, image):
            """[B, C, H, W] -> the list of logits [B, num_classes, H, W] that PaddleSeg expects; in
            evaluation of the decode head alone.
            """
            return (
                [resize_like(logits, image) for logits in self.forward_heads(image)]
                if self.training
                else [super().forward(image)]
            )

    return Head


def _build(config_path, overrides):
    """(Config, SegBuilder, checked arguments of `run`) of a YAML in PaddleSeg's dialect."""
    register()
    from paddleseg.core import evaluate as evaluation
    from paddleseg.cvlibs import Config, SegBuilder
    from paddleseg.utils import utils

    try:
        config = Config(str(config_path), opts=list(overrides) or None)
    except (AssertionError, RuntimeError, OSError) as error:
        raise ConfigError(f"{config_path}: {error}") from error
    require_keys(config.dic, SECTIONS, config_path)
    require_keys(
        config.test_config, inspect.signature(evaluation).parameters, f"{config_path}: test_config"
    )
    run = RUN.check("run", config.dic.pop("run", None), f"{config_path}: run")
    utils.set_device(run.get("device", "cpu"))
    utils.set_seed(run.get("seed"))
    return config, SegBuilder(config), run


def _made(builder, *parts):
    """Those parts of the builder; what it says about a key or value that it does not know as a
    ConfigError.
    """
    try:
        return [getattr(builder, part) for part in parts]
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(str(error)) from error


def train(config_path, overrides=()):
    """Train by PaddleSeg's core.train from a YAML in its dialect; overrides as 'section.key=value'.
    Returns the exit status 0.

    Raises ConfigError for sections, keys and values that PaddleSeg does not know, ImportError
    without PaddleSeg.
    """
    config, builder, run = _build(config_path, overrides)
    return _train(config, builder, **run)


@RUN.register(name="run")
def _train(
    config,
    builder,
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
):
    from paddleseg.core import train as fit
    from paddleseg.utils import utils

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


def evaluate(config_path, weights=None, overrides=()):
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
