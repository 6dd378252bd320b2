"""Before the first step: what the data of a run hold, and whether their sources say the same.

The training data, the evaluation data and the file of class names each say which class has which
number. Where they differ nothing fails, and every figure is that of another class.
"""

import itertools
import logging
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from ..schema import ConfigError, named_entries, shown, shown_text
from .datasets.registry import ClassCounts, Dataset
from .transforms.pipeline import Pipeline

__all__ = ["NamesFile", "check_data", "compare_transforms"]

log = logging.getLogger(__name__)

NAMED = 5  # classes that a message names
MOST_ROWS = 20  # classes whose counts are listed
LOOKED_AT = 100_000  # images of a dataset at most whose names are compared, in half a second


class NamesFile(NamedTuple):
    """The file of class names that predictions follow: its path, and the names in order."""

    path: str
    names: Sequence[str]


def check_data(
    train: Optional[Dataset],
    evaluation: Optional[Dataset],
    names_file: Optional[NamesFile] = None,
    speaks: bool = True,
) -> None:
    """Compare the sources of a run's classes, and say what the data hold.

    speaks: whether this process logs; errors are raised in all. ConfigError, naming both sources
    and the first class, where they number classes differently, and for data of which nothing can be
    learnt or measured; ImageError for labels that cannot be read. Warnings name a class of which
    there is nothing to train on, other names in the names' file, names that differ in capitals
    alone, and images that are listed for both or, with other labels, twice.
    """
    if train is not None and evaluation is not None:
        _compare_splits(train, evaluation)
    with_names = train if train is not None else evaluation
    if names_file is not None and with_names is not None:
        _compare_with_file(with_names, names_file, speaks)
    counts = []
    for dataset, verb in ((train, "learn"), (evaluation, "measure")):
        if dataset is not None:
            found = dataset.class_counts()
            _say_what_is_there(dataset, found, verb, speaks)
            counts.append(found)
    if speaks:
        _warn_of_images(train, evaluation)
        _warn_of_like_names(with_names, names_file)
    if speaks and len(counts) == 2 and train is not None:
        known = names_file.names if names_file is not None else train.class_names
        _say_counts(known, *counts)


def compare_transforms(evaluation: Any, prediction: Any) -> None:
    """Warn where the list of transforms of DataLoader.Eval and that of Infer, which exports follow,
    prepare an image differently.
    """
    evaluated, predicted = _written_out(evaluation), _written_out(prediction)
    if evaluated != predicted:
        missing = object()
        pairs = itertools.zip_longest(evaluated, predicted, fillvalue=missing)
        ours, theirs = next(pair for pair in pairs if pair[0] != pair[1])
        log.warning(
            "Infer.transforms differ from DataLoader.Eval's, so predictions and exports will not "
            "be what is evaluated: %s where evaluation has %s",
            "nothing" if theirs is missing else shown(theirs),
            "nothing" if ours is missing else shown(ours),
        )


def _written_out(transform_ops: Any) -> List[Any]:
    """A list of transforms, those of classifiers with their defaults; without ToCHWImage, which
    changes nothing.
    """
    given = [(name, arguments or {}) for name, arguments, _ in named_entries(transform_ops, "")]
    if any(name == "DecodeImage" for name, _ in given):
        described = Pipeline(transform_ops).describe()
        given = [entry for step in described for entry in step.items()]
    return [{name: arguments} for name, arguments in given if name != "ToCHWImage"]


def _compare_splits(train: Dataset, evaluation: Dataset) -> None:
    ours, theirs = train.class_names, evaluation.class_names
    if ours is None or theirs is None or ours == theirs:
        return
    label = _first_difference(ours, theirs)
    alone = [
        f"only {dataset.source} has {shown(sorted(only))}"
        for dataset, only in ((train, {*ours} - {*theirs}), (evaluation, {*theirs} - {*ours}))
        if only
    ]
    raise ConfigError(
        f"class {label} is {_name(ours, label)} in {train.source}, but {_name(theirs, label)} in "
        f"{evaluation.source}; both must have the same classes in the same order"
        + "".join(f"; {text}" for text in alone)
    )


def _first_difference(ours: Sequence[str], theirs: Sequence[str]) -> int:
    pairs = enumerate(zip(ours, theirs))
    return next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))


def _name(names: Sequence[str], label: int) -> str:
    return shown(names[label]) if label < len(names) else "not there"


def _compare_with_file(dataset: Dataset, file: NamesFile, speaks: bool) -> None:
    """ConfigError where the file has the dataset's names in another order; a warning for others."""
    names = dataset.class_names
    if names is None:
        return
    differ = [i for i, pair in enumerate(zip(file.names, names)) if not _mean_the_same(*pair)]
    if not differ:
        return
    numbers = {name: number for number, name in enumerate(file.names)}
    moved = [label for label in differ if names[label] in numbers]
    if moved:
        label = moved[0]
        raise ConfigError(
            f"{dataset.source} names class {label} {shown(names[label])}, which is class "
            f"{numbers[names[label]]} in {file.path}; both must have the classes in the same order"
        )
    if speaks:
        log.warning(
            "%s names class %d %r, the annotations name it %r; predictions follow the former",
            shown_text(file.path),
            differ[0],
            file.names[differ[0]],
            names[differ[0]],
        )


def _mean_the_same(in_file: str, in_data: str) -> bool:
    """Whether a line of a names' file, which may hold synonyms, stands for a name in the data."""
    meant = in_data.strip().casefold()
    return meant in [part.strip().casefold() for part in (in_file, *in_file.split(","))]


def _warn_of_images(train: Optional[Dataset], evaluation: Optional[Dataset]) -> None:
    """Warnings of images that say two things: see check_data."""
    first: Dict[str, int] = {}
    for dataset in (train, evaluation):
        if dataset is None:
            continue
        numbers = _numbers_of_names(dataset)
        shared = numbers.keys() & first.keys()
        if shared:
            log.warning(
                "%s: %d of its %d images are trained on, too, the first is %s; figures of them are "
                "not those of new images",
                shown_text(dataset.source),
                len(shared),
                len(dataset),
                shown_text(min(shared, key=numbers.__getitem__)),
            )
        first = numbers


def _numbers_of_names(dataset: Dataset) -> Dict[str, int]:
    """{name of an image: where it is first}, of the first LOOKED_AT. Warns of images that are there
    again with other labels or objects.
    """
    labels = getattr(dataset, "labels", None)  # objects have none, and are different each time
    numbers: Dict[str, int] = {}
    doubtful = []
    for index in range(min(len(dataset), LOOKED_AT)):
        before = numbers.setdefault(dataset.name(index), index)
        if before != index and (labels is None or np.any(labels[before] != labels[index])):
            doubtful.append(index)
    if doubtful:
        log.warning(
            "%s: %d images are listed again with other labels, the first is %s",
            shown_text(dataset.source),
            len(doubtful),
            shown_text(dataset.name(doubtful[0])),
        )
    return numbers


def _warn_of_like_names(dataset: Optional[Dataset], file: Optional[NamesFile]) -> None:
    """A warning of the first classes whose names differ in capitals, blanks or zeros alone."""
    source, names = file or ("", ())
    if dataset is not None and dataset.class_names is not None:
        source, names = dataset.source, dataset.class_names
    seen: Dict[str, str] = {}
    for name in names:
        plain = " ".join(name.split()).casefold()
        other = seen.setdefault(plain.lstrip("0") if plain.isdecimal() else plain, name)
        if other != name:
            told = (shown_text(source), shown(other, 40), shown(name, 40))
            log.warning("%s: %s and %s are two classes; is one meant?", *told)
            return


def _say_what_is_there(dataset: Dataset, found: ClassCounts, verb: str, speaks: bool) -> None:
    """One line of what there is, a warning of a class without anything; ConfigError for nothing."""
    some, none = np.flatnonzero(found.counts), np.flatnonzero(found.counts == 0)
    partly = found.looked_at < len(dataset)
    where = f"{shown_text(dataset.source)}: {len(dataset)} images"
    where += f", {found.looked_at} of which were looked at" if partly else ""
    hint = f" ({found.hint})" if found.hint else ""
    if not len(some):
        raise ConfigError(f"{where}: no {found.unit} of any class, so nothing to {verb}{hint}")
    if not speaks:
        return
    if len(some) == 1 and len(none):
        alone, others = _classes(dataset, some), _classes(dataset, none)
        log.warning(
            "%s: all %s are of class %s, none of %s, so there is nothing else to %s%s",
            where,
            found.unit,
            alone,
            others,
            verb,
            hint,
        )
    elif len(none) and verb == "learn" and not partly:
        log.warning("%s: no %s of class %s%s", where, found.unit, _classes(dataset, none), hint)
    else:
        log.info("%s, %s", where, _range(dataset, found, some))


def _say_counts(
    known: Optional[Sequence[str]], train: ClassCounts, evaluation: ClassCounts
) -> None:
    """A line for each class, of up to MOST_ROWS classes."""
    if len(train.counts) > MOST_ROWS or len(train.counts) != len(evaluation.counts):
        return
    names = known or [str(number) for number in range(len(train.counts))]
    shown = [shown_text(name, 40) for name in names]
    width = max(len(train.unit), *map(len, shown))
    log.info("%s %12s %12s", train.unit.ljust(width), "train", "evaluation")
    for name, trained, evaluated in zip(shown, train.counts, evaluation.counts):
        log.info("%s %12d %12d", name.ljust(width), trained, evaluated)


def _range(dataset: Dataset, found: ClassCounts, some: np.ndarray) -> str:
    """'2 of 2 classes, from 5 images of class 0 to 9 of class 1', or '..., 5 images of each'."""
    ends = [some[np.argmin(found.counts[some])], some[np.argmax(found.counts[some])]]
    least, most = (f"class {_classes(dataset, np.array([end]))}" for end in ends)
    fewest, largest = found.counts[ends]
    of = f"{len(some)} of {len(found.counts)} classes"
    if fewest == largest and len(some) > 1:
        unit = found.unit.removesuffix("s") if fewest == 1 else found.unit
        return f"{of}, {fewest} {unit} of each"
    return f"{of}, from {fewest} {found.unit} of {least} to {largest} of {most}"


def _classes(dataset: Dataset, labels: np.ndarray) -> str:
    """'3 'cat', 7 'dog' and 12 others'."""
    names: Sequence[str] = dataset.class_names or ()
    told = [f"{i} {shown(names[i], 40)}" if i < len(names) else f"{i}" for i in labels[:NAMED]]
    rest = len(labels) - len(told)
    return ", ".join(told) + (f" and {rest} others" if rest else "")
