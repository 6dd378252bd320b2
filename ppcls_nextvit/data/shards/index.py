"""The index of a folder of shards: where each image lies, its label and its checksum.

It is a folder of arrays that are mapped, not read: all processes of a machine share them, and
opening the index of any number of images takes no time.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from ...files import IMAGE_BYTES, LIST_BYTES, parsing, read_text
from ...schema import ConfigError, shown, shown_text
from ..packed import PackedNames
from .samples import Found, images_of

__all__ = ["INDEX", "INDEX_FILES", "Indexed", "ShardIndex", "index_shards", "write_index"]

INDEX = "index"  # of the folder of a folder of shards
VERSION = 1
ARRAYS = {
    "text": np.uint8,
    "starts": np.int64,
    "lengths": np.uint32,
    "shards": np.uint32,
    "offsets": np.int64,
    "sizes": np.int64,
    "checksums": np.uint32,
    "labels": np.int32,
}
INDEX_FILES = [f"{INDEX}/index.json", *(f"{INDEX}/{name}.npy" for name in ARRAYS)]
AGAIN = "run `nextvit shards index` on the folder again"


class ShardIndex:
    """The index of the shards in `root`, verified against the files' sizes. copy: the folder of a
    copy of an index whose shards are not on this machine.

    shards: their names. names: of the images, as the shards have them. places: uint32, int64, int64
    [N]: shard, offset and bytes. checksums: uint32 [N], CRC-32. labels: int32 [N], -1 without.
    class_names: where the shards were made of one folder for each class.

    ConfigError, naming the file, for an index that is damaged or another's.
    """

    def __init__(self, root: str, copy: Optional[Path] = None):
        self.root = root
        what = f"{shown_text(os.path.join(root, INDEX))}: not an index of shards"
        folder = os.path.join(root, INDEX) if copy is None else str(copy)
        with parsing(what):
            content = json.loads(read_text(os.path.join(folder, "index.json"), limit=LIST_BYTES))
            version, shards = content["version"], content["shards"]
            self.shards: List[str] = [str(shard["name"]) for shard in shards]
            shard_bytes = np.array([shard["bytes"] for shard in shards], np.int64)
            self.class_names = _class_names(content["class_names"])
            arrays = {name: _mapped(folder, name) for name in ARRAYS}
        if version != VERSION:
            raise ConfigError(f"{what}: version {shown(version)}, not {VERSION}; {AGAIN}")
        _check(arrays, shard_bytes, what)
        self.names = PackedNames(arrays["text"], arrays["starts"], arrays["lengths"])
        self.places = arrays["shards"], arrays["offsets"], arrays["sizes"]
        self.checksums, self.labels = arrays["checksums"], arrays["labels"]
        if self.class_names is not None and self.labels.max() >= len(self.class_names):
            raise ConfigError(
                f"{what}: label {self.labels.max()}, but {len(self.class_names)} class_names; "
                f"{AGAIN}"
            )
        if copy is None:
            self._compare_with_files(shard_bytes)
        elif any(os.path.basename(name) != name for name in self.shards):
            raise ConfigError(f"{what}: shards in other places than beside it")

    def _compare_with_files(self, shard_bytes: np.ndarray) -> None:
        for name, size in zip(self.shards, shard_bytes):
            path = os.path.join(self.root, name)
            if os.path.basename(name) != name or not os.path.isfile(path):
                raise FileNotFoundError(f"{shown_text(path)}: no such shard; the index names it")
            if os.path.getsize(path) != size:
                raise ConfigError(
                    f"{shown_text(path)}: {os.path.getsize(path)} bytes, {size} when it was "
                    f"indexed; copy it again, or {AGAIN}"
                )

    def __len__(self) -> int:
        return len(self.names)


def _class_names(names: Any) -> Optional[List[str]]:
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names must be a list of texts, got {shown(names)}")
    return names


def _mapped(folder: str, name: str) -> np.ndarray:
    """An array of an index. ValueError for one of another type."""
    array = np.load(os.path.join(folder, f"{name}.npy"), mmap_mode="r")
    if array.dtype != ARRAYS[name] or array.ndim != 1:
        raise ValueError(f"{name}.npy has {array.dtype} {array.shape}, not {ARRAYS[name].__name__}")
    return array


def _check(arrays: Dict[str, np.ndarray], shard_bytes: np.ndarray, what: str) -> None:
    """ConfigError unless every name lies in the text and every image in its shard."""
    count = len(arrays["starts"])
    counts = {len(array) for name, array in arrays.items() if name != "text"}
    if counts != {count} or not count:
        raise ConfigError(f"{what}: its arrays have {sorted(counts)} entries; {AGAIN}")
    # without a sum, which could exceed int64
    starts, lengths = arrays["starts"], arrays["lengths"]
    if starts.min() < 0 or (starts > len(arrays["text"]) - lengths.astype(np.int64)).any():
        raise ConfigError(f"{what}: names outside of their text; {AGAIN}")
    offsets, sizes = arrays["offsets"], arrays["sizes"]
    if (
        arrays["shards"].max() >= len(shard_bytes)
        or min(offsets.min(), sizes.min()) < 0
        or (shard_bytes < 0).any()
    ):
        raise ConfigError(f"{what}: images in no shard; {AGAIN}")
    if (sizes > shard_bytes[arrays["shards"]] - offsets).any() or sizes.max() > IMAGE_BYTES:
        raise ConfigError(f"{what}: images that end behind their shard; {AGAIN}")


class Indexed(NamedTuple):
    """A shard's share of an index: the shard's name, and the arrays of its images by name."""

    name: str
    names: PackedNames
    columns: Dict[str, np.ndarray]

    @classmethod
    def of(cls, name: str, images: Sequence[Found]) -> "Indexed":
        """That of the shard `name` with these images."""
        columns = {
            "offsets": [image.offset for image in images],
            "sizes": [image.size for image in images],
            "checksums": [image.checksum for image in images],
            "labels": [image.label for image in images],
        }
        arrays = {key: np.array(column, ARRAYS[key]) for key, column in columns.items()}
        return cls(name, PackedNames.of([image.name for image in images]), arrays)


def write_index(
    root: str, shards: Sequence[Indexed], class_names: Optional[Sequence[str]] = None
) -> None:
    """Write the index of `shards` in `root`. One that is there is replaced when the new one is
    whole; killed between the two renamings, it is left as index.old.
    """
    counts = [len(shard.names) for shard in shards]
    names = PackedNames.joined([shard.names for shard in shards])
    arrays = {"text": names.text, "starts": names.starts, "lengths": names.lengths}
    arrays["shards"] = np.repeat(np.arange(len(shards), dtype=np.uint32), counts)
    for key in ("offsets", "sizes", "checksums", "labels"):
        arrays[key] = np.concatenate([shard.columns[key] for shard in shards])
    content = {
        "version": VERSION,
        "shards": [
            {
                "name": shard.name,
                "bytes": os.path.getsize(os.path.join(root, shard.name)),
                "images": count,
            }
            for shard, count in zip(shards, counts)
        ],
        "class_names": None if class_names is None else list(class_names),
    }
    final, draft, old = (Path(root, f"{INDEX}{end}") for end in ("", f".{os.getpid()}", ".old"))
    draft.mkdir()
    try:
        for key, array in arrays.items():
            np.save(draft / f"{key}.npy", array)
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (draft / "index.json").write_text(text, encoding="utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        draft.rename(final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def index_shards(root: str, labelled: bool = True) -> int:
    """Index the `*.tar` in the folder `root`, in the order of their names; how many images there
    are.

    labelled: each image has a label beside it, `KEY.cls` with its number or `KEY.json` with
    {"label": number}. ConfigError names the shard and the sample for a damaged shard, two files of
    one name, a sample without image or label, and no shard at all.
    """
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{shown_text(root)}: no such folder")
    names = sorted(name for name in os.listdir(root) if name.endswith(".tar"))
    if not names:
        raise ConfigError(f"{shown_text(root)}: no shards, files *.tar, in this folder")
    shards = [
        Indexed.of(name, list(images_of(os.path.join(root, name), labelled))) for name in names
    ]
    count = sum(len(shard.names) for shard in shards)
    if not count:
        raise ConfigError(f"{shown_text(root)}: no image in {len(names)} shards")
    write_index(root, shards, _kept_class_names(root))
    return count


def _kept_class_names(root: str) -> Optional[List[str]]:
    """The class names of the index that is there, None without: shards have none."""
    path = os.path.join(root, INDEX, "index.json")
    if not os.path.exists(path):
        return None
    with parsing(f"{shown_text(path)}: its class names cannot be read; remove it to do without"):
        return _class_names(json.loads(read_text(path))["class_names"])
