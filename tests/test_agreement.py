"""A description that was edited without its program is refused: deploy/*/agreement.py."""

import argparse
import json
import subprocess

import numpy as np
import pytest

from ppcls_nextvit.export.agreement import check_inputs, check_outputs
from ppcls_nextvit.export.opened import Opened
from ppcls_nextvit.export.verify import ExportError, Signature
from support.programs import program_at
from support.web_page import FOLDER, NODE, needs_node

SOFT = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
OBJECTS = np.array([[1, 0.9, 0, 0, 5, 5], [0, 0.8, 1, 1, 4, 4]], np.float32)
GRIDS = np.zeros((2, 28, 28), np.float32)
LOGITS = np.zeros((1, 2, 4, 4), np.float32)


def classifier(names=2, **model):
    topk = {"topk": 1, "label_list": [str(i) for i in range(names)]}
    return {"PostProcess": {"Topk": topk}, "Model": {"softmax": True, **model}}


def several(threshold=0.5):
    post = {"threshold": threshold, "label_list": ["a", "b"]}
    return {"PostProcess": {"MultiLabelThreshOutput": post}, "Model": {"sigmoid": True}}


def detector(*outputs, names=2):
    labels = [str(i) for i in range(names)]
    post = {"label_list": labels, "score_threshold": 0.5}
    return {"PostProcess": post, "Export": {"outputs": list(outputs)}}


def segmentor(*outputs, names=2):
    post = {"label_list": [str(i) for i in range(names)]}
    return {"PostProcess": post, "Export": {"outputs": list(outputs)}}


@pytest.mark.parametrize(
    "description, outputs",
    [
        (classifier(), [SOFT]),
        (classifier(), [SOFT.astype(np.float16)]),
        (classifier(), [SOFT * 1.05]),  # as bfloat16 may round
        (classifier(), [SOFT[:0]]),
        (classifier(softmax=False), [2 * SOFT]),
        (classifier(softmax=False), [SOFT - 0.25]),
        (classifier(1, softmax=False), [np.ones((1, 1))]),  # one class alone may score anything
        (several(), [np.array([[0.9, 0.8]])]),
        (detector("objects"), [OBJECTS]),
        (detector("objects"), [OBJECTS, GRIDS]),
        (detector("objects", "masks"), [OBJECTS, GRIDS]),
        (detector("objects", "masks"), [OBJECTS[:0], GRIDS[:0]]),
        (segmentor("labels", "logits"), [LOGITS[:, 0], LOGITS]),
    ],
)
def test_what_agrees(description, outputs):
    check_outputs(description, outputs)


@pytest.mark.parametrize(
    "description, outputs, said",
    [
        (classifier(3), [SOFT], r"gives \[2, 2\], the description names 3 classes"),
        (classifier(1), [SOFT], r"gives \[2, 2\], the description names 1 classes"),
        (classifier(), [SOFT[0]], r"gives \[2\], the description names 2 classes"),
        (classifier(), [SOFT * np.nan], "not finite"),
        (classifier(), [SOFT - 0.3], "Model.softmax is true, but .* no probabilities"),
        (classifier(), [SOFT * 1.2], "Model.softmax is true, but .* no probabilities"),
        (classifier(), [SOFT * 0.8], "Model.softmax is true, but .* no probabilities"),
        (classifier(softmax=False), [SOFT], "Model.softmax is false, but .* probabilities"),
        (several(), [np.array([[0.9, 1.2]])], "Model.sigmoid is true, but .* no probabilities"),
        (several(), [np.array([[0.9, -0.1]])], "Model.sigmoid is true, but .* no probabilities"),
        (
            detector("objects", names=1),
            [OBJECTS],
            "objects of the class 1, the description names 1",
        ),
        (detector("objects"), [OBJECTS - 1], "objects of the class -1, the description names 2"),
        (detector("objects"), [GRIDS], r"expected \[n, 6\], the program gives the shape \[2, 28"),
        (detector("masks", "objects"), [OBJECTS, GRIDS], r"expected \[n, 6\]"),
        (detector("boxes"), [OBJECTS], r"expected \[n, 6\], the program gives none"),
        (detector("objects", "masks"), [OBJECTS], "has 'objects', 'masks', the program gives 1"),
        (detector("objects", "masks"), [OBJECTS, GRIDS[:1]], r"masks of the shape \[1, 28, 28\]"),
        (segmentor("labels", "logits", names=3), [LOGITS[:, 0], LOGITS], "names 3 classes"),
        (segmentor("logits", "labels"), [LOGITS[:, 0], LOGITS], r"logits of the shape \[1, 4, 4\]"),
        (segmentor("labels", "scores"), [LOGITS[:, 0], LOGITS], "gives no logits"),
    ],
)
def test_what_does_not(description, outputs, said):
    with pytest.raises(ValueError, match=said):
        check_outputs(description, outputs)


def test_names_of_inputs():
    told = {"image": [1, 3, 4, 4], "im_shape": [1, 2]}
    check_inputs(told, ["im_shape", "image"])
    check_inputs(None, ["x"])  # the oldest exports do not say
    with pytest.raises(ValueError, match="has 'image', 'im_shape', the program takes 'x'; export"):
        check_inputs(told, ["x"])


def test_programs_ask(tmp_path):
    """Each program that runs an export compares before it answers."""
    images = np.zeros((2, 3, 4, 4), np.float32)
    edited = classifier(3, input={"shape": [None, 3, 4, 4]})
    python = program_at("deploy/python/classify.py").Classifier(lambda batch: SOFT, edited)
    service = object.__new__(program_at("deploy/serving/classifier.py").Classifier)
    service.run, service.description = (lambda batch: SOFT), edited
    for program, given in ((python, images), (service, list(images))):
        with pytest.raises(ValueError, match="the description names 3 classes"):
            program(given)

    scene = object.__new__(program_at("deploy/serving/scenes.py").DenseModel)
    scene.description = segmentor("labels", "logits", names=3)
    with pytest.raises(ValueError, match="the description names 3 classes"):
        scene.answer(images, argparse.Namespace(), [LOGITS[:, 0], LOGITS], {})

    signature = Signature({"x": (None, 3, 4, 4)}, ("probabilities",))
    opened = Opened(tmp_path, edited, signature, lambda batch: {"probabilities": SOFT})
    with pytest.raises(ExportError, match=r"export\.json: .*the description names 3 classes"):
        opened({"x": images})
    features = Opened(tmp_path, {}, Signature({}, ("map0",)), lambda batch: {"map0": SOFT})
    assert features({})["map0"] is SOFT


@needs_node
def test_the_page_asks_too():
    """What is said of [scores, dims, classes, whether they are said to be probabilities]."""
    cases = {
        "": [[0.25, 0.75], [1, 2], 2, True],
        " ": [[2, -1], [1, 2], 2, False],
        "1 x 2 scores; export.json names 3 classes": [[0.25, 0.75], [1, 2], 3, True],
        "Model.softmax is true": [[2, -1], [1, 2], 2, True],
        "Model.softmax is false": [[0.25, 0.75], [1, 2], 2, False],
        "not finite": [[None, 1], [1, 2], 2, False],
    }
    program = """
import {checkScores} from "./src/tasks/classifier.js";
const said = (scores, ...more) => {
  try { checkScores(Float32Array.from(scores, (x) => x ?? NaN), ...more); }
  catch (error) { return error.message; }
  return "";
};
console.log(JSON.stringify(JSON.parse(process.argv[1]).map((one) => said(...one))));
"""
    given = ["--input-type=module", "-e", program, json.dumps(list(cases.values()))]
    done = subprocess.run([NODE, *given], cwd=FOLDER, capture_output=True, text=True, check=True)
    for wanted, told in zip(cases, json.loads(done.stdout), strict=True):
        assert wanted.strip() in told and bool(wanted.strip()) == bool(told)
