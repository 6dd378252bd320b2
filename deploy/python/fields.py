"""What the description of an exported classifier (export.json, inference.yml) must have, and of
which type. Needs nothing but Python; the same file lies in deploy/python and deploy/serving.
"""

from typing import Any

MAX_BYTES = 64 << 20  # of a description; one of 20,000 classes has 1 MB
LARGEST = 1 << 20  # of a number of classes, or a side of an image
LARGEST_BATCH = 1 << 16
MISSING = object()


def check_fields(description: Any) -> None:
    """ValueError, which names the field, for the first one that is missing or of another type."""
    post = description.get("PostProcess") if isinstance(description, dict) else None
    if isinstance(post, dict) and "MultiLabelThreshOutput" in post:
        raise ValueError(
            "the model tells several labels an image, this program one; deploy/python/predict.py "
            "runs it"
        )
    for place, (is_right, expected) in FIELDS.items():
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
    return is_mapping(value) and bool(value) and all(map(is_shape, value.values()))


# {place: (whether a value is right, what is expected)}; those with a question mark may be missing
FIELDS = {
    "PreProcess.transform_ops": (is_transforms, "a list of transforms with their arguments"),
    "PostProcess.Topk.label_list": (is_texts, "a list of names"),
    "PostProcess.Topk.topk": (is_count, "1 or more"),
    "Model.softmax": (lambda value: isinstance(value, bool), "true or false"),
    "Model.class_num?": (is_count, "1 or more"),
    "Model.input.shape": (is_shape, "four sizes or nulls"),
    "Model.input.image_size?": (is_size, "height and width"),
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
