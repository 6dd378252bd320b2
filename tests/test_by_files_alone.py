"""A family of backbones, a detector and a segmentor that the project does not know, by files alone:
the package of docs/extending.md in a folder of its own, trained, evaluated, converted, exported and
used by the ordinary programs.
"""

import json
import math

import numpy as np
import pytest

from scripts import seeded
from support.command_line import run_commands
from support.extending_page import write_my_parts
from support.paths import ROOT
from support.programs import program_at
from support.torch_writer import tensors, write_zip

pytest.importorskip("cv2", reason="needs the extra `det`")
pytest.importorskip("pycocotools", reason="needs the extra `det`")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
pytest.importorskip("paddle2onnx", reason="needs the extra `onnx`")

from ppcls_nextvit.data.images import decode_image  # noqa: E402
from ppcls_nextvit.data.transforms.joint import JointPipeline  # noqa: E402
from ppcls_nextvit.tasks.detection.predict import model_inputs  # noqa: E402
from ppcls_nextvit.weights import read_file  # noqa: E402

pytestmark = pytest.mark.chain
STEPS = 2
SHORT = f"-o Global.epochs=1 -o Global.iter_per_epoch={STEPS}"
CLASSIFIER = "-c my_parts/plain_conv.yaml"
DETECTOR = "-c my_parts/nuclei.yaml"
PUBLISHED = "plainconv.clothes.plainnet"  # the name of the zoo's record
TILE = ROOT / "dataset" / "nuclei" / "images" / "validation" / "3_0.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that has my_parts and the images, and nothing of the project."""
    path = tmp_path_factory.mktemp("user")
    write_my_parts(path)
    (path / "dataset").symlink_to(ROOT / "dataset")
    return path


@pytest.fixture(scope="module")
def classified(folder):
    """What the commands on the family printed, by their first word and a name."""
    weights = "-o Global.pretrained_model=output/PlainConv/best_model"
    by_name = f"-o Global.pretrained_model={PUBLISHED}"
    commands = {
        "train": f"train {CLASSIFIER} {SHORT}",
        "eval": f"eval {CLASSIFIER} {weights}",
        "to plainnet": "convert output/PlainConv/best_model.pdparams "
        "weights/plainconv_clothes.safetensors --model PlainConv --to plainnet --import my_parts",
        "models": "models PlainConv --import my_parts",
        "eval by name": f"eval {CLASSIFIER} {by_name}",
        "infer": f"infer {CLASSIFIER} {by_name} --json infer.json",
        "export paddle": f"export {CLASSIFIER} {by_name}",
        "export onnx": f"export {CLASSIFIER} {by_name} --to onnx "
        "-o Global.save_inference_dir=inference/onnx",
        "export onnx-external": f"export {CLASSIFIER} {by_name} --to onnx-external "
        "-o Global.save_inference_dir=inference/onnx-external --import my_parts",
    }
    return dict(zip(commands, run_commands(folder, *commands.values()), strict=True))


@pytest.fixture(scope="module")
def detected(folder, classified):
    """The same of the detector, which begins with the family's weights."""
    weights = "-o Global.pretrained_model=output/CentreDetector/best_model"
    commands = {
        "train": f"train {DETECTOR} {SHORT} -o Arch.pretrained=output/PlainConv/best_model",
        "eval": f"eval {DETECTOR} {weights}",
        "infer": f"infer {DETECTOR} {weights} --json objects.json --out drawn "
        "-o Infer.PostProcess.score_threshold=0.0",
        "export paddle": f"export {DETECTOR} {weights}",
        "export onnx": f"export {DETECTOR} {weights} --to onnx "
        "-o Global.save_inference_dir=inference/nuclei-onnx",
        "convert": "convert output/CentreDetector/best_model.pdparams detector.pdparams "
        "--model CentreDetector --backbone PlainConv --import my_parts",
        "segmentor": f"train -c {ROOT}/configs/quickstart/nuclei_semfpn.yaml --import my_parts "
        f"{SHORT} -o Global.output_dir=output -o 'Arch={{name: ThinSegmentor, class_num: 2, "
        "backbone: {name: PlainConv}}'",
    }
    return dict(zip(commands, run_commands(folder, *commands.values()), strict=True))


def logged(folder, model):
    """(records of training steps, the last evaluation's) of a run's log."""
    lines = (folder / "output" / model / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    evaluations = [record for record in records if record["kind"] == "eval"]
    return [record for record in records if record["kind"] == "train"], evaluations[-1]


def assert_trained_and_reloaded(folder, model, printed):
    """It was trained for STEPS steps, and evaluated anew its weights give the same figures."""
    steps, evaluation = logged(folder, model)
    assert [step["update"] for step in steps] == list(range(1, STEPS + 1))
    assert all(math.isfinite(step["loss"]) for step in steps)
    figures = json.loads(printed)
    assert figures["images"] > 1
    assert {key: evaluation[key] for key in figures} == figures


def test_the_family_is_trained_and_evaluated(folder, classified):
    assert_trained_and_reloaded(folder, "PlainConv", classified["eval"])
    assert json.loads(classified["eval"])["top1"] > 0.11  # of ten classes, after two batches


def test_a_published_file_is_known_by_its_name(classified):
    assert f"weights: {PUBLISHED}" in classified["models"]
    assert json.loads(classified["eval by name"]) == json.loads(classified["eval"])


def plainnet_state():
    """A state dict as PlainNet, a PyTorch program, would save it."""
    shapes = {}
    names = ("entry", *(f"blocks.{i}" for i in range(4)))
    widths = ((3, 16), (16, 16), (16, 32), (32, 64), (64, 128))
    for name, (inputs, outputs) in zip(names, widths, strict=True):
        shapes[f"{name}.conv.weight"] = [outputs, inputs, 3, 3]
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.norm.{leaf}"] = [outputs]
        shapes[f"{name}.norm.num_batches_tracked"] = []
        shapes[f"{name}.branch.weight"] = [outputs, outputs, 3, 3]
        shapes[f"{name}.branch.bias"] = [outputs]
    return seeded.state_dict({**shapes, "fc.weight": [10, 128], "fc.bias": [10]})


def test_a_foreign_checkpoint_becomes_ours_and_its_own_again(folder):
    theirs = plainnet_state()
    write_zip(folder / "plainnet.pth", {"model": tensors(theirs)})
    run_commands(
        folder,
        "convert plainnet.pth ours.pdparams --model PlainConv --import my_parts",
        "convert ours.pdparams back.safetensors --model PlainConv --to plainnet --import my_parts",
    )
    ours, back = read_file(folder / "ours.pdparams"), read_file(folder / "back.safetensors")
    assert len(ours) == len(theirs) - 5  # Paddle has no step counters
    for mine, other in (
        ("stem.conv.weight", "entry.conv.weight"),
        ("features.2.norm._variance", "blocks.2.norm.running_var"),
        ("features.3.branch.bias", "blocks.3.branch.bias"),
    ):
        np.testing.assert_array_equal(ours[mine], theirs[other])
    np.testing.assert_array_equal(ours["proj_head.weight"], theirs["fc.weight"].T)
    assert back.keys() == theirs.keys()
    for key, value in theirs.items():
        counter = key.endswith("num_batches_tracked")
        np.testing.assert_array_equal(back[key], np.zeros_like(value) if counter else value)


@pytest.mark.parametrize("export", ["plain_conv", "onnx"])
def test_the_exported_family_predicts_as_the_model(folder, classified, export, tmp_path):
    predict = program_at("deploy/python/predict.py")
    pictures = ROOT / "dataset" / "fashion_mnist" / "pictures"
    arguments = ["--images", str(pictures), "--json", str(tmp_path / "found.json")]
    assert predict.main(["--model", str(folder / "inference" / export), *arguments]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    expected = json.loads((folder / "infer.json").read_text())
    assert len(expected) == 10
    for one, other in zip(found, expected, strict=True):
        assert one["class_ids"] == other["class_ids"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-4)


def test_the_target_writes_its_weights_beside_the_graph(folder, classified):
    export = json.loads((folder / "inference/onnx-external/export.json").read_text())
    inside = json.loads((folder / "inference/onnx/export.json").read_text())
    sizes = {name: file["bytes"] for name, file in export["Files"].items()}
    assert set(sizes) == {"inference.onnx", "inference.data"}
    state = read_file(folder / "output/PlainConv/best_model.pdparams")
    weights = sum(array.nbytes for array in state.values())
    assert sizes["inference.data"] == pytest.approx(weights, rel=0.02)
    assert sum(sizes.values()) == pytest.approx(inside["Files"]["inference.onnx"]["bytes"], rel=0.1)
    assert export["Check"]["same_top1"] == export["Check"]["images"] > 0


def test_the_detector_is_trained_and_evaluated(folder, detected):
    assert_trained_and_reloaded(folder, "CentreDetector", detected["eval"])
    steps, evaluation = logged(folder, "CentreDetector")
    assert all(0 <= step["recall"] <= 1 for step in steps) and evaluation["images"] == 4


def test_the_detector_begins_with_the_familys_weights(folder, detected):
    """Of which two steps at this rate leave the signs of nearly all."""
    before = read_file(folder / "output/PlainConv/best_model.pdparams")
    after = read_file(folder / "output/CentreDetector/best_model.pdparams")
    for key in ("stem.conv.weight", "features.3.conv.weight"):
        same = np.sign(before[key]) == np.sign(after[f"backbone.{key}"])
        assert same.mean() > 0.9


def test_the_detectors_file_is_converted(folder, detected):
    """By its Heads' record, which tells the number of classes."""
    before = read_file(folder / "output/CentreDetector/best_model.pdparams")
    after = read_file(folder / "detector.pdparams")
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key])


@pytest.mark.parametrize("export", ["nuclei", "nuclei-onnx"])
def test_the_exported_detector_was_compared_with_the_model(folder, detected, export):
    check = json.loads((folder / "inference" / export / "export.json").read_text())["Check"]
    assert check["ran"] and 0 <= check["difference"]["objects"] < check["tolerance"] < 1e-3


def test_the_exported_detector_finds_what_the_model_finds(folder, detected):
    export = folder / "inference" / "nuclei-onnx"
    description = json.loads((export / "export.json").read_text())
    assert description["Export"]["outputs"] == ["objects"]  # no masks
    transforms = JointPipeline(description["PreProcess"]["transform_ops"])
    inputs = model_inputs(decode_image(str(TILE)), transforms, TILE.name, min_size=32)
    session = onnxruntime.InferenceSession(str(export / "inference.onnx"))
    names = ("image", "im_shape", "scale_factor")
    (objects,) = session.run(None, dict(zip(names, inputs.values(), strict=True)))
    expected = json.loads((folder / "objects.json").read_text())
    (tile,) = [one["objects"] for one in expected if one["file_name"].endswith(TILE.name)]
    assert len(objects) == len(tile) > 0
    np.testing.assert_allclose(objects[:, 1], [one["score"] for one in tile], atol=1e-5)
    np.testing.assert_allclose(objects[:, 2:], [one["box"] for one in tile], atol=1e-2)


def test_the_detector_draws_what_it_finds(folder, detected):
    drawn = {path.name for path in (folder / "drawn").iterdir()}
    tiles = TILE.parent.iterdir()
    assert drawn == {f"{path.stem}_objects.png" for path in tiles} and len(drawn) == 4


def test_the_segmentor_is_trained(folder, detected):
    steps, evaluation = logged(folder, "ThinSegmentor")
    assert (steps[-1]["update"], evaluation["images"]) == (STEPS, 4)
    assert math.isfinite(steps[-1]["loss"]) and 0 < evaluation["mIoU"] < 1


def test_without_its_import_no_part_is_known(folder):
    recipe = (folder / "my_parts" / "plain_conv.yaml").read_text()
    (folder / "alone.yaml").write_text(recipe.replace("  imports: [my_parts]\n", ""))
    with pytest.raises(AssertionError, match="unknown model 'PlainConv'"):
        run_commands(folder, "train -c alone.yaml")
