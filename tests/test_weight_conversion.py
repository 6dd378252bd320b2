"""Conversion: every published layout against the goldens, both ways, with one record per key, by
command line and in Python.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from ppcls_nextvit import create_model
from ppcls_nextvit.weights import LoadError, convert, load_weights, read_file
from scripts import seeded
from support.goldens import max_difference, torch_state_dict
from support.paths import GOLDEN
from support.torch_writer import Instance, Tensor, tensors, write_legacy, write_zip
from weight_conversion.__main__ import main

SMALL, STAGE_DEPTHS = (
    "NextViT_small",
    {"NextViT_small": (3, 4, 10, 3), "NextViT_base": (3, 4, 20, 3), "NextViT_large": (3, 4, 30, 3)},
)
# of the small model: the last of stage 2, of each five in stage 3, and of stage 4
NTB_BLOCKS = (6, 11, 16, 19)
NTB_LINEARS = {
    f"features.{block}.e_mhsa.{name}.weight"
    for block in NTB_BLOCKS
    for name in "q k v proj".split()
}
ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def timm_names(variant):
    """{official key: timm key}, written from the table of blocks, not from the rules under test."""
    blocks = [
        f"stages.{stage}.blocks.{i}"
        for stage, depth in enumerate(STAGE_DEPTHS[variant])
        for i in range(depth)
    ]
    names = {}
    for key in json.loads((GOLDEN / f"{variant.lower()}_manifest.json").read_text()):
        name = key.replace("mlp.conv", "mlp.fc").replace("proj_head.0", "head.fc")
        for index in reversed(range(len(blocks))):
            name = (
                name.replace(f"features.{index}.", f"{blocks[index]}.")
                if name.startswith(f"features.{index}.")
                else name
            )
        names[key] = name
    return names


@pytest.fixture(scope="module")
def small():
    return torch_state_dict(SMALL)


def training_checkpoint(state):
    """What the reference's main.py saves."""
    moments = {i: {"step": 10, "exp_avg": Tensor(np.zeros(8, np.float32))} for i in range(3)}
    return {
        "model": tensors(state),
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-3, "params": [0, 1, 2]}]},
        "epoch": 299,
        "lr_scheduler": {"t_initial": 300},
        "args": Instance("argparse", "Namespace", model="nextvit_small", lr=0.0005),
    }


def mm_backbone(state, extra=()):
    """mmdet and mmseg: the body under `backbone.`, no head of ours."""
    return {
        f"backbone.{key}": value
        for key, value in {**state, **dict(extra)}.items()
        if not key.startswith("proj_head")
    }


def paddleclas(state):
    """PaddleClas's file: Paddle's names of the statistics, Linears [in, out]."""
    renamed = {
        key.replace("running_mean", "_mean").replace("running_var", "_variance"): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    linear = NTB_LINEARS | {"proj_head.0.weight"}
    return {
        key: paddle.to_tensor(value.T.copy() if key in linear else value)
        for key, value in renamed.items()
    }


WRITERS = {
    "official, zip": lambda path, state: write_zip(path, training_checkpoint(state)),
    "official, legacy": lambda path, state: write_legacy(path, training_checkpoint(state)),
    "bare, DDP and EMA": lambda path, state: write_zip(
        path, {"state_dict_ema": tensors({f"module.{k}": v for k, v in state.items()})}
    ),
    "timm": lambda path, state: save_file(
        {timm_names(SMALL)[key]: value for key, value in state.items()}, path
    ),
    "PaddleClas": lambda path, state: paddle.save(paddleclas(state), str(path)),
    "npz": lambda path, state: np.savez(path, **state),
}
FORMATS = {"timm": "timm", "PaddleClas": "PaddleClas / ppcls_nextvit"}
SUFFIXES = {"timm": "safetensors", "PaddleClas": "pdparams", "npz": "npz"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_every_source_gives_the_golden_logits(tmp_path, capsys, small, kind):
    source, report = tmp_path / f"source.{SUFFIXES.get(kind, 'pth')}", tmp_path / "report.json"
    WRITERS[kind](source, small)
    assert (
        main(
            [
                str(source),
                str(tmp_path / "model.pdparams"),
                "--model",
                SMALL,
                "--report",
                str(report),
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert f"format: {FORMATS.get(kind, 'official Next-ViT (PyTorch)')}" in printed

    record = json.loads(report.read_text())
    keys = {row["source"]: row for row in record["keys"]}
    if kind == "PaddleClas":
        assert len(keys) == len(record["keys"]) == 411 and {
            row["action"] for row in keys.values()
        } == {"copied"}
    else:
        assert len(keys) == len(record["keys"]) == 472
        assert {
            row["target"] for row in keys.values() if row["action"] == "transposed"
        } == NTB_LINEARS | {"proj_head.0.weight"}
        dropped = [row for row in keys.values() if row["action"] == "dropped"]
        assert len(dropped) == 61 and all(
            row["source"].endswith("num_batches_tracked") and row["why"] for row in dropped
        )
        assert sum(row["action"] == "copied" for row in keys.values()) == 472 - 61 - 17
        assert "   394  copied" in printed and "    17  transposed" in printed
        assert "    61  dropped: Paddle's BatchNorm keeps no step counter" in printed

    model = create_model(SMALL)
    # as PaddleClas would
    model.set_state_dict(paddle.load(str(tmp_path / "model.pdparams")))
    assert set(paddle.load(str(tmp_path / "model.pdparams"))) == set(model.state_dict())
    model.eval()
    golden = np.load(GOLDEN / "nextvit_small_1x232x248_seed0.npz")["logits"]
    with paddle.no_grad():
        assert (
            max_difference(model(paddle.to_tensor(seeded.image((1, 3, 232, 248)))).numpy(), golden)
            < 1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["NextViT_base", "NextViT_large"])
def test_the_larger_variants_give_the_golden_logits(tmp_path, variant):
    state = torch_state_dict(variant)
    save_file(
        {timm_names(variant)[key]: value for key, value in state.items()},
        tmp_path / "timm.safetensors",
    )
    model = create_model(variant)
    load_weights(model, tmp_path / "timm.safetensors")
    model.eval()
    golden = np.load(GOLDEN / f"{variant.lower()}_1x224x224_seed0.npz")["logits"]
    with paddle.no_grad():
        assert (
            max_difference(model(paddle.to_tensor(seeded.image((1, 3, 224, 224)))).numpy(), golden)
            < 1e-5
        )


@pytest.mark.parametrize("style", ["torch", "timm"])
def test_round_trips_are_bit_identical(tmp_path, small, style):
    write_zip(tmp_path / "a.pth", training_checkpoint(small))
    convert(tmp_path / "a.pth", tmp_path / "a.pdparams", SMALL)
    # the folder is made
    convert(tmp_path / "a.pdparams", tmp_path / "new" / "b.safetensors", SMALL, to=style)
    back = load_file(tmp_path / "new" / "b.safetensors")
    names = timm_names(SMALL) if style == "timm" else {key: key for key in small}
    assert set(back) == set(names.values())
    for key, value in small.items():
        if not key.endswith("num_batches_tracked"):
            assert (
                back[names[key]].tobytes() == value.tobytes()
                and back[names[key]].shape == value.shape
            ), key
        else:
            assert back[names[key]].shape == () and back[names[key]] == 0
    convert(tmp_path / "new" / "b.safetensors", tmp_path / "c.pdparams", SMALL)
    assert (tmp_path / "c.pdparams").read_bytes() == (tmp_path / "a.pdparams").read_bytes()


def test_a_file_may_be_converted_onto_itself(tmp_path, small):
    convert_twice = tmp_path / "a.pdparams"
    paddle.save(paddleclas(small), str(convert_twice))
    convert(convert_twice, convert_twice, SMALL)
    state = read_file(convert_twice)
    assert (
        state["features.6.e_mhsa.q.weight"].tobytes()
        == np.ascontiguousarray(small["features.6.e_mhsa.q.weight"].T).tobytes()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdparams"]


def test_heads(tmp_path, capsys, small):
    write_zip(tmp_path / "ten.pth", tensors(torch_state_dict(SMALL, num_classes=10)))
    source, target = str(tmp_path / "ten.pth"), str(tmp_path / "out.pdparams")
    # the head is taken as it is
    assert main([source, target, "--model", SMALL]) == 0
    assert read_file(target)["proj_head.0.weight"].shape == (1024, 10)
    assert (
        main(
            [
                source,
                target,
                "--model",
                SMALL,
                "--num-classes",
                "0",
                "--report",
                str(tmp_path / "r.json"),
            ]
        )
        == 0
    )
    assert not any(key.startswith("proj_head") for key in read_file(target))
    record = json.loads((tmp_path / "r.json").read_text())
    assert [row["source"] for row in record["keys"] if row["why"] == "the model has no head"] == [
        "proj_head.0.weight",
        "proj_head.0.bias",
    ]
    capsys.readouterr()
    assert main([source, target, "--model", SMALL, "--num-classes", "1000"]) == 1
    assert "proj_head.0.weight [1024, 10], the model has [1024, 1000]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "program, head, phrase",
    [
        ("mmdet", "rpn_head.rpn_conv.weight", "detector"),
        ("mmseg", "decode_head.conv_seg.weight", "segmentor"),
    ],
)
def test_the_backbone_of_mm_checkpoints(tmp_path, capsys, small, program, head, phrase):
    body = (
        {key: value for key, value in small.items() if not key.startswith("norm.")}
        if program == "mmdet"
        else small
    )
    state = mm_backbone(body)
    source, target, report = (
        str(tmp_path / "mm.pth"),
        str(tmp_path / "out.pdparams"),
        str(tmp_path / "r.json"),
    )
    write_zip(
        source,
        {
            "meta": {"CLASSES": ("a", "b"), "epoch": 12},
            "state_dict": tensors({**state, head: np.zeros((2, 2), np.float32)}),
        },
    )
    assert main([source, target, "--model", SMALL]) == 1
    error = capsys.readouterr().err
    assert (
        f"a detector or segmentor ({program} {phrase})" in error
        and head in error
        and "--backbone-only" in error
    )

    assert main([source, target, "--model", SMALL, "--backbone-only", "--report", report]) == 0
    assert f"format: {program} {phrase}" in capsys.readouterr().out
    rows = {row["source"]: row for row in json.loads(Path(report).read_text())["keys"]}
    assert (
        rows[head]["action"] == "dropped"
        and rows[head]["why"] == "head of a detector or segmentor; not part of the backbone"
    )
    written = read_file(target)
    assert ("norm.weight" in written) == (program == "mmseg") and not any(
        "proj_head" in key for key in written
    )
    model = create_model(SMALL, num_classes=0)
    load_weights(model, target, allow_missing=("norm.*",))
    reference = create_model(SMALL)
    load_weights(reference, small)
    model.eval(), reference.eval()
    image = paddle.to_tensor(seeded.image((1, 3, 64, 64)))
    with paddle.no_grad():
        for ours, theirs in zip(
            model.forward_features(image), reference.forward_features(image), strict=True
        ):
            assert np.array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("own_norm", [True, False])
def test_both_layouts_of_a_segmentor_s_norms(small, own_norm):
    """The last stage's norm is `norm` where it is there, else the fourth of extra_norm_list."""
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    channels = (96, 256, 512, 1024)
    extra = {
        f"extra_norm_list.{i}.{leaf}": seeded.tensor(f"extra.{i}.{leaf}", (channels[i],))
        for i in range(4)
        for leaf in leaves
    }
    body = (
        small
        if own_norm
        else {key: value for key, value in small.items() if not key.startswith("norm.")}
    )
    model = create_model(SMALL, num_classes=0)
    report = load_weights(model, mm_backbone(body, extra), backbone_only=True)
    expected = small["norm.weight"] if own_norm else extra["extra_norm_list.3.weight"]
    assert np.array_equal(model.norm.weight.numpy(), expected)
    why = "norm of a segmentor's stage output; this model has none"
    # three norms, their counters aside
    assert sum(reason == why for reason in report.dropped.values()) == 12
    assert sum(
        reason.startswith("the fourth of the list") for reason in report.dropped.values()
    ) == (4 if own_norm else 0)
    assert not report.missing


def test_failures_are_one_line_and_exit_status_1(tmp_path, capsys, small):
    good = write_zip(tmp_path / "a.pth", tensors(small))
    for arguments, message in [
        (
            [tmp_path / "none.pth", tmp_path / "o.pdparams", "--model", SMALL],
            "none.pth: no such file",
        ),
        (
            [good, tmp_path / "o.pth", "--model", SMALL],
            "weights for paddle are written as .pdparams",
        ),
        (
            [good, tmp_path / "o.pdparams", "--model", SMALL, "--to", "timm"],
            "weights for timm are written as .safetensors",
        ),
        (
            [good, tmp_path / "o.pdparams", "--model", "NextViT_smal"],
            "Did you mean 'NextViT_small'",
        ),
        (
            [good, tmp_path / "o.pdparams", "--model", "NextViT_base"],
            "The file looks like NextViT_small, the model is NextViT_base.",
        ),
        (
            [good, tmp_path / "o.pdparams", "--model", SMALL, "--entry", "ema"],
            "a.pth: no weights under 'ema'",
        ),
    ]:
        assert main(list(map(str, arguments))) == 1, arguments
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth"]
    with pytest.raises(ValueError, match="to must be one of paddle, torch, timm"):
        convert(good, tmp_path / "o.pdparams", SMALL, to="jax")


def test_values_that_are_not_finite_are_not_converted(tmp_path, small):
    broken = {**small, "norm.bias": np.full(1024, np.nan, np.float32)}
    with pytest.raises(LoadError, match=r"a.pth: norm.bias has 1024 values that are not finite"):
        convert(write_zip(tmp_path / "a.pth", tensors(broken)), tmp_path / "o.pdparams", SMALL)


def test_half_precision_is_converted_exactly(tmp_path, small):
    half = {
        key: value.astype(np.float16) if value.dtype == np.float32 else value
        for key, value in small.items()
    }
    convert(write_zip(tmp_path / "a.pth", tensors(half)), tmp_path / "o.pdparams", SMALL)
    written = read_file(tmp_path / "o.pdparams")["stem.0.conv.weight"]
    assert written.dtype == np.float32 and np.array_equal(
        written, half["stem.0.conv.weight"].astype(np.float32)
    )


def test_the_command_runs_as_a_module_without_torch(tmp_path, small):
    """In a process of its own, in which importing torch fails."""
    write_zip(tmp_path / "a.pth", tensors(small))
    (tmp_path / "torch.py").write_text("raise ImportError('this test forbids torch')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "weight_conversion", "a.pth", "a.pdparams", "--model", SMALL],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "17  transposed" in done.stdout
    written = read_file(tmp_path / "a.pdparams")
    np.testing.assert_array_equal(written["stem.0.conv.weight"], small["stem.0.conv.weight"])
    np.testing.assert_array_equal(written["proj_head.0.weight"], small["proj_head.0.weight"].T)


# ---------------------------------------------------------------- against torch and timm themselves


@pytest.mark.torch
def test_files_of_torch_itself(tmp_path, small):
    torch = pytest.importorskip("torch")
    state = {key: torch.tensor(value) for key, value in small.items()}
    # strided
    state["stem.0.conv.weight"] = state["stem.0.conv.weight"].to(memory_format=torch.channels_last)
    state["norm.weight"] = torch.nn.Parameter(state["norm.weight"])
    for zipped in (True, False):
        tree = {"model": state, "brain": torch.tensor([1.0, -0.5]).bfloat16()}
        torch.save(tree, tmp_path / "t.pth", _use_new_zipfile_serialization=zipped)
        read = read_file(tmp_path / "t.pth")
        assert read["brain"].tolist() == [1.0, -0.5]
        for key, value in small.items():
            assert (
                np.array_equal(read["model"][key], value)
                and read["model"][key].dtype == value.dtype
            ), key


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("variant", STAGE_DEPTHS)
def test_live_parity_with_timm_both_ways(tmp_path, variant):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    theirs, back, ours = (
        timm.create_model(variant.lower()).eval(),
        timm.create_model(variant.lower()).eval(),
        create_model(variant),
    )
    named = {
        timm_names(variant)[key]: torch.tensor(value)
        for key, value in torch_state_dict(variant).items()
    }
    theirs.load_state_dict(named, strict=True)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    load_weights(ours, tmp_path / "timm.pth")
    ours.eval()
    paddle.save(ours.state_dict(), str(tmp_path / "ours.pdparams"))
    convert(tmp_path / "ours.pdparams", tmp_path / "back.safetensors", variant, to="timm")
    back.load_state_dict(
        {
            key: torch.tensor(value)
            for key, value in load_file(tmp_path / "back.safetensors").items()
        },
        strict=True,
    )
    for size in ((224, 224), (384, 384), (250, 187), (33, 65)):
        image = seeded.image((1, 3, *size))
        with paddle.no_grad(), torch.no_grad():
            expected = theirs(torch.from_numpy(image)).numpy()
            assert np.array_equal(back(torch.from_numpy(image)).numpy(), expected), size
            assert max_difference(ours(paddle.to_tensor(image)).numpy(), expected) < 1e-5 * max(
                1.0, float(np.abs(expected).max())
            ), size
