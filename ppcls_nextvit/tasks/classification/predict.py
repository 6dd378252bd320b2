"""Predictions for image files: the model of a configuration, top-k with names, a labelled contact
sheet.
"""

import sys
from pathlib import Path
from typing import Any, Dict, Iterator, Sequence, Tuple

import numpy as np
import paddle
from paddle.nn import functional as F
from PIL import Image, ImageDraw

from ...config import Config
from ...data.images import ImageError, open_image
from ...data.transforms.pipeline import Preprocess
from ...schema import shown_text
from ..base import PredictOutputs
from ..common import class_names, images_of, trained_model, write_json
from ..fonts import draw_text, shortened, text_width
from ..pictures import TEXT

__all__ = ["contact_sheet", "predict", "predict_files", "preprocess_of"]


SHEET_LIMIT = 400  # pictures on a contact sheet


def preprocess_of(config: Config) -> Preprocess:
    """The Preprocess of Infer.transforms."""
    return Preprocess(config.section("Infer").transforms, "Infer.transforms")


def predict(config: Config, outputs: PredictOutputs) -> int:
    """Top-k of every image of Infer.infer_imgs: printed, as JSON and as a contact sheet.

    Returns the exit status: 1 if an image could not be read. ConfigError where there are no images
    or no weights.
    """
    paths, names, preprocess = images_of(config), class_names(config), preprocess_of(config)
    model, _ = trained_model(config)
    infer, results = config.section("Infer"), []
    topk = min(infer.topk, len(names))
    for result in predict_files(model, paths, preprocess, infer.batch_size, topk, names):
        results.append(result)
        if "error" in result:
            print("error:", result["error"], file=sys.stderr)
            continue
        best = zip(result["label_names"], result["scores"], strict=True)
        line = ", ".join(f"{name} {score:.4f}" for name, score in best)
        print(f"{shown_text(result['file_name'])}: {line}", flush=True)
    if outputs.json:
        write_json(outputs.json, results)
    if outputs.sheet:
        contact_sheet(results).save(outputs.sheet, "png")
    return int(any("error" in result for result in results))


def predict_files(
    model: paddle.nn.Layer,
    paths: Sequence[Path],
    preprocess: Preprocess,
    batch_size: int,
    topk: int,
    names: Sequence[str],
) -> Iterator[Dict[str, Any]]:
    """For each path, in order: {file_name, class_ids, scores, label_names}, best first, or
    {file_name, error} for a bad image.

    A generator; it reads `batch_size` files at a time. scores are probabilities. Images that
    preprocessing leaves at different sizes
    run one size at a time. model: in eval mode, float32 [B, 3, H, W] -> logits [B, len(names)].
    preprocess: a Preprocess.
    topk: how many classes. No ImageError leaves it: that is the `error`.
    """
    for start in range(0, len(paths), batch_size):
        results: Dict[Path, Dict[str, Any]] = {}
        by_shape: Dict[Tuple[int, ...], list] = {}
        for path in paths[start : start + batch_size]:
            try:
                image = preprocess(str(path))
                if min(image.shape[1:]) < model.min_size:
                    raise ImageError(
                        f"{path}: {image.shape[1]} x {image.shape[2]} pixels after preprocessing; "
                        f"the model needs at least {model.min_size}"
                    )
                by_shape.setdefault(image.shape, []).append((path, image))
            except ImageError as error:
                results[path] = {"file_name": str(path), "error": str(error)}
        for group in by_shape.values():
            batch = paddle.to_tensor(np.stack([image for _, image in group]))
            with paddle.no_grad():
                probabilities = F.softmax(model(batch), axis=-1).numpy()
            for (path, _), row in zip(group, probabilities):
                order = np.argsort(-row, kind="stable")[:topk].tolist()
                results[path] = {
                    "file_name": str(path),
                    "class_ids": order,
                    "scores": [float(row[i]) for i in order],
                    "label_names": [names[i] for i in order],
                }
        yield from (results[path] for path in paths[start : start + batch_size])


def contact_sheet(
    results: Sequence[Dict[str, Any]], columns: int = 8, cell: int = 144
) -> Image.Image:
    """A picture of the images of `results` (of predict_files; bad ones are left out), each over its
    best name and probability.

    cell: side of a picture, in pixels. Small images grow by whole factors, so that their pixels
    stay visible. Returns a PIL image of at most SHEET_LIMIT pictures. ValueError if there is none.
    """
    shown = [result for result in results if "error" not in result][:SHEET_LIMIT]
    if not shown:
        raise ValueError("no image could be read, so there is no contact sheet to draw")
    line, gap = 17, 8
    columns = min(columns, len(shown))
    width, height = cell + gap, cell + 2 * line + gap
    sheet = Image.new(
        "RGB", (columns * width + gap, -(-len(shown) // columns) * height + gap), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for index, result in enumerate(shown):
        left, top = gap + index % columns * width, gap + index // columns * height
        picture = _fitted(open_image(result["file_name"]), cell)
        sheet.paste(
            picture, (left + (cell - picture.width) // 2, top + (cell - picture.height) // 2)
        )
        name = _fitting(shortened(result["label_names"][0]), cell)
        score = f"{100 * result['scores'][0]:.1f} %"
        draw_text(draw, (left, top + cell + 1), name, "black", TEXT)
        draw_text(draw, (left, top + cell + 1 + line), score, "#555555", TEXT)
    return sheet


def _fitted(picture, side):
    factor = side // max(picture.size)
    if factor > 1:
        return picture.resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
        )
    picture.thumbnail((side, side))
    return picture


def _fitting(text, width):
    """`text`, cut so that it is at most `width` pixels wide."""
    if text_width(text, TEXT) <= width:
        return text
    while text and text_width(text + "…", TEXT) > width:
        text = text[:-1]
    return text + "…"
