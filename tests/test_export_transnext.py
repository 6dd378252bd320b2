"""TransNeXt's exported files: what is constant at a known size is folded, any size is right where
none was traced, and what a target cannot take is said.
"""

import json
import shutil

import numpy as np
import paddle
import pytest

from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.export.target import Signature
from ppcls_nextvit.export.verify import TOLERANCES, ExportError
from ppcls_nextvit.models import export_form
from ppcls_nextvit.tasks.classification.export import export_classifier, export_features
from ppcls_nextvit.tasks.classification.quantize import export_pair
from support.paths import ROOT
from support.pictures import varied_pictures
from support.processor import has_vnni
from support.programs import program_at
from support.random_models import small_transnext
from support.tiny_run import write_config

NEEDS = {
    "paddle": (),
    "onnx": ("paddle2onnx", "onnxslim", "onnxruntime"),
    "openvino": ("paddle2onnx", "onnxslim", "openvino"),
}
# of a program for one size: nothing reads a size, makes a table or computes a position bias
FOLDED = {
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Div",
    "Erf",
    "Gemm",
    "LayerNormalization",
    "MatMul",
    "Mul",
    "Reciprocal",
    "ReduceMean",
    "ReduceSum",
    "Reshape",
    "Slice",
    "Softmax",
    "Split",
    "Sqrt",
    "Tile",
    "Transpose",
}


def exported(name, folder, model, export=export_classifier, **arguments):
    for package in NEEDS[name]:
        pytest.importorskip(package, reason=f"{name} needs {package}")
    return export(model, TARGETS[name], folder, {}, **{"image_size": (64, 64), **arguments})


def differences(name, folder, model, shapes):
    """Of the exported logits from the model's, as shares of their scale."""
    run = TARGETS[name].load(folder, Signature({"x": ()}, ("logits",)))
    for number, shape in enumerate(shapes):
        x = np.random.default_rng(number).standard_normal(shape, dtype=np.float32)
        with paddle.no_grad():
            expected = model(paddle.to_tensor(x)).numpy()
        yield np.abs(run({"x": x})["logits"] - expected).max() / np.abs(expected).max()


def initializers(folder):
    import onnx

    model = onnx.load(str(folder / "inference.onnx"))
    return {node.op_type for node in model.graph.node}, [
        tuple(tensor.dims) for tensor in model.graph.initializer
    ]


@pytest.mark.chain
@pytest.mark.parametrize(
    "name",
    ["paddle", "onnx", "openvino"],
)
def test_any_size_is_right_where_none_was_traced(tmp_path, name):
    """Not square, odd, a strip, and the smallest, whose last map is one token."""
    model = small_transnext()
    result = exported(name, tmp_path, model, softmax=False)
    assert result.report.worst < 1e-5 and len({tuple(s) for s in result.report.shapes}) == 3
    shapes = [(2, 3, 64, 96), (1, 3, 45, 70), (1, 3, 32, 32), (1, 3, 35, 300)]
    assert max(differences(name, tmp_path, model, shapes)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_known_size_is_folded(tmp_path, name):
    """At an odd size, with a bias that is interpolated."""
    model = small_transnext(position_bias="interpolation", table_size=96)
    result = exported(name, tmp_path, model, batch=1, size=(45, 70), softmax=False)
    assert result.report.worst < 1e-5
    assert max(differences(name, tmp_path, model, [(1, 3, 45, 70)])) < 1e-5
    if name != "onnx":
        return
    operators, shapes = initializers(tmp_path)
    assert operators == FOLDED
    # stage 1 has 2 heads, 12 x 18 tokens, 1 x 2 pooled ones: position bias, local bias, scale,
    # share of the query embedding
    assert {(2, 216, 2), (2, 216, 9), (2, 216, 1), (2, 216, 24)} <= {shape[-3:] for shape in shapes}
    assert not [shape for shape in shapes if 512 in shape and shape[-2:] in ((2, 512), (512, 2))], (
        "the MLP of the position bias is gone"
    )


@pytest.mark.slow
def test_half_precision_keeps_its_softmax(tmp_path):
    result = exported("onnx", tmp_path, small_transnext(), batch=1, size=(32, 40), precision="fp16")
    assert 1e-5 < result.report.worst < 5e-3
    assert initializers(tmp_path)[0] - FOLDED == {"Cast", "GlobalAveragePool"}


def test_the_form_is_new_and_the_model_stays():
    model = small_transnext(attention_form="native")
    keys = list(model.state_dict())
    form = export_form(model)
    assert list(model.state_dict()) == keys and not set(form.state_dict()) & {
        "block1.0.attn.q.weight",
        "block1.0.attn.cpb_fc1.weight",
        "block1.0.attn.temperature",
    }


def test_maps_are_exported_too(tmp_path):
    model = small_transnext("TransNeXt_micro_AAAA", num_classes=None)
    result = exported("paddle", tmp_path, model, export_features, batch=1, size=(64, 96))
    assert set(result.report.difference) == {"stage1", "stage2", "stage3", "stage4"}
    assert result.report.worst < 1e-5


@pytest.mark.slow
def test_a_pdmodel_is_refused_by_name(tmp_path):
    for size in (None, (64, 64)):
        with pytest.raises(ExportError, match=r"cannot be a \.pdmodel: .*GELU\. "):
            exported("paddle", tmp_path / "model", small_transnext(), size=size, format="pdmodel")
    assert not list(tmp_path.iterdir())


def int8_pair(folder, name):
    """{precision: folder} of a small model's exports, calibrated on noise."""
    for package in (*NEEDS[name], *(("nncf",) if name == "openvino" else ())):
        pytest.importorskip(package, reason=f"int8 for {name} needs {package}")
    folders = {precision: folder / precision for precision in ("fp32", "int8")}
    noise = np.random.default_rng(0).standard_normal((8, 3, 64, 64), np.float32)
    export_pair(small_transnext(), TARGETS[name], folders, {}, (64, 64), list(noise), softmax=False)
    return folders


@pytest.mark.chain
@pytest.mark.parametrize("name, most", [("onnx", 0.12), ("openvino", 0.6)])
def test_int8_is_close_and_small(tmp_path, monkeypatch, name, most):
    """Of random weights and noise; of trained ones OpenVINO's is as close, see docs/performance."""
    if name == "openvino" and not has_vnni():  # where its kernels are refused, see docs/performance
        monkeypatch.setitem(TOLERANCES, "int8", 1.0)
    folders = int8_pair(tmp_path, name)
    x = np.random.default_rng(1).standard_normal((4, 3, 64, 64), np.float32)
    exact, rough = (
        TARGETS[name].load(path, Signature({"x": ()}, ("logits",)), precision)({"x": x})["logits"]
        for precision, path in folders.items()
    )
    if name == "openvino":
        rounded = np.sqrt(((rounded_in_float(folders["int8"], x) - exact) ** 2).mean())
        assert 1e-4 < rounded / exact.std() < 0.3
    error = np.sqrt(((rough - exact) ** 2).mean()) / exact.std()
    assert 1e-4 < error < most, "of the logits' spread; 0 would mean that nothing was quantised"
    sizes = [sum(p.stat().st_size for p in path.iterdir()) for path in folders.values()]
    assert sizes[1] < 0.5 * sizes[0]
    if name == "onnx":
        assert_scores_are_float(folders["int8"] / "inference.onnx")


def rounded_in_float(folder, x):
    """The logits of an OpenVINO model whose rounding to 8 bits is computed in float: those of the
    quantised numbers, whatever the processor's kernels make of them.
    """
    import openvino

    settings = {"LP_TRANSFORMS_MODE": "NO", "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    return core.compile_model(core.read_model(folder / "inference.xml"), "CPU", settings)(x)[0]


def assert_scores_are_float(path):
    """What shuts out the border, and all that a softmax takes, has no 8 bits; the layers have."""
    import onnx

    graph = onnx.load(str(path)).graph
    made_by = {name: node for node in graph.node for name in node.output}
    sums = [made_by[node.input[0]] for node in graph.node if node.op_type == "Softmax"]
    assert {node.op_type for node in sums} == {"Add", "Concat"} and len(sums) == 4
    for node in sums:
        makers = {made_by[name].op_type for name in node.input if name in made_by}
        assert "DequantizeLinear" not in makers
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    quantised = [made_by.get(node.input[1]) for node in layers]
    assert all(node and node.op_type == "DequantizeLinear" for node in quantised)


def test_paddles_int8_is_refused_by_name(tmp_path):
    """It is made of a .pdmodel."""
    folders = {name: tmp_path / name for name in ("fp32", "int8")}
    photos = [np.zeros((3, 64, 64), np.float32)]
    with pytest.raises(ExportError, match=r"cannot be a \.pdmodel: .*rules out .*int8"):
        export_pair(small_transnext(), TARGETS["paddle"], folders, {}, (64, 64), photos)
    assert not list(tmp_path.iterdir())


def written_by_the_tool(folder, name):
    """A small model, exported by the tool into folder / "m"; the arguments that name it."""
    for package in NEEDS[name]:
        pytest.importorskip(package, reason=f"{name} needs {package}")
    model = small_transnext(num_classes=10)
    model.head.weight.set_value(model.head.weight * 2)
    paddle.save(model.state_dict(), str(folder / "w.pdparams"))
    arch = {"name": "TransNeXt_micro", "depths": [1, 1, 1, 1]}
    config = write_config(folder, Arch=arch, Global={"save_inference_dir": str(folder / "m")})
    named = ["-c", str(config), "-o", f"Global.pretrained_model={folder / 'w.pdparams'}"]
    assert program_at("tools/export_model.py").main([*named, "--to", name]) == 0
    return named


def results_of(program, folder, *arguments):
    assert program_at(program).main([*arguments, "--json", str(folder / "results.json")]) == 0
    return json.loads((folder / "results.json").read_text())


@pytest.mark.chain
@pytest.mark.parametrize("name", ["paddle", "onnx"])
def test_the_deployed_program_predicts_as_infer_does(tmp_path, name):
    named = written_by_the_tool(tmp_path, name)
    pictures = varied_pictures(tmp_path / "pictures")
    deployed = ["--model", str(tmp_path / "m"), "--images", str(pictures)]
    found = results_of("deploy/python/predict.py", tmp_path, *deployed)
    inferred = [*named, "-o", f"Infer.infer_imgs={pictures}"]
    expected = results_of("tools/infer.py", tmp_path, *inferred)
    assert len({tuple(result["class_ids"]) for result in found}) > 1
    for one, other in zip(found, expected, strict=True):
        assert one["class_ids"] == other["class_ids"]
        assert np.allclose(one["scores"], other["scores"], atol=1e-5)


@pytest.mark.chain
def test_the_service_predicts_as_infer_does(tmp_path):
    from test_serving import Service  # which skips where the extra `serving` is missing

    named = written_by_the_tool(tmp_path, "paddle")
    pictures = varied_pictures(tmp_path / "pictures")
    inferred = [*named, "-o", f"Infer.infer_imgs={pictures}"]
    expected = results_of("tools/infer.py", tmp_path, *inferred)
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "deploy" / "serving", copy)
    service = Service(copy, tmp_path / "m")
    try:
        for picture, result in zip(sorted(pictures.iterdir()), expected, strict=True):
            status, answer = service.predict(picture.read_bytes())
            assert status == 200
            found = answer["predictions"]
            assert [one["class_id"] for one in found] == result["class_ids"]
            assert np.allclose([one["score"] for one in found], result["scores"], atol=1e-5)
    finally:
        service.stop()
