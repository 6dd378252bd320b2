"""Checkpoints of detectors and segmentors: mmdet's and mmseg's to the goldens and back, backbones
from and to classifiers, fine-tuning.
"""

import functools
import json

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from ppcls_nextvit import create_model, load_weights
from ppcls_nextvit.weights import LoadError, to_torch
from scripts import seeded
from support.goldens import max_difference, paddle_state_dict
from support.paths import GOLDEN
from support.torch_writer import tensors, write_zip
from weight_conversion.__main__ import main

BACKBONE = {"name": "NextViT_small", "depths": (1, 1, 5, 1)}
NARROW = {
    "MaskRCNN": {"fpn_channels": 8, "fc_channels": 8, "mask_convs": 1},
    "SemanticFPN": {"fpn_channels": 8, "channels": 8},
    "UPerNet": {"channels": 8, "auxiliary_channels": 8},
}
CLASS_LAYERS = {
    "MaskRCNN": [
        "roi_head.bbox_head.fc_cls",
        "roi_head.bbox_head.fc_reg",
        "roi_head.mask_head.conv_logits",
    ],
    "SemanticFPN": ["decode_head.conv_seg"],
    "UPerNet": ["decode_head.conv_seg", "auxiliary_head.conv_seg"],
}
GOLDENS = {"MaskRCNN": "mask_rcnn", "SemanticFPN": "fpn", "UPerNet": "upernet"}
OLD_NORM, NORM = "backbone.extra_norm_list.3.", "backbone.norm."


@functools.cache
def tiny(name, num_classes=5, extra_norms=None, seed=0):
    """The narrowest model of that name, all its tensors seeded: not to be changed by a test."""
    extra_norms = name != "MaskRCNN" if extra_norms is None else extra_norms
    network = create_model(
        name,
        num_classes=num_classes,
        backbone={**BACKBONE, "extra_norms": extra_norms},
        **NARROW[name],
    )
    return seeded_in_place(network, seed)


def seeded_in_place(network, seed=0):
    for key, tensor in network.state_dict().items():
        tensor.set_value(
            seeded.tensor(
                key.replace("_mean", "running_mean").replace("_variance", "running_var"),
                tensor.shape,
                seed,
            )
        )
    return network


@functools.cache
def classifier(seed=1):
    return seeded_in_place(
        create_model("NextViT_small", num_classes=7, depths=BACKBONE["depths"]), seed
    )


def fresh(name, **backbone):
    return create_model(name, num_classes=5, backbone={**BACKBONE, **backbone}, **NARROW[name])


def arrays(network):
    return {key: value.numpy() for key, value in network.state_dict().items()}


def mm_keys(network):
    return to_torch(arrays(network), network)


def same(ours, theirs, keys):
    keys = list(keys)
    return bool(keys) and all(np.array_equal(ours[key], theirs[key]) for key in keys)


# ---------------------------------------------------------------- mmdet's and mmseg's files, whole


def published(name, layout):
    """mm's state dict of the golden's weights.

    'norm': the last stage's norm is `backbone.norm`, beside an unused fourth of the list; 'list':
    it is the fourth of the list, as the released code builds it; 'leftovers': as 'norm', with the
    classification head of the pretraining, as published files may have it.
    """
    manifest = json.loads((GOLDEN / f"{GOLDENS[name]}_nextvit_small_manifest.json").read_text())
    state = seeded.state_dict(manifest)
    if layout == "list":
        state.update(
            {
                key.replace(NORM, OLD_NORM): state.pop(key)
                for key in list(state)
                if key.startswith(NORM)
            }
        )
    if layout == "leftovers":
        state.update(
            {
                f"backbone.proj_head.0.{leaf}": np.ones(shape, np.float32)
                for leaf, shape in (("weight", (1000, 1024)), ("bias", 1000))
            }
        )
        if name == "MaskRCNN":
            state.update(
                {
                    f"{NORM}{leaf}": np.ones(1024, np.float32)
                    for leaf in ("weight", "bias", "running_mean", "running_var")
                }
            )
    return state


def outputs(name, model):
    """{name in the golden: the model's tensor}."""
    image = paddle.to_tensor(seeded.image((1, 3, 256, 320)))
    with paddle.no_grad():
        if name != "MaskRCNN":
            heads = model.forward_heads(image)
            return dict(
                zip(("logits", "aux_logits"), heads, strict=False)
            )  # one may have no second
        maps = model.neck(model.backbone(image))
        logits, deltas = model.rpn_head(maps)
        rois = paddle.to_tensor(
            np.load(GOLDEN / "mask_rcnn_nextvit_small_256x320_seed0.npz")["fixed_rois_xyxy"]
        )
        scores, boxes = model.roi_head.boxes(maps[:4], rois, [12])
        return {
            "fpn4": maps[4],
            "rpn_cls0": logits[0],
            "rpn_reg0": deltas[0],
            "roi_cls_score": scores,
            "roi_bbox_pred": boxes,
        }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, layout",
    [
        ("SemanticFPN", "list"),
        *(
            pytest.param(name, "leftovers", marks=pytest.mark.chain)
            for name in ("MaskRCNN", "UPerNet")
        ),
    ],
)
def test_published_layouts_go_there_with_the_golden_outputs_and_back(
    tmp_path, capsys, name, layout
):
    program, task = ("mmdet", "detector") if name == "MaskRCNN" else ("mmseg", "segmentor")
    state, classes = published(name, layout), 80 if name == "MaskRCNN" else 150
    write_zip(
        tmp_path / "mm.pth",
        {"meta": {"CLASSES": ("a", "b"), "epoch": 12}, "state_dict": tensors(state)},
    )
    which = ["--model", name, "--backbone", "NextViT_small"]
    assert (
        main(
            [
                str(tmp_path / "mm.pth"),
                str(tmp_path / "a.pdparams"),
                *which,
                "--report",
                str(tmp_path / "r.json"),
            ]
        )
        == 0
    )
    assert f"format: {program} {task}, entry 'state_dict'" in capsys.readouterr().out
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["num_classes"] == classes and record["backbone"] == {
        "name": "NextViT_small",
        "extra_norms": name != "MaskRCNN",
    }
    rows = {row["source"]: row for row in record["keys"]}
    assert set(rows) == set(state) and not record["missing"] and not record["fresh"]
    dropped = {
        key
        for key, row in rows.items()
        if row["action"] == "dropped" and not key.endswith("num_batches_tracked")
    }
    heads = {f"backbone.proj_head.0.{leaf}" for leaf in ("weight", "bias")}
    unused = {
        key
        for key in state
        if key.startswith(NORM if name == "MaskRCNN" else OLD_NORM)
        and not key.endswith("num_batches_tracked")
    }
    assert dropped == (heads | unused if layout == "leftovers" else set()) and all(
        rows[key]["why"] for key in dropped
    )

    model = create_model(name, num_classes=classes, backbone=record["backbone"])
    written = {
        key: value.numpy() for key, value in paddle.load(str(tmp_path / "a.pdparams")).items()
    }
    model.set_state_dict(written)
    model.eval()
    last = (
        {
            key.replace(OLD_NORM, NORM): value
            for key, value in state.items()
            if key.startswith(OLD_NORM)
        }
        if layout == "list"
        else {}
    )
    expected = paddle_state_dict(
        model, {key: value for key, value in {**state, **last}.items() if key not in dropped}
    )
    assert set(written) == set(model.state_dict()) <= set(expected) and same(
        written, expected, written
    )

    assert (
        main(
            [
                str(tmp_path / "a.pdparams"),
                str(tmp_path / "back.safetensors"),
                *which,
                "--to",
                program,
            ]
        )
        == 0
    )
    back = load_file(tmp_path / "back.safetensors")
    complete = set(published(name, "norm"))
    # what mm's strict load expects
    assert set(back) == complete
    kept = [
        key for key in complete & set(state) - dropped if not key.endswith("num_batches_tracked")
    ]
    assert len(kept) > 400 and same(back, state, kept)
    # one norm under both of its names
    if name != "MaskRCNN":
        assert same(
            back,
            {
                **back,
                **{key.replace(NORM, OLD_NORM): back[key] for key in back if key.startswith(NORM)},
            },
            back,
        )

    golden = np.load(GOLDEN / f"{GOLDENS[name]}_nextvit_small_256x320_seed0.npz")
    for key, value in outputs(name, model).items():
        sample, array = (
            (golden[key], value.numpy())
            if key in golden
            else (golden[f"{key}.sample"], seeded.sample(value.numpy()))
        )
        assert max_difference(array, sample) < 1e-4 * np.abs(sample).max(), key


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_our_own_files_load_back_and_round_trips_are_bit_identical(tmp_path, name):
    source, target = tiny(name), fresh(name, extra_norms=name != "MaskRCNN")
    paddle.save(source.state_dict(), str(tmp_path / "best_model.pdparams"))
    report = load_weights(target, tmp_path / "best_model")
    assert (
        report.format == "paddle"
        and not report.transposed
        and same(arrays(target), arrays(source), arrays(source))
    )
    target = fresh(name, extra_norms=name != "MaskRCNN")
    report = load_weights(target, mm_keys(source))
    assert report.format == ("mmdet" if name == "MaskRCNN" else "mmseg") and same(
        arrays(target), arrays(source), arrays(source)
    )
    linears = {key for key, value in arrays(source).items() if value.ndim == 2}
    assert set(report.transposed) == linears and len(linears) == (16 if name == "MaskRCNN" else 12)


# ---------------------------------------------------------------- backbones alone


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("style", ["official", "timm", "paddle"])
def test_a_classifier_fills_the_backbone(name, style):
    """What Arch.pretrained means: the reference's resume=."""
    model = fresh(name, extra_norms=name != "MaskRCNN")
    before, source = arrays(model), arrays(classifier())
    report = load_weights(
        model,
        source if style == "paddle" else {"model": to_torch(source, classifier(), style)},
        backbone_only=True,
    )
    body = {f"backbone.{key}" for key in source if key.startswith(("stem.", "features."))}
    after = arrays(model)
    assert (
        same(after, {f"backbone.{key}": value for key, value in source.items()}, body)
        and set(report.loaded) == body
    )
    rest = set(before) - body
    assert same(after, before, rest) and set(report.fresh) == rest and not report.missing
    assert {
        key.rpartition(".")[0]
        for key, why in report.dropped.items()
        if "classification head" in why
    } == {"norm", "head.fc" if style == "timm" else "proj_head.0"}
    assert (
        "neck.* (16)" in str(report)
        if name != "UPerNet"
        else "backbone.extra_norm_list.* (12), backbone.norm.* (4)" in str(report)
    )


def test_a_classifier_fills_another_s_backbone_and_norm():
    model = create_model("NextViT_small", num_classes=3, depths=BACKBONE["depths"])
    report = load_weights(model, arrays(classifier()), backbone_only=True)
    assert report.fresh == ["proj_head.0.weight", "proj_head.0.bias"] == list(report.dropped)
    assert (
        same(arrays(model), arrays(classifier()), report.loaded) and "norm._mean" in report.loaded
    )


def test_a_classifier_s_gaps_are_still_errors():
    state = arrays(classifier())
    del state["stem.0.conv.weight"]
    with pytest.raises(LoadError, match=r"1 missing \(backbone.stem.0.conv.weight\)"):
        load_weights(fresh("MaskRCNN"), state, backbone_only=True)
    with pytest.raises(
        LoadError,
        match="The file is a classifier or a backbone, the model Mask R-CNN: .* backbone_only=True",
    ):
        load_weights(fresh("MaskRCNN"), arrays(classifier()))
    partial = {
        key: value
        for key, value in arrays(tiny("SemanticFPN")).items()
        if not key.startswith("backbone.extra_norm_list.1")
    }
    with pytest.raises(LoadError, match=r"4 missing \(backbone.extra_norm_list.1.weight"):
        load_weights(fresh("UPerNet", extra_norms=True), partial, backbone_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("layout", ["mm", "ours"])
def test_a_detector_or_segmentor_gives_its_backbone(name, layout):
    state = mm_keys(tiny(name)) if layout == "mm" else arrays(tiny(name))
    for arguments in ({"num_classes": 7}, {"num_classes": 0}, {"num_classes": None}):
        model = create_model("NextViT_small", depths=BACKBONE["depths"], **arguments)
        with pytest.raises(
            LoadError,
            match=r"a detector or segmentor \(.*\), with keys beside its backbone "
            r"\('\w+.*backbone_only=True",
        ):
            load_weights(model, state)
        report = load_weights(model, state, backbone_only=True)
        expected = {
            key.removeprefix("backbone."): value for key, value in arrays(tiny(name)).items()
        }
        assert same(
            arrays(model),
            expected,
            (key for key in expected if key.startswith(("stem.", "features."))),
        )
        assert not report.missing and all(
            key.startswith(("norm.", "proj_head.")) for key in report.fresh
        )
    other = fresh("UPerNet", extra_norms=name != "MaskRCNN")
    load_weights(other, state, backbone_only=True)
    assert same(
        arrays(other),
        arrays(tiny(name)),
        (key for key in arrays(tiny(name)) if key.startswith("backbone.")),
    )


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_bare_backbone_takes_the_norms_of_its_stages(prefix):
    """Statistics too: in mm's file they are called otherwise than here."""
    source = tiny("UPerNet").backbone
    model = create_model(
        "NextViT_small", num_classes=None, depths=BACKBONE["depths"], extra_norms=True
    )
    load_weights(
        model, {f"{prefix}{key}": value for key, value in to_torch(arrays(source), source).items()}
    )
    assert same(
        arrays(model), arrays(source), arrays(source)
    ) and "extra_norm_list.2._variance" in arrays(source)


def test_norms_of_stages_on_one_side_only_are_errors():
    for there, here in ((True, False), (False, True)):
        with pytest.raises(
            LoadError, match="One of the two has norms after its stages, the other none"
        ):
            load_weights(
                fresh("UPerNet", extra_norms=here), mm_keys(tiny("UPerNet", extra_norms=there))
            )


# ---------------------------------------------------------------- other heads


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_another_class_count(name):
    layers = [f"{layer}.{leaf}" for layer in CLASS_LAYERS[name] for leaf in ("weight", "bias")]
    model, state = fresh(name, extra_norms=name != "MaskRCNN"), mm_keys(tiny(name, num_classes=3))
    before = arrays(model)
    with pytest.raises(
        LoadError,
        match=rf"{len(layers)} mismatched \({layers[0]} .*head='fresh_on_mismatch' to fine-tune",
    ):
        load_weights(model, state)
    assert same(arrays(model), before, before)
    report = load_weights(model, state, head="fresh_on_mismatch")
    assert report.fresh == layers and str(report).endswith(
        f"at their initialisation: {', '.join(layers)}"
    )
    after, given = arrays(model), arrays(tiny(name, num_classes=3))
    assert same(after, before, layers) and same(after, given, set(after) - set(layers))
    assert not load_weights(model, mm_keys(tiny(name)), head="fresh_on_mismatch").fresh


@pytest.mark.slow
@pytest.mark.parametrize(
    "given, model, message",
    [
        ("SemanticFPN", "UPerNet", "The file is Semantic FPN, the model UPerNet."),
        ("UPerNet", "SemanticFPN", "The file is UPerNet, the model Semantic FPN."),
        ("MaskRCNN", "SemanticFPN", "The file is Mask R-CNN, the model Semantic FPN."),
    ],
)
def test_the_wrong_head_is_named(given, model, message):
    for head in ("strict", "fresh_on_mismatch"):
        with pytest.raises(LoadError) as error:
            load_weights(
                fresh(model, extra_norms=True), mm_keys(tiny(given, extra_norms=True)), head=head
            )
        assert (
            str(error.value).endswith(message)
            and "missing" in str(error.value)
            and "unexpected" in str(error.value)
        )


def test_another_variant_of_the_backbone_is_named():
    with paddle.LazyGuard():
        small, base = (
            create_model("MaskRCNN", num_classes=3, backbone={"name": name})
            for name in ("NextViT_small", "NextViT_base")
        )
    state = {key: np.zeros(value.shape, np.float32) for key, value in small.state_dict().items()}
    with pytest.raises(
        LoadError, match="The file looks like NextViT_small, the model is NextViT_base."
    ):
        load_weights(base, state)


def test_failures_of_the_command_are_one_line(tmp_path, capsys):
    source = write_zip(tmp_path / "a.pth", {"state_dict": tensors(mm_keys(tiny("MaskRCNN")))})
    detector = ["--model", "MaskRCNN", "--backbone", "NextViT_small"]
    for arguments, message in [
        (
            ["o.pdparams", "--model", "MaskRCNN"],
            "MaskRCNN needs the name of its backbone (--backbone NextViT_small)",
        ),
        (
            ["o.pdparams", "--model", "NextViT_small", "--backbone", "NextViT_small"],
            "NextViT_small is no detector or segmentor; leave",
        ),
        (
            ["o.pdparams", *detector, "--backbone-only"],
            "convert the backbone alone with --model NextViT_small",
        ),
        (
            ["o.safetensors", *detector, "--to", "timm"],
            "to must be one of paddle, mmdet for MaskRCNN; got 'timm'",
        ),
        (["o.pth", *detector, "--to", "mmdet"], "weights for mmdet are written as .safetensors"),
        (
            ["o.pdparams", "--model", "MaskRCNN", "--backbone", "NextViT_smal"],
            "Did you mean 'NextViT_small'",
        ),
    ]:
        assert main([str(source), str(tmp_path / arguments[0]), *arguments[1:]]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth"]
