"""docs/model_zoo.md, generated from ppcls_nextvit/zoo/: prints it; `--write` writes the file,
`--check` exits with 1 where it differs.
"""

import argparse
import difflib
from pathlib import Path

from ppcls_nextvit import zoo
from ppcls_nextvit.cli.common import program
from ppcls_nextvit.zoo import nextvit

PAGE = Path(__file__).resolve().parent.parent / "docs" / "model_zoo.md"
HEADER = f"""\
# Model zoo

Written by `scripts/model_zoo.py --write` from `ppcls_nextvit/zoo/`; change it there.

Every published Next-ViT weight file that is known here. Nothing is downloaded: fetch a file from its source, save it under the name in the
last column into `./{zoo.DEFAULT_DIRECTORY}/` (or the folder that `{zoo.DIRECTORY_VARIABLE}` names), and use the name in the first column:

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
Figures in % are as published; **measured** ones are this project's own, and there are none before their log is in the repository.
The three sources give the same networks in other files, but evaluate them differently: compare figures within one table only. The official
384 px figures are for crop ratio 0.875, PaddleClas's and timm's for 1.0, which alone is worth about 0.2 to 0.5 points.
"""
NOTES = {
    nextvit.OFFICIAL: "GFLOPs are multiply-adds as fvcore counts them. Of SSLD-6M only weights were "
    "published: no recipe, no list of the 6 M "
    "images, which were mined in the way of SSLD. Files whose names the source does not state are "
    "named here in its manner.",
    nextvit.PADDLECLAS: "Converted by PaddleClas from the official files. Its parameters include "
    "BatchNorm's running statistics, its GFLOPs "
    "(`paddle.flops`) leave out the attention products.",
    nextvit.TIMM: "Top-1 on ImageNet, -A and -R (among the 200 classes of each), -Sketch, -V2 "
    "(matched frequency) and by the ReaL labels, from "
    "timm's tables of results. `tools/reproduce.py --set a|r|sketch|v2|real|c` evaluates these "
    "sets, and ImageNet-C.",
    "detection": f"{nextvit.DETECTION_PROTOCOL}. Parameters as the source counts them: trainable "
    f"ones, with the classification head that a "
    "detector does not use.",
    "segmentation": f"{nextvit.SEGMENTATION_PROTOCOL}; ms: scales 0.5 to 1.75, and flipped. "
    f"Parameters as the source counts them, with the "
    "classification head that a segmentor does not use. Its 331 G for Semantic FPN with the large "
    "model do not fit the "
    "other two; about 312 would.",
}


def table(records, figures, first_columns):
    """A Markdown table of `records`. figures: {title of a column: metric}. first_columns: {title:
    function of a record}.
    """
    columns = {
        "name": lambda r: f"`{r.name}`",
        **first_columns,
        "params (M)": lambda r: f"{r.params_m:.2f}".removesuffix("0"),
        "GFLOPs": lambda r: "-" if r.gflops is None else f"{r.gflops}",
        **{
            title: (lambda r, metric=metric: str(r.published.get(metric, "-")))
            for title, metric in figures.items()
        },
        "measured": lambda r: (
            ", ".join(f"{metric} {value}" for metric, value in r.measured.items())
            if r.measured
            else "not yet"
        ),
        "file": lambda r: (
            f"[{r.file}]({r.where})" if r.where.startswith("https:") else f"{r.file} ({r.where})"
        ),
    }
    lines = [
        " | ".join(columns),
        "|".join("---" for _ in columns),
        *(" | ".join(column(record) for column in columns.values()) for record in records),
    ]
    return "".join(
        f"| {line} |\n" if not line.startswith("---") else f"|{line}|\n" for line in lines
    )


def page():
    """The text of docs/model_zoo.md."""
    records = list(zoo.WEIGHTS.values())
    classification = {
        "weights of": lambda r: (
            "ImageNet-1K" if r.pretraining == nextvit.PRETRAINING["in1k"] else "SSLD-6M first"
        ),
        "resize, crop": lambda r: f"{r.preprocess.resize_short}, {r.preprocess.crop}",
    }
    backbone = {
        "backbone of": lambda r: (
            "ImageNet-1K" if r.pretraining == nextvit.PRETRAINING["in1k"] else "SSLD-6M first"
        )
    }
    sections = []
    for source in (nextvit.OFFICIAL, nextvit.PADDLECLAS, nextvit.TIMM):
        metrics = {"top-1": "imagenet/top1"}
        if source == nextvit.TIMM:
            metrics.update(
                {
                    title: f"imagenet{title.lower()}/top1"
                    for title in ("-A", "-R", "-Sketch", "-V2", "-ReaL")
                }
            )
        chosen = [r for r in records if r.source == source and r.task == "classification"]
        sections.append(
            (f"Classification: {source}", NOTES[source], table(chosen, metrics, classification))
        )
    for title, task, metrics in (
        (
            "Detection: bytedance/Next-ViT, Mask R-CNN on COCO",
            "detection",
            {"box mAP": "coco/box_map", "mask mAP": "coco/mask_map"},
        ),
        (
            "Segmentation: bytedance/Next-ViT, Semantic FPN and UPerNet on ADE20K",
            "segmentation",
            {"mIoU": "ade20k/miou", "mIoU ms": "ade20k/miou_ms"},
        ),
    ):
        sections.append(
            (title, NOTES[task], table([r for r in records if r.task == task], metrics, backbone))
        )
    return HEADER + "".join(f"\n## {title}\n\n{note}\n\n{rows}" for title, note, rows in sections)


@program
def main(argv=None) -> int:
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
