"""Our backbones in PaddleDetection: each family a module of its YAML dialect, such as `NextViT`
(configs/paddledetection/), and its Trainer behind our tools.

The wheel 2.6.0 registers and builds, but its detectors cannot run on Paddle 3; a checkout of the
develop branch on PYTHONPATH can.
"""

import inspect
import logging
import os
import re
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import paddle
from paddle import Tensor, nn

from ..config.overrides import override_value
from ..files import parsing
from ..models import MODELS, backbone_names, variant_of
from ..schema import ConfigError, nearest, require_keys, shown, shown_text, yaml_parameters
from ..weights import load_weights
from . import import_suite
from .safety import check_suite_yaml, safe_checkpoints

__all__ = ["evaluate", "export", "register", "train"]

logger = logging.getLogger("ppcls_nextvit")
INSTALL = "pip install --no-deps paddledet==2.6.0"
SETTINGS = (  # top-level keys of a YAML that are no modules
    "architecture",
    "pretrain_weights",
    "weights",
    "metric",
    "num_classes",
    "norm_type",
    "map_type",
    "epoch",
    "worker_num",
    "export",
    "slim",
    "use_gpu",
    "use_xpu",
    "use_mlu",
    "use_npu",
    "log_iter",
    "save_dir",
    "snapshot_epoch",
    "print_flops",
    "print_params",
    "print_mem_info",
    "find_unused_parameters",
    "use_ema",
    "ema_decay",
    "ema_decay_type",
    "ema_filter_no_grad",
    "cycle_epoch",
    "use_simple_ema",
    "amp",
    "amp_level",
    "master_grad",
    "init_loss_scaling",
    "fleet",
    "sync_bn",
    "use_vdl",
    "vdl_log_dir",
    "use_wandb",
    "wandb",
    "save_prediction_only",
    "output_eval",
    "bias",
    "classwise",
    "filename",
    "hidden_dim",
    "to_static",
    "enable_ce",
    "uniform_output_enabled",
    "log_ranks",
    "save_proposals",
    "proposals_path",
    "iou_thresh",
    "early_stop",
    "profiler_options",
    "ema_black_list",
    "ema_skip_names",
    "custom_black_list",
    "custom_white_list",
    "use_fused_allreduce_gradients",
    "eval_height",
    "eval_width",
    "eval_size",
)

READER_KEYS = (  # that its readers, which take any key in silence, heed beside their own arguments
    "use_shared_memory",
    "inputs_def",
    "fuse_normalize",
    "mixup_epoch",
    "cutmix_epoch",
    "mosaic_epoch",
    "pre_img_epoch",
    "transform_schedulers",
)


# of a module, where they differ from the family's own: published detectors freeze so much
DEFAULTS = {"frozen_stages": 1, "norm_eval": True}


class Hosted(nn.Layer):
    """What PaddleDetection asks of a backbone, mixed into a family of ours; the keys stay."""

    out_indices: Tuple[int, ...]

    # traced as it is: the source transformation of an export would make tensors of sizes
    @paddle.jit.not_to_static
    def forward(self, inputs: Dict[str, Tensor]) -> List[Tensor]:
        """inputs: the detector's dict with `image` [B, C, H, W] -> list of maps."""
        if self.training:
            # the detector sets training mode without calling this train(), which holds still what
            # is frozen
            self.train()
        maps = self.forward_features(inputs["image"])
        return [maps[index] for index in self.out_indices]

    @property
    def out_shape(self) -> List[Any]:
        """A ShapeSpec (channels, stride) for each map, as PaddleDetection's necks ask for them."""
        from ppdet.modeling.shape_spec import ShapeSpec

        return [
            ShapeSpec(channels=self.stage_channels[index], stride=self.stage_strides[index])
            for index in self.out_indices
        ]


def backbone_module(family: type, names: Sequence[str]) -> type:
    """The class that PaddleDetection builds the backbones `names` of `family` with, under the
    family's own name. Its arguments are the keys of that section in a YAML:

    variant: one of `names`, the first if none is given. out_indices: which of the maps come out,
    the finest is 0. pretrained: any file of load_weights; its backbone is taken. The rest are the
    family's own (see create_model).
    """
    where = family.__name__
    outs = range(len(family.stage_strides))  # type: ignore[attr-defined]
    keys = {key: parameter.default for key, parameter in _parameters(names[0]).items()}
    own = {**keys, **{key: DEFAULTS[key] for key in DEFAULTS if key in keys}}

    def __init__(
        self: Any,
        variant: str = names[0],
        out_indices: Sequence[int] = tuple(outs),
        pretrained: Optional[str] = None,
        **arguments: Any,
    ) -> None:
        if variant not in names:
            raise ConfigError(
                f"{where}.variant: unknown {shown(variant)}.{nearest(variant, names)}"
            )
        if not out_indices or not all(index in outs for index in out_indices):
            raise ConfigError(
                f"{where}.out_indices: expected numbers from 0 to {outs[-1]}, got "
                f"{shown(out_indices)}"
            )
        checked = MODELS.check(variant, {**own, **arguments}, where)
        family.__init__(self, *variant_of(variant).given, **checked, num_classes=None)  # type: ignore[misc]
        self.out_indices = tuple(out_indices)
        if pretrained:
            report = load_weights(self, pretrained, backbone_only=True)
            logger.info("backbone from %s: %s", pretrained, report)

    # its schema is the signature: names and defaults, of types it knows less than we do
    defaults = {"variant": names[0], "out_indices": tuple(outs), **own, "pretrained": None}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("self", kind)]
    parameters += [inspect.Parameter(key, kind, default=value) for key, value in defaults.items()]
    __init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    members = {"__init__": __init__, "__doc__": family.__doc__, "__module__": __name__}
    return type(family.__name__, (Hosted, family), members)


def _parameters(name: str) -> Dict[str, inspect.Parameter]:
    """What a YAML may say of the backbone `name`."""
    found = yaml_parameters(MODELS.get(name))
    return {key: parameter for key, parameter in found.items() if key != "num_classes"}


def register() -> None:
    """Make every family of backbones a module of PaddleDetection's registry, `NextViT` among them,
    and a class of this module; a second call changes nothing. ImportError without PaddleDetection.
    """
    import_suite("PaddleDetection", ("ppdet.modeling",), INSTALL)
    from ppdet.core import workspace

    families: Dict[type, List[str]] = {}
    for name in backbone_names():
        families.setdefault(variant_of(name).family, []).append(name)
    for family, names in families.items():
        # one of its own of that name stays
        if family.__name__ not in workspace.global_config:
            module = backbone_module(family, names)
            # where PaddleDetection looks for the class
            setattr(sys.modules[__name__], family.__name__, module)
            workspace.serializable(workspace.register(module))


def load(config_path: os.PathLike | str, overrides: Sequence[str] = ()) -> Any:
    """PaddleDetection's global config from a YAML in its dialect; overrides as 'section.key=value'.

    Raises ConfigError for a section or a section's key that it does not know, which PaddleDetection
    ignores, and for a file that is no YAML or names code to run.
    """
    register()
    if not os.fspath(config_path).endswith((".yml", ".yaml")):
        raise ConfigError(f"{config_path}: PaddleDetection reads files that end in .yml or .yaml")
    check_suite_yaml(config_path, "_BASE_")
    from ppdet.core.config.schema import SchemaDict
    from ppdet.core.workspace import get_registered_modules, load_config, merge_config

    nested = [_nested(override) for override in overrides]
    with parsing(str(config_path)):
        config = load_config(str(config_path))
        for override in nested:
            merge_config(override)
    modules = get_registered_modules()
    known = {*SETTINGS, *modules, *(key for module in modules.values() for key in module.shared)}
    for name, section in config.items():
        if name not in known:
            # of hundreds
            hint = nearest(name, known).partition(" Expected")[0]
            raise ConfigError(f"{config_path}: {name}: unknown section.{hint}")
        if isinstance(section, SchemaDict):
            keys = _known_keys(name, section, modules)
            if keys is not None:
                require_keys(section, keys, f"{config_path}: {name}")
    return config


def _nested(override: str) -> Dict[str, Any]:
    """{'section': {'key': value}} of 'section.key=value'."""
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"-o {shown_text(override, 300)}: expected KEY=VALUE")
    value = override_value(text, f"-o {shown_text(override, 300)}")
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _known_keys(name: str, section: Any, modules: Dict[str, Any]) -> Optional[List[str]]:
    """What the section `name` may hold; None if its module takes any key."""
    if name.endswith("Reader"):
        return [*section.schema, *READER_KEYS]
    if name.endswith("Dataset") and section.get("name") in modules:
        return ["name", *modules[section["name"]].schema]
    return list(section.schema) if section.strict else None


def _trainer(
    config_path: os.PathLike | str, overrides: Sequence[str], mode: str
) -> Tuple[Any, Any]:
    """PaddleDetection's Trainer for that config. ImportError for a PaddleDetection whose detectors
    do not run on this Paddle.
    """
    config = load(config_path, overrides)
    import ppdet
    from ppdet.engine import Trainer, init_parallel_env

    version = getattr(ppdet, "__version__", "develop")
    if re.match(r"2\.[0-6]\b", version):
        raise ImportError(
            f"PaddleDetection {version} cannot run on Paddle {paddle.__version__}, whose 0-D "
            f"tensors it does not know: put a checkout of its develop branch on PYTHONPATH, or "
            "use configs/detection/, which need no PaddleDetection"
        )
    config["use_gpu"] = config.get("use_gpu", False) and paddle.is_compiled_with_cuda()
    for device in ("use_xpu", "use_npu", "use_mlu"):
        config.setdefault(device, False)
    paddle.set_device("gpu" if config.use_gpu else "cpu")
    init_parallel_env()
    return config, Trainer(config, mode=mode)


def _read(load: Callable[[str], Any], key: str, path: Any) -> None:
    """Have the suite load the checkpoint at `path`, the value of `key`. ConfigError for what it
    asserts of a path.
    """
    if not path or not isinstance(path, str):
        raise ConfigError(
            f"{key}: expected a file of weights, got {shown(path)}; give -o {key}=FILE"
        )
    try:
        load(path)
    except AssertionError as error:
        raise ConfigError(f"{key}: {path}: {' '.join(str(error).split())}") from error


@safe_checkpoints()
def train(
    config_path: os.PathLike | str,
    overrides: Sequence[str] = (),
    resume: Optional[str] = None,
) -> int:
    """Train by PaddleDetection's Trainer, evaluating where the config has an EvalDataset. resume: a
    checkpoint of it, read by the package's own reader. Returns 0.
    """
    config, trainer = _trainer(config_path, overrides, "train")
    if resume:
        _read(trainer.resume_weights, "resume", resume)
    elif config.get("pretrain_weights"):
        _read(trainer.load_weights, "pretrain_weights", config.pretrain_weights)
    trainer.train(validate="EvalDataset" in config)
    return 0


@safe_checkpoints()
def evaluate(config_path: os.PathLike | str, overrides: Sequence[str] = ()) -> int:
    """Evaluate `weights` on EvalDataset; PaddleDetection prints the figures and writes bbox.json
    and mask.json. Returns 0.
    """
    config, trainer = _trainer(config_path, overrides, "eval")
    _read(trainer.load_weights, "weights", config.get("weights"))
    trainer.evaluate()
    return 0


@safe_checkpoints()
def export(config_path: os.PathLike | str, directory: str, overrides: Sequence[str] = ()) -> int:
    """Write Paddle Inference files of `weights` below `directory`, by PaddleDetection's export.
    Returns 0.
    """
    config, trainer = _trainer(config_path, overrides, "test")
    _read(trainer.load_weights, "weights", config.get("weights"))
    trainer.export(directory)
    return 0
