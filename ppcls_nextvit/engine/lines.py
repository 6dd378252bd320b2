"""The lines that a training run prints: what begins, its figures, an evaluation."""

from typing import Any, Dict, Mapping

from ..config import Config
from ..startup import threads_text
from .distributed import Processes
from .log import memory_text, peak_memory_mb
from .logger import logger
from .progress import Progress, duration

__all__ = ["bar_text", "evaluation_line", "memory_figure", "step_line", "what_begins"]


def what_begins(
    config: Config, task: Any, processes: Processes, batches: int, trained: int
) -> None:
    """Model, device, data and where it all goes, a line each. batches: of an epoch. trained:
    parameters.
    """
    settings, loader = config.Global, task.train_loader
    logger.info(
        "%s: %.2f M trained parameters; %s, %d process%s%s",
        config.Arch.name,
        trained / 1e6,
        processes.device,
        processes.world_size,
        "es" * processes.many,
        f", {threads_text()}" if processes.device == "cpu" else "",
    )
    channels, height, width = settings.image_shape
    workers = loader.options.num_workers
    logger.info(
        "%d training images, %d a step, %d x %d x %d; %d worker%s; %s",
        loader.num_images,
        loader.batch_size * settings.update_freq * processes.world_size,
        channels,
        height,
        width,
        workers,
        "s" * (workers != 1),
        f"{task.eval_loader.num_images} evaluation images" if task.eval_loader else "no evaluation",
    )
    logger.info(
        "%d epochs of %d batches; output in %s", settings.epochs, batches, config.output_dir
    )


def memory_figure(device: str) -> Dict[str, int]:
    """The peak so far as a figure of log.jsonl; {} where the system does not tell."""
    memory = peak_memory_mb(device)
    return {} if memory is None else {"memory_mb": round(memory)}


def bar_text(figures: Mapping[str, float], shown: Mapping[str, str]) -> str:
    """What stands beside the bar: the loss, the first metric, speed and time to go."""
    first = [f"{name} {value}" for name, value in list(shown.items())[:1]]
    speed = f"{figures['images_per_s']:.3g} img/s"
    return " ".join(
        [f"loss {figures['loss']:.3f}", *first, speed, f"eta {duration(figures['eta_s'])}"]
    )


def step_line(
    progress: Progress,
    config: Config,
    batches: int,
    lr: float,
    figures: Mapping[str, float],
    shown: Mapping[str, str],
) -> None:
    """The figures since the last such line. shown: the task's metrics, as texts."""
    settings = config.Global
    memory = ""
    if settings.print_mem_info:
        memory = f" memory {memory_text(peak_memory_mb(settings.device))}"
    logger.info(
        "epoch %d/%d batch %d/%d loss %.4f%s lr %.3g %.1f img/s eta %s%s",
        progress.epoch,
        settings.epochs,
        progress.batch,
        batches,
        figures["loss"],
        "".join(f" {name} {value}" for name, value in shown.items()),
        lr,
        figures["images_per_s"],
        duration(figures["eta_s"]),
        memory,
    )


def evaluation_line(epoch: int, kind: str, result: Mapping[str, Any]) -> None:
    """An evaluation's figures. kind: which weights, 'raw' or 'ema'."""
    logger.info(
        "epoch %d evaluation (%s weights): %s",
        epoch,
        kind,
        ", ".join(
            f"{name} {value:.4f}" for name, value in result.items() if isinstance(value, float)
        ),
    )
