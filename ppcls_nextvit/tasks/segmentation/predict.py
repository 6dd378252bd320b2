"""Labels for image files: coloured over the picture with a legend, as PNG files of labels, and as
JSON with every class's area.
"""

import logging
from collections import Counter
from pathlib import Path

import paddle

from ...data.images import ImageError, decode_image
from ...engine.distributed import start_processes
from ...models.segmentors.inference import segment
from ..common import class_names, images_of, trained_model, write_json
from .pictures import class_areas, draw_labels, label_png
from .views import Views

__all__ = ["infer", "predict_image"]


log = logging.getLogger(__name__)


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
