"""The page's model: python prepare.py --model DIRECTORY [--out dist/model]

DIRECTORY is what `tools/export_model.py --to onnx` wrote. The head, a 1x1 convolution of the pooled
last map, is applied to the map too: the new output `cam` [B, classes, h, w] shows where each class
is seen, and its mean over the map is the class's logit. Needs onnx.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any


def add_cam(model: Any) -> Any:
    """Append the output `cam` to an onnx.ModelProto. ValueError if it does not end in pool and 1x1
    convolution.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    pools = {
        node.output[0]: node.input[0] for node in graph.node if node.op_type == "GlobalAveragePool"
    }
    classes_of = {tensor.name: tensor.dims[0] for tensor in graph.initializer}
    heads = [
        node
        for node in graph.node
        if node.op_type == "Conv" and node.input[0] in pools and node.input[1] in classes_of
    ]
    if len(heads) != 1:
        raise ValueError(
            "the model does not end in a GlobalAveragePool and a Conv; export a classifier, in "
            "fp32 or fp16"
        )
    last_map = pools[heads[0].input[0]]
    weight, *bias = heads[0].input[1:]
    graph.node.append(
        helper.make_node("Conv", [last_map, weight, *bias], ["cam_own_type"], kernel_shape=[1, 1])
    )
    graph.node.append(helper.make_node("Cast", ["cam_own_type"], ["cam"], to=TensorProto.FLOAT))
    graph.output.append(
        helper.make_tensor_value_info(
            "cam", TensorProto.FLOAT, ["batch", classes_of[weight], "h", "w"]
        )
    )
    return model


def prepare(source: Path, out: Path) -> None:
    """Write model.onnx, with the output `cam`, and export.json into the folder `out`."""
    import onnx

    try:
        description = json.loads((source / "export.json").read_text(encoding="utf-8"))
        classifier = "softmax" in description["Model"]
        target = description["Export"]["target"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{source}: export.json is no description of an export: {error}") from None
    if target != "onnx" or not classifier:
        raise ValueError(f"{source}: expected a classifier exported with --to onnx")
    # a model may name other files, which an export never does: they are not opened
    try:
        model = onnx.load(source / "inference.onnx", load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # of protobuf
        raise ValueError(f"{source}: inference.onnx is no ONNX file: {error}") from None
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ValueError(f"{source}: inference.onnx has its weights in other files; no export has")
    model = add_cam(model)
    onnx.checker.check_model(model, full_check=True)
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(model, out / "model.onnx")
    shutil.copy(source / "export.json", out)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("dist/model"))
    args = parser.parse_args(argv)
    try:
        prepare(args.model, args.out)
    except (OSError, ValueError, ImportError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
