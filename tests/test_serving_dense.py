"""deploy/serving with detectors and segmentors: what deploy/python tells of the same pictures,
masks as run lengths and as PNG, and each option for its own task.
"""

import argparse
import base64
import http.client
import io
import json
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from support.paths import ROOT
from support.programs import program_at
from support.toy_exports import described, scenes, toy_detector, toy_segmentor

for package in ("cv2", "fastapi", "uvicorn", "prometheus_client", "python_multipart"):
    pytest.importorskip(package, reason="needs the extras `serving` and `cv2`")
pytestmark = pytest.mark.slow

FOLDER = ROOT / "deploy" / "serving"
TASKS = ("detection", "segmentation")
workers = program_at("deploy/serving/workers.py")
classifier = program_at("deploy/serving/classifier.py")
deploy = program_at("deploy/python/predict.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, and the exports by task."""
    folder = tmp_path_factory.mktemp("served")
    scenes(folder / "scenes")
    toy_detector(folder / "detection")
    toy_segmentor(folder / "segmentation")
    return folder


def options_of(model, max_pixels=1_000_000):
    return argparse.Namespace(model=model, device="cpu", threads=1, max_pixels=max_pixels)


@pytest.fixture(scope="module")
def models(folder):
    """The worker's model by task."""
    return {
        task: workers.SceneModel(
            options_of(folder / task), classifier.read_description(folder / task)
        )
        for task in TASKS
    }


def answers(model, pictures, query=None):
    uploads = [path.read_bytes() for path in pictures]
    made = model.run(uploads, [query or {}] * len(uploads))
    assert made["images"] == len(pictures)
    assert {status for status, _ in made["answers"]} == {200}
    return [json.loads(text) for _, text in made["answers"]]


@pytest.mark.parametrize("task", TASKS)
def test_what_the_program_tells(folder, models, tmp_path, task):
    given = ["--model", str(folder / task), "--images", str(folder / "scenes")]
    assert deploy.main([*given, "--json", str(tmp_path / "got.json")]) == 0
    expected = json.loads((tmp_path / "got.json").read_text(encoding="utf-8"))
    for one in expected:
        del one["file_name"]
    assert answers(models[task], sorted((folder / "scenes").iterdir())) == expected


def decoded(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_masks_of_objects_as_png_and_run_lengths(folder, models):
    mask = pytest.importorskip("pycocotools.mask")
    pictures = [folder / "scenes" / "2.png"]
    (lengths,) = answers(models["detection"], pictures)
    (pngs,) = answers(models["detection"], pictures, {"masks": "png"})
    (none,) = answers(models["detection"], pictures, {"masks": "none"})
    assert len(lengths["objects"]) > 3
    for one, other, bare in zip(lengths["objects"], pngs["objects"], none["objects"], strict=True):
        assert np.array_equal(decoded(other.pop("mask_png")), mask.decode(one.pop("mask")) > 0)
        assert one == other == bare


def test_labels_as_png_and_run_lengths(folder, models):
    mask = pytest.importorskip("pycocotools.mask")
    pictures = [folder / "scenes" / "1.png"]
    (lengths,) = answers(models["segmentation"], pictures)
    (png,) = answers(models["segmentation"], pictures, {"masks": "png"})
    labels = decoded(png["labels_png"])
    for area in lengths["classes"]:
        assert np.array_equal(mask.decode(area.pop("mask")), labels == area["class_id"])
    assert lengths["classes"] == png["classes"] and len(png["classes"]) > 1


def test_thresholds_are_the_client_s(folder, models):
    pictures = [folder / "scenes" / "0.png"]
    (usual,) = answers(models["detection"], pictures)
    (few,) = answers(models["detection"], pictures, {"score_threshold": 0.7})
    (none,) = answers(models["detection"], pictures, {"score_threshold": 1.0})
    (thin,) = answers(models["detection"], pictures, {"mask_threshold": 0.9})
    assert 0 < len(few["objects"]) < len(usual["objects"]) and none["objects"] == []
    assert thin != usual and len(thin["objects"]) == len(usual["objects"])


def test_a_thousand_objects(folder, tmp_path):
    many = toy_detector(tmp_path / "many", count=1000, threshold=0.0)
    model = workers.SceneModel(options_of(many), classifier.read_description(many))
    pictures = sorted((folder / "scenes").iterdir())
    given = ["--model", str(many), "--images", str(folder / "scenes"), "--json"]
    assert deploy.main([*given, str(tmp_path / "told.json")]) == 0
    expected = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))
    for ours, theirs in zip(answers(model, pictures), expected, strict=True):
        assert len(ours["objects"]) == 1000 and ours["objects"] == theirs["objects"]


@pytest.mark.parametrize("task", TASKS)
def test_a_label_map_larger_than_memory_is_refused(folder, monkeypatch, task):
    model = workers.SceneModel(
        options_of(folder / task), classifier.read_description(folder / task)
    )
    model.model.prepare.memory = 1000
    made = model.run([(folder / "scenes" / "0.png").read_bytes()], [{}])
    ((status, text),) = made["answers"]
    assert status == 413 and "0.0 GB may be used; give a smaller image" in text


@pytest.mark.parametrize("task", TASKS)
def test_a_bad_picture_costs_no_other(folder, task):
    model = workers.SceneModel(
        options_of(folder / task, max_pixels=10_000), classifier.read_description(folder / task)
    )
    good = (folder / "scenes" / "0.png").read_bytes()
    large = (folder / "scenes" / "2.png").read_bytes()
    made = model.run([b"no picture", good, large], [{}, {}, {}])
    assert [status for status, _ in made["answers"]] == [415, 200, 413]
    assert made["images"] == 1


@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_fails_is_told_and_the_worker_lives(folder, models, monkeypatch, capsys, task):
    def fail(prepared):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(models[task].model, "outputs_for", fail)
    made = models[task].run([(folder / "scenes" / "0.png").read_bytes()], [{}])
    status, text = made["answers"][0]
    assert (status, json.loads(text)) == (500, {"detail": "the model failed: out of memory"})
    assert "Traceback" in capsys.readouterr().err, "for whoever mends it"


def test_descriptions_and_files_are_compared(folder, tmp_path):
    copy = shutil.copytree(folder / "detection", tmp_path / "copy")
    description = json.loads((copy / "export.json").read_text(encoding="utf-8"))
    del description["PostProcess"]["score_threshold"]
    described(copy, description)
    with pytest.raises(ValueError, match="PostProcess.score_threshold: expected a number from 0"):
        classifier.read_description(copy)
    description["PostProcess"]["score_threshold"] = 0.5
    described(copy, description)
    (copy / "inference.pdiparams").write_bytes(b"others")
    with pytest.raises(ValueError, match="inference.pdiparams: does not match export.json"):
        classifier.read_description(copy)


def test_triton_s_repository_is_for_classifiers(folder, tmp_path, capsys):
    make = program_at("deploy/serving/triton/make_repository.py")
    given = ["--model", str(folder / "detection"), "--out", str(tmp_path / "repository")]
    assert make.main(given) == 1
    assert (
        "no description of an exported classifier: it is for detection" in capsys.readouterr().err
    )


def test_the_copies_of_the_service_are_equal():
    for name in ("joint.py", "objects.py", "labels.py", "winners.py"):
        first, second = (ROOT / "deploy" / place / name for place in ("python", "serving"))
        assert first.read_bytes() == second.read_bytes(), name
    third = ROOT / "ppcls_nextvit" / "models" / "segmentors" / "winners.py"
    assert third.read_bytes() == second.read_bytes()


class Server:
    """server.py, copied away, on a free port."""

    def __init__(self, folder, model, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / f"{self.port}.log"
        command = [sys.executable, "server.py", "--model", str(model), "--port", str(self.port)]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, *options], cwd=folder, stdout=log, stderr=log
            )
        end = time.monotonic() + 90
        while not self.ready():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def ready(self):
        try:
            return self.request("GET", "/health")[0] == 200
        except OSError:
            return False

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, {"Content-Type": "image/png"} if body else {})
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log.read_text()
        return self.log.read_text()


@pytest.fixture
def copy(tmp_path):
    """The programs, copied away."""
    for path in FOLDER.glob("*.py"):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_the_page_s_command_asks_the_service_that_shows_it():
    told = {"model": "m", "task": "detection", "classes": 2, "max_bytes": 9, "max_pixels": 9}
    page = program_at("deploy/serving/guide.py").guide({"model": told}, "host<:9")
    assert "curl -F file=@photo.jpg http://host&lt;:9/predict</pre>" in page


@pytest.mark.chain
def test_the_service_says_where_it_is_and_what_it_did(folder, copy, models):
    server = Server(copy, folder / "detection")
    picture = (folder / "scenes" / "0.png").read_bytes()
    status, data = server.request("POST", "/predict?masks=none&score_threshold=0.5", picture)
    (expected,) = answers(
        models["detection"],
        [folder / "scenes" / "0.png"],
        {"masks": "none", "score_threshold": 0.5},
    )
    assert (status, json.loads(data)) == (200, expected)
    for query, code, said in (
        ("topk=3", 400, "topk: for classification; this model is for detection"),
        ("mask_threshold=1.5", 422, "less than or equal to 1"),
        ("masks=gif", 422, "'rle', 'png' or 'none'"),
    ):
        status, data = server.request("POST", f"/predict?{query}", picture)
        assert status == code and said in data.decode()
    status, page = server.request("GET", "/docs")
    assert status == 200 and b"score_threshold=X" in page and b"http" not in page.split(b"curl")[0]
    assert f"@photo.jpg http://127.0.0.1:{server.port}/predict<" in page.decode()
    assert json.loads(server.request("GET", "/info")[1])["model"]["task"] == "detection"
    first, *rows = [line for line in server.stop().splitlines() if "127.0.0.1" in line]
    where = f"http://127.0.0.1:{server.port}"
    assert first == (
        f"{folder / 'detection'} (detection, 4 classes) is served at {where}: POST /predict, see "
        f"/docs; Ctrl-C ends it; 1 worker(s) with 1 thread(s) each"
    )
    assert [row.split()[3:6] for row in rows] == [
        ["POST", "/predict", "200"],
        ["POST", "/predict", "400"],
        ["POST", "/predict", "422"],
        ["POST", "/predict", "422"],
        ["GET", "/docs", "200"],
        ["GET", "/info", "200"],
    ]


@pytest.mark.chain
def test_a_quiet_service_says_nothing(folder, copy):
    server = Server(copy, folder / "segmentation", "--quiet")
    status, data = server.request(
        "POST", "/predict?masks=png", (folder / "scenes" / "1.png").read_bytes()
    )
    assert status == 200 and decoded(json.loads(data)["labels_png"]).shape == (90, 41)
    assert server.stop() == ""
