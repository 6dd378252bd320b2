"""A YAML file in PaddleClas's dialect becomes a frozen, typed Config; nothing unknown survives.

Global, AMP, EMA, Arch and Infer are dataclasses here. The other sections name entries of registries
(optimiser, loss, dataset, transform, ...), whose signatures are the schema (schema.py): everything
is checked when the file is loaded, before any work starts.
"""

import copy
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Tuple, Union

import yaml

from .schema import ConfigError, coerce, named_entries, nearest, require_keys, yaml_parameters

__all__ = [
    "Config",
    "ConfigError",
    "check_entries",
    "check_mapping",
    "dialect_of",
    "dump_config",
    "load_config",
]

DIALECTS = {
    "architecture": "PaddleDetection",
    "_BASE_": "PaddleDetection",
    "train_dataset": "PaddleSeg",
    "_base_": "PaddleSeg",
}
# keys of PaddleClas which this trainer knows and does not offer: any value but the listed ones is
# refused by name
REFUSED = {
    "use_dali": (False, None),
    "train_mode": (None,),
    "eval_mode": (None, "classification"),
    "use_multilabel": (False, None),
    "export_for_fd": (False, None),
    "uniform_output_enabled": (False, None),
    "profiler_options": (None,),
    "use_static": (False, None),
}


@dataclass(frozen=True)
class GlobalSection:
    """Run settings. Paths are relative to the working directory, as in PaddleClas.

    seed: of everything that is drawn. image_shape: (channels, height, width) meant for use, which
    exports take.
    eval_interval, start_eval_epoch: epochs. print_batch_step: optimiser steps from one printed line
    to the next.
    log_ranks: the processes that print, as '0,1'. use_visualdl: scalars for VisualDL too.
    print_mem_info: peak memory in every line.
    to_static: train the model as a recorded graph.
    """

    epochs: int
    output_dir: str = "./output/"
    # gpu on a machine without one: a warning, then the CPU
    device: Literal["auto", "cpu", "gpu", "xpu", "npu", "mlu"] = "auto"
    # resume: prefix of a .pdparams / .pdopt / .pdstates set
    checkpoints: Optional[str] = None
    # weights only: prefix or file, any format that load_weights reads
    pretrained_model: Optional[str] = None
    seed: int = 0
    image_shape: Tuple[int, int, int] = (3, 224, 224)
    # epochs between epoch_N checkpoints; 0: none but latest and best_model
    save_interval: int = 1
    eval_during_train: bool = True
    eval_interval: int = 1
    start_eval_epoch: int = 0
    print_batch_step: int = 10
    update_freq: int = 1  # batches per optimiser step (gradient accumulation)
    iter_per_epoch: Optional[int] = None  # cut epochs to so many batches
    use_visualdl: bool = False
    print_mem_info: bool = False
    log_ranks: Union[str, int] = "0"
    to_static: bool = False
    save_inference_dir: str = "./inference"
    infer_imgs: Optional[str] = None
    class_num: Optional[int] = None  # PaddleClas's older place for Arch.class_num

    def __post_init__(self):
        for name, low in (
            ("epochs", 1),
            ("save_interval", 0),
            ("eval_interval", 1),
            ("print_batch_step", 1),
            ("update_freq", 1),
            ("iter_per_epoch", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"Global.{name}: must be {low} or more, got {value}")


@dataclass(frozen=True)
class AMPSection:
    """Mixed precision. Without an AMP section it is off; Paddle has none on CPU, where it does
    nothing (and says so once).

    level: O1 casts by operator, O2 the weights too. scale_loss: of float16 alone, fixed or, with
    use_dynamic_loss_scaling, to begin with.
    use_promote: see paddle.amp.auto_cast.
    """

    use_amp: bool = True
    level: Literal["O1", "O2"] = "O1"
    dtype: Literal["float16", "bfloat16"] = "float16"
    scale_loss: float = 1.0
    use_dynamic_loss_scaling: bool = False
    use_promote: bool = False
    # evaluate in the low precision too, while training; tools/eval.py is float32
    use_fp16_test: bool = False

    def __post_init__(self):
        if self.scale_loss <= 0:
            raise ConfigError(f"AMP.scale_loss: must be above 0, got {self.scale_loss}")


@dataclass(frozen=True)
class EMASection:
    """Exponential moving average of the weights, evaluated beside the raw ones; see engine/ema.py
    for how `decay` warms up.
    """

    decay: float = 0.9999

    def __post_init__(self):
        if not 0.0 <= self.decay < 1.0:
            raise ConfigError(f"EMA.decay: must be in [0, 1), got {self.decay}")


@dataclass(frozen=True)
class ArchSection:
    """The model: `name`, `class_num`, and any keyword of the model's factory in `arguments`.

    use_ssld: True is an error where no file of weights is given. use_sync_bn: BatchNorm sees the
    batches of all processes.
    """

    name: str
    class_num: int = 1000
    # a file, or False or null; True is refused: nothing is downloaded behind your back
    pretrained: Union[bool, str, None] = False
    use_ssld: bool = False
    use_sync_bn: bool = False
    infer_add_softmax: bool = True  # exported models end in Softmax, as PaddleClas's do
    arguments: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class InferSection:
    """What tools/infer.py and the exported inference.yml use.

    transforms: those of evaluation. infer_imgs: a file or a directory. batch_size: images that a
    classifier takes at a time.
    PostProcess: of a classifier topk and class_id_map_file (lines `index name`), of a detector
    score_threshold and that file, of a segmentor that file.
    """

    transforms: List[Any]
    infer_imgs: Optional[str] = None
    batch_size: int = 10
    PostProcess: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.batch_size < 1:
            raise ConfigError(f"Infer.batch_size: must be 1 or more, got {self.batch_size}")

    @property
    def topk(self):
        """How many classes a prediction lists; 5 where PostProcess does not say."""
        return int(self.PostProcess.get("topk", 5))

    @property
    def class_id_map_file(self):
        """The file of class names, lines `index name`, or None."""
        return self.PostProcess.get("class_id_map_file")


@dataclass(frozen=True)
class Config:
    """One run. Registry-backed sections stay mappings, verified. path: of the file it was read
    from.
    """

    path: str
    Global: GlobalSection
    Arch: ArchSection
    AMP: Optional[AMPSection] = None
    EMA: Optional[EMASection] = None
    Loss: Dict[str, Any] = field(default_factory=dict)
    Optimizer: Optional[Dict[str, Any]] = None
    DataLoader: Dict[str, Any] = field(default_factory=dict)
    Metric: Dict[str, Any] = field(default_factory=dict)
    Infer: Optional[InferSection] = None

    @property
    def output_dir(self):
        """Where the run writes: `<Global.output_dir>/<Arch.name>`, as in PaddleClas."""
        return Path(self.Global.output_dir) / self.Arch.name

    def section(self, dotted):
        """The mapping at e.g. 'DataLoader.Train'; ConfigError when the file has none."""
        node = self
        for key in dotted.split("."):
            node = node.get(key) if isinstance(node, dict) else getattr(node, key)
            if not node:
                raise ConfigError(
                    f"{self.path}: the section {dotted} is missing or empty, and this command "
                    f"needs it"
                )
        return node


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path):
    """The mapping in a YAML file; ConfigError with the line for bad syntax, a duplicate key, a
    missing or unreadable file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a YAML text file: {error}") from None
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected sections (Global:, Arch:, ...), got {type(content).__name__}"
        )
    return content


def dialect_of(path):
    """Whose YAML the file is, by its keys: 'PaddleDetection', 'PaddleSeg' or, as ours and for all
    else, 'PaddleClas'.
    """
    try:
        # PaddleDetection's have tags of their own
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        # load_config says what is wrong
        root = None
    return _dialect(
        [key.value for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    )


def _dialect(content):
    return next((suite for key, suite in DIALECTS.items() if key in content), "PaddleClas")


def apply_override(content, override):
    """Set one `a.b.c=value` in place. List items go by index. The path must lead through what
    exists; checks of the key follow.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"-o {override}: expected section.key=value, e.g. -o Global.epochs=3")
    try:
        value = None if text.strip() == "None" else yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(
            f"-o {override}: {text!r} is not a YAML value: {' '.join(str(error).split())}"
        ) from None
    node, sections = content, {f.name for f in fields(Config)} - {"path"}
    if keys[0] not in sections:
        raise ConfigError(
            f"-o {override}: no section {keys[0]!r}.{nearest(keys[0], sorted(sections))}"
        )
    for depth, key in enumerate(keys):
        here, last = ".".join(keys[:depth]), depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise ConfigError(
                    f"-o {override}: {here} is a list of {len(node)}: give an index from 0 to "
                    f"{len(node) - 1}, not {key!r}"
                )
            key = int(key)
        elif not isinstance(node, dict):
            raise ConfigError(
                f"-o {override}: {here} is the value {node!r}, which has no key {key!r}"
            )
        elif not last and node.get(key) is None:
            if depth and key not in node:
                raise ConfigError(f"-o {override}: {here} has no key {key!r}.{nearest(key, node)}")
            node[key] = {}
        if last:
            node[key] = value
        node = node[key]


def load_config(path, overrides=()):
    """Read, override and verify a configuration file in PaddleClas's dialect.

    overrides: `a.b.c=value` strings, applied in order. Returns a Config. Raises ConfigError naming
    file, key, value and the nearest name for anything that cannot be meant; nothing is ignored.
    """
    content = read_yaml(path)
    if _dialect(content) != "PaddleClas":
        raise ConfigError(
            f"{path}: this is {_dialect(content)}'s dialect; this command reads PaddleClas's, "
            f"which has Arch"
        )
    for override in overrides:
        apply_override(content, override)
    try:
        return _typed(str(path), content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _typed(path, content):
    require_keys(content, [f.name for f in fields(Config) if f.name != "path"], "(file)")
    for name in ("Global", "Arch"):
        if not isinstance(content.get(name), dict):
            raise ConfigError(f"{name}: this section is missing or empty")
    run = dict(content["Global"])
    for key, accepted in REFUSED.items():
        if run.pop(key, None) not in accepted:
            raise ConfigError(
                f"Global.{key}: {content['Global'][key]!r} is PaddleClas's and not supported "
                f"here; leave the key out"
            )
    config = Config(
        path=path,
        Global=_section(GlobalSection, run, "Global"),
        Arch=_arch(content["Arch"], run.get("class_num")),
        AMP=_optional(AMPSection, content, "AMP"),
        EMA=_optional(EMASection, content, "EMA"),
        Infer=_optional(InferSection, content, "Infer"),
        **{
            name: copy.deepcopy(content[name])
            for name in ("Loss", "Optimizer", "DataLoader", "Metric")
            if content.get(name) is not None
        },
    )
    _check_registry_sections(config)
    return config


def _section(cls, content, where):
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected keys and values, got {content!r}")
    schema = {f.name: f for f in fields(cls)}
    require_keys(content, schema, where)
    for f in schema.values():
        if f.name not in content and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{where}.{f.name}: missing")
    return cls(
        **{key: coerce(value, schema[key].type, f"{where}.{key}") for key, value in content.items()}
    )


def _optional(cls, content, where):
    return None if content.get(where) is None else _section(cls, content[where], where)


def _arch(content, class_num):
    from .models import MODELS, check_backbone

    own = {f.name for f in fields(ArchSection)} - {"arguments"}
    if "name" not in content:
        raise ConfigError("Arch.name: missing; it names the model, e.g. NextViT_small")
    if content["name"] in ("DistillationModel", "RecModel"):
        raise ConfigError(
            f"Arch.name: {content['name']} is not supported; to distil, use Loss.Train "
            f"DistillationLoss with a teacher"
        )
    given = dict(content)
    if class_num is not None:
        given.setdefault("class_num", class_num)
    arch = _section(ArchSection, {key: value for key, value in given.items() if key in own}, "Arch")
    if arch.class_num < 1:
        raise ConfigError(f"Arch.class_num: must be 1 or more, got {arch.class_num}")
    if arch.pretrained is True:
        raise ConfigError(
            "Arch.pretrained: True would download weights; give the path of a file, or use "
            "Global.pretrained_model"
        )
    # class_num in this dialect
    keywords = set(yaml_parameters(MODELS.get(arch.name, "Arch.name"))) - {"num_classes"}
    require_keys(given, sorted(own | keywords), "Arch")
    arguments = MODELS.check(
        arch.name, {key: value for key, value in given.items() if key in keywords}, "Arch"
    )
    if "backbone" in keywords:
        check_backbone(arguments.get("backbone"))
    return replace(arch, arguments=arguments)


def _check_registry_sections(config):
    """Names, keys and types of everything a registry builds, without touching data or disk."""
    from .data import check_loader
    from .engine.optim import OPTIMIZERS
    from .engine.schedule import build_schedule
    from .tasks.registry import task_of

    if config.Optimizer is not None:
        optimizer = dict(coerce(config.Optimizer, dict, "Optimizer"))
        build_schedule(optimizer.pop("lr", {}), config.Global.epochs, steps_per_epoch=100)
        OPTIMIZERS.check(optimizer.pop("name", None), optimizer, "Optimizer")
    for mode, content in check_mapping(config.DataLoader, "DataLoader", ("Train", "Eval")).items():
        check_loader(content, mode)
    task_of(config).check(config)


def check_entries(content, where, registry):
    """Verify a section {Train: [...], Eval: [...]} whose entries `registry` builds, e.g. Loss and
    Metric. ConfigError below `where`.
    """
    for mode, entries in check_mapping(content, where, ("Train", "Eval")).items():
        for name, arguments, place in named_entries(entries, f"{where}.{mode}"):
            registry.check(name, arguments, place)


def check_mapping(content, where, allowed):
    """`content`, if it is a mapping with no other keys than `allowed`; else ConfigError that begins
    with `where`.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected keys and values, got {content!r}")
    require_keys(content, allowed, where)
    return content


def dump_config(config):
    """The resolved configuration as YAML text that load_config reads back to the same Config."""
    content = {
        key: value for key, value in asdict(config).items() if value is not None and key != "path"
    }
    content["Arch"].update(content["Arch"].pop("arguments"))
    content["Global"]["image_shape"] = list(content["Global"]["image_shape"])
    return yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True)


def _plain(node):
    """Tuples as lists: safe YAML knows no tuples."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(item) for item in node] if isinstance(node, (list, tuple)) else node
