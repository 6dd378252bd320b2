"""The YAML dialect: what PaddleClas users write means the same here; what cannot be meant is
refused by name.
"""

import os
import random
from pathlib import Path

import pytest
import yaml

from ppcls_nextvit.config import ConfigError, dialect_of, dump_config
from ppcls_nextvit.config.reading import read_yaml
from ppcls_nextvit.data import build_loader  # noqa: F401 - the registries fill on import
from ppcls_nextvit.schema import Registry, coerce
from ppcls_nextvit.tasks import load_config
from support.faults import SEED, many
from support.mutated_yaml import mutated_override, mutated_text, mutated_tree
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
        ("Arch.pretrained=in22k", r"'in22k': no such weights are published for"),
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


@pytest.mark.parametrize(
    "override, expected",
    [
        # for YAML a comment, a date, numbers, an alias, a list; for the user the name of a folder
        ("Global.output_dir=runs/exp #2", "runs/exp #2"),
        ("Global.output_dir=#2", "#2"),
        ("Global.output_dir=2026-11-28", "2026-11-28"),
        ("Global.output_dir=2026-13-45", "2026-13-45"),
        ("Global.output_dir=20261128", "20261128"),
        ("Global.output_dir=007", "007"),
        ("Global.output_dir=1_000", "1_000"),
        ("Global.output_dir=12:30", "12:30"),
        ("Global.output_dir=on", "on"),
        ("Global.output_dir=...", "..."),
        ("Global.output_dir= padded ", "padded"),
        ("Global.output_dir='2026-11-28'", "2026-11-28"),
        ('Global.output_dir="a\\tb # c"', "a\tb # c"),
        ("Global.output_dir=a: b", "a: b"),
        ("Global.output_dir='open", "'open"),
        ("Global.output_dir=caf\udce9", "caf\udce9"),
        ("Global.output_dir=$HOME", "$HOME"),
        ("Global.output_dir=a\nb", "a\nb"),
        ("Infer.infer_imgs=*.jpg", "*.jpg"),
        ("Infer.infer_imgs=[1].jpg", "[1].jpg"),
        ("Infer.infer_imgs=!x", "!x"),
        ("Infer.infer_imgs=@home", "@home"),
        ("Global.pretrained_model=None", None),
        ("Global.pretrained_model=null", None),
        ("Global.pretrained_model=~", None),
        ("Global.pretrained_model=", None),
        ("Global.pretrained_model=none", "none"),
        ("Arch.pretrained=False", False),
        ("Arch.pretrained=7", "7"),
        ("Global.log_ranks=7", 7),
        ("DataLoader.Train.dataset.image_root=20261128", "20261128"),
        ("DataLoader.Train.dataset.image_root=007 #1", "007 #1"),
        ("DataLoader.Train.sampler.batch_size=0x10", 16),
        ("Optimizer.lr.learning_rate=5e-4", "5e-4"),
        ("Optimizer.lr.learning_rate=0.5", 0.5),
    ],
)
def test_a_text_of_the_command_line_is_the_text_that_was_typed(tmp_path, override, expected):
    config = load_config(write_config(tmp_path), [override])
    value = config
    for key in override.partition("=")[0].split("."):
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    assert value == expected and type(value) is type(expected)
    assert load_config_text(tmp_path, dump_config(config)) == config_of(config)


def test_the_home_folder(tmp_path, monkeypatch):
    """A shell does not expand it after the `=` of an override, nor in a file."""
    monkeypatch.setenv("HOME", "/home/x")
    path = write_config(tmp_path, Global={"save_inference_dir": "~/model"})
    config = load_config(
        path,
        ["Global.output_dir=~/runs", "DataLoader.Train.dataset.image_root='~/data'"],
    )
    assert config.Global.output_dir == "/home/x/runs"
    assert config.DataLoader["Train"]["dataset"]["image_root"] == "/home/x/data"
    assert config.Global.save_inference_dir == "/home/x/model"
    other = load_config(path, ["Global.output_dir=a~/b", "Global.save_inference_dir=~x"])
    assert (other.Global.output_dir, other.Global.save_inference_dir) == ("a~/b", "~x")


MERGED = """
defaults: &defaults {batch_size: 4, drop_last: False, shuffle: False}
deep: {er: {still: &own {<<: *defaults, shuffle: True}}}
Eval: {<<: *own, drop_last: True}
several: {<<: [*own, {batch_size: 8, num_replicas: 2}]}
"""


def test_merge_keys_are_yaml_s(tmp_path):
    """One key shared by its alias, and others beside it, which count."""
    (tmp_path / "a.yaml").write_text(MERGED)
    content = read_yaml(tmp_path / "a.yaml")
    expected = yaml.safe_load(MERGED)
    expected["several"]["batch_size"] = 4  # the first counts; PyYAML 6.0.4 takes the last
    assert content == expected
    assert content["Eval"] == {"batch_size": 4, "drop_last": True, "shuffle": True}
    (tmp_path / "b.yaml").write_text(MERGED + "twice: {<<: *own, a: 1, a: 2}\n")
    with pytest.raises(ConfigError, match="the key 'a' is written twice, line 6"):
        read_yaml(tmp_path / "b.yaml")
    (tmp_path / "b.yaml").write_text("a: &a {b: 1}\nc: {<<: *a, <<: *a}\n")
    with pytest.raises(ConfigError, match="the key '<<' is written twice, line 2"):
        read_yaml(tmp_path / "b.yaml")
    (tmp_path / "b.yaml").write_text("a: &a [1]\nc: {<<: *a}\n")
    with pytest.raises(ConfigError, match="a merge key takes a mapping, or a list of them"):
        read_yaml(tmp_path / "b.yaml")


def test_an_override_changes_one_place_of_what_an_alias_shares(tmp_path):
    path = write_config(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["DataLoader"]["Eval"]["sampler"] = content["DataLoader"]["Train"]["sampler"]
    path.write_text(yaml.safe_dump(content))
    assert "*id001" in path.read_text()
    config = load_config(path, ["DataLoader.Train.sampler.batch_size=3"])
    batches = [config.DataLoader[mode]["sampler"]["batch_size"] for mode in ("Train", "Eval")]
    assert batches[0] == 3 and batches[1] != 3


def test_a_file_of_windows(tmp_path):
    path = write_config(tmp_path)
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_config(path).Global.epochs and dialect_of(path) == "PaddleClas"
    path.write_text(text + '\nInfer: {transforms: [], infer_imgs: "C:\\data\\x.jpg"}\n')
    with pytest.raises(ConfigError, match=r"a backslash: write slashes, or single quotes"):
        load_config(path)
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(ConfigError, match="tiny.yaml: text in UTF-16; save it as UTF-8"):
        load_config(path)
    path.write_bytes(text.encode() + b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="tiny.yaml: not a text file in UTF-8"):
        load_config(path)


BOMB = "".join(
    f"&{name} [{','.join(['*' + before] * 9)}],"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
# {what: (text before the file's, override, a regular expression)}
BAD_YAML = {
    "key a list": ("? [a]\n: b\n", "", "a key that is a list or a mapping, line 1"),
    "key a mapping": ("? {a: 1}\n: b\n", "", "a key that is a list or a mapping, line 1"),
    "no bool": ("a: !!bool x\n", "Global.seed=!!bool x", "'x' cannot be read as bool"),
    "no date": ("a: 2026-13-45\n", "Global.seed=2026-13-45", "cannot be read as timestamp"),
    "no number": ("a: !!int x\n", "Global.seed=!!int x", "'x' cannot be read as int"),
    "a list no number": ("a: !!int [1]\n", "Global.seed=!!int [1]", "expected a scalar node"),
    "code": ("a: !!python/name:os.system\n", "Global.seed=!!python/name:os.system", "constructor"),
    "deep": ("a: " + "[" * 90 + "]" * 90 + "\n", "Global.seed=" + "[" * 90, "more than 60 lists"),
    "deep by aliases": (
        "".join(
            f"a{n}: &a{n} " + "[" * 9 + (f"*a{n - 1}" if n else "1") + "]" * 9 + "\n"
            for n in range(9)
        ),
        "",
        "more than 60 lists and mappings",
    ),
    "aliases": (
        f"a: [&a [x,x,x,x,x,x,x,x,x],{BOMB}]\n",
        f"Global.epochs=[&a [x,x,x,x,x,x,x,x,x],{BOMB}]",
        "more than 20000 values, with those of its aliases",
    ),
    "merges": (
        "".join(
            f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}], k{n}: 1}}\n" if n else "m0: &m0 {k: 1}\n"
            for n in range(40)
        ),
        "",
        "more than 20000 values",
    ),
    "itself": ("a: &a {b: *a}\n", "Loss=&a {Train: *a}", "a value that holds itself"),
    "many": ("a: [" + "1," * 30_000 + "]\n", "", "more than 20000 values"),
    "base 60": (
        "a: 1" + ":1" * 1000 + "\n",
        "Global.seed=1" + ":1" * 1000,
        "a number of 2001 char",
    ),
    "digits": (
        "a: " + "9" * 5000 + "\n",
        "Optimizer.lr.learning_rate=" + "9" * 5000,
        "a number of",
    ),
    "control": ("a: '\x1b[31m'\n", "Global.seed='a\0'", "unacceptable character"),
}


@pytest.mark.parametrize("what", BAD_YAML)
def test_bad_yaml_is_one_line_that_names_the_place(tmp_path, what):
    before, override, message = BAD_YAML[what]
    path = write_config(tmp_path)
    good = path.read_text()
    path.write_text(before + good)
    with pytest.raises(ConfigError, match=f"tiny.yaml: not valid YAML: .*{message}") as error:
        load_config(path)
    assert len(str(error.value)) < 1500 and str(error.value).isprintable()
    if override:
        path.write_text(good)
        with pytest.raises(ConfigError, match=f"^-o .*is not a YAML value: .*{message}") as error:
            load_config(path, [override])
        assert len(str(error.value)) < 1500 and str(error.value).isprintable()


@pytest.mark.parametrize(
    "section, value, message",
    [
        ("Global", {"seed": 10**300}, "Global.seed: must be 2147483647 or less"),
        ("Global", {"epochs": 1e308}, "Global.epochs: must be 2147483647 or less"),
        ("Global", {"image_shape": [3, 0, 224]}, "Global.image_shape: must be 1 or more, got 0"),
        ("Global", {"output_dir": 20261128}, "expected str, got 20261128; write a text .*quotes"),
        ("Global", {"class_num": 7}, "Global.class_num is 7, Arch.class_num 10: leave one of them"),
        ("Arch", {"class_num": 2**40}, "Arch.class_num: must be 16777216 or less"),
        ("Arch", {"num_classes": 3}, "Arch.num_classes: in this dialect the key is class_num"),
        ("AMP", {"scale_loss": float("nan")}, "AMP.scale_loss: expected float, got nan"),
        ("EMA", {"decay": "nan"}, "EMA.decay: expected float, got 'nan'"),
    ],
)
def test_numbers_that_cannot_be_meant(tmp_path, section, value, message):
    path = write_config(tmp_path)
    content = yaml.safe_load(path.read_text())
    assert content["Arch"]["class_num"] == 10
    content[section] = {**content.get(section, {}), **value}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def fuzz(directory, count, seed=SEED):
    """Read `count` mutations of configurations of the repository; [refused, read]. What is read is
    dumped and read again. Anything but a ConfigError of one line passes through.
    """
    rng, tally = random.Random(seed), [0, 0]
    good = [path.read_text() for path in sorted(ROOT.glob("configs/**/*.yaml"))]
    path = directory / "mutated.yaml"
    for _ in range(count):
        text, overrides = rng.choice(good), []
        tree = yaml.safe_load(text)
        kind = rng.choice(["text", "text", "tree", "tree", "override"])
        if kind == "text":
            text = mutated_text(text, rng)
        elif kind == "tree":
            text = mutated_tree(tree, rng)
        else:
            overrides = [mutated_override(tree, rng) for _ in range(rng.choice([1, 1, 2]))]
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            config = load_config(path, overrides)
            assert load_config_text(directory, dump_config(config)) == config_of(config)
            tally[1] += 1
        except ConfigError as error:
            assert str(path) in str(error) or "-o " in str(error)
            assert str(error).isprintable() and len(str(error)) < 4100
            tally[0] += 1
    return tally


@pytest.mark.faults
def test_mutated_configurations_are_read_or_refused_with_one_line(tmp_path):
    refused, read = fuzz(tmp_path, many(150))
    assert refused + read == many(150) and read > 5


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
