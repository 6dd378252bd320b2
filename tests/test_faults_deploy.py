"""Damaged descriptions of exports, export.json and inference.yml: every program of deploy/ that
reads one ends with an error of one line, or works; none has a traceback.

FAULTS_SEED and FAULTS_COUNT try others, and more: see support/faults.py.
"""

import argparse
import contextlib
import copy
import json
import os
import shutil
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from ppcls_nextvit.export.opened import open_export
from ppcls_nextvit.export.verify import ExportError
from support.faults import COUNT, generators
from support.programs import program_at

ODD = [None, True, 0, -1, 7, 2**70, 1.5, float("nan"), "", "x", "a\nb\x1b", [], {}, [[]], [None]]
ODD += [{"x": 1}, ["a"] * 3, [1, 2, 3, 4], "-" * 5000]


def description():
    """A whole one, of a Paddle Inference program that also says it is ONNX's."""
    transforms = [
        {"DecodeImage": {"to_rgb": True, "channel_first": False}},
        {"ResizeImage": {"size": 32, "interpolation": "bicubic", "backend": "pil"}},
        {"CropImage": {"size": [32, 32]}},
        {"NormalizeImage": {"scale": 0.004, "mean": [0.5] * 3, "std": [0.5] * 3, "order": ""}},
        {"ToCHWImage": None},
    ]
    return {
        "Global": {"model_name": "NextViT_small"},
        "PreProcess": {"transform_ops": transforms},
        "PostProcess": {"Topk": {"topk": 2, "label_list": ["a", "b", "c"]}},
        "Model": {
            "class_num": 3,
            "softmax": True,
            "input": {
                "name": "x",
                "shape": [None, 3, 32, 32],
                "image_size": [32, 32],
                "min_size": 32,
            },
        },
        "Export": {
            "target": "onnx",
            "precision": "fp32",
            "inputs": {"x": [None, 3, 32, 32]},
            "outputs": ["probabilities"],
        },
        "Files": {},
        "Versions": {"paddle": "3.3.1", "pillow": "13.0.0"},
    }


def places(value, path=()):
    """The paths of all values in nested lists and mappings."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items if isinstance(value, (dict, list)) else ():
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def mutated(rng):
    """A description of which up to three values are another, missing, or under another key."""
    changed = description()
    for _ in range(rng.integers(1, 4)):
        paths = list(places(changed))
        *path, key = paths[rng.integers(len(paths))]
        parent = changed
        for step in path:
            parent = parent[step]
        choice = rng.random()
        if choice < 0.2:
            del parent[key]
        elif choice < 0.3 and isinstance(parent, dict):
            parent["Odd"] = parent.pop(key)
        else:
            parent[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
    return changed


def damaged_text(rng, text):
    """Bytes of `text` changed, cut, or nested too deep."""
    choice = rng.random()
    if choice < 0.1:
        return (b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe" + text, b"")[rng.integers(4)]
    data = bytearray(text)
    for place in rng.integers(0, len(data), rng.integers(1, 6)):
        data[place] = rng.integers(256)
    return bytes(data[: rng.integers(len(data))] if choice < 0.4 else data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export's files and, beside it, an image."""
    folder = tmp_path_factory.mktemp("export")
    for name in ("inference.onnx", "inference.pdmodel", "inference.pdiparams", "inference.engine"):
        (folder / name).write_bytes(b"data")
    Image.new("RGB", (40, 36), "red").save(folder / "image.png")
    return folder


def zeros(*arguments, **options):
    return lambda batch: np.full((len(batch), 3), 1 / 3, np.float32)


def python_program(folder, tmp_path):
    program = program_at("deploy/python/predict.py")
    program.load_engine = zeros
    given = ["--model", str(folder), "--images", str(folder / "image.png")]
    return program.main([*given, "--json", str(tmp_path / "out.json")])


def coreml_program(folder, tmp_path):
    program = program_at("deploy/coreml/predict.py")
    program.coreml_engine = zeros
    return program.main(["--model", str(folder), "--images", str(folder / "image.png")])


def tensorrt_build(folder, tmp_path):
    program = program_at("deploy/tensorrt/build.py")

    def not_here(rtx):
        raise program.BuildError("no TensorRT")

    program.import_tensorrt = not_here
    return program.main(["--model", str(folder)])


def tensorrt_infer(folder, tmp_path):
    program = program_at("deploy/tensorrt/infer.py")
    program.import_tensorrt = program.Cuda = program.Engine = zeros
    return program.main(["--model", str(folder), "--images", str(folder / "image.png")])


def service(folder, tmp_path):
    """What server.py's first process and a worker do before they say that they are ready."""
    classifier = program_at("deploy/serving/classifier.py")
    classifier.load = zeros
    workers = program_at("deploy/serving/workers.py")
    options = argparse.Namespace(
        model=folder, max_pixels=100_000, device="cpu", threads=1, max_bytes=1, max_in_flight=1
    )
    try:
        found = classifier.read_description(folder)
        model = object.__new__(workers.Model)
        workers.Classifier = classifier.Classifier
        model.__init__(options, found)
    except (OSError, ValueError) as error:
        print("error:", error, file=sys.stderr)
        return 1
    ((status, content),) = model.run([(folder / "image.png").read_bytes()], [{}])["answers"]
    detail = json.loads(content).get("detail", "")
    # the stand-in gives three classes, whatever the description names
    assert status in (200, 413, 422) or detail.endswith("classes; export again"), content
    return 0


def triton(folder, tmp_path):
    out = tmp_path / "repository"
    shutil.rmtree(out, ignore_errors=True)
    program = program_at("deploy/serving/triton/make_repository.py")
    return program.main(["--model", str(folder), "--out", str(out)])


def paddle_serving(folder, tmp_path):
    program = program_at("deploy/serving/paddle_serving/convert.py")
    program.output_name = lambda model: "y"
    given = ["--server", str(tmp_path / "server"), "--client", str(tmp_path / "client")]
    return program.main(["--model", str(folder), *given])


def page(folder, tmp_path):
    pytest.importorskip("onnx", reason="needs the extra `onnx`")
    program = program_at("deploy/web/prepare.py")
    return program.main(["--model", str(folder), "--out", str(tmp_path / "page")])


PROGRAMS = [python_program, coreml_program, tensorrt_build, tensorrt_infer, service]
PROGRAMS += [triton, paddle_serving, page]
READ_YAML = (python_program, coreml_program, tensorrt_infer)


def ends_in_order(program, folder, tmp_path, capsys):
    """Its exit status; after 1, one line of error."""
    capsys.readouterr()
    status = program(folder, tmp_path)
    errors = capsys.readouterr().err
    if errors.startswith("threads: "):  # what it says before it reads anything
        errors = errors.partition("\n")[2]
    if status:
        assert errors.startswith("error: ") and errors.count("\n") == 1, errors
        assert len(errors) < 3000 and errors[:-1].isprintable(), errors
    return status


@pytest.mark.faults
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_values_that_cannot_be(program, folder, tmp_path, capsys):
    whole = description()
    if program is paddle_serving:
        whole["Files"] = {"inference.pdmodel": {"sha256": ""}}
    (folder / "export.json").write_text(json.dumps(whole))
    good = ends_in_order(program, folder, tmp_path, capsys)
    works = program in (python_program, coreml_program, service, triton, paddle_serving)
    assert good == (0 if works else 1), "what is whole is read"
    refused = 0
    for rng in generators(5 * COUNT):
        changed = mutated(rng)
        (folder / "export.json").write_text(json.dumps(changed))
        refused += ends_in_order(program, folder, tmp_path, capsys)
    assert refused > COUNT


@pytest.mark.parametrize("program", [triton, paddle_serving], ids=lambda of: of.__name__)
def test_a_size_that_is_not_told(program, folder, tmp_path, capsys):
    for size in (None, ...):
        changed = description()
        changed["Model"]["input"]["image_size"] = size
        if size is ...:
            del changed["Model"]["input"]["image_size"]
        (folder / "export.json").write_text(json.dumps(changed))
        assert ends_in_order(program, folder, tmp_path, capsys)


@pytest.mark.faults
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_damaged_text(program, folder, tmp_path, capsys):
    text = json.dumps(description()).encode()
    for rng in generators(2 * COUNT):
        (folder / "export.json").write_bytes(damaged_text(rng, text))
        ends_in_order(program, folder, tmp_path, capsys)


@pytest.mark.faults
@pytest.mark.parametrize("program", READ_YAML, ids=lambda program: program.__name__)
def test_damaged_yaml(program, folder, tmp_path, capsys):
    text = yaml.safe_dump(description()).encode()
    (folder / "export.json").unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        stack.callback((folder / "inference.yml").unlink)
        for rng in generators(2 * COUNT):
            (folder / "inference.yml").write_bytes(damaged_text(rng, text))
            ends_in_order(program, folder, tmp_path, capsys)


@pytest.mark.parametrize("edited", [None, "inference.yml", "export.json"])
def test_two_descriptions_must_say_the_same(edited, folder, tmp_path, capsys):
    """Programs read the one or the other."""
    texts = {
        "inference.yml": yaml.safe_dump(description()),
        "export.json": json.dumps(description()),
    }
    place = tmp_path / "export"
    shutil.copytree(folder, place)
    for name, text in texts.items():
        changed = text.replace("0.004", "0.005") if name == edited else text
        (place / name).write_text(changed)
    status = python_program(place, tmp_path)
    said = capsys.readouterr().err
    assert status == (1 if edited else 0), said
    if not edited:
        assert open_export(place, zeros).description["Global"] == {"model_name": "NextViT_small"}
        return
    assert "PreProcess is another in export.json; change both" in said
    with pytest.raises(ExportError, match="PreProcess is another than in export.json; change both"):
        open_export(place, zeros)


def test_an_engine_s_record_that_is_damaged(folder, tmp_path, capsys):
    (folder / "export.json").write_text(json.dumps(description()))
    for text in ("", "[]", "{}", '{"onnx_sha256": 3}', "[" * 100_000):
        (folder / "inference.engine.json").write_text(text)
        assert ends_in_order(tensorrt_infer, folder, tmp_path, capsys) == 1
    os.unlink(folder / "inference.engine.json")


@pytest.mark.parametrize(
    "place, value, said",
    [
        ("PostProcess.Topk.label_list", "abc", "expected a list of names, got str 'abc'"),
        ("PostProcess.Topk.topk", 0, "expected 1 or more, got int '0'"),
        ("PostProcess.Topk.topk", True, "expected 1 or more, got bool 'True'"),
        ("Model.softmax", 1, "expected true or false, got int '1'"),
        ("Model.input.shape", [None, 3, 32], "expected four sizes or nulls, got list"),
        ("Model.input", None, "expected four sizes or nulls, got nothing"),
        ("Files", {"a": {}}, "expected a sha256 for each name, got dict"),
    ],
)
def test_fields_are_named(place, value, said):
    fields = program_at("deploy/python/fields.py")
    changed = description()
    *path, key = place.split(".")
    parent = changed
    for step in path:
        parent = parent[step]
    parent[key] = value
    with pytest.raises(ValueError, match=said):
        fields.check_fields(changed)
    fields.check_fields(description())


@pytest.mark.parametrize("program", ["deploy/python/preprocess.py", "deploy/serving/pictures.py"])
@pytest.mark.parametrize(
    "transform, said",
    [
        ({"ResizeImage": {"sise": 3}}, "sise"),
        ({"ResizeImage": {"size": 32, "interpolation": "cubic", "backend": "pil"}}, "CUBIC"),
        ({"ResizeImage": {"size": "32", "backend": "pil"}}, "ResizeImage"),
        ({"CropImage": {"size": -3}}, "-3 x -3"),
        ({"DecodeImage": {"colour": 1}}, "colour"),
        ({"NormalizeImage": {"mean": [1, 2]}}, "NormalizeImage"),
    ],
)
def test_arguments_of_transforms_are_tried_before_an_image_is_read(program, transform, said):
    with pytest.raises(ValueError, match=said):
        program_at(program).Preprocess([transform])
