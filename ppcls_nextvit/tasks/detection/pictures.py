"""Pictures of detections: boxes and masks on the image, and sheets that compare them with the truth."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...models.detectors.masks import full
from ..palette import palette
from .predict import SCORE_SHOWN, pasted

__all__ = ["comparison_sheet", "draw_objects"]

OPACITY = 0.45
LINE, GAP = 18, 4  # of text, and between pictures, in pixels


def draw_objects(image, boxes, scores, labels, masks, names, smallest=512):
    """The picture with its objects as a PIL image: mask and box of every one in a colour of its
    own, where there are scores name and score.

    image: uint8 [H, W, 3]; boxes: [n, 4]; scores: [n] or None; masks: uint8 [n, H, W]. smallest:
    the side in pixels to which a small picture grows by whole factors.
    """
    factor = max(1, smallest // max(image.shape[:2]))
    pixels, colours = _grown(image, factor).astype(np.float32), palette(max(1, len(boxes)))
    for mask, colour in zip(masks, colours):
        inside = _grown(mask, factor) > 0
        pixels[inside] = (1 - OPACITY) * pixels[inside] + OPACITY * colour
    picture = Image.fromarray(np.round(pixels).astype(np.uint8))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    for i, (box, label, colour) in enumerate(zip(boxes, labels, colours.tolist())):
        box = [factor * float(side) for side in box]
        draw.rectangle(box, outline=tuple(colour))
        if scores is not None:
            draw.text(
                (box[0] + 2, box[1] + 1),
                f"{names[label]} {scores[i]:.2f}",
                "white",
                font,
                stroke_width=1,
                stroke_fill="black",
            )
    return picture


def comparison_sheet(rows, names, threshold=SCORE_SHOWN, smallest=256):
    """A PIL image with a row for each (image uint8 [H, W, 3], truth, found): the picture, its true
    objects, those that were found.

    truth: a sample with boxes, labels and masks; found: Detections. threshold: the lowest score
    shown. smallest: as for draw_objects.
    """
    font, pictures = ImageFont.load_default(13), []
    for image, truth, found in rows:
        height, width = image.shape[:2]
        boxes, _, labels, masks = pasted(found, height, width, threshold)
        columns = [
            ((), (), ()),
            (truth["boxes"], truth["labels"], truth["masks"]),
            (boxes, labels, [full(mask, height, width) for mask in masks]),
        ]
        pictures.append(
            [
                draw_objects(image, boxes, None, labels, masks, names, smallest)
                for boxes, labels, masks in columns
            ]
        )
    width, height = (
        max(row[0].width for row in pictures) + GAP,
        sum(row[0].height + GAP for row in pictures),
    )
    sheet, top = Image.new("RGB", (3 * width - GAP, LINE + height), "white"), LINE
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(("image", "truth", f"prediction (score {threshold} or more)")):
        draw.text((column * width, 1), title, "black", font)
    for row in pictures:
        for column, picture in enumerate(row):
            sheet.paste(picture, (column * width, top))
        top += row[0].height + GAP
    return sheet


def _grown(pixels, factor):
    return pixels.repeat(factor, 0).repeat(factor, 1)
