"""deploy/lite and the `lite` targets: every conversion, x86 logits, and the phone's program, run
here with Paddle Lite's x86 library.

The pixels and the top-k of that program are those of deploy/cpp, whose sources it shares: see
test_deploy_cpp.py.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from PIL import Image

from ppcls_nextvit import create_model
from ppcls_nextvit.data.transforms.pipeline import Preprocess
from ppcls_nextvit.export import TARGETS, lite
from ppcls_nextvit.export.verify import ExportError
from ppcls_nextvit.models.segmentors.encoder_decoder import SemanticFPN
from ppcls_nextvit.tasks.classification.export import export_classifier
from ppcls_nextvit.tasks.segmentation.export import export_segmentor
from support import cpp_programs
from support.goldens import seeded_model
from support.paths import ROOT
from support.programs import program_at
from support.random_models import random_model, random_weights
from support.tiny_run import write_config
from test_deploy_cpp import assert_same, describe, python_predictions
from test_deploy_python import PIPELINES

LITE, PHOTOS = ROOT / "deploy" / "lite", ROOT / "ppcls_nextvit" / "export" / "photos"
TOLERANCE = 1e-5  # of the logits' scale


@functools.cache
def _environment():
    """A new environment of Python 3.7 with Paddle Lite, a TemporaryDirectory; or the reason why
    there is none.
    """
    pythons = [
        shutil.which("python3.7"),
        *sorted(Path.home().glob(".pyenv/versions/3.7.*/bin/python")),
    ]
    python = next(
        (
            path
            for path in pythons
            if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0
        ),
        None,
    )
    if not python:
        return "Paddle Lite's wheel needs Python 3.7, and there is none"
    folder = tempfile.TemporaryDirectory(prefix="lite-")
    for command in (
        [python, "-m", "venv", folder.name],
        [f"{folder.name}/bin/pip", "install", "--quiet", "paddlelite==2.12", "numpy"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return (
                f"paddlelite cannot be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
            )
    return folder


@pytest.fixture
def opt(monkeypatch):
    """Paddle Lite's converter: what PADDLE_LITE_OPT names, or one installed for these tests."""
    if "PADDLE_LITE_OPT" not in os.environ:
        environment = _environment()
        if isinstance(environment, str):
            pytest.skip(environment)
        monkeypatch.setenv("PADDLE_LITE_OPT", f"{environment.name}/bin/paddle_lite_opt")
    return Path(os.environ["PADDLE_LITE_OPT"])


def photos(transforms):
    preprocess = Preprocess(transforms)
    return [preprocess(str(path)) for path in sorted(PHOTOS.glob("*.jpg"))]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The tiny configuration as .pdmodel."""
    folder = tmp_path_factory.mktemp("exported")
    arguments = [
        "-c",
        str(write_config(folder)),
        "-o",
        f"Global.pretrained_model={random_weights(folder / 'w.pdparams')}",
        "-o",
        f"Global.save_inference_dir={folder / 'model'}",
        "--format",
        "pdmodel",
    ]
    assert program_at("tools/export_model.py").main(arguments) == 0
    return folder / "model"


def convert(*arguments, **environment):
    return cpp_programs.run(LITE / "convert.sh", *arguments, env={**os.environ, **environment})


@pytest.mark.chain
@pytest.mark.parametrize(
    "target, megabytes",
    [("arm", 57.6), ("arm-fp16", 57.6), ("arm-int8", 14.7), ("opencl", 57.6), ("x86", 57.6)],
)
def test_convert_sh(opt, exported, tmp_path, target, megabytes):
    done = convert(exported, tmp_path / "deep" / "model", target)
    assert done.returncode == 0 and "for Paddle Lite v2.12\n" in done.stdout, done.stderr
    model = tmp_path / "deep" / "model"
    assert sorted(path.name for path in model.iterdir()) == [
        "export.json",
        "inference.nb",
        "inference.yml",
    ]
    assert [path.name for path in model.parent.iterdir()] == ["model"], "the working folder is gone"
    described = yaml.safe_load((model / "inference.yml").read_text())
    assert described == json.loads((model / "export.json").read_text())
    size = (model / "inference.nb").stat().st_size
    assert (
        size
        == described["Files"]["inference.nb"]["bytes"]
        == pytest.approx(megabytes * 1e6, rel=0.01)
    )
    before = yaml.safe_load((exported / "inference.yml").read_text())
    assert {key: described[key] for key in ("PreProcess", "PostProcess", "Model")} == {
        key: before[key] for key in ("PreProcess", "PostProcess", "Model")
    }


@pytest.mark.chain
@pytest.mark.parametrize(
    "name, precision, megabytes",
    [
        ("lite", "fp32", 57.6),
        ("lite", "fp16", 57.6),
        ("lite", "int8", 14.7),
        ("lite-opencl", "fp32", 57.6),
    ],
)
def test_export_for_a_phone(opt, tmp_path, name, precision, megabytes):
    """Their kernels do not run here, and the report says so."""
    result = export_classifier(
        random_model(), TARGETS[name], tmp_path / "model", {}, (32, 32), precision=precision
    )
    assert result.report is None and result.size / 1e6 == pytest.approx(megabytes, rel=0.01)
    assert json.loads((tmp_path / "model" / "export.json").read_text())["Check"] == {"ran": False}


@pytest.mark.slow
def test_a_segmentor_s_labels_are_paddle_s(opt, tmp_path):
    paddle.seed(0)
    backbone = {"name": "NextViT_small", "depths": [1, 1, 5, 1], "extra_norms": True}
    model = create_model("SemanticFPN", num_classes=3, backbone=backbone, **SemanticFPN.toy)
    options = {"batch": 1, "size": (64, 96)}
    target = TARGETS["lite-x86"]
    report = export_segmentor(model, target, tmp_path, {}, (64, 96), **options).report
    assert report.difference["labels"] < 1e-3 and report.difference["logits"] < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("size, batch", [((32, 32), None), (None, None), ((48, 64), 2)])
def test_x86_logits_are_paddle_s(opt, tmp_path, size, batch):
    """On photos and random inputs, in batches, at several sizes where the program takes any: those
    that the export itself compares.
    """
    result = export_classifier(
        random_model(),
        TARGETS["lite-x86"],
        tmp_path / "model",
        {},
        (32, 32),
        softmax=False,
        batch=batch,
        size=size,
        photos=photos(PIPELINES["tiny"]),
    )
    assert result.report.worst < TOLERANCE and result.report.images == result.report.same_top1 >= 6
    assert (
        len({tuple(shape) for shape in result.report.shapes})
        >= {None: 5, (32, 32): 2, (48, 64): 1}[size]
    )


@pytest.mark.chain
def test_x86_logits_of_nextvit_small(opt, tmp_path):
    """The published architecture, all seeded, at 224 x 224."""
    result = export_classifier(
        seeded_model("NextViT_small"),
        TARGETS["lite-x86"],
        tmp_path / "model",
        {},
        size=(224, 224),
        softmax=False,
        photos=photos(PIPELINES["published recipe"]),
    )
    assert result.report.worst < TOLERANCE and result.report.images == result.report.same_top1 == 6


@pytest.mark.slow
def test_int8_weights_are_near(opt, tmp_path):
    """Which are what the phone's file holds; here the x86 engine runs them."""
    result = export_classifier(
        random_model(),
        TARGETS["lite-x86"],
        tmp_path / "model",
        {},
        (32, 32),
        softmax=False,
        precision="int8",
        photos=photos(PIPELINES["tiny"]),
    )
    assert TOLERANCE < result.report.worst < 0.15, "quantised, and not broken"


def script(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "body, message",
    [
        ("kill -SEGV $$", "ended with status 139"),
        ("echo no kernel for shape; exit 3", "status 3: no kernel for shape"),
        ("exit 0", "wrote no file"),
    ],
)
def test_failed_conversion_leaves_nothing(exported, tmp_path, monkeypatch, body, message):
    fake = script(tmp_path / "opt", body)
    done = convert(exported, tmp_path / "out" / "model", PADDLE_LITE_OPT=fake)
    assert (
        done.returncode == 1
        and done.stdout == ""
        and done.stderr.count("\n") == 1
        and message in done.stderr
    )
    assert not list((tmp_path / "out").iterdir())
    monkeypatch.setenv("PADDLE_LITE_OPT", fake)
    # which takes its time, and is not reached by these failures
    monkeypatch.setattr(lite, "save_program", lambda *arguments: 0)
    with pytest.raises(ExportError, match=r"exit status (-11|3)\)|wrote no file"):
        export_classifier(random_model(), TARGETS["lite"], tmp_path / "out" / "model", {}, (32, 32))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["{model}", "{tmp}/out", "cuda"],
            "unknown target 'cuda'; expected arm, arm-fp16, arm-int8, opencl or x86",
        ),
        (["{tmp}", "{tmp}/out"], "inference.pdmodel: no such file; export with --format pdmodel"),
        (["{model}", "{tmp}"], "exists; give a new folder"),
    ],
)
def test_bad_arguments_of_convert_sh(exported, tmp_path, arguments, message):
    done = convert(
        *[part.format(model=exported, tmp=tmp_path) for part in arguments], PADDLE_LITE_OPT="true"
    )
    assert (
        done.returncode == 1
        and done.stderr.startswith("error: ")
        and done.stderr.count("\n") == 1
        and message in done.stderr
    )
    assert convert(exported).returncode == 2


def test_missing_converter_says_how_to_get_it(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLE_LITE_OPT", str(tmp_path / "none"))
    assert "pip install paddlelite==2.12" in convert(exported, tmp_path / "out").stderr
    with pytest.raises(
        ImportError, match="python3.7 -m venv lite && lite/bin/pip install paddlelite==2.12"
    ):
        export_classifier(random_model(), TARGETS["lite"], tmp_path / "out", {}, (32, 32))
    assert not list(tmp_path.iterdir())


# The phone's program, linked with the x86 library of the wheel


@functools.cache
def _program(opt):
    """The folder of image_classification, built by the phone's own Makefile."""
    if not shutil.which("c++") or not shutil.which("make"):
        cpp_programs.unavailable("no make or no C++ compiler")
    folder = tempfile.TemporaryDirectory(prefix="lite-build-")
    query = (
        "import paddlelite, sysconfig, os; print(os.path.dirname(paddlelite.__file__), "
        "sysconfig.get_config_var('LIBDIR'))"
    )
    package, libraries = subprocess.run(
        [opt.with_name("python"), "-c", query], capture_output=True, text=True, check=True
    ).stdout.split()
    # the name that lite.so has for the linker
    library = Path(folder.name) / "liblite_pybind.so"
    library.symlink_to(Path(package) / "lite.so")
    # where it looks for its own libraries
    (Path(folder.name) / "libs").symlink_to(Path(package) / "libs")
    link = (
        f"-L{libraries} -lpython3.7m "
        f"-Wl,--disable-new-dtags,-rpath,{libraries}:{folder.name},-rpath-link,{folder.name}/libs"
    )
    done = cpp_programs.run(
        "make",
        "-C",
        LITE,
        "CXX=c++",
        f"BUILD={folder.name}/build",
        f"LITE_INCLUDE={LITE / 'compat'}",
        f"LITE_LIBRARY={library}",
        "DEPS=/usr",
        f"LDFLAGS={link}",
    )
    if "fatal error" in done.stderr or "cannot find -l" in done.stderr:
        cpp_programs.unavailable(
            re.search(r"fatal error: .*|cannot find -l\S+", done.stderr).group()
        )
    assert done.returncode == 0 and "warning:" not in done.stderr, done.stderr
    return folder


@pytest.fixture
def program(opt):
    return Path(_program(opt).name) / "build" / "image_classification"


@pytest.fixture
def model(opt, exported, tmp_path):
    assert convert(exported, tmp_path / "model", "x86").returncode == 0
    return tmp_path / "model"


@pytest.mark.chain
def test_phone_s_program_predicts_what_python_does(program, exported, model, tmp_path):
    expected = python_predictions(exported, PHOTOS, tmp_path, "--topk", "5")
    for options in ([], ["--batch-size", "1"], ["--threads", "2", "--batch-size=3"]):
        done = cpp_programs.run(
            program,
            "--model",
            model,
            "--images",
            PHOTOS,
            "--topk",
            "5",
            "--json",
            tmp_path / "out.json",
            *options,
        )
        assert done.returncode == 0, done.stderr
        assert_same(json.loads((tmp_path / "out.json").read_text()), expected)


@pytest.mark.chain
def test_bad_input_of_the_phone_s_program_is_one_line(program, model, tmp_path):
    def fails(message, *arguments, status=1):
        done = cpp_programs.run(program, "--model", model, "--images", PHOTOS, *arguments)
        assert (
            done.returncode == status
            and done.stdout == ""
            and done.stderr.count("\n") == 1
            and message in done.stderr
        )

    fails("unknown option '--device'", "--device", "gpu", status=2)
    fails("no such file or directory", "--images", tmp_path / "none")
    data = (model / "inference.nb").read_bytes()
    (model / "inference.nb").write_bytes(data[: len(data) // 2])
    fails("inference.nb: does not match inference.yml, so it is damaged or of another export")
    (model / "inference.nb").unlink()
    fails("inference.nb: cannot be read: No such file")
    (model / "inference.yml").write_text(
        (model / "inference.yml").read_text().replace("inference.nb", "inference.bin")
    )
    fails("expected one .nb under Files")


@pytest.mark.slow
def test_run_adb_sh(program, model, tmp_path):
    """With an adb that takes a folder here for the phone's: what is pushed, what runs, what comes
    back, and the exit status.
    """
    phone = tmp_path / "phone"
    script(
        tmp_path / "adb",
        f"""
        to_here() {{ printf '%s' "$1" | sed 's#/data/local/tmp#{phone}#g'; }}
        [ "$1 $2" = "-s emulator" ] || exit 9
        shift 2
        case $1 in
            shell) sh -c "$(to_here "$2")" ;;
            push) shift; eval "last=\\${{$#}}"; while [ $# -gt 1 ]; do cp -rL "$1" "$(to_here "$last")"; shift; done ;;
            pull) cp "$(to_here "$2")" "$3" ;;
        esac""",
    )
    environment = {
        **os.environ,
        "ADB": f"{tmp_path / 'adb'} -s emulator",
        "BUILD": str(program.parent),
    }
    images = tmp_path / "my photos"
    shutil.copytree(PHOTOS, images)
    phone.mkdir()
    done = cpp_programs.run(
        LITE / "run_adb.sh", model, images, "--topk", "1", cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4 and done.stdout.startswith(
        "my photos/chair_559.jpg: "
    )
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 4
    (images / "bad.jpg").write_bytes(b"")
    done = cpp_programs.run(LITE / "run_adb.sh", model, images, cwd=tmp_path, env=environment)
    assert done.returncode == 1 and "bad.jpg: the file is empty" in done.stderr
    assert cpp_programs.run(
        LITE / "run_adb.sh", model, tmp_path / "none", cwd=tmp_path, env=environment
    ).stderr.endswith("none: no such file\n")


def test_makefile_builds_for_the_phone_with_the_ndk(tmp_path):
    """Which is not here: the commands it would run."""
    if not shutil.which("make"):
        cpp_programs.unavailable("no make")
    runtime = "ndk/toolchains/llvm/prebuilt/linux-x86_64/sysroot/usr/lib/{}/libc++_shared.so"
    for path in (
        "lite/cxx/lib/libpaddle_light_api_shared.so",
        runtime.format("aarch64-linux-android"),
        runtime.format("arm-linux-androideabi"),
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    given = [
        f"NDK={tmp_path / 'ndk'}",
        f"LITE={tmp_path / 'lite'}",
        "DEPS=/deps",
        f"BUILD={tmp_path / 'build'}",
    ]
    environment = {key: value for key, value in os.environ.items() if key != "CXX"}
    for abi, compiler in (
        ("arm64-v8a", "aarch64-linux-android24-clang++"),
        ("armeabi-v7a", "armv7a-linux-androideabi24-clang++"),
    ):
        done = cpp_programs.run("make", "-n", "-C", LITE, *given, f"ABI={abi}", env=environment)
        assert done.returncode == 0, done.stderr
        *compiled, linked = (
            line for line in done.stdout.splitlines() if f"/bin/{compiler} " in line
        )
        objects = [re.search(r" -std=c\+\+17 .*-o (\S+\.o) \S+\.cc$", line)[1] for line in compiled]
        assert objects and objects == re.findall(r"\S+\.o\b", linked)
        assert "libc++_shared.so" in done.stdout
    assert (
        "give NDK, LITE and DEPS"
        in cpp_programs.run("make", "-n", "-C", LITE, env=environment).stderr
    )


def test_sources_compile_against_the_declarations(tmp_path):
    """Also where the wheel is not."""
    if not shutil.which("c++"):
        cpp_programs.unavailable("no C++ compiler")
    done = cpp_programs.run(
        "c++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsyntax-only",
        f"-I{LITE / 'compat'}",
        f"-I{ROOT / 'deploy/cpp/src'}",
        LITE / "image_classification.cc",
    )
    assert done.returncode == 0, done.stderr


# The Android app

APP = LITE / "android" / "app" / "src" / "main"
HARNESS = """
package org.nextvit.demo
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun main(args: Array<String>) {                     // export.json, pixels, width, height, where the input goes; again and again
    for ((json, pixels, width, height, out) in args.toList().chunked(5)) {
        val recipe = Recipe(File(json).readText())
        val ints = ByteBuffer.wrap(File(pixels).readBytes()).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer()
        val argb = IntArray(ints.remaining()).also { ints.get(it) }
        val input = recipe.input(argb, width.toInt(), height.toInt())
        val bytes = ByteBuffer.allocate(4 * input.values.size).order(ByteOrder.LITTLE_ENDIAN)
        bytes.asFloatBuffer().put(input.values)
        File(out).writeBytes(bytes.array())
        val best = recipe.predictions(floatArrayOf(0.5f, 2.5f, -1f, 2.5f))
        println("${input.height} ${input.width} " + best.joinToString(" ") { "${it.label} ${it.score}" })
    }
}
"""


def test_android_names_fit_together():
    kotlin = {path.name: path.read_text() for path in (APP / "kotlin/org/nextvit/demo").iterdir()}
    functions = re.findall(r"external fun (\w+)", kotlin["Native.kt"])
    assert (
        sorted(functions)
        == sorted(
            re.findall(r"Java_org_nextvit_demo_Native_(\w+)\(", (APP / "cpp/native.cc").read_text())
        )
        != []
    )
    resources = "".join(path.read_text() for path in (APP / "res").rglob("*.xml"))
    named = set(
        re.findall(r"R\.(string|id)\.(\w+)", "".join(kotlin.values()))
        + re.findall(r"@(string)/(\w+)", resources)
    )
    assert {kind for kind, _ in named} == {"string", "id"}
    for kind, name in named:
        assert (f'<string name="{name}">' if kind == "string" else f'"@+id/{name}"') in resources, (
            name
        )


@pytest.mark.slow
def test_android_preprocessing_is_that_of_evaluation(tmp_path):
    json_jar = Path("/usr/share/java/json-android.jar")  # org.json as Android has it
    if not (shutil.which("kotlinc") and shutil.which("javac") and json_jar.exists()):
        pytest.skip(
            "the app's code runs where its compilers are: apt-get install kotlin "
            "default-jdk-headless libandroid-json-org-java"
        )
    include = Path(shutil.which("javac")).resolve().parents[1] / "include"
    done = cpp_programs.run(
        "c++",
        "-std=c++17",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-ffp-contract=off",
        "-shared",
        "-fPIC",
        f"-I{include}",
        f"-I{include / 'linux'}",
        f"-I{ROOT / 'deploy/cpp/src'}",
        APP / "cpp/native.cc",
        ROOT / "deploy/cpp/src/preprocess.cc",
        ROOT / "deploy/cpp/src/postprocess.cc",
        "-o",
        tmp_path / "libnextvit.so",
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "Main.kt").write_text(HARNESS)
    sources = [APP / "kotlin/org/nextvit/demo" / name for name in ("Native.kt", "Recipe.kt")]
    done = cpp_programs.run(
        "kotlinc",
        "-cp",
        json_jar,
        *sources,
        tmp_path / "Main.kt",
        "-include-runtime",
        "-d",
        tmp_path / "app.jar",
    )
    assert done.returncode == 0, done.stderr

    arguments, expected = [], []
    for name in (
        "published recipe",
        "crop beyond the image",
        "BGR resized",
        "channels first, then normalised",
        "not normalised",
    ):
        for photo in ("chair_559.jpg", "drum_541.jpg"):
            stem = tmp_path / str(len(expected))
            described = yaml.safe_load(
                describe(
                    stem.with_suffix(".yml"), PIPELINES[name], classes="abcd", softmax=False
                ).read_text()
            )
            described["PostProcess"]["Topk"]["topk"] = 3
            stem.with_suffix(".json").write_text(json.dumps(described))
            pixels = np.asarray(Image.open(PHOTOS / photo)).astype(np.uint32)
            (0xFF << 24 | pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]).astype(
                "<u4"
            ).tofile(stem.with_suffix(".argb"))
            arguments += [
                stem.with_suffix(".json"),
                stem.with_suffix(".argb"),
                pixels.shape[1],
                pixels.shape[0],
                stem.with_suffix(".f32"),
            ]
            expected.append(Preprocess(PIPELINES[name])(str(PHOTOS / photo)))
    done = cpp_programs.run(
        "java",
        f"-Djava.library.path={tmp_path}",
        "-cp",
        f"{tmp_path / 'app.jar'}:{json_jar}",
        "org.nextvit.demo.MainKt",
        *arguments,
    )
    assert done.returncode == 0, done.stderr
    share = np.exp([0.5, 2.5, -1, 2.5]) / np.exp([0.5, 2.5, -1, 2.5]).sum()
    for index, (line, values) in enumerate(zip(done.stdout.splitlines(), expected, strict=True)):
        height, width, *best = line.split()
        assert (int(height), int(width)) == values.shape[1:]
        assert (tmp_path / f"{index}.f32").read_bytes() == values.tobytes()
        assert best[::2] == ["b", "d", "a"] and np.allclose(
            np.array(best[1::2], float), share[[1, 3, 0]]
        )
