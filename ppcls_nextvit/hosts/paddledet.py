"""Next-ViT in PaddleDetection: the backbone `NextViT` for its YAML dialect
(configs/paddledetection/), and its Trainer behind our tools.

The wheel 2.6.0 registers and builds, but its detectors cannot run on Paddle 3; a checkout of the
develop branch on PYTHONPATH can.
"""

import logging
import re
from dataclasses import replace

import paddle
import yaml

from ..models.backbones.nextvit import VARIANTS
from ..models.backbones.nextvit import NextViT as Network
from ..schema import ConfigError, nearest, require_keys
from ..weights import load_weights
from . import import_suite

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


class NextViT(Network):
    """The backbone, as a module of PaddleDetection once register() was called; its arguments are
    the keys of `NextViT:` in a YAML.

    variant: NextViT_small, NextViT_base or NextViT_large. out_indices: which of the maps of strides
    4, 8, 16, 32 come out.
    frozen_stages: 0 freezes nothing, 1 the stem and the first stage, ... pretrained: any file of
    load_weights; its backbone is taken. The rest as in models.nextvit.NextViT.
    """

    def __init__(
        self,
        variant="NextViT_small",
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_eval=True,
        drop_path_rate=None,
        extra_norms=False,
        recompute=False,
        in_channels=3,
        depths=None,
        pretrained=None,
    ):
        if variant not in VARIANTS:
            raise ConfigError(f"NextViT.variant: unknown {variant!r}.{nearest(variant, VARIANTS)}")
        if not out_indices or not all(index in range(4) for index in out_indices):
            raise ConfigError(
                f"NextViT.out_indices: expected numbers from 0 to 3, got {out_indices!r}"
            )
        given = {"drop_path_rate": drop_path_rate, "depths": depths and tuple(depths)}
        config = replace(
            VARIANTS[variant], **{key: value for key, value in given.items() if value is not None}
        )
        super().__init__(
            config,
            None,
            in_channels,
            recompute=recompute,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            extra_norms=extra_norms,
        )
        self.out_indices = tuple(out_indices)
        if pretrained:
            logger.info(
                "backbone from %s: %s",
                pretrained,
                load_weights(self, pretrained, backbone_only=True),
            )

    # traced as it is: the source transformation of an export would make tensors of sizes
    @paddle.jit.not_to_static
    def forward(self, inputs):
        """inputs: the detector's dict with `image` [B, C, H, W] -> list of maps."""
        if self.training:
            # the detector sets training mode without calling this train(), which holds still what
            # is frozen
            self.train()
        maps = self.forward_features(inputs["image"])
        return [maps[index] for index in self.out_indices]

    @property
    def out_shape(self):
        """A ShapeSpec (channels, stride) for each map, as PaddleDetection's necks ask for them."""
        from ppdet.modeling.shape_spec import ShapeSpec

        return [
            ShapeSpec(channels=self.stage_channels[index], stride=self.stage_strides[index])
            for index in self.out_indices
        ]


def register():
    """Make `NextViT` a module of PaddleDetection's registry; a second call changes nothing.
    ImportError without PaddleDetection.
    """
    import_suite("PaddleDetection", ("ppdet.modeling",), INSTALL)
    from ppdet.core import workspace

    if NextViT.__name__ not in workspace.global_config:
        workspace.serializable(workspace.register(NextViT))


def load(config_path, overrides=()):
    """PaddleDetection's global config from a YAML in its dialect; overrides as 'section.key=value'.

    Raises ConfigError for a section or a section's key that it does not know, which PaddleDetection
    ignores.
    """
    register()
    from ppdet.core.config.schema import SchemaDict
    from ppdet.core.workspace import get_registered_modules, load_config, merge_config

    config = load_config(str(config_path))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"-o {override}: expected KEY=VALUE")
        value = yaml.safe_load(value)
        for part in reversed(key.split(".")):
            value = {part: value}
        merge_config(value)
    modules = get_registered_modules()
    known = {*SETTINGS, *modules, *(key for module in modules.values() for key in module.shared)}
    for name, section in config.items():
        if name not in known:
            # of hundreds
            raise ConfigError(
                f"{config_path}: {name}: unknown "
                f"section.{nearest(name, known).partition(' Expected')[0]}"
            )
        if isinstance(section, SchemaDict):
            if name.endswith("Reader"):
                require_keys(section, [*section.schema, *READER_KEYS], f"{config_path}: {name}")
            elif name.endswith("Dataset") and section.get("name") in modules:
                require_keys(
                    section, ["name", *modules[section["name"]].schema], f"{config_path}: {name}"
                )
            elif section.strict:
                require_keys(section, section.schema, f"{config_path}: {name}")
    return config


def _trainer(config_path, overrides, mode):
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
            f"tensors it does not know: put a "
            "checkout of its develop branch on PYTHONPATH, or use configs/detection/, which need "
            "no PaddleDetection"
        )
    config["use_gpu"] = config.get("use_gpu", False) and paddle.is_compiled_with_cuda()
    for device in ("use_xpu", "use_npu", "use_mlu"):
        config.setdefault(device, False)
    paddle.set_device("gpu" if config.use_gpu else "cpu")
    init_parallel_env()
    return config, Trainer(config, mode=mode)


def train(config_path, overrides=(), resume=None):
    """Train by PaddleDetection's Trainer, evaluating where the config has an EvalDataset. resume: a
    checkpoint of it. Returns 0.
    """
    config, trainer = _trainer(config_path, overrides, "train")
    if resume:
        trainer.resume_weights(resume)
    elif config.get("pretrain_weights"):
        trainer.load_weights(config.pretrain_weights)
    trainer.train(validate="EvalDataset" in config)
    return 0


def evaluate(config_path, overrides=()):
    """Evaluate `weights` on EvalDataset; PaddleDetection prints the figures and writes bbox.json
    and mask.json. Returns 0.
    """
    config, trainer = _trainer(config_path, overrides, "eval")
    trainer.load_weights(config.weights)
    trainer.evaluate()
    return 0


def export(config_path, directory, overrides=()):
    """Write Paddle Inference files of `weights` below `directory`, by PaddleDetection's export.
    Returns 0.
    """
    config, trainer = _trainer(config_path, overrides, "test")
    trainer.load_weights(config.weights)
    trainer.export(directory)
    return 0
