"""From a configuration to an int8 or bfloat16 export, and what it costs and saves against float32,
on labelled images and side by side in time.
"""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import paddle

from ...config import Config
from ...data.datasets.registry import DATASETS
from ...data.loader import build_loader
from ...data.transforms.pipeline import Pipeline
from ...export import TARGETS
from ...export.quantize import quantize_onnx
from ...export.target import DESCRIPTION, STEM, Signature, Target
from ...export.target import export as export_layer
from ...export.verify import log_probability_difference, relative_difference
from ...schema import ConfigError
from ..base import QuantizeRequest
from ..common import class_names, list_images, trained_model
from .export import Classifier, describe_config, export_classifier
from .kind import is_multi_label
from .predict import preprocess_of

__all__ = [
    "calibration_images",
    "compare_precisions",
    "export_reduced",
    "export_pair",
    "quantize",
    "table",
]

REPORT = "accuracy.json"
# calibration images on which int8 files are compared with the model: outside their range int8 means
# nothing
CHECKED = 8


def quantize(config: Config, request: QuantizeRequest) -> int:
    """Write the int8 or bf16 export that `request` asks for, compare it with float32, and print how
    they compare; see export_reduced.

    Returns the exit status. ConfigError, FileNotFoundError, ImageError for images that cannot be
    read.
    """
    if is_multi_label(config):
        raise ConfigError(
            f"{config.path}: {request.precision} is for one label an image, by whose accuracy it "
            f"is compared; export a classifier of several labels in fp32"
        )
    target, precision = TARGETS[request.to], request.precision
    if precision not in target.precisions:
        able = [name for name, other in TARGETS.items() if precision in other.precisions]
        raise ConfigError(f"--precision {precision} is of --to {' and '.join(able)}")
    count = request.images if precision == "int8" else 1
    images = calibration_images(config, request.calibration, count)
    report = export_reduced(
        config, target, images, request.keep_float, request.threads, request.precision
    )
    calibrated = f", calibrated on {len(images)} images" if precision == "int8" else ""
    print(
        f"{config.Global.save_inference_dir}: {precision} for {request.to}{calibrated}\n\n"
        f"{table(report, precision)}"
    )
    if report["kept_float"]:
        print("kept in float:", ", ".join(report["kept_float"]))
    return 0


def export_reduced(
    config: Config,
    target: Target,
    images: Sequence[np.ndarray],
    keep_float: int = 0,
    threads: int = 1,
    reduced: str = "int8",
) -> Dict[str, Any]:
    """Write the export in the precision `reduced` of Global.pretrained_model to
    Global.save_inference_dir, with `accuracy.json`; returns that report.

    target: of TARGETS. images: float32 [C, H, W], to calibrate with (see calibration_images).
    keep_float: see export_pair.
    threads: of the CPU, while latencies are measured. The float32 export beside it is made in a
    temporary folder. ExportError if the files are far from the model.
    """
    model, weights = trained_model(config)
    description = describe_config(config, preprocess_of(config), class_names(config), weights)
    directory, softmax = Path(config.Global.save_inference_dir), config.Arch.infer_add_softmax
    with tempfile.TemporaryDirectory() as folder:
        folders = {"fp32": Path(folder), reduced: directory}
        pair = export_pair(
            model,
            target,
            folders,
            description,
            config.Global.image_shape[1:],
            images,
            softmax,
            keep_float,
            reduced,
        )
        float_program, reduced_program = (
            target.load(path, pair.signature, precision, threads)
            for precision, path in folders.items()
        )
        (name,) = pair.signature.inputs
        report: Dict[str, Any] = {
            "target": target.name,
            "calibrated_on": len(images) if reduced == "int8" else 0,
            "kept_float": pair.kept_float,
            "threads": threads,
            **compare_precisions(
                float_program,
                reduced_program,
                config,
                name,
                pair.signature.outputs[0],
                reduced=reduced,
            ),
        }
        for precision in folders:
            report[precision]["bytes"] = pair.exported[precision].size
    (directory / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


@dataclass
class Pair:
    """What `export_pair` wrote: {precision: Exported} of both, their Signature, the layers that
    stayed in float.
    """

    exported: dict
    signature: Signature
    kept_float: list


def export_pair(
    model: paddle.nn.Layer,
    target: Target,
    folders: Mapping[str, Union[str, Path]],
    description: Dict[str, Any],
    size: Tuple[int, int],
    images: Sequence[np.ndarray],
    softmax: bool = True,
    keep_float: int = 0,
    reduced: str = "int8",
) -> Pair:
    """`model`'s exports in float32 and in the precision `reduced` to `target`, any batch of `size`
    = (height, width); returns Pair.

    folders: {"fp32": path, reduced: path}. images: float32 [C, height, width], to calibrate with
    and to compare on.
    keep_float: so many layers stay in float (see quantize_onnx); ValueError for a target without
    int8_engine.
    """
    engine: Any = target.int8_engine if reduced == "int8" else None
    if keep_float and engine is None:
        able = [name for name, other in TARGETS.items() if other.int8_engine]
        raise ValueError(
            f"layers are kept in float for {' and '.join(able)}; --to {target.name} takes none"
        )
    options = dict(target.int8_options) if reduced == "int8" else {}
    kept: list = []

    def write(layer, folder, signature, precision, images):
        nodes = target.write(layer, folder, signature, "fp32", images)
        kept.extend(quantize_onnx(folder / f"{STEM}.onnx", images, engine, keep_float))
        return nodes

    exported = {
        "fp32": export_classifier(
            model,
            target,
            folders["fp32"],
            description,
            size,
            softmax,
            size=size,
            photos=images[:1],
            **options,
        )
    }
    described = json.loads((Path(folders["fp32"]) / DESCRIPTION).read_text(encoding="utf-8"))
    signature = Signature(
        {name: tuple(shape) for name, shape in described["Export"]["inputs"].items()},
        tuple(described["Export"]["outputs"]),
    )
    batch = {name: np.stack(images[:CHECKED]) for name in signature.inputs}
    compare = log_probability_difference if softmax else relative_difference
    keeping = replace(target, write=write) if keep_float else target
    exported[reduced] = export_layer(
        Classifier(model, softmax),
        keeping,
        folders[reduced],
        signature,
        [batch],
        described,
        reduced,
        reference=model,
        compare=compare,
        classes=signature.outputs[0],
        images=images,
        **options,
    )
    return Pair(exported, signature, kept)


def calibration_images(
    config: Config, source: Optional[str] = None, count: int = 300, seed: int = 0
) -> List[np.ndarray]:
    """At most `count` images, float32 [C, H, W], preprocessed as for evaluation (DataLoader.Eval),
    drawn by `seed`.

    source: a folder of images, or a list file as in DataLoader.Eval; by default the images of
    DataLoader.Train. ConfigError, FileNotFoundError, ImageError for what cannot be read.
    """
    section = {mode: dict(config.DataLoader[mode]["dataset"]) for mode in ("Train", "Eval")}
    transforms = section["Eval"].get("transform_ops")
    if source and not str(source).endswith(".txt"):
        paths = list_images(source)
        transform = Pipeline(transforms, "DataLoader.Eval.dataset.transform_ops")
        return [transform(str(paths[i])) for i in _drawn(len(paths), count, seed)]
    chosen = (
        {**section["Eval"], "cls_label_path": str(source)}
        if source
        else {**section["Train"], "transform_ops": transforms}
    )
    for training_only in ("batch_transform_ops", "bad_images"):
        chosen.pop(training_only, None)
    dataset = DATASETS.build(
        chosen.pop("name"),
        chosen,
        "DataLoader.Eval.dataset" if source else "DataLoader.Train.dataset",
        None,
    )
    return [
        dataset.transform(dataset.read(i), None, dataset.name(i))
        for i in _drawn(len(dataset), count, seed)
    ]


def _drawn(total, count, seed):
    if count < 1:
        raise ValueError(f"the number of images must be 1 or more; got {count}")
    return np.sort(np.random.default_rng(seed).permutation(total)[:count]).tolist()


def compare_precisions(
    float_program: Any,
    reduced_program: Any,
    config: Config,
    input_name: str,
    output_name: str,
    rounds: int = 20,
    runs: int = 3,
    reduced: str = "int8",
) -> Dict[str, Any]:
    """{images, fp32: {top1, latency_ms}, reduced: {top1, latency_ms}, agreement, top1_loss,
    latency_ratio} on DataLoader.Eval. reduced: the precision of `reduced_program`.

    Programs: see verify.py. agreement: share of images with the same best class. top1_loss: in
    points. latency: of one image; the medians over `rounds` of `runs` runs in which the two took
    turns, latency_ratio the median of the rounds' own ratios.
    """
    loader = build_loader(config.DataLoader["Eval"], "Eval", num_classes=config.Arch.class_num)
    correct, same, images, one = np.zeros(2, np.int64), 0, 0, None
    for batch in loader.epoch(0):
        pixels, labels = batch["image"].numpy(), batch["label"].numpy()
        best = [
            program({input_name: pixels})[output_name].argmax(axis=-1)
            for program in (float_program, reduced_program)
        ]
        correct += [(classes == labels).sum() for classes in best]
        same, images, one = same + int((best[0] == best[1]).sum()), images + len(labels), pixels[:1]
    taken: Dict[str, List[float]] = {"fp32": [], reduced: []}
    for _ in range(rounds):
        for name, program in (("fp32", float_program), (reduced, reduced_program)):
            # the other has had the caches
            program({input_name: one})
            taken[name].append(
                statistics.median(_milliseconds(program, {input_name: one}) for _ in range(runs))
            )
    top1 = (correct / images).tolist()
    return {
        "images": images,
        "fp32": {"top1": top1[0], "latency_ms": statistics.median(taken["fp32"])},
        reduced: {"top1": top1[1], "latency_ms": statistics.median(taken[reduced])},
        "agreement": same / images,
        "top1_loss": 100 * (top1[0] - top1[1]),
        "latency_ratio": statistics.median(b / a for a, b in zip(taken["fp32"], taken[reduced])),
    }


def _milliseconds(program, batch):
    start = time.perf_counter()
    program(batch)
    return 1e3 * (time.perf_counter() - start)


def table(report: Dict[str, Any], reduced: str = "int8") -> str:
    """The report of `compare_precisions`, with `bytes` beside each latency, as a Markdown table."""
    lines = ["| | top-1 % | MB | ms, 1 image |", "|---|---|---|---|"]
    for name in ("fp32", reduced):
        row = report[name]
        lines.append(
            f"| {name} | {100 * row['top1']:.2f} | {row['bytes'] / 1e6:.1f} | "
            f"{row['latency_ms']:.2f} |"
        )
    lines.append(
        f"| {reduced} to fp32 | {-report['top1_loss']:+.2f} | x "
        f"{report[reduced]['bytes'] / report['fp32']['bytes']:.2f} "
        f"| x {report['latency_ratio']:.2f} |"
    )
    return "\n".join(
        [
            *lines,
            "",
            f"best class equal for {100 * report['agreement']:.2f} % of {report['images']} images",
        ]
    )
