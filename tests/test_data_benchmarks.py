"""The benchmarks of lists and of large runs: their figures belong to what they name."""

import argparse
import json
import os
import sys

import pytest

from support.paths import ROOT

pytest.importorskip("aiohttp", reason="needs the extra `remote`")


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_what_a_run_needs():
    import data_scale

    args = argparse.Namespace(
        dataset_images=[6_000_000],
        gpus=[4, 64],
        gpu_images_per_s=1000,
        gpus_of_a_machine=8,
        batch=256,
    )
    small, large = data_scale.needs(args, 200, 100_000)
    assert (small["cores"], large["cores"], large["cores a machine"]) == (20, 320, 40)
    assert (small["GB/s"], large["GB/s"], large["GB/s a machine"]) == (0.4, 6.4, 0.8)
    assert small["epoch min"] == 25 and large["epoch min"] == 1.6
    assert large["index GB a machine"] == round(6e6 * 77 / 1e9, 1)
    assert data_scale.markdown([small]).count("|") == 3 * (len(small) + 1)


@pytest.mark.chain
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="Linux's files of memory")
def test_figures_of_lists(tmp_path, capsys, monkeypatch):
    import lists

    file = tmp_path / "lists.json"
    arguments = "--lines 20000 --processes 2 --workers 1 --points 2".split()
    assert lists.main([*arguments, "--json", str(file)]) == 0
    (found,) = json.loads(file.read_text())
    assert found["lines"] == 20000 and 16 < found["bytes_an_image"] < 64
    assert [row["images"] for row in found["epoch"]] == [2048, 18432]
    assert all(row["pss_mb"] > row["anonymous_mb"] > 0 for row in found["epoch"])
    assert "no file stands behind" in capsys.readouterr().out


@pytest.mark.chain
def test_rates_and_table(tmp_path, capsys):
    import data_scale

    file = tmp_path / "scale.json"
    arguments = ["--images", "24", "--rounds", "1", "--workers", "1", "--json", str(file)]
    assert data_scale.main(arguments) == 0
    found = json.loads(file.read_text())
    places = ["memory", "files", "zip", "shards", "http", data_scale.AT_ONCE]
    places += ["loader, files", "loader, shards"]
    assert list(found["rates"]) == places and len(found["needs"]) == 6
    assert all(rate > 0 for (rate,) in found["rates"].values())
    assert "Assumed: a GPU trains 1000 images/s" in capsys.readouterr().out
    sys.modules.pop("timed_engines.pipelines", None)
