"""One engine of tools/benchmark.py in a process of its own, so that its thread settings hold and
its libraries meet no others.

    python tools/benchmark_worker.py ENGINE VARIANT SIZE THREADS FOLDER

FOLDER is what tools/benchmark.py prepared: the weights that all models share, in each project's
format, and the exports. Reads one JSON request per line, {"task": "latency" | "train" | "data",
"batch": B, "runs": R}, and answers each with {"ms": milliseconds of R runs, "cpu_ms": those of the
processor, "memory_mb": the most that this process has held}; a request of {"task": "output"} with
the logits of `probe`. {"task": "detection" | "segmentation", "size": [height, width], "train":
bool, "runs": R} is answered with {"ms": {part: milliseconds of R runs}, "memory_mb": ...}. The
interpreter may be a peer's, without this project, so only the standard library is imported at the
top.
"""

import importlib
import importlib.util
import io
import json
import os
import sys
import tempfile
import time

WARM_UP = 3  # runs before a batch size is timed for the first time
SETTLE = 1  # runs before every later round: other engines have had the caches


def create_ours(variant, folder):
    from ppcls_nextvit import create_model, load_weights

    model = create_model(variant)
    load_weights(model, os.path.join(folder, "weights.pdparams"))
    return model


def create_ours_fused(variant, folder):
    from ppcls_nextvit import fuse_bn

    return fuse_bn(create_ours(variant, folder))


def create_paddleclas(variant, folder):
    path = "ppcls.arch.backbone.model_zoo.nextvit"
    try:
        module = importlib.import_module(f"paddleclas.{path}")  # the wheel
    except ModuleNotFoundError:
        module = importlib.import_module(path)  # a clone on PYTHONPATH
    import paddle

    model = getattr(module, f"{variant}_224")()
    missing, unexpected = model.set_state_dict(
        paddle.load(os.path.join(folder, "weights.pdparams"))
    )
    if missing or unexpected:
        raise ValueError(
            f"PaddleClas's model does not fit the weights: missing {missing[:3]}, unexpected "
            f"{unexpected[:3]}"
        )
    return model


def create_timm(variant, folder):
    import timm
    from safetensors.torch import load_file

    model = timm.create_model(variant.lower())
    model.load_state_dict(load_file(os.path.join(folder, "timm.safetensors")))
    return model


def create_timm_fused(variant, folder):
    model = create_timm(variant, folder).eval()
    for layer in model.modules():
        if hasattr(layer, "reparameterize"):
            layer.reparameterize()
    return model


def create_timm_compiled(variant, folder):
    import torch

    return torch.compile(
        create_timm_fused(variant, folder),
        dynamic=False,
        options={"freezing": True, "pattern_matcher": False},
    )


class PaddleEager:
    """Paddle, operator by operator."""

    def __init__(self, create, variant, size, threads, folder):
        import numpy
        import paddle

        self.size, self.paddle, self.rng = size, paddle, numpy.random.default_rng(0)
        self.version = f"paddlepaddle {paddle.__version__}"
        self.model = create(variant, folder)

    def images(self, batch):
        return self.rng.standard_normal((batch, 3, self.size, self.size)).astype("float32")

    def latency(self, batch):
        self.model.eval()
        images = self.paddle.to_tensor(self.images(batch))

        def run():
            with self.paddle.no_grad():
                # .numpy() waits for the device
                return self.model(images).numpy()

        return run

    def train(self, batch):
        self.model.train()
        images, labels = (
            self.paddle.to_tensor(self.images(batch)),
            self.paddle.to_tensor(self.rng.integers(0, 1000, batch)),
        )
        optimizer = self.paddle.optimizer.AdamW(
            1e-4, weight_decay=0.05, parameters=self.model.parameters()
        )

        def run():
            loss = self.paddle.nn.functional.cross_entropy(self.model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            float(loss)

        return run


class PaddleInference(PaddleEager):
    """The same model as a static graph, any batch, in Paddle Inference with oneDNN (CPU)."""

    def __init__(self, create, variant, size, threads, folder):
        super().__init__(create, variant, size, threads, folder)
        paddle = self.paddle
        self.model.eval()
        spec = [paddle.static.InputSpec([None, 3, size, size], "float32", "x")]
        with tempfile.TemporaryDirectory() as directory:
            prefix = os.path.join(directory, "inference")
            paddle.jit.save(
                paddle.jit.to_static(self.model, input_spec=spec, full_graph=True), prefix
            )
            config = paddle.inference.Config(f"{prefix}.json", f"{prefix}.pdiparams")
            config.disable_glog_info()
            config.disable_gpu()
            config.enable_mkldnn()
            config.set_cpu_math_library_num_threads(threads)
            self.predictor = paddle.inference.create_predictor(config)

    def latency(self, batch):
        images = self.images(batch)
        given = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        result = self.predictor.get_output_handle(self.predictor.get_output_names()[0])

        def run():
            given.copy_from_cpu(images)
            self.predictor.run()
            return result.copy_to_cpu()

        return run


class TorchEager(PaddleEager):
    """PyTorch, operator by operator."""

    def __init__(self, create, variant, size, threads, folder):
        import numpy
        import timm
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.size, self.torch, self.rng = size, torch, numpy.random.default_rng(0)
        self.version = f"timm {timm.__version__}, torch {torch.__version__}"
        self.model = create(variant, folder)

    def latency(self, batch):
        self.model.eval()
        images = self.torch.from_numpy(self.images(batch))

        def run():
            with self.torch.inference_mode():
                return self.model(images).numpy()

        return run

    def train(self, batch):
        self.model.train()
        images, labels = (
            self.torch.from_numpy(self.images(batch)),
            self.torch.from_numpy(self.rng.integers(0, 1000, batch)),
        )
        optimizer = self.torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.05)

        def run():
            loss = self.torch.nn.functional.cross_entropy(self.model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()

        return run


class TimmOnnx(PaddleEager):
    """timm's model through torch's own ONNX exporter, any batch, in ONNX Runtime."""

    def __init__(self, create, variant, size, threads, folder):
        import numpy
        import onnxruntime
        import timm
        import torch

        self.size, self.rng = size, numpy.random.default_rng(0)
        self.version = (
            f"timm {timm.__version__}, torch {torch.__version__}, onnxruntime "
            f"{onnxruntime.__version__}"
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "model.onnx")
            torch.onnx.export(
                create(variant, folder).eval(),
                torch.zeros(2, 3, size, size),
                path,
                input_names=["x"],
                opset_version=17,
                dynamic_axes={"x": {0: "batch"}},
                dynamo=False,
            )
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )

    def latency(self, batch):
        images = self.images(batch)
        return lambda: self.session.run(None, {"x": images})[0]


class Deployed(PaddleEager):
    """One of our exports, run as the program that users copy (deploy/) runs it."""

    def __init__(self, export, variant, size, threads, folder):
        import importlib.util
        from importlib import metadata
        from pathlib import Path

        import numpy

        target, precision = export
        program, package = {
            "paddle": ("python", "paddlepaddle"),
            "onnx": ("onnx", "onnxruntime"),
            "openvino": ("onnx", "openvino"),
        }[target]
        spec = importlib.util.spec_from_file_location(
            "predict", Path(__file__).parents[1] / "deploy" / program / "predict.py"
        )
        predict = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(predict)
        self.size, self.rng = size, numpy.random.default_rng(0)
        directory = Path(folder) / str(size) / f"{target}_{precision}"
        if target == "paddle":
            self.run = predict.paddle_engine(
                directory, predict.read_description(directory), threads=threads
            )
        else:
            self.run = predict.ENGINES[package](
                directory, predict.read_hashed(directory, json.loads), "cpu", threads
            )
        self.version = f"{package} {metadata.version(package)}"

    def latency(self, batch):
        images = self.images(batch)
        return lambda: self.run(images)


def create_dense(name, **backbone):
    """A creator of that detector or segmentor, with the published recipes' defaults."""

    def create(variant):
        from ppcls_nextvit import create_model

        return create_model(name, backbone={"name": variant, **backbone})

    return create


def create_paddleseg_upernet(variant):
    """PaddleSeg's own UPerNet on our backbone, with the parts that our measurement asks for."""
    from ppcls_nextvit.hosts import paddleseg

    paddleseg.register()
    import paddleseg as suite
    from paddleseg.cvlibs import manager

    backbone = manager.BACKBONES[variant](extra_norms=True, drop_path_rate=0.2)
    model = manager.MODELS["UPerNet"](
        num_classes=150,
        backbone=backbone,
        backbone_indices=(0, 1, 2, 3),
        enable_auxiliary_loss=True,
    )
    model.num_classes, model.in_channels, model.suite = 150, 3, f"paddleseg {suite.__version__}, "
    model.decode = lambda images: model.head(model.backbone(images))[0]
    # logits at the heads' size, as ours
    model.forward = lambda images: model.head(model.backbone(images))
    return model


def create_untimed(module, reason):
    """For a suite that has nothing to time: the ImportError says whether it is there."""

    def create(variant):
        raise ImportError(
            f"{module} is installed, but {reason}"
            if importlib.util.find_spec(module)
            else f"{module} is not installed"
        )

    return create


class Dense:
    """A detector or segmentor, part by part, by this project's own measurement: pre- and
    postprocessing are ours.
    """

    def __init__(self, create, variant, size, threads, folder):
        # first: a suite that is not timed needs no Paddle
        self.model = create(variant)
        import paddle

        from ppcls_nextvit.data.transforms.joint import opencv

        # the ImportError that names the extra
        opencv()
        self.on_gpu = paddle.device.get_device().startswith("gpu")
        self.version = f"{getattr(self.model, 'suite', '')}paddlepaddle {paddle.__version__}"

    def parts(self, task, size, train, batch, runs):
        measure = importlib.import_module(f"ppcls_nextvit.tasks.{task}.benchmark").measure
        measured = measure(self.model, tuple(size), train=train, batch=batch, runs=runs)
        memory = measured.pop("peak_memory_mb")
        return {"ms": measured, "memory_mb": memory if self.on_gpu else peak_memory()}


class Gemm:
    """The machine's own limit: a product of two float32 matrices, by the BLAS that numpy has."""

    SIDE = 1536

    def __init__(self, create, variant, size, threads, folder):
        import numpy

        self.a, self.b = numpy.random.default_rng(0).random((2, self.SIDE, self.SIDE), "float32")
        self.version = f"numpy {numpy.__version__}"

    def latency(self, batch):
        return lambda: self.a @ self.b


def pictures(count, width=500, height=375):
    """Made-up photos, as JPEG files in memory: smooth colours under noise, of the size that
    ImageNet's have on average.
    """
    import numpy
    from PIL import Image

    rng, files = numpy.random.default_rng(0), []
    for _ in range(count):
        smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), numpy.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noisy = numpy.asarray(smooth) + rng.normal(0, 12, (height, width, 3))
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(numpy.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


class OursPipeline:
    """The training transforms of configs/NextViT_small_224.yaml, from JPEG bytes to a float32
    array, with Pillow or OpenCV.
    """

    def __init__(self, backend, variant, size, threads, folder):
        from pathlib import Path

        import numpy
        import PIL

        from ppcls_nextvit.config import load_config
        from ppcls_nextvit.data.transforms.pipeline import Pipeline

        config = load_config(Path(__file__).parents[1] / "configs" / "NextViT_small_224.yaml")
        recipe = config.DataLoader["Train"]["dataset"]["transform_ops"]
        for entry in recipe:
            for name, arguments in entry.items():
                if "backend" in (arguments or {}):
                    entry[name] = {**arguments, "backend": backend}
        self.transform, self.version = Pipeline(recipe), f"Pillow {PIL.__version__}"
        self.rng = numpy.random.default_rng(0)

    def data(self, batch):
        files = pictures(batch)

        def run():
            for file in files:
                self.transform(file, self.rng)

        return run


class TimmPipeline:
    """timm's own transform with the recipe's settings; it needs torchvision."""

    def __init__(self, backend, variant, size, threads, folder):
        import timm
        import torch
        import torchvision
        from PIL import Image
        from timm.data import create_transform

        torch.set_num_threads(threads)
        self.open, self.version = (
            Image.open,
            f"timm {timm.__version__}, torchvision {torchvision.__version__}",
        )
        self.transform = create_transform(
            size,
            is_training=True,
            interpolation="bicubic",
            auto_augment="rand-m9-mstd0.5-inc1",
            re_prob=0.25,
            re_mode="pixel",
            re_count=1,
        )

    def data(self, batch):
        files = pictures(batch)

        def run():
            for file in files:
                self.transform(self.open(io.BytesIO(file)).convert("RGB"))

        return run


# name: (kind, what it runs, tasks)
ENGINES = {
    "ours onnx": (Deployed, ("onnx", "fp32"), ("latency",)),
    "ours openvino": (Deployed, ("openvino", "fp32"), ("latency",)),
    "ours paddle": (Deployed, ("paddle", "fp32"), ("latency",)),
    "ours openvino int8": (Deployed, ("openvino", "int8"), ("latency",)),
    "ours onnx int8": (Deployed, ("onnx", "int8"), ("latency",)),
    "ours paddle int8": (Deployed, ("paddle", "int8"), ("latency",)),
    "ours eager": (PaddleEager, create_ours, ("latency", "train")),
    "ours fused": (PaddleEager, create_ours_fused, ("latency",)),
    "paddleclas eager": (PaddleEager, create_paddleclas, ("latency", "train")),
    "paddleclas inference": (PaddleInference, create_paddleclas, ("latency",)),
    "timm eager": (TorchEager, create_timm, ("latency", "train")),
    "timm fused": (TorchEager, create_timm_fused, ("latency",)),
    "timm compile": (TorchEager, create_timm_compiled, ("latency",)),
    "timm onnx": (TimmOnnx, create_timm_fused, ("latency",)),
    "ours data": (OursPipeline, "pil", ("data",)),
    "ours data cv2": (OursPipeline, "cv2", ("data",)),
    "timm data": (TimmPipeline, "pil", ("data",)),
    "ours mask_rcnn": (
        Dense,
        create_dense("MaskRCNN", drop_path_rate=0.1, frozen_stages=1, norm_eval=True),
        ("detection",),
    ),
    "paddledet mask_rcnn": (
        Dense,
        create_untimed("ppdet", "its released detectors do not run on Paddle 3"),
        ("detection",),
    ),
    "mmdet mask_rcnn": (
        Dense,
        create_untimed("mmdet", "it has no Next-ViT of its own"),
        ("detection",),
    ),
    "ours upernet": (
        Dense,
        create_dense("UPerNet", extra_norms=True, drop_path_rate=0.2),
        ("segmentation",),
    ),
    "paddleseg upernet": (Dense, create_paddleseg_upernet, ("segmentation",)),
    "ours semfpn": (
        Dense,
        create_dense("SemanticFPN", extra_norms=True, drop_path_rate=0.2),
        ("segmentation",),
    ),
    "mmseg upernet": (
        Dense,
        create_untimed("mmseg", "it has no Next-ViT of its own"),
        ("segmentation",),
    ),
    # no engine: it takes turns with those of `latency`
    "gemm": (Gemm, None, ()),
}


def peak_memory():
    """The most memory that this process has held, in MB. Not getrusage's, which begins with that of
    the process that started this one.
    """
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024


def probe(engine):
    """The engine's logits for a fixed image, as a list: engines with the same weights must
    agree.
    """
    import numpy

    engine.rng = numpy.random.default_rng(1)
    return numpy.asarray(engine.latency(1)(), "float64").tolist()


def serve(requests, replies, engine):
    """Answer requests until there are no more."""
    runs = {}
    for line in requests:
        request = json.loads(line)
        if request["task"] == "output":
            print(json.dumps(probe(engine)), file=replies, flush=True)
            continue
        if "size" in request:
            print(json.dumps(engine.parts(**request)), file=replies, flush=True)
            continue
        key = request["task"], request["batch"]
        warm_up = SETTLE if key in runs else WARM_UP
        if key not in runs:
            runs[key] = getattr(engine, request["task"])(request["batch"])
        for _ in range(warm_up):
            runs[key]()
        milliseconds, cpu_milliseconds = [], []
        for _ in range(request["runs"]):
            start, cpu_start = time.perf_counter(), time.process_time()
            runs[key]()
            milliseconds.append(1e3 * (time.perf_counter() - start))
            cpu_milliseconds.append(1e3 * (time.process_time() - cpu_start))
        print(
            json.dumps(
                {"ms": milliseconds, "cpu_ms": cpu_milliseconds, "memory_mb": peak_memory()}
            ),
            file=replies,
            flush=True,
        )


def main(name, variant, size, threads, folder):
    replies = os.fdopen(os.dup(1), "w")
    # what libraries print must not mix with the answers
    os.dup2(2, 1)
    kind, create, _ = ENGINES[name]
    try:
        engine = kind(create, variant, int(size), int(threads), folder)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=replies, flush=True)
        return
    print(json.dumps({"version": engine.version}), file=replies, flush=True)
    serve(sys.stdin, replies, engine)


if __name__ == "__main__":
    main(*sys.argv[1:])
