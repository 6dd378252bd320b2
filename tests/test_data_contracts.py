"""Every dataset, sampler and transform of the registries keeps the contract of its kind."""

import copy

import numpy as np
import pytest
from PIL import Image

from support.annotated_example import example
from support.paths import NUCLEI, ROOT

pytest.importorskip("pycocotools.mask", reason="needs the extra `det`")
pytest.importorskip("cv2", reason="needs the extra `cv2`")

from ppcls_nextvit.data import (  # noqa: E402
    BATCH_TRANSFORMS,
    DATASETS,
    JOINT_TRANSFORMS,
    SAMPLERS,
    TRANSFORMS,
)
from ppcls_nextvit.data.datasets.classification import ImageFolder  # noqa: E402
from ppcls_nextvit.data.datasets.registry import Dataset  # noqa: E402
from ppcls_nextvit.data.samplers import Sampler  # noqa: E402
from ppcls_nextvit.data.shards import make_shards  # noqa: E402
from ppcls_nextvit.data.transforms.registry import ChangesSize  # noqa: E402

FASHION = ROOT / "dataset" / "fashion_mnist"
CLASSIFIED = [
    {"DecodeImage": None},
    {"RandomResizedCrop": {"size": 16}},
    {"NormalizeImage": {"order": ""}},
]
ANNOTATED = [
    {"RandomCrop": {"size": [40, 48]}},
    {"RandomFlip": None},
    {"Normalize": None},
    {"Pad": {"size": [64, 64]}},
]
LISTED = "images/training/0_0.png annotations/training/0_0.png\n"

# by name: number of classes, keys
DATASET_EXAMPLES = {
    "ImageNetDataset": (
        10,
        {
            "image_root": str(FASHION / "images.zip"),
            "cls_label_path": str(FASHION / "test_list.txt"),
            "transform_ops": CLASSIFIED,
            "batch_transform_ops": [{"TimmMixup": None}],
        },
    ),
    "ImageFolder": (2, {"image_root": str(NUCLEI / "images"), "transform_ops": CLASSIFIED}),
    "ImageShards": (2, {"image_root": "shards", "transform_ops": CLASSIFIED}),
    "COCODataset": (
        1,
        {
            "image_root": str(NUCLEI / "images" / "training"),
            "annotation_path": str(NUCLEI / "instances_training.json"),
            "mode": "train",
            "transform_ops": ANNOTATED,
        },
    ),
    "ADE20KDataset": (
        2,
        {
            "dataset_root": str(NUCLEI),
            "mode": "train",
            "reduce_zero_label": False,
            "transform_ops": ANNOTATED,
        },
    ),
    "MultiLabelDataset": (
        3,
        {
            "image_root": str(NUCLEI),
            "cls_label_path": "several.txt",
            "label_ratio": True,
            "transform_ops": CLASSIFIED,
        },
    ),
    "SegmentationDataset": (
        2,
        {
            "dataset_root": str(NUCLEI),
            "list_path": "list.txt",
            "mode": "train",
            "transform_ops": ANNOTATED,
        },
    ),
}
SAMPLER_EXAMPLES = {
    "DistributedBatchSampler": {"shuffle": True},
    "RASampler": {"shuffle": True},
    "AspectRatioSampler": {},
    "IterationSampler": {"iterations": 5},
    "WindowSampler": {"run": 4, "window": 20},
}
# of an image: uint8, or float32 for those after NormalizeImage
TRANSFORM_EXAMPLES = {
    "DecodeImage": None,
    "ResizeImage": {"size": [20, 30], "backend": "pil"},
    "CropImage": {"size": 24},
    "NormalizeImage": {"order": ""},
    "ToCHWImage": {},
    "RandomResizedCrop": {"size": 24},
    "RandCropImage": {"size": 24, "backend": "pil"},
    "RandCropImageV2": {"size": 24},
    "RandFlipImage": {},
    "RandomHorizontalFlip": {},
    "Pad": {"padding": 3},
    "TimmAutoAugment": {},
    "ColorJitter": {"brightness": 0.4, "hue": 0.1},
    "RandomErasing": {"EPSILON": 1.0},
}
JOINT_EXAMPLES = {
    "Resize": {"scale": [[90, 60], [80, 50]]},
    "RandomFlip": {},
    "RandomCrop": {"size": [40, 50]},
    "AutoAugment": {"policies": [[{"Resize": {"scale": [90, 60]}}], [{"RandomFlip": None}]]},
    "PhotoMetricDistortion": {},
    "Normalize": {},
    "Pad": {"size_divisor": 32},
}
BATCH_EXAMPLES = {
    "MixupOperator": {},
    "CutmixOperator": {},
    "TimmMixup": {},
    "OpSampler": {"MixupOperator": {"prob": 1.0}},
}


@pytest.mark.parametrize(
    "registry, examples",
    [
        (DATASETS, DATASET_EXAMPLES),
        (SAMPLERS, SAMPLER_EXAMPLES),
        (TRANSFORMS, TRANSFORM_EXAMPLES),
        (JOINT_TRANSFORMS, JOINT_EXAMPLES),
        (BATCH_TRANSFORMS, BATCH_EXAMPLES),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_every_entry_has_an_example(registry, examples):
    ours = {name for name in registry if registry.get(name).__module__.startswith("ppcls_nextvit.")}
    assert ours == set(examples)


def same(first, second):
    return first.keys() == second.keys() and all(
        np.array_equal(first[key], second[key]) for key in first
    )


@pytest.mark.parametrize("name", DATASET_EXAMPLES)
def test_datasets(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "several.txt").write_text("images/training/0_0.png\t1,0,1\n" * 3)
    (tmp_path / "list.txt").write_text(LISTED * 3)
    folders = ImageFolder(None, image_root=str(NUCLEI / "images"))
    make_shards(folders, range(len(folders)), "shards")
    class_num, arguments = DATASET_EXAMPLES[name]
    DATASETS.get(name).check(DATASETS.check(name, arguments, "here"), "Train", "here")
    data = DATASETS.build(name, arguments, "here", class_num)
    assert isinstance(data, Dataset) and len(data) > 2 and data.sample_bytes > 0
    assert data.name(2).startswith((str(NUCLEI), str(FASHION), "shards/"))

    def samples(seed):
        return [data.load(index, np.random.default_rng((seed, index))) for index in range(3)]

    first, again, other = samples(0), samples(0), samples(1)
    # a sample is a function of its number and the generator
    assert all(map(same, first, again)) and not all(map(same, first, other))
    batch = data.collate(first, np.random.default_rng(0))
    assert all(isinstance(array, np.ndarray) for array in batch.values())
    assert batch["image"].shape[:2] == (3, 3) and batch["image"].dtype == np.float32


class Sized(list):
    """A dataset of 50 images of which every third is high."""

    def __init__(self):
        super().__init__(range(50))
        self.aspect_ratios = np.array([0.75 if number % 3 == 0 else 1.5 for number in self])


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("name", SAMPLER_EXAMPLES)
def test_samplers(name, world):
    arguments = {"batch_size": 4, **SAMPLER_EXAMPLES[name]}
    ranks = [
        SAMPLERS.build(name, arguments, "here", Sized(), rank, world, 0, True)
        for rank in range(world)
    ]
    places = []
    for sampler in ranks:
        assert isinstance(sampler, Sampler)
        indices, occurrences = sampler.order(1)
        assert indices.dtype == occurrences.dtype == np.int64
        assert len(indices) == len(occurrences) > 4 * (len(sampler) - 1)
        assert indices.min() >= 0 and indices.max() < 50
        # of the epoch alone
        assert all(map(np.array_equal, (indices, occurrences), sampler.order(1)))
        assert not np.array_equal(indices, sampler.order(2)[0])
        places += zip(indices.tolist(), occurrences.tolist(), strict=True)
    # all processes take as many steps, and none repeats the augmentation of another
    assert len({len(sampler) for sampler in ranks}) == 1
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", TRANSFORM_EXAMPLES)
def test_transforms(name):
    if name == "DecodeImage":
        source = (NUCLEI / "images" / "training" / "0_0.png").read_bytes()
    else:
        source = example()["image"]
        source = source.astype(np.float32) if name == "RandomErasing" else source
    transform = TRANSFORMS.build(name, TRANSFORM_EXAMPLES[name], "here")

    def result(seed):
        image = transform(copy.copy(source), np.random.default_rng(seed))
        assert isinstance(image, (Image.Image, np.ndarray))
        return np.asarray(image)

    assert result(0).ndim == 3 and np.array_equal(result(0), result(0))


@pytest.mark.parametrize("name", JOINT_EXAMPLES)
def test_joint_transforms(name):
    transform = JOINT_TRANSFORMS.build(name, JOINT_EXAMPLES[name], "here")
    sample = example()

    def result(seed):
        return transform(sample, np.random.default_rng(seed))

    results = [result(seed) for seed in range(12)]
    assert same(results[3], result(3)) and same(sample, example())
    assert any(not same(results[0], other) for other in results) == transform.random
    if isinstance(transform, ChangesSize):
        assert max(r["image"].shape[0] * r["image"].shape[1] for r in results) <= (
            transform.max_pixels(96 * 128)
        )
    for r in results:
        size = r["image"].shape[:2]
        assert r["masks"].shape[1:] == r["segmentation"].shape == size
        assert len(r["boxes"]) == len(r["labels"]) == len(r["masks"])


@pytest.mark.parametrize("name", BATCH_EXAMPLES)
def test_batch_transforms(name):
    image = np.random.default_rng(0).random((4, 3, 8, 8), np.float32)
    mix = BATCH_TRANSFORMS.build(name, BATCH_EXAMPLES[name], "here")

    def result(seed):
        return mix({"image": image.copy(), "label": np.arange(4)}, np.random.default_rng(seed))

    mixed = result(2)
    assert same(mixed, result(2)) and set(mixed) == {"image", "label", "label_b", "lam"}
    assert mixed["image"].shape == image.shape and mixed["image"].dtype == np.float32
    assert mixed["lam"].dtype == np.float32 and ((0 <= mixed["lam"]) & (mixed["lam"] <= 1)).all()
    assert set(mixed["label_b"]) <= set(range(4))
