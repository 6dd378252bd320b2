"""Labels for image files: coloured over the picture with a legend, as PNG files of labels, and as
JSON with every class's area.
"""

import colorsys
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import paddle
from PIL import Image, ImageDraw, ImageFont

from ..engine.classification import class_names
from ..engine.distributed import start_processes
from ..predict import images_of, trained_model, write_json
from ..preprocess import ImageError, decode_image
from .inference import segment
from .views import Views

__all__ = [
    "class_areas",
    "comparison_sheet",
    "draw_labels",
    "infer",
    "label_png",
    "palette",
    "predict_image",
]

OPACITY = 0.55
BACKGROUND = "background"  # a class of this name is left uncoloured
# of a turn: hues of neighbouring classes lie far apart, whatever their number
GOLDEN_ANGLE = 0.381966
UNLABELLED = 255
LINE, SWATCH, GAP = 18, 12, 8  # of the legend, in pixels

log = logging.getLogger(__name__)


def palette(num_classes):
    """uint8 [num_classes, 3]: one RGB colour a class, the same for the same class whatever the
    number of classes.
    """
    rows = [
        colorsys.hls_to_rgb(
            i * GOLDEN_ANGLE % 1.0, (0.5, 0.35, 0.68)[i // 7 % 3], (0.9, 0.6)[i // 21 % 2]
        )
        for i in range(num_classes)
    ]
    return np.round(255 * np.array(rows)).astype(np.uint8)


def class_areas(labels, names):
    """[{class_id, label_name, pixels, share}, ...] of the classes in `labels` [H, W], largest
    first.
    """
    counts = np.bincount(labels.reshape(-1), minlength=len(names))[: len(names)]
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    return [
        {
            "class_id": i,
            "label_name": names[i],
            "pixels": int(counts[i]),
            "share": float(counts[i] / labels.size),
        }
        for i in order
    ]


def overlay(image, labels, names):
    """image: uint8 [H, W, 3]; labels: [H, W] -> uint8 [H, W, 3], each pixel mixed with its class's
    colour; background and 255 stay.
    """
    coloured = labels != UNLABELLED
    if BACKGROUND in names:
        coloured &= labels != names.index(BACKGROUND)
    out = image.copy()
    out[coloured] = np.round(
        (1 - OPACITY) * image[coloured] + OPACITY * palette(len(names))[labels[coloured]]
    ).astype(np.uint8)
    return out


def draw_labels(image, labels, names):
    """The picture under its labels with a legend of its classes at the right, largest first, as a
    PIL image.
    """
    shown = [area for area in class_areas(labels, names) if area["label_name"] != BACKGROUND]
    rows = max(1, image.shape[0] // LINE)
    if len(shown) > rows:
        shown = shown[: rows - 1] + [
            {"class_id": None, "label_name": f"and {len(shown) - rows + 1} more"}
        ]
    font, colours = ImageFont.load_default(13), palette(len(names))
    texts = [
        area["label_name"] + (f" {100 * area['share']:.1f} %" if "share" in area else "")
        for area in shown
    ]
    width = GAP * 3 + SWATCH + round(max((font.getlength(text) for text in texts), default=0))
    sheet = Image.new("RGB", (image.shape[1] + width, max(image.shape[0], LINE)), "white")
    sheet.paste(Image.fromarray(overlay(image, labels, names)), (0, 0))
    draw = ImageDraw.Draw(sheet)
    for row, (area, text) in enumerate(zip(shown, texts)):
        left, top = image.shape[1] + GAP, row * LINE + (LINE - SWATCH) // 2
        if area["class_id"] is not None:
            draw.rectangle(
                (left, top, left + SWATCH, top + SWATCH),
                tuple(colours[area["class_id"]].tolist()),
                "black",
            )
        draw.text((left + SWATCH + GAP, row * LINE + 1), text, "black", font)
    return sheet


def comparison_sheet(rows, names, gap=4):
    """rows: [(image uint8 [H, W, 3], true labels, predicted labels), ...] -> a PIL image, a row
    each: picture, truth, prediction.
    """
    font = ImageFont.load_default(13)
    width = max(image.shape[1] for image, _, _ in rows)
    height = sum(image.shape[0] + gap for image, _, _ in rows)
    sheet = Image.new("RGB", (3 * (width + gap) - gap, LINE + height), "white")
    draw, top = ImageDraw.Draw(sheet), LINE
    for column, title in enumerate(("image", "truth", "prediction")):
        draw.text((column * (width + gap), 1), title, "black", font)
    for image, truth, prediction in rows:
        for column, picture in enumerate(
            (image, overlay(image, truth, names), overlay(image, prediction, names))
        ):
            sheet.paste(Image.fromarray(picture), (column * (width + gap), top))
        top += image.shape[0] + gap
    return sheet


def label_png(labels, num_classes):
    """`labels` [H, W] as a PIL palette image: pixel values are class ids, colours those of
    `palette`.
    """
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette(palette(num_classes).reshape(-1).tolist())
    return image


def predict_image(model, image, views, name):
    """image: uint8 [H, W, 3] -> labels int64 [H, W]. views: Views of the model's inference.
    ImageError for what the model cannot take.
    """
    with paddle.no_grad():
        return segment(model, views(image, name), [image.shape[:2]], model.inference)[0].numpy()


def infer(config, out, json=None):
    """Segment the images of Infer.infer_imgs into the directory `out`; returns the exit status, 1
    if an image could not be read.

    NAME_overlay.png: the picture under coloured labels, with a legend; NAME_labels.png: class ids.
    json: a file with, by image,
    {file_name, height, width, classes: see class_areas} or {file_name, error}. ConfigError where
    there are no images or no weights.
    """
    paths, names = images_of(config), class_names(config)
    start_processes(config.Global.device)
    model, _ = trained_model(config)
    views, out, results = (
        Views(config.Infer.transforms, model.inference, "Infer.transforms"),
        Path(out),
        [],
    )
    out.mkdir(parents=True, exist_ok=True)
    stems = Counter(path.stem for path in paths)
    for path in paths:
        try:
            image = decode_image(str(path))
            labels = predict_image(model, image, views, str(path))
        except ImageError as error:
            log.error("%s", error)
            results.append({"file_name": str(path), "error": str(error)})
            continue
        # a.jpg and a.png each keep their own
        stem = path.stem if stems[path.stem] == 1 else path.name
        draw_labels(image, labels, names).save(out / f"{stem}_overlay.png")
        label_png(labels, len(names)).save(out / f"{stem}_labels.png")
        results.append(
            {
                "file_name": str(path),
                "height": image.shape[0],
                "width": image.shape[1],
                "classes": class_areas(labels, names),
            }
        )
    if json:
        write_json(json, results)
    return int(any("error" in result for result in results))
