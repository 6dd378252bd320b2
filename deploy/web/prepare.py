"""The page's model: python prepare.py --model DIRECTORY [--out dist/model]

DIRECTORY is what `tools/export_model.py --to onnx` wrote, of a classifier, a detector or a
segmentor. The last two stay as they are. Of a classifier the head, a linear layer of the mean over
the last map, is applied to the map too: the new output `cam` [B, classes, h, w] shows where each
class is seen, and its mean over the map is the class's logit. Needs onnx.
"""

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy

MODEL = "inference.onnx"
DENSE = ("detection", "segmentation")


class Head(NamedTuple):
    """A classifier's last step as a 1x1 convolution of its last map."""

    last_map: str  # [B, channels, h, w]
    weights: list[str]  # of initializers: [classes, channels, 1, 1], and [classes] if it has a bias
    classes: int


def add_cam(model: Any) -> Any:
    """Append the output `cam` to an onnx.ModelProto. ValueError if it does not end in a mean over
    the last map and a layer that makes classes of it.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    heads = [*_convolutions(graph), *_linear_layers(graph)]
    if len(heads) != 1:
        raise ValueError(
            "the model does not end in a mean over its last map and one linear layer; export a "
            "classifier, in fp32 or fp16"
        )
    (head,) = heads
    graph.node.append(
        helper.make_node(
            "Conv", [head.last_map, *head.weights], ["cam_own_type"], kernel_shape=[1, 1]
        )
    )
    graph.node.append(helper.make_node("Cast", ["cam_own_type"], ["cam"], to=TensorProto.FLOAT))
    graph.output.append(
        helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["batch", head.classes, "h", "w"])
    )
    return model


def _convolutions(graph: Any) -> list[Head]:
    """Heads that are 1x1 convolutions of the pooled map, as Next-ViT's."""
    pools = {
        node.output[0]: node.input[0] for node in graph.node if node.op_type == "GlobalAveragePool"
    }
    classes_of = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    return [
        Head(pools[node.input[0]], list(node.input[1:]), classes_of[node.input[1]])
        for node in graph.node
        if node.op_type == "Conv" and node.input[0] in pools and node.input[1] in classes_of
    ]


def _linear_layers(graph: Any) -> list[Head]:
    """Heads that are products of the mean over the map's tokens, as TransNeXt's; what the
    convolution needs of them is added to the graph's initializers.
    """
    from onnx import numpy_helper

    arrays = {tensor.name: tensor for tensor in graph.initializer}
    maps = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Reshape"}
    means = {
        node.output[0]: maps[node.input[0]]
        for node in graph.node
        if node.op_type == "ReduceMean" and node.input[0] in maps
    }
    heads = []
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[0] not in means:
            continue
        if node.input[1] not in arrays or len(arrays[node.input[1]].dims) != 2:
            continue
        weight = numpy_helper.to_array(arrays[node.input[1]])
        if not any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
            weight = weight.T
        name = "cam_weight"
        graph.initializer.append(
            numpy_helper.from_array(numpy.ascontiguousarray(weight)[:, :, None, None], name)
        )
        bias = [*node.input[2:], *_added(graph, node.output[0], arrays)]
        heads.append(Head(means[node.input[0]], [name, *bias], len(weight)))
    return heads


def _added(graph: Any, value: str, arrays: Mapping[str, Any]) -> list[str]:
    """The initializer that an Add adds to `value`, if one does."""
    return [
        name
        for node in graph.node
        if node.op_type == "Add" and value in node.input
        for name in node.input
        if name in arrays
    ]


def prepare(source: Path, out: Path) -> str:
    """Write model.onnx, of a classifier with the output `cam`, and export.json into `out`; returns
    what was written, in a line.
    """
    import onnx

    description = read_description(source)
    task = description["Model"].get("task", "classification")
    data = (source / MODEL).read_bytes()
    if hashlib.sha256(data).hexdigest() != description["Files"][MODEL]["sha256"]:
        raise ValueError(
            f"{source / MODEL}: does not match export.json, so it is damaged or of another "
            f"export; export or copy again"
        )
    # a model may name other files, which an export never does: they are not opened
    try:
        model = onnx.load(io.BytesIO(data), load_external_data=False)
    except Exception as error:  # of protobuf
        raise ValueError(f"{source}: {MODEL} is no ONNX file: {error}") from None
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ValueError(f"{source}: {MODEL} has its weights in other files; no export has")
    if task == "classification":
        model = add_cam(model)
        classes = model.graph.output[-1].type.tensor_type.shape.dim[1].dim_value
        names = len(description["PostProcess"]["Topk"]["label_list"])
        if names != classes:
            raise ValueError(
                f"{source}: export.json names {names} classes, {MODEL} has {classes}; export again"
            )
    else:
        check_names(model.graph, description["Export"])
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(data)
    description["Files"] = {"model.onnx": {"sha256": hashlib.sha256(data).hexdigest()}}
    text = json.dumps(description, indent=1, ensure_ascii=False)
    (out / "export.json").write_text(f"{text}\n", encoding="utf-8")
    return f"in {out}: model.onnx ({len(data) / 1e6:.1f} MB, {task}), export.json"


def read_description(source: Path) -> dict:
    """export.json in `source`, of a model that the page runs. OSError or ValueError, one line."""
    try:
        description = json.loads((source / "export.json").read_text(encoding="utf-8"))
        task = description["Model"].get("task", "classification")
        right = "softmax" in description["Model"] if task == "classification" else task in DENSE
        target = description["Export"]["target"]
        _ = description["Files"][MODEL]["sha256"]
        _ = task != "classification" or len(description["PostProcess"]["Topk"]["label_list"])
        _ = [*description["Export"]["inputs"], *description["Export"]["outputs"]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{source}: export.json is no description of an export: {error}") from None
    if target != "onnx":
        raise ValueError(
            f"{source}: an export for {str(target)[:60]!r}; expected one made with --to onnx"
        )
    if not right:
        raise ValueError(f"{source}: expected a classifier, a detector or a segmentor")
    return description


def check_names(graph: Any, export: Mapping[str, Any]) -> None:
    """ValueError if inputs and outputs are others than those that export.json names."""
    for kind, values in (("inputs", graph.input), ("outputs", graph.output)):
        found, told = sorted(value.name for value in values), sorted(export[kind])
        if found != told:
            raise ValueError(
                f"{MODEL} has the {kind} {', '.join(found)}, export.json {', '.join(told)}"
            )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("dist/model"))
    args = parser.parse_args(argv)
    try:
        print(prepare(args.model, args.out))
    except (OSError, ValueError, ImportError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
