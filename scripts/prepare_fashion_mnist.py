r"""Fashion-MNIST's four IDX files -> images.zip, train_list.txt, test_list.txt and labels.txt in
PaddleClas's list format.

    python scripts/prepare_fashion_mnist.py IDX_DIR dataset/fashion_mnist_full

The dataset in this repository is made by

    python scripts/prepare_fashion_mnist.py IDX_DIR dataset/fashion_mnist \
        --train-per-class 500 --test-per-class 100

The zip holds `train/NNNNN.png` and `test/NNNNN.png`, where NNNNN is the image's number in its IDX
file. The output is a function of the input and the options (with one version of zlib): no dates, no
random choice.
"""

import argparse
import gzip
import io
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Optional, Sequence, Union

import numpy as np
from PIL import Image

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
LARGEST = 1 << 28  # bytes of an unpacked file; the training images have 47 MB
# our name: the prefix of the IDX files
SPLITS = {"train": "train", "test": "t10k"}


def read_idx(path: Union[str, Path], ndim: int) -> np.ndarray:
    """The uint8 array of `ndim` axes in the gzipped IDX file `path`. FileNotFoundError, or
    ValueError if it is not a whole such file.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; Fashion-MNIST is four *-ubyte.gz files "
            "(Debian: package dataset-fashion-mnist, /usr/share/datasets/fashion-mnist)"
        ) from None
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{path}: cannot be unpacked, so it is truncated or not gzip ({error})"
        ) from error
    if len(data) > LARGEST:
        raise ValueError(
            f"{path}: more than {LARGEST} bytes, so it is none of Fashion-MNIST's files"
        )
    header = 4 + 4 * ndim
    # two zeros, 8 = unsigned byte, number of axes
    if len(data) < header or data[:4] != bytes([0, 0, 8, ndim]):
        raise ValueError(
            f"{path}: not an IDX file of unsigned bytes with {ndim} axes (it starts with "
            f"{data[:4].hex() or 'nothing'})"
        )
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", ndim, offset=4))
    if len(data) - header != np.prod(shape, dtype=np.int64):
        raise ValueError(
            f"{path}: the header promises {shape} bytes, {len(data) - header} follow; download it "
            f"again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_split(folder: Union[str, Path], prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """(images [N, H, W] uint8, labels [N] uint8 below 10) of the pair of files `prefix`-*.
    ValueError if they do not fit together.
    """
    images = read_idx(Path(folder) / f"{prefix}-images-idx3-ubyte.gz", 3)
    labels = read_idx(Path(folder) / f"{prefix}-labels-idx1-ubyte.gz", 1)
    if len(images) != len(labels):
        raise ValueError(
            f"{folder}: {prefix} has {len(images)} images but {len(labels)} labels; take both "
            f"files from one release"
        )
    if len(labels) and labels.max() >= len(CLASSES):
        raise ValueError(
            f"{folder}: {prefix} has label {labels.max()}; Fashion-MNIST has the classes 0 to "
            f"{len(CLASSES) - 1}"
        )
    return images, labels


def first_per_class(labels: np.ndarray, count: Optional[int]) -> np.ndarray:
    """Positions of the first `count` images of every class, in file order; all positions where
    `count` is None.
    """
    if count is None:
        return np.arange(len(labels))
    if count < 1:
        raise ValueError(f"the number of images per class must be 1 or more, got {count}")
    per_class = [np.flatnonzero(labels == c)[:count] for c in range(len(CLASSES))]
    short = [
        f"{CLASSES[c]} ({len(found)})" for c, found in enumerate(per_class) if len(found) < count
    ]
    if short:
        raise ValueError(
            f"{count} images per class were asked for, but there are fewer of: {', '.join(short)}"
        )
    return np.sort(np.concatenate(per_class))


def png_bytes(image: np.ndarray) -> bytes:
    """The grey image [H, W] uint8 as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def prepare(
    source: Union[str, Path],
    target: Union[str, Path],
    train_per_class: Optional[int] = None,
    test_per_class: Optional[int] = None,
) -> dict[str, int]:
    """Write the layout of the module's docstring from the IDX folder `source` to the folder
    `target`. Returns {split: image count}.
    """
    picked = {}
    # read all before writing anything
    for (split, prefix), count in zip(SPLITS.items(), (train_per_class, test_per_class)):
        images, labels = read_split(source, prefix)
        picked[split] = [(i, images[i], labels[i]) for i in first_per_class(labels, count)]
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    # PNG is compressed already
    with zipfile.ZipFile(target / "images.zip", "w", zipfile.ZIP_STORED) as archive:
        for split, samples in picked.items():
            lines = []
            for i, image, label in samples:
                name = f"{split}/{i:05d}.png"
                # ZipInfo: dated 1980, as any other run's
                archive.writestr(zipfile.ZipInfo(name), png_bytes(image))
                lines.append(f"{name} {label}\n")
            (target / f"{split}_list.txt").write_text("".join(lines))
    (target / "labels.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(CLASSES)))
    return {split: len(samples) for split, samples in picked.items()}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="folder of the four *-ubyte.gz files")
    parser.add_argument("target", help="folder to write")
    parser.add_argument(
        "--train-per-class", type=int, help="training images of each class (default: all)"
    )
    parser.add_argument(
        "--test-per-class", type=int, help="test images of each class (default: all)"
    )
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parser().parse_args(argv)
    try:
        counts = prepare(args.source, args.target, args.train_per_class, args.test_per_class)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{args.target}: " + ", ".join(f"{count} {split} images" for split, count in counts.items())
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
