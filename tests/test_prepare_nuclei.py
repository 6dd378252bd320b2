"""scripts/prepare_nuclei.py, and the committed dataset/nuclei that it made."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.paths import ROOT
from support.programs import program_at

NUCLEI = ROOT / "dataset" / "nuclei"
tool = program_at("scripts/prepare_nuclei.py")


def unpack(rle):
    """The bool mask of an uncompressed RLE."""
    values = np.arange(len(rle["counts"])) % 2 == 1
    return np.repeat(values, rle["counts"]).reshape(rle["size"][::-1]).T


def contents(folder):
    """{relative path: pixels or parsed json} of a folder that the tool wrote."""
    return {
        str(path.relative_to(folder)): np.asarray(Image.open(path)).tolist()
        if path.suffix == ".png"
        else json.loads(path.read_text())
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".png", ".json")
    }


def source_of(nuclei, folder):
    """The two TIFFs, put together again from the tiles of the folder `nuclei`; a nucleus has
    another number in each tile.
    """
    image, ids = np.zeros((512, 512), np.uint16), np.zeros((512, 512), np.uint16)
    for split in ("training", "validation"):
        coco = json.loads((nuclei / f"instances_{split}.json").read_text())
        for entry in coco["images"]:
            row, column = (int(part) for part in entry["file_name"][:-4].split("_"))
            tile = np.s_[row * 128 : (row + 1) * 128, column * 128 : (column + 1) * 128]
            image[tile] = np.asarray(Image.open(nuclei / "images" / split / entry["file_name"]))
            for annotation in coco["annotations"]:
                if annotation["image_id"] == entry["id"]:
                    ids[tile][unpack(annotation["segmentation"])] = ids.max() + 1
    folder.mkdir()
    for name, pixels in (("img2d.tif", image), ("mask2d.tif", ids)):
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_committed_files_are_what_the_tool_makes(tmp_path, capsys):
    source = source_of(NUCLEI, tmp_path / "source")
    assert tool.main([str(source), str(tmp_path / "out")]) == 0
    assert (
        "12 training tiles with 114 nuclei, 4 validation tiles with 39 nuclei"
        in capsys.readouterr().out
    )
    made, committed = contents(tmp_path / "out"), contents(NUCLEI)
    assert made.keys() == committed.keys() and len(made) == 34
    assert made == committed


def test_committed_files_are_of_the_package():
    found = importlib.util.find_spec("stardist")
    if found is None:
        pytest.skip("needs the package stardist, whose image this is")
    images = Path(found.origin).parent / "data" / "images"
    image, ids = (
        np.asarray(Image.open(images / "img2d.tif")),
        np.asarray(Image.open(images / "mask2d.tif")),
    )
    for split, rows in (("training", range(3)), ("validation", range(3, 4))):
        for row in rows:
            for column in range(4):
                tile = np.s_[row * 128 : (row + 1) * 128, column * 128 : (column + 1) * 128]
                assert np.array_equal(
                    np.asarray(Image.open(NUCLEI / "images" / split / f"{row}_{column}.png")),
                    image[tile],
                )
                assert np.array_equal(
                    np.asarray(Image.open(NUCLEI / "annotations" / split / f"{row}_{column}.png")),
                    ids[tile] > 0,
                )


def test_annotations_describe_their_masks():
    for split, crowds in (("training", 5), ("validation", 2)):
        coco = json.loads((NUCLEI / f"instances_{split}.json").read_text())
        covered = {entry["id"]: np.zeros((128, 128), int) for entry in coco["images"]}
        for annotation in coco["annotations"]:
            mask = unpack(annotation["segmentation"])
            left, top, width, height = annotation["bbox"]
            covered[annotation["image_id"]] += mask
            assert (
                annotation["area"]
                == mask.sum()
                == mask[top : top + height, left : left + width].sum()
            )
            assert (
                mask[top].any()
                and mask[top + height - 1].any()
                and mask[:, left].any()
                and mask[:, left + width - 1].any()
            )
            assert annotation["iscrowd"] == (annotation["area"] < 20)
        assert sum(annotation["iscrowd"] for annotation in coco["annotations"]) == crowds
        for entry in coco["images"]:
            label = np.asarray(Image.open(NUCLEI / "annotations" / split / entry["file_name"]))
            # disjoint, and together the label
            assert np.array_equal(covered[entry["id"]], label)


def test_small_enough_to_commit():
    assert sum(path.stat().st_size for path in NUCLEI.rglob("*") if path.is_file()) < 500_000


@pytest.mark.parametrize(
    "shapes, values, message",
    [
        (((256, 256), (256, 128)), 9, "expected two images of one size"),
        (((256, 200), (256, 200)), 9, "multiples of 128"),
        (((256, 256), (256, 256)), 300, "values from 300 to 300; expected 0 to 255"),
        (((256, 256, 3), (256, 256)), 9, "expected one channel of integers"),
    ],
)
def test_bad_sources(tmp_path, capsys, shapes, values, message):
    for name, shape in zip(("img2d.tif", "mask2d.tif"), shapes, strict=True):
        Image.fromarray(np.full(shape, values, np.uint8 if len(shape) == 3 else np.uint16)).save(
            tmp_path / name
        )
    assert tool.main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_and_damaged_sources(tmp_path, capsys):
    assert tool.main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "img2d.tif: no such file; SOURCE is the folder of" in capsys.readouterr().err
    (tmp_path / "img2d.tif").write_bytes(b"text")
    assert tool.main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "img2d.tif: cannot be read as an image" in capsys.readouterr().err
