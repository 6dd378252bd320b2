"""Predictions for image files: the model of a configuration, top-k with names, a labelled contact
sheet.
"""

import json
from pathlib import Path

import numpy as np
import paddle
from paddle.nn import functional as F
from PIL import Image, ImageDraw, ImageFont

from .data.datasets import EXTENSIONS
from .engine.classification import build_model
from .models.nextvit import MIN_INPUT_SIZE
from .preprocess import ImageError, Preprocess, open_image
from .schema import ConfigError
from .weights.load import resolve

__all__ = [
    "contact_sheet",
    "images_of",
    "list_images",
    "predict_files",
    "trained_model",
    "write_json",
]

SHEET_LIMIT = 400  # pictures on a contact sheet


def trained_model(config):
    """(model in eval mode, path of the weights' file) for Global.pretrained_model, or a file in
    Arch.pretrained; every key must fit.

    Arch.pretrained of a detector or segmentor is its backbone's, and not enough. ConfigError
    without weights: an untrained model predicts noise.
    """
    source = config.Global.pretrained_model or (
        "backbone" not in config.Arch.arguments and config.Arch.pretrained
    )
    if not source:
        raise ConfigError(
            f"{config.path}: no weights, and an untrained model predicts noise; give -o "
            f"Global.pretrained_model=FILE"
        )
    model = build_model(config)
    model.eval()
    return model, resolve(source)


def preprocess_of(config):
    """The Preprocess of Infer.transforms."""
    return Preprocess(config.section("Infer").transforms, "Infer.transforms")


def list_images(source):
    """[source] for a file; for a directory its image files (by ending), sorted by name, without
    those of its own folders.

    FileNotFoundError if there is no such file or directory, or no image in it.
    """
    source = Path(source)
    if not source.is_dir():
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such file or directory")
        return [source]
    found = sorted(
        path
        for path in source.iterdir()
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
    )
    if not found:
        raise FileNotFoundError(
            f"{source}: no images in this directory; expected files ending in "
            f"{' '.join(EXTENSIONS)}"
        )
    return found


def images_of(config):
    """The images of Infer.infer_imgs, else of Global.infer_imgs, see list_images. ConfigError if
    neither is given.
    """
    source = config.section("Infer").infer_imgs or config.Global.infer_imgs
    if not source:
        raise ConfigError(f"{config.path}: no images; give -o Infer.infer_imgs=FILE_OR_DIRECTORY")
    return list_images(source)


def predict_files(model, paths, preprocess, batch_size, topk, names):
    """For each path, in order: {file_name, class_ids, scores, label_names}, best first, or
    {file_name, error} for a bad image.

    A generator; it reads `batch_size` files at a time. scores are probabilities. Images that
    preprocessing leaves at different sizes
    run one size at a time. model: in eval mode, float32 [B, 3, H, W] -> logits [B, len(names)].
    preprocess: a Preprocess.
    topk: how many classes. No ImageError leaves it: that is the `error`.
    """
    for start in range(0, len(paths), batch_size):
        results, by_shape = {}, {}
        for path in paths[start : start + batch_size]:
            try:
                image = preprocess(str(path))
                if min(image.shape[1:]) < MIN_INPUT_SIZE:
                    raise ImageError(
                        f"{path}: {image.shape[1]} x {image.shape[2]} pixels after preprocessing; "
                        f"the model needs at least {MIN_INPUT_SIZE}"
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


def write_json(path, results):
    """The results as a JSON list."""
    Path(path).write_text(
        json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def contact_sheet(results, columns=8, cell=144):
    """A picture of the images of `results` (of predict_files; bad ones are left out), each over its
    best name and probability.

    cell: side of a picture, in pixels. Small images grow by whole factors, so that their pixels
    stay visible. Returns a PIL image of at most SHEET_LIMIT pictures. ValueError if there is none.
    """
    shown = [result for result in results if "error" not in result][:SHEET_LIMIT]
    if not shown:
        raise ValueError("no image could be read, so there is no contact sheet to draw")
    font, line, gap = ImageFont.load_default(13), 17, 8
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
        draw.text(
            (left, top + cell + 1),
            _shortened(draw, result["label_names"][0], font, cell),
            "black",
            font,
        )
        draw.text(
            (left, top + cell + 1 + line), f"{100 * result['scores'][0]:.1f} %", "#555555", font
        )
    return sheet


def _fitted(picture, side):
    factor = side // max(picture.size)
    if factor > 1:
        return picture.resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
        )
    picture.thumbnail((side, side))
    return picture


def _shortened(draw, text, font, width):
    """`text`, cut so that it is at most `width` pixels wide."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"
