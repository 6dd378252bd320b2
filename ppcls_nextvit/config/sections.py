"""The sections of a configuration as frozen dataclasses: names, types, defaults and ranges.

Registry-backed sections (Loss, Optimizer, DataLoader, Metric) and the arguments of the model stay
mappings here: what they may hold is the registries' to say, see tasks/check.py.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Tuple, Union

from ..schema import ConfigError

MOST = (1 << 31) - 1  # of whole numbers
MOST_CLASSES = 1 << 24

__all__ = ["AMPSection", "ArchSection", "Config", "EMASection", "GlobalSection", "InferSection"]


@dataclass(frozen=True)
class GlobalSection:
    """Run settings. Paths are relative to the working directory, as in PaddleClas.

    seed: of everything that is drawn. image_shape: (channels, height, width) meant for use, which
    exports take.
    eval_interval, start_eval_epoch: epochs. print_batch_step: optimiser steps from one printed line
    to the next.
    log_ranks: the processes that print, as '0,1'. use_visualdl, use_tensorboard, use_wandb: scalars
    for VisualDL, TensorBoard, Weights & Biases too; see engine/trackers.py.
    print_mem_info: peak memory in every line.
    to_static: train the model as a recorded graph. cpu_math: bf16 multiplies in bfloat16 within
    the convolutions of a float32 run on a CPU, and sums in float32; see engine/precision.py.
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
    # stop when the best evaluation is so many epochs old; None: never
    patience: Optional[int] = None
    print_batch_step: int = 10
    update_freq: int = 1  # batches per optimiser step (gradient accumulation)
    iter_per_epoch: Optional[int] = None  # cut epochs to so many batches
    use_visualdl: bool = False
    use_tensorboard: bool = False
    use_wandb: bool = False
    print_mem_info: bool = False
    log_ranks: Union[str, int] = "0"
    # another process that is not heard for so many seconds is lost, and the run ends
    lost_after_s: float = 60.0
    to_static: bool = False
    cpu_math: Literal["fp32", "bf16"] = "fp32"
    save_inference_dir: str = "./inference"
    infer_imgs: Union[str, List[str], None] = None
    class_num: Optional[int] = None  # PaddleClas's older place for Arch.class_num
    # PaddleClas's word for several labels an image, which data, losses and metrics tell, too
    use_multilabel: Optional[bool] = None
    # the user's own modules, imported before the rest is verified: they register what it names
    imports: Tuple[str, ...] = ()

    def __post_init__(self):
        for name, low in (
            ("epochs", 1),
            ("save_interval", 0),
            ("eval_interval", 1),
            ("patience", 1),
            ("print_batch_step", 1),
            ("update_freq", 1),
            ("iter_per_epoch", 1),
            ("seed", 0),
        ):
            _check_range(f"Global.{name}", getattr(self, name), low)
        if not self.lost_after_s >= 1:
            raise ConfigError(f"Global.lost_after_s: must be 1 or more, got {self.lost_after_s}")
        for number in self.image_shape:
            _check_range("Global.image_shape", number, 1)


def _check_range(where: str, value: Optional[int], low: int, high: int = MOST) -> None:
    """ConfigError for a number that is not from `low` to `high`; None is none."""
    if value is not None and value < low:
        raise ConfigError(f"{where}: must be {low} or more, got {value}")
    if value is not None and value > high:
        raise ConfigError(f"{where}: must be {high} or less, got {value}")


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
    # a file; or, fetched once: True, a name of the zoo or its middle, hf:OWNER/NAME, an address
    pretrained: Union[bool, str, None] = False
    use_ssld: bool = False
    use_sync_bn: bool = False
    infer_add_softmax: bool = True  # exported models end in Softmax, as PaddleClas's do
    arguments: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        _check_range("Arch.class_num", self.class_num, 1, MOST_CLASSES)


@dataclass(frozen=True)
class InferSection:
    """What tools/infer.py and the exported inference.yml use.

    transforms: those of evaluation. infer_imgs: a file, a directory, a pattern, a .txt list, or
    several. batch_size: images that a classifier takes at a time.
    PostProcess: of a classifier class_id_map_file (lines `index name`) and topk, or for several
    labels an image threshold and name: MultiLabelThreshOutput; of a detector score_threshold and
    that file, of a segmentor that file.
    """

    transforms: List[Any]
    infer_imgs: Union[str, List[str], None] = None
    batch_size: int = 10
    PostProcess: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        _check_range("Infer.batch_size", self.batch_size, 1)

    @property
    def topk(self) -> int:
        """How many classes a prediction lists; 5 where PostProcess does not say."""
        return int(self.PostProcess.get("topk", 5))

    @property
    def threshold(self) -> float:
        """The probability from which on a class is there, of several labels an image; 0.5 where
        PostProcess does not say.
        """
        return float(self.PostProcess.get("threshold", 0.5))

    @property
    def class_id_map_file(self) -> Optional[str]:
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
    def output_dir(self) -> Path:
        """Where the run writes: `<Global.output_dir>/<Arch.name>`, as in PaddleClas."""
        return Path(self.Global.output_dir) / self.Arch.name

    def section(self, dotted: str) -> Any:
        """The mapping at e.g. 'DataLoader.Train'; ConfigError when the file has none."""
        node: Any = self
        for key in dotted.split("."):
            node = node.get(key) if isinstance(node, dict) else getattr(node, key)
            if not node:
                raise ConfigError(
                    f"{self.path}: the section {dotted} is missing or empty, and this command "
                    f"needs it"
                )
        return node
