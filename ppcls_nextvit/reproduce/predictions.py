"""Results for every image of a set, appended to a file as they come, so that an interrupted
evaluation continues where it was.
"""

import hashlib
import json
import os

import numpy as np
import paddle

from ..data.loader import Loader, LoaderOptions
from ..data.samplers import DistributedBatchSampler
from ..schema import ConfigError

__all__ = ["image_digest", "predict_set", "read_results", "result_line"]

TOP = 5


def image_digest(images):
    """SHA-256 of the names, labels and rival classes of an ImageSet (not of its pixels)."""
    digest = hashlib.sha256(json.dumps([images.kind, images.num_classes, images.classes]).encode())
    for name, labels in zip(images.names, images.labels):
        digest.update(f"{name}\0{labels}\n".encode())
    return digest.hexdigest()


def predict_set(
    model, images, transform_ops, path, settings, batch_size=64, num_workers=0, progress=None
):
    """Per image of the ImageSet `images`, in its order, the class numbers of its five highest
    logits, best first.

    model: in eval mode, logits [B, images.num_classes]. transform_ops: evaluation transforms,
    DecodeImage first.
    path: the file of predictions, one JSON line per image after a line with `settings` (a dict of
        what they depend on). What is in it already is not computed again; ConfigError if it was
        made with other settings, or by something else.
    progress: called with the number of images that are done, after each batch.
    Raises ImageError for a bad image, FloatingPointError for logits that are not finite.
    """
    settings = {
        **settings,
        "transform_ops": transform_ops,
        "images": len(images),
        "set": image_digest(images),
    }
    index_of = {name: i for i, name in enumerate(images.names)}
    done = {
        index_of[name]: classes
        for name, classes in read_results(path, settings, "classes", index_of)
    }
    todo = [index for index in range(len(images)) if index not in done]
    if todo:
        dataset = images.dataset(todo, transform_ops)
        sampler = DistributedBatchSampler(todo, 0, 1, 0, False, batch_size=batch_size)
        rivals = None if images.classes is None else np.array(images.classes)
        with open(path, "a", encoding="utf-8") as file:
            for batch in Loader(dataset, sampler, LoaderOptions(num_workers=num_workers)).epoch(0):
                with paddle.no_grad():
                    logits = model(batch["image"]).astype("float32").numpy()
                indices = batch["label"].numpy().tolist()
                if logits.shape[1] != images.num_classes:
                    raise ConfigError(
                        f"the model has {logits.shape[1]} classes, the set is numbered for "
                        f"{images.num_classes}"
                    )
                if not np.isfinite(logits).all():
                    raise FloatingPointError(
                        f"{images.names[indices[0]]} and the images after it give logits that are "
                        f"not finite"
                    )
                logits = logits if rivals is None else logits[:, rivals]
                order = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
                for index, best in zip(
                    indices, (order if rivals is None else rivals[order]).tolist()
                ):
                    done[index] = best
                    file.write(result_line(images.names[index], "classes", best))
                file.flush()
                if progress:
                    progress(len(done))
    return [done[index] for index in range(len(images))]


def result_line(name, key, result):
    """The line of a file of results that says what `key` is of the image `name`."""
    return json.dumps({"image": name, key: result}) + "\n"


def read_results(path, settings, key, names):
    """[(image's name, result), ...] of the file of results `path`, in its order; starts the file if
    there is none.

    settings: a dict, which is the file's first line. A last line that was cut off is removed.
    ConfigError if the file was made with other settings, has images that are not in `names`, or is
    no such file.
    """
    settings = json.loads(json.dumps(settings))
    if not os.path.exists(path) or not os.path.getsize(path):
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(settings) + "\n")
        return []
    with open(path, "rb") as file:
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        header, *rows = [json.loads(line) for line in whole.splitlines()] or [None]
        found = (
            None
            if not isinstance(header, dict)
            else [(str(row["image"]), row[key]) for row in rows]
        )
    except (ValueError, KeyError, TypeError):
        found = None
    if found is None:
        raise ConfigError(f"{path}: not a file of predictions; remove it or choose another folder")
    if header != settings:
        other = ", ".join(
            sorted(key for key in {**header, **settings} if header.get(key) != settings.get(key))
        )
        raise ConfigError(
            f"{path}: has the predictions of another evaluation (other {other}); they do not mix: "
            f"remove it or choose "
            "another folder"
        )
    if not {name for name, _ in found} <= set(names):
        raise ConfigError(
            f"{path}: not the predictions of these images; remove it or choose another folder"
        )
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return found
