"""Our models inside PaddleSeg. Needs it (pip install --no-deps paddleseg==2.8.0, and what it
imports); skipped without it.
"""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from ppcls_nextvit import create_model, load_weights
from ppcls_nextvit.hosts import paddleseg
from ppcls_nextvit.models import backbone_names
from ppcls_nextvit.models.layers import BATCH_NORMS
from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks.segmentation.benchmark import measure
from ppcls_nextvit.weights import WeightFileError
from scripts import seeded
from support.extending_page import register_models

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "paddleseg"
TINY = {"depths": [1, 1, 5, 1], "extra_norms": True}
NARROW = {
    "SemanticFPN": {"fpn_channels": 16, "channels": 16},
    "UPerNet": {"channels": 16, "auxiliary_channels": 16},
}


@pytest.fixture(scope="module")
def manager():
    try:
        names = paddleseg.register()
        assert paddleseg.register() == names  # a second call changes nothing
    except ImportError as error:
        pytest.skip(str(error))
    assert names == [*backbone_names(), "NextViTSemanticFPN", "NextViTUPerNet"]
    assert {"NextViT_small", "NextViT_base", "NextViT_large"} < set(names)
    from paddleseg.cvlibs import manager

    return manager


@pytest.mark.slow
def test_the_benchmark_measures_the_suite_s_own_upernet(manager, monkeypatch):
    monkeypatch.syspath_prepend(CONFIGS.parents[1] / "benchmarks")
    from timed_engines.detectors import create_paddleseg_upernet

    measured = measure(
        create_paddleseg_upernet("NextViT_small"), size=(64, 64), original=(70, 80), runs=1
    )
    assert {len(times) for name, times in measured.items() if name != "peak_memory_mb"} == {1}


@pytest.fixture
def squares(tmp_path, manager):
    """(YAML file, folder) of a dataset of four pictures of 64 x 64: a bright square is class 1, a
    line beside it is ignored.
    """
    random = np.random.default_rng(0)
    for index in range(4):
        image, label = (
            random.integers(0, 60, (64, 64, 3), dtype=np.uint8),
            np.zeros((64, 64), np.uint8),
        )
        x, y = random.integers(4, 36, 2)
        (
            image[y : y + 24, x : x + 24],
            label[y : y + 24, x : x + 24],
            label[y : y + 24, x - 2 : x],
        ) = 220, 1, 255
        Image.fromarray(image).save(tmp_path / f"{index}.png")
        Image.fromarray(label).save(tmp_path / f"{index}_label.png")
    (tmp_path / "list.txt").write_text(
        "".join(f"{index}.png {index}_label.png\n" for index in range(4))
    )
    dataset = f"""
  type: Dataset
  dataset_root: {tmp_path}
  num_classes: 2
  transforms: [{{type: Normalize, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}]
"""
    (tmp_path / "squares.yml").write_text(f"""
batch_size: 4
iters: 40
model:
  type: NextViTSemanticFPN
  num_classes: 2
  fpn_channels: 32
  channels: 32
  backbone: {{type: NextViT_small, depths: [1, 1, 5, 1], extra_norms: True}}
train_dataset: {dataset}  mode: train
  train_path: {tmp_path}/list.txt
val_dataset: {dataset}  mode: val
  val_path: {tmp_path}/list.txt
optimizer: {{type: AdamW, weight_decay: 0.01}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 2.0e-3, end_lr: 0, power: 1.0}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1]}}
run: {{device: cpu, seed: 0, save_dir: {tmp_path}/out, save_interval: 40, log_iters: 10}}
""")
    return tmp_path / "squares.yml", tmp_path


@pytest.mark.parametrize("name", NARROW)
def test_our_heads_give_its_logits(manager, name):
    backbone = manager.BACKBONES["NextViT_small"](**TINY)
    hosted = manager.MODELS[f"NextViT{name}"](num_classes=3, backbone=backbone, **NARROW[name])
    plain = create_model(
        name, num_classes=3, backbone={"name": "NextViT_small", **TINY}, **NARROW[name]
    )
    load_weights(plain, hosted.state_dict())  # the same keys
    hosted.eval(), plain.eval()
    image = paddle.to_tensor(seeded.image((1, 3, 64, 96)))
    (logits,) = hosted(image)
    assert np.array_equal(logits.numpy(), plain(image).numpy()) and hosted.backbone is backbone
    hosted.train()
    assert [out.shape for out in hosted(paddle.concat([image, image]))] == [[2, 3, 64, 96]] * (
        2 if name == "UPerNet" else 1
    )


def test_its_own_head_takes_the_backbone(manager):
    backbone = manager.BACKBONES["NextViT_small"](**TINY, frozen_stages=1, norm_eval=True)
    assert backbone.feat_channels == [96, 256, 512, 1024]
    model = manager.MODELS["UPerNet"](
        num_classes=3, backbone=backbone, backbone_indices=[0, 1, 2, 3], channels=16
    )
    # which does not call the backbone's train()
    model.train()
    before = {key: value.numpy() for key, value in backbone.state_dict().items()}
    (logits,) = model(paddle.rand([2, 3, 64, 64]))
    assert logits.shape == [2, 3, 64, 64]
    logits.mean().backward()
    assert not any(
        layer.training for layer in backbone.sublayers() if isinstance(layer, BATCH_NORMS)
    )
    assert all(
        np.array_equal(value.numpy(), before[key]) for key, value in backbone.state_dict().items()
    )
    trained = {
        name for name, parameter in backbone.named_parameters() if parameter.grad is not None
    }
    assert trained and not [name for name in trained if name.startswith(("stem.", "features.0."))]


@pytest.mark.parametrize("name", ["NextViTUPerNet", "NextViTSemanticFPN", "UPerNet"])
def test_transnext(manager, name):
    """Our heads and PaddleSeg's own take it; ours give the logits of our own segmentor."""
    arguments = NARROW.get(name.removeprefix("NextViT"))
    if name == "UPerNet":
        arguments = {"backbone_indices": [0, 1, 2, 3], "channels": 16}
    shallow = {"depths": [1, 1, 1, 1], "position_bias": "interpolation", "table_size": 64}
    backbone = manager.BACKBONES["TransNeXt_micro"](**shallow)
    assert backbone.feat_channels == [48, 96, 192, 384]
    model = manager.MODELS[name](num_classes=3, backbone=backbone, **arguments)
    model.eval()
    image = paddle.to_tensor(seeded.image((1, 3, 64, 96)))
    with paddle.no_grad():
        logits = model(image)[0]
        assert logits.shape == [1, 3, 64, 96]
        if name == "UPerNet":
            return
        section = {"name": "TransNeXt_micro", **shallow}
        kind = name.removeprefix("NextViT")
        plain = create_model(kind, num_classes=3, backbone=section, **arguments)
        load_weights(plain, model.state_dict())
        plain.eval()
        assert np.array_equal(logits.numpy(), plain(image).numpy())


def test_a_family_from_outside(manager, own_models, tmp_path):
    """Our heads and PaddleSeg's own take it: each asks for the channels that it has."""
    register_models(tmp_path)
    try:
        assert "PlainConv" in paddleseg.register()
        make = manager.BACKBONES["PlainConv"]
    finally:
        manager.BACKBONES.components_dict.pop("PlainConv")
    image = paddle.to_tensor(seeded.image((1, 3, 64, 96)))
    for name, arguments in (
        ("NextViTUPerNet", NARROW["UPerNet"]),
        ("NextViTSemanticFPN", NARROW["SemanticFPN"]),
        ("UPerNet", {"backbone_indices": [0, 1, 2, 3], "channels": 16}),
    ):
        backbone = make(width=8)
        assert backbone.feat_channels == [8, 16, 32, 64]
        model = manager.MODELS[name](num_classes=3, backbone=backbone, **arguments)
        model.eval()
        assert model(image)[0].shape == [1, 3, 64, 96]


def test_pretrained_of_a_backbone_and_of_a_head(manager, tmp_path):
    classifier = create_model("NextViT_small", num_classes=10, depths=TINY["depths"])
    paddle.save(classifier.state_dict(), str(tmp_path / "classifier.pdparams"))
    backbone = manager.BACKBONES["NextViT_small"](
        **TINY, pretrained=str(tmp_path / "classifier.pdparams")
    )
    assert np.array_equal(
        backbone.features[3].mlp.conv1.weight.numpy(),
        classifier.features[3].mlp.conv1.weight.numpy(),
    )
    make = manager.MODELS["NextViTSemanticFPN"]
    head = make(num_classes=2, backbone=backbone, **NARROW["SemanticFPN"])
    paddle.save(head.state_dict(), str(tmp_path / "model.pdparams"))
    other = make(
        num_classes=5,
        backbone=manager.BACKBONES["NextViT_small"](**TINY),
        pretrained=str(tmp_path / "model.pdparams"),
        **NARROW["SemanticFPN"],
    )
    state = head.state_dict()
    assert all(
        np.array_equal(value.numpy(), state[key].numpy())
        for key, value in other.state_dict().items()
        if not key.startswith("decode_head.conv_seg")
    )


@pytest.mark.chain
def test_its_core_trains_and_evaluates(squares):
    """The wheel 2.8.0 needs help with Paddle's 0-D tensors; a checkout does not."""
    config, folder = squares
    untrained = folder / "untrained.pdparams"
    paddle.save(paddleseg._build(config, [])[1].model.state_dict(), str(untrained))
    before = paddleseg.evaluate(config, untrained)
    assert paddleseg.train(config) == 0
    after = paddleseg.evaluate(config, folder / "out" / "best_model" / "model.pdparams")
    assert 0 < before["miou"] < 0.7 < after["miou"] <= 1 and 0.9 < after["accuracy"] <= 1


@pytest.mark.slow
def test_a_step_with_the_auxiliary_head(squares):
    config, folder = squares
    overrides = [
        "model={'type': 'NextViTUPerNet', 'num_classes': 2, 'channels': 16, 'auxiliary_channels': "
        "16, "
        "'backbone': {'type': 'NextViT_small', 'depths': [1, 1, 5, 1]}}",
        "loss.coef=[1, 0.4]",
        "loss.types=[{'type': 'CrossEntropyLoss'}, {'type': 'CrossEntropyLoss'}]",
        "iters=1",
        "run.log_iters=1",
        "run.save_interval=1",
    ]
    assert paddleseg.train(config, overrides) == 0
    saved = paddle.load(str(folder / "out" / "iter_1" / "model.pdparams"))
    assert any(key.startswith("auxiliary_head.") for key in saved)


@pytest.mark.slow
def test_it_resumes_from_its_own_checkpoint(squares):
    """Read by our reader: the step, the weights and the optimiser go on."""
    config, folder = squares
    steps = ["run.log_iters=1", "run.save_interval=1", "run.do_eval=False"]
    resumed = [f"run.resume_model={folder}/out/iter_1", f"run.save_dir={folder}/more"]
    for further in (["iters=1"], ["iters=2", *resumed]):
        with paddle.utils.unique_name.guard():  # parameters are called as in a process of its own
            assert paddleseg.train(config, [*steps, *further]) == 0
    assert (folder / "more" / "iter_2" / "model.pdparams").exists()
    assert not (folder / "more" / "iter_1").exists()


def test_no_code_of_a_checkpoint_runs(squares):
    config, folder = squares
    made = pickle.dumps(Runs(folder / "witness"), 4)
    for name in ("model.pdparams", "model.pdopt"):
        (folder / "iter_2").mkdir(exist_ok=True)
        (folder / "iter_2" / name).write_bytes(made)
    with pytest.raises(WeightFileError, match="iter_2/model.pdparams: refused: the file names"):
        paddleseg.train(config, [f"run.resume_model={folder}/iter_2"])
    assert not (folder / "witness").exists() and not (folder / "out").exists()


@pytest.mark.parametrize("name", ["nothing", "latest", "iter_x", "iter_3"])
def test_where_it_cannot_resume_from(squares, name):
    config, folder = squares
    (folder / "latest").mkdir()
    (folder / "iter_3").mkdir()
    with pytest.raises(ConfigError, match="run.resume_model: expected a folder iter_N .* got"):
        paddleseg.train(config, [f"run.resume_model={folder}/{name}"])


class Runs:
    """Pickles into a call that makes the folder `witness`."""

    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return os.mkdir, (self.witness,)


def test_areas_and_loss_are_what_they_should_be(manager):
    """With a pixel in five ignored: the numbers by hand."""
    from paddleseg.models.losses import CrossEntropyLoss
    from paddleseg.utils.metrics import calculate_area

    prediction, label = (
        paddle.to_tensor([[[0, 1, 1, 1, 0]]]),
        paddle.to_tensor([[[0, 1, 0, 1, 255]]]),
    )
    intersection, predicted, labelled = (
        area.tolist() for area in calculate_area(prediction, label, 2)
    )
    assert (intersection, predicted, labelled) == ([1, 2], [1, 3], [2, 2])
    logits = paddle.zeros([1, 2, 1, 5])
    logits[0, 1, 0, 1] = 2.0
    expected = (3 * np.log(2) + np.log(1 + np.exp(-2))) / 4
    assert abs(float(CrossEntropyLoss()(logits, label)) - expected) < 1e-5


RECIPES = {
    f"{recipe}_nextvit_{size}_ade20k": (f"NextViT{head}", f"NextViT_{size}", *figures)
    for size in ("small", "base", "large")
    for recipe, head, *figures in (
        ("semfpn_80k", "SemanticFPN", 40_000, 4, 1e-4, 1e-4, 0),
        ("upernet_160k", "UPerNet", 160_000, 2, 6e-5, 0.01, 1500),
    )
}


def test_a_recipe_per_file():
    assert {*RECIPES, "nuclei_semfpn"} == {path.stem for path in CONFIGS.glob("*.yml")}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_load_and_build(manager, name):
    head, variant, iterations, batch, rate, decay, warmup = RECIPES[name]
    config, builder, run = paddleseg._build(CONFIGS / f"{name}.yml", ["run.device=cpu"])
    assert (config.iters, config.batch_size, run["save_dir"]) == (
        iterations,
        batch,
        f"output/paddleseg/{name}",
    )
    assert config.model_cfg["backbone"] == {
        "type": variant,
        "extra_norms": True,
        "pretrained": None,
        "drop_path_rate": 0.2,
    }
    with paddle.LazyGuard():
        model = builder.model
    assert type(model) is manager.MODELS[head] and model.num_classes == 150
    schedule = builder.lr_scheduler
    for step, expected in (
        (0, 6e-11 if warmup else rate),
        (warmup or 1, rate),
        (iterations, 0 if warmup else 1e-6),
    ):
        schedule.step(step)
        assert abs(schedule() - expected) < 1e-4 * rate
    assert config.optimizer_cfg["weight_decay"] == decay
    free = [group["name"] for group in config.optimizer_cfg.get("custom_cfg", ())]
    decayed = [
        name for name, _ in model.named_parameters() if not any(part in name for part in free)
    ]
    norms = [name for name in decayed if ".norm" in name or ".bn" in name]
    # published: the norms of Semantic FPN decay, those of UPerNet do not
    assert not norms if warmup else norms


@pytest.mark.parametrize(
    "override, message",
    [
        ("iter=3", "iter: unknown key. Did you mean 'iters'?"),
        ("run.save_intervall=3", "run.save_intervall: unknown key. Did you mean 'save_interval'?"),
        ("run.num_workers=many", "run.num_workers: expected int, got 'many'"),
        ("run.device=tpu", "run.device: got 'tpu'. Did you mean 'xpu'?"),
        ("run=gpu", "run: expected keys and values, got 'gpu'"),
        ("test_config.flip=True", "test_config.flip: unknown key"),
        ("model.chanels=3", "chanels"),
        ("model.backbone.depth=3", "depth: unknown key"),
        ("model.backbone.type=NextViT_tiny", "NextViT_tiny"),
        ("optimizer.weightdecay=3", "weightdecay"),
        ("lr_scheduler.lr=3", "lr"),
    ],
)
def test_unknown_keys(squares, override, message):
    config, folder = squares
    if override.startswith("test_config"):
        config.write_text(config.read_text() + "test_config: {}\n")
    with pytest.raises(ConfigError) as error:
        paddleseg.train(config, [override])
    assert message in str(error.value)
    assert not (folder / "out").exists()


def test_a_missing_file_is_named(manager):
    with pytest.raises(ConfigError, match="nothing.yml"):
        paddleseg.train("nothing.yml")


def test_without_paddleseg_the_message_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "paddleseg", None)
    with pytest.raises(ImportError) as error:
        paddleseg.register()
    assert (
        str(error.value)
        == "PaddleSeg is not installed: pip install --no-deps paddleseg==2.8.0, or put a checkout "
        "of it on PYTHONPATH"
    )
