"""The YAML dialect: what PaddleClas users write means the same here; what cannot be meant is
refused by name.
"""

import os
from pathlib import Path

import pytest
import yaml

from ppcls_nextvit.config import ConfigError, dump_config
from ppcls_nextvit.data import build_loader  # noqa: F401 - the registries fill on import
from ppcls_nextvit.schema import Registry, coerce
from ppcls_nextvit.tasks import load_config
from support.paths import ROOT
from support.tiny_run import write_config

DECODE = {"DecodeImage": {"to_rgb": True, "channel_first": False}}
NORMALIZE = {
    "NormalizeImage": {
        "scale": "1.0/255.0",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "order": "",
    }
}


def paddleclas_style(name, size, resize):
    """A configuration with every key that PaddleClas's NextViT files use, and their values."""
    pil = {"interpolation": "bicubic", "backend": "pil"}
    crop = [
        DECODE,
        {"ResizeImage": {"resize_short": resize, **pil}},
        {"CropImage": {"size": size}},
        NORMALIZE,
    ]
    erase = {
        "EPSILON": 0.25,
        "sl": 0.02,
        "sh": "1.0/3.0",
        "r1": 0.3,
        "attempt": 10,
        "use_log_aspect": True,
        "mode": "pixel",
    }
    augment = [
        DECODE,
        {"RandCropImage": {"size": size, **pil}},
        {"RandFlipImage": {"flip_code": 1}},
        {
            "TimmAutoAugment": {
                "config_str": "rand-m9-mstd0.5-inc1",
                "interpolation": "bicubic",
                "img_size": size,
            }
        },
        NORMALIZE,
        {"RandomErasing": erase},
    ]
    mix = [
        {
            "OpSampler": {
                "MixupOperator": {"alpha": 0.8, "prob": 0.5},
                "CutmixOperator": {"alpha": 1.0, "prob": 0.5},
            }
        }
    ]

    def loader(listed, transforms, shuffle, workers, **more):
        return {
            "dataset": {
                "name": "ImageNetDataset",
                "image_root": "./dataset/ILSVRC2012/",
                "cls_label_path": f"./dataset/ILSVRC2012/{listed}_list.txt",
                "transform_ops": transforms,
                **more,
            },
            "sampler": {
                "name": "DistributedBatchSampler",
                "batch_size": 128,
                "drop_last": False,
                "shuffle": shuffle,
            },
            "loader": {"num_workers": workers, "use_shared_memory": True},
        }

    return {
        "Global": {
            "checkpoints": None,
            "pretrained_model": None,
            "output_dir": "./output/",
            "device": "gpu",
            "save_interval": 1,
            "eval_during_train": True,
            "eval_interval": 1,
            "epochs": 300,
            "print_batch_step": 10,
            "use_visualdl": False,
            "image_shape": [3, size, size],
            "save_inference_dir": "./inference",
            "to_static": False,
        },
        "AMP": {
            "use_amp": True,
            "use_fp16_test": False,
            "scale_loss": 128.0,
            "use_dynamic_loss_scaling": True,
            "use_promote": False,
            "level": "O1",
        },
        "Arch": {"name": name, "class_num": 1000},
        "Loss": {
            "Train": [{"CELoss": {"weight": 1.0, "epsilon": 0.1}}],
            "Eval": [{"CELoss": {"weight": 1.0}}],
        },
        "Optimizer": {
            "name": "AdamW",
            "beta1": 0.9,
            "beta2": 0.999,
            "epsilon": "1e-8",
            "weight_decay": 0.1,
            "no_weight_decay_name": ".bias norm",
            "one_dim_param_no_weight_decay": True,
            "lr": {
                "name": "Cosine",
                "learning_rate": "1e-3",
                "eta_min": "1e-5",
                "warmup_epoch": 20,
                "warmup_start_lr": "1e-6",
            },
        },
        "DataLoader": {
            "Train": loader("train", augment, True, 8, batch_transform_ops=mix),
            "Eval": loader("val", crop, False, 4),
        },
        "Infer": {
            "infer_imgs": "./deploy/images/photo.jpeg",
            "batch_size": 10,
            "transforms": [*crop, {"ToCHWImage": None}],
            "PostProcess": {
                "name": "Topk",
                "topk": 5,
                "class_id_map_file": "ppcls/utils/imagenet1k_label_list.txt",
            },
        },
        "Metric": {"Eval": [{"TopkAcc": {"topk": [1, 5]}}]},
    }


@pytest.mark.parametrize("size, resize", [(224, 256), (384, 384)])
@pytest.mark.parametrize("variant", ["small", "base", "large"])
def test_paddleclas_dialect_loads_and_means_the_same(tmp_path, variant, size, resize):
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(paddleclas_style(f"NextViT_{variant}_{size}", size, resize)))
    config = load_config(path)
    assert config.Global.epochs == 300 and config.Global.image_shape == (3, size, size)
    assert config.AMP.use_amp and config.AMP.scale_loss == 128.0 and config.AMP.dtype == "float16"
    assert config.output_dir == Path("output") / f"NextViT_{variant}_{size}"
    assert load_config_text(tmp_path, dump_config(config)) == config_of(config)


def load_config_text(directory, text):
    (directory / "dumped.yaml").write_text(text)
    return config_of(load_config(directory / "dumped.yaml"))


def config_of(config):
    """A Config without the path it was read from."""
    return {name: value for name, value in vars(config).items() if name != "path"}


@pytest.mark.skipif(
    "PADDLECLAS_ROOT" not in os.environ,
    reason="set PADDLECLAS_ROOT to a PaddleClas checkout to load its own files",
)
@pytest.mark.parametrize(
    "name", [f"NextViT_{v}_{s}" for v in ("small", "base", "large") for s in (224, 384)]
)
def test_paddleclas_own_files_load_unchanged(name):
    path = Path(os.environ["PADDLECLAS_ROOT"]) / f"ppcls/configs/ImageNet/NextViT/{name}.yaml"
    size = int(name.rsplit("_", 1)[1])
    theirs, ours = (
        yaml.safe_load(path.read_text()),
        paddleclas_style(name, size, 256 if size == 224 else 384),
    )
    theirs["Infer"]["infer_imgs"] = ours["Infer"]["infer_imgs"]
    assert theirs == ours, "paddleclas_style no longer describes PaddleClas's file"
    assert load_config(path).Arch.name == name


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/**/*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_the_repository_loads_and_round_trips(path, tmp_path):
    config = load_config(path)
    assert load_config_text(tmp_path, dump_config(config)) == config_of(config)


@pytest.mark.parametrize("nothing", ["null", "False"])
def test_a_recipe_begins_without_its_weights(nothing):
    path = ROOT / "configs/detection/mask_rcnn_nextvit_small_1x_coco.yaml"
    assert not load_config(path, [f"Arch.pretrained={nothing}"]).Arch.pretrained


@pytest.mark.parametrize(
    "override, message",
    [
        ("Global.epoch=3", r"Global.epoch: unknown key. Did you mean 'epochs'"),
        ("Global.epochs=three", r"Global.epochs: expected int, got 'three'"),
        ("Global.epochs=0", r"Global.epochs: must be 1 or more"),
        ("Global.use_dali=True", r"Global.use_dali: True is PaddleClas's and not supported"),
        ("Global.train_mode=fixmatch", r"Global.train_mode: 'fixmatch'"),
        ("Globl.epochs=3", r"no section 'Globl'. Did you mean 'Global'"),
        ("Global.epochs", r"expected section.key=value"),
        ("Global.epochs=[1", r"not a YAML value"),
        ("Global.epochs.more=1", r"Global.epochs is the value .*, which has no key 'more'"),
        ("AMP.level=O3", r"AMP.level: got 'O3'. Expected one of: O1, O2"),
        ("Arch.name=NextViT_smal", r"unknown model 'NextViT_smal'. Did you mean 'NextViT_small'"),
        ("Arch.clas_num=5", r"Arch.clas_num: unknown key. Did you mean 'class_num'"),
        ("Arch.class_num=0", r"Arch.class_num: must be 1 or more"),
        ("Arch.drop_path_rate=much", r"Arch.drop_path_rate: expected float.* got 'much'"),
        ("Arch.pretrained=True", r"Arch.pretrained: True would download"),
        ("EMA.decay=1.5", r"EMA.decay: must be in \[0, 1\)"),
        (
            "Optimizer.lr.learnin_rate=1",
            r"Optimizer.lr.learnin_rate: unknown key. Did you mean 'learning_rate'",
        ),
        ("Optimizer.name=AdmW", r"'AdmW'. Did you mean 'AdamW'"),
        ("Optimizer.weight_deca=1", r"weight_deca: unknown key. Did you mean 'weight_decay'"),
        (
            "Loss.Train.0.CELoss.epsilom=0",
            r"Loss.Train.0.CELoss.epsilom: unknown key. Did you mean 'epsilon'",
        ),
        ("Loss.Train.5.CELoss.epsilon=0", r"Loss.Train is a list of 1: give an index from 0 to 0"),
        ("Loss.Trai=[]", r"Loss.Trai: unknown key. Did you mean 'Train'"),
        (
            "DataLoader.Train.dataset.transform_ops.1.ResizeImage.sise=3",
            r"sise: unknown key. Did you mean 'size'",
        ),
        ("DataLoader.Train.sampler.batch_size=many", r"batch_size: expected int, got 'many'"),
        ("Optimizer.name=[]", r"unknown optimizer \[\]\. Expected one of: .*AdamW"),
        ("DataLoader.Train.sampler.name=RandomSampler", r"unknown sampler 'RandomSampler'"),
        ("DataLoader.Train.loader=4", r"DataLoader.Train.loader: expected keys and values, got 4"),
        (
            "DataLoader.Train.datase.name=x",
            r"DataLoader.Train has no key 'datase'. Did you mean 'dataset'",
        ),
        ("Metric.Eval.0.TopkAcc.topk=first", r"Metric.Eval.0.TopkAcc.topk: expected .*got 'first'"),
        ("Infer.PostProcess.topk=0", r"Infer.PostProcess.topk: must be 1 or more"),
        ("Infer.PostProcess.name=Threshold", r"only 'Topk' is supported"),
    ],
)
def test_bad_keys_and_values_are_named(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write_config(tmp_path), [override])


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"expected sections"),
        ("a: [", r"not valid YAML.*line 1"),
        ("Global: {epochs: 1}\nGlobal: {epochs: 2}", r"'Global' is written twice"),
        ("Global: {epochs: 1}", r"Arch: this section is missing"),
        ("architecture: MaskRCNN", r"PaddleDetection's dialect"),
        (
            "Global: {epochs: 1}\nArch: {name: NextViT_small}\nOptimiser: {}",
            r"Optimiser: unknown key. Did you mean 'Optimizer'",
        ),
        (
            "Global: {epochs: 1}\nArch: {name: NextViT_small}\nLoss: {Train: [CELoss: {weight: "
            "1}, 3]}",
            r"Loss.Train.1: expected one entry",
        ),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"bad.yaml: .*{message}"):
        load_config(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="none.yaml: no such configuration file"):
        load_config(tmp_path / "none.yaml")


def test_overrides_reach_lists_and_new_sections(tmp_path):
    config = load_config(
        write_config(tmp_path),
        [
            "Global.epochs=3",
            "Arch.class_num=7",
            "EMA.decay=0.99",
            "AMP=None",
            "DataLoader.Train.dataset.transform_ops.1.ResizeImage.size=64",
        ],
    )
    assert (config.Global.epochs, config.Arch.class_num, config.EMA.decay, config.AMP) == (
        3,
        7,
        0.99,
        None,
    )
    assert config.DataLoader["Train"]["dataset"]["transform_ops"][1]["ResizeImage"]["size"] == 64


def test_class_num_in_global_is_paddleclas_older_place(tmp_path):
    path = write_config(tmp_path, Global={"class_num": 7})
    content = yaml.safe_load(path.read_text())
    del content["Arch"]["class_num"]
    path.write_text(yaml.safe_dump(content))
    assert load_config(path).Arch.class_num == 7


def test_numbers_that_yaml_reads_as_strings():
    assert coerce("1e-3", float, "x") == 1e-3
    assert coerce("1.0/255.0", float, "x") == 1 / 255
    assert coerce(3, float, "x") == 3.0 and coerce(2.0, int, "x") == 2
    for value, annotation in (
        ("1/0", float),
        (True, int),
        (True, float),
        (1.5, int),
        ("yes", bool),
        (1, bool),
        ("exec('1')", float),
    ):
        with pytest.raises(ConfigError, match="x: expected"):
            coerce(value, annotation, "x")


def test_registry_refuses_duplicates_and_names_what_is_missing():
    things = Registry("thing")

    @things.register
    def first(*, size: int, rate: float = 1.0):
        return size, rate

    with pytest.raises(ValueError, match="thing 'first' is registered already"):
        things.register(first)
    assert things.build("first", {"size": 2}, "here") == (2, 1.0)
    with pytest.raises(ConfigError, match=r"here.size: missing; first needs it \(int\)"):
        things.build("first", {}, "here")
    with pytest.raises(ConfigError, match="here: unknown thing 'frist'. Did you mean 'first'"):
        things.build("frist", {}, "here")
