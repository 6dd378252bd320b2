"""tools/infer.py: top-k equals the model's own output, bad images are named, and every wrong input
is one line.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from ppcls_nextvit.schema import ConfigError
from ppcls_nextvit.tasks import common
from ppcls_nextvit.tasks.classification.predict import contact_sheet
from ppcls_nextvit.tasks.classification.results import ClassificationResult
from ppcls_nextvit.tasks.common import list_images, write_json
from ppcls_nextvit.tasks.inputs import InputImage
from ppcls_nextvit.tasks.results import Failed
from support.paths import ROOT
from support.pictures import clothes
from support.programs import program_at
from support.random_models import random_model, random_weights
from support.tiny_run import DATA, NORMALIZE, write_config

infer = program_at("tools/infer.py")
NAMES = [line.partition(" ")[2] for line in (DATA / "labels.txt").read_text().splitlines()]
DECODE = {"DecodeImage": {"to_rgb": True, "channel_first": False}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("weights") / "w.pdparams")


@pytest.fixture
def run(weights, tmp_path):
    """`run(*overrides, **options)`: the tool's status, with these weights, a fresh tiny
    configuration, and --json out.json.
    """

    def run(*overrides, json_file=tmp_path / "out.json", **options):
        config = write_config(tmp_path)
        arguments = [
            "-c",
            str(config),
            "-o",
            f"Global.pretrained_model={weights}",
            "--json",
            str(json_file),
        ]
        arguments += [part for override in overrides for part in ("-o", override)]
        arguments += [part for key, value in options.items() for part in (f"--{key}", str(value))]
        return infer.main(arguments)

    return run


def expected_top3(paths):
    """Class ids and probabilities of the tiny configuration, computed from first principles: grey
    28 x 28 -> RGB 32 x 32 -> [-1, 1].
    """
    images = [
        Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC) for path in paths
    ]
    batch = np.stack(
        [(np.asarray(image, np.float32) / 255 - 0.5) / 0.5 for image in images]
    ).transpose(0, 3, 1, 2)
    logits = (
        random_model()(paddle.to_tensor(np.ascontiguousarray(batch))).numpy().astype(np.float64)
    )
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    order = np.argsort(-probabilities, axis=1)[:, :3]
    return order, np.take_along_axis(probabilities, order, axis=1)


def test_top_k_of_a_directory(run, tmp_path, capsys):
    folder = clothes(tmp_path / "clothes", 7)
    (folder / "notes.txt").write_text("not looked at")
    assert run(f"Infer.infer_imgs={folder}") == 0
    results = json.loads((tmp_path / "out.json").read_text())
    paths = [str(folder / f"{i:05d}.png") for i in range(7)]
    assert [result["file_name"] for result in results] == paths
    ids, probabilities = expected_top3(paths)
    assert [result["class_ids"] for result in results] == ids.tolist()
    assert np.allclose([result["scores"] for result in results], probabilities, atol=1e-5)
    assert [result["label_names"] for result in results] == [[NAMES[i] for i in row] for row in ids]
    assert len({tuple(row) for row in ids.tolist()}) > 1, "all images alike would show nothing"
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == f"{paths[3]}: " + ", ".join(
        f"{NAMES[i]} {p:.4f}" for i, p in zip(ids[3], probabilities[3], strict=True)
    )
    assert len(lines) == 7


def test_batch_size_changes_nothing(run, tmp_path):
    folder, found = clothes(tmp_path / "clothes", 5), []
    for size in (1, 2, 5):
        assert (
            run(
                f"Infer.infer_imgs={folder}",
                f"Infer.batch_size={size}",
                json_file=tmp_path / f"{size}.json",
            )
            == 0
        )
        found.append(json.loads((tmp_path / f"{size}.json").read_text()))
    for other in found[1:]:
        assert [r["class_ids"] for r in other] == [r["class_ids"] for r in found[0]]
        assert np.allclose([r["scores"] for r in other], [r["scores"] for r in found[0]], atol=1e-6)


def test_bad_images_are_named_and_the_others_done(run, tmp_path, capsys):
    folder = clothes(tmp_path / "clothes", 4)
    good = (folder / "00001.png").read_bytes()
    (folder / "00001.png").write_bytes(good[:200])
    (folder / "00002.png").write_bytes(b"")
    assert run(f"Infer.infer_imgs={folder}", sheet=tmp_path / "sheet.png") == 1
    results = json.loads((tmp_path / "out.json").read_text())
    good_keys, bad_keys = (
        ["class_ids", "file_name", "label_names", "scores"],
        ["error", "file_name"],
    )
    assert [sorted(result) for result in results] == [good_keys, bad_keys, bad_keys, good_keys]
    assert [results[i]["class_ids"] for i in (0, 3)] == expected_top3(
        [folder / "00000.png", folder / "00003.png"]
    )[0].tolist()
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 2
    errors = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert (
        len(errors) == 2
        and str(folder / "00001.png") in errors[0]
        and "00002.png: the file is empty" in errors[1]
    )
    assert Image.open(tmp_path / "sheet.png").width == 2 * 152 + 8, "two pictures on the sheet"


def test_images_of_several_sizes_without_a_resize(run, tmp_path, capsys):
    folder = tmp_path / "sizes"
    folder.mkdir()
    for index, size in enumerate([(40, 32), (64, 48), (40, 32), (20, 40), (33, 47)]):
        Image.effect_mandelbrot(size, (-2, -1.5, 1, 1.5), 100).convert("RGB").save(
            folder / f"{index}.png"
        )
    transforms = json.dumps([DECODE, NORMALIZE, {"ToCHWImage": None}])
    assert run(f"Infer.infer_imgs={folder}", f"Infer.transforms={transforms}") == 1
    results = json.loads((tmp_path / "out.json").read_text())
    assert ["error" in result for result in results] == [False, False, False, True, False]
    assert "40 x 20 pixels after preprocessing; the model needs at least 32" in results[3]["error"]
    assert results[0]["scores"] == pytest.approx(results[2]["scores"], abs=1e-6)
    assert results[0]["scores"] != pytest.approx(results[1]["scores"], abs=1e-4)


def test_contact_sheet_shows_pixels_name_and_probability(tmp_path):
    folder = clothes(tmp_path / "clothes", 1)
    Image.new("RGB", (600, 300), (0, 120, 0)).save(folder / "wide.png")
    names = ["Ankle boot", "a name that is too long for its place"]
    results = [
        ClassificationResult(InputImage(name, folder / name), np.array(row), names)
        for name, row in (("00000.png", [0.5, 0.4]), ("wide.png", [0.2, 0.25]))
    ]
    results.insert(1, Failed(InputImage("x.png", Path("x.png")), names, "x.png: bad"))
    sheet = np.asarray(contact_sheet(results))
    assert sheet.shape == (144 + 34 + 8 + 8, 2 * 152 + 8, 3)
    boot = np.asarray(Image.open(folder / "00000.png").convert("RGB"))
    assert np.array_equal(sheet[10:150, 10:150], boot.repeat(5, axis=0).repeat(5, axis=1)), (
        "28 x 28 grows by the whole factor 5"
    )
    assert (sheet[8 + 36 : 8 + 108, 160:304] == (0, 120, 0)).all() and (
        sheet[8 + 34, 160:304] == 255
    ).all(), "600 x 300 shrinks to 144 x 72"
    for left in (8, 160):
        for top in (153, 170):
            text = sheet[top : top + 16, left : left + 144]
            assert (text < 128).any(), "something is written there"
    assert (sheet[153:170, 304:] == 255).all(), "a long name ends at its picture's edge"
    with pytest.raises(ValueError, match="no image could be read"):
        contact_sheet(results[1:2])


def test_no_class_map_gives_ids(run, tmp_path):
    folder = clothes(tmp_path / "clothes", 1)
    assert (
        run(
            f"Infer.infer_imgs={folder / '00000.png'}",
            "Infer.PostProcess.class_id_map_file=null",
            "Infer.PostProcess.topk=99",
        )
        == 0
    )
    (result,) = json.loads((tmp_path / "out.json").read_text())
    assert sorted(result["class_ids"]) == list(range(10)) and result["label_names"] == [
        str(i) for i in result["class_ids"]
    ]
    assert sum(result["scores"]) == pytest.approx(1, abs=1e-6) and result["scores"] == sorted(
        result["scores"], reverse=True
    )


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["Global.pretrained_model=null"], "no weights, and an untrained model predicts noise"),
        (["Global.pretrained_model={tmp}/none"], "none"),
        (["Global.pretrained_model={tmp}/tiny.yaml"], "tiny.yaml"),
        (["Arch.class_num=7", "Infer.PostProcess.class_id_map_file=null"], "proj_head"),
        (["Infer.PostProcess.class_id_map_file={tmp}/five.txt"], "has 5 classes, the model 10"),
        (["Infer.PostProcess.class_id_map_file={tmp}/none.txt"], "no such file"),
        (["Infer.infer_imgs={tmp}/none"], "none: no such file or directory"),
        (["Infer.infer_imgs={tmp}/empty"], "empty: no images in this directory"),
        (["Infer.infer_imgs=null"], "no images; give -o Infer.infer_imgs="),
        (["Infer.infer_img=x"], "infer_imgs"),
        (["Infer.transforms.1.ResizeImage.sise=32"], "Did you mean 'size'?"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, capsys, overrides, message):
    folder = clothes(tmp_path / "clothes", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "five.txt").write_text("".join(f"{i} class {i}\n" for i in range(5)))
    assert (
        run(
            f"Infer.infer_imgs={folder}", *(override.format(tmp=tmp_path) for override in overrides)
        )
        == 1
    )
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and message in error[0], error
    assert not (tmp_path / "out.json").exists()


def test_a_missing_folder_shows_before_the_work(run, tmp_path, capsys):
    assert (
        run(
            f"Infer.infer_imgs={clothes(tmp_path / 'clothes', 1)}",
            json_file=tmp_path / "none" / "out.json",
        )
        == 1
    )
    out, err = capsys.readouterr()
    assert (
        not out
        and err.splitlines()[-1].startswith("error: --json")
        and err.rstrip().endswith(f"no such folder: {tmp_path / 'none'}")
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of several kinds in folders, below the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.JPG",
        "a.png",
        "c.md",
        ".hidden.png",
        "sub/d.webp",
        "sub/deep/a.png",
        "e/f.pdf",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "photos" / "list.txt").write_text(
        "\ufeffsub/d.webp\n\nphotos/a.png\r\n gone.png \n"
    )
    (tmp_path / "photos" / "[1].png").touch()
    return tmp_path / "photos"


EVERY = ["[1].png", "a.png", "b.JPG", "sub/d.webp", "sub/deep/a.png"]


@pytest.mark.parametrize(
    "source, expected",
    [
        ("photos", EVERY),
        ("photos/sub/..", ["sub/../" + name for name in EVERY]),
        ("photos/c.md", ["c.md"]),  # a file is taken as it is
        ("photos/[1].png", ["[1].png"]),  # also if its name looks like a pattern
        ("photos/*.png", ["[1].png", "a.png"]),
        ("photos/*", ["[1].png", "a.png", "b.JPG"]),
        ("photos/**/a.*", ["a.png", "sub/deep/a.png"]),
        ("photos/list.txt", ["sub/d.webp", "a.png", "gone.png"]),
        (["photos/b.JPG", "photos/sub"], ["b.JPG", "sub/d.webp", "sub/deep/a.png"]),
    ],
)
def test_what_may_be_given_as_images(folder, source, expected):
    assert list_images(source) == [Path("photos") / name for name in expected]


@pytest.mark.parametrize(
    "source, message",
    [
        ("nothing", "nothing: no such file or directory"),
        ("photos/*.bmp", "no image is called so"),
        ("photos/*.md", "no image is called so"),
        ("photos/e", "no images in this directory"),
        ("https://somewhere/x.jpg", "addresses are not fetched"),
        (["photos", "nothing"], "nothing: no such file"),
        ("empty.txt", "the list is empty"),
    ],
)
def test_what_names_no_image(folder, source, message):
    Path("empty.txt").write_text("\n \n")
    with pytest.raises((FileNotFoundError, ConfigError), match=message):
        list_images(source)


def test_what_is_left_out_of_a_folder_is_told(folder, caplog, monkeypatch):
    monkeypatch.setattr(common.logger, "propagate", True)
    list_images(folder)
    assert f"{folder}: 3 files are left out by their endings; the first is" in caplog.text


def test_several_files_and_folders_in_a_configuration(run, tmp_path):
    clothes(tmp_path / "clothes" / "deeper", 2)
    paths = [str(tmp_path / "clothes" / "deeper" / f"0000{i}.png") for i in range(2)]
    assert run(f"Infer.infer_imgs=[{paths[1]}, {tmp_path / 'clothes'}]") == 0
    results = json.loads((tmp_path / "out.json").read_text())
    assert [result["file_name"] for result in results] == [paths[1], *paths]


ODD_NAMES = (
    b"\xff\xfe.png",  # not UTF-8
    b"two\nlines.png",
    b"$x^2$ %s {}.png",
    "кот 猫.png".encode(),
    b"n" * 249 + b".png",
)


def test_names_that_no_text_can_have_cost_no_results(run, tmp_path, capsys):
    folder = tmp_path / "odd"
    folder.mkdir()
    picture = (clothes(tmp_path / "clothes", 1) / "00000.png").read_bytes()
    for name in ODD_NAMES:
        (folder / os.fsdecode(name)).write_bytes(picture)
    assert run(f"Infer.infer_imgs={folder}", sheet=tmp_path / "sheet.png") == 0
    results = json.loads((tmp_path / "out.json").read_text("utf-8"))
    found = {os.path.basename(os.fsencode(result["file_name"])) for result in results}
    assert found == set(ODD_NAMES)
    assert len(capsys.readouterr().out.splitlines()) == len(ODD_NAMES)


def test_results_are_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    write_json(path, ["old"])
    with pytest.raises(TypeError):
        write_json(path, ["new", object()])
    monkeypatch.setattr(common.os, "replace", broken)
    with pytest.raises(OSError, match="no"):
        write_json(path, ["new"])
    assert json.loads(path.read_text()) == ["old"]


def broken(*paths):
    raise OSError("no")


def test_results_into_a_pipe(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from ppcls_nextvit.tasks.common import write_json; write_json('/dev/stdout', ['a'])",
        ],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert json.loads(done.stdout) == ["a"], done.stderr


@pytest.mark.slow
def test_as_a_program(weights, tmp_path):
    folder, config = clothes(tmp_path / "clothes", 1), write_config(tmp_path)
    command = [
        sys.executable,
        str(ROOT / "tools" / "infer.py"),
        "-c",
        str(config),
        "-o",
        f"Infer.infer_imgs={folder}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "-o", f"Global.pretrained_model={weights}"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.startswith(f"{folder / '00000.png'}: ") and len(done.stdout.splitlines()) == 1
    )
    failed = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert failed.returncode == 1 and failed.stdout == "" and "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("error: ")
