"""Our figures beside the published ones: evaluate weights on a set and report."""

import json
import os
import time
from pathlib import Path

import numpy as np
import paddle

from ..engine.curves import pyplot
from ..engine.log import logger
from ..models import create_model
from ..schema import ConfigError
from ..weights import load_weights, read_file
from ..weights.digest import sha256_of
from ..weights.load import resolve
from ..weights.rules import head_classes
from .. import zoo
from . import dense
from .datasets import SETS, open_set
from .predictions import predict_set
from .scores import per_class, score

__all__ = [
    "MATCH",
    "MISMATCH",
    "NO_COMPARISON",
    "default_set",
    "find_record",
    "reproduce",
    "verdict",
    "write_report",
]

MATCH, MISMATCH, NO_COMPARISON = 0, 1, 3  # 2 is argparse's status for wrong arguments
PROGRESS_SECONDS = 10


def find_record(weights, record=None):
    """The zoo's Weights that `weights`, a name of the zoo or a file, stands for: by `record`, by
    name, by the file's name, or None.
    """
    weights = os.fspath(weights)
    if record is not None:
        return zoo.get(record)
    if zoo.is_name(weights) and not os.path.exists(weights):
        return zoo.get(weights)
    return next(
        (found for found in zoo.WEIGHTS.values() if found.file == os.path.basename(weights)), None
    )


def default_set(weights, record=None):
    """The set that `weights` (see find_record) are evaluated on if nobody says which: ImageNet,
    COCO or ADE20K.
    """
    found = find_record(weights, record)
    return {"detection": "coco", "segmentation": "ade20k"}.get(
        found.task if found else None, "imagenet"
    )


def transforms_for(kind, preprocessing):
    """The evaluation transforms of a set. ImageNet-C comes cropped to 224 x 224: it is resized only
    for another crop, and never cropped.
    """
    if kind == "c":
        preprocessing = zoo.Preprocessing(preprocessing.crop, 1.0, preprocessing.interpolation)
    return preprocessing.transform_ops()


def verdict(measured, published, tolerance, complete):
    """(MATCH | MISMATCH | NO_COMPARISON, the reason in words). measured, published: %, or None.
    tolerance: percentage points.

    Rounding is not held against the weights: a difference counts as within the tolerance up to
    1e-9.
    """
    if published is None:
        return NO_COMPARISON, "no published figure to compare with"
    if not complete:
        return NO_COMPARISON, "not the complete set, so its published figure does not apply"
    difference = measured - published
    within = abs(difference) <= tolerance + 1e-9
    return (
        MATCH if within else MISMATCH
    ), f"{difference:+.3f} percentage points, {'within' if within else 'outside'} {tolerance:g}"


def reproduce(
    weights,
    data,
    out,
    kind="imagenet",
    model=None,
    record=None,
    preprocessing=None,
    tolerance=0.1,
    limit=None,
    batch_size=None,
    num_workers=0,
    processes=None,
    **layout,
):
    """Evaluate `weights` on the set `kind` below the folder `data`; returns the report, a dict,
    also written into the folder `out`.

    weights: a name of the zoo, or any file that load_weights takes. model: create_model's name for
        a file (default: the record's, else NextViT_small); the class count is the file's. record,
        see find_record: whose preprocessing and figures apply.
    kind: one of SETS (classification), or of DENSE_SETS (detection and segmentation; the weights
    must then be of a record).
    preprocessing: a zoo.Preprocessing for weights without a record (default 224 of 256).
    tolerance: percentage points. limit: at most so many images, evenly spread. layout: labels,
    synsets, real (see open_set).
    batch_size: default 64, for DENSE_SETS 1. processes: see start_processes; only DENSE_SETS are
    divided among several. The report's `status` is MATCH, MISMATCH or NO_COMPARISON.
    `out`/predictions.jsonl lets an interrupted evaluation continue. Raises ConfigError for
    arguments that contradict each other or the record, LoadError, ImageError, FileNotFoundError for
    what is read.
    """
    # a missing matplotlib is noticed before the evaluation, not after it
    pyplot()
    found = find_record(weights, record)
    if kind in dense.DENSE_SETS:
        if layout or model or preprocessing:
            raise ConfigError(
                f"set {kind}: model and preprocessing are the record's, and the layout is the "
                f"set's; leave them out"
            )
        report = {
            "weights": os.fspath(weights),
            "data": os.fspath(data),
            "record": found and found.name,
            **dense.evaluate_dense(
                weights,
                data,
                kind,
                found,
                out,
                limit,
                batch_size or 1,
                num_workers,
                processes,
                _progress,
            ),
        }
        return _compared(report, found, out, tolerance, processes)
    if processes and processes.many:
        raise ConfigError(
            f"set {kind}: evaluated by one process; only {', '.join(dense.DENSE_SETS)} are "
            f"divided among several"
        )
    if found is not None and found.task != "classification":
        raise ConfigError(
            f"{found.name}: weights for {found.task}, but {SETS[kind].title} is for classification"
        )
    if found is not None and preprocessing is not None:
        raise ConfigError(
            f"{weights}: evaluated as published for {found.name}; leave the preprocessing out, or "
            f"rename the file"
        )
    preprocessing = found.preprocess if found else preprocessing or zoo.Preprocessing(224, 0.875)
    path = resolve(weights)
    name = model or (found.variant if found else "NextViT_small")
    classes = head_classes(read_file(path))
    if not classes:
        raise ConfigError(f"{path}: weights without a head cannot classify")
    network = create_model(name, num_classes=classes)
    loaded = load_weights(network, path)
    network.eval()
    images = open_set(kind, data, classes, **layout)
    images = images if limit is None else images.thinned(limit)
    logger.info("%s: %s; %d images of %s", path, loaded, len(images), SETS[kind].title)

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    transform_ops, digest, start = (
        transforms_for(kind, preprocessing),
        sha256_of(path),
        time.monotonic(),
    )
    predictions = predict_set(
        network,
        images,
        transform_ops,
        out / "predictions.jsonl",
        {"model": name, "weights_sha256": digest},
        batch_size or 64,
        num_workers,
        _progress(len(images), start),
    )
    figures = score(images, predictions)
    metric = SETS[kind].metric
    measured = figures[metric.rpartition("/")[2]]
    published = found.published.get(metric) if found else None
    status, reason = verdict(measured, published, tolerance, images.complete)
    report = {
        "weights": os.fspath(weights),
        "weights_sha256": digest,
        "record": found.name if found else None,
        "model": name,
        "set": SETS[kind].title,
        "data": os.fspath(data),
        "images": len(images),
        "images_published": SETS[kind].images,
        "notes": list(images.notes),
        "resize_short": transform_ops[1]["ResizeImage"]["resize_short"],
        "crop": preprocessing.crop,
        "interpolation": preprocessing.interpolation,
        "metric": metric,
        "measured": measured,
        "published": published,
        "tolerance": tolerance,
        "status": status,
        "verdict": reason,
        "figures": figures,
        "per_class": per_class(predictions, images.labels),
        "seconds": round(time.monotonic() - start, 1),
        "device": paddle.get_device(),
        "paddle": paddle.__version__,
    }
    write_report(report, out)
    return report


def _compared(report, record, out, tolerance, processes):
    """`report` of evaluate_dense with the comparison, written into the folder `out` by the first
    process.
    """
    published = {
        metric: record.published[metric]
        for metric in report["figures"]
        if metric in record.published
    }
    statuses, reasons = zip(
        *(
            verdict(measured, published.get(metric), tolerance, report["complete"])
            for metric, measured in report["figures"].items()
        )
    )
    names = [metric.rpartition("/")[2] for metric in report["figures"]]
    named = (
        reasons[:1]
        if len(set(reasons)) == 1
        else [f"{name} {reason}" for name, reason in zip(names, reasons)]
    )
    report.update(
        published=published,
        tolerance=tolerance,
        verdict="; ".join(named),
        status=next(status for status in (MISMATCH, NO_COMPARISON, MATCH) if status in statuses),
    )
    if processes is None or processes.is_main:
        write_report(report, out, dense.markdown, dense.draw)
    return report


def _progress(total, start):
    """A callback that logs at most every PROGRESS_SECONDS."""
    state = {"last": start, "first": None}

    def progress(done):
        now = time.monotonic()
        state["first"] = state["first"] or (now, done)
        if now - state["last"] >= PROGRESS_SECONDS and done > state["first"][1]:
            rate = (done - state["first"][1]) / (now - state["first"][0])
            logger.info(
                "%d of %d images, %.1f img/s, %.0f s to go",
                done,
                total,
                rate,
                (total - done) / rate,
            )
            state["last"] = now

    return progress


def markdown(report):
    """The report as a page."""
    figures = report["figures"]
    shown = [("top-1", figures["top1"]), ("top-5", figures["top5"])] + (
        [("mCE", figures["mce"])] if "mce" in figures else []
    )
    main = "mCE" if "mce" in figures else "top-1"
    rows = [
        f"| {name} | {value:.3f} | "
        f"{report['published'] if name == main and report['published'] is not None else '-'} |"
        for name, value in shown
    ]
    facts = {
        "weights": f"`{report['weights']}` (sha256 {report['weights_sha256'][:16]}...)",
        "model": report["model"],
        "zoo record": report["record"] or "none",
        "images": f"{report['images']} of {report['images_published']}",
        "preprocessing": f"shorter side {report['resize_short']}, centre crop {report['crop']}, "
        f"{report['interpolation']}",
        "run": f"{report['device']}, paddle {report['paddle']}, {report['seconds']} s",
    }
    lines = [
        f"# {report['set']}: {report['verdict']}",
        "",
        "| in % | ours | published |",
        "|---|---|---|",
        *rows,
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        *(f"- note: {note}" for note in report["notes"]),
        "",
    ]
    if "ce" in figures:
        lines += [
            "| corruption | CE |",
            "|---|---|",
            *(f"| {name} | {value:.2f} |" for name, value in figures["ce"].items()),
            "",
        ]
    return "\n".join(
        [*lines, "![ours beside published, and the spread over classes](report.png)", ""]
    )


def draw(report, path):
    """Ours beside published, and how accuracy spreads over the classes (for corrupted images: the
    error of each corruption).
    """
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4), gridspec_kw={"width_ratios": [1, 3]}
    )
    bars = {
        "ours": report["measured"],
        **({} if report["published"] is None else {"published": report["published"]}),
    }
    drawn = left.bar(list(bars), list(bars.values()), color=["tab:blue", "tab:gray"][: len(bars)])
    left.bar_label(drawn, [f"{value:.2f}" for value in bars.values()])
    left.set(
        title=report["verdict"],
        ylabel=f"{report['metric']} (%)",
        ylim=(0, 1.1 * max(1, *bars.values())),
    )
    left.title.set_fontsize(9)
    if "ce" in report["figures"]:
        ce = report["figures"]["ce"]
        right.bar(range(len(ce)), list(ce.values()))
        right.axhline(report["measured"], color="black", linewidth=1, linestyle="--", label="mean")
        right.set_xticks(
            range(len(ce)),
            [name.replace("_", " ") for name in ce],
            rotation=45,
            ha="right",
            fontsize=8,
        )
        right.set(title=report["set"], ylabel="corruption error (%), AlexNet = 100")
        right.legend()
    else:
        right.hist(list(report["per_class"].values()), bins=np.linspace(0, 100, 26))
        right.axvline(
            report["figures"]["top1"],
            color="black",
            linewidth=1,
            linestyle="--",
            label="top-1 over all images",
        )
        right.set(
            title=f"{report['set']}, {report['images']} images",
            xlabel="top-1 of a class (%)",
            ylabel="classes",
        )
        right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def write_report(report, out, markdown=markdown, draw=draw):
    """report.json, report.md (its `markdown`) and report.png (by `draw`) in the folder `out`.
    ImportError names the extra of matplotlib.
    """
    out = Path(out)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    draw(report, out / "report.png")
