"""What a task is: the contract between one kind of problem and the programs that know none.

The training loop receives a task and knows no name of a metric; the command line looks a task up in
registry.py and calls its whole jobs (predict, export, quantize) on a Config.
"""

from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Dict, Iterator, Mapping, Optional, Protocol, Tuple

import numpy as np
import paddle

from ..config import Config
from ..engine.distributed import Processes
from ..engine.page import Table
from ..export.opened import Opened
from ..export.target import Exported
from .results import Predictor, Result
from .subject import Subject

__all__ = [
    "ExportRequest",
    "PredictOutputs",
    "QuantizeRequest",
    "ResumableTask",
    "Step",
    "Task",
]


@dataclass
class Step:
    """One training batch: the loss (a scalar to go backward from), its parts for the log, the
    number of images, and integer counts by name, which are summed over batches and processes.
    """

    loss: paddle.Tensor
    parts: Mapping[str, paddle.Tensor]
    images: int
    counts: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class PredictOutputs:
    """Where predictions go beside the terminal. json, sheet: files. out: a folder of pictures."""

    json: Optional[str] = None
    sheet: Optional[str] = None
    out: Optional[str] = None


@dataclass(frozen=True)
class ExportRequest:
    """What to export. to: a name of export.TARGETS. batch: None for any. size: (height, width), or
    None: the target's own choice, or with `any_size` any. format: of the target `paddle`. features:
    the stages' maps instead of the scores. attention: the last block's, beside the scores.
    photos: a file or a folder to compare on.
    """

    to: str = "paddle"
    precision: str = "fp32"
    batch: Optional[int] = None
    size: Optional[Tuple[int, int]] = None
    any_size: bool = False
    format: Optional[str] = None
    features: bool = False
    attention: bool = False
    photos: Optional[str] = None


@dataclass(frozen=True)
class QuantizeRequest:
    """What to write in int8 or bf16, `precision`. to: a name of export.TARGETS. calibration: for
    int8, a folder or a list of images, or None for those of DataLoader.Train, of which `images` are
    drawn. keep_float: so many layers stay in float. threads: of the CPU, while latencies are
    measured.
    """

    to: str = "openvino"
    calibration: Optional[str] = None
    images: int = 300
    keep_float: int = 0
    threads: int = 1
    precision: str = "int8"


class Task(Protocol):
    """A task of one run. Its classes are the entries of registry.TASKS.

    model: an nn.Layer. best_metric: the key of evaluate()'s result that chooses best_model.
    shown: the training figures that the bar and the curves show, the first of them drawn.
    eval_autocast: a context factory, to evaluate in low precision.
    predictor: the model with its weights, ready to predict; exported_predictor: an export of it,
    likewise; exported_model: that export in the place of `model`, to be evaluated. predict:
    predicts the images of Infer.infer_imgs with it and returns the exit status; predict_outputs:
    the fields of PredictOutputs that it heeds. export: the model with its weights, written into
    Global.save_inference_dir.
    quantize: writes the int8 export, prints how it compares and returns the exit status; None where
    there is none. measure: see `nextvit benchmark`.
    subject: the model with its weights, to be looked at (`nextvit explain`); resized: the
    configuration for square images of so many pixels, and agreement of two results of one image,
    from 0 to 1, which compare sizes.
    """

    predict_outputs: ClassVar[Tuple[str, ...]]
    predictor: Callable[[Config], Predictor]
    exported_predictor: Callable[[Opened], Predictor]
    exported_model: Callable[[Opened], Any]
    predict: Callable[[Config, PredictOutputs], int]
    export: Callable[[Config, ExportRequest], Exported]
    quantize: Optional[Callable[[Config, QuantizeRequest], int]]
    measure: Callable[..., Dict[str, Any]]
    subject: Callable[[Config], Subject]
    resized: Callable[[Config, int], Config]
    agreement: Callable[[Result, Result], float]
    model: paddle.nn.Layer
    train_loader: Any  # a Loader; None where there is no training
    eval_loader: Any
    eval_autocast: Callable[[], Any]
    best_metric: str
    shown: Tuple[str, ...]

    def __init__(
        self, config: Config, processes: Processes, training: bool = True, model: Any = None
    ):
        """model: in place of the one of `config`, such as an `exported_model`."""

    @staticmethod
    def check(config: Config) -> None:
        """Verify the sections that are this task's own, without touching data or disk. Raises
        ConfigError.
        """

    def describe(self, directory: Any) -> None:
        """Write into `directory` what a user of the run's weights needs beside its configuration:
        the names of the classes.
        """

    def losses(self, batch: Dict[str, paddle.Tensor]) -> Step:
        """The Step of one training batch."""

    def train_figures(self, counts: Mapping[str, np.ndarray]) -> Dict[str, float]:
        """{name: figure} of summed counts of `losses`."""

    def evaluate(self) -> Dict[str, Any]:
        """{metric: value, ..., images} over the whole evaluation dataset, every image exactly once
        over all processes.
        """

    def report(self, directory: Any) -> Optional[Mapping[str, Table]]:
        """Pictures of what was learnt, drawn into `directory`; and tables for the run's report, by
        their titles, if there are any.
        """


class ResumableTask(Task, Protocol):
    """A task whose evaluation can be interrupted between two images."""

    def results(self, first_step: int = 0) -> Iterator[Tuple[int, Any]]:
        """(index in the dataset, what json can write of it) of this process's evaluation images,
        from batch `first_step` on, so that an interrupted evaluation can go on.
        """

    def summary(self, results: Any) -> Dict[str, Any]:
        """What evaluate() returns, of the `results` of all images of this process."""
