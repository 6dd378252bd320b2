"""What was shown to run: status.json, and the table in test_tipc/README.md.

--record test_tipc/output    add the runs in which nothing failed, by the Python that ran them
--write | --check            the table of what is recorded
"""

import argparse
import importlib.metadata
import json
import platform
import re
import sys
import time
from pathlib import Path

from .run import MODELS, ROOT

RECORDS, README = ROOT / "test_tipc" / "chains" / "status.json", ROOT / "test_tipc" / "README.md"
START, END = "<!-- status -->\n", "<!-- /status -->"
# title: its models, a table each; classifiers without pixels in their names have 64
DENSE = ("MaskRCNN", "SemanticFPN")
FAMILIES = {
    "Next-ViT": (
        "NextViT_small",
        *(f"NextViT_{name}_{size}" for size in (224, 384) for name in ("small", "base", "large")),
    ),
    "TransNeXt": ("TransNeXt_micro", "TransNeXt_micro_224", "TransNeXt_tiny_224"),
    "A detector and a segmentor": DENSE,
}
VARIANTS = tuple(name for names in FAMILIES.values() for name in names)
# Title, name of the chain, mode: the table's rows
ROWS = (
    ("training, Python inference", "python", "lite_train_lite_infer"),
    ("training, Python inference", "python", "lite_train_whole_infer"),
    ("training, Python inference", "python", "whole_train_whole_infer"),
    ("Python inference", "python", "whole_infer"),
    ("training in two processes", "python_fleet", "lite_train_lite_infer"),
    ("training in mixed precision", "python_amp", "lite_train_lite_infer"),
    ("dynamic and static graph", "dy2static", "lite_train_lite_infer"),
    ("quantisation", "python", "ptq_infer"),
    ("C++", "cpp", "cpp_infer"),
    ("serving", "serving", "serving_infer"),
    ("Paddle Lite", "lite", "lite_infer"),
    ("Paddle2ONNX", "paddle2onnx", "paddle2onnx_infer"),
    ("benchmark", "benchmark", "benchmark_train"),
)
# of a detector and a segmentor: there are no files for the others
OF_DENSE = (
    *(
        ("python", mode)
        for mode in ("lite_train_lite_infer", "whole_train_whole_infer", "whole_infer")
    ),
    ("cpp", "cpp_infer"),
    ("serving", "serving_infer"),
    ("paddle2onnx", "paddle2onnx_infer"),
)
# of a chain, beside paddlepaddle
PACKAGES = {"serving": ("uvicorn",), "paddle2onnx": ("paddle2onnx", "onnxruntime")}
OUTCOME = re.compile(r"(Run successfully|Run failed|Skipped) with command - ")
FINISHED = re.compile(r"Finished - \S+ - (\d+) succeeded, (\d+) failed, (\d+) skipped !")


def outcomes(results):
    """{outcome: count} of the results log of a chain that succeeded. ValueError for another."""
    text = results.read_text(encoding="utf-8")
    found = OUTCOME.findall(text)
    counts = {
        "succeeded": found.count("Run successfully"),
        "failed": found.count("Run failed"),
        "skipped": found.count("Skipped"),
    }
    finished = FINISHED.findall(text)
    if len(finished) != 1 or [int(number) for number in finished[0]] != list(counts.values()):
        raise ValueError("the chain did not come to its end")
    if counts["failed"] or not counts["succeeded"]:
        raise ValueError(f"{counts['failed']} failed, {counts['succeeded']} succeeded")
    return counts


def versions(model, chain):
    """{what: version} of what a chain's commands used."""
    names = ("paddlepaddle", *PACKAGES.get(chain, ()))
    found = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }
    if chain == "lite":
        program = MODELS / f"{model}_lite-x86_fp32" / "inference.nb"
        # which the converter wrote
        found["paddlelite"] = (
            program.read_bytes()[2:18].partition(b"\0")[0].decode().removeprefix("v")
        )
    return found


def read_records():
    return json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.exists() else []


def identity(record):
    return record["model"], record["chain"], record["mode"]


def record(output):
    """Add to status.json what ran below the folder `output`; returns how many runs are left out,
    with the reason on stderr.
    """
    records = {identity(old): old for old in read_records()}
    left_out = 0
    for results in sorted(Path(output).glob("*/*/results_*.log")):
        model = results.parent.parent.name
        mode = results.parent.name
        chain = results.stem.removeprefix("results_")
        try:
            counts = outcomes(results)
        except ValueError as error:
            print(f"{results}: {error}; not recorded", file=sys.stderr)
            left_out += 1
            continue
        date = time.strftime("%Y-%m-%d", time.gmtime(results.stat().st_mtime))
        new = {
            "model": model,
            "chain": chain,
            "mode": mode,
            "date": date,
            "succeeded": counts["succeeded"],
            "skipped": counts["skipped"],
            "versions": versions(model, chain),
        }
        records[identity(new)] = new
    lines = ",\n".join(json.dumps(records[key]) for key in sorted(records))
    RECORDS.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return left_out


def united(values):
    """The distinct values as a text, in their order."""
    return ", ".join(dict.fromkeys(str(value) for value in values))


def short_name(model):
    """'small 224' of 'NextViT_small_224'."""
    if model in DENSE:
        return model
    name = model.partition("_")[2].replace("_", " ")
    return name if name[-1].isdigit() else f"{name} 64"


def table(records, models):
    """The lines of the table of `models`: a row for each chain and mode, a tick for each recorded
    model.
    """
    by_row = {}
    for found in records:
        if found["model"] in models:
            by_row.setdefault((found["chain"], found["mode"]), {})[found["model"]] = found
    lines = [
        f"| chain | mode | {' | '.join(map(short_name, models))} | commands | skipped | date | "
        "with |",
        "|---" * (len(models) + 6) + "|",
    ]
    others = sorted(set(by_row) - {row[1:] for row in ROWS})
    rows = [row for row in ROWS if models != DENSE or row[1:] in OF_DENSE]
    for title, chain, mode in (*rows, *((chain, chain, mode) for chain, mode in others)):
        row = by_row.get((chain, mode), {})
        ticks = ["✓" if name in row else "" for name in models]
        found = [row[name] for name in models if name in row]
        last = [united(one[key] for one in found) for key in ("succeeded", "skipped", "date")]
        last.append(
            united(
                f"{name} {version}" for one in found for name, version in one["versions"].items()
            )
        )
        lines.append(f"| {' | '.join([title, f'`{mode}`', *ticks, *last])} |")
    return "".join(f"{line}\n" for line in lines)


def tables(records):
    """A titled table for each family."""
    return "\n".join(f"{family}\n\n{table(records, models)}" for family, models in FAMILIES.items())


def readme():
    """README.md's text, with the tables of what is recorded. ValueError if it has no place for
    it.
    """
    before, start, rest = README.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(
            f"{README}: no {START.strip()} ... {END}; put the two where the table goes"
        )
    return before + START + tables(read_records()) + END + after


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--record",
        type=Path,
        metavar="OUTPUT",
        help="add the runs below this folder to status.json",
    )
    action.add_argument("--write", action="store_true", help="write README.md's table")
    action.add_argument(
        "--check", action="store_true", help="exit 1 if README.md's table is another"
    )
    args = parser.parse_args(argv)
    try:
        if args.record:
            return int(record(args.record) > 0)
        text = readme()
        if args.check and text != README.read_text(encoding="utf-8"):
            raise ValueError(
                f"{README}: not the table of status.json; run: python -m test_tipc.chains.status "
                f"--write"
            )
        if args.write:
            README.write_text(text, encoding="utf-8")
        return 0
    except (ValueError, OSError) as error:
        print("error:", error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
