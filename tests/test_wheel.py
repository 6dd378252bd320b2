"""The wheel, installed where nothing of the repository is: what it holds, and that it trains,
evaluates, exports and predicts from an empty folder.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import setuptools
from PIL import Image

from ppcls_nextvit import __version__
from support.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        int(setuptools.__version__.partition(".")[0]) < 77, reason="needs setuptools of 77 or more"
    ),
]
CLASSES = ("blue", "red")
COUNT = 4  # images of each class


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the working tree, built in a copy of it."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "dist"))
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in output.split("\0"):
        if (ROOT / name).is_file() and not name.startswith(("dataset/", "tests/golden/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--quiet"]
    done = subprocess.run([*build, "-w", target, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A Python with that wheel and, below it, the packages of this one, but none of its links to
    the working tree (a folder named in a .pth file has its own .pth files left alone).
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    paths = {sysconfig.get_paths()[key] for key in ("purelib", "platlib")}
    Path(own, "host.pth").write_text("\n".join(sorted(paths)) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    options = ["--no-index", "--no-deps", "--ignore-installed"]
    done = subprocess.run([*pip, *options, wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def run(environment, tmp_path_factory):
    """`run(program, *arguments)` in a folder of its own that holds a few images; the finished
    process.
    """
    here = tmp_path_factory.mktemp("here")
    for label, name in enumerate(CLASSES):
        (here / "images" / name).mkdir(parents=True)
        for index in range(COUNT):
            colour = (200 * label + index, 10 * index, 200 - 200 * label)
            Image.new("RGB", (40, 36), colour).save(here / "images" / name / f"{index}.png")
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(program, *arguments):
        return subprocess.run(
            [environment / "bin" / program, *arguments],
            cwd=here,
            env=variables,
            capture_output=True,
            text=True,
        )

    run.here = here
    return run


def test_what_the_wheel_holds(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "ppcls_nextvit",
        f"ppcls_nextvit-{__version__}.dist-info",
    }
    recipes = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.y*ml")}
    assert len(recipes) > 30
    packaged = {Path(name) for name in names}
    assert {
        "ppcls_nextvit" / recipe for recipe in map(Path("recipes").joinpath, recipes)
    } <= packaged
    for name in (
        "py.typed",
        "recipes/detection/coco_labels.txt",
        "data/imagenet1k_label_list.txt",
        "export/photos/dog_243.jpg",
        "export/photos/LICENSE",
    ):
        assert f"ppcls_nextvit/{name}" in names
    modules = {path.relative_to(ROOT) for path in (ROOT / "ppcls_nextvit").rglob("*.py")}
    assert modules == {path for path in packaged if path.suffix == ".py"}


def test_it_is_the_wheel_that_is_imported_and_nothing_beside_it(run, environment):
    code = (
        "import importlib.util, ppcls_nextvit; print(ppcls_nextvit.__file__);"
        "print([name for name in ('weight_conversion', 'tools', 'tests', 'scripts', 'benchmarks',"
        " 'test_tipc') if importlib.util.find_spec(name)])"
    )
    where, others = run("python", "-c", code).stdout.splitlines()
    assert Path(where).is_relative_to(environment) and others == "[]"


@pytest.mark.chain
def test_train_evaluate_export_predict(run):
    dataset = {
        "name": "ImageFolder",
        "image_root": "images",
        "transform_ops": [
            {"DecodeImage": {"to_rgb": True}},
            {"ResizeImage": {"size": 32}},
            {"NormalizeImage": {"order": ""}},
        ],
    }
    settings = {
        "Global.epochs": 1,
        "Arch.class_num": len(CLASSES),
        "DataLoader.Train.dataset": dataset,
        "DataLoader.Train.sampler.batch_size": COUNT,
        "DataLoader.Eval.dataset": dataset,
        "Infer.infer_imgs": "images/red",
        "Infer.PostProcess.class_id_map_file": None,
    }
    config = ["-c", "fashion_mnist.yaml"]
    for key, value in settings.items():
        config += ["-o", f"{key}={json.dumps(value)}"]

    done = run("nextvit", "train", *config)
    assert done.returncode == 0, done.stderr
    assert "recipes/quickstart/fashion_mnist.yaml (no fashion_mnist.yaml here)" in done.stderr
    trained = run.here / "output" / "quickstart" / "NextViT_small"
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["update"]) for line in log] == [("train", 2), ("eval", 2)]

    config += ["-o", f"Global.pretrained_model={trained / 'latest'}"]
    done = run("nextvit", "eval", *config)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == len(CLASSES) * COUNT

    done = run("nextvit", "export", *config, "-o", "Global.save_inference_dir=model")
    assert done.returncode == 0, done.stderr
    assert "largest difference from the model" in done.stdout
    assert json.loads((run.here / "model" / "export.json").read_text())["Check"]["ran"]

    done = run("nextvit", "infer", *config, "--json", "predictions.json")
    assert done.returncode == 0, done.stderr
    predictions = json.loads((run.here / "predictions.json").read_text())
    assert [Path(each["file_name"]).name for each in predictions] == [
        f"{index}.png" for index in range(COUNT)
    ]


def test_packaged_configurations(run):
    listed = run("nextvit", "configs", "list", "mask_rcnn_nextvit_small_1x").stdout
    assert listed.startswith("detection/mask_rcnn_nextvit_small_1x_coco.yaml ")
    done = run("nextvit", "infer", "-c", "mask_rcnn_nextvit_small_1x_coco.yaml")
    # its class names are found, so that the images are what is missing
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "coco_labels" not in done.stderr and "val2017" in done.stderr
