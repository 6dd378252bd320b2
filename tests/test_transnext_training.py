"""TransNeXt in the training loop: resumed to the same bits, in the static graph, in two processes;
not with what is for evaluation.
"""

from dataclasses import replace

import numpy as np
import pytest

from ppcls_nextvit.engine.checkpoint import load_checkpoint
from ppcls_nextvit.engine.log import read_figures
from ppcls_nextvit.tasks import load_config, train
from ppcls_nextvit.tasks.common import build_model
from support.tiny_run import launch, write_config

SHALLOW = {"name": "TransNeXt_micro", "depths": [1, 1, 1, 1]}
# everything random or stateful at once; two epochs of two updates
EVERYTHING = {
    "Global": {"save_interval": 1, "seed": 3, "update_freq": 2},
    "Arch": {**SHALLOW, "drop_path_rate": 0.3, "drop_rate": 0.1, "attn_drop_rate": 0.1},
    "EMA": {"decay": 0.9},
}


def trained(config):
    """The folder of the run's files."""
    assert train(config) == 0
    return config.output_dir


def run(folder, *overrides, **sections):
    path = write_config(folder, **{"train": 32, "test": 10, **sections})
    return trained(load_config(path, overrides))


def losses(folder):
    return [line["loss"] for line in read_figures(folder) if line["kind"] == "train"]


@pytest.mark.chain
def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    whole = run(tmp_path / "whole", **EVERYTHING)
    part = run(tmp_path / "part", f"Global.checkpoints={whole / 'epoch_1'}", **EVERYTHING)
    assert losses(part) == losses(whole)[-2:]
    ours, theirs = (load_checkpoint(folder / "latest") for folder in (part, whole))
    assert ours[".pdstates"] == theirs[".pdstates"]
    for suffix in (".pdparams", ".pdopt", ".pdema"):
        assert ours[suffix].keys() == theirs[suffix].keys()
        for key, value in ours[suffix].items():
            np.testing.assert_array_equal(np.asarray(value), np.asarray(theirs[suffix][key]), key)
    raw, average = ours[".pdparams"], ours[".pdema"]
    moved = [key for key in average if not np.array_equal(raw[key], average[key])]
    assert len(moved) > len(raw) // 2
    # what depends on the size of the images is not saved
    assert not any("table" in key or "index" in key for key in raw)


@pytest.mark.chain
def test_the_static_graph_trains_to_the_same_weights(tmp_path):
    sections = {"Arch": {**SHALLOW, "drop_path_rate": 0.0}, "train": 16}
    still = ("Global.epochs=1", "Global.eval_during_train=False")
    dynamic, static = (
        run(tmp_path / flag, f"Global.to_static={flag}", *still, **sections)
        for flag in ("False", "True")
    )
    assert losses(dynamic) == pytest.approx(losses(static), rel=1e-4)
    ours, theirs = (load_checkpoint(folder / "latest")[".pdparams"] for folder in (dynamic, static))
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        np.testing.assert_allclose(value, theirs[key], atol=3e-3, err_msg=key)


@pytest.mark.chain
def test_two_processes_train_like_one_with_the_doubled_batch(tmp_path):
    """The optimiser is linear in the gradients, so that rounding stays rounding."""
    momentum = {"name": "Momentum", "weight_decay": 1e-4, "lr": {"learning_rate": 1e-3}}
    path = write_config(
        tmp_path,
        train=32,
        test=10,
        Global={"epochs": 1},
        Arch={**SHALLOW, "drop_path_rate": 0.0},
        Optimizer=momentum,
    )
    two = launch(
        path, 2, "DataLoader.Train.sampler.batch_size=8", f"Global.output_dir={tmp_path / 'two'}"
    )
    overrides = ["DataLoader.Train.sampler.batch_size=16", f"Global.output_dir={tmp_path / 'one'}"]
    one = trained(load_config(path, overrides))
    for ours, theirs in zip(read_figures(two), read_figures(one), strict=True):
        assert (ours["kind"], ours["update"]) == (theirs["kind"], theirs["update"])
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=5e-4)
    weights = [load_checkpoint(folder / "latest")[".pdparams"] for folder in (one, two)]
    for key, value in weights[0].items():
        np.testing.assert_allclose(value, weights[1][key], atol=5e-5, rtol=2e-3, err_msg=key)


@pytest.mark.parametrize("whole", ["TransNeXt_micro", "UPerNet"])
def test_a_fixed_pool_is_refused_before_anything_is_read(tmp_path, whole):
    backbone = {**SHALLOW, "fixed_pool_size": 1}
    config = load_config(write_config(tmp_path, Arch=backbone, train=8, test=8))
    if whole == "UPerNet":
        arch = replace(config.Arch, name=whole, arguments={"backbone": backbone})
        config = replace(config, Arch=arch)
    (tmp_path / "train_list.txt").unlink()
    with pytest.raises(ValueError, match="fixed_pool_size is for evaluation, .* leave it out"):
        build_model(config, training=True)
    assert not config.output_dir.exists()
