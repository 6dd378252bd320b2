"""An exported model behind a service: what it says of itself, and from preprocessed pictures to
their best classes. Needs numpy.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from agreement import check_outputs
from decoding import one_line, read_regular
from fields import MAX_BYTES, check_fields, names_of, task_of
from loaders import LOADERS, load


def read_description(folder: str | Path) -> dict:
    """The contents of export.json, after the hashes it holds were compared. FileNotFoundError or
    ValueError, one line.
    """
    path = Path(folder) / "export.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected a folder that tools/export_model.py wrote"
        )
    try:
        description = json.loads(read_regular(path, MAX_BYTES))
        check_fields(description)
        classifies = task_of(description) == "classification"
        target = description["Export"]["target"]
    except Exception as error:  # of the parser: anything; a KeyError: no target
        told = one_line(error) or type(error).__name__
        raise ValueError(f"{path}: not the description of an exported model: {told}") from None
    names = len(names_of(description))
    classes = description.get("Model", {}).get("class_num", names)
    if names != classes:
        raise ValueError(
            f"{path}: {names} class names for {classes} classes; export again with the right "
            f"label file"
        )
    if target not in LOADERS:
        raise ValueError(
            f"{folder}: an export to {target}; this program runs {' and '.join(LOADERS)}"
        )
    batch = description["Model"]["input"]["shape"][0] if classifies else None
    if batch is not None:
        raise ValueError(
            f"{folder}: the batch is fixed at {batch}; batching needs an export with --batch "
            f"dynamic"
        )
    for name, entry in description["Files"].items():
        file = Path(folder) / name
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file, yet {path.name} lists it")
        if hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
            raise ValueError(
                f"{file}: does not match {path.name}, so it is damaged or of another export; "
                f"export or copy again"
            )
    return description


class Classifier:
    """`classifier(images)`: a list of float32 [3, H, W] -> probabilities, one [classes] for each.
    Sizes that differ run one at a time. ValueError where the model's output is another than the
    description says.

    folder: the exported files. device: cpu or gpu. threads: on a CPU.
    """

    def __init__(
        self, folder: str | Path, description: dict, device: str = "cpu", threads: int = 1
    ):
        self.run = load(folder, description, device, threads)
        self.description = description

    def __call__(self, images: list[np.ndarray]) -> list[np.ndarray]:
        by_shape: dict[tuple, list[int]] = {}
        for index, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(index)
        rows: dict[int, np.ndarray] = {}
        for indices in by_shape.values():
            output = self.run(np.stack([images[index] for index in indices]))
            check_outputs(self.description, [output])
            if not self.description["Model"]["softmax"]:
                exponent = np.exp(output - output.max(axis=-1, keepdims=True))
                output = exponent / exponent.sum(axis=-1, keepdims=True)
            rows.update(zip(indices, output))
        return [rows[index] for index in range(len(images))]


def best(row: np.ndarray, k: int, names: list[str]) -> list[dict]:
    """The k largest of `row` [classes], best first: [{class_id, label, score}]."""
    return [
        {"class_id": i, "label": names[i], "score": float(row[i])}
        for i in np.argsort(-row, kind="stable")[:k].tolist()
    ]
