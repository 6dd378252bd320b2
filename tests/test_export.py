"""Exported Paddle files: equal to the model at any batch and size, described completely, and never written when they are wrong."""
import errno
import hashlib
import re

import numpy as np
import paddle
import pytest
import yaml
from paddle import inference, nn
from predicting import clothes, program_at, random_model, random_weights
from tiny import DATA, write_config

from ppcls_nextvit.export import static
from ppcls_nextvit.export.static import ExportError, export_inference

export_model = program_at("tools/export_model.py")
FILES = ["inference.json", "inference.pdiparams", "inference.yml"]


def run(folder, batch):
    config = inference.Config(str(folder / FILES[0]), str(folder / FILES[1]))
    config.disable_glog_info()
    predictor = inference.create_predictor(config)
    handle = predictor.get_input_handle(predictor.get_input_names()[0])
    handle.reshape(batch.shape)
    handle.copy_from_cpu(batch)
    predictor.run()
    return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()


def operators(folder):
    """The names of the program's operators, without dialect."""
    return re.findall(r'"#":"\d+\.([a-z]\w+)","A"', (folder / FILES[0]).read_text().replace(" ", ""))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("weights") / "w.pdparams")


@pytest.fixture(scope="module")
def logits_export(tmp_path_factory):
    """(model, folder): an export without Softmax, made at 32 x 32."""
    folder = tmp_path_factory.mktemp("export") / "deep" / "model"
    model = random_model()
    assert export_inference(model, folder, {}, (32, 32), softmax=False) < 1e-5
    return model, folder


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (3, 3, 32, 96), (2, 3, 33, 47), (1, 3, 64, 50), (2, 3, 128, 224)])
def test_any_batch_and_size(logits_export, shape):
    model, folder = logits_export
    batch = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    with paddle.no_grad():
        expected = model(paddle.to_tensor(batch)).numpy()
    assert np.abs(expected).max() > 1, "weights whose output is nearly zero would show nothing"
    assert np.abs(run(folder, batch) - expected).max() < 1e-5 * np.abs(expected).max()


def test_program_is_fused_and_without_branches(logits_export):
    _, folder = logits_export
    names = operators(folder)
    convolutions = sum(isinstance(layer, nn.Conv2D) for layer in random_model().sublayers())
    assert names.count("conv2d") == convolutions > 30
    assert not {"if", "while", "cond", "batch_norm", "batch_norm_", "dropout"} & set(names)


def test_window_pool_variant(tmp_path):
    model = random_model("NextViT_small_window_pool")
    assert export_inference(model, tmp_path / "model", {}, (48, 32)) < 1e-5


def test_tool_describes_everything(weights, tmp_path, capsys):
    folder = tmp_path / "model"
    path = write_config(tmp_path, Global={"pretrained_model": str(weights.with_suffix("")), "save_inference_dir": str(folder)})
    image = clothes(tmp_path / "clothes", 1) / "00000.png"
    assert export_model.main(["-c", str(path), "--check-image", str(image)]) == 0
    assert str(folder) in capsys.readouterr().out
    assert sorted(file.name for file in folder.iterdir()) == FILES
    assert not list(tmp_path.glob(".*")), "the working folder is gone"

    described = yaml.safe_load((folder / FILES[2]).read_text())
    assert described["Global"]["model_name"] == "NextViT_small"
    transforms = described["PreProcess"]["transform_ops"]
    assert [name for entry in transforms for name in entry] == ["DecodeImage", "ResizeImage", "NormalizeImage", "ToCHWImage"]
    assert transforms[2]["NormalizeImage"]["scale"] == 1 / 255
    names = [line.partition(" ")[2] for line in (DATA / "labels.txt").read_text().splitlines()]
    assert described["PostProcess"]["Topk"] == {"topk": 3, "label_list": names}
    assert described["Model"] == {"class_num": 10, "softmax": True, "input": {
        "name": "x", "dtype": "float32", "shape": [None, 3, None, None], "image_size": [32, 32], "min_size": 32}}
    assert described["Weights"] == {"file": "w.pdparams", "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    for name in FILES[:2]:
        assert described["Files"][name]["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert described["Versions"]["paddle"] == paddle.__version__
    assert described["Check"]["difference"] < 1e-5

    batch = np.random.default_rng(2).standard_normal((2, 3, 32, 32), dtype=np.float32)
    probabilities = run(folder, batch)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert np.allclose(probabilities, nn.functional.softmax(random_model()(paddle.to_tensor(batch))).numpy(), atol=1e-5)


def test_infer_add_softmax_false_leaves_logits(weights, tmp_path):
    path = write_config(tmp_path, Global={"pretrained_model": str(weights), "save_inference_dir": str(tmp_path / "model")})
    assert export_model.main(["-c", str(path), "-o", "Arch.infer_add_softmax=False"]) == 0
    assert yaml.safe_load((tmp_path / "model" / FILES[2]).read_text())["Model"]["softmax"] is False
    batch = np.zeros((1, 3, 32, 32), np.float32)
    assert np.allclose(run(tmp_path / "model", batch), random_model()(paddle.to_tensor(batch)).numpy(), atol=1e-4)


@pytest.mark.parametrize("softmax", [True, False])
def test_difference_is_of_the_logits(softmax):
    """An error of 0.01 in one of logits up to 10 is 1e-3 of their scale, also for a class of probability e-20 and behind a Softmax."""
    logits = np.array([[10.0, -10.0, 3.0], [0.0, 1.0, 2.0]])
    wrong = logits + [[0.0, 0.01, 0.0], [0.0, 0.0, 0.0]]
    output = np.exp(wrong) / np.exp(wrong).sum(axis=1, keepdims=True) if softmax else wrong
    assert static._difference(output, logits, softmax) == pytest.approx(1e-3, rel=1e-3)
    exact = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) if softmax else logits
    assert static._difference(exact, logits, softmax) < 1e-12


@pytest.mark.parametrize("softmax", [True, False])
def test_wrong_files_are_not_written_and_older_ones_stay(tmp_path, monkeypatch, softmax):
    model, fuse = random_model(), static.fuse_bn
    folder = tmp_path / "model"
    export_inference(model, folder, {"Global": {"model_name": "older"}}, (32, 32), softmax)
    before = {name: (folder / name).read_bytes() for name in FILES}

    def wrong(model):
        fused = fuse(model)
        bias = fused.proj_head[0].bias
        bias.set_value(bias + paddle.eye(10)[0] * 0.05)         # one logit, by less than 1 % of the scale
        return fused

    monkeypatch.setattr(static, "fuse_bn", wrong)
    for target in (folder, tmp_path / "new" / "model"):
        with pytest.raises(ExportError, match="differ from the model by"):
            export_inference(model, target, {}, (32, 32), softmax)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert {name: (folder / name).read_bytes() for name in FILES} == before


def test_full_disk_leaves_nothing(weights, tmp_path, monkeypatch, capsys):
    path = write_config(tmp_path, Global={"pretrained_model": str(weights), "save_inference_dir": str(tmp_path / "model")})
    before = sorted(tmp_path.iterdir())

    def full(layer, prefix):
        with open(f"{prefix}.json", "w") as file:
            file.write("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(paddle.jit, "save", full)
    assert export_model.main(["-c", str(path)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_weights_that_are_not_finite(tmp_path):
    model = random_model()
    model.proj_head[0].bias.set_value(np.full(10, np.nan, np.float32))
    with pytest.raises(ExportError, match="not finite"):
        export_inference(model, tmp_path / "model", {}, (32, 32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overrides, message", [
    ([], "no weights, and an untrained model predicts noise"),
    (["Global.pretrained_model={tmp}/none"], "none"),
    (["Global.pretrained_model={weights}", "Arch.depths=[1,1,10,1]"], "missing"),
    (["Global.pretrained_model={weights}", "Arch.class_num=7"], "has 10 classes, the model 7"),
    (["Global.pretrained_model={weights}", "Global.save_inference_dir={tmp}/tiny.yaml"], "is a file"),
    (["Global.pretrained_model={weights}", "Infer.PostProcess.class_id_map_file={tmp}/none.txt"], "no such file"),
])
def test_bad_input_is_one_line(weights, tmp_path, capfd, overrides, message):
    path = write_config(tmp_path, Global={"save_inference_dir": str(tmp_path / "model")})
    arguments = [part for override in overrides for part in ("-o", override.format(tmp=tmp_path, weights=weights))]
    assert export_model.main(["-c", str(path), *arguments]) == 1
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and message in error[0]
    assert not (tmp_path / "model").exists()


def test_bad_check_image_is_named(weights, tmp_path, capsys):
    path = write_config(tmp_path, Global={"pretrained_model": str(weights), "save_inference_dir": str(tmp_path / "model")})
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert export_model.main(["-c", str(path), "--check-image", str(tmp_path / "bad.png")]) == 1
    assert f"error: {tmp_path / 'bad.png'}: not an image" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_branch_would_be_seen(tmp_path):
    """The search that test_program_is_fused_and_without_branches relies on finds the If of a layer that has one."""
    class Branch(nn.Layer):
        def forward(self, x):
            if x.sum() > 0:
                x = x * 2
            return x

    spec = paddle.static.InputSpec([None, 3], "float32")
    paddle.jit.save(paddle.jit.to_static(Branch(), input_spec=[spec], full_graph=True), str(tmp_path / "inference"))
    assert "if" in operators(tmp_path)
