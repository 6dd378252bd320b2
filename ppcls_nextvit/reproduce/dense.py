"""Our figures beside the published ones for detectors and segmentors: COCO and ADE20K, evaluated by
the tasks of the engine.
"""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Tuple

import paddle

from ..config import ArchSection, Config, GlobalSection
from ..engine.curves import pyplot
from ..engine.distributed import Processes
from ..engine.log import logger
from ..schema import ConfigError
from ..tasks.registry import task_of
from ..weights import read_file
from ..weights.digest import sha256_of
from ..weights.load import resolve
from ..weights.rules import head_classes
from .predictions import read_results, result_line

__all__ = ["DENSE_SETS", "evaluate_dense"]

TRANSFORMS = {
    "detection": [
        {"Resize": {"scale": [1333, 800]}},
        {"Normalize": {}},
        {"Pad": {"size_divisor": 32}},
    ],
    "segmentation": [{"Resize": {"scale": [2048, 512]}}, {"Normalize": {}}],
}
# of the zoo: of the models
HEADS = {"Mask R-CNN": "MaskRCNN", "Semantic FPN": "SemanticFPN", "UPerNet": "UPerNet"}


@dataclass(frozen=True)
class DenseSet:
    """What is known of a set. figures: {metric of the zoo: value of the task's evaluation}; images:
    in the complete set.

    ratios, flip: the views of an image whose results are averaged.
    """

    title: str
    task: str
    images: int
    figures: Mapping[str, str]
    ratios: Tuple[float, ...] = (1.0,)
    flip: bool = False


DENSE_SETS = {
    "coco": DenseSet(
        "COCO val2017", "detection", 5_000, {"coco/box_map": "box_map", "coco/mask_map": "mask_map"}
    ),
    "ade20k": DenseSet(
        "ADE20K validation, one scale", "segmentation", 2_000, {"ade20k/miou": "mIoU"}
    ),
    "ade20k-ms": DenseSet(
        "ADE20K validation, six scales and flip",
        "segmentation",
        2_000,
        {"ade20k/miou_ms": "mIoU"},
        (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        True,
    ),
}


def architecture(record, kind, classes):
    """The ArchSection of a zoo record's model for the set `kind`."""
    name = next(model for head, model in HEADS.items() if record.head.startswith(head))
    backbone, arguments = {"name": record.variant}, {}
    if record.task == "segmentation":
        backbone["extra_norms"] = True
        arguments["inference"] = {
            "ratios": list(DENSE_SETS[kind].ratios),
            "flip": DENSE_SETS[kind].flip,
        }
    return ArchSection(name, classes, arguments={"backbone": backbone, **arguments})


def loader_section(task, data, limit, batch_size, num_workers):
    """DataLoader.Eval with the published preprocessing, of COCO's or ADE20K's layout below the
    folder `data`.
    """
    if task == "detection":
        dataset = {
            "name": "COCODataset",
            "image_root": str(Path(data) / "val2017"),
            "annotation_path": str(Path(data) / "annotations" / "instances_val2017.json"),
        }
    else:
        dataset = {"name": "ADE20KDataset", "dataset_root": str(data)}
    return {
        "dataset": {
            **dataset,
            "mode": "val",
            "transform_ops": TRANSFORMS[task],
            "sample_num": limit,
        },
        "sampler": {"batch_size": batch_size},
        "loader": {"num_workers": num_workers},
    }


def evaluate_dense(
    weights,
    data,
    kind,
    record,
    out,
    limit=None,
    batch_size=1,
    num_workers=0,
    processes=None,
    progress=None,
):
    """The report of `weights` on the set `kind` (of DENSE_SETS) below the folder `data`, but for
    the comparison: a dict.

    record: the zoo's Weights that `weights` (a name, or a file) is of, whose model is built; the
    class count is the file's.
    out: a folder, whose file predictions.jsonl (of several processes predictions_RANK.jsonl) gets
    the results of each image as they come; what is in it already is not computed again, and
    ConfigError if it was made otherwise.
    limit: at most so many images, evenly spread. batch_size: the published figures are of 1; the
    padding of more changes them a little.
    processes: see start_processes; the images are divided among them. progress: (images, start in
    seconds) -> a function to be called with the images that are done. ConfigError without a record,
    or with one of another task.
    """
    known, path, processes = DENSE_SETS[kind], resolve(weights), processes or Processes()
    if record is None:
        raise ConfigError(
            f"{weights}: which model is this? Say --record NAME, or use tools/eval.py with its "
            f"configuration"
        )
    if record.task != known.task:
        raise ConfigError(
            f"{record.name}: weights for {record.task}, but {known.title} is for {known.task}"
        )
    classes = head_classes(read_file(path))
    if not classes:
        raise ConfigError(
            f"{path}: a backbone without heads; {known.title} needs the whole model for "
            f"{known.task}"
        )
    section = loader_section(known.task, data, limit, batch_size, num_workers)
    config = Config(
        record.name,
        GlobalSection(epochs=1, pretrained_model=path),
        architecture(record, kind, classes),
        DataLoader={"Eval": section},
    )
    task, digest, start = (
        task_of(config)(config, processes, training=False),
        sha256_of(path),
        time.monotonic(),
    )
    logger.info("%s: %d images of %s", path, task.eval_loader.num_images, known.title)
    settings = {
        "model": [config.Arch.name, config.Arch.arguments],
        "weights_sha256": digest,
        "transform_ops": TRANSFORMS[known.task],
        "images": task.eval_loader.num_images,
        "batch_size": batch_size,
        "process": [processes.rank, processes.world_size],
    }
    Path(out).mkdir(parents=True, exist_ok=True)
    file = Path(
        out, f"predictions_{processes.rank}.jsonl" if processes.many else "predictions.jsonl"
    )
    result = task.summary(_results(task, file, settings, start, progress))
    ops = "; ".join(
        f"{name} {arguments}" if arguments else name
        for entry in section["dataset"]["transform_ops"]
        for name, arguments in entry.items()
    )
    return {
        "weights_sha256": digest,
        "model": f"{config.Arch.name} on {record.variant}",
        "set": known.title,
        "images": result["images"],
        "images_published": known.images,
        "complete": result["images"] == known.images,
        "preprocessing": ops,
        "figures": {metric: 100 * result[name] for metric, name in known.figures.items()},
        "result": result,
        "seconds": round(time.monotonic() - start, 1),
        "device": paddle.get_device(),
        "paddle": paddle.__version__,
    }


def _results(task, path, settings, start, progress):
    """The results of all images of this process, in its order: those that are in the file `path`,
    then the others, written there.
    """
    dataset, order = task.eval_loader.dataset, task.eval_loader.sampler.order(0)[0]
    names = [dataset.names[index] for index in order]
    found = read_results(path, settings, "result", names)
    if [name for name, _ in found] != names[: len(found)]:
        raise ConfigError(
            f"{path}: has the images in another order; remove it or choose another folder"
        )
    done, report = (
        [result for _, result in found],
        progress(len(names), start) if progress else None,
    )
    # a batch that was begun is computed whole: its padding is the same
    step, again = divmod(len(done), task.eval_loader.batch_size)
    with open(path, "a", encoding="utf-8") as file:
        for index, result in itertools.islice(task.results(step), again, None):
            done.append(result)
            file.write(result_line(dataset.names[index], "result", result))
            file.flush()
            if report:
                report(len(done))
    return done


def markdown(report):
    """The report as a page."""
    rows = [
        f"| {name} | {value:.2f} | "
        f"{'-' if (published := report['published'].get(name)) is None else published} |"
        for name, value in report["figures"].items()
    ]
    others = {name: value for name, value in report["result"].items() if isinstance(value, float)}
    facts = {
        "weights": f"`{report['weights']}` (sha256 {report['weights_sha256'][:16]}...)",
        "model": report["model"],
        "zoo record": report["record"],
        "images": f"{report['images']} of {report['images_published']}",
        "preprocessing": report["preprocessing"],
        "run": f"{report['device']}, paddle {report['paddle']}, {report['seconds']} s",
    }
    return "\n".join(
        [
            f"# {report['set']}: {report['verdict']}",
            "",
            "| in % | ours | published |",
            "|---|---|---|",
            *rows,
            "",
            "| also, in % | ours |",
            "|---|---|",
            *(f"| {name} | {100 * value:.2f} |" for name, value in others.items()),
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            "",
            "![ours beside published, and the spread over classes](report.png)",
            "",
        ]
    )


def draw(report, path):
    """Ours beside published, and how the figure spreads over the classes."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4), gridspec_kw={"width_ratios": [1, 2]}
    )
    names = list(report["figures"])
    for shift, label, values in (
        (-0.2, "ours", report["figures"]),
        (0.2, "published", report["published"]),
    ):
        places = [i + shift for i, name in enumerate(names) if name in values]
        bars = left.bar(
            places, [values[name] for name in names if name in values], 0.4, label=label
        )
        left.bar_label(bars, fmt="%.1f")
    left.set_xticks(range(len(names)), names)
    left.margins(y=0.15)
    left.set(title=report["verdict"], ylabel="%")
    left.title.set_fontsize(8)
    left.legend()
    for name, classes in report["result"].items():
        if isinstance(classes, dict) and classes:
            right.plot(
                range(1, len(classes) + 1),
                sorted((100 * (value or 0) for value in classes.values()), reverse=True),
                label=name,
            )
    right.set(
        title=f"{report['set']}, {report['images']} images",
        xlabel="classes, best first",
        ylabel="%",
    )
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
