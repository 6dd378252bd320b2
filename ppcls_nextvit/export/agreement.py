"""Whether a program gives what the description beside it says: whoever edits the one without the
other gets an error, and no figure. Needs numpy; the same file lies in deploy/python, deploy/serving
and ppcls_nextvit/export.
"""

from typing import Any, Iterable, Mapping, Optional, Sequence

import numpy as np

ROUNDED = 0.1  # by which an image's probabilities may miss a sum of 1, in bfloat16 and int8
EXACT = 1e-4  # no nearer to it come an image's logits


def check_inputs(told: Optional[Iterable[str]], found: Sequence[str]) -> None:
    """ValueError where a program takes other inputs, `found`, than Export.inputs has, `told`: None
    where a description does not say.
    """
    if told is not None and sorted(told) != sorted(found):
        raise ValueError(
            f"Export.inputs: the description has {few(told)}, the program takes {few(found)}; "
            f"export again"
        )


def check_outputs(description: Mapping[str, Any], outputs: Sequence[np.ndarray]) -> None:
    """ValueError where a program gives something else than the description says: other classes
    than it names, other outputs, no probabilities, what is no number. outputs: in the order of
    Export.outputs, where a program may have more; of a classifier the first one is enough.
    """
    post = description["PostProcess"]
    classes = post.get("Topk") or post.get("MultiLabelThreshOutput")
    if classes:
        _check_scores(outputs[0], len(classes["label_list"]), description["Model"])
        return
    told = description["Export"]["outputs"]
    if len(outputs) < len(told):
        raise ValueError(
            f"Export.outputs: the description has {few(told)}, the program gives {len(outputs)}; "
            f"export again"
        )
    if "score_threshold" in post:
        _check_objects(dict(zip(told, outputs)), len(post["label_list"]))
    else:
        _check_maps(dict(zip(told, outputs)), len(post["label_list"]))


def few(names: Any) -> str:
    """The first names, for a message."""
    return ", ".join(repr(name)[:60] for name in list(names)[:5])


def _check_scores(scores: np.ndarray, classes: int, model: Mapping[str, Any]) -> None:
    if scores.ndim != 2 or scores.shape[1] != classes:
        raise ValueError(
            f"the program gives {_shape(scores)}, the description names {classes} classes; "
            f"export again"
        )
    if not np.isfinite(scores).all():
        raise ValueError("the program's output is not finite")
    if not scores.size:
        return
    low, high = float(scores.min()), float(scores.max())
    off = float(np.abs(scores.sum(axis=1, dtype=np.float64) - 1).max())
    told = "sigmoid" if model.get("sigmoid") else "softmax" if model.get("softmax") else ""
    if told and (low < 0 or high > 1 + ROUNDED or (told == "softmax" and off > ROUNDED)):
        raise ValueError(
            f"Model.{told} is true, but the program gives no probabilities; export again"
        )
    if not told and classes > 1 and low >= 0 and off < EXACT:
        raise ValueError(
            "Model.softmax is false, but the program gives probabilities; export again"
        )


def _check_objects(outputs: Mapping[str, np.ndarray], classes: int) -> None:
    objects, masks = outputs.get("objects"), outputs.get("masks")
    if objects is None or objects.ndim != 2 or objects.shape[1] != 6:
        found = "none" if objects is None else f"the shape {_shape(objects)}"
        raise ValueError(f"objects: expected [n, 6], the program gives {found}; export again")
    if masks is not None and (masks.ndim != 3 or len(masks) != len(objects)):
        raise ValueError(f"masks of the shape {_shape(masks)}; expected [{len(objects)}, m, m]")
    strange = objects[~np.isin(objects[:, 0], np.arange(classes)), 0]
    if len(strange):
        raise ValueError(
            f"the program gives objects of the class {strange[0]:g}, the description names "
            f"{classes}; export again"
        )


def _check_maps(outputs: Mapping[str, np.ndarray], classes: int) -> None:
    logits = outputs.get("logits")
    if logits is None or logits.ndim != 4 or logits.shape[1] != classes:
        found = "no logits" if logits is None else f"logits of the shape {_shape(logits)}"
        raise ValueError(
            f"the program gives {found}, the description names {classes} classes; export again"
        )


def _shape(array: np.ndarray) -> str:
    return f"[{', '.join(map(str, array.shape))}]"
