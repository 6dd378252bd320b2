"""The training loop. It receives a task (see tasks/base.py) and knows the name of none."""

import contextlib
import json
import math
import signal
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
import paddle

from ..config import Config, dump_config
from ..data.workers import LostWorkerError
from ..files import described, parsing
from ..schema import ConfigError
from ..startup import threads_text
from ..weights import load_weights, read_file
from .checkpoint import CheckpointError, recover, save_checkpoint, set_aside
from .curves import draw_curves, pyplot
from .disk import check_disk, set_bytes
from .distributed import start_processes, statistics_of, synchronise_batch_norms
from .ema import EMA
from .lock import own_folder
from .log import RunLog, environment, memory_text, peak_memory_mb
from .logger import logger
from .optim import build_optimizer, load_optimizer_state, optimizer_state
from .page import Table, write_page
from .peers import LOST, LostProcessError
from .precision import cpu_math, evaluates_low, float32_state, mixed_precision
from .progress import LossWindow, Progress, StopCheck, Stopped, StopSignal, duration
from .resume import Plan, read_saved
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
        self.plan = Plan(
            settings.seed,
            processes.world_size,
            self.batches,
            settings.update_freq,
            self.task.train_loader.batch_size * processes.world_size,
        )
        self.schedule = build_schedule(
            config.Optimizer.get("lr", {}), settings.epochs, self.plan.pace.updates
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
        self.progress = Progress()
        self.told_to_stop = StopCheck(processes, self._must_stop)
        # whether best_model is this run's
        self.saved_best = False
        # of this run: an older one may have left its own here
        self.last_saved = settings.checkpoints
        goes_on = bool(settings.checkpoints) and self._is_here(settings.checkpoints)
        if processes.is_main:
            self._check_folder(replaces=goes_on or overwrite)
        self._check_same(bool(settings.checkpoints))
        if settings.checkpoints:
            self._resume(settings.checkpoints)
            self._check_same(self.progress.epoch, self.progress.batch, self.progress.update)
        if goes_on:
            log.forget_after(*self._resumed_at)
        else:
            processes.barrier()  # all have read the weights that may lie in the folder
            log.start_anew(overwrite)
        if processes.is_main:
            (self.directory / "config.yaml").write_text(dump_config(config), encoding="utf-8")
            self.task.describe(self.directory)
            (self.directory / "environment.json").write_text(
                json.dumps(environment(processes), indent=1), encoding="utf-8"
            )
        self._say_what_begins()
        self._saved_at = self.progress.epoch, self.progress.batch
        self._statistics = statistics_of(self.task.model) if processes.many else []
        self._after_step()
        if settings.to_static:
            self.task.model = paddle.jit.to_static(self.task.model, full_graph=True)

    def _say_what_begins(self):
        """Model, device, data and where it all goes, a line each."""
        settings, processes, loader = self.config.Global, self.processes, self.task.train_loader
        logger.info(
            "%s: %.2f M trained parameters; %s, %d process%s%s",
            self.config.Arch.name,
            sum(p.size for p in self.trained) / 1e6,
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
            f"{self.task.eval_loader.num_images} evaluation images"
            if self.task.eval_loader
            else "no evaluation",
        )
        logger.info(
            "%d epochs of %d batches; output in %s", settings.epochs, self.batches, self.directory
        )

    def _check_same(self, *place):
        """CheckpointError unless all processes begin at the same place: each reads the checkpoint
        from its own machine's disk.
        """
        first = self.processes.sum(np.array(place) * self.processes.is_main)
        if self.processes.any(list(first) != list(place)):
            raise CheckpointError(
                f"not all processes have the same checkpoint to go on from (process "
                f"{self.processes.rank} has {self.config.Global.checkpoints}); let "
                f"Global.output_dir be on a disk that all machines share, or copy it to all of them"
            )

    def _is_here(self, prefix):
        """Whether a checkpoint lies in this run's folder: then its run goes on."""
        return Path(prefix).resolve().parent == self.directory.resolve()

    def _check_folder(self, replaces):
        """CheckpointError before the first step for a damaged journal, which would end the run at
        its first save, and for a disk without room. replaces: whether what is there gives way.
        """
        settings = self.config.Global
        for journal in self.directory.glob("*.journal"):
            recover(journal.with_suffix(""))
        size = set_bytes(self.task.model, self.optimizer, self.ema is not None)
        kept = ["latest"] + ["best_model"] * settings.eval_during_train
        others = settings.epochs // settings.save_interval if settings.save_interval else 0
        check_disk(self.directory, size, kept, others, replaces)

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
            self._draw()
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
                self._save("latest")
            if stops:
                return False
            best = self._evaluate() if due else None
            progress.epoch, progress.batch = epoch + 1, 0
            if best is not None:
                self._save("best_model", best, progress.best_weights)
            if settings.save_interval and epoch % settings.save_interval == 0:
                self._save(f"epoch_{epoch}")
            self._save("latest")
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

    def _draw(self):
        """The pictures of a run that is done, whatever becomes of them."""
        pictures = {
            "curves.png": partial(
                draw_curves, self.directory, self.task.shown, self.task.best_metric
            )
        }
        if self.config.Global.eval_during_train and not self.processes.many:
            pictures["pictures of the evaluation"] = partial(self.task.report, self.directory)
        tables: Dict[str, Table] = {}
        summary = f"{self.task.best_metric}: {self.progress.best_so_far}"
        pictures["report.html"] = partial(
            write_page, self.directory, self.config.Arch.name, summary, tables
        )
        for name, draw in pictures.items():
            try:
                with self.stop.at_once():
                    tables.update(draw() or {})
            except Stopped:
                logger.warning("%s: not drawn, because of signal %d", name, self.stop.number)
            except Exception as error:  # of any kind: the run itself is done and saved
                expected = isinstance(error, (ValueError, OSError, ImportError))
                logger.warning(
                    "%s: could not be drawn: %s", name, described(error), exc_info=not expected
                )

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
                self._after_step()
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
                f"{lr:.3g}); last good checkpoint: {self.last_saved or 'none yet'}. Lower the "
                f"learning rate, clip "
                "gradients or check the data"
            )

    def _log(self, figures, epoch, lr, bar):
        progress, epochs = self.progress, self.config.Global.epochs
        memory = peak_memory_mb(self.processes.device)
        position = round(epoch - 1 + progress.batch / self.batches, 6)
        self.log.figures(
            "train",
            update=progress.update,
            epoch=epoch,
            position=position,
            lr=lr,
            **({} if memory is None else {"memory_mb": round(memory)}),
            **figures,
        )
        shown = {name: f"{figures[name]:.4f}" for name in self.task.shown}
        bar.set_postfix_str(
            " ".join(
                [
                    f"loss {figures['loss']:.3f}",
                    *[f"{name} {value}" for name, value in list(shown.items())[:1]],
                    f"{figures['images_per_s']:.3g} img/s",
                    f"eta {duration(figures['eta_s'])}",
                ]
            )
        )
        logger.info(
            "epoch %d/%d batch %d/%d loss %.4f%s lr %.3g %.1f img/s eta %s%s",
            epoch,
            epochs,
            progress.batch,
            self.batches,
            figures["loss"],
            "".join(f" {name} {value}" for name, value in shown.items()),
            lr,
            figures["images_per_s"],
            duration(figures["eta_s"]),
            f" memory {memory_text(memory)}" if self.config.Global.print_mem_info else "",
        )

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
                logger.info(
                    "epoch %d evaluation (%s weights): %s",
                    progress.epoch,
                    kind,
                    ", ".join(
                        f"{name} {value:.4f}"
                        for name, value in result.items()
                        if isinstance(value, float)
                    ),
                )
                value = result[self.task.best_metric]
                if kind == "raw":
                    self.schedule.observe(progress.epoch, value)
                if value > progress.best:
                    progress.best = value
                    progress.best_epoch = progress.epoch
                    progress.best_weights = kind
                    best = float32_state(self.task.model)
        return best

    def _save(self, name, weights=None, kind="raw"):
        """Write a checkpoint set, for which all processes wait; `weights` may stand for the model's
        own, being of `kind` 'raw' or 'ema'.
        """
        self._write(name, weights, kind)
        self.processes.barrier()

    def _write(self, name, weights=None, kind="raw"):
        if self.processes.is_main:
            if name == "best_model":
                self._keep_a_better_one(self.directory / name)
            states = {
                **asdict(self.progress),
                **asdict(self.plan),
                "weights": kind,
                "scaler": self.scaler.state_dict(),
                "schedule": self.schedule.state_dict(),
            }
            parts = {
                ".pdparams": weights or float32_state(self.task.model),
                ".pdopt": optimizer_state(self.optimizer, self.task.model),
                ".pdstates": states,
            }
            save_checkpoint(
                self.directory / name, {**parts, ".pdema": self.ema.state()} if self.ema else parts
            )
        if name == "latest":
            self.last_saved = self.directory / name
            self._saved_at = self.progress.epoch, self.progress.batch

    def _after_step(self):
        """Keep BatchNorm's statistics: the next step changes them before its gradients are there,
        and ends in between if a process is lost.
        """
        self._kept_statistics = [tensor.clone() for tensor in self._statistics]

    def _end_without(self, lost):
        """After another process was lost: process 0 saves the last whole step as `latest`, which
        needs no other. Returns the exit status.
        """
        progress = self.progress
        if not self.processes.is_main:
            self.processes.peers.let_first_end()
        # in an evaluation all was saved before
        elif self._saved_at != (progress.epoch, progress.batch):
            for tensor, kept in zip(self._statistics, self._kept_statistics):
                tensor.set_value(kept)
            self._write("latest")
        logger.error(
            "error: %s; the run ends; resume with -o Global.checkpoints=%s",
            lost,
            self.last_saved or "(nothing was saved yet)",
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

    def _keep_a_better_one(self, prefix):
        """Before this run's first best_model: one that is there and better stays, under another
        name.
        """
        if self.saved_best or not prefix.with_suffix(".pdparams").exists():
            self.saved_best = True
            return
        try:
            best = Progress.from_states(read_file(prefix.with_suffix(".pdstates"))).best
        except (ValueError, KeyError, TypeError, OSError):  # it is not a set of ours
            best = math.inf
        if best > self.progress.best:
            told = "" if best == math.inf else f" and better ({best:.4f})"
            kept = set_aside(prefix)
            logger.warning(
                "%s is another run's%s; it is kept as %s, before this run's (%.4f) replaces it",
                prefix,
                told,
                kept.name,
                self.progress.best,
            )
        self.saved_best = True

    def _resume(self, prefix):
        """Load a checkpoint set into everything. CheckpointError for another run's or another
        format's set.
        """
        if self.processes.is_main:
            # one process alone may finish an interrupted save
            recover(prefix)
        self.processes.barrier()
        saved = read_saved(prefix, self.plan, self.ema is not None)
        with parsing(f"cannot resume from {prefix}", CheckpointError):
            load_weights(self.task.model, saved.weights)
            load_optimizer_state(self.optimizer, self.task.model, saved.optimizer)
            self.schedule.load_state_dict(saved.schedule)
            # empty: the run had none so far, as on a CPU
            if self.scaler.is_enable() and saved.scaler:
                self.scaler.load_state_dict(saved.scaler)
            if self.ema:
                self.ema.load_state(saved.ema)
        self.progress = saved.progress
        self._resumed_at = saved.progress.epoch, saved.position
        logger.info(
            "resumed from %s: epoch %d, batch %d of %d, %s",
            prefix,
            self.progress.epoch,
            self.progress.batch,
            self.batches,
            self.progress.best_so_far,
        )


def _step_seed(seed: int, update: int, position: int, rank: int) -> int:
    """A 31-bit seed for Paddle's generator (dropout, drop path), a function of the place in the run
    alone.
    """
    return int(np.random.SeedSequence((seed, update, position, rank)).generate_state(1)[0] >> 1)
