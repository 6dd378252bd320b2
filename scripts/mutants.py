"""Tests that can fail: wrong numbers, comparisons and conditions, one at a time, in a copy of the
repository, and the fast tests that reach the function which has it; with --slow of a survivor the
area's slow tests of the default run too. Prints every mutant that no test caught.

Which mutants are drawn is a function of the seed, which is printed. Areas come in an order that
the seed draws as well, some mutants of one after the other: which of an area's tests reach what is
learned once, and takes longer than a mutant. The mutations are cosmic-ray's (the
extra `dev`).
"""

import argparse
import ast
import os
import random
import re
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Iterator, Optional, Sequence

from mutant_tests import FAST, SLOW, SURVIVED, Reach, copied, preload, run_tests

PACKAGE = "ppcls_nextvit"
# {area: (its sources, the tests that cover them, quick ones first)}
AREAS: dict[str, tuple[str, str]] = {
    "next-vit": ("models/backbones/{nextvit,base}", "models model_contracts"),
    "transnext": (
        "models/backbones/{transnext,tokens,sliding_window,positions}",
        "transnext model_contracts",
    ),
    "layers": (
        "models/{layers,folding,forms,complexity} ops/*",
        "ops ops_passes ops_convolution ops_product ops_deformable models model_contracts",
    ),
    "mask r-cnn": (
        "models/detectors/{boxes,masks,targets,rpn,roi,mask_rcnn} models/necks/fpn",
        "published_constants public_defaults limits detection_boxes detection_losses detection_model",
    ),
    "dino": (
        "models/detectors/{matching,denoising,deformable,transformer,dino*} "
        "models/necks/channel_mapper",
        "published_constants public_defaults limits deformable dino",
    ),
    "segmentors": (
        "models/segmentors/*",
        "segmentation_numbers segmentation_losses segmentation_models",
    ),
    "losses": (
        "tasks/classification/{losses,multilabel_losses} tasks/segmentation/{losses,region_losses}",
        "published_constants public_defaults limits losses multilabel_numbers multilabel segmentation_losses segmentation_numbers",
    ),
    "metrics": (
        "tasks/*/{metrics,multilabel_metrics} data/rle",
        "metrics multilabel_numbers multilabel segmentation_numbers coco_map detection_boxes faults_annotations",
    ),
    "schedules": ("engine/schedule/*", "public_defaults limits schedule"),
    "optimisers": (
        "engine/{optim,parameter_groups,ema,precision}",
        "published_constants public_defaults limits optim ops_passes parameter_groups precision train resume",
    ),
    "checkpoints": (
        "engine/{checkpoint,resume,progress,lock}",
        "checkpoint lock resume run_end",
    ),
    "weights": (
        "weights/{load,rules,placement,translation,convert,checkpoint}",
        "weights_load weights_families weight_conversion weights_dense transnext_weights",
    ),
    "readers": (
        "weights/reader weights/formats/*",
        "weights_reader weight_conversion checkpoint",
    ),
    "transforms": (
        "data/transforms/{evaluation,random_pixels,random_geometry,autoaugment,pipeline}",
        "published_constants public_defaults limits augment preprocess data",
    ),
    "joint transforms": (
        "data/transforms/joint/*",
        "published_constants public_defaults limits joint_transforms annotated_data",
    ),
    "mixing": ("data/mixing", "published_constants public_defaults limits augment data"),
    "samplers": (
        "data/{samplers,batches,loader}",
        "public_defaults limits data faults_loading annotated_data",
    ),
    "datasets": (
        "data/{packed,lists} data/datasets/{classification,coco,segmentation,annotated}",
        "packed data faults_files annotated_data faults_annotations",
    ),
}
# tests that call nothing: they hold defaults and constants, which are read on import
VALUES = (
    "tests/test_constants.py",
    "tests/test_public_defaults.py",
    "tests/test_published_constants.py",
)
OPERATORS = (
    "NumberReplacer",
    "ReplaceComparisonOperator",
    "ReplaceBinaryOperator",
    "ReplaceUnaryOperator",
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ZeroIterationForLoop",
)


@dataclass(frozen=True)
class Mutant:
    """An operator of cosmic-ray at its `occurrence`-th place in a file."""

    area: str
    path: Path
    operator: str
    occurrence: int
    place: tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant, in so many seconds, of as many tests that reach it."""

    mutant: Mutant
    caught_by: str  # "" for a survivor
    change: str
    seconds: float
    tests: int


# Which mutants there are
# --------------------------------------------------------------------------------------


def sources(root: Path, patterns: str) -> list[Path]:
    """The package's files that these patterns name, `{a,b}` being either; relative to root."""
    found = []
    for pattern in patterns.split():
        for one in _alternatives(pattern):
            found += sorted((root / PACKAGE).glob(f"{one}.py"))
    return [path.relative_to(root) for path in found if path.name != "__init__.py"]


def _alternatives(pattern: str) -> list[str]:
    start, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    words, _, end = rest.partition("}")
    return [f"{start}{word}{end}" for word in words.split(",")]


def tests(root: Path, area: str) -> list[str]:
    """The files of tests of an area, those that there are."""
    paths = [f"tests/test_{name}.py" for name in AREAS[area][1].split()]
    return [path for path in paths if (root / path).exists()]


def importers(root: Path, source: Path) -> list[str]:
    """The files of tests that name the module of a source, whichever area they are of."""
    module = source.with_suffix("").as_posix().replace("/", ".")
    name = re.compile(
        rf"{re.escape(module)}\b|"
        rf"from {re.escape(module.rpartition('.')[0])} import .*\b{source.stem}\b"
    )
    files = sorted((root / "tests").glob("test_*.py"))
    found = [path for path in files if name.search(path.read_text(encoding="utf-8"))]
    return [path.relative_to(root).as_posix() for path in found]


def mutants(root: Path, area: str) -> dict[tuple[Path, tuple[int, int]], list[Mutant]]:
    """All mutants of an area's files, by their place: one place has up to a dozen."""
    found: dict[tuple[Path, tuple[int, int]], list[Mutant]] = {}
    for path in sources(root, AREAS[area][0]):
        text = (root / path).read_text(encoding="utf-8")
        skipped = _not_behaviour(text)
        for name, occurrence, place in _places(text):
            if place[0] not in skipped:
                mutant = Mutant(area, path, name, occurrence, place)
                found.setdefault((path, place), []).append(mutant)
    return found


def _places(text: str) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """(operator, occurrence, (line, column)) of every mutation that the operators make in text."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(text)))
    for name in operator_names():
        if name.partition("/")[2].startswith(OPERATORS):
            operator = get_operator(name)()
            starts = (start for node in nodes for start, _ in operator.mutation_positions(node))
            for occurrence, place in enumerate(starts):
                yield name, occurrence, place


def _not_behaviour(text: str) -> set[int]:
    """The lines of messages and of annotations alone: what an error says, `-> int | None`."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Raise | ast.Assert):
            lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def mutated(root: Path, mutant: Mutant) -> Optional[str]:
    """The file's text with the mutation; None where it means the same to Python."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    text = (root / mutant.path).read_text(encoding="utf-8")
    changed = mutate_code(text, get_operator(mutant.operator)(), mutant.occurrence)
    with suppress(SyntaxError):
        if changed and ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)):
            return str(changed)
    return None


def change(original: str, text: str) -> str:
    """`before -> after` of the first line that differs."""
    pairs = zip(original.splitlines(), text.splitlines())
    old, new = next((old, new) for old, new in pairs if old != new)
    return f"{old.strip()}  ->  {new.strip()}"


def drawn(root: Path, areas: Sequence[str], seed: int, each: int) -> Iterator[tuple[Mutant, str]]:
    """Mutants without end or until all were drawn, so many of an area after the other, whose order
    is drawn too: a place of the area's, each as likely as any other, then one of the mutations of
    that place.
    """
    rng = random.Random(seed)
    order = rng.sample(areas, len(areas))
    left: dict[str, list[list[Mutant]]] = {}
    while any(left.get(area, [[]]) for area in order):
        for area in order:
            if area not in left:
                left[area] = list(mutants(root, area).values())
                rng.shuffle(left[area])
            yield from islice(_in_turn(root, left[area], rng), each)


def _in_turn(
    root: Path, places: list[list[Mutant]], rng: random.Random
) -> Iterator[tuple[Mutant, str]]:
    while places:
        mutant = rng.choice(places.pop())
        text = mutated(root, mutant)
        if text is not None:
            yield mutant, text


# Trying them
# --------------------------------------------------------------------------------------


class Campaign:
    """A copy of the repository in which mutants are tried."""

    def __init__(self, copy: Path, slow: bool = False):
        self.copy, self.slow = copy, slow
        self.reach = Reach()
        self.right: set[str] = set()  # tests that pass without a mutant

    def outcome(self, mutant: Mutant, text: str, end: float) -> Optional[Outcome]:
        """What the tests say, before the time `end`: the area's, of a survivor those that name its
        module as well, and at last, if `slow`, the area's slow ones. None where there was no time
        to say it. RuntimeError for a test that fails without the mutant as well.
        """
        own = tests(self.copy, mutant.area)
        more = [file for file in importers(self.copy, mutant.path) if file not in own]
        caught, seconds, count = "", 0.0, 0
        for files in ([*VALUES, *own], more):
            ran = self._ran(mutant, text, files, end)
            if ran is None:
                return None
            caught, took, reached_by = ran
            seconds, count = seconds + took, count + reached_by
            if caught:
                break
        if self.slow and not caught:
            begin = time.monotonic()
            answer = self._failed(mutant, text, own, end, SLOW)
            if answer is None:
                return None
            caught, seconds = answer, seconds + time.monotonic() - begin
        original = (self.copy / mutant.path).read_text(encoding="utf-8")
        return Outcome(mutant, caught, change(original, text), seconds, count)

    def _ran(
        self, mutant: Mutant, text: str, files: Sequence[str], end: float
    ) -> Optional[tuple[str, float, int]]:
        """(what caught it, seconds, tests of these files that reach it)."""
        for file in files:
            if not self.reach.learn(self.copy, file, end - time.monotonic()):
                return None
        original = (self.copy / mutant.path).read_text(encoding="utf-8")
        reached_by = self.reach.tests(files, mutant.path, original, mutant.place[0])
        known = self.reach.seconds
        values = [test for test in known if test.partition("::")[0] in set(files) & set(VALUES)]
        first = [*values, *(test for test in reached_by if test not in values)]
        begin = time.monotonic()
        caught = self._failed(mutant, text, first, end, FAST)
        return None if caught is None else (caught, time.monotonic() - begin, len(reached_by))

    def _failed(
        self, mutant: Mutant, text: str, tests: Sequence[str], end: float, marks: str
    ) -> Optional[str]:
        """The test of these, files or single ones, that fails; "" where none does, None where there
        was no time to say it.
        """
        path = self.copy / mutant.path
        original = path.read_text(encoding="utf-8")
        try:
            self._write(path, text)
            status, failed = run_tests(self.copy, tests, end - time.monotonic(), marks=marks)
        finally:
            self._write(path, original)
        if status is None:
            return None
        if status == SURVIVED:
            return ""
        self._passes_without(failed, marks)
        return failed or "the import"

    def _write(self, path: Path, text: str) -> None:
        """Write a module, and forget how it was compiled: its time and size may be the same."""
        path.write_text(text, encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()

    def _passes_without(self, test: str, marks: str) -> None:
        if "::" not in test or test.endswith(")") or test in self.right:
            return
        status, _ = run_tests(self.copy, [test], 600, marks=marks)
        if status != SURVIVED:
            log = (self.copy.parent / "log").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{test} fails without a mutant:\n{log[-4000:]}")
        self.right.add(test)


def shown(outcome: Outcome) -> str:
    """A line for a mutant."""
    mutant = outcome.mutant
    where = f"{mutant.path}:{mutant.place[0]}"
    end = f"caught by {outcome.caught_by}" if outcome.caught_by else "SURVIVED"
    return f"{where}: {outcome.change}: {end} ({outcome.tests} tests, {outcome.seconds:.0f} s)"


def campaign(
    areas: Sequence[str], seed: int, each: int, count: int, seconds: float, slow: bool = False
) -> list[Outcome]:
    """Try that many mutants, or as many as the seconds allow; prints a line for each."""
    end, outcomes, undecided = time.monotonic() + seconds, [], 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copied(copy)
        runner = Campaign(copy, slow)
        for mutant, text in drawn(copy, areas, seed, each):
            if len(outcomes) == count or time.monotonic() >= end:
                break
            try:
                outcome = runner.outcome(mutant, text, end)
            except RuntimeError as error:  # tests that fail without a mutant say nothing of it
                print(f"{mutant.path}:{mutant.place[0]}: {error}", flush=True)
                if runner.reach.fails.keys() & set(VALUES):  # which every mutant meets
                    break
                outcome = None
            if outcome is None:
                undecided += 1
                continue
            outcomes.append(outcome)
            print(shown(outcome), flush=True)
    if undecided:
        print(f"{undecided} without an answer")
    return outcomes


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, help="which mutants; a fresh one by default")
    parser.add_argument("--seconds", type=float, default=600, help="time limit; default 600")
    parser.add_argument("--count", type=int, default=1 << 30, help="mutants at most")
    parser.add_argument(
        "--each", type=int, default=4, help="mutants of an area at a time; default 4"
    )
    parser.add_argument(
        "--slow", action="store_true", help="of a survivor, the area's slow tests too"
    )
    parser.add_argument("--areas", nargs="+", choices=AREAS, default=list(AREAS), metavar="AREA")
    args = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    print(f"--seed {seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left running
    os.environ["OMP_NUM_THREADS"] = "1"
    preload()
    outcomes = campaign(args.areas, seed, args.each, args.count, args.seconds, args.slow)
    report(seed, outcomes, args.slow)
    return 0


def report(seed: int, outcomes: Sequence[Outcome], slow: bool = False) -> None:
    """Print the share of those that a fast test reaches, or of all where slow ones ran too, and
    whatever was not caught.
    """
    reached = [outcome for outcome in outcomes if slow or outcome.tests or outcome.caught_by]
    caught = sum(bool(outcome.caught_by) for outcome in reached)
    share = f", {caught / len(reached):.1%}" if reached else ""
    print(f"--seed {seed}: {caught} of {len(reached)} mutants caught{share}; survivors:")
    for outcome in reached:
        if not outcome.caught_by:
            print(f"  {shown(outcome)}")
    alone = [outcome for outcome in outcomes if outcome not in reached]
    if alone:
        print(f"and {len(alone)} that no fast test of the area reaches:")
        for outcome in alone:
            print(f"  {shown(outcome)}")


if __name__ == "__main__":
    raise SystemExit(main())
