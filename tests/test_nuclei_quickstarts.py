"""The quickstarts of detection on TransNeXt: what their headers say of the network is so, an
untrained one finds nothing, and a few steps run from end to end.
"""

import pytest

from ppcls_nextvit.data.transforms.joint import opencv
from ppcls_nextvit.engine.distributed import Processes
from ppcls_nextvit.engine.log import read_figures
from ppcls_nextvit.models.complexity import count_parameters
from ppcls_nextvit.tasks import load_config, train
from ppcls_nextvit.tasks.detection.task import DetectionTask
from support.paths import ROOT

pytestmark = pytest.mark.slow  # runs of whole files
FOLDER = ROOT / "configs" / "quickstart"
# millions of parameters
RECIPES = {"nuclei_mask_rcnn_transnext": 4.63, "nuclei_dino": 3.99}
FEW = (
    "Global.epochs=1",
    "DataLoader.Train.sampler.iterations=2",
    "DataLoader.Train.sampler.batch_size=2",
)


@pytest.fixture(autouse=True)
def place(monkeypatch):
    for package in ("pycocotools", "scipy"):
        pytest.importorskip(package, reason="the extra det")
    try:
        opencv()
    except ImportError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", RECIPES)
def test_a_few_steps(name, tmp_path):
    config = load_config(FOLDER / f"{name}.yaml", [*FEW, f"Global.output_dir={tmp_path}"])
    task = DetectionTask(config, Processes())
    millions = count_parameters(task.model) / 1e6
    assert millions == pytest.approx(RECIPES[name], abs=0.006)
    assert f"{RECIPES[name]} M" in (FOLDER / f"{name}.yaml").read_text()
    assert task.evaluate()["box_map_50"] < 0.05
    assert train(config) == 0
    trained, evaluated = read_figures(config.output_dir)
    assert (trained["kind"], trained["update"]) == ("train", 2) and trained["loss"] > 0
    assert evaluated["kind"] == "eval" and evaluated["images"] == 4
