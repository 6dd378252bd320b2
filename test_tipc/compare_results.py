"""Compare predictions in logs with the stored ones of test_tipc/results, image by image.

    python test_tipc/compare_results.py --gt_file='./test_tipc/results/*.txt'
    --log_file='./test_tipc/output/MODEL/MODE/*.log'

Both are files or patterns. A line `<image>\\t{"class_ids": [...], "scores": [...]}` is a
prediction. A log belongs to the stored file `<engine>_<model>_results_<precision>.txt` with the
precision of its own name, `..._precision_fp32_...` (or fp16, int8), and, of several, with the model
that is its folder MODEL; logs without a precision are left out. The classes must be equal and in
the same order, the scores near; if not, the exit status is 1 and every difference is printed.
"""

import argparse
import glob
import json
import re
import sys
from pathlib import Path

# absolute, relative
TOLERANCES = {"fp32": (1e-5, 1e-3), "fp16": (1e-4, 1e-2), "int8": (1e-4, 2e-2)}
FEWEST = 4  # images worth a comparison
LOG = re.compile(rf"precision_({'|'.join(TOLERANCES)})(?![a-z0-9])")
STORED = re.compile(rf"[^_]+_(?P<model>\w+)_results_(?P<precision>{'|'.join(TOLERANCES)})")


def precision_of(log):
    """The precision in a log's name, or None."""
    found = LOG.search(log.stem)
    return found and found[1]


def prediction(record, where):
    """(class ids, scores) of what a program of deploy/ wrote for an image. ValueError if that is
    malformed; `where` is for its message.
    """
    try:
        ids = [int(value) for value in record["class_ids"]]
        scores = [float(value) for value in record["scores"]]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f'{where}: expected {{"class_ids": [...], "scores": [...]}}, numbers'
        ) from None
    if not ids or len(ids) != len(scores):
        raise ValueError(f"{where}: {len(ids)} classes and {len(scores)} scores")
    return ids, scores


def lines_of(path):
    """(image, its record, where it is) for the lines of a log that are predictions. ValueError for
    a line that is cut off.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        image, tab, text = line.partition("\t")
        if tab and text.startswith("{"):
            try:
                yield image, json.loads(text), f"{path}, line {number}"
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None


def read_predictions(path):
    """{image: (class ids, scores)} of a log, or of what a program wrote with --json. ValueError if
    there is none, or an image twice.
    """
    if path.suffix == ".json":
        records = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(records, list) or not all(
            isinstance(record, dict) and "file_name" in record for record in records
        ):
            raise ValueError(
                f"{path}: expected a list of {{file_name, class_ids, scores}}, as --json of our "
                f"programs writes"
            )
        found = [(record["file_name"], record, f"{path}") for record in records]
    else:
        found = list(lines_of(path))
    predictions = {Path(image).name: prediction(record, where) for image, record, where in found}
    if not found:
        raise ValueError(f"{path}: no predictions; expected lines <image>, a tab and JSON")
    if len(predictions) < len(found):
        raise ValueError(f"{path}: {len(found)} predictions for {len(predictions)} images")
    return predictions


def differences(expected, got, atol, rtol):
    """What differs, a line each; [] if `got` predicts what `expected` does. Images that only `got`
    has do not count.
    """
    lines = []
    for image, (ids, scores) in expected.items():
        if image not in got:
            lines.append(f"{image}: no prediction")
            continue
        got_ids, got_scores = got[image]
        if got_ids[: len(ids)] != ids:
            lines.append(f"{image}: classes {got_ids}, expected {ids}")
            continue
        for index, (score, value) in enumerate(zip(scores, got_scores)):
            # a NaN differs, too
            if not abs(value - score) <= atol + rtol * abs(score):
                lines.append(
                    f"{image}: score {value:.7g} of class {ids[index]}, expected {score:.7g} "
                    f"within {atol:g} + {rtol:g} of it"
                )
    return lines


def matching(pattern):
    """The files of a pattern, sorted. FileNotFoundError if there is none."""
    files = sorted(Path(path) for path in glob.glob(pattern))
    if not files:
        raise FileNotFoundError(f"{pattern}: no such file")
    return files


def stored_for(log, stored):
    """The one of the files `stored` that `log` is to be compared with. ValueError if none is, or
    several are.
    """
    names = {path: STORED.fullmatch(path.stem) for path in stored}
    alike = [
        path for path, name in names.items() if name and name["precision"] == precision_of(log)
    ]
    if len(alike) > 1:
        alike = [path for path in alike if names[path]["model"] == log.resolve().parent.parent.name]
    if len(alike) != 1:
        names = ", ".join(path.name for path in stored)
        raise ValueError(
            f"{log}: {len(alike) or 'none'} of the stored files is for it, of {names}; give "
            f"another --gt_file"
        )
    return alike[0]


def compare(gt_file, log_file, atol=None, rtol=None, precision=None):
    """Compare and print; the number of logs that differ. atol, rtol: default by precision.
    precision: of the logs, default all.

    ValueError where nothing can be compared.
    """
    stored = matching(gt_file)
    logs = [
        path
        for path in matching(log_file)
        if precision_of(path) and precision in (None, precision_of(path))
    ]
    if not logs:
        raise ValueError(
            f"{log_file}: no name says "
            f"precision_{precision or 'fp32 or another of ' + ', '.join(TOLERANCES)}"
        )
    differ = 0
    for log in logs:
        truth = stored_for(log, stored)
        absolute, relative = TOLERANCES[precision_of(log)]
        expected = read_predictions(truth)
        lines = differences(
            expected,
            read_predictions(log),
            absolute if atol is None else atol,
            relative if rtol is None else rtol,
        )
        differ += bool(lines)
        print(
            f"{log.name}: {'differs from' if lines else f'equals, on {len(expected)} images,'} "
            f"{truth.name}"
        )
        for line in lines:
            print(f"  {line}")
    return differ


def write(source, path):
    """Store the predictions in the file `source` as `path`: all classes but the last, of images
    whose classes do not nearly tie.
    """
    atol, rtol = TOLERANCES["fp32"]
    predictions = read_predictions(source)
    lines = []
    for image, (ids, scores) in predictions.items():
        if all(
            score - below > 10 * (atol + rtol * score) for score, below in zip(scores, scores[1:])
        ):
            values = {
                "class_ids": ids[:-1],
                "scores": [float(f"{score:.7g}") for score in scores[:-1]],
            }
            lines.append(f"{image}\t{json.dumps(values)}\n")
    if len(lines) < FEWEST:
        raise ValueError(
            f"{source}: {len(lines)} of {len(predictions)} images have classes that do not nearly "
            f"tie; {FEWEST} are needed"
        )
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path}: {len(lines)} of {len(predictions)} images")


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gt_file", required=True, metavar="PATTERN", help="stored predictions")
    parser.add_argument(
        "--log_file", required=True, metavar="PATTERN", help="logs with predictions"
    )
    parser.add_argument(
        "--atol", type=float, help="of a score; default: 1e-5 for fp32, 1e-4 for fp16 and int8"
    )
    parser.add_argument(
        "--rtol",
        type=float,
        help="of a score; default: 1e-3 for fp32, 1e-2 for fp16, 2e-2 for int8",
    )
    parser.add_argument(
        "--precision", choices=tuple(TOLERANCES), help="of the logs to compare; default: every one"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="write --gt_file, from a log or a program's --json file, instead",
    )
    args = parser.parse_args(argv)
    try:
        if args.write:
            write(Path(args.log_file), Path(args.gt_file))
            return 0
        return int(compare(args.gt_file, args.log_file, args.atol, args.rtol, args.precision) > 0)
    except (ValueError, OSError) as error:
        print("error:", error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
