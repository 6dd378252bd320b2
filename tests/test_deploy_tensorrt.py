"""deploy/tensorrt: TensorRT-RTX parses our files and builds engines; what surrounds the API (8.6
and later) by a stand-in for it.
"""

import hashlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ppcls_nextvit import create_model
from ppcls_nextvit.export import TARGETS
from ppcls_nextvit.export.verify import Signature
from ppcls_nextvit.models import export_form
from ppcls_nextvit.models.registry import variant_of
from ppcls_nextvit.tasks.classification.export import export_classifier
from ppcls_nextvit.tasks.detection.export import ObjectTable
from ppcls_nextvit.tasks.segmentation.export import LabelMap
from support.pictures import clothes
from support.programs import program_at
from support.random_models import random_model

build = program_at("deploy/tensorrt/build.py")
infer = program_at("deploy/tensorrt/infer.py")
CLASSES = 10
BACKBONE = {"name": "NextViT_small", "depths": [1, 1, 5, 1]}


@pytest.fixture
def model(tmp_path):
    """A folder as an export writes it; the stand-in asks nothing of the ONNX itself."""
    return write_export(tmp_path / "model")


def write_export(folder, precision="fp16", shape=(None, 3, 32, 32)):
    folder.mkdir(exist_ok=True)
    (folder / "inference.onnx").write_bytes(b"onnx")
    description = {
        "Files": {"inference.onnx": {"sha256": hashlib.sha256(b"onnx").hexdigest()}},
        "Export": {"precision": precision, "inputs": {"x": list(shape)}, "outputs": ["logits"]},
        "Model": {
            "class_num": CLASSES,
            "softmax": False,
            "input": {"shape": list(shape), "image_size": [32, 32], "min_size": 32},
        },
        "PreProcess": {
            "transform_ops": [
                {"DecodeImage": {}},
                {"ResizeImage": {"size": 32, "backend": "pil"}},
                {"NormalizeImage": {"order": ""}},
            ]
        },
        "PostProcess": {"Topk": {"topk": 2, "label_list": [f"class {i}" for i in range(CLASSES)]}},
    }
    (folder / "export.json").write_text(json.dumps(description))
    return folder


def stand_in(strongly_typed=True, engine=b"engine", errors=(), cache=True):
    """A module with the part of TensorRT's Python API that build.py uses. `calls` lists what was
    asked of it.
    """
    calls = []
    kinds = {"STRONGLY_TYPED": 1} if strongly_typed else {"EXPLICIT_BATCH": 0}

    class Config:
        def set_flag(self, flag):
            calls.append(("flag", flag))

        def add_optimization_profile(self, profile):
            calls.append(("profile", profile.shapes))

        def set_memory_pool_limit(self, pool, size):
            calls.append(("workspace", pool, size))

        def create_timing_cache(self, data):
            calls.append(("cache read", data))
            return data if cache else None

        def set_timing_cache(self, cache, ignore_mismatch):
            assert ignore_mismatch is False, "timings of another GPU would be wrong ones"
            return True

        def get_timing_cache(self):
            return SimpleNamespace(serialize=lambda: b"new timings")

    class Profile:
        def __init__(self):
            self.shapes = {}

        def set_shape(self, name, low, usual, high):
            self.shapes[name] = low, usual, high

    class Builder:
        def __init__(self, logger):
            pass

        create_builder_config = Config
        create_optimization_profile = Profile

        def create_network(self, flags):
            calls.append(("network", flags))

        def build_serialized_network(self, network, config):
            return engine

    class OnnxParser:
        num_errors = len(errors)

        def __init__(self, network, logger):
            pass

        def parse(self, data):
            return not errors

        def get_error(self, i):
            return errors[i]

    Builder.create_builder_config = lambda self: Config()
    Builder.create_optimization_profile = lambda self: Profile()
    return SimpleNamespace(
        calls=calls,
        Builder=Builder,
        OnnxParser=OnnxParser,
        Logger=Logger,
        __version__="0.0",
        NetworkDefinitionCreationFlag=SimpleNamespace(__members__=kinds),
        BuilderFlag=SimpleNamespace(FP16="FP16", INT8="INT8"),
        MemoryPoolType=SimpleNamespace(WORKSPACE="WORKSPACE"),
    )


class Logger:
    VERBOSE, WARNING = 4, 2

    def __init__(self, level):
        pass


@pytest.mark.parametrize(
    "shape, asked, expected",
    [
        ((None, 3, 224, 224), {}, [(1, 3, 224, 224), (8, 3, 224, 224), (32, 3, 224, 224)]),
        ((4, 3, 224, 256), {}, [(4, 3, 224, 256)] * 3),
        (
            (None, 3, None, None),
            {"batch": (1, 1, 2), "height": (32, 64, 96), "width": (40, 40, 80)},
            [(1, 3, 32, 40), (1, 3, 64, 40), (2, 3, 96, 80)],
        ),
        ((1, 3, None, None), {}, [(1, 3, 384, 320)] * 3),
    ],
)
def test_profiles(shape, asked, expected):
    assert build.profile_shapes(shape, asked, (384, 320)) == expected


@pytest.mark.parametrize("rows, status", [([1, 2], 0), ([None, 2], 1), ([1, 2, 3], 1)])
def test_a_detector_s_other_inputs_have_a_profile_too(tmp_path, monkeypatch, capsys, rows, status):
    folder = write_export(tmp_path / "model", "fp32", (1, 3, None, None))
    description = json.loads((folder / "export.json").read_text())
    description["Export"]["inputs"] = {"image": [1, 3, None, None], "im_shape": rows}
    (folder / "export.json").write_text(json.dumps(description))
    tensorrt = stand_in()
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    assert build.main(["--model", str(folder), "--height", "32", "64", "96"]) == status
    if status:
        assert "expected sizes of images, got" in capsys.readouterr().err
        return
    shapes = dict(tensorrt.calls)["profile"]
    assert shapes["im_shape"] == ((1, 2),) * 3
    assert shapes["image"] == ((1, 3, 32, 32), (1, 3, 64, 32), (1, 3, 96, 32))


@pytest.mark.parametrize(
    "shape, asked, message",
    [
        ((4, 3, 224, 224), {"batch": (1, 2, 3)}, "--batch: the export has a fixed batch of 4"),
        (
            (None, 3, 224, 224),
            {"height": (1, 2, 3)},
            "--height: the export has a fixed height of 224",
        ),
        (
            (None, 3, 224, 224),
            {"batch": (4, 2, 8)},
            "--batch: expected 1 <= smallest <= usual <= largest, got 4 2 8",
        ),
    ],
)
def test_wrong_profiles(shape, asked, message):
    with pytest.raises(build.BuildError, match=message):
        build.profile_shapes(shape, asked, (224, 224))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("strongly_typed", [True, False])
def test_types_come_from_the_file_or_from_flags(tmp_path, monkeypatch, precision, strongly_typed):
    """A strongly typed network takes no precision flags; TensorRT 8.6 has no such network and needs
    them.
    """
    model, trt = write_export(tmp_path / "model", precision), stand_in(strongly_typed)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    assert build.main(["--model", str(model), "--workspace", "64"]) == 0
    flags = [call[1] for call in trt.calls if call[0] == "flag"]
    assert flags == (
        []
        if strongly_typed
        else {"fp32": [], "fp16": ["FP16"], "int8": ["FP16", "INT8"]}[precision]
    )
    assert ("network", 2 if strongly_typed else 1) in trt.calls
    assert ("profile", {"x": ((1, 3, 32, 32), (8, 3, 32, 32), (32, 3, 32, 32))}) in trt.calls
    assert ("workspace", "WORKSPACE", 64 << 20) in trt.calls
    assert (model / "inference.engine").read_bytes() == b"engine"
    assert json.loads((model / "inference.engine.json").read_text())["precision"] == precision


def test_timings_are_read_and_renewed(model, tmp_path, monkeypatch):
    trt = stand_in()
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    for _ in range(2):
        assert build.main(["--model", str(model), "--timing-cache", str(tmp_path / "timings")]) == 0
    assert [call[1] for call in trt.calls if call[0] == "cache read"] == [b"", b"new timings"]
    assert (tmp_path / "timings").read_bytes() == b"new timings"


@pytest.mark.parametrize(
    "arguments, trt, message",
    [
        ([], {"engine": None}, "could not build an engine"),
        ([], {"errors": ("bad node 7",)}, "inference.onnx: TensorRT cannot read it: bad node 7"),
        (
            ["--timing-cache", "{}/timings"],
            {"cache": False},
            "timings: not a timing cache of this TensorRT",
        ),
        (
            ["--compute-capability", "8.9"],
            {},
            "--compute-capability: TensorRT builds for the GPU in the machine; give --rtx",
        ),
        (["--rtx", "--timing-cache", "x"], {}, "--timing-cache: TensorRT-RTX keeps none"),
        (["--batch", "3", "2", "1"], {}, "expected 1 <= smallest"),
    ],
)
def test_a_failed_build_is_one_line_and_leaves_nothing(
    model, tmp_path, monkeypatch, capsys, arguments, trt, message
):
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in(**trt))
    assert build.main(["--model", str(model), *(text.format(tmp_path) for text in arguments)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(path.name for path in model.iterdir()) == ["export.json", "inference.onnx"]


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda folder: (folder / "inference.onnx").write_bytes(b"other"),
            "does not match export.json",
        ),
        (lambda folder: (folder / "inference.onnx").unlink(), "inference.onnx: no such file"),
        (
            lambda folder: (folder / "export.json").write_text("{}"),
            "not the description of an export",
        ),
        (lambda folder: (folder / "export.json").unlink(), "export.json: no such file"),
    ],
)
def test_damaged_exports(model, monkeypatch, capsys, damage, message):
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in())
    damage(model)
    assert build.main(["--model", str(model)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_no_permission_to_write(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in())

    def refuse(self, data):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(build.Path, "write_bytes", refuse)
    assert build.main(["--model", str(model)]) == 1
    assert "Permission denied" in capsys.readouterr().err


def test_tensorrt_that_is_not_installed(model, monkeypatch, capsys):
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    for arguments, package in (
        ([], "pip install tensorrt"),
        (["--rtx"], "pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings"),
    ):
        assert build.main(["--model", str(model), *arguments]) == 1
        assert package in capsys.readouterr().err


@pytest.fixture(scope="module", params=["fp16", "int8"])
def exported(request, tmp_path_factory):
    for package in ("tensorrt_rtx_bindings", "paddle2onnx", "onnxslim", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs {package}, of the extras onnx and tensorrt")
    folder, rng = tmp_path_factory.mktemp("exported"), np.random.default_rng(0)
    target, images = (
        TARGETS["tensorrt"],
        list(rng.standard_normal((8, 3, 32, 32)).astype(np.float32)),
    )
    if request.param == "int8":
        from ppcls_nextvit.tasks.classification.quantize import export_pair

        export_pair(
            random_model(),
            target,
            {"fp32": folder / "fp32", "int8": folder / "int8"},
            {},
            (32, 32),
            images,
        )
    else:
        export_classifier(
            random_model(),
            target,
            folder / request.param,
            {},
            (32, 32),
            size=(32, 32),
            precision=request.param,
        )
    return folder / request.param


@pytest.mark.chain
def test_tensorrt_rtx_builds_our_files(exported, capsys):
    """The whole graph, in each precision, ahead of time for a GPU that is not here. The size shows
    that weights are in that precision.
    """
    assert (
        build.main(
            [
                "--model",
                str(exported),
                "--rtx",
                "--compute-capability",
                "8.9",
                "--batch",
                "1",
                "4",
                "16",
            ]
        )
        == 0
    )
    weights = sum(parameter.size for parameter in random_model().parameters())
    bytes_per_weight = (exported / "inference.engine").stat().st_size / weights
    # of int8, biases and kernels' tables on top
    low, high = {"fp16": (2, 2.5), "int8": (1, 2.2)}[exported.name]
    assert low < bytes_per_weight < high
    record = json.loads((exported / "inference.engine.json").read_text())
    assert record["compute_capability"] == ["8.9"] and record["profiles"] == {
        "x": [[n, 3, 32, 32] for n in (1, 4, 16)]
    }
    assert build.main(["--model", str(exported), "--rtx", "--compute-capability", "1.0"]) == 1
    assert (
        "--compute-capability 1.0: not known; expected one of 7.5, 8.0" in capsys.readouterr().err
    )


# infer.py, with a stand-in for CUDA and the engine: "GPU memory" is this machine's, by address.


class Cuda:
    kinds = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self):
        self.memory, self.freed, self.next = {}, [], 1

    def __call__(self, name, *arguments):
        return getattr(self, name)(*arguments)

    def cudaStreamCreate(self):
        return 77

    def cudaStreamSynchronize(self, stream):
        assert stream == 77

    def cudaMalloc(self, size):
        self.next += 1
        self.memory[self.next] = bytearray(size)
        return self.next

    def cudaFree(self, address):
        self.freed.append(address)
        del self.memory[address]

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        import ctypes

        if kind == 1:
            self.memory[target][:size] = ctypes.string_at(source, size)
        else:
            ctypes.memmove(target, bytes(self.memory[source][:size]), size)


def runtime(cuda, low=(2, 3, 32, 32), high=(4, 3, 32, 64), readable=True):
    """TensorRT's run-time API over `cuda`: the output's class c is the mean of the image plus c."""
    mode, batches = SimpleNamespace(INPUT="in", OUTPUT="out"), []

    class Context:
        def __init__(self):
            self.addresses = {}

        def set_input_shape(self, name, shape):
            self.shape = shape

        def get_tensor_shape(self, name):
            return self.shape[0], CLASSES

        def set_tensor_address(self, name, address):
            self.addresses[name] = address

        def execute_async_v3(self, stream):
            size = 4 * int(np.prod(self.shape))
            batch = np.frombuffer(
                bytes(cuda.memory[self.addresses["x"]][:size]), np.float32
            ).reshape(self.shape)
            batches.append(self.shape)
            output = (
                (batch.mean(axis=(1, 2, 3))[:, None] + np.arange(CLASSES))
                .astype(np.float32)
                .tobytes()
            )
            cuda.memory[self.addresses["logits"]][: len(output)] = output
            return True

    engine = SimpleNamespace(
        create_execution_context=Context,
        num_io_tensors=2,
        get_tensor_name=lambda i: ("x", "logits")[i],
        get_tensor_mode=lambda name: {"x": "in", "logits": "out"}[name],
        get_tensor_profile_shape=lambda name, profile: (low, low, high),
    )
    return SimpleNamespace(
        Logger=Logger,
        TensorIOMode=mode,
        __version__="0.0",
        batches=batches,
        Runtime=lambda logger: SimpleNamespace(
            deserialize_cuda_engine=lambda data: engine if readable else None
        ),
    )


def test_batches_are_split_and_filled_up_to_the_engines_range(model):
    (model / "inference.engine").write_bytes(b"engine")
    cuda = Cuda()
    trt = runtime(cuda)
    engine = infer.Engine(model / "inference.engine", trt, cuda)
    for count, expected in ((9, [4, 4, 2]), (1, [2]), (4, [4])):
        trt.batches.clear()
        images = np.random.default_rng(count).standard_normal((count, 3, 32, 48), dtype=np.float32)
        output = engine(images)
        assert output.shape == (count, CLASSES)
        assert np.allclose(
            output, images.mean(axis=(1, 2, 3))[:, None] + np.arange(CLASSES), atol=1e-6
        )
        assert [shape[0] for shape in trt.batches] == expected
    assert len(cuda.memory) == 2, "memory is kept for the next run, and the smaller piece is freed"
    with pytest.raises(
        ValueError,
        match=r"images of \[3, 32, 80\]: the engine was built for \[3, 32, 32\] to \[3, 32, 64\]",
    ):
        engine(np.zeros((1, 3, 32, 80), np.float32))


def test_predictions_and_top1(model, tmp_path, monkeypatch, capsys):
    (model / "inference.engine").write_bytes(b"engine")
    record = {"onnx_sha256": hashlib.sha256(b"onnx").hexdigest(), "precision": "int8", "rtx": False}
    (model / "inference.engine.json").write_text(json.dumps(record))
    cuda = Cuda()
    monkeypatch.setitem(sys.modules, "tensorrt", runtime(cuda, high=(8, 3, 32, 32)))
    monkeypatch.setattr(infer, "Cuda", lambda: cuda)
    folder = clothes(tmp_path / "clothes", 4)
    labels = tmp_path / "labels.txt"
    labels.write_text(
        "".join(f"test/{i:05d}.png {label}\n" for i, label in enumerate((9, 9, 1, 9)))
    )
    arguments = ["--model", str(model), "--images", str(folder)]
    assert (
        infer.main([*arguments, "--labels", str(labels), "--json", str(tmp_path / "out.json")]) == 0
    )
    printed = capsys.readouterr().out
    assert "class 9" in printed and "top-1 of the int8 engine: 75.00 % of 4 images" in printed
    for content, message in (
        ("", "4 of 4 images are not in the list"),
        ("a b c\n", "labels.txt:1: expected 'path label'"),
    ):
        labels.write_text(content)
        assert (
            infer.main([*arguments, "--labels", str(labels), "--json", str(tmp_path / "out.json")])
            == 1
        )
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda folder: (folder / "inference.engine").unlink(),
            "inference.engine: no such file; run build.py",
        ),
        (
            lambda folder: (folder / "inference.engine.json").write_text('{"onnx_sha256": "0"}'),
            "built from another export; run build.py again",
        ),
        (lambda folder: None, "this TensorRT (0.0) or GPU cannot run it"),
    ],
)
def test_engines_that_cannot_run(model, tmp_path, monkeypatch, capsys, change, message):
    (model / "inference.engine").write_bytes(b"engine")
    record = {"onnx_sha256": hashlib.sha256(b"onnx").hexdigest(), "precision": "fp16", "rtx": False}
    (model / "inference.engine.json").write_text(json.dumps(record))
    cuda = Cuda()
    monkeypatch.setitem(sys.modules, "tensorrt", runtime(cuda, readable=False))
    monkeypatch.setattr(infer, "Cuda", lambda: cuda)
    change(model)
    assert (
        infer.main(["--model", str(model), "--images", str(clothes(tmp_path / "clothes", 1))]) == 1
    )
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_cuda_errors_carry_their_name():
    class Failure(int):
        def __str__(self):
            return "cudaErrorMemoryAllocation"

    cuda = infer.Cuda.__new__(infer.Cuda)
    cuda.runtime = SimpleNamespace(
        cudaMalloc=lambda size: (Failure(2), 0),
        cudaFree=lambda address: (0,),
        cudaStreamCreate=lambda: (0, 5),
    )
    with pytest.raises(ValueError, match="cudaMalloc: cudaErrorMemoryAllocation"):
        cuda("cudaMalloc", 8)
    assert cuda("cudaFree", 8) is None and cuda("cudaStreamCreate") == 5


@pytest.mark.long
@pytest.mark.parametrize("name", ["UPerNet", "DINO"])
def test_tensorrt_rtx_builds_what_finds_and_what_segments(name, tmp_path):
    """At any size, ahead of time for a GPU that is not here."""
    for package in ("tensorrt_rtx_bindings", "paddle2onnx", "onnxslim"):
        pytest.importorskip(package, reason=f"needs {package}, of the extras onnx and tensorrt")
    arguments = {**variant_of(name).family.toy, "backbone": BACKBONE}
    model = create_model(name, num_classes=3, **arguments)
    model.eval()
    image = (1, 3, None, None)
    if name == "DINO":
        pair = {"im_shape": (1, 2), "scale_factor": (1, 2)}
        layer, signature = ObjectTable(model), Signature({"image": image, **pair}, ("objects",))
    else:
        layer, signature = LabelMap(model), Signature({"x": image}, ("labels", "logits"))
    folder = write_export(tmp_path / "model", "fp32", image)
    TARGETS["tensorrt"].write(export_form(layer), folder, signature, "fp32", ())
    description = json.loads((folder / "export.json").read_text())
    digest = hashlib.sha256((folder / "inference.onnx").read_bytes()).hexdigest()
    description["Files"]["inference.onnx"]["sha256"] = digest
    description["Export"]["inputs"] = {key: list(to) for key, to in signature.inputs.items()}
    (folder / "export.json").write_text(json.dumps(description))
    arguments = ["--rtx", "--compute-capability", "8.9"]
    for side in ("--height", "--width"):
        arguments += [side, "64", "128", "192"]
    assert build.main(["--model", str(folder), *arguments]) == 0
    assert (folder / "inference.engine").stat().st_size > 1e6
