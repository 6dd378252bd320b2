"""deploy/web: its preprocessing under Node.js, its model in ONNX Runtime, and the built page in a
real browser without network.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import paddle
import PIL
import pytest
from PIL import Image

from ppcls_nextvit.data.images import open_image
from ppcls_nextvit.data.transforms.pipeline import Preprocess
from support.paths import ROOT
from support.pictures import varied_pictures
from support.programs import program_at
from support.random_models import random_weights, small_transnext
from support.tiny_run import DATA, NORMALIZE, write_config
from support.toy_exports import described
from support.web_page import FOLDER, NODE, Handler, built_page, driven, needs_node, page_copy
from test_deploy_python import CHW, DECODE, IMAGENET, PIPELINES, resize

PHOTOS = sorted((ROOT / "ppcls_nextvit" / "export" / "photos").glob("*.jpg"))


def run_node(folder, cases):
    """What src/preprocess.js makes of `cases`, a list of (transform_ops, Pillow version, uint8 [H,
    W, 3]): [(array or None, answer)].
    """
    listed = []
    for number, (ops, pillow, pixels) in enumerate(cases):
        raw = folder / f"{number}.raw"
        raw.write_bytes(pixels.tobytes())
        listed.append(
            {
                "ops": ops,
                "pillow": pillow,
                "width": pixels.shape[1],
                "height": pixels.shape[0],
                "raw": str(raw),
                "out": str(folder / f"{number}.out"),
            }
        )
    (folder / "cases.json").write_text(json.dumps(listed))
    done = subprocess.run(
        [NODE, "test/preprocess.mjs", str(folder / "cases.json")],
        cwd=FOLDER,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [
        (None if "refused" in answer else np.fromfile(case["out"], np.float32), answer)
        for case, answer in zip(listed, json.loads(done.stdout), strict=True)
    ]


@needs_node
def test_preprocessing_is_that_of_evaluation_bit_for_bit(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    files = [*sorted(varied_pictures(pictures).iterdir()), *PHOTOS]
    ours = [
        Preprocess(ops)
        for name, ops in PIPELINES.items()
        if "OpenCV" not in name and name != "not normalised"
    ]
    assert len(files) * len(ours) == 18 * 8
    cases = [
        (transforms.describe(), PIL.__version__, np.asarray(open_image(str(file))))
        for transforms in ours
        for file in files
    ]
    expected = [transforms(str(file)) for transforms in ours for file in files]
    for (got, _), wanted in zip(run_node(tmp_path, cases), expected, strict=True):
        assert got.tobytes() == wanted.tobytes()


@needs_node
@pytest.mark.parametrize(
    "pillow, columns_first",
    [("11.3.0", False), ("12.1.1", False), ("12.2.0", False), ("13.0.0", True)],
)
def test_the_order_of_the_passes_is_that_of_the_exporting_pillow(tmp_path, pillow, columns_first):
    """90 x 200 to 80 x 60: whichever Pillow is installed, one resize per direction shows what
    another version would do at once.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (200, 90, 3), np.uint8)
    ops = Preprocess([DECODE, resize(size=[80, 60], interpolation="bicubic"), CHW]).describe()
    image, orders = Image.fromarray(pixels), {}
    for first, middle in ((True, (90, 60)), (False, (80, 200))):
        half = image.resize(middle, Image.Resampling.BICUBIC)
        orders[first] = (
            np.asarray(half.resize((80, 60), Image.Resampling.BICUBIC))
            .transpose(2, 0, 1)
            .astype(np.float32)
        )
    assert (orders[True] != orders[False]).any()
    ((got, _),) = run_node(tmp_path, [(ops, pillow, pixels)])
    assert got.tobytes() == orders[columns_first].tobytes()


@needs_node
def test_what_the_model_sees_of_the_picture_and_what_is_refused(tmp_path):
    pixels = np.zeros((60, 120, 3), np.uint8)
    lists = [
        [DECODE, resize(resize_short=30), {"CropImage": {"size": [20, 10]}}, IMAGENET],
        [DECODE, resize(size=[40, 40]), IMAGENET],
        [DECODE, resize(resize_short=30), {"CropImage": {"size": [80, 30]}}, IMAGENET],
        [DECODE, {"ResizeImage": {"size": 32, "interpolation": "nearest", "backend": "pil"}}],
        [DECODE, {"ResizeImage": {"size": 32, "interpolation": "bicubic", "backend": "cv2"}}],
        [{"Sharpen": {}}],
    ]
    answers = [
        answer
        for _, answer in run_node(
            tmp_path,
            [
                (ops, "13.0.0", pixels)
                for ops in [*[Preprocess(ops).describe() for ops in lists[:3]], *lists[3:]]
            ],
        )
    ]
    assert [answer["view"] for answer in answers[:3]] == [
        {"x": 40, "y": 20, "width": 40, "height": 20},
        {"x": 0, "y": 0, "width": 120, "height": 60},
        {"x": -20, "y": 0, "width": 160, "height": 60},
    ]
    for answer, reason in zip(answers[3:], ("nearest", "cv2", "Sharpen"), strict=True):
        assert reason in answer["refused"]


DEPTHS = {"NextViT_small": [1, 1, 5, 1], "TransNeXt_micro": [1, 1, 1, 1]}
NETWORKS = pytest.mark.parametrize(
    "exported",
    ["NextViT_small", pytest.param("TransNeXt_micro", marks=pytest.mark.chain)],
    indirect=True,
)


@pytest.fixture(scope="module")
def exported(request, tmp_path_factory):
    """A tiny model at 64 pixels, hence with a last map of 2 x 2, exported by the tool; of the
    network that NETWORKS asks for, or a Next-ViT.
    """
    network = getattr(request, "param", "NextViT_small")
    for package in ("onnx", "onnxruntime", "onnxslim", "paddle2onnx"):
        pytest.importorskip(package, reason="needs the extra `onnx`")
    folder = tmp_path_factory.mktemp("exported")
    transforms = [
        DECODE,
        resize(resize_short=72, interpolation="bicubic"),
        {"CropImage": {"size": 64}},
        NORMALIZE,
        CHW,
    ]
    config = write_config(
        folder,
        Arch={"name": network, "depths": DEPTHS[network]},
        Global={"image_shape": [3, 64, 64]},
        Infer={
            "infer_imgs": "none",
            "batch_size": 4,
            "transforms": transforms,
            "PostProcess": {
                "name": "Topk",
                "topk": 3,
                "class_id_map_file": str(DATA / "labels.txt"),
            },
        },
    )
    arguments = [
        "-c",
        str(config),
        "-o",
        f"Global.pretrained_model={weights_of(network, folder / 'w.pdparams')}",
        "--to",
        "onnx",
    ]
    assert (
        program_at("tools/export_model.py").main(
            [*arguments, "-o", f"Global.save_inference_dir={folder / 'model'}"]
        )
        == 0
    )
    return folder / "model"


def weights_of(network, path):
    """Random weights of a model of 10 classes whose logits differ."""
    if network == "NextViT_small":
        return random_weights(path)
    model = small_transnext(num_classes=10)
    model.head.weight.set_value(4 * model.head.weight)
    paddle.save(model.state_dict(), str(path))
    return path


@pytest.fixture(scope="module")
def prepared(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    assert (
        program_at("deploy/web/prepare.py").main(["--model", str(exported), "--out", str(folder)])
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The photos, and pictures of several formats without transparency (see the page's README)."""
    folder = varied_pictures(tmp_path_factory.mktemp("varied"))
    names = (
        "portrait_exif6.jpg",
        "cmyk.jpg",
        "barely.webp",
        "animated.gif",
        "palette.png",
        "sixteen_bit.png",
    )
    return [*PHOTOS, *(folder / name for name in names)]


@pytest.fixture(scope="module")
def expected(prepared, pictures):
    """For each picture (probabilities [10], cam [10, 2, 2]) by ONNX Runtime."""
    import onnxruntime

    description = json.loads((prepared / "export.json").read_text())
    preprocess = Preprocess(description["PreProcess"]["transform_ops"])
    session = onnxruntime.InferenceSession(
        str(prepared / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    return {
        path: [
            output[0]
            for output in session.run(["probabilities", "cam"], {"x": preprocess(str(path))[None]})
        ]
        for path in pictures
    }


@pytest.mark.slow
@NETWORKS
def test_the_map_of_a_class_has_its_logit_as_mean(exported, expected):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(exported / "inference.onnx"), providers=["CPUExecutionProvider"]
    )
    preprocess = Preprocess(
        json.loads((exported / "export.json").read_text())["PreProcess"]["transform_ops"]
    )
    for photo, (probabilities, cam) in expected.items():
        assert cam.shape == (10, 2, 2)
        logits = cam.mean((1, 2), dtype=np.float64)
        exponents = np.exp(logits - logits.max())
        assert np.allclose(exponents / exponents.sum(), probabilities, atol=1e-5)
        (before,) = session.run(None, {"x": preprocess(str(photo))[None]})
        assert np.array_equal(before[0], probabilities), "the first output stays as it was"
    spread = [np.ptp(cam, axis=(1, 2)).max() for _, cam in expected.values()]
    assert min(spread) > 0.1, "maps that are flat would show nothing"


@pytest.mark.slow
def test_what_was_prepared_is_said(exported, tmp_path, capsys):
    prepare = program_at("deploy/web/prepare.py")
    assert prepare.main(["--model", str(exported), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    megabytes = (tmp_path / "model.onnx").stat().st_size / 1e6
    model = f"model.onnx ({megabytes:.1f} MB, classification)"
    assert said == f"in {tmp_path}: {model}, export.json\n"


@needs_node
def test_what_was_built_is_said(tmp_path):
    copy = page_copy(tmp_path)
    done = subprocess.run([NODE, "build.mjs"], cwd=copy, check=True, capture_output=True, text=True)
    said = re.findall(r"([\w.-]+) \((\d+\.\d) kB\)", done.stdout.removeprefix("in dist: "))
    sizes = {path.name: f"{path.stat().st_size / 1e3:.1f}" for path in (copy / "dist").iterdir()}
    assert dict(said) == sizes and {"index.html", "page.js", "worker.js"} < set(sizes)


def test_models_that_cannot_be_prepared(exported, tmp_path, capsys):
    prepare = program_at("deploy/web/prepare.py")
    assert (
        prepare.main(["--model", str(tmp_path / "none")]) == 1
        and "export.json" in capsys.readouterr().err
    )
    other = shutil.copytree(exported, tmp_path / "other")
    description = json.loads((other / "export.json").read_text())
    (other / "export.json").write_text(
        json.dumps({**description, "Export": {**description["Export"], "target": "paddle"}})
    )
    assert (
        prepare.main(["--model", str(other)]) == 1
        and "an export for 'paddle'; expected one made with --to onnx" in capsys.readouterr().err
    )
    import onnx

    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [value]
    )
    with pytest.raises(ValueError, match="does not end in a mean over its last map and one linear"):
        prepare.add_cam(onnx.helper.make_model(graph))


def test_a_model_that_names_other_files_is_refused_and_they_are_not_read(
    exported, tmp_path, capsys
):
    import onnx

    other = shutil.copytree(exported, tmp_path / "other")
    (tmp_path / "secret").write_bytes(bytes(4))
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    value = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([], "g", [], [value], [tensor])
    (other / "inference.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    out = tmp_path / "out"
    prepare = program_at("deploy/web/prepare.py")
    assert prepare.main(["--model", str(other), "--out", str(out)]) == 1
    assert "inference.onnx: does not match export.json" in capsys.readouterr().err
    described(other, json.loads((other / "export.json").read_text()))
    assert prepare.main(["--model", str(other), "--out", str(out)]) == 1
    assert "inference.onnx has its weights in other files" in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture
def page(prepared, tmp_path):
    """The URL of the built page, served from this machine, and the folder it was built in."""
    with built_page(prepared, tmp_path) as page:
        yield page


def use(page, photos, bad):
    photos, bad = [str(path) for path in photos], [str(path) for path in bad]
    return driven(page, "drive.mjs", photos=photos, bad=bad, downloads=str(page[1]))


@pytest.mark.chain
@NETWORKS
def test_the_page_in_a_browser(page, exported, expected, tmp_path):
    bad = [
        tmp_path / "notes.txt",
        tmp_path / "cut.jpg",
        tmp_path / "empty.png",
        tmp_path / "noise.png",
    ]
    for path, data in zip(
        bad, (b"no picture", PHOTOS[0].read_bytes()[:2000], b"", bytes(5000)), strict=True
    ):
        path.write_bytes(data)
    seen = use(page, list(expected), bad)
    network = json.loads((exported / "export.json").read_text())["Global"]["model_name"]
    assert seen["status"] == f"{network} is ready: 10 classes." and seen["problems"] == []
    assert {url.replace(page[0], "") for url in seen["requests"]} == {
        "",
        "style.css",
        "page.js",
        "worker.js",
        "model/export.json",
        "model/model.onnx",
        "ort-wasm-simd-threaded.mjs",
        "ort-wasm-simd-threaded.wasm",
    }
    labels = [line.partition(" ")[2] for line in (DATA / "labels.txt").read_text().splitlines()]
    assert set(seen["photos"]) == {str(path) for path in expected}
    for photo, (probabilities, cam) in expected.items():
        found = seen["photos"][str(photo)]
        order = np.argsort(-probabilities, kind="stable")[:5].tolist()
        assert [row["id"] for row in found["rows"]] == order
        assert np.allclose([row["score"] for row in found["rows"]], probabilities[order], atol=1e-4)
        assert (
            found["rows"][0]["text"] == f"{labels[order[0]]}{100 * probabilities[order[0]]:.1f} %"
        )
        assert [row["chosen"] for row in found["rows"]] == [True] + [False] * 4
        assert_heat(found["heat"], found["plain"], cam[order[0]])
    order = np.argsort(-expected[PHOTOS[0]][0])[:5]
    assert seen["focused"] == "files", "the keyboard reaches the file input"
    assert [row["chosen"] for row in seen["keyboard"]["rows"]] == [False, True, False, False, False]
    assert_heat(
        seen["keyboard"]["heat"],
        seen["photos"][str(PHOTOS[0])]["plain"],
        expected[PHOTOS[0]][1][order[1]],
    )
    assert seen["small"]["page"] == 320 and 200 < seen["small"]["canvas"] <= 320, (
        "no sideways scrolling on a small screen"
    )
    unreadable = (
        "this is not a picture that your browser can read, or it is damaged. Try a JPEG, "
        "PNG or WebP file."
    )
    assert seen["bad"] == [
        f"{path.name}: {'the file is empty.' if path.name == 'empty.png' else unreadable}"
        for path in bad
    ]
    assert [row["id"] for row in seen["after"]] == order.tolist(), "the page goes on after them"
    assert_told(seen["told"], [*expected, PHOTOS[0], *bad, PHOTOS[0]], expected, labels)


def assert_told(told, paths, expected, labels):
    """The downloaded JSON is what `nextvit infer --json` writes of `paths`."""
    assert [one["file_name"] for one in told] == [path.name for path in paths]
    for path, one in zip(paths, told, strict=True):
        if path not in expected:
            assert list(one) == ["file_name", "error"] and one["error"].startswith(f"{path.name}: ")
            continue
        order = np.argsort(-expected[path][0], kind="stable")[:3].tolist()
        assert list(one) == ["file_name", "class_ids", "scores", "label_names"]
        assert one["class_ids"] == order and one["label_names"] == [labels[i] for i in order]
        assert np.allclose(one["scores"], expected[path][0][order], atol=1e-4)


def assert_heat(heat, plain, cam):
    """The canvas' corners have the colours of the map's corners over the picture's."""
    share = ((cam - cam.min()) / np.ptp(cam))[[0, 0, -1, -1], [0, -1, 0, -1]]
    colours = np.stack([255 * share, 160 * (1 - np.abs(2 * share - 1)), 255 * (1 - share)], axis=1)
    alpha = (60 + 100 * share)[:, None] / 255
    assert (
        np.abs(np.array(plain)[:, :3] * (1 - alpha) + colours * alpha - np.array(heat)[:, :3]).max()
        < 6
    )


@pytest.mark.slow
def test_threads_give_the_same(page, expected, monkeypatch):
    monkeypatch.setattr(Handler, "isolated", True)
    seen = use(page, PHOTOS[:1], [])
    found, wanted = seen["photos"][str(PHOTOS[0])]["rows"], expected[PHOTOS[0]][0]
    assert np.allclose([row["score"] for row in found], np.sort(wanted)[::-1][:5], atol=1e-4)
    started = [url for url in seen["requests"] if url.endswith("ort-wasm-simd-threaded.mjs")]
    assert len(started) > 1, "each thread starts from this file"


@pytest.mark.slow
def test_a_page_without_its_model_says_so(page):
    shutil.rmtree(page[1] / "dist" / "model")
    seen = use(page, [], [])
    assert (
        seen["status"]
        == "The model cannot be loaded: model/export.json is not there (404); make it with "
        "prepare.py"
    )


def test_no_address_of_a_registry_and_no_large_file_is_kept():
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    assert not any("resolved" in package for package in lock["packages"].values())
    assert {name: package["version"] for name, package in lock["packages"].items()}[
        "node_modules/onnxruntime-web"
    ] == json.loads((FOLDER / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    kept = [
        path
        for path in FOLDER.rglob("*")
        if path.is_file() and not {"node_modules", "dist"} & set(path.relative_to(FOLDER).parts)
    ]
    assert (
        max(path.stat().st_size for path in kept) < 100_000
        and Path(FOLDER / "src" / "page.js") in kept
    )
