"""A fluorescence image with instance ids -> tiles in COCO format and as label PNGs, split into
training and held-out tiles.

    pip download --no-deps stardist==0.9.2
    unzip stardist-0.9.2-*.whl 'stardist/data/images/*2d.tif'
    python scripts/prepare_nuclei.py stardist/data/images dataset/nuclei

SOURCE holds img2d.tif (grey, values up to 255) and mask2d.tif (0 background, else the number of a
nucleus), of one size. The last row of tiles is held out, so that the two parts touch along one line
only. The output is a function of the input, in the layout

    images/{training,validation}/ROW_COLUMN.png          grey tiles
    annotations/{training,validation}/ROW_COLUMN.png     0 background, 1 nucleus
    instances_{training,validation}.json                 COCO

Nuclei that a tile's edge cut down to a sliver are `iscrowd`: neither to be found nor a false alarm.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Optional, Sequence, Union

import numpy as np
from PIL import Image

TILE = 128  # pixels
SLIVER = 20  # an instance of fewer pixels is what an edge left of a nucleus


def read(path: Path) -> np.ndarray:
    """The single-channel image `path` as an integer array [H, W]. FileNotFoundError or ValueError
    names it.
    """
    try:
        with Image.open(path, formats=["TIFF"]) as image:
            pixels = np.asarray(image)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; SOURCE is the folder of img2d.tif and mask2d.tif"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as an image: {error}") from error
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: expected one channel of integers, got shape {pixels.shape} of {pixels.dtype}"
        )
    return pixels


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """COCO's uncompressed RLE of a bool mask [H, W]: lengths of the runs down the columns, of zeros
    first.
    """
    flat = np.concatenate([[False], mask.T.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return {
        "size": list(mask.shape),
        "counts": np.diff(np.concatenate([[0], changes, [mask.size]])).tolist(),
    }


def instance(mask: np.ndarray) -> dict[str, Any]:
    """The COCO annotation of a bool mask [H, W], but for its ids."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    area = int(mask.sum())
    return {
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "area": area,
        "iscrowd": int(area < SLIVER),
        "segmentation": run_lengths(mask),
    }


def prepare(source: Union[str, Path], target: Union[str, Path]) -> dict[str, tuple[int, int]]:
    """Write the layout of the module's docstring from the folder `source` to the folder `target`.
    Returns {split: (tiles, instances)}.
    """
    image, ids = (read(Path(source) / name) for name in ("img2d.tif", "mask2d.tif"))
    if (
        image.shape != ids.shape
        or min(image.shape) < 2 * TILE
        or any(side % TILE for side in image.shape)
    ):
        raise ValueError(
            f"{source}: expected two images of one size, multiples of {TILE} pixels; got "
            f"{image.shape} and {ids.shape}"
        )
    if image.min() < 0 or image.max() > 255:
        raise ValueError(
            f"{source}: img2d.tif has values from {image.min()} to {image.max()}; expected 0 to 255"
        )
    rows, columns = (side // TILE for side in image.shape)
    counts = {}
    for split, part in (("training", range(rows - 1)), ("validation", range(rows - 1, rows))):
        for kind in ("images", "annotations"):
            (Path(target) / kind / split).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for row, column in ((row, column) for row in part for column in range(columns)):
            tile = np.s_[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            name = f"{row}_{column}.png"
            Image.fromarray(image[tile].astype(np.uint8)).save(
                Path(target) / "images" / split / name, optimize=True
            )
            Image.fromarray((ids[tile] > 0).astype(np.uint8)).save(
                Path(target) / "annotations" / split / name, optimize=True
            )
            images.append({"id": len(images) + 1, "file_name": name, "width": TILE, "height": TILE})
            for number in np.unique(ids[tile][ids[tile] > 0]):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": 1,
                        **instance(ids[tile] == number),
                    }
                )
        sections = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "nucleus"}],
        }
        lines = [
            f'"{key}": [\n'
            + ",\n".join(json.dumps(item, separators=(",", ":")) for item in items)
            + "\n]"
            for key, items in sections.items()
        ]
        (Path(target) / f"instances_{split}.json").write_text(
            "{" + ",\n".join(lines) + "}\n", encoding="utf-8"
        )
        counts[split] = len(images), sum(not annotation["iscrowd"] for annotation in annotations)
    return counts


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="folder of img2d.tif and mask2d.tif")
    parser.add_argument("target", help="folder to write")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parser().parse_args(argv)
    try:
        counts = prepare(args.source, args.target)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{args.target}: "
        + ", ".join(
            f"{tiles} {split} tiles with {found} nuclei" for split, (tiles, found) in counts.items()
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
