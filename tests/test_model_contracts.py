"""Every backbone of the registry keeps the contracts of models/api.py, as a classifier, as maps,
and within every detector and segmentor. So do those of docs/extending.md, which are none of the
package's.

A family added to the package is found by walking the registry; its `toy` arguments make it small.
"""

import copy
import inspect
from functools import cache

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional as F

from ppcls_nextvit import create_model, fuse_bn, list_models
from ppcls_nextvit.export import static
from ppcls_nextvit.export.verify import Signature
from ppcls_nextvit.models import MODELS, api, backbone_names, export_form, variant_of
from ppcls_nextvit.models.complexity import count_macs
from ppcls_nextvit.models.layers import BATCH_NORMS
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks.registry import TASKS
from support.extending_page import register_models
from support.goldens import max_difference

FROM_THE_PAGE = ["PlainConv", "CentreDetector", "ThinSegmentor"]
CLASSES = 3
SIZE = (64, 64)
STATISTICS = ("._mean", "._variance")


def one_name_per_family():
    """The first name of every family of backbones, whose tests are slow, then the page's."""
    first = {}
    for name in backbone_names():
        first.setdefault(variant_of(name).family, name)
    ours = [pytest.param(name, marks=pytest.mark.slow) for name in first.values()]
    return [*ours, "PlainConv"]


BACKBONES = one_name_per_family()
DETECTORS = [*list_models("detection"), "CentreDetector"]
SEGMENTORS = [*list_models("segmentation"), "ThinSegmentor"]
KINDS = ("classifier", "features", *DETECTORS, *SEGMENTORS)
every_backbone = pytest.mark.parametrize("backbone", BACKBONES)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_head = pytest.mark.parametrize("kind", [*DETECTORS, *SEGMENTORS])


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory):
    """The models of docs/extending.md are known while these tests run, and no longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODELS, "_items", dict(MODELS._items))
        assert register_models(tmp_path_factory.mktemp("page")) == FROM_THE_PAGE
        yield


def build(backbone, kind, **arguments):
    """A small model of that kind; `arguments` are the backbone's."""
    paddle.seed(0)
    arguments = {**variant_of(backbone).family.toy, **arguments}
    if kind in ("classifier", "features"):
        classes = CLASSES if kind == "classifier" else None
        model = create_model(backbone, **{"num_classes": classes, **arguments})
    else:
        whole = {"num_classes": CLASSES, "backbone": {"name": backbone, **arguments}}
        model = create_model(kind, **{**variant_of(kind).family.toy, **whole})
    if kind in SEGMENTORS and not model.brings_losses:
        model.criterion = cross_entropy
    enlarge(backbone_of(model))
    fill_zeros(model)
    return model


@cache
def built(backbone, kind):
    """The same in eval mode, for tests that leave it as it is."""
    return build(backbone, kind).eval()


def enlarge(model):
    """Weights and BatchNorm statistics of ordinary size, so that outputs tell inputs apart and no
    norm is nearly an identity.
    """
    draw = np.random.default_rng(0)
    for layer in model.sublayers():
        if isinstance(layer, BATCH_NORMS):
            size = layer.weight.shape
            layer.weight.set_value(draw.uniform(0.5, 1.5, size).astype("float32"))
            layer.bias.set_value(draw.normal(0, 0.2, size).astype("float32"))
            layer._mean.set_value(draw.normal(0, 0.2, size).astype("float32"))
            layer._variance.set_value(draw.uniform(0.5, 2.0, size).astype("float32"))
        elif isinstance(layer, (nn.Conv2D, nn.Linear)):
            weight = layer.weight
            inputs = weight.shape[0] if weight.ndim == 2 else weight[0].size
            weight.set_value(weight * (inputs**-0.5 / float(weight.std())))


def fill_zeros(model):
    """Ordinary weights for the Linears that start at zero and so pass no gradient on."""
    draw = np.random.default_rng(0)
    for layer in model.sublayers():
        if isinstance(layer, nn.Linear) and float(layer.weight.abs().max()) == 0:
            weight = draw.normal(0, 0.1 * layer.weight.shape[0] ** -0.5, layer.weight.shape)
            layer.weight.set_value(weight.astype("float32"))


def cross_entropy(maps, label):
    """A segmentor's criterion: (parts, counts)."""
    parts = {
        f"ce{i}": F.cross_entropy(logits, label.unsqueeze(1), axis=1)
        for i, logits in enumerate(maps)
    }
    right = int((maps[0].argmax(axis=1) == label).sum())
    return parts, {"pixels": (right, label.size)}


def image(batch, height, width, channels=3):
    draw = np.random.default_rng(0)
    return paddle.to_tensor(draw.standard_normal((batch, channels, height, width), "float32"))


def training_batch(kind):
    """Two images with what a model of that kind learns from."""
    height, width = SIZE
    batch = {"image": image(2, height, width)}
    if kind in DETECTORS:
        boxes = [[4, 4, 30, 40], [20, 10, 60, 50], [2, 30, 40, 62]]
        masks = np.zeros((len(boxes), height, width), "uint8")
        for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
            mask[y1:y2, x1:x2] = 1
        batch["shape"] = paddle.to_tensor([SIZE, SIZE])
        batch["boxes"] = paddle.to_tensor(boxes, dtype="float32")
        batch["labels"] = paddle.to_tensor([0, 2, 1])
        batch["counts"] = paddle.to_tensor([2, 1])
        batch["masks"] = paddle.to_tensor(masks)
    elif kind in SEGMENTORS:
        label = np.random.default_rng(1).integers(0, CLASSES, (2, *SIZE))
        batch["segmentation"] = paddle.to_tensor(label)
    elif kind == "classifier":
        batch["label"] = paddle.to_tensor([0, 2])
    return batch


def parts_of(model, kind, batch):
    """The losses by name, whose sum is trained."""
    if kind == "classifier":
        return {"ce": F.cross_entropy(model(batch["image"]), batch["label"])}
    if kind == "features":
        maps = model(batch["image"])
        return {f"map{i}": x.square().mean() for i, x in enumerate(maps)}
    parts, counts = model.losses(batch)
    for right, seen in counts.values():
        assert 0 <= right <= seen
    return parts


def trained(model, kind):
    """Train `model` for one step, which moves all that has a gradient, however small; returns
    (losses, gradients by name).
    """
    paddle.seed(1)
    model.train()
    parts = parts_of(model, kind, training_batch(kind))
    sum(parts.values()).backward()
    learning = {name: p for name, p in model.named_parameters() if not p.stop_gradient}
    gradients = {name: None if p.grad is None else p.grad.numpy() for name, p in learning.items()}
    paddle.optimizer.Adam(1e-3, epsilon=1e-16, parameters=list(learning.values())).step()
    return {name: float(part) for name, part in parts.items()}, gradients


def state_of(model):
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def outputs(model, kind, x):
    """What the model's forward gives, as a list of arrays."""
    with paddle.no_grad():
        found = model(x)
    if kind in DETECTORS:
        return [part.numpy() for one in found for part in one if part is not None]
    return [part.numpy() for part in (found if isinstance(found, list) else [found])]


def backbone_of(model):
    return getattr(model, "backbone", model)


def prefix_of(model):
    """What a backbone's keys begin with in the model's state dict."""
    return "backbone." if hasattr(model, "backbone") else ""


# ---------------------------------------------------------------- what a model says of itself


def members(contract):
    """The names that a Protocol declares."""
    methods = [name for name, value in vars(contract).items() if inspect.isfunction(value)]
    return {*inspect.get_annotations(contract), *methods} - {"__init__", "__subclasshook__"}


@every_backbone
@every_kind
def test_members(backbone, kind):
    model = built(backbone, kind)
    contract = api.Detector if kind in DETECTORS else api.Segmentor
    if kind in ("classifier", "features"):
        contract = api.Backbone
    assert [name for name in sorted(members(contract)) if not hasattr(model, name)] == []
    assert model.in_channels == 3 and model.min_size == backbone_of(model).min_size
    assert model.num_classes == {"features": None}.get(kind, CLASSES)
    assert len(backbone_of(model).stage_channels) == len(backbone_of(model).stage_strides)


def test_every_model_has_a_task():
    assert {
        name: MODELS.get(name).task for name in MODELS if MODELS.get(name).task not in TASKS
    } == {}


@every_backbone
def test_stages_cover_every_key_once(backbone):
    model = built(backbone, "classifier")
    stages = model.stages()
    depth = len(model.stage_strides)
    assert [name for name, _ in stages] == [
        "stem",
        *(f"stage{i + 1}" for i in range(depth)),
        "head",
    ]
    for key in model.state_dict():
        assert len([name for name, prefixes in stages if key.startswith(prefixes)]) == 1, key
    assert all(any(key.startswith(p) for key in model.state_dict()) for _, p in stages)


@every_backbone
def test_prefixes_of_body_and_head(backbone):
    """A classifier and a backbone share the body's keys; only the head's depend on the classes."""
    model, maps = built(backbone, "classifier"), built(backbone, "features")
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    body = {key: shape for key, shape in shapes.items() if key.startswith(model.body_prefixes)}
    assert body == {key: tensor.shape for key, tensor in maps.state_dict().items()}
    other = build(backbone, "classifier", num_classes=CLASSES + 2)
    differ = {key for key, tensor in other.state_dict().items() if tensor.shape != shapes[key]}
    assert differ == {key for key in shapes if key.startswith(model.head_prefixes)} != set()


@every_backbone
def test_what_is_never_decayed_is_a_parameter(backbone):
    model = built(backbone, "classifier")
    assert model.no_weight_decay() <= {name for name, _ in model.named_parameters()}


# ---------------------------------------------------------------- forward


@every_backbone
@pytest.mark.parametrize("size", [SIZE, (33, 47), (70, 35)])
def test_maps_and_logits(backbone, size):
    classifier, features = built(backbone, "classifier"), built(backbone, "features")
    x = image(2, *size)
    with paddle.no_grad():
        maps, logits = classifier.forward_features(x), classifier(x)
        assert max_difference(classifier.forward_head(maps), logits) == 0
        alone = features(x)
    assert logits.shape == [2, CLASSES]
    expected = [
        [2, channels, *(-(-side // stride) for side in size)]
        for channels, stride in zip(
            classifier.stage_channels, classifier.stage_strides, strict=True
        )
    ]
    assert [m.shape for m in maps] == [m.shape for m in alone] == expected


@every_backbone
@every_head
@pytest.mark.parametrize("size", [SIZE, (49, 70)])
def test_heads_answer(backbone, kind, size):
    model, (height, width) = built(backbone, kind), size
    x = image(2, *size)
    if kind in SEGMENTORS:
        with paddle.no_grad():
            assert model(x).shape == model.predict({"image": x}).shape == [2, CLASSES, *size]
            batch, classes, *coarse = model.decode(x).shape
        assert (batch, classes) == (2, CLASSES) and 0 < min(coarse) <= min(size)
        return
    original = (height // 2 + 3, width // 2)
    scale = [size[0] / original[0], size[1] / original[1]]
    batch = {
        "image": x,
        "shape": paddle.to_tensor([size] * 2),
        "scale": paddle.to_tensor([scale] * 2),
        "original": paddle.to_tensor([original] * 2),
    }
    with paddle.no_grad():
        found = model.predict(batch)
    assert len(found) == 2 and min(len(one.boxes) for one in found) > 0
    for one in found:
        count = len(one.boxes)
        assert (one.boxes.shape, one.boxes.dtype) == ((count, 4), np.float32)
        assert (one.scores.shape, one.scores.dtype) == ((count,), np.float32)
        assert (one.labels.shape, one.labels.dtype) == ((count,), np.int64)
        assert (np.diff(one.scores) <= 0).all() and set(one.labels) <= set(range(CLASSES))
        assert (one.boxes >= 0).all()
        assert (one.boxes <= np.array([*original[::-1]] * 2) + 1e-3).all()
        if one.masks is not None:
            whole = [mask.full() for mask in one.masks]
            assert len(whole) == count
            assert {(mask.shape, mask.dtype.name) for mask in whole} == {(original, "uint8")}
            assert set(np.unique(whole)) <= {0, 1}


@every_backbone
@every_kind
def test_smaller_images_are_refused(backbone, kind):
    model = built(backbone, kind)
    below = model.min_size - 1
    with pytest.raises(ValueError, match=f"at least {below + 1} x {below + 1} pixels; got {below}"):
        model(image(1, below, SIZE[1]))


@every_backbone
@every_kind
def test_images_of_other_channels_are_refused(backbone, kind):
    model = built(backbone, kind)
    expected = r"images \[batch, 3, height, width\] .*in_channels.*; got "
    with pytest.raises(ValueError, match=rf"{expected}\[1, 4, 64, 64\]"):
        model(paddle.zeros([1, 4, *SIZE]))


@every_backbone
@every_head
def test_a_mapping_makes_the_backbone(backbone, kind):
    """By name and keys; what is no backbone or no key is an error that says where."""
    model = built(backbone, kind)
    assert isinstance(model.backbone, variant_of(backbone).family)
    assert model.backbone.num_classes is None
    for wrong, message in (
        ({"name": kind}, "Arch.backbone: a backbone is one of the classifiers"),
        ({"name": backbone, "num_classes": 3}, "Arch.backbone: .* without num_classes"),
        ({"name": backbone, "widht": 3}, "Arch.backbone.widht: unknown key"),
        ({"width": 3}, "Arch.backbone: expected a mapping such as"),
    ):
        with pytest.raises(ConfigError, match=message):
            create_model(kind, backbone=wrong)


# ---------------------------------------------------------------- training


@every_backbone
@every_kind
def test_every_parameter_learns(backbone, kind):
    losses, gradients = trained(build(backbone, kind), kind)
    assert all(np.isfinite(loss) for loss in losses.values())
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert [name for name, gradient in gradients.items() if not np.abs(gradient).max() > 0] == []


@every_backbone
@every_kind
def test_frozen_stages_stay_as_they_are(backbone, kind):
    model = build(backbone, kind, frozen_stages=2)
    before = state_of(model)
    trained(model, kind)
    stages = backbone_of(model).stages()[:3]
    still = tuple(prefix_of(model) + prefix for _, prefixes in stages for prefix in prefixes)
    moved = {key for key, value in state_of(model).items() if (value != before[key]).any()}
    assert moved == {key for key in before if not key.startswith(still)} != set()
    assert model.training and backbone_of(model).training


@pytest.mark.slow
@every_backbone
@every_kind
def test_norm_eval_keeps_the_statistics(backbone, kind):
    model = build(backbone, kind, norm_eval=True)
    before = state_of(model)
    trained(model, kind)
    moved = {key for key, value in state_of(model).items() if (value != before[key]).any()}
    prefix = prefix_of(model) or tuple(before)
    still = {key for key in before if key.startswith(prefix) and key.endswith(STATISTICS)}
    assert moved == set(before) - still


@pytest.mark.slow
@every_backbone
@every_kind
def test_recompute_changes_no_number(backbone, kind):
    model = build(backbone, kind, recompute=True, drop_path_rate=0.3)
    plain = copy.deepcopy(model)
    backbone_of(plain).recompute = False
    losses, gradients = trained(plain, kind)
    losses_again, gradients_again = trained(model, kind)
    state, state_again = state_of(plain), state_of(model)
    assert losses == losses_again
    for name, gradient in gradients.items():
        assert max_difference(gradient, gradients_again[name]) <= 1e-6 * np.abs(gradient).max()
    for key, value in state.items():
        assert max_difference(value, state_again[key]) <= 1e-6 * max(np.abs(value).max(), 1)


# ---------------------------------------------------------------- forms


def norms_of(model):
    return [name for name, layer in model.named_sublayers() if isinstance(layer, BATCH_NORMS)]


def close(found, expected):
    """Whether two lists of arrays are equal but for rounding."""
    return all(
        max_difference(a, b) < 1e-4 * max(np.abs(b).max(), 1)
        for a, b in zip(found, expected, strict=True)
    )


@every_backbone
@pytest.mark.parametrize("kind", ["classifier", "features"])
@pytest.mark.parametrize("form", [fuse_bn, export_form], ids=["fused", "export"])
def test_forms_of_a_backbone(backbone, kind, form):
    model = build(backbone, kind)
    model.train()
    before = state_of(model)
    made = form(model)
    assert made is not model and not made.training and model.training
    assert state_of(model).keys() == before.keys()
    assert all((value == before[key]).all() for key, value in state_of(model).items())
    assert norms_of(made) == [] and (not norms_of(model) or list(made.state_dict()) != list(before))
    assert (made.num_classes, made.in_channels, made.min_size) == (
        model.num_classes,
        model.in_channels,
        model.min_size,
    )
    model.eval()
    for size in (SIZE, (33, 47)):
        x = image(2, *size)
        expected = outputs(model, kind, x)
        assert close(outputs(made, kind, x), expected)
        # it is not that nothing happens
        assert not close(outputs(made, kind, x.square()), expected)


@every_backbone
@every_kind
def test_multiply_adds_are_counted(backbone, kind):
    """More for more pixels, fewer without BatchNorms; and the model stays as it was."""
    model = built(backbone, kind)
    count = count_macs(model, 64)
    assert 0 < count < count_macs(model, (64, 96))
    if kind in ("classifier", "features"):
        fused = count_macs(fuse_bn(model), 64)
        assert 0 < fused < count if norms_of(model) else fused == count
    assert not model.training and count_macs(model, 64) == count


@every_backbone
@every_head
def test_export_form_of_what_holds_a_backbone(backbone, kind):
    model = built(backbone, kind)
    before = state_of(model)
    made = export_form(model)
    assert made is not model and made.backbone is not model.backbone and not made.training
    assert norms_of(made.backbone) == []
    x = image(1, *SIZE)
    with paddle.no_grad():
        assert close(*([m.numpy() for m in one.backbone(x)] for one in (made, model)))
    found, expected = outputs(made, kind, x), outputs(model, kind, x)
    if kind in SEGMENTORS:
        assert close(found, expected)
    else:
        # equal scores may come in any order
        assert [part.shape for part in found] == [part.shape for part in expected]
        scores = found[1::4], expected[1::4]
        assert close(*([np.sort(one) for one in parts] for parts in scores))
    assert all((value == before[key]).all() for key, value in state_of(model).items())


@every_backbone
@every_head
def test_what_has_no_fused_form_says_so(backbone, kind):
    with pytest.raises(TypeError, match=f"fuse_bn knows Next-ViT only; got {kind}"):
        fuse_bn(built(backbone, kind))


@pytest.mark.slow
@every_backbone
@pytest.mark.parametrize(
    "kind",
    ["classifier", "features", *(pytest.param(n, marks=pytest.mark.chain) for n in SEGMENTORS)],
)
def test_the_export_form_can_be_recorded(backbone, kind, tmp_path):
    """As a program for any batch and size."""
    made = export_form(built(backbone, kind))
    names = tuple(f"out{i}" for i in range(len(outputs(made, kind, image(1, *SIZE)))))
    signature = Signature({"x": (None, 3, None, None)}, names)
    static.write(made, tmp_path, signature, "fp32", ())
    run = static.load(tmp_path, signature, "fp32")
    for shape in ((1, *SIZE), (2, 33, 47)):
        found = run({"x": image(*shape).numpy()})
        assert close([found[name] for name in names], outputs(made, kind, image(*shape)))


# ---------------------------------------------------------------- state


@every_backbone
@every_kind
def test_state_fills_another_model(backbone, kind):
    model, other = built(backbone, kind), build(backbone, kind).eval()
    with paddle.no_grad():
        for tensor in other.state_dict().values():
            tensor.set_value(tensor * 0)
    x = image(1, 49, 70)
    expected = outputs(model, kind, x)
    emptied = outputs(other, kind, x)
    assert [a.shape for a in emptied] != [a.shape for a in expected] or not close(emptied, expected)
    assert other.set_state_dict(model.state_dict()) == ([], [])
    found = outputs(other, kind, x)
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))
