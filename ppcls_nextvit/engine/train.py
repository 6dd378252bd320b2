"""The training loop, read from top to bottom. It knows no task: see classification.py for what a task supplies."""
import contextlib
import json
import math
import signal
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import paddle

from ..config import dump_config
from ..schema import ConfigError
from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .classification import ClassificationTask
from .distributed import start_processes, synchronise_batch_norms
from .ema import EMA
from .log import RunLog, environment, logger, peak_memory_mb
from .optim import build_optimizer, load_optimizer_state, optimizer_state
from .report import draw_curves, pyplot
from .schedule import build_schedule


@dataclass
class Progress:
    """Where a run stands: all that resuming needs besides weights and optimiser, since randomness is a function of place."""

    epoch: int = 1                       # 1-based; the epoch in work
    batch: int = 0                       # batches of it that are done
    update: int = 0                      # optimiser steps done since the beginning
    best: float = -math.inf              # best evaluated value of `metric`
    best_epoch: int = 0
    best_weights: str = ""               # 'raw' or 'ema': which weights best_model holds


class Stop:
    """Notes SIGTERM and SIGINT, so that the loop can save and leave between two optimiser steps; a second one kills at once."""

    def __init__(self):
        self.signal = 0
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number, frame):
        self.signal = number
        self.restore()

    def restore(self):
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def train(config, task_class=ClassificationTask):
    """Train as the Config says; returns the exit status: 0, or 128 + signal number after a stop that saved a checkpoint.

    Writes `<output_dir>/<Arch.name>/`: latest, best_model and epoch_N checkpoints, config.yaml, environment.json, train.log, log.jsonl, curves.png
    and the task's pictures. Raises ConfigError, CheckpointError, LoadError, ImageError, FloatingPointError, ... with one-line messages.
    """
    # ---- processes, data, model -----------------------------------------------------------------------------------------------------------
    run, where = config.Global, config.output_dir
    pyplot()                                                        # a missing extra must show now, not after the last epoch
    processes = start_processes(run.device)
    log = RunLog(where, processes, run.log_ranks, run.use_visualdl)
    if run.device not in ("auto", processes.device):
        logger.warning("Global.device is %s, which this Paddle or machine does not have: running on the CPU", run.device)
    paddle.seed(run.seed)
    task = task_class(config, processes)
    model = task.model
    if config.Arch.use_sync_bn and processes.many:
        model = task.model = synchronise_batch_norms(model, processes.device)
    processes.broadcast(model)
    batches = min(len(task.train_loader), run.iter_per_epoch or len(task.train_loader))
    updates_per_epoch = -(-batches // run.update_freq)               # the last step of an epoch may have fewer batches
    if config.Optimizer is None:
        raise ConfigError(f"{config.path}: the section Optimizer is missing, and training needs it")
    schedule = build_schedule(config.Optimizer.get("lr"), run.epochs, updates_per_epoch)
    optimizer = build_optimizer(config.Optimizer, model)
    trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    model, optimizer, scaler, autocast = _mixed_precision(config.AMP, model, optimizer, processes.device)
    task.model = model
    ema = EMA(model, config.EMA.decay) if config.EMA else None

    # ---- resume ---------------------------------------------------------------------------------------------------------------------------
    progress = Progress()
    plan = {"seed": run.seed, "world_size": processes.world_size, "batches": batches, "update_freq": run.update_freq}
    if run.checkpoints:
        progress = _resume(run.checkpoints, plan, model, optimizer, schedule, scaler, ema)
        log.forget_after(progress.update)
        logger.info("resumed from %s: epoch %d, batch %d of %d, best %.4f (epoch %d)", run.checkpoints, progress.epoch, progress.batch, batches,
                    progress.best, progress.best_epoch)
    if processes.is_main:
        (where / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        (where / "environment.json").write_text(json.dumps(environment(processes), indent=1), encoding="utf-8")
    logger.info("%s: %.2f M parameters, %d training images, %d x %d batches on %d %s process(es), output %s", config.Arch.name,
                sum(p.size for p in trained) / 1e6, task.train_loader.num_images, run.epochs, batches, processes.world_size, processes.device, where)
    if run.to_static:
        model = task.model = paddle.jit.to_static(model, full_graph=True)

    def save(name, weights=None):
        if processes.is_main:
            states = {**asdict(progress), **plan, "scaler": scaler.state_dict(), "schedule": schedule.state_dict()}
            parts = {".pdparams": weights or model.state_dict(), ".pdopt": optimizer_state(optimizer, model), ".pdstates": states}
            save_checkpoint(where / name, {**parts, ".pdema": ema.state()} if ema else parts)
        processes.barrier()

    # ---- train ----------------------------------------------------------------------------------------------------------------------------
    stop, first_epoch, started = Stop(), progress.epoch, time.time()
    try:
        for epoch in range(first_epoch, run.epochs + 1):
            progress.epoch = epoch
            bar = log.bar(batches, progress.batch, epoch, run.epochs)
            model.train()
            window = Window()
            loader = iter(task.train_loader.epoch(epoch, first_step=progress.batch))
            while progress.batch < batches:
                lr = schedule.lr(progress.update)
                optimizer.set_lr(lr)
                group = min(run.update_freq, batches - progress.batch)
                for position in range(group):
                    paddle.seed(_stream(run.seed, progress.update, position, processes.rank))
                    with autocast():
                        loss, parts, counts = task.losses(next(loader))
                    if not math.isfinite(float(loss)):
                        raise FloatingPointError(
                            f"the loss is {float(loss)} at epoch {epoch}, batch {progress.batch + position + 1} (step {progress.update + 1}, learning rate "
                            f"{lr:.3g}); last good checkpoint: {_last_saved(where)}. Lower the learning rate, clip gradients or check the images")
                    scaler.scale(loss / group).backward()
                    window.add(float(loss), parts, counts)
                processes.average_gradients(trained)
                scaler.step(optimizer)
                scaler.update()
                optimizer.clear_grad()
                if ema:
                    ema.update()
                progress.update += 1
                progress.batch += group
                bar.update(group)
                if progress.update % run.print_batch_step == 0 or progress.batch == batches:
                    left = (run.epochs - epoch) * batches + batches - progress.batch
                    figures = window.close(processes, left)
                    bar.set_postfix(loss=f"{figures['loss']:.3f}", top1=f"{figures['top1']:.3f}", img_s=f"{figures['images_per_s']:.0f}")
                    log.figures("train", update=progress.update, epoch=epoch, position=round(epoch - 1 + progress.batch / batches, 4), lr=lr,
                                memory_mb=round(peak_memory_mb(processes.device)), **figures)
                    logger.info("epoch %d/%d batch %d/%d loss %.4f top1 %.4f lr %.3g %.1f img/s eta %s%s", epoch, run.epochs, progress.batch, batches,
                                figures["loss"], figures["top1"], lr, figures["images_per_s"], _duration(figures["eta_s"]),
                                f" memory {peak_memory_mb(processes.device):.0f} MB" if run.print_mem_info else "")
                if processes.any(stop.signal):
                    break
            bar.close()
            if progress.batch < batches:                             # stopped between two steps
                save("latest")
                logger.warning("stopped by signal %d; resume with -o Global.checkpoints=%s", stop.signal, where / "latest")
                return 128 + (stop.signal or signal.SIGTERM)

            # ---- evaluate and save --------------------------------------------------------------------------------------------------------
            due = epoch >= run.start_eval_epoch and epoch % run.eval_interval == 0 or epoch == run.epochs
            best_weights = _evaluate(task, model, ema, progress, schedule, processes, log, autocast if _low_precision_eval(config.AMP)
                                     else contextlib.nullcontext) if run.eval_during_train and due else None
            progress.epoch, progress.batch = epoch + 1, 0
            if best_weights is not None:
                save("best_model", best_weights)
            if run.save_interval and epoch % run.save_interval == 0:
                save(f"epoch_{epoch}")
            save("latest")
            if processes.any(stop.signal) and epoch < run.epochs:
                logger.warning("stopped by signal %d; resume with -o Global.checkpoints=%s", stop.signal, where / "latest")
                return 128 + (stop.signal or signal.SIGTERM)
        if processes.is_main:
            draw_curves(where)
            if run.eval_during_train and not processes.many:
                task.report(where)
        if task.train_loader.bad_images:
            logger.warning("%d bad training images were skipped", task.train_loader.bad_images)
        logger.info("done in %s; best %.4f at epoch %d (%s weights)", _duration(time.time() - started), progress.best, progress.best_epoch,
                    progress.best_weights or "no")
        return 0
    finally:
        stop.restore()
        log.close()


class Window:
    """Averages over all processes since the last printed line."""

    def __init__(self):
        self.started, self.sums, self.parts = time.time(), np.zeros(4), {}

    def add(self, loss, parts, counts):
        """One batch: its loss, the loss's parts and [correct, images]."""
        self.sums += [loss, 1, *counts]
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + float(value)

    def close(self, processes, batches_left):
        """The averages, images per second of all processes and seconds to go; the window begins anew."""
        seconds, own_batches = max(time.time() - self.started, 1e-9), self.sums[1]
        loss, batches, correct, images = processes.sum(self.sums)
        figures = {"loss": float(loss / batches), "top1": float(correct / images), "images_per_s": round(float(images) / seconds, 2),
                   "eta_s": round(seconds / own_batches * batches_left)}
        if len(self.parts) > 1:
            figures.update({name: total / own_batches for name, total in self.parts.items()})
        self.__init__()
        return figures


def _evaluate(task, model, ema, progress, schedule, processes, log, autocast):
    """Evaluate raw and averaged weights; update `progress`; return the state dict that became the best, or None."""
    processes.broadcast(model, statistics_only=True)                    # BatchNorm statistics differ between processes: rank 0's count
    best = None
    for kind, context in (("raw", contextlib.nullcontext()), ("ema", ema.weights_in() if ema else None)):
        if context is None:
            continue
        with context:
            result = task.evaluate(autocast)
            log.figures("eval" if kind == "raw" else "eval_ema", update=progress.update, epoch=progress.epoch, **result)
            logger.info("epoch %d evaluation%s: %s", progress.epoch, " (EMA)" if kind == "ema" else "",
                        ", ".join(f"{name} {value:.4f}" for name, value in result.items() if isinstance(value, float)))
            value = next(iter(result.values()))                      # the first metric decides, as in PaddleClas
            if kind == "raw":
                schedule.observe(progress.epoch, result["loss"])
            if value > progress.best:
                progress.best, progress.best_epoch, progress.best_weights = value, progress.epoch, kind
                best = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return best


def _mixed_precision(amp, model, optimizer, device):
    """(model, optimizer, scaler, autocast context factory). On a CPU mixed precision does nothing, which is said once."""
    if amp is None or not amp.use_amp or device == "cpu":
        if amp and amp.use_amp:
            logger.warning("AMP: Paddle has no mixed precision on a CPU; training in float32")
        return model, optimizer, paddle.amp.GradScaler(enable=False), contextlib.nullcontext
    if amp.level == "O2":
        model, optimizer = paddle.amp.decorate(model, optimizers=optimizer, level="O2", dtype=amp.dtype, save_dtype="float32")
    scaler = paddle.amp.GradScaler(enable=amp.dtype == "float16", init_loss_scaling=amp.scale_loss,
                                   use_dynamic_loss_scaling=amp.use_dynamic_loss_scaling)
    return model, optimizer, scaler, partial(paddle.amp.auto_cast, level=amp.level, dtype=amp.dtype, use_promote=amp.use_promote)


def _low_precision_eval(amp):
    return amp is not None and amp.use_amp and (amp.use_fp16_test or amp.level == "O2")


def _resume(prefix, plan, model, optimizer, schedule, scaler, ema):
    """Load a checkpoint set into everything; returns its Progress. CheckpointError for another run's or another format's set."""
    from ..weights import load_weights
    parts = load_checkpoint(prefix)
    states = parts[".pdstates"]
    wanted = set(asdict(Progress())) | set(plan)
    if not isinstance(states, dict) or not wanted <= set(states):
        raise CheckpointError(f"cannot resume from {prefix}: its .pdstates was not written by this trainer; use Global.pretrained_model for its weights")
    differ = [f"{key} {states[key]} (now {plan[key]})" for key in plan if states[key] != plan[key]]
    if differ and states["batch"]:
        raise CheckpointError(f"cannot resume from {prefix} in the middle of an epoch with {', '.join(differ)}; keep them as they were")
    if differ:
        logger.warning("resuming with %s: the run goes on, but will not equal an uninterrupted one", ", ".join(differ))
    if (ema is not None) != (".pdema" in parts):
        raise CheckpointError(f"cannot resume from {prefix}: it has {'no' if ema else 'an'} EMA, the configuration {'has one' if ema else 'has none'}")
    load_weights(model, parts[".pdparams"])
    load_optimizer_state(optimizer, model, parts[".pdopt"])
    schedule.load_state_dict(states["schedule"])
    if scaler.is_enable():
        scaler.load_state_dict(states["scaler"])
    if ema:
        ema.load_state(parts[".pdema"])
    return Progress(**{name: states[name] for name in asdict(Progress())})


def _stream(seed, update, position, rank):
    """A 31-bit seed for Paddle's generator (dropout, drop path), a function of the place in the run alone."""
    return int(np.random.SeedSequence((seed, update, position, rank)).generate_state(1)[0] >> 1)


def _last_saved(where):
    path = Path(where) / "latest.pdparams"
    return path.with_suffix("") if path.exists() else "none yet"


def _duration(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
