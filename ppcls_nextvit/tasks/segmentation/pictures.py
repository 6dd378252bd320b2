"""Pictures of label maps: coloured over the image with a legend, as palette PNG, and sheets that compare them with the truth."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..palette import palette

__all__ = ["class_areas", "comparison_sheet", "draw_labels", "label_png"]


OPACITY = 0.55
BACKGROUND = "background"  # a class of this name is left uncoloured
UNLABELLED = 255
LINE, SWATCH, GAP = 18, 12, 8  # of the legend, in pixels


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
