"""deploy/web: what the pixel under the pointer attends to, in a real browser, is what `nextvit
explain attention` finds for it.
"""

import numpy as np
import pytest

from ppcls_nextvit import load
from support.programs import program_at
from support.tiny_run import DATA, NORMALIZE, write_config
from support.web_page import driven
from test_deploy_python import CHW, DECODE, resize
from test_web import (  # noqa: F401  (fixtures)
    DEPTHS,
    NETWORKS,
    PHOTOS,
    assert_heat,
    page,
    prepared,
    weights_of,
)

SIDE = 96  # pixels of the model's input, whose last map has 3 x 3 cells


@pytest.fixture(scope="module")
def run(request, tmp_path_factory):
    """(configuration, weights) of a tiny model of the network that NETWORKS asks for."""
    network = getattr(request, "param", "NextViT_small")
    folder = tmp_path_factory.mktemp("run")
    post = {"name": "Topk", "topk": 3, "class_id_map_file": str(DATA / "labels.txt")}
    transforms = [DECODE, resize(resize_short=104), {"CropImage": {"size": SIDE}}, NORMALIZE, CHW]
    config = write_config(
        folder,
        Arch={"name": network, "depths": DEPTHS[network]},
        Global={"image_shape": [3, SIDE, SIDE]},
        Infer={
            "infer_imgs": "none",
            "batch_size": 4,
            "transforms": transforms,
            "PostProcess": post,
        },
    )
    return config, weights_of(network, folder / "w.pdparams")


@pytest.fixture(scope="module")
def exported(run, request, tmp_path_factory):
    """The model of `run` as ONNX, with --attention."""
    for package in ("onnx", "onnxruntime", "onnxslim", "paddle2onnx"):
        pytest.importorskip(package, reason="needs the extra `onnx`")
    config, weights = run
    folder = tmp_path_factory.mktemp("exported")
    chosen = [f"Global.pretrained_model={weights}", f"Global.save_inference_dir={folder}"]
    command = ["-c", str(config), *(word for one in chosen for word in ("-o", one))]
    more = getattr(request, "param", ["--attention"])
    assert program_at("tools/export_model.py").main([*command, "--to", "onnx", *more]) == 0
    return folder


def use(page, points):  # noqa: F811
    given = {"photo": str(PHOTOS[0]), "side": SIDE, "points": points, "downloads": str(page[1])}
    return driven(page, "drive_attention.mjs", **given)


@pytest.mark.chain
@pytest.mark.parametrize("run", NETWORKS.args[1], indirect=True)
def test_the_pixel_under_the_pointer_attends_to_what_explain_says(page, run):  # noqa: F811
    config, weights = run
    points = [[5, 5], [70, 20], [90, 91]]
    seen = use(page, points)
    assert seen["problems"] == [] and not seen["disabled"] and seen["why"] == ""
    # by keyboard: a cell to the right, to the lowest, and back to the left
    places = [[48, 48], *points, [5, 5], [5, 95]]
    found = [seen["centre"], *seen["mouse"], seen["touch"], seen["keyboard"]]
    model = load(str(config), weights=str(weights))
    (told,) = model.explain("attention", str(PHOTOS[0]), points=[tuple(p) for p in places])
    for got, point, wanted in zip(found, places, told.numbers["points"], strict=True):
        last = wanted["blocks"][-1]
        assert got["point"] == point and wanted["point"] == point
        assert [got["block"], got["query"], got["size"]] == [
            last["block"],
            last["query"],
            last["size"],
        ]
        np.testing.assert_allclose(got["map"], last["map"], atol=1e-5)
        most = np.unravel_index(np.argmax(last["map"]), (3, 3))
        assert f"({point[0]}, {point[1]})" in got["label"]
        assert got["label"].endswith(f"attends most to row {most[0] + 1}, column {most[1] + 1}")
    assert np.ptp([one["map"] for one in found], axis=0).max() > 1e-4, "pixels differ"
    assert_heat(seen["heat"], seen["plain"], np.sqrt(seen["mouse"][-1]["map"]))
    # as before, with classes alone, where it is not chosen
    assert "attention" not in seen["before"] and seen["after"] == seen["before"]
    assert seen["label"].startswith(f"{PHOTOS[0].name}: ") and seen["tabbable"] == -1


@pytest.mark.chain
@pytest.mark.parametrize("exported", [[]], indirect=True)
def test_an_export_without_attention_says_how_to_get_it(page):  # noqa: F811
    seen = use(page, [])
    assert seen["disabled"] and seen["why"] == "Attention needs an export made with --attention."
