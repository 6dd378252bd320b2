"""Results for every image of a dataset, appended to a file as they come, so that an interrupted
evaluation continues where it was.
"""

import hashlib
import json
import os
from typing import Any, Callable, Collection, Dict, List, Optional, Tuple

import numpy as np
import paddle

from ..data.loader import Loader, LoaderOptions
from ..data.samplers import DistributedBatchSampler
from ..files import JSON_BYTES, UnreadableError, read_file
from ..schema import ConfigError, shown
from .datasets import LabelledImages

__all__ = ["image_digest", "predict_images", "read_results", "result_line"]

TOP = 5


def image_digest(images: LabelledImages) -> str:
    """SHA-256 of the names, labels and rival classes of `images` (not of their pixels)."""
    digest = hashlib.sha256(json.dumps([images.kind, images.num_classes, images.classes]).encode())
    for name, labels in zip(images.names, images.labels):
        digest.update(f"{name}\0{labels}\n".encode())
    return digest.hexdigest()


def predict_images(
    model: Callable,
    images: LabelledImages,
    transform_ops: List[Dict[str, Any]],
    path: os.PathLike | str,
    settings: Dict[str, Any],
    batch_size: int = 64,
    num_workers: int = 0,
    progress: Optional[Callable[[int], None]] = None,
) -> List[List[int]]:
    """Per image of `images`, in their order, the class numbers of its five highest logits, best
    first.

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
    found = read_results(path, settings, "classes", index_of)
    odd = next((name for name, classes in found if not _are_classes(classes, images)), None)
    if odd is not None:
        raise ConfigError(
            f"{path}: no class numbers for {shown(odd)}; remove it or choose another folder"
        )
    done = {index_of[name]: classes for name, classes in found}
    todo = [index for index in range(len(images)) if index not in done]
    if todo:
        dataset = images.dataset(todo, transform_ops)
        sampler = DistributedBatchSampler(todo, 0, 1, 0, False, batch_size=batch_size)
        loader = Loader(dataset, sampler, LoaderOptions(num_workers=num_workers))
        with open(path, "a", encoding="utf-8") as file:
            for batch in loader.epoch(0):
                with paddle.no_grad():
                    logits = model(batch["image"]).astype("float32").numpy()
                indices = batch["label"].numpy().tolist()
                best = _best(logits, images, images.names[indices[0]])
                for index, classes in zip(indices, best):
                    done[index] = classes
                    file.write(result_line(images.names[index], "classes", classes))
                file.flush()
                if progress:
                    progress(len(done))
    return [done[index] for index in range(len(images))]


def _are_classes(classes: Any, images: LabelledImages) -> bool:
    return (
        isinstance(classes, list)
        and 0 < len(classes) <= TOP
        and all(type(one) is int and 0 <= one < images.num_classes for one in classes)
    )


def _best(logits: np.ndarray, images: LabelledImages, first: str) -> List[List[int]]:
    """The class numbers of the highest logits, best first, among those that compete. logits: [B,
    classes]. first: the name of the batch's first image, for messages.
    """
    if logits.shape[1] != images.num_classes:
        raise ConfigError(
            f"the model has {logits.shape[1]} classes, the set is numbered for {images.num_classes}"
        )
    if not np.isfinite(logits).all():
        raise FloatingPointError(f"{first} and the images after it give logits that are not finite")
    rivals = np.arange(images.num_classes) if images.classes is None else np.array(images.classes)
    order = np.argsort(-logits[:, rivals], axis=1, kind="stable")[:, :TOP]
    return rivals[order].tolist()


def result_line(name: str, key: str, result: Any) -> str:
    """The line of a file of results that says what `key` is of the image `name`."""
    return json.dumps({"image": name, key: result}) + "\n"


def read_results(
    path: os.PathLike | str, settings: Dict[str, Any], key: str, names: Collection[str]
) -> List[Tuple[str, Any]]:
    """[(image's name, result), ...] of the file of results `path`, in its order; starts the file if
    there is none.

    settings: a dict, which is the file's first line. A last line that was cut off is removed.
    ConfigError if the file was made with other settings, has images that are not in `names`, or is
    no such file.
    """
    settings = json.loads(json.dumps(settings))
    if not os.path.exists(path) or (os.path.isfile(path) and not os.path.getsize(path)):
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(settings) + "\n")
        return []
    try:
        text = read_file(path, JSON_BYTES)
    except UnreadableError as error:
        raise ConfigError(f"{path}: {error}") from error
    whole = text[: text.rfind(b"\n") + 1]
    header, found = _parsed(whole, key)
    if header is None:
        raise ConfigError(f"{path}: not a file of predictions; remove it or choose another folder")
    if header != settings:
        keys = sorted({*header, *settings})
        other = ", ".join(key for key in keys if header.get(key) != settings.get(key))
        raise ConfigError(
            f"{path}: has the predictions of another evaluation (other {other}); they do not mix: "
            f"remove it or choose another folder"
        )
    if not {name for name, _ in found} <= set(names):
        raise ConfigError(
            f"{path}: not the predictions of these images; remove it or choose another folder"
        )
    if len(whole) < len(text):
        os.truncate(path, len(whole))
    return found


def _parsed(content: bytes, key: str) -> Tuple[Optional[Dict[str, Any]], List[Tuple[str, Any]]]:
    """(settings, [(image's name, result), ...]) of the lines of a file of results; (None, []) if it
    is none.
    """
    try:
        header, *rows = [json.loads(line) for line in content.splitlines()] or [None]
        if isinstance(header, dict):
            return header, [(str(row["image"]), row[key]) for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None, []
