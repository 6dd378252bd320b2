"""What a run goes on from: a checkpoint set that was verified against it."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, Mapping

from ..files import parsing
from ..schema import shown
from .checkpoint import CheckpointError, load_checkpoint
from .logger import logger
from .progress import Pace, Progress

__all__ = ["Plan", "Saved", "read_saved"]

UNEQUAL = "the run goes on, but will not equal an uninterrupted one"


@dataclass(frozen=True)
class Plan:
    """What must stay as it was for a resumed run to equal an uninterrupted one. batches: of an
    epoch and a process. update_freq: batches of an optimiser step. batch_images: of a batch of
    all processes; 0: unknown, as of runs before this was saved.
    """

    seed: int
    world_size: int
    batches: int
    update_freq: int
    batch_images: int = 0

    @property
    def pace(self) -> Pace:
        """How long an epoch is."""
        return Pace(self.batches, self.update_freq, self.batch_images)


@dataclass(frozen=True)
class Saved:
    """A set to go on from. progress: where, of this run. position: in epochs, of the run that saved
    it. The others: what the files hold, as they came; ema: None where there is none.
    """

    progress: Progress
    position: float
    weights: Dict[str, Any]
    optimizer: Any
    schedule: Any
    scaler: Any
    ema: Any


def read_saved(prefix: str, plan: Plan, with_ema: bool) -> Saved:
    """The set at `prefix`, for a run of this `plan`. Where the plan is another than that of the run
    that saved it, the progress is the same share of the run. CheckpointError for another program's
    set, and for one that this run cannot go on from.
    """
    parts = load_checkpoint(prefix)
    states = parts[".pdstates"]
    needed = {*asdict(Progress()), *asdict(plan)} - {"batch_images"}
    if not isinstance(states, dict) or not needed <= set(states):
        raise CheckpointError(
            f"cannot resume from {prefix}: its .pdstates was not written by this trainer; to use "
            f"its weights alone, give Global.pretrained_model"
        )
    with parsing(f"cannot resume from {prefix}", CheckpointError):
        then, progress = _plan_of(states), Progress.from_states(states)
        if not isinstance(parts[".pdparams"], dict):
            raise ValueError(f"its .pdparams holds no weights but {shown(parts['.pdparams'])}")
    if states.get("weights") == "ema":
        raise CheckpointError(
            f"cannot resume from {prefix}: it holds averaged (EMA) weights, which were evaluated "
            f"best; resume from latest, or give it as Global.pretrained_model"
        )
    if with_ema != (".pdema" in parts):
        raise CheckpointError(
            f"cannot resume from {prefix}: it has {'no' if with_ema else 'an'} EMA, the "
            f"configuration {'has one' if with_ema else 'has none'}"
        )
    return Saved(
        progress=_continued(prefix, progress, then, plan),
        position=progress.epoch - 1 + (progress.batch + 0.5) / then.batches,
        weights=parts[".pdparams"],
        optimizer=parts[".pdopt"],
        schedule=states.get("schedule"),
        scaler=states.get("scaler"),
        ema=parts.get(".pdema"),
    )


def _plan_of(states: Mapping[str, Any]) -> Plan:
    """The Plan of the run that saved `states`. ValueError for what none can be."""
    names = [name for name in asdict(Plan(0, 1, 1, 1)) if name in states]
    then = Plan(**{name: states[name] for name in names})
    for name, value in asdict(then).items():
        if type(value) is not int or value < (name not in ("seed", "batch_images")):
            raise ValueError(f"{name} must be a whole number, got {shown(value)}")
    if states.get("weights", "raw") not in ("raw", "ema"):
        raise ValueError(f"weights must be raw or ema, got {shown(states['weights'])}")
    return then


def _continued(prefix: str, progress: Progress, then: Plan, now: Plan) -> Progress:
    """Where a run of the plan `now` is, at `progress` of the run `then`."""
    if then in (now, replace(now, batch_images=0)):
        return progress
    were, are = asdict(then), asdict(now)
    differ = ", ".join(
        f"{key} {were[key]} (now {are[key]})"
        for key in are
        if were[key] != are[key] and (were[key] or key == "seed")
    )
    if progress.batch and then.seed != now.seed:
        raise CheckpointError(
            f"cannot resume from {prefix} in the middle of an epoch with {differ}; keep them as "
            f"they were: another seed puts the images in another order"
        )
    moved = progress.moved(then.pace, now.pace)
    logger.warning("resuming with %s: %s", differ, UNEQUAL)
    if progress.batch not in (0, then.batches):
        logger.warning(
            "the share of epoch %d that is done, %d of %d batches, is taken for %d of %d%s",
            progress.epoch,
            progress.batch,
            then.batches,
            moved.batch,
            now.batches,
            _images_again(progress.batch * then.batch_images - moved.batch * now.batch_images)
            if now.pace.has_images_of(then.pace)
            else "",
        )
    return moved


def _images_again(number: int) -> str:
    """What becomes of the images between the place that was saved and the one that goes on."""
    return f"; the last {number} images come again" if number > 0 else ", after the same images"
