"""What the description of an exported model (export.json, inference.yml) must have, and of which
type. Needs nothing but Python; the same file lies in deploy/python and deploy/serving.
"""

from typing import Any

MAX_BYTES = 64 << 20  # of a description; one of 20,000 classes has 1 MB
LARGEST = 1 << 20  # of a number of classes, or a side of an image
LARGEST_BATCH = 1 << 16
MISSING = object()
TASKS = ("classification", "detection", "segmentation")


def task_of(description: Any) -> str:
    """One of TASKS. Exports that do not say it are told apart by what goes in and comes out.
    ValueError for another one.
    """
    if not isinstance(description, dict):
        return TASKS[0]
    model, export = description.get("Model"), description.get("Export")
    task = model.get("task") if isinstance(model, dict) else None
    if task is not None:
        if task not in TASKS:
            raise ValueError(
                f"Model.task: expected one of {', '.join(TASKS)}, got {str(task)[:60]!r}"
            )
        return task
    if isinstance(export, dict):
        inputs, outputs = export.get("inputs"), export.get("outputs")
        if isinstance(inputs, dict) and "im_shape" in inputs:
            return "detection"
        if outputs == ["labels", "logits"]:
            return "segmentation"
    return TASKS[0]


def names_of(description: dict) -> list[str]:
    """The names of the classes, in order, of a description whose fields were checked."""
    post = description["PostProcess"]
    return (post.get("Topk") or post.get("MultiLabelThreshOutput") or post)["label_list"]


def check_fields(description: Any) -> None:
    """ValueError, which names the field, for the first one that is missing or of another type."""
    task = task_of(description)
    if task != TASKS[0]:
        _check(description, {**SHARED_FIELDS, **DENSE_FIELDS, **OF_TASK[task]})
        return
    post = description.get("PostProcess") if isinstance(description, dict) else None
    if isinstance(post, dict) and "MultiLabelThreshOutput" in post:
        raise ValueError(
            "the model tells several labels an image, this program one; deploy/python/predict.py "
            "runs it"
        )
    _check(description, {**CLASS_FIELDS, **SHARED_FIELDS})


def _check(description: Any, fields: dict) -> None:
    for place, (is_right, expected) in fields.items():
        value = description
        for key in place.rstrip("?").split("."):
            value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
        if value is MISSING and place.endswith("?"):
            continue
        if not is_right(value):
            found = "nothing" if value is MISSING else f"{type(value).__name__} {str(value)[:60]!r}"
            raise ValueError(f"{place.rstrip('?')}: expected {expected}, got {found}")


def is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LARGEST


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_name(value: Any) -> bool:
    return is_text(value) and value.isprintable() and 0 < len(value) < 256


def is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_name, value))


def is_shape(value: Any) -> bool:
    sizes = value if isinstance(value, list) and len(value) == 4 else [0]
    return (
        all(size is None or is_count(size) for size in sizes) and (sizes[0] or 1) <= LARGEST_BATCH
    )


def is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_count, value))


def is_size_or_none(value: Any) -> bool:
    return value is None or is_size(value)


def is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def is_detector(value: Any) -> bool:
    """The shapes of a detector's inputs, by their names."""
    return (
        is_mapping(value)
        and set(value) == {"image", "im_shape", "scale_factor"}
        and is_shape(value["image"])
    )


def is_one_image(value: Any) -> bool:
    return is_mapping(value) and len(value) == 1 and all(map(is_shape, value.values()))


def is_transforms(value: Any) -> bool:
    """[{name: arguments or None}, ...]"""
    return isinstance(value, list) and all(
        is_mapping(entry)
        and all(arguments is None or is_mapping(arguments) for arguments in entry.values())
        for entry in value
    )


def is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_name, value))


def is_files(value: Any) -> bool:
    """{name: {sha256: text}}"""
    return is_mapping(value) and all(
        is_mapping(entry) and is_text(entry.get("sha256")) for entry in value.values()
    )


def is_inputs(value: Any) -> bool:
    return is_mapping(value) and bool(value) and all(map(is_sizes, value.values()))


def is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(size is None or is_count(size) for size in value)


# {place: (whether a value is right, what is expected)}; those with a question mark may be missing
CLASS_FIELDS = {
    "PreProcess.transform_ops": (is_transforms, "a list of transforms with their arguments"),
    "PostProcess.Topk.label_list": (is_texts, "a list of names"),
    "PostProcess.Topk.topk": (is_count, "1 or more"),
    "Model.softmax": (lambda value: isinstance(value, bool), "true or false"),
    "Model.input.shape": (is_shape, "four sizes or nulls"),
}
SHARED_FIELDS = {
    "Model.class_num?": (is_count, "1 or more"),
    "Model.input.image_size?": (is_size_or_none, "height and width"),
    "Model.input.min_size?": (is_count, "1 or more"),
    "Model.input.name?": (is_name, "a name"),
    "Export?": (is_mapping, "a mapping"),
    "Export.target?": (is_name, "a name"),
    "Export.precision?": (is_name, "a name"),
    "Export.inputs?": (is_inputs, "shapes by name"),
    "Export.outputs?": (is_names, "a list of names"),
    "Versions?": (is_mapping, "a mapping"),
    "Global?": (is_mapping, "a mapping"),
    "Files": (is_files, "a sha256 for each name"),
}
# of detectors and segmentors
DENSE_FIELDS = {
    "PreProcess.transform_ops": (is_transforms, "a list of transforms with their arguments"),
    "PostProcess.label_list": (is_texts, "a list of names"),
    "Export.target": (is_name, "a name"),
    "Export.outputs": (is_names, "a list of names"),
}
OF_TASK = {
    "detection": {
        "PostProcess.score_threshold": (is_share, "a number from 0 to 1"),
        "Export.inputs": (is_detector, "image, im_shape and scale_factor"),
    },
    "segmentation": {"Export.inputs": (is_one_image, "one input of four sizes or nulls")},
}
