"""Compare predictions in logs with the stored ones of test_tipc/results, image by image.

    python test_tipc/compare_results.py --gt_file='./test_tipc/results/*.txt'
    --log_file='./test_tipc/output/MODEL/MODE/*.log'

Both are files or patterns. A line `<image>\\t{"class_ids": [...], "scores": [...]}` is a
prediction, of a detector `{"objects": [{class_id, score, box, mask}, ...]}`, of a segmentor
`{"classes": [{class_id, share}, ...]}`. A log belongs to the stored file
`<engine>_<model>_results_<precision>.txt` with the precision of its own name,
`..._precision_fp32_...` (or fp16, int8), and, of several, with the model that is its folder MODEL;
logs without a precision are left out. The classes must be equal and in the same order, the scores
near, the shares of an image within 0.002 of it; of ten objects nine must have one of the same
class, score, box and size of mask. If not, the exit status is 1 and every difference is printed.
"""

import argparse
import glob
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple, Sequence

# absolute, relative
TOLERANCES = {"fp32": (1e-5, 1e-3), "fp16": (1e-4, 1e-2), "int8": (1e-4, 2e-2)}
FEWEST = 4  # images worth a comparison
AREA = 2e-3  # of an image, by which a class's share may differ
BOX = 0.1  # pixels
MASK = 0.02  # of its pixels, beside one pixel
MISSED = 10  # objects of which one may differ: neighbours score almost the same
BEST = 30  # objects of an image that are stored
LOG = re.compile(rf"precision_({'|'.join(TOLERANCES)})(?![a-z0-9])")
STORED = re.compile(rf"[^_]+_(?P<model>\w+)_results_(?P<precision>{'|'.join(TOLERANCES)})")


def precision_of(log):
    """The precision in a log's name, or None."""
    found = LOG.search(log.stem)
    return found and found[1]


class Prediction(NamedTuple):
    """Of one image: class ids with scores; `kind` says of what, boxes and pixels are objects'."""

    kind: str  # "class_ids", "classes" or "objects"
    ids: list
    scores: list
    boxes: Sequence = ()
    pixels: Sequence = ()  # of each object's mask


def prediction(record, where):
    """The Prediction in what a program of deploy/ wrote for an image. ValueError if that is
    malformed; `where` is for its message.
    """
    try:
        if "objects" in record:
            return objects_prediction(record["objects"])
        if "classes" in record:
            ids = [int(one["class_id"]) for one in record["classes"]]
            return Prediction("classes", ids, [float(one["share"]) for one in record["classes"]])
        ids = [int(value) for value in record["class_ids"]]
        scores = [float(value) for value in record["scores"]]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f'{where}: expected {{"class_ids": [...], "scores": [...]}}, numbers, or objects or '
            f"classes as the programs of deploy/ write them"
        ) from None
    if not ids or len(ids) != len(scores):
        raise ValueError(f"{where}: {len(ids)} classes and {len(scores)} scores")
    return Prediction("class_ids", ids, scores)


def objects_prediction(found):
    """The Prediction of a detector's objects."""
    ids = [int(one["class_id"]) for one in found]
    scores = [float(one["score"]) for one in found]
    boxes = [[float(side) for side in one["box"]] for one in found]
    return Prediction("objects", ids, scores, boxes, [pixels_of(one) for one in found])


def pixels_of(found):
    """The pixels of an object's mask, which a program writes as COCO's run lengths; 0: none."""
    if "mask" in found:
        from pycocotools import mask

        return int(mask.area(found["mask"]))
    return found.get("pixels", 0)


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
    """{image: Prediction} of a log, or of what a program wrote with --json. ValueError if
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
    for image, wanted in expected.items():
        if image not in got:
            lines.append(f"{image}: no prediction")
        elif got[image].kind != wanted.kind:
            lines.append(f"{image}: {got[image].kind}, expected {wanted.kind}")
        elif wanted.kind == "objects":
            lines += objects_that_differ(image, wanted, got[image], atol, rtol)
        else:
            lines += scores_that_differ(image, wanted, got[image], atol, rtol)
    return lines


def scores_that_differ(image, wanted, got, atol, rtol):
    """The lines of `differences` for classes with scores, or with shares of an image."""
    if wanted.kind == "classes":
        atol, rtol = AREA, 0
    ids = wanted.ids
    if got.ids[: len(ids)] != ids:
        return [f"{image}: classes {got.ids}, expected {ids}"]
    return [
        f"{image}: score {value:.7g} of class {id_}, expected {score:.7g} "
        f"within {atol:g} + {rtol:g} of it"
        for id_, score, value in zip(ids, wanted.scores, got.scores)
        # a NaN differs, too
        if not abs(value - score) <= atol + rtol * abs(score)
    ]


def objects_that_differ(image, wanted, got, atol, rtol):
    """The lines of `differences` for objects: those without one of the same class, box, score and
    size of mask, if they are more than a few.
    """
    lines = []
    for id_, score, box, pixels in zip(*wanted[1:]):
        alike = any(
            other == id_
            and abs(other_score - score) <= atol + rtol * score
            and max(abs(a - b) for a, b in zip(box, other_box)) <= BOX
            and abs(other_pixels - pixels) <= 1 + MASK * pixels
            for other, other_score, other_box, other_pixels in zip(*got[1:])
        )
        if not alike:
            lines.append(f"{image}: no object of class {id_}, score {score:.7g}, box {box}")
    return lines if MISSED * len(lines) > len(wanted.ids) else []


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


def rounded(value):
    return float(f"{value:.7g}")


def stored_record(found, atol, rtol):
    """What is stored of a Prediction: all classes but the last, the best objects; None where
    classes nearly tie.
    """
    if found.kind == "objects":
        return {
            "objects": [
                {"class_id": id_, "score": rounded(score), "box": list(map(rounded, box))}
                | ({"pixels": pixels} if pixels else {})
                for id_, score, box, pixels in list(zip(*found[1:]))[:BEST]
            ]
        }
    if found.kind == "classes":
        atol, rtol = AREA, 0
    pairs = zip(found.scores, found.scores[1:])
    if not all(score - below > 10 * (atol + rtol * score) for score, below in pairs):
        return None
    ids, scores = found.ids[:-1], [rounded(score) for score in found.scores[:-1]]
    if found.kind == "classes":
        pairs = zip(ids, scores)
        return {"classes": [{"class_id": id_, "share": share} for id_, share in pairs]}
    return {"class_ids": ids, "scores": scores}


def write(source, path):
    """Store the predictions in the file `source` as `path`: all classes but the last, of images
    whose classes do not nearly tie; of a detector the best objects.
    """
    predictions = read_predictions(source)
    lines = []
    for image, found in predictions.items():
        record = stored_record(found, *TOLERANCES["fp32"])
        if record and any(record.values()):
            lines.append(f"{image}\t{json.dumps(record)}\n")
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
