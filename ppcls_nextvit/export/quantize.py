"""Post-training quantisation: exported float32 files become int8 ones, in place, calibrated on
preprocessed images.

Weights are int8 with a scale per output channel, activations int8 with one scale per tensor.
`images` are float32 [C, H, W], as evaluation sees them; a hundred or more that look like those of
use, 300 at most help.
"""

import contextlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np

from .process import in_own_process
from .verify import ExportError

__all__ = [
    "ONNX_SCHEMES",
    "layer_sensitivity",
    "quantize_onnx",
    "quantize_openvino",
    "quantize_paddle",
]

EXTRA = "pip install 'ppcls_nextvit[int8]'"
LAYERS = ("Conv", "Gemm", "MatMul")
# What each engine computes in int8. ONNX Runtime's kernels for x86 want uint8 activations, and stay
# in int8 between layers only if what lies between is quantised too. TensorRT wants symmetric int8
# and float weights behind their own Q/DQ, and fuses the rest itself.
ONNX_SCHEMES = {
    "onnxruntime": {
        "operators": (
            *LAYERS,
            "Add",
            "AveragePool",
            "Concat",
            "GlobalAveragePool",
            "Relu",
            "Reshape",
            "Split",
            "Transpose",
        ),
        "activation": "QUInt8",
        "options": {},
    },
    "tensorrt": {
        "operators": LAYERS,
        "activation": "QInt8",
        "options": {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
        },
    },
}
# on which a layer's share of the error is measured; its order hardly changes with more
SENSITIVITY_IMAGES = 16


def quantize_openvino(path, images):
    """The OpenVINO model PATH.xml (and .bin), float32, becomes an int8 one, by NNCF. images:
    float32 [C, H, W].

    NNCF's own choices but for two, measured on a trained model (agreement with float32 98.5 -> 99.4
    %, error of the logits 9.2 -> 2.5 %): activations keep their whole range, and biases are not
    corrected. ImportError without nncf; ValueError without images.
    """
    try:
        import nncf
        import openvino
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
        from nncf.quantization.range_estimator import (
            AggregatorType,
            RangeEstimatorParameters,
            StatisticsCollectorParameters,
            StatisticsType,
        )
        from openvino.passes import ConstantFolding, Manager
    except ImportError as error:
        raise ImportError(
            f"int8 for OpenVINO needs nncf and openvino: {EXTRA} ({error})"
        ) from error
    images = _required(images)
    model = openvino.Core().read_model(str(path))
    # The weights of a grouped convolution come through a reshape, before which NNCF takes the wrong
    # axis for the channels: they would run in float.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    whole = RangeEstimatorParameters(
        min=StatisticsCollectorParameters(StatisticsType.MIN, AggregatorType.MIN),
        max=StatisticsCollectorParameters(StatisticsType.MAX, AggregatorType.MAX),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        model = nncf.quantize(
            model,
            nncf.Dataset(images, lambda image: image[None]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(images),
            advanced_parameters=AdvancedQuantizationParameters(
                disable_bias_correction=True, activations_range_estimator_params=whole
            ),
        )
    # the model still reads its weights from the old .bin
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        written = Path(folder) / Path(path).name
        openvino.save_model(model, str(written), compress_to_fp16=False)
        for file in (written, written.with_suffix(".bin")):
            os.replace(file, Path(path).with_name(file.name))


def quantize_onnx(path, images, engine="onnxruntime", keep_float=0):
    """The ONNX file at `path`, float32, becomes an int8 one with QuantizeLinear and
    DequantizeLinear.

    images: float32 [C, H, W], to calibrate with.
    engine: whose kernels it is made for, a name of ONNX_SCHEMES. keep_float: so many of the layers
    that disturb the output most, by `layer_sensitivity`, stay in float32. Returns their names.
    ImportError without onnx and onnxruntime; ValueError without images, or if there are fewer
    layers.
    """
    model, ranges = _calibrated(path, _required(images), engine)
    layers = _layers(model)
    if not 0 <= keep_float <= len(layers):
        raise ValueError(
            f"keep_float must be from 0 to the model's {len(layers)} layers; got {keep_float}"
        )
    kept = (
        [name for _, name in _sensitivity(model, ranges, images, engine)[:keep_float]]
        if keep_float
        else []
    )
    _save(_quantized(model, ranges, engine, [name for name in layers if name not in kept]), path)
    return kept


def layer_sensitivity(path, images, engine="onnxruntime"):
    """[(error, layer), ...] of the ONNX file at `path`, the most disturbing first. images: float32
    [C, H, W].

    error: of the first output, root mean square over the standard deviation, when that convolution
    or matrix product alone is quantised.
    """
    model, ranges = _calibrated(path, _required(images), engine)
    return _sensitivity(model, ranges, images, engine)


def quantize_paddle(prefix, images):
    """PREFIX.pdmodel and PREFIX.pdiparams, float32, become an int8 model, by Paddle's own
    PostTrainingQuantization.

    images: float32 [C, H, W], to calibrate with.
    Convolutions, that is all layers but the attention products, are quantised. It runs in a process
    of its own, since Paddle (3.3.1) quantises only what it has read as a .pdmodel. Paddle Inference
    computes it in int8 on a CPU, after what `load` of static.py sets. ExportError for a .json
    program.
    """
    images = _required(images)
    if not Path(f"{prefix}.pdmodel").is_file():
        raise ExportError(
            "Paddle cannot quantise a .json program; export int8 for Paddle with --format pdmodel"
        )
    in_own_process(_quantize_pdmodel, str(prefix), images, FLAGS_enable_pir_api="0")


def _required(images):
    images = [np.asarray(image, np.float32) for image in images]
    if not images:
        raise ValueError("int8 needs images to calibrate with; got none")
    return images


def _onnx_packages():
    try:
        import onnx
        import onnxruntime
        from onnxruntime import quantization
    except ImportError as error:
        raise ImportError(f"int8 for ONNX needs onnx and onnxruntime: {EXTRA} ({error})") from error
    onnxruntime.set_default_logger_severity(3)  # errors only
    return onnx, onnxruntime, quantization


class _Reader:
    """The images, one by one, in the form that ONNX Runtime's calibration asks for."""

    def __init__(self, name, images):
        self.feeds = iter([{name: image[None]} for image in images])

    def get_next(self):
        return next(self.feeds, None)


def _calibrated(path, images, engine):
    """(model with shapes, value ranges of its tensors)."""
    if engine not in ONNX_SCHEMES:
        raise ValueError(f"engine must be one of {', '.join(ONNX_SCHEMES)}; got {engine!r}")
    onnx, _, quantization = _onnx_packages()
    with tempfile.TemporaryDirectory() as folder:
        operators, augmented = (
            list(ONNX_SCHEMES[engine]["operators"]),
            Path(folder) / "augmented.onnx",
        )
        calibrator = quantization.create_calibrator(str(path), operators, str(augmented))
        model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
        calibrator.collect_data(_Reader(model.graph.input[0].name, images))
        return model, calibrator.compute_data()


def _layers(model):
    """The names of the layers to quantise: not the products before a softmax, whose exponential
    magnifies every error.
    """
    before_softmax = {node.input[0] for node in model.graph.node if node.op_type == "Softmax"}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in LAYERS and node.output[0] not in before_softmax
    ]


def _quantized(model, ranges, engine, layers, alone=False):
    """A copy of `model` with `layers`, and, if not `alone`, the engine's other operators, in
    int8.
    """
    _, _, quantization = _onnx_packages()
    scheme, copy = ONNX_SCHEMES[engine], type(model)()
    copy.CopyFrom(model)
    quantizer = quantization.QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=quantization.QuantType.QInt8,
        activation_qType=quantization.QuantType[scheme["activation"]],
        tensors_range=ranges,
        nodes_to_quantize=list(layers) if alone else [],
        nodes_to_exclude=[
            node.name
            for node in model.graph.node
            if node.op_type in LAYERS and node.name not in layers
        ],
        op_types_to_quantize=list(scheme["operators"]),
        # a channel that is always 0 has a range, too
        extra_options={"MinimumRealRange": 1e-6, **scheme["options"]},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _save(model, path):
    onnx, _, _ = _onnx_packages()
    onnx.checker.check_model(model)
    temporary = Path(path).with_suffix(".int8")
    onnx.save(model, str(temporary))
    os.replace(temporary, path)


def _outputs(model, images):
    """The first output for all images, one by one: [images, ...]."""
    _, onnxruntime, _ = _onnx_packages()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def _sensitivity(model, ranges, images, engine):
    images = images[:SENSITIVITY_IMAGES]
    expected = _outputs(model, images)
    found = []
    for name in _layers(model):
        error = _outputs(_quantized(model, ranges, engine, [name], alone=True), images) - expected
        found.append((float(np.sqrt((error**2).mean()) / max(expected.std(), 1e-30)), name))
    return sorted(found, reverse=True)


def _quantize_pdmodel(prefix, images):
    """The work of quantize_paddle, in a process where Paddle writes the old format."""
    import paddle
    from paddle.static.quantization import PostTrainingQuantization

    paddle.enable_static()
    folder, stem = os.path.split(prefix)
    files = {"model_filename": f"{stem}.pdmodel", "params_filename": f"{stem}.pdiparams"}
    executor = paddle.static.Executor(paddle.CPUPlace())
    _, (name, *_), _ = paddle.static.load_inference_model(prefix, executor)
    # progress bars
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        quantization = PostTrainingQuantization(
            executor,
            folder,
            **files,
            data_loader=lambda: ({name: image[None]} for image in images),
            batch_size=1,
            batch_nums=len(images),
            algo="abs_max",
            quantizable_op_type=["conv2d", "depthwise_conv2d"],
            onnx_format=True,
        )
        quantization.quantize()
        with tempfile.TemporaryDirectory(dir=folder) as work:
            quantization.save_quantized_model(work, **files)
            for file in files.values():
                os.replace(os.path.join(work, file), os.path.join(folder, file))
