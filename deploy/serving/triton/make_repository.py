"""A Triton model repository from an exported ONNX: python make_repository.py --model DIRECTORY
--out REPOSITORY

The folders beside this file are its templates; pictures.py of the folder above, and what it
imports, is copied in.
Needs nothing but Python.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from string import Template

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
try:
    from fields import check_fields, is_one_image, task_of
except ModuleNotFoundError as error:
    raise SystemExit(f"error: {error}. make_repository.py needs the folder above it, too") from None


def make_repository(model: Path, out: Path, batch_size: int) -> None:
    """Write the repository into the new folder `out`. ValueError if Triton could not serve this
    export so.
    """
    try:
        description = json.loads((model / "export.json").read_text(encoding="utf-8"))
        check_fields(description)
        if task_of(description) != "classification":
            raise ValueError(f"it is for {task_of(description)}")
        export = description["Export"]
        if not is_one_image(export["inputs"]):
            found = str(export["inputs"])[:60]
            raise ValueError(f"Export.inputs: expected one of four sizes or nulls, got {found!r}")
        ((name, shape),) = export["inputs"].items()
        output, target = export["outputs"][0], export["target"]
        height, width = description["Model"]["input"]["image_size"] or (None, None)
        if height is None:  # of an export for any size, which this is not for
            raise ValueError("Model.input.image_size is missing")
    except (ValueError, LookupError, RecursionError) as error:
        raise ValueError(
            f"{model}: export.json is no description of an exported classifier: {error}"
        ) from None
    if target != "onnx" or shape[0] is not None or not description["Model"]["softmax"]:
        raise ValueError(
            f"{model}: expected an export --to onnx with --batch dynamic that ends in Softmax; it "
            f"is one to "
            f"{target}, batch {shape[0]}, softmax {description['Model']['softmax']}"
        )
    if out.exists():
        raise ValueError(f"{out}: exists; name a new folder")
    names = description["PostProcess"]["Topk"]["label_list"]
    values = {
        "batch_size": batch_size,
        "classes": len(names),
        "height": height,
        "width": width,
        "input": name,
        "output": output,
        "input_dims": ", ".join(str(size or -1) for size in shape[1:]),
    }
    for template in sorted(HERE.glob("*/config.pbtxt")):
        folder = out / template.parent.name
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(Template(template.read_text()).substitute(values))
        if "labels.txt" in template.read_text():
            (folder / "labels.txt").write_text(
                "".join(f"{label}\n" for label in names), encoding="utf-8"
            )
    shutil.copy(model / "inference.onnx", out / "nextvit_model" / "1" / "model.onnx")
    for source in (
        HERE / "nextvit_preprocess" / "model.py",
        *(HERE.parent / f"{name}.py" for name in ("pictures", "decoding", "notes")),
        model / "export.json",
    ):
        shutil.copy(source, out / "nextvit_preprocess" / "1")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--model",
        required=True,
        type=Path,
        metavar="DIR",
        help="what tools/export_model.py --to onnx wrote",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args(argv)
    try:
        make_repository(args.model, args.out, args.batch_size)
    except (OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
