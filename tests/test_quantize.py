"""INT8: what is quantised and how, what it costs on images, and that a wrong list, layer or format
is one line.
"""

import json
import os
import subprocess
import sys

import numpy as np
import paddle
import pytest

from ppcls_nextvit.export import TARGETS, quantize, static
from ppcls_nextvit.export.verify import ExportError
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import load_config
from ppcls_nextvit.tasks.classification import quantize as int8
from ppcls_nextvit.tasks.classification.quantize import calibration_images, export_pair, table
from support.paths import ROOT
from support.pictures import clothes
from support.processor import has_vnni
from support.programs import program_at
from support.random_models import random_model, random_weights
from support.tiny_run import DATA, write_config

EXTRAS = {
    "onnx": ("onnx", "onnxruntime", "paddle2onnx", "onnxslim"),
    "openvino": ("openvino", "nncf", "paddle2onnx", "onnxslim"),
    "paddle": (),
}


def required(target):
    for package in EXTRAS[target]:
        pytest.importorskip(package, reason=f"needs {package}, of the extra int8")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    weights = random_weights(folder / "w.pdparams")
    return load_config(
        write_config(
            folder,
            Global={"pretrained_model": str(weights), "save_inference_dir": str(folder / "int8")},
        )
    )


@pytest.fixture(scope="module")
def pair(config, tmp_path_factory):
    """pair(target) -> (model, Pair, folders), made once for each target."""
    made, images = {}, calibration_images(config, count=24)

    def make(target):
        required(target)
        if target not in made:
            folder = tmp_path_factory.mktemp(target)
            folders = {precision: folder / precision for precision in ("fp32", "int8")}
            made[target] = (
                export_pair(
                    random_model(), TARGETS[target], folders, {}, (32, 32), images, softmax=False
                ),
                folders,
            )
        return made[target]

    return make


@pytest.mark.chain
@pytest.mark.parametrize("target", EXTRAS)
def test_int8_is_close_and_small(pair, config, target):
    pair, folders = pair(target)
    programs = [
        TARGETS[target].load(folders[precision], pair.signature, precision)
        for precision in ("fp32", "int8")
    ]
    images = np.stack(calibration_images(config, count=100, seed=1))
    exact, rough = (program({"x": images})["logits"] for program in programs)
    error = np.sqrt(((rough - exact) ** 2).mean()) / exact.std()
    assert 1e-4 < error < 0.12, "of the logits' spread; 0 would mean that nothing was quantised"
    assert pair.exported["int8"].size < 0.28 * pair.exported["fp32"].size
    assert pair.exported["int8"].report.images == 8


@pytest.mark.chain
def test_openvino_grouped_convolutions_are_int8_per_channel(pair):
    """They are a tenth of the work; behind a reshape NNCF scaled their weights along the kernel's
    width, so that they ran in float.
    """
    _, folders = pair("openvino")
    import openvino

    model = openvino.Core().read_model(str(folders["int8"] / "inference.xml"))
    grouped = [
        node for node in model.get_ordered_ops() if node.get_type_name() == "GroupConvolution"
    ]
    assert (
        len(grouped)
        == len([layer for layer in random_model().sublayers() if getattr(layer, "_groups", 1) > 1])
        > 5
    )
    for node in grouped:
        # int8 weights, converted, times the scale
        product = node.input_value(1).get_node()
        groups, outputs = node.input_value(1).get_shape()[:2]
        assert product.get_type_name() == "Multiply"
        assert list(product.input_value(1).get_shape()) == [groups, outputs, 1, 1, 1]
        assert (
            product.input_value(0).get_node().input_value(0).get_element_type() == openvino.Type.i8
        )


@pytest.mark.chain
def test_onnx_scores_before_a_softmax_stay_float(pair):
    _, folders = pair("onnx")
    import onnx

    graph = onnx.load(str(folders["int8"] / "inference.onnx")).graph
    made_by = {name: node for node in graph.node for name in node.output}
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    assert len(softmaxes) == 3
    for node in softmaxes:
        product = made_by[node.input[0]]
        assert product.op_type == "MatMul"
    quantised = [
        node
        for node in graph.node
        if node.op_type == "Conv" and made_by[node.input[1]].op_type == "DequantizeLinear"
    ]
    assert len(quantised) == sum(node.op_type == "Conv" for node in graph.node)
    scales = {value.name: value for value in graph.initializer}
    for node in quantised:
        weights = made_by[node.input[1]]
        assert (
            len(scales[weights.input[1]].dims) == 1
            and scales[weights.input[0]].data_type == onnx.TensorProto.INT8
        )


def two_branches(path):
    """y = A x + B (c * x), where c makes one channel huge that B then ignores: quantising `wide`
    ruins y, quantising `tame` does not.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((8, 8)).astype(np.float32) for _ in range(2))
    factor, b[0] = np.ones(8, np.float32), 0
    factor[0] = 5000
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["tame_y"], "tame"),
        helper.make_node("Mul", ["x", "c"], ["scaled"], "scale"),
        helper.make_node("MatMul", ["scaled", "b"], ["wide_y"], "wide"),
        helper.make_node("Add", ["tame_y", "wide_y"], ["y"], "sum"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 8]) for name in "xy"]
    graph = helper.make_graph(
        nodes,
        "g",
        values[:1],
        values[1:],
        [numpy_helper.from_array(v, n) for n, v in zip("abc", (a, b, factor), strict=True)],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(path),
    )
    return list(rng.standard_normal((32, 8)).astype(np.float32))


@pytest.mark.parametrize("engine", quantize.ONNX_SCHEMES)
def test_the_layer_that_disturbs_most_stays_float(tmp_path, engine):
    required("onnx")
    import onnx

    images = two_branches(tmp_path / "a.onnx")
    (first, wide), (second, tame) = quantize.layer_sensitivity(tmp_path / "a.onnx", images, engine)
    # without these instructions ONNX Runtime's products of 8 bits reach the limit of 16
    accurate = has_vnni() or engine != "onnxruntime"
    assert (wide, tame) == ("wide", "tame") and first > 0.3
    assert second < (0.02 if accurate else 0.2)
    assert quantize.quantize_onnx(tmp_path / "a.onnx", images, engine, keep_float=1) == ["wide"]
    graph = onnx.load(str(tmp_path / "a.onnx")).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    inputs = {node.name: [made_by.get(name) for name in node.input] for node in graph.node}
    assert inputs["tame"] == ["DequantizeLinear"] * 2 and inputs["wide"][1] is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_tensorrt_scales_are_symmetric(tmp_path):
    """TensorRT refuses zero points other than 0, uint8, and quantised biases."""
    required("onnx")
    import onnx
    from onnx import numpy_helper

    quantize.quantize_onnx(tmp_path / "a.onnx", two_branches(tmp_path / "a.onnx"), "tensorrt")
    graph = onnx.load(str(tmp_path / "a.onnx")).graph
    values = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    points = [values[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(points) >= 4 and all(point.dtype == np.int8 and not point.any() for point in points)
    assert {value.dtype for name, value in values.items() if name in "abc"} == {
        np.dtype(np.float32)
    }


@pytest.mark.parametrize("keep_float", [-1, 3])
def test_keep_float_beyond_the_layers(tmp_path, keep_float):
    required("onnx")
    images = two_branches(tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="from 0 to the model's 2 layers; got"):
        quantize.quantize_onnx(tmp_path / "a.onnx", images, keep_float=keep_float)


def test_wrong_uses_are_named(tmp_path):
    with pytest.raises(ValueError, match="needs images to calibrate with"):
        static.quantize_paddle(tmp_path / "inference", [])
    with pytest.raises(ExportError, match="--format pdmodel"):
        static.quantize_paddle(tmp_path / "inference", [np.zeros((3, 32, 32))])
    with pytest.raises(
        ValueError, match="engine must be one of onnxruntime, tensorrt; got 'keras'"
    ):
        quantize.layer_sensitivity(tmp_path / "a.onnx", [np.zeros(8)], "keras")
    with pytest.raises(ValueError, match="--to openvino takes none"):
        export_pair(
            random_model(),
            TARGETS["openvino"],
            {},
            {},
            (32, 32),
            [np.zeros((3, 32, 32), np.float32)],
            keep_float=1,
        )


@pytest.mark.parametrize(
    "call",
    [
        "openvino.quantize_openvino(None, [numpy.zeros(1)])",
        "quantize.quantize_onnx('a', [numpy.zeros(1)])",
    ],
)
def test_missing_packages_name_the_extra(tmp_path, call):
    for name in ("nncf", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here')\n")
    program = f"import numpy\nfrom ppcls_nextvit.export import openvino, quantize\n{call}\n"
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    assert result.returncode == 1 and "pip install 'ppcls_nextvit[int8]'" in result.stderr


def test_calibration_images_are_evaluations(config, tmp_path):
    """From training's files, but in evaluation's preprocessing; or from a list or folder; the same
    ones each time.
    """
    images = calibration_images(config, count=5)
    assert len(images) == 5 and {(image.shape, image.dtype.name) for image in images} == {
        ((3, 32, 32), "float32")
    }
    assert all(
        np.array_equal(a, b)
        for a, b in zip(images, calibration_images(config, count=5), strict=True)
    )
    assert not np.array_equal(images[0], calibration_images(config, count=5, seed=1)[0])
    folder = clothes(tmp_path / "clothes", 3)
    from_folder = calibration_images(config, folder, 10)
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join((DATA / "test_list.txt").read_text().splitlines()[:3]) + "\n")
    from_list = calibration_images(config, listed, 10)
    assert len(from_folder) == len(from_list) == 3
    assert all(np.array_equal(a, b) for a, b in zip(from_folder, from_list, strict=True))


def test_bad_calibration_sets(config, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="no images in this directory"):
        calibration_images(config, tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="missing.txt: no such file"):
        calibration_images(config, tmp_path / "missing.txt")
    with pytest.raises(ConfigError, match="the list is empty"):
        calibration_images(config, tmp_path / "none.txt")
    with pytest.raises(ValueError, match="must be 1 or more; got 0"):
        calibration_images(config, count=0)


def test_report_counts(config, monkeypatch):
    """Images that carry their label; a float program that reads it, and an int8 one that is right
    for half of the classes.
    """
    labels = np.arange(20) % 10
    pictures = np.broadcast_to(labels[:, None, None, None], (20, 3, 2, 2)).astype(np.float32)

    class Loader:
        def epoch(self, number):
            for part in (slice(0, 8), slice(8, 16), slice(16, 20)):
                yield {
                    "image": paddle.to_tensor(pictures[part]),
                    "label": paddle.to_tensor(labels[part]),
                }

    monkeypatch.setattr(int8, "build_loader", lambda section, mode, num_classes: Loader())
    report = int8.compare_precisions(
        lambda batch: {"y": np.eye(10)[batch["x"][:, 0, 0, 0].astype(int)]},
        lambda batch: {"y": np.eye(10)[np.minimum(batch["x"][:, 0, 0, 0].astype(int), 4)]},
        config,
        "x",
        "y",
        rounds=1,
        runs=1,
    )
    assert (
        report["fp32"]["top1"],
        report["int8"]["top1"],
        report["agreement"],
        report["top1_loss"],
    ) == (1, 0.5, 0.5, 50)
    assert report["images"] == 20 and report["latency_ratio"] > 0


def test_table():
    report = {
        "fp32": {"top1": 0.861, "latency_ms": 20, "bytes": 4e6},
        "int8": {"top1": 0.857, "latency_ms": 8, "bytes": 1e6},
        "top1_loss": 0.4,
        "latency_ratio": 0.41,
        "agreement": 0.99,
        "images": 1000,
    }
    assert table(report).splitlines()[2:] == [
        "| fp32 | 86.10 | 4.0 | 20.00 |",
        "| int8 | 85.70 | 1.0 | 8.00 |",
        "| int8 to fp32 | -0.40 | x 0.25 | x 0.41 |",
        "",
        "best class equal for 99.00 % of 1000 images",
    ]


@pytest.mark.chain
def test_tool(tmp_path, capsys):
    required("onnx")
    weights = random_weights(tmp_path / "w.pdparams")
    path = write_config(
        tmp_path,
        Global={"pretrained_model": str(weights), "save_inference_dir": str(tmp_path / "int8")},
    )
    status = program_at("tools/quantize.py").main(
        [
            "-c",
            str(path),
            "--to",
            "onnx",
            "--images",
            "8",
            "--calibration",
            str(clothes(tmp_path / "clothes", 9)),
        ]
    )
    printed = capsys.readouterr().out
    assert status == 0 and "calibrated on 8 images" in printed and "| int8 to fp32 |" in printed
    report = json.loads((tmp_path / "int8" / "accuracy.json").read_text())
    assert (
        report["agreement"] > 0.75
        and abs(report["top1_loss"]) < 20
        and report["calibrated_on"] == 8
    )
    description = json.loads((tmp_path / "int8" / "export.json").read_text())
    assert description["Export"]["precision"] == "int8" and description["Model"]["softmax"] is True
