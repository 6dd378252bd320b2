"""Detectors and segmentors behind the service: from uploads to objects or labels, as JSON. Needs
numpy and Pillow, and OpenCV for exports that resize.
"""

import argparse
import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from agreement import check_outputs
from fields import names_of, task_of
from joint import JointPreprocess, Prepared, SizeError
from labels import told_classes
from loaders import load
from objects import MASK_THRESHOLD, Mask, objects_of, told_objects
from pictures import ImageError, decode
from PIL import Image
from winners import best_class

MASKS = ("rle", "png", "none")  # how an answer has them; the first is the default
# {what a client may ask: the tasks that it is for}
QUERY_OF = {
    "topk": ("classification",),
    "score_threshold": ("detection",),
    "mask_threshold": ("detection",),
    "masks": ("detection", "segmentation"),
}


class DenseModel:
    """The exported detector or segmentor with its preprocessing. options: the command line's.
    ValueError, OSError, RuntimeError or ImportError if it cannot be used.
    """

    def __init__(self, options: argparse.Namespace, description: dict):
        self.task = task_of(description)
        self.names = names_of(description)
        self.outputs = description["Export"]["outputs"]
        self.threshold = description["PostProcess"].get("score_threshold", 0)
        self.shapes = description["Export"]["inputs"]
        detects = self.task == "detection"
        sides = self.shapes["image"] if detects else next(iter(self.shapes.values()))
        self.batch = sides[0] or 1
        self.max_pixels = options.max_pixels
        self.prepare = JointPreprocess(
            description["PreProcess"]["transform_ops"],
            sides[2:],
            fills=detects,
            min_size=description.get("Model", {}).get("input", {}).get("min_size", 1),
            classes=0 if detects else len(self.names),
            source="export.json",
            max_pixels=options.max_pixels,
        )
        self.description = description
        self.engine = load(options.model, description, options.device, options.threads)

    def preprocess(self, upload: bytes) -> tuple[np.ndarray, Prepared]:
        """(the picture's pixels, the model's input). ImageError for a bad picture."""
        pixels = np.asarray(decode(upload, self.max_pixels))
        try:
            return pixels, self.prepare(pixels)
        except SizeError as error:
            raise ImageError(413 if error.large else 422, str(error)) from None

    def outputs_for(self, prepared: Prepared) -> list[np.ndarray]:
        """What the program gives of one picture."""
        if self.task == "segmentation":
            name = next(iter(self.shapes))
            return self.engine.run({name: np.repeat(prepared.image, self.batch, axis=0)})
        return self.engine.run(
            {
                "image": prepared.image,
                "im_shape": np.array([prepared.shape], np.float32),
                "scale_factor": np.array([prepared.scale], np.float32),
            }
        )

    def answer(
        self,
        pixels: np.ndarray,
        prepared: Prepared,
        outputs: Sequence[np.ndarray],
        query: dict[str, Any],
    ) -> dict:
        """{height, width, objects or classes} of one picture. query: what its client asks.
        ValueError for outputs that are others than the description says.
        """
        check_outputs(self.description, outputs)
        height, width = pixels.shape[:2]
        told: dict[str, Any] = {"height": height, "width": width}
        masks = query.get("masks", MASKS[0])
        if self.task == "segmentation":
            scores = outputs[self.outputs.index("logits")][0]
            labels = best_class(scores, prepared.image.shape[2:], prepared.shape, (height, width))
            told["classes"] = told_classes(labels, self.names, masks == "rle")
            if masks == "png":
                kind = np.uint8 if len(self.names) <= 256 else np.uint16
                told["labels_png"] = as_png(Image.fromarray(labels.astype(kind)))
            return told
        threshold = query.get("score_threshold", self.threshold)
        limit = query.get("mask_threshold", MASK_THRESHOLD)
        found = objects_of(outputs, height, width, threshold, limit)
        told["objects"] = told_objects(found, self.names, masks == "rle")
        if masks == "png":
            for entry, mask in zip(told["objects"], found.masks or ()):
                entry["mask_png"] = as_png(whole(mask, height, width))
        return told


def whole(mask: Mask, height: int, width: int) -> Image.Image:
    """The object's pixels in the whole picture, white on black."""
    picture = Image.new("1", (width, height))
    if mask.part.size:
        picture.paste(Image.fromarray(mask.part), (mask.left, mask.top))
    return picture


def as_png(picture: Image.Image) -> str:
    """The picture as a PNG file, in base64."""
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def unsuited(task: str, query: dict[str, Any]) -> str:
    """What is wrong with a query that is for another task; empty if nothing."""
    for name in query:
        if task not in QUERY_OF[name]:
            return f"{name}: for {' and '.join(QUERY_OF[name])}; this model is for {task}"
    return ""
