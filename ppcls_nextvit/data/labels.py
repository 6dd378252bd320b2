"""Class names from a map file as PaddleClas has them: one line per class, `id name, synonyms`."""

from pathlib import Path

__all__ = ["read_labels"]


def read_labels(path, num_classes=None):
    """Names in the order of their class ids.

    Raises FileNotFoundError for a missing file and ValueError for a line that is not `id name`, a
    repeated or missing id, or another number of classes than `num_classes`.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"class_id_map_file {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"class_id_map_file {path}: cannot be read as text: {error}") from None
    names = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        index, _, name = line.strip().partition(" ")
        if not index.isdigit() or not name.strip() or int(index) in names:
            raise ValueError(
                f"class_id_map_file {path}, line {number}: expected a new `id name`, got {line!r}"
            )
        names[int(index)] = name.strip()
    if sorted(names) != list(range(len(names))):
        raise ValueError(
            f"class_id_map_file {path}: the ids must be 0 to {len(names) - 1} without gaps"
        )
    if num_classes is not None and len(names) != num_classes:
        raise ValueError(
            f"class_id_map_file {path}: has {len(names)} classes, the model {num_classes}"
        )
    return [names[index] for index in range(len(names))]
