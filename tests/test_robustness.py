"""ImageNet and its robustness variants in their layouts on disk: class numbers, rival classes and
metrics on small layouts, worked out by hand.
"""

import dataclasses

import numpy as np
import paddle
import pytest
from PIL import Image

from ppcls_nextvit.reproduce import PUBLISHED_DATASETS, open_dataset, read_synsets, score
from ppcls_nextvit.reproduce.datasets import CORRUPTIONS, SEVERITIES
from ppcls_nextvit.reproduce.predictions import predict_images
from ppcls_nextvit.reproduce.scores import ALEXNET_ERROR, accuracy, corruption_errors, per_class
from ppcls_nextvit.schema import ConfigError
from support.faults import assert_one_line

WNIDS = ["n00000003", "n00000007", "n00000012", "n00000100"]  # class numbers 0 to 3
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def touch(root, *names):
    """Empty files; opening a dataset looks at names only."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def pairs(images):
    return {name: labels for name, labels in zip(images.names, images.labels, strict=True)}


def validation(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


@pytest.fixture
def synsets(tmp_path):
    """Not in alphabetical order, and with names, as LOC_synset_mapping.txt has them."""
    path = tmp_path / "synsets.txt"
    path.write_text("".join(f"{wnid} kind {wnid[-1]}, other name\n" for wnid in reversed(WNIDS)))
    return path


# ImageNet itself


def test_folders_are_numbered_by_sorted_wordnet_id(tmp_path):
    root = touch(
        tmp_path,
        "n00000100/b.JPEG",
        "n00000003/a.JPEG",
        "n00000012/c.JPEG",
        "n00000012/d.JPEG",
        "n00000007/e.JPEG",
        "n00000003/notes.txt",
        "n00000003/.hidden.JPEG",
    )
    images = open_dataset("imagenet", str(root), 4)
    assert pairs(images) == {
        "n00000003/a.JPEG": (0,),
        "n00000007/e.JPEG": (1,),
        "n00000012/c.JPEG": (2,),
        "n00000012/d.JPEG": (2,),
        "n00000100/b.JPEG": (3,),
    }
    assert images.classes is None and not images.complete


def test_fewer_folders_are_never_numbered_by_their_order(tmp_path, synsets):
    root = touch(tmp_path / "val", "n00000012/a.JPEG", "n00000100/b.JPEG")
    with pytest.raises(
        ConfigError,
        match="2 class folders, the model has 4 classes, so their numbers cannot be told; give "
        "synsets",
    ):
        open_dataset("imagenet", str(root), 4)
    assert pairs(open_dataset("imagenet", str(root), 4, synsets=synsets)) == {
        "n00000012/a.JPEG": (2,),
        "n00000100/b.JPEG": (3,),
    }
    touch(root, "n00000005/c.JPEG")
    with pytest.raises(
        ConfigError, match="1 class folders are not among the 4 synsets, e.g. n00000005"
    ):
        open_dataset("imagenet", str(root), 4, synsets=synsets)


def test_list_file(tmp_path):
    root = touch(tmp_path, "val/b.JPEG", "val/a.JPEG")
    (root / "val_list.txt").write_text("val/b.JPEG 3\nval/a.JPEG 1\n")
    expected = {"val/b.JPEG": (3,), "val/a.JPEG": (1,)}
    # PaddleClas's layout is found
    assert pairs(open_dataset("imagenet", str(root), 4)) == expected
    (root / "val_list.txt").rename(root / "other.txt")
    assert pairs(open_dataset("imagenet", str(root), 4, labels=str(root / "other.txt"))) == expected
    (root / "other.txt").write_text("val/b.JPEG 4\n")
    with pytest.raises(ConfigError, match="other.txt:1: label 4 is out of range"):
        open_dataset("imagenet", str(root), 4, labels=str(root / "other.txt"))
    (root / "other.txt").write_text("b.JPEG 1\n")
    with pytest.raises(
        FileNotFoundError, match="b.JPEG: no such file, and it is the first of the list"
    ):
        open_dataset("imagenet", str(root), 4, labels=str(root / "other.txt"))
    (root / "other.txt").write_text("val/b.JPEG 1\nval/b.JPEG 2\n")
    with pytest.raises(ConfigError, match="1 images are listed twice"):
        open_dataset("imagenet", str(root), 4, labels=str(root / "other.txt"))


def devkit(folder, table=True):
    """Devkit ids 1 to 4 in an order of their own; images 1 to 5 are of the ids 4 2 1 3 2."""
    folder.mkdir(parents=True)
    (folder / GROUND_TRUTH).write_text("4\n2\n1\n3\n2\n")
    if table:
        (folder / "map_clsloc.txt").write_text(
            "n00000100 1 otter\nn00000003 2 kit_fox\nn00000012 3 hen\nn00000007 4 snail\n"
        )
    return folder


def test_devkit(tmp_path):
    """id 4 -> n00000007 -> class 1, id 2 -> n00000003 -> 0, id 1 -> n00000100 -> 3, id 3 ->
    n00000012 -> 2.
    """
    root = touch(tmp_path / "val", *(validation(number) for number in (5, 1, 2, 4, 3)))
    expected = {
        validation(1): (1,),
        validation(2): (0,),
        validation(3): (3,),
        validation(4): (2,),
        validation(5): (0,),
    }
    folder = devkit(tmp_path / "devkit" / "data")
    for labels in (folder, folder.parent, folder / GROUND_TRUTH):
        assert pairs(open_dataset("imagenet", str(root), 4, labels=str(labels))) == expected
    # images 3 to 5 are not of this devkit
    (folder / GROUND_TRUTH).write_text("4\n2\n")
    with pytest.raises(
        ConfigError,
        match="00000003.JPEG: expected ILSVRC2012_val_00000001.JPEG to "
        "ILSVRC2012_val_00000002.JPEG",
    ):
        open_dataset("imagenet", str(root), 4, labels=str(folder))
    (folder / GROUND_TRUTH).write_text("4\n5\n")
    with pytest.raises(
        ConfigError, match=f"{GROUND_TRUTH}:2: expected a class id from 1 to 4, got '5'"
    ):
        open_dataset("imagenet", str(root), 4, labels=str(folder))


def test_devkit_with_matlab_file(tmp_path):
    """Above the classes, meta.mat has their groups, with higher ids."""
    savemat = pytest.importorskip("scipy.io").savemat
    folder = devkit(tmp_path / "data", table=False)
    synsets = np.array(
        [(1, "n00000100"), (2, "n00000003"), (3, "n00000012"), (4, "n00000007"), (5, "n00009999")],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")],
    )
    savemat(folder / "meta.mat", {"synsets": synsets})
    root = touch(tmp_path / "val", *(validation(number) for number in range(1, 6)))
    assert [
        label for (label,) in open_dataset("imagenet", str(root), 4, labels=str(folder)).labels
    ] == [1, 0, 3, 2, 0]
    (folder / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file, no" + bytes(200))
    with pytest.raises(ConfigError, match="meta.mat: not the devkit's meta.mat"):
        open_dataset("imagenet", str(root), 4, labels=str(folder))


def test_devkit_ids_are_not_guessed(tmp_path):
    root, folder = touch(tmp_path / "val", validation(1)), devkit(tmp_path / "data", table=False)
    with pytest.raises(FileNotFoundError, match="neither meta.mat nor map_clsloc.txt"):
        open_dataset("imagenet", str(root), 4, labels=str(folder))
    (folder / "map_clsloc.txt").write_text("n00000100 1 otter\nn00000003 2 kit_fox\n")
    with pytest.raises(ConfigError, match="should name 4 classes with the ids 1 to 4; it names 2"):
        open_dataset("imagenet", str(root), 4, labels=str(folder))
    (folder / "map_clsloc.txt").write_text("n00000100 1 otter\nn00000003 1 kit_fox\n")
    with pytest.raises(
        ConfigError, match="map_clsloc.txt:2: expected `wnid id name` with a new id"
    ):
        open_dataset("imagenet", str(root), 4, labels=str(folder))


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("map_clsloc.txt", f"n00000100 {'9' * 5000} otter\n", "map_clsloc.txt:1: expected `wnid"),
        (GROUND_TRUTH, "4\n" + "9" * 5000, "ground_truth.txt:2: expected a class id from 1 to 4"),
        ("map_clsloc.txt", "\x1b[31m" * 10**5, "map_clsloc.txt:1: expected `wnid id name`"),
    ],
)
def test_a_damaged_devkit_is_told_in_a_line(tmp_path, name, text, message):
    root, folder = touch(tmp_path / "val", validation(1)), devkit(tmp_path / "data")
    (folder / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        open_dataset("imagenet", str(root), 4, labels=str(folder))
    assert_one_line(error.value)


def test_a_devkit_s_table_has_a_limit(tmp_path):
    pytest.importorskip("scipy", reason="needs the extra `devkit`")
    root, folder = touch(tmp_path / "val", validation(1)), devkit(tmp_path / "data", table=False)
    (folder / "meta.mat").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(ConfigError, match="meta.mat: 1048577 bytes are more than the limit"):
        open_dataset("imagenet", str(root), 4, labels=str(folder))


@pytest.mark.parametrize(
    "names, message",
    [
        (
            ["train/n00000003/a.JPEG", "val/n00000003/a.JPEG"],
            "the folder 'train' is neither a WordNet id .* one level deeper",
        ),
        (["a.JPEG"], "no class folders; for images in one folder give labels"),
        ([f"{wnid}/a.txt" for wnid in WNIDS], "no images in the class folders"),
        (
            ["0/a.JPEG", "1/a.JPEG", "2/a.JPEG", "4/a.JPEG"],
            "4 folders named by class number; expected 0 to 3, each once",
        ),
    ],
)
def test_layouts_that_are_refused(tmp_path, names, message):
    with pytest.raises(ConfigError, match=message):
        open_dataset("imagenet", str(touch(tmp_path, *names)), 4)


def test_arguments_that_are_refused(tmp_path, synsets):
    with pytest.raises(
        ConfigError, match="unknown set 'o'. Expected one of: imagenet, a, r, v2, sketch, c, real."
    ):
        open_dataset("o", str(tmp_path), 4)
    with pytest.raises(
        FileNotFoundError, match="nowhere: no such folder; expected the images of ImageNet-R"
    ):
        open_dataset("r", str(tmp_path / "nowhere"), 4)
    with pytest.raises(ConfigError, match="set real: .*which needs it"):
        open_dataset("real", str(tmp_path), 4)
    with pytest.raises(ConfigError, match="set v2: labels belong to the set imagenet"):
        open_dataset("v2", str(tmp_path), 4, labels="list.txt")


def test_synsets(tmp_path, synsets):
    # sorted, whatever the file's order
    assert read_synsets(synsets, 4) == WNIDS
    assert (
        read_synsets(touch(tmp_path / "train", *(f"{wnid}/a.JPEG" for wnid in WNIDS)), 4) == WNIDS
    )
    for text, message in (
        ("n00000003\nn00000007\n", "expected 4 different WordNet ids, got 2 in 2 entries"),
        ("n00000003\n" * 4, "expected 4 different WordNet ids, got 1 in 4 entries"),
        ("tench\n", "expected WordNet ids such as n01440764, got 'tench'"),
    ):
        synsets.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_synsets(synsets, 4)
    with pytest.raises(FileNotFoundError, match="none.txt: no such file"):
        read_synsets(tmp_path / "none.txt", 4)


# Robustness variants


@pytest.fixture
def two_folders(monkeypatch):
    """ImageNet-A and -R with two classes in place of 200."""
    for kind in ("a", "r"):
        monkeypatch.setitem(
            PUBLISHED_DATASETS, kind, dataclasses.replace(PUBLISHED_DATASETS[kind], subset=2)
        )


@pytest.mark.parametrize("kind", ["a", "r"])
def test_subsets_choose_among_their_own_classes(kind, tmp_path, synsets, two_folders):
    root = touch(tmp_path / "set", "n00000012/a.jpg", "n00000007/b.jpg", "README.txt")
    with pytest.raises(ConfigError, match="2 class folders, the model has 4 classes"):
        open_dataset(kind, str(root), 4)
    images = open_dataset(kind, str(root), 4, synsets=synsets)
    assert pairs(images) == {
        "n00000007/b.jpg": (1,),
        "n00000012/a.jpg": (2,),
    } and images.classes == [1, 2]
    touch(root, "n00000003/c.jpg")
    with pytest.raises(
        ConfigError,
        match=r"3 class folders; ImageNet-.* has 2, and the model chooses among all of them",
    ):
        open_dataset(kind, str(root), 4, synsets=synsets)


def grey(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 40), value).save(path)


def pipeline():
    return [
        {"DecodeImage": {}},
        {"NormalizeImage": {"scale": 1 / 255, "mean": [0, 0, 0], "std": [1, 1, 1], "order": ""}},
    ]


def test_logits_of_absent_classes_are_ignored(tmp_path, synsets, two_folders):
    """Class 0 always wins and is not in the dataset; of classes 1 and 2 the brightness decides:
    dark is 1.
    """
    for name, value in (
        ("n00000007/dark.png", 10),
        ("n00000007/light.png", 240),
        ("n00000012/light.png", 250),
    ):
        grey(tmp_path / "set" / name, value)
    images = open_dataset("a", str(tmp_path / "set"), 4, synsets=synsets)

    def model(batch):
        mean = batch.mean(axis=[1, 2, 3])
        return paddle.stack([mean * 0 + 9, 1 - mean, mean, mean * 0 + 8], axis=1)

    predictions = predict_images(model, images, pipeline(), tmp_path / "p.jsonl", {}, batch_size=2)
    assert predictions == [[1, 2], [2, 1], [2, 1]]
    assert score(images, predictions) == {"top1": pytest.approx(200 / 3), "top5": 100}


def test_v2_folders_are_numbers_not_strings(tmp_path):
    root = touch(tmp_path, *(f"{number}/a.jpeg" for number in range(12)))
    # as strings 10 and 11 would come before 2
    images = open_dataset("v2", str(root), 12)
    assert (
        pairs(images) == {f"{number}/a.jpeg": (number,) for number in range(12)}
        and images.classes is None
    )


def test_sketch_has_all_classes(tmp_path):
    root = touch(tmp_path, *(f"{wnid}/s.JPEG" for wnid in WNIDS))
    assert [label for (label,) in open_dataset("sketch", str(root), 4).labels] == [0, 1, 2, 3]


def test_real_labels(tmp_path):
    """Image 2 has no label and is left out; image 3 has two, either of which is right. Folders do
    not matter.
    """
    root = touch(
        tmp_path / "val",
        f"n00000003/{validation(4)}",
        f"n00000007/{validation(1)}",
        validation(3),
        validation(2),
    )
    (tmp_path / "real.json").write_text("[[1], [], [0, 2], [3]]")
    images = open_dataset("real", str(root), 4, real=tmp_path / "real.json")
    assert pairs(images) == {
        f"n00000007/{validation(1)}": (1,),
        validation(3): (0, 2),
        f"n00000003/{validation(4)}": (3,),
    }
    assert images.notes == ("1 images without a ReaL label are left out",)
    assert score(images, [[1, 0], [2, 3], [0, 3]]) == {"top1": pytest.approx(200 / 3), "top5": 100}
    assert score(images, [[0, 2], [3, 1], [0, 2]]) == {"top1": 0, "top5": 0}


@pytest.mark.parametrize(
    "content, message",
    [
        ("[[4]]", "the list of its classes 0 to 3"),
        ("[1, 2]", "expected a JSON list"),
        ("{}", "expected a JSON list"),
        ("[[1]", "not JSON"),
        ("[[true]]", "expected a JSON list"),
        ("[[]]", "no image below .* has a label"),
    ],
)
def test_bad_real_labels(tmp_path, content, message):
    touch(tmp_path / "val", validation(1))
    (tmp_path / "real.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        open_dataset("real", str(tmp_path / "val"), 4, real=tmp_path / "real.json")


def test_real_labels_need_the_number_in_the_name(tmp_path):
    (tmp_path / "real.json").write_text("[[1], [2]]")
    touch(tmp_path / "val", "one/" + validation(1), "two/" + validation(1))
    with pytest.raises(ConfigError, match="1 validation numbers occur twice"):
        open_dataset("real", str(tmp_path / "val"), 4, real=tmp_path / "real.json")
    touch(tmp_path / "val", "cat.JPEG")
    with pytest.raises(
        ConfigError,
        match="cat.JPEG: expected ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00000002.JPEG",
    ):
        open_dataset("real", str(tmp_path / "val"), 4, real=tmp_path / "real.json")


# ImageNet-C


def corrupted(root, prefix=""):
    """Two classes, one image each, in all 75 folders, and an extra corruption that does not
    count.
    """
    return touch(
        root,
        *(
            f"{prefix}{corruption}/{severity}/{wnid}/a.JPEG"
            for corruption in (*CORRUPTIONS, "speckle_noise")
            for severity in SEVERITIES
            for wnid in WNIDS[:2]
        ),
    )


@pytest.mark.parametrize("prefix", ["", "part/"])
def test_corrupted_images(tmp_path, prefix):
    images = open_dataset("c", str(corrupted(tmp_path, prefix)), 2)
    assert len(images) == 15 * 5 * 2 and len(set(images.groups)) == 75
    where = images.names.index(f"{prefix}fog/3/n00000007/a.JPEG")
    assert images.labels[where] == (1,) and images.groups[where] == "fog/3"


def test_mean_corruption_error_by_hand(tmp_path):
    """Wrong: one of two images at fog severities 3 and 4, both at snow severity 5. CE(fog) = (50 +
    50) / 5 / 0.819324, CE(snow) = 100 / 5 / 0.866816."""
    images = open_dataset("c", str(corrupted(tmp_path)), 2)
    predictions = [list(labels) for labels in images.labels]
    for index, (group, labels) in enumerate(zip(images.groups, images.labels, strict=True)):
        if group == "snow/5" or (group in ("fog/3", "fog/4") and labels == (0,)):
            predictions[index] = [1 - labels[0]]
    figures = score(images, predictions)
    assert (
        figures["errors"]["fog/3"] == 50
        and figures["errors"]["snow/5"] == 100
        and figures["errors"]["fog/5"] == 0
    )
    assert figures["ce"]["fog"] == pytest.approx(24.4104, abs=1e-4) and figures["ce"][
        "snow"
    ] == pytest.approx(23.0730, abs=1e-4)
    assert figures["mce"] == pytest.approx((24.4104 + 23.0730) / 15, abs=1e-4)
    assert figures["top1"] == pytest.approx(100 * 146 / 150)


def test_incomplete_corruptions_have_no_mean(tmp_path):
    root = corrupted(tmp_path)
    images = open_dataset("c", str(root), 2)
    with pytest.raises(ConfigError, match="no images of 74 corruptions, e.g. gaussian_noise/2"):
        score(images.thinned(1), [[0]])
    (root / "fog" / "3").rename(root / "fog" / "three")
    with pytest.raises(
        ConfigError, match=r"15 corruptions at 5 severities .*; 1 are missing: fog/3"
    ):
        open_dataset("c", str(root), 2)
    (root / "fog" / "three").rename(root / "fog" / "3")
    touch(root, "weather/fog/1/n00000003/a.JPEG")
    with pytest.raises(ConfigError, match="fog is there twice, as fog and weather/fog"):
        open_dataset("c", str(root), 2)


def test_alexnet_normalisers():
    """Errors of AlexNet per severity, as published apart from the means; so AlexNet's own mCE is
    100.
    """
    severities = """
        0.69528 0.82542 0.93554 0.98138 0.99452  0.71224 0.85108 0.93574 0.98182 0.99146  0.78374 0.89808 0.94870 0.98720 0.99548
        0.65624 0.73202 0.85036 0.91364 0.94714  0.64308 0.75054 0.88806 0.91622 0.93344  0.58430 0.70048 0.82108 0.89750 0.92638
        0.70008 0.76992 0.80784 0.84198 0.87198  0.71726 0.88392 0.86468 0.91870 0.94952  0.61390 0.79734 0.88790 0.89942 0.93430
        0.67474 0.76050 0.84378 0.87260 0.94500  0.45140 0.48502 0.54048 0.62166 0.72440  0.64548 0.76150 0.88874 0.97760 0.99270
        0.52596 0.70116 0.55686 0.64076 0.80554  0.52218 0.54620 0.73728 0.87092 0.91262  0.51002 0.54718 0.57294 0.65458 0.74778"""
    errors = dict(
        zip(
            (f"{c}/{s}" for c in CORRUPTIONS for s in SEVERITIES),
            (100 * float(value) for value in severities.split()),
            strict=True,
        )
    )
    ce, mce = corruption_errors(errors)
    assert list(ce.values()) == pytest.approx([100] * 15, abs=1e-9) and mce == pytest.approx(100)
    assert len(ALEXNET_ERROR) == 15


@pytest.mark.parametrize(
    "corruption, top1, ce",
    [
        ("brightness", 68.02, 56.64),
        ("contrast", 39.06, 71.43),
        ("defocus_blur", 38.75, 74.71),
        ("elastic_transform", 45.25, 84.75),
        ("frost", 38.14, 74.84),
        ("gaussian_noise", 29.29, 79.77),
        ("impulse_noise", 23.81, 82.58),
    ],
)
def test_corruption_error_of_resnet50(corruption, top1, ce):
    """Published pairs for torchvision's ResNet-50: mean top-1 over the severities, and CE."""
    assert (100 - top1) / ALEXNET_ERROR[corruption] == pytest.approx(ce, abs=0.01)


# Scores and parts


def test_accuracy_by_hand():
    predictions, labels = (
        [[0, 1, 2, 3, 4, 5], [3, 0, 1, 2, 4, 5], [5, 4, 3, 2, 1, 0], [1, 2, 3, 4, 5, 0]],
        [(0,), (0,), (0,), (1,)],
    )
    assert accuracy(predictions, labels) == 50 and accuracy(predictions, labels, top=5) == 75
    assert per_class(predictions, labels) == {0: pytest.approx(100 / 3), 1: 100}
    assert per_class([[2], [1], [3]], [(0, 2), (0, 2), (3,)]) == {0: 50, 3: 100}


def test_a_limit_is_spread_over_the_classes(tmp_path):
    images = open_dataset(
        "imagenet",
        str(touch(tmp_path, *(f"{wnid}/{i}.JPEG" for wnid in WNIDS for i in range(5)))),
        4,
    )
    part = images.thinned(4)
    assert (
        part.labels == [(0,), (1,), (2,), (3,)]
        and part.notes == ("4 of 20 images",)
        and images.thinned(50) is images
    )
    with pytest.raises(ValueError, match="expected 1 or more images, got 0"):
        images.thinned(0)


def test_complete_is_the_published_count(tmp_path, monkeypatch):
    images = open_dataset(
        "imagenet", str(touch(tmp_path, *(f"{wnid}/a.JPEG" for wnid in WNIDS))), 4
    )
    assert not images.complete
    four = dataclasses.replace(PUBLISHED_DATASETS["imagenet"], images=4)
    monkeypatch.setitem(PUBLISHED_DATASETS, "imagenet", four)
    assert images.complete and not images.thinned(2).complete
    assert {kind: known.images for kind, known in PUBLISHED_DATASETS.items()} == {
        "imagenet": 4,
        "a": 7500,
        "r": 30000,
        "v2": 10000,
        "sketch": 50889,
        "c": 3_750_000,
        "real": 46837,
        "coco": 5000,
        "ade20k": 2000,
        "ade20k-ms": 2000,
        "ade20k-ms-interpolation": 2000,
    }
    assert PUBLISHED_DATASETS["a"].subset == PUBLISHED_DATASETS["r"].subset == 200
