"""deploy/cpp: evaluation's pixels bit for bit, Python's predictions, one-line errors; built against
the installed paddle's own library.
"""

import itertools
import json
import os
import re
import shutil
import struct
import sys
import zlib

import numpy as np
import paddle
import PIL
import pytest
import yaml
from PIL import Image

from ppcls_nextvit import startup
from ppcls_nextvit.data.transforms.pipeline import Preprocess
from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.tasks.classification.export import export_classifier
from ppcls_nextvit.weights.digest import sha256_of
from support import cpp_programs
from support.goldens import seeded_model
from support.paths import ROOT
from support.pictures import clothes, varied_pictures
from support.programs import program_at
from support.random_models import random_weights, small_transnext
from support.tiny_run import write_config
from test_deploy_python import CHW, DECODE, PIPELINES, resize
from test_preprocess import encoded, noise, png_of

pytestmark = pytest.mark.slow  # the programs are built first
PHOTOS = ROOT / "ppcls_nextvit" / "export" / "photos"
PIXELS = [DECODE, CHW]
THREADS = (startup.THREADS, startup.CHOSEN)


def programs():
    return cpp_programs.build("deploy/cpp", "-DPADDLE_WHEEL=ON")


def classify(*arguments):
    return cpp_programs.run(f"{programs()}/classify", *arguments)


def describe(path, transforms, pillow=PIL.__version__, classes=("a", "b"), **model):
    """An inference.yml that `preprocess` reads: these transforms, and of the rest what must be
    there.
    """
    path.write_text(
        yaml.safe_dump(
            {
                "PreProcess": {"transform_ops": Preprocess(transforms).describe()},
                "Versions": {"pillow": pillow},
                "Files": {},
                "Model": {
                    "class_num": len(classes),
                    "softmax": True,
                    "input": {"min_size": 1, "shape": [None, 3, None, None]},
                    **model,
                },
                "PostProcess": {"Topk": {"topk": 1, "label_list": list(classes)}},
            }
        )
    )
    return path


def preprocessed(yml, image, folder=None):
    """The program's output for an image, float32 [3, H, W]."""
    done = cpp_programs.run(f"{folder or programs()}/preprocess", yml, image, text=False)
    assert done.returncode == 0, done.stderr
    height, width = map(int, done.stderr.split())
    return np.frombuffer(done.stdout, np.float32).reshape(3, height, width)


def pixels(data, tmp_path, name="image"):
    """An image file's contents as the program decodes them, uint8 [H, W, 3]."""
    (tmp_path / name).write_bytes(data)
    return (
        preprocessed(describe(tmp_path / "pixels.yml", PIXELS), tmp_path / name)
        .transpose(1, 2, 0)
        .astype(np.uint8)
    )


def assert_pixels(data, tmp_path):
    assert np.array_equal(pixels(data, tmp_path), Preprocess(PIXELS)(data).transpose(1, 2, 0))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Every kind of JPEG and PNG, and real photos."""
    folder = varied_pictures(tmp_path_factory.mktemp("pictures"))
    for path in [path for path in folder.iterdir() if path.suffix not in (".jpg", ".png")]:
        path.unlink()
    for path in PHOTOS.glob("*.jpg"):
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("name", [name for name in PIPELINES if "OpenCV" not in name])
def test_preprocessing_is_that_of_evaluation_bit_for_bit(pictures, tmp_path, name):
    ours, yml = Preprocess(PIPELINES[name]), describe(tmp_path / "i.yml", PIPELINES[name])
    files = sorted(pictures.iterdir())
    assert len(files) == 15
    for file in files:
        expected, got = ours(str(file)), preprocessed(yml, file)
        assert got.shape == expected.shape and got.tobytes() == expected.tobytes(), file.name


SIZES = [
    (90, 40, 30, 20),
    (40, 90, 20, 40),
    (40, 90, 20, 50),
    (40, 90, 20, 49),
    (3, 300, 24, 24),
    (3, 301, 24, 24),
    (3, 301, 24, 400),
    (50, 50, 60, 49),
]


@pytest.mark.parametrize(
    "pillow, vertical_first",
    [
        ("10.1.0", lambda w, h, width, height: False),
        ("12.2.0", lambda w, h, width, height: h > 100 * w and height < h),
        ("13.0.0", lambda w, h, width, height: h - height > max(2 * (w - width), 0)),
    ],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_order_of_the_passes_is_that_of_the_exporter_s_pillow(
    tmp_path, pillow, vertical_first, interpolation
):
    """Pillow changed it twice; single pixels differ by 1. Single passes, which all versions agree
    on, make the expected result.
    """
    orders = set()
    for w, h, width, height in SIZES:
        image, by = Image.fromarray(noise(h, w)), Image.Resampling[interpolation.upper()]
        order = (
            [(w, height), (width, height)]
            if vertical_first(w, h, width, height)
            else [(width, h), (width, height)]
        )
        expected = np.asarray(image.resize(order[0], by).resize(order[1], by))
        image.save(tmp_path / "a.png")
        yml = describe(
            tmp_path / "i.yml",
            [DECODE, resize(size=[width, height], interpolation=interpolation), CHW],
            pillow,
        )
        assert np.array_equal(preprocessed(yml, tmp_path / "a.png").transpose(1, 2, 0), expected), (
            w,
            h,
            width,
            height,
        )
        orders.add(order[0][0] == w)
    assert len(orders) == (1 if pillow == "10.1.0" else 2)
    if PIL.__version__ == pillow:
        assert np.array_equal(expected, np.asarray(image.resize((width, height), by)))


def test_opencv_where_a_model_asks_for_it(pictures, tmp_path):
    cv2 = pytest.importorskip("cv2")
    folder = cpp_programs.build("deploy/cpp", "-DWITH_OPENCV=ON", optional=True)
    for interpolation in ("nearest", "bilinear", "area", "bicubic", "lanczos"):
        transforms = [DECODE, resize("cv2", resize_short=48, interpolation=interpolation), CHW]
        ours, yml = Preprocess(transforms), describe(tmp_path / "i.yml", transforms)
        # OpenCV's own versions differ by 1 at times
        for file in sorted(pictures.iterdir()):
            assert np.abs(preprocessed(yml, file, folder) - ours(str(file))).max() <= 1, (
                file.name,
                interpolation,
                cv2.__version__,
            )


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": s, "quality": q, "progressive": p}
        for s, q, p in itertools.product((0, 1, 2), (30, 95), (False, True))
    ]
    + [{"keep_rgb": True}, {"optimize": True, "restart_marker_rows": 1}],
)
def test_jpeg_of_every_kind(tmp_path, options):
    with Image.open(PHOTOS / "dog_243.jpg") as photo:
        for size in ((320, 320), (47, 91), (1, 1), (16, 3), (9, 33)):
            assert_pixels(encoded(photo.resize(size), "jpeg", **options), tmp_path)


def test_jpeg_in_four_inks(tmp_path):
    for color in itertools.product((0, 100, 255), repeat=4):
        assert_pixels(encoded(Image.new("CMYK", (8, 8), color), "jpeg", quality=95), tmp_path)


def png(values, bits, color_type, interlaced=False, palette=b"", chunks=b""):
    """A PNG of `values`, [H, W] or [H, W, channels]. Interlaced for whole bytes only."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    def rows(part):
        part = part.reshape(part.shape[0], -1)
        if bits < 8:
            part = np.packbits(
                (part[:, :, None] >> np.arange(bits)[::-1] & 1).astype(bool).reshape(len(part), -1),
                axis=1,
            )
        return b"".join(
            b"\0" + row.astype(">u2" if bits == 16 else np.uint8).tobytes() for row in part
        )

    adam7 = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    grids = adam7 if interlaced else [(0, 0, 1, 1)]
    parts = [values[y::dy, x::dx] for y, x, dy, dx in grids]
    header = struct.pack(
        ">IIBBBBB", values.shape[1], values.shape[0], bits, color_type, 0, 0, interlaced
    )
    body = zlib.compress(b"".join(rows(part) for part in parts if part.size))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"PLTE", palette) if palette else b"")
        + chunks
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "bits, color_type, channels",
    [
        (1, 0, 1),
        (2, 0, 1),
        (4, 0, 1),
        (8, 0, 1),
        (16, 0, 1),
        (8, 2, 3),
        (16, 2, 3),
        (1, 3, 1),
        (2, 3, 1),
        (4, 3, 1),
        (8, 3, 1),
        (8, 4, 2),
        (16, 4, 2),
        (8, 6, 4),
        (16, 6, 4),
    ],
)
def test_png_of_every_kind(tmp_path, bits, color_type, channels):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1 << bits, (13, 11) if channels == 1 else (13, 11, channels))
    palette = rng.integers(0, 256, 3 << bits, dtype=np.uint8).tobytes() if color_type == 3 else b""
    assert_pixels(png(values, bits, color_type, False, palette), tmp_path)
    if bits >= 8:
        assert_pixels(png(values, bits, color_type, True, palette), tmp_path)


@pytest.mark.parametrize("orientation", range(10))
def test_orientation_of_exif_and_xmp(tmp_path, orientation):
    plain, exif = Image.fromarray(noise(7, 12)), Image.Exif()
    exif[0x112] = orientation
    xmp = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
        f'tiff:Orientation="{orientation}"/></x:xmpmeta>'
    ).encode()
    big = Image.Exif()
    big.endian = ">"
    big[0x10F], big[0x112] = "maker", orientation
    for data in (
        encoded(plain, "jpeg", exif=exif),
        encoded(plain, "jpeg", exif=big),
        encoded(plain, "png", exif=exif),
        encoded(plain, "jpeg", xmp=xmp),
        encoded(plain, "jpeg", xmp=xmp, exif=exif),
    ):
        assert_pixels(data, tmp_path)
    shape = pixels(encoded(plain, "png", exif=exif), tmp_path).shape
    assert shape == ((12, 7, 3) if 5 <= orientation <= 8 else (7, 12, 3))


JPEG = encoded(Image.fromarray(noise(64, 64)), "jpeg")
PNG = encoded(Image.fromarray(noise(64, 64)))


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "the file is empty"),
        (b"hello, this is no image", "neither JPEG nor PNG"),
        (JPEG[: len(JPEG) // 2], "Premature end"),
        (JPEG[:20], "JPEG: "),
        (JPEG[:-2], "Premature end"),
        (JPEG[:3], "JPEG: "),
        (PNG[:3000], "truncated"),
        (PNG[:20], "truncated"),
        (PNG[:8], "truncated"),
        (PNG[:100] + b"\0\0\0\0" + PNG[104:], "PNG: "),
        (png_of(10_000, 9_000), "10000 x 9000 pixels are more than the limit of 89478485"),
        (png_of(60_000, 60_000), "60000 x 60000 pixels are more than the limit"),
        (
            encoded(Image.new("L", (65_000, 1_400)), "jpeg", quality=1),
            "65000 x 1400 pixels are more than the limit",
        ),
        (encoded(Image.new("L", (9, 9)), "gif"), "neither JPEG nor PNG"),
        (encoded(Image.new("L", (9, 9)), "webp"), "neither JPEG nor PNG"),
    ],
)
def test_bad_images_are_one_line(tmp_path, data, message):
    (tmp_path / "bad.jpg").write_bytes(data)
    done = cpp_programs.run(
        f"{programs()}/preprocess", describe(tmp_path / "i.yml", PIXELS), tmp_path / "bad.jpg"
    )
    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr.startswith(f"error: {tmp_path / 'bad.jpg'}: ")
        and done.stderr.count("\n") == 1
        and message in done.stderr
    )


def test_missing_file_and_folder(tmp_path):
    yml = describe(tmp_path / "i.yml", PIXELS)
    assert (
        "No such file"
        in cpp_programs.run(f"{programs()}/preprocess", yml, tmp_path / "none.jpg").stderr
    )
    assert "Is a directory" in cpp_programs.run(f"{programs()}/preprocess", yml, tmp_path).stderr


def test_one_pixel_wide_image_does_not_fill_the_memory(tmp_path):
    Image.new("L", (1, 400_000)).save(tmp_path / "line.png")
    yml = describe(tmp_path / "i.yml", [DECODE, resize(resize_short=256), CHW])
    done = cpp_programs.run(f"{programs()}/preprocess", yml, tmp_path / "line.png")
    assert done.returncode == 1 and "the longer side would become 102400000 pixels" in done.stderr


PROGRESSIVE = encoded(Image.fromarray(noise(32, 32)), "jpeg", progressive=True)


@pytest.mark.parametrize("data", [JPEG, PNG, PROGRESSIVE], ids=["jpeg", "png", "progressive"])
def test_damaged_bytes_are_an_error_or_an_image(tmp_path, data):
    rng, yml, refused = np.random.default_rng(0), describe(tmp_path / "i.yml", PIXELS), 0
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 4):
            damaged[position] = rng.integers(256)
        (tmp_path / "a").write_bytes(damaged[: rng.integers(1, len(data) + 1)])
        done = cpp_programs.run(f"{programs()}/preprocess", yml, tmp_path / "a", text=False)
        assert done.returncode in (0, 1), "neither a crash nor a signal"
        refused += done.returncode
    assert refused > 40


# The program


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """{format: model folder}: the tiny configuration, exported by the tool as program of both
    kinds, and as logits.
    """
    folder = tmp_path_factory.mktemp("exported")
    weights, config = random_weights(folder / "w.pdparams"), write_config(folder)
    for name, options in (
        ("pir", []),
        ("pdmodel", ["--format", "pdmodel"]),
        ("logits", ["-o", "Arch.infer_add_softmax=False"]),
    ):
        arguments = [
            "-c",
            str(config),
            "-o",
            f"Global.pretrained_model={weights}",
            "-o",
            f"Global.save_inference_dir={folder / name}",
        ]
        assert program_at("tools/export_model.py").main([*arguments, *options]) == 0
    return {name: folder / name for name in ("pir", "pdmodel", "logits")}


@pytest.fixture
def model(exported, tmp_path):
    """A copy of the exported folder, to be damaged."""
    return shutil.copytree(exported["pir"], tmp_path / "model")


def edit(model, change):
    """Change the description of an exported model."""
    description = yaml.safe_load((model / "inference.yml").read_text())
    change(description)
    (model / "inference.yml").write_text(yaml.safe_dump(description))


def python_predictions(folder, images, tmp_path, *options):
    assert (
        program_at("deploy/python/predict.py").main(
            [
                "--model",
                str(folder),
                "--images",
                str(images),
                "--json",
                str(tmp_path / "python.json"),
                *options,
            ]
        )
        == 0
    )
    return json.loads((tmp_path / "python.json").read_text())


def assert_same(results, expected):
    for key in ("file_name", "class_ids", "label_names"):
        assert [result[key] for result in results] == [result[key] for result in expected]
    assert np.allclose(
        [result["scores"] for result in results],
        [result["scores"] for result in expected],
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("form", ["pir", "pdmodel", "logits"])
def test_predictions_are_those_of_python(exported, pictures, tmp_path, form):
    expected = python_predictions(
        exported["logits" if form == "logits" else "pir"], pictures, tmp_path, "--topk", "5"
    )
    assert len({tuple(result["class_ids"]) for result in expected}) > 4, (
        "all images alike would show nothing"
    )
    options = (
        (["--batch-size", "1"], ["--batch-size=4", "--threads", "2"], ["--no-onednn"])
        if form == "pir"
        else ([],)
    )
    for option in options:
        done = classify(
            "--model",
            exported[form],
            "--images",
            pictures,
            "--topk",
            "5",
            "--json",
            tmp_path / "cpp.json",
            *option,
        )
        assert done.returncode == 0, done.stderr
        results = json.loads((tmp_path / "cpp.json").read_text())
        assert_same(results, expected)
        assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [
            result["file_name"] for result in results
        ]
        assert (
            done.stdout.splitlines()[0]
            .partition(": ")[2]
            .startswith(f"{results[0]['label_names'][0]} {results[0]['scores'][0]:.4f}, ")
        )


@pytest.mark.chain
def test_export_for_one_size_and_batch(tmp_path, exported, pictures):
    """Images run in parts of the one batch that the model takes, the last one filled up; another
    size is an error of the image.
    """
    arguments = [
        "-c",
        str(exported["pir"].parent / "tiny.yaml"),
        "-o",
        f"Global.pretrained_model={exported['pir'].parent / 'w.pdparams'}",
        "-o",
        f"Global.save_inference_dir={tmp_path / 'model'}",
        "--batch",
        "2",
        "--size",
        "32",
    ]
    assert program_at("tools/export_model.py").main(arguments) == 0
    expected = python_predictions(exported["pir"], pictures, tmp_path)
    for count in ("1", "2", "7"):
        done = classify(
            "--model",
            tmp_path / "model",
            "--images",
            pictures,
            "--json",
            tmp_path / "cpp.json",
            "--batch-size",
            count,
        )
        assert done.returncode == 0, done.stderr
        assert_same(json.loads((tmp_path / "cpp.json").read_text()), expected)
    edit(
        tmp_path / "model",
        lambda d: d["PreProcess"]["transform_ops"][1]["ResizeImage"].update(size=40),
    )
    done = classify("--model", tmp_path / "model", "--images", PHOTOS / "dog_243.jpg")
    assert (
        done.returncode == 1
        and "40 x 40 pixels after preprocessing; the model was exported for 32 x 32 alone"
        in done.stderr
    )


@pytest.mark.skipif(
    not paddle.base.core.supports_bfloat16(), reason="this CPU has no bf16 for oneDNN"
)
def test_bf16_export(tmp_path, exported):
    arguments = [
        "-c",
        str(exported["pir"].parent / "tiny.yaml"),
        "-o",
        f"Global.pretrained_model={exported['pir'].parent / 'w.pdparams'}",
        "-o",
        f"Global.save_inference_dir={tmp_path / 'model'}",
        "--precision",
        "bf16",
    ]
    assert program_at("tools/export_model.py").main(arguments) == 0
    scores = []
    for folder in (tmp_path / "model", exported["pir"]):
        assert (
            classify(
                "--model",
                folder,
                "--images",
                PHOTOS,
                "--topk",
                "1",
                "--json",
                tmp_path / "cpp.json",
            ).returncode
            == 0
        )
        scores.append(
            np.array(
                [result["scores"][0] for result in json.loads((tmp_path / "cpp.json").read_text())]
            )
        )
    assert 1e-4 < np.abs(scores[0] - scores[1]).max() < 0.1, "other numbers, and near ones"
    assert (
        "a bf16 export needs a CPU with oneDNN"
        in classify("--model", tmp_path / "model", "--images", PHOTOS, "--no-onednn").stderr
    )


@pytest.mark.chain
@pytest.mark.parametrize(
    "network", [pytest.param("NextViT_small", marks=pytest.mark.long), "TransNeXt_micro"]
)
def test_a_published_network_on_real_photos(network, tmp_path):
    """The published architecture (of TransNeXt one block a stage) with seeded weights, at 224 x 224
    with the recipe of evaluation: the five best of 1000 classes.
    """
    names = [f"class {i}" for i in range(1000)]
    description = {
        "PreProcess": {"transform_ops": Preprocess(PIPELINES["published recipe"]).describe()},
        "PostProcess": {"Topk": {"topk": 5, "label_list": names}},
    }
    if network == "NextViT_small":
        model = seeded_model(network)
    else:
        model = small_transnext(network, num_classes=1000)
    export_classifier(model, TARGETS["paddle"], tmp_path / "model", description)
    expected = python_predictions(tmp_path / "model", PHOTOS, tmp_path)
    done = classify(
        "--model", tmp_path / "model", "--images", PHOTOS, "--json", tmp_path / "cpp.json"
    )
    assert done.returncode == 0, done.stderr
    assert_same(json.loads((tmp_path / "cpp.json").read_text()), expected)


def test_latency_is_that_of_the_runs_asked_for(exported):
    done = classify(
        "--model",
        exported["pir"],
        "--images",
        PHOTOS,
        "--batch-size",
        "2",
        "--repeat",
        "3",
        "--warmup",
        "2",
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
    values = dict(
        pair.split("=")
        for pair in done.stdout.splitlines()[-1].removeprefix("latency_ms: ").split()
    )
    assert (values["runs"], values["batch"], values["threads"]) == (
        "6",
        "2",
        str(startup.threads()),
    )
    ms = [float(values[key]) for key in ("min", "median", "p95", "p99", "max")]
    assert ms == sorted(ms) and 0 < ms[0] <= float(values["mean"]) <= ms[-1]
    assert float(values["images_per_s"]) == pytest.approx(2000 / float(values["mean"]), rel=0.01)


def test_images_of_several_sizes(model, pictures, tmp_path):
    """Without a resize or crop, images run size by size, and those below the model's minimum are
    named.
    """
    edit(model, lambda d: d["PreProcess"]["transform_ops"].pop(1))
    done = classify(
        "--model",
        model,
        "--images",
        pictures,
        "--json",
        tmp_path / "out.json",
        "--batch-size",
        "15",
    )
    assert done.returncode == 1
    results = json.loads((tmp_path / "out.json").read_text())
    assert [result["file_name"] for result in results] == [
        str(path) for path in sorted(pictures.iterdir())
    ]
    assert [result["file_name"].rpartition("/")[2] for result in results if "error" in result] == [
        "00000.png",
        "one_pixel.png",
    ]
    assert "28 x 28 pixels after preprocessing; the model needs at least 32" in done.stderr


@pytest.mark.parametrize(
    "told, bound", [(None, False), (None, True), ("2,1", False), ("two", False)]
)
def test_threads_are_those_of_the_programs_in_python(exported, told, bound):
    """The same rule, said in the same words; what --threads gives is not said."""
    environment = {name: text for name, text in os.environ.items() if name not in THREADS}
    if told is not None:
        environment["OMP_NUM_THREADS"] = told
    given = {"env": {**environment, "PYTHONPATH": str(ROOT / "deploy" / "python")}}
    place = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if bound else []
    words = [sys.executable, "-c", "import startup; print(startup.threads_text())"]
    expected = cpp_programs.run(*place, *words, **given).stdout
    assert expected.startswith("threads: 1 (the cores that are there)" if bound else "threads: ")
    program = [*place, f"{programs()}/classify", "--model", exported["pir"], "--images", PHOTOS]
    # OpenMP's own library warns of "two" before
    assert cpp_programs.run(*program, **given).stderr.splitlines()[-1:] == [expected.rstrip()]
    if told is None:
        assert cpp_programs.run(*program, "--threads", "1", **given).stderr == ""


def test_bad_images_are_named_and_the_others_done(exported, tmp_path):
    folder, bad = clothes(tmp_path / 'cl"othes', 4), ("00001.png", "00002.png", "00003.png")
    (folder / "00001.png").write_bytes((folder / "00001.png").read_bytes()[:200])
    (folder / "00002.png").write_bytes(b"")
    (folder / "00003.png").write_bytes(b"no image at all")
    done = classify("--model", exported["pir"], "--images", folder, "--json", tmp_path / "out.json")
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1
    said, *errors = done.stderr.splitlines()
    assert (
        said.startswith("threads: ")
        and len(errors) == 3
        and all(
            error.startswith(f"error: {folder / name}: ")
            for error, name in zip(errors, bad, strict=True)
        )
    )
    assert ["error" in result for result in json.loads((tmp_path / "out.json").read_text())] == [
        False,
        True,
        True,
        True,
    ]


def replace_labels(names):
    return lambda d: d["PostProcess"]["Topk"].update(label_list=names)


def replace_transform(index, **transform):
    return lambda d: d["PreProcess"]["transform_ops"].__setitem__(index, transform)


@pytest.mark.parametrize(
    "change, message",
    [
        (replace_labels(["a"] * 9), "label_list has 9 names, the model 10 classes"),
        (
            lambda d: (replace_labels(["a"] * 9)(d), d["Model"].update(class_num=9)),
            "output has 40 values; inference.yml has 9 names for each of 4 images",
        ),
        (lambda d: d["Model"].update(softmax=False), "softmax is false, but the program gives"),
        (lambda d: d.pop("PostProcess"), "not a description of an exported model"),
        (lambda d: d["PreProcess"].clear(), "not a description of an exported model"),
        (
            lambda d: d["PreProcess"].update(transform_ops=3),
            "PreProcess: expected a list transform_ops",
        ),
        (
            lambda d: d["PreProcess"]["transform_ops"].append("ToCHWImage"),
            "expected a name and its arguments in each entry",
        ),
        (lambda d: d["Files"].clear(), "expected a .json or .pdmodel and a .pdiparams"),
        (replace_transform(1, Sharpen={}), "unknown transform 'Sharpen'"),
        (
            replace_transform(1, ResizeImage={"size": 32, "backend": "pil", "fast": True}),
            "ResizeImage: unknown key 'fast'",
        ),
        (
            replace_transform(1, ResizeImage={"size": "big", "backend": "pil"}),
            "ResizeImage: size: a value of the wrong type",
        ),
        (
            replace_transform(1, ResizeImage={"size": 0, "backend": "pil"}),
            "ResizeImage: size: expected one or two numbers of 1 or more",
        ),
        (
            replace_transform(1, ResizeImage={"backend": "pil"}),
            "expected either size or resize_short",
        ),
        (
            replace_transform(
                1, ResizeImage={"size": 32, "interpolation": "cubic", "backend": "pil"}
            ),
            "backend pil has no 'cubic'",
        ),
        (
            replace_transform(1, ResizeImage={"size": 32}),
            "`backend: cv2` needs this program built with -DWITH_OPENCV=ON",
        ),
        (
            replace_transform(2, NormalizeImage={"mean": [0, 0], "order": ""}),
            "mean and std need three values each",
        ),
        (
            replace_transform(2, NormalizeImage={"order": "chw"}),
            "order 'chw' does not fit its place",
        ),
        (
            replace_transform(3, CropImage={"size": 4}),
            "CropImage after NormalizeImage or ToCHWImage is not supported",
        ),
    ],
)
def test_bad_description_is_one_line(model, change, message):
    edit(model, change)
    done = classify("--model", model, "--images", PHOTOS)
    assert done.returncode == 1 and done.stdout == ""
    # said before the first answer, which some of these end
    *threads, error = done.stderr.splitlines()
    assert all(line.startswith("threads: ") for line in threads) and len(threads) < 2
    assert error.startswith("error: ") and message in error


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("inference.json", lambda data: None, "inference.json: cannot be read: No such file"),
        (
            "inference.pdiparams",
            lambda data: data[:-1],
            "does not match inference.yml, so it is damaged or of another export",
        ),
        ("inference.json", lambda data: data[:1000], "does not match inference.yml"),
        ("inference.yml", lambda data: None, "inference.yml: cannot be read"),
        ("inference.yml", lambda data: b"a: [", "not a description of an exported model"),
        ("inference.yml", lambda data: b"", "not a description of an exported model"),
    ],
)
def test_damaged_model_is_one_line(model, name, damage, message):
    data = damage((model / name).read_bytes())
    (model / name).unlink() if data is None else (model / name).write_bytes(data)
    done = classify("--model", model, "--images", PHOTOS)
    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr.startswith("error: ")
        and done.stderr.count("\n") == 1
        and message in done.stderr
    )


@pytest.mark.parametrize(
    "name, damage",
    [
        ("inference.json", lambda data: b'{"a": 1}'),
        ("inference.pdiparams", lambda data: data[:30_000_000]),
    ],
)
def test_files_that_this_paddle_cannot_read(model, name, damage):
    """The hashes agree, yet Paddle refuses: still one line that names the version that wrote the
    files.
    """
    (model / name).write_bytes(damage((model / name).read_bytes()))
    edit(model, lambda d: d["Files"][name].update(sha256=sha256_of(model / name)))
    done = classify("--model", model, "--images", PHOTOS)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(errors) == 1
    assert f"cannot load the model, which paddle {paddle.__version__} exported: " in errors[
        0
    ] and not errors[0].endswith(": ")


@pytest.mark.parametrize(
    "arguments, message, status",
    [
        (["--model", "{model}"], "--model and --images are needed", 2),
        (["--model", "{model}", "--images"], "--images: expected a value", 2),
        (["--model", "{model}", "--images", "{tmp}", "--fast"], "unknown option '--fast'", 2),
        (
            ["--model", "{model}", "--images", "{tmp}", "--batch-size", "0"],
            "--batch-size: expected a whole number of 1 or more, got '0'",
            2,
        ),
        (
            ["--model", "{model}", "--images", "{tmp}", "--threads=two"],
            "--threads: expected a whole number of 1 or more, got 'two'",
            2,
        ),
        (
            ["--model", "{model}", "--images", "{tmp}", "--topk", "99999999999"],
            "--topk: expected a whole number",
            2,
        ),
        (
            ["--model", "{model}", "--images", "{tmp}", "--device", "tpu"],
            "--device: expected cpu or gpu, got 'tpu'",
            2,
        ),
        (
            ["--model", "{tmp}/none", "--images", "{tmp}"],
            "none: no such directory; expected the one that tools/export_model.py wrote",
            1,
        ),
        (["--model", "{model}", "--images", "{tmp}/none"], "none: no such file or directory", 1),
        (["--model", "{model}", "--images", "{tmp}"], "no images in this directory", 1),
        (
            ["--model", "{model}", "--images", "{photos}", "--json", "{tmp}/none/out.json"],
            "out.json: cannot be written",
            1,
        ),
    ],
)
def test_bad_command_line_is_one_line(exported, tmp_path, arguments, message, status):
    done = classify(
        *[part.format(model=exported["pir"], tmp=tmp_path, photos=PHOTOS) for part in arguments]
    )
    assert done.returncode == status and done.stdout == ""
    assert (
        done.stderr.startswith("error: ")
        and done.stderr.count("\n") == 1
        and message in done.stderr
    )


def test_gpu_without_cuda_is_one_line(exported):
    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle has CUDA")
    done = classify("--model", exported["pir"], "--images", PHOTOS, "--device", "gpu")
    assert done.returncode == 1 and "error: --device gpu: this Paddle has no CUDA" in done.stderr


def test_help_names_every_option():
    done = classify("--help")
    assert done.returncode == 0
    options = re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE)
    assert len(options) == 14
    page = (ROOT / "deploy/cpp/README.md").read_text()
    assert [option for option in options if option not in page] == []


def test_preprocess_after_normalisation_is_the_same_in_float(tmp_path):
    """All 256 values of a pixel, with constants whose products do not round alike: no fused
    multiply-add.
    """
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    ramp.save(tmp_path / "ramp.png")
    transforms = [
        DECODE,
        {
            "NormalizeImage": {
                "scale": 0.0123,
                "mean": [0.3, 0.7, 1.1],
                "std": [0.21, 0.37, 0.9],
                "order": "",
            }
        },
        CHW,
    ]
    expected = Preprocess(transforms)(str(tmp_path / "ramp.png"))
    assert (
        preprocessed(describe(tmp_path / "i.yml", transforms), tmp_path / "ramp.png").tobytes()
        == expected.tobytes()
    )
