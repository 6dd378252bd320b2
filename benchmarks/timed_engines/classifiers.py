"""Classifiers on the same weights, in Paddle and PyTorch: ours, PaddleClas's, timm's and that of
TransNeXt's own repository.
"""

import importlib
import os
import tempfile


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

    if not hasattr(module, f"{variant}_224"):
        raise ImportError(f"PaddleClas has no {variant}")
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

    if not timm.is_model(variant.lower()):
        raise ImportError(f"timm has no {variant}")
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


def create_transnext(variant, folder, size):
    """Of the paper's repository, whose folder classification/ is on the path (--peer-path). Without
    its CUDA operator attention is the native one.
    """
    import transnext
    from safetensors.torch import load_file

    create = getattr(transnext, variant.replace("TransNeXt", "transnext"), None)
    if create is None:
        raise ImportError(f"TransNeXt's repository has no {variant}")
    model = create(img_size=size, pretrain_size=256 if "AAAA" in variant else 224)
    model.load_state_dict(load_file(os.path.join(folder, "torch.safetensors")))
    return model


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
        images = self.paddle.to_tensor(self.images(batch))
        labels = self.paddle.to_tensor(self.rng.integers(0, 1000, batch))
        optimizer = self.adamw()

        def run():
            loss = self.paddle.nn.functional.cross_entropy(self.model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            float(loss)

        return run

    def adamw(self):
        return self.paddle.optimizer.AdamW(
            1e-4, weight_decay=0.05, parameters=self.model.parameters()
        )


class OursEager(PaddleEager):
    """With the project's own AdamW."""

    def adamw(self):
        from ppcls_nextvit.engine.optim import build_optimizer

        optimizer = build_optimizer({"name": "AdamW", "weight_decay": 0.05}, self.model)
        optimizer.set_lr(1e-4)
        return optimizer


class WithoutOperators(OursEager):
    """Paddle, operator by operator, as where `nextvit build-ops` has not run."""

    def __init__(self, create, variant, size, threads, folder):
        from ppcls_nextvit import ops

        with tempfile.TemporaryDirectory() as empty:
            os.environ["PPCLS_NEXTVIT_OPS"] = empty
            if ops.is_loaded():  # looks for them once
                raise ValueError("the compiled operators were loaded before this engine was made")
        super().__init__(create, variant, size, threads, folder)


class InBfloat16(OursEager):
    """Global.cpu_math: bf16."""

    def train(self, batch):
        from ppcls_nextvit import ops

        if not (ops.has_onednn() and ops.cpu_multiplies_bfloat16()):
            raise ValueError("bf16 needs nextvit build-ops, and AVX512-BF16 or AMX")
        run = super().train(batch)

        def run_in_bfloat16():
            with ops.multiplying(bfloat16=True):
                run()

        return run_in_bfloat16


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
        self.model = self.made(create, variant, folder)

    def made(self, create, variant, folder):
        """The model that `create` makes, for any size of image."""
        return create(variant, folder)

    def latency(self, batch):
        self.model.eval()
        images = self.torch.from_numpy(self.images(batch))

        def run():
            with self.torch.inference_mode():
                return self.model(images).numpy()

        return run

    def train(self, batch):
        self.model.train()
        images = self.torch.from_numpy(self.images(batch))
        labels = self.torch.from_numpy(self.rng.integers(0, 1000, batch))
        optimizer = self.torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.05)

        def run():
            loss = self.torch.nn.functional.cross_entropy(self.model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()

        return run


class TorchAutocast(TorchEager):
    """PyTorch whose operators take bfloat16 where it says that they should."""

    def train(self, batch):
        run = super().train(batch)

        def run_in_bfloat16():
            with self.torch.autocast("cpu", self.torch.bfloat16):
                run()

        return run_in_bfloat16


class SizedTorchEager(TorchEager):
    """A model in PyTorch that is built for one size of image."""

    def made(self, create, variant, folder):
        return create(variant, folder, self.size)


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
