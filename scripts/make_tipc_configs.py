"""Writes test_tipc/configs/FAMILY/*.txt from the recipes and the kinds of files below; `--check` only
compares.

The lines and their order are those of SECTIONS in test_tipc/chains/params.py.
"""

import fnmatch
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Iterator, Mapping, Optional, Sequence

import yaml
from generated import write_generated
from make_configs import all_configs

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from test_tipc.chains.params import NO_SECTION, SECTIONS, key_value  # noqa: E402

CONFIGS = ROOT / "test_tipc" / "configs"
SMALL_SIZE = 64  # pixels of the variants that CI runs
# family: the recipe that is run at the small size too, then which recipes have chains
FAMILIES = {
    "NextViT": ("NextViT_small_224", ("NextViT_*",)),
    "TransNeXt": ("TransNeXt_micro_224", ("TransNeXt_micro_224", "TransNeXt_tiny_224")),
}
# the recipes of the chains for a detector and for a segmentor, by the folder of their files
DENSE = {
    "detection": "quickstart/nuclei_mask_rcnn",
    "segmentation": "quickstart/nuclei_semfpn",
}
ITERATIONS = 2  # of an epoch of theirs, so that the shortest training takes seconds


@dataclass(frozen=True)
class Variant:
    """A model of the chains: `model` is its Arch.name, `config` its YAML, `overrides` what is
    changed of that, `epochs` the recipe's; `family` the folder of its files. batch, training,
    start: of training, the last the weights that it begins with. images: to predict; batches: what
    a program predicts at once, null for image by image.
    """

    model: str
    config: str
    size: int
    epochs: int
    family: str
    overrides: str = ""
    batch: int = 8
    training: str = ""
    start: str = "null"
    images: str = "./test_tipc/data/images"
    batches: str = "1|8"

    @property
    def arguments(self):
        """The arguments of a program that reads the configuration."""
        return f"-c configs/{self.config}.yaml{self.overrides}"


def small_variant(config: str) -> Variant:
    """The recipe `config`, of 224 pixels, at a small size, under its name without the pixels."""
    model = config.removesuffix("_224")
    ends = "DataLoader.Eval.dataset.transform_ops", "Infer.transforms"
    values = {
        "Arch.name": model,
        "Global.image_shape": f"[3,{SMALL_SIZE},{SMALL_SIZE}]",
        "DataLoader.Train.dataset.transform_ops.1.RandomResizedCrop.size": SMALL_SIZE,
        "DataLoader.Train.dataset.transform_ops.3.TimmAutoAugment.img_size": SMALL_SIZE,
        **{f"{place}.1.ResizeImage.resize_short": round(SMALL_SIZE / 0.875) for place in ends},
        **{f"{place}.2.CropImage.size": SMALL_SIZE for place in ends},
    }
    overrides = "".join(f" -o {key}={value}" for key, value in values.items())
    return Variant(model, config, SMALL_SIZE, 300, model.partition("_")[0], overrides)


def dense_variants() -> Iterator[Variant]:
    """The detector and the segmentor."""
    for task, config in DENSE.items():
        path = ROOT / "configs" / f"{config}.yaml"
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings, sampler = recipe["Global"], recipe["DataLoader"]["Train"]["sampler"]
        yield Variant(
            recipe["Arch"]["name"],
            config,
            settings["image_shape"][-1],
            settings["epochs"] * sampler["iterations"] // ITERATIONS,
            task,
            batch=sampler["batch_size"],
            training=f" -o DataLoader.Train.sampler.iterations={ITERATIONS}",
            # a detector that was never trained scores all places alike, and engines choose others
            start=f"./test_tipc/models/{recipe['Arch']['name']}.pdparams",
            images=recipe["Infer"]["infer_imgs"],
            batches="null",
        )


def variants() -> Iterator[Variant]:
    """Of each family a recipe at a small size, and those chosen that are of a model's own name."""
    classifiers = {
        path.stem: yaml.safe_load(text)
        for path, text in all_configs().items()
        if path.parent.name == "configs"
    }
    for family, (smallest, chosen) in FAMILIES.items():
        yield small_variant(smallest)
        for name, recipe in classifiers.items():
            own_name = recipe["Arch"]["name"] == name
            if own_name and any(fnmatch.fnmatchcase(name, pattern) for pattern in chosen):
                settings = recipe["Global"]
                size, epochs = settings["image_shape"][-1], settings["epochs"]
                yield Variant(name, name, size, epochs, family)


def section(name: str, values: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """The lines of the section `name`, with `values` for its keys in place of SECTIONS' own, but
    for the keys `without`.
    """
    lines = [f"{'=' * 27}{name}{'=' * 27}"] if name else []
    unknown = set(values) - {key_value(line)[0] for line in SECTIONS[name].splitlines()}
    if unknown:
        raise ValueError(f"section {name}: params.py knows no {sorted(unknown)}")
    for line in SECTIONS[name].splitlines():
        key = key_value(line)[0]
        if key not in without:
            lines.append(f"{key}:{values[key]}" if key in values else line)
    return "".join(f"{line}\n" for line in lines)


# Training, evaluation, export and prediction.

FEW_WORKERS = " -o DataLoader.Train.loader.num_workers=0 -o DataLoader.Eval.loader.num_workers=0"


def train(
    variant,
    trainer="norm_train",
    gpus="-1|0|0,1",
    devices="cpu|gpu|gpu",
    precision="fp32",
    kl_quant="null",
    **infer,
):
    """The sections of a file of the training chain; `infer`: more values of infer_params, with `_`
    for `-` in options' names.
    """
    settings = (" -o Global.pretrained_model=null" if variant.size == 384 else "") + FEW_WORKERS
    settings += " -o Global.eval_during_train=False -o Global.save_interval=0" + variant.training
    program = f"tools/train.py {variant.arguments}{settings}"
    model = f"./test_tipc/models/{variant.model}"
    return (
        section(
            "train_params",
            {
                "model_name": variant.model,
                "gpu_list": gpus,
                "-o Global.device": devices,
                "-o Global.auto_cast": "amp" if trainer == "amp_train" else "null",
                "-o DataLoader.Train.sampler.batch_size": variant.batch,
                "-o Global.pretrained_model": variant.start,
                "train_infer_img_dir": variant.images,
                "-o Global.epochs": f"lite_train_lite_infer=2|lite_train_whole_infer=2|whole_train_whole_infer={variant.epochs}",
                "trainer": trainer,
                trainer: program,
            },
            without={"norm_train", "amp_train"} - {trainer},
        )
        + section("eval_params", {"eval": f"tools/eval.py {variant.arguments}{FEW_WORKERS}"})
        + section(
            "infer_params",
            {
                "norm_export": f"tools/export_model.py {variant.arguments}",
                "kl_quant": kl_quant,
                "infer_model": model,
                "--precision": precision,
                "--batch-size": variant.batches,
                "--images": variant.images,
                **infer,
            },
        )
        + ("" if variant.family in DENSE else benchmark(variant))
    )


def benchmark(variant):
    random = f"[{{float32,[3,{variant.size},{variant.size}]}}]"
    return section("train_benchmark_params", {}) + section(
        "infer_benchmark_params", {"random_infer_input": random}
    )


def fleet(variant):
    return train(variant, gpus="-1,-1|0,1", devices="cpu|gpu")


def amp(variant):
    return train(
        variant, trainer="amp_train", gpus="0|0,1", devices="gpu|gpu", precision="fp32|fp16"
    )


def ptq(variant):
    return train(
        variant,
        gpus="-1",
        devices="cpu",
        precision="null",
        infer_quant="True",
        infer_export="False",
        kl_quant=f"tools/quantize.py {variant.arguments}{FEW_WORKERS} --to paddle",
    )


# Deployment: each of the seeded model that prepare.sh makes.


def cpp(variant):
    return section(
        "cpp_infer_params",
        {
            "model_name": variant.model,
            "cpp_infer_type": {"detection": "det", "segmentation": "seg"}.get(
                variant.family, "cls"
            ),
            "cls_inference_model_dir": f"./test_tipc/models/{variant.model}",
            "image_dir": variant.images,
            "batch_size": variant.batches,
        },
    )


def serving(variant):
    return section(
        "serving_params",
        {
            "model_name": variant.model,
            "inference_model_dir": f"./test_tipc/models/{variant.model}",
            "--batch-size": variant.batches,
            "--images": variant.images,
        },
    )


def paddle2onnx(variant):
    model = f"./test_tipc/models/{variant.model}"
    return section(
        "paddle2onnx_params",
        {
            "model_name": variant.model,
            "2onnx": f"tools/export_model.py {variant.arguments} --to onnx",
            "-o Global.pretrained_model": f"{model}.pdparams",
            "-o Global.save_inference_dir": f"{model}_onnx",
            "--batch-size": variant.batches,
            "--images": variant.images,
        },
    )


def lite(variant):
    return section(
        NO_SECTION,
        {
            "clas_model_file": variant.model,
            "2lite": f"tools/export_model.py {variant.arguments}",
            "-o Global.pretrained_model": f"./test_tipc/models/{variant.model}.pdparams",
        },
    )


FILES = {
    "{model}_train_infer_python.txt": train,
    "{model}_train_linux_cpu_fleet_normal_infer_python_linux_cpu.txt": fleet,
    "{model}_train_linux_gpu_normal_amp_infer_python_linux_gpu_cpu.txt": amp,
    "{model}_train_ptq_infer_python.txt": ptq,
    "{model}_linux_gpu_normal_normal_infer_cpp_linux_gpu_cpu.txt": cpp,
    "{model}_linux_gpu_normal_normal_serving_python_linux_gpu_cpu.txt": serving,
    "{model}_linux_gpu_normal_normal_paddle2onnx_python_linux_cpu.txt": paddle2onnx,
    "{model}_lite_arm_cpu_cpp.txt": lite,
}
NO_INT8 = ("TransNeXt",)  # families that have none in Paddle, and say so
OF_DENSE = (train, cpp, serving, paddle2onnx)


def chains(family: str) -> list:
    """The chains that a family has, functions of FILES."""
    if family in DENSE:
        return list(OF_DENSE)
    return [write for write in FILES.values() if write is not ptq or family not in NO_INT8]


def all_files() -> dict[Path, str]:
    """{path: text} of every variant's files."""
    return {
        CONFIGS / variant.family / name.format(model=variant.model): write(variant)
        for variant in (*variants(), *dense_variants())
        for name, write in FILES.items()
        if write in chains(variant.family)
    }


def main(argv: Optional[Sequence[str]] = None) -> int:
    return write_generated("scripts/make_tipc_configs.py", __doc__.splitlines()[0], all_files, argv)


if __name__ == "__main__":
    raise SystemExit(main())
