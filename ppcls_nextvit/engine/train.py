"""The training loop. It receives a task (see tasks/base.py) and knows the name of none."""

import contextlib
import json
import math
import signal
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
import paddle

from ..config import Config, dump_config
from ..data.workers import LostWorkerError
from ..files import described
from ..schema import ConfigError
from .curves import pyplot
from .distributed import start_processes, synchronise_batch_norms
from .ema import EMA
from .lines import bar_text, evaluation_line, memory_figure, step_line, what_begins
from .lock import own_folder
from .log import RunLog, environment
from .logger import logger
from .optim import build_optimizer
from .peers import LOST, LostProcessError
from .pictures import draw_end
from .precision import cpu_math, evaluates_low, float32_state, mixed_precision
from .progress import LossWindow, Progress, StopCheck, Stopped, StopSignal, duration
from .resume import Plan
from .saves import Saves, State
from .schedule import build_schedule
from .trackers import FOLDERS

__all__ = ["Run", "train"]


def train(config: Config, task_class: Callable[..., Any], overwrite: bool = False) -> int:
    """Train as the Config says; returns the exit status: 0, 128 + signal number after a stop that
    saved a checkpoint, or LOST after another process was lost.

    overwrite: an earlier run in the folder is removed; else it is set aside there.

    task_class: of the contract in tasks/base.py. Writes to `<output_dir>/<Arch.name>/`: latest,
    best_model and epoch_N checkpoints, config.yaml, environment.json, train.log, log.jsonl,
    curves.png and the task's pictures. Raises ConfigError, CheckpointError, LoadError, ImageError,
    LockedError, FloatingPointError and the like, with messages of one line.
    """
    # a missing extra must show now, not after the last epoch
    pyplot()
    settings = config.Global
    processes = start_processes(settings.device, settings.lost_after_s)
    try:
        with own_folder(config.output_dir, processes):
            trackers = [name for name in FOLDERS if getattr(settings, f"use_{name}")]
            log = RunLog(config.output_dir, processes, settings.log_ranks, trackers)
            stop = StopSignal()
            try:
                run = Run(config, task_class, processes, log, stop, overwrite)
                with cpu_math(settings.cpu_math, processes.device, settings.to_static):
                    return run.finish()
            finally:
                stop.restore()
                log.close()
    except Exception as error:
        processes.end(described(error))
        raise


class Run:
    """Everything that one training run holds, from its construction (which may resume another) to
    its end.
    """

    def __init__(self, config, task_class, processes, log, stop, overwrite=False):
        self.config, self.processes = config, processes
        self.log, self.stop, self.directory = log, stop, config.output_dir
        settings = config.Global
        if config.Optimizer is None:
            raise ConfigError(
                f"{config.path}: the section Optimizer is missing, and training needs it"
            )
        paddle.seed(settings.seed)
        self.task = task_class(config, processes)
        if config.Arch.use_sync_bn and processes.many:
            self.task.model = synchronise_batch_norms(self.task.model, processes.device)
        processes.broadcast(self.task.model)
        self.batches = min(
            len(self.task.train_loader), settings.iter_per_epoch or len(self.task.train_loader)
        )
        plan = Plan(
            settings.seed,
            processes.world_size,
            self.batches,
            settings.update_freq,
            self.task.train_loader.batch_size * processes.world_size,
        )
        self.schedule = build_schedule(
            config.Optimizer.get("lr", {}), settings.epochs, plan.pace.updates
        )
        optimizer = build_optimizer(config.Optimizer, self.task.model)
        self.task.model, self.optimizer, self.scaler, self.autocast = mixed_precision(
            config.AMP, self.task.model, optimizer, processes.device
        )
        self.trained = [
            parameter for parameter in self.task.model.parameters() if not parameter.stop_gradient
        ]
        if evaluates_low(config.AMP):
            self.task.eval_autocast = self.autocast
        self.ema = EMA(self.task.model, config.EMA.decay) if config.EMA else None
        self.state = State(
            self.task.model,
            self.optimizer,
            self.scaler,
            self.schedule,
            self.ema,
            Progress(),
            plan,
        )
        self.told_to_stop = StopCheck(processes, self._must_stop)
        self.saves = Saves(self.directory, processes, self.state)
        self.saves.last = settings.checkpoints
        goes_on = bool(settings.checkpoints) and self._is_here(settings.checkpoints)
        if processes.is_main:
            numbered = settings.epochs // settings.save_interval if settings.save_interval else 0
            self.saves.check_folder(settings.eval_during_train, numbered, goes_on or overwrite)
        self.saves.check_same(bool(settings.checkpoints))
        position = 0.0
        if settings.checkpoints:
            position = self.saves.resume(settings.checkpoints, self.batches)
        if goes_on:
            log.forget_after(self.progress.epoch, position)
        else:
            processes.barrier()  # all have read the weights that may lie in the folder
            log.start_anew(overwrite)
        if processes.is_main:
            (self.directory / "config.yaml").write_text(dump_config(config), encoding="utf-8")
            self.task.describe(self.directory)
            (self.directory / "environment.json").write_text(
                json.dumps(environment(processes), indent=1), encoding="utf-8"
            )
        trained = sum(parameter.size for parameter in self.trained)
        what_begins(config, self.task, processes, self.batches, trained)
        if settings.to_static:
            self.task.model = paddle.jit.to_static(self.task.model, full_graph=True)

    @property
    def progress(self) -> Progress:
        """Where the run is."""
        return self.state.progress

    def _is_here(self, prefix):
        """Whether a checkpoint lies in this run's folder: then its run goes on."""
        return Path(prefix).resolve().parent == self.directory.resolve()

    def finish(self) -> int:
        """Every epoch that is left, then the pictures. Returns the exit status."""
        started = time.time()
        try:
            finished = self._train()
        except Stopped:
            # in an evaluation, before which all was saved
            finished = False
        except LostProcessError as lost:
            return self._end_without(lost)
        except RuntimeError as error:
            reason = self.processes.lost(error)
            if reason is None:
                raise
            return self._end_without(reason)
        if not finished:
            return self._stopped()
        if self.processes.is_main:
            draw_end(
                self.directory,
                self.config.Arch.name,
                self.task,
                self.progress.best_so_far,
                self.config.Global.eval_during_train and not self.processes.many,
                self.stop,
            )
        if self.task.train_loader.bad_images:
            logger.warning("%d bad training images were skipped", self.task.train_loader.bad_images)
        logger.info("done in %s; %s", duration(time.time() - started), self.progress.best_so_far)
        if self.processes.is_main:
            kept = ("best_model.pdparams", "latest.pdparams", "report.html")
            written = [name for name in kept if (self.directory / name).is_file()]
            logger.info("in %s: %s", self.directory, ", ".join(written))
        return 0

    def _train(self):
        """Every epoch that is left. Returns whether none is: else the run was told to stop, and
        `latest` is where.
        """
        settings, progress = self.config.Global, self.progress
        for epoch in range(progress.epoch, settings.epochs + 1):
            progress.epoch = epoch
            self._train_epoch(epoch)
            stops = progress.batch < self.batches or self.processes.any(self._must_stop())
            due = settings.eval_during_train and (
                epoch == settings.epochs
                or (epoch >= settings.start_eval_epoch and epoch % settings.eval_interval == 0)
            )
            if stops or due:
                # before a long evaluation; resuming would go on with that
                self.saves.save("latest")
            if stops:
                return False
            best = self._evaluate() if due else None
            progress.epoch, progress.batch = epoch + 1, 0
            if best is not None:
                self.saves.save("best_model", best, progress.best_weights)
            if settings.save_interval and epoch % settings.save_interval == 0:
                self.saves.save(f"epoch_{epoch}")
            self.saves.save("latest")
            if self.processes.any(self._must_stop()) and epoch < settings.epochs:
                return False
            if due and self._waited_enough(epoch):
                break
        return True

    def _waited_enough(self, epoch):
        """Whether the best evaluation lies Global.patience epochs back; said where it ends the
        run.
        """
        patience, best = self.config.Global.patience, self.progress.best_epoch
        if patience is None or epoch - best < patience or epoch == self.config.Global.epochs:
            return False
        logger.info("no better evaluation for %d epochs (Global.patience): the run ends", patience)
        return True

    def _train_epoch(self, epoch):
        """What is left of one epoch, or as much of it as a signal allows."""
        settings, progress = self.config.Global, self.progress
        self.task.model.train()
        window = LossWindow(self.task.train_figures)
        with (
            contextlib.closing(
                self.task.train_loader.epoch(epoch, first_step=progress.batch)
            ) as loader,
            self.log.bar(self.batches, progress.batch, epoch, settings.epochs) as bar,
        ):
            while progress.batch < self.batches:
                lr = self.schedule.lr(progress.update)
                self.optimizer.set_lr(lr)
                group = min(settings.update_freq, self.batches - progress.batch)
                for position in range(group):
                    paddle.seed(
                        _step_seed(settings.seed, progress.update, position, self.processes.rank)
                    )
                    batch = next(loader)
                    self.processes.meet()  # a process may wait long for its data
                    with self.autocast():
                        step = self.task.losses(batch)
                    # waits for the device; so would any figure read after backward
                    value = float(step.loss)
                    self._check_finite(value, epoch, progress.batch + position + 1, lr)
                    window.add(value, step.parts, step.images, step.counts)
                    self.scaler.scale(step.loss / group).backward()
                self.processes.average_gradients(self.trained)
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.optimizer.clear_grad()
                progress.update += 1
                if self.ema:
                    self.ema.update(progress.update)
                progress.batch += group
                self.saves.after_step()
                bar.update(group)
                if (
                    progress.update % settings.print_batch_step == 0
                    or progress.batch == self.batches
                ):
                    left = (settings.epochs - epoch) * self.batches + self.batches - progress.batch
                    self._log(window.close(self.processes, left), epoch, lr, bar)
                if self.told_to_stop():
                    return

    def _check_finite(self, loss, epoch, batch, lr):
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at epoch {epoch}, batch {batch} (step "
                f"{self.progress.update + 1}, learning rate "
                f"{lr:.3g}); last good checkpoint: {self.saves.last or 'none yet'}. Lower the "
                f"learning rate, clip "
                "gradients or check the data"
            )

    def _log(self, figures, epoch, lr, bar):
        """Figures to log.jsonl, the bar and a line."""
        self.log.figures(
            "train",
            update=self.progress.update,
            epoch=epoch,
            position=round(epoch - 1 + self.progress.batch / self.batches, 6),
            lr=lr,
            **memory_figure(self.processes.device),
            **figures,
        )
        shown = {name: f"{figures[name]:.4f}" for name in self.task.shown}
        bar.set_postfix_str(bar_text(figures, shown))
        step_line(self.progress, self.config, self.batches, lr, figures, shown)

    def _evaluate(self):
        """Evaluate raw and averaged weights. Returns the state dict that became the best so far, or
        None.
        """
        progress, best = self.progress, None
        kinds = {"raw": contextlib.nullcontext()} | (
            {"ema": self.ema.weights_in()} if self.ema else {}
        )
        for kind, weights in kinds.items():
            with weights:
                # they differ between processes: rank 0's are saved
                self.processes.broadcast(self.task.model, statistics_only=True)
                with self.stop.at_once():
                    result = self.task.evaluate()
                self.log.figures(
                    "eval" if kind == "raw" else "eval_ema",
                    update=progress.update,
                    epoch=progress.epoch,
                    **result,
                )
                evaluation_line(progress.epoch, kind, result)
                value = result[self.task.best_metric]
                if kind == "raw":
                    self.schedule.observe(progress.epoch, value)
                if value > progress.best:
                    progress.best = value
                    progress.best_epoch = progress.epoch
                    progress.best_weights = kind
                    best = float32_state(self.task.model)
        return best

    def _end_without(self, lost):
        """After another process was lost: process 0 saves the last whole step as `latest`, which
        needs no other. Returns the exit status.
        """
        if self.processes.is_main:
            self.saves.save_alone()
        else:
            self.processes.peers.let_first_end()
        logger.error(
            "error: %s; the run ends; resume with -o Global.checkpoints=%s",
            lost,
            self.saves.last or "(nothing was saved yet)",
        )
        self.processes.end(str(lost))
        return LOST

    def _must_stop(self):
        """Whether this process was told to stop, or lost a data worker, most often as memory is
        short: the next may be the trainer.
        """
        return bool(self.stop.number or self.task.train_loader.lost_worker)

    def _stopped(self):
        lost = self.task.train_loader.lost_worker
        if lost and not self.stop.number:
            raise LostWorkerError(
                f"{lost}; stopped; resume with -o Global.checkpoints={self.directory / 'latest'}"
            )
        # another process may have got the signal
        number = self.stop.number or signal.SIGTERM
        logger.warning(
            "stopped by signal %d; resume with -o Global.checkpoints=%s",
            number,
            self.directory / "latest",
        )
        return 128 + number


def _step_seed(seed: int, update: int, position: int, rank: int) -> int:
    """A 31-bit seed for Paddle's generator (dropout, drop path), a function of the place in the run
    alone.
    """
    return int(np.random.SeedSequence((seed, update, position, rank)).generate_state(1)[0] >> 1)
