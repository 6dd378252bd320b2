"""docs/model_zoo.md, generated from ppcls_nextvit/zoo/: prints it; `--write` writes the file,
`--check` exits with 1 where it differs.
"""

import argparse
import difflib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Optional

from ppcls_nextvit import zoo
from ppcls_nextvit.cli.common import program
from ppcls_nextvit.zoo.records import Table, Weights

PAGE = Path(__file__).resolve().parent.parent / "docs" / "model_zoo.md"
HEADER = f"""\
# Model zoo

Written by `scripts/model_zoo.py --write` from `ppcls_nextvit/zoo/`; change it there.

This page lists every published weight file of Next-ViT and TransNeXt that the package knows. `nextvit weights get NAME` or `pretrained=`
[fetches one](weights.md). You can also download a file from its source and save it under the name in the last column in `./{zoo.DEFAULT_DIRECTORY}/` (or in the
folder that `{zoo.DIRECTORY_VARIABLE}` names). Then use the name in the first column:

```python
import ppcls_nextvit

model = ppcls_nextvit.create_model("NextViT_small")
ppcls_nextvit.load_weights(model, "nextvit_small.in1k_224.official")

detector = ppcls_nextvit.create_model("MaskRCNN", backbone={{"name": "NextViT_small"}})
ppcls_nextvit.load_weights(detector, "nextvit_small.mask_rcnn_1x.official")

segmentor = ppcls_nextvit.create_model(
    "UPerNet", backbone={{"name": "NextViT_small", "extra_norms": True}}
)
ppcls_nextvit.load_weights(segmentor, "nextvit_small.upernet_160k_in1k.official")
```
```bash
python tools/reproduce.py --weights nextvit_small.in1k_224.official --data dataset/ILSVRC2012
```
Figures in % are as published. **Measured** figures are this project's own; there is none as long as its log is not in the repository. The three sources
of Next-ViT give the same networks in different files, but they evaluate them differently: compare figures within one table only. The official 384 px
figures of Next-ViT are for crop ratio 0.875, PaddleClas's and timm's for 1.0; this difference alone is worth about 0.2 to 0.5 points.
"""


def pretraining(record: Weights) -> str:
    """What a model learned from before it learned its task, in a column's words."""
    return zoo.PRETRAINING_IN_SHORT.get(record.pretraining, record.pretraining)


def preprocessing(record: Weights) -> str:
    """Pixels of the shorter side, and of the crop."""
    assert record.preprocess is not None
    if record.preprocess.warp:
        return f"warped, {record.preprocess.crop}"
    return f"{record.preprocess.resize_short}, {record.preprocess.crop}"


def published(metric: str, record: Weights) -> str:
    """The source's figure."""
    return str(record.published.get(metric, "-"))


def measured(record: Weights) -> str:
    """This project's own figures."""
    if not record.measured:
        return "not yet"
    return ", ".join(f"{metric} {value}" for metric, value in record.measured.items())


def source_file(record: Weights) -> str:
    """The file's name, with the way to it."""
    if record.where.startswith("https:"):
        return f"[{record.file}]({record.where})"
    return f"{record.file} ({record.where})"


def rows(table: Table) -> str:
    """The records of a table, in Markdown."""
    columns: dict[str, Callable[[Weights], str]] = {"name": lambda r: f"`{r.name}`"}
    if all(record.preprocess for record in table.records):
        columns["weights of"] = pretraining
        columns["resize, crop"] = preprocessing
    else:
        columns["backbone of"] = pretraining
    columns["params (M)"] = lambda r: f"{r.params_m:.2f}".removesuffix("0")
    columns["GFLOPs"] = lambda r: "-" if r.gflops is None else f"{r.gflops}"
    for title, metric in table.metrics.items():
        columns[title] = partial(published, metric)
    columns["measured"] = measured
    columns["file"] = source_file
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join('---' for _ in columns)}|"]
    for record in table.records:
        lines.append(f"| {' | '.join(column(record) for column in columns.values())} |")
    return "".join(f"{line}\n" for line in lines)


def page() -> str:
    """The text of docs/model_zoo.md."""
    tables = [table for family in zoo.FAMILIES for table in family.TABLES]
    return HEADER + "".join(
        f"\n## {table.title}\n\n{table.note}\n\n{rows(table)}" for table in tables
    )


@program
def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--write", action="store_true", help="write the page")
    group.add_argument(
        "--check",
        action="store_true",
        help="exit with 1 and the difference if the page is not this one",
    )
    args = parser.parse_args(argv)
    if args.write:
        PAGE.write_text(page(), encoding="utf-8")
    elif args.check:
        found, expected = PAGE.read_text(encoding="utf-8"), page()
        print(
            *difflib.unified_diff(
                found.splitlines(), expected.splitlines(), PAGE.name, "model_zoo", lineterm=""
            ),
            sep="\n",
            end="",
        )
        return int(found != expected)
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
