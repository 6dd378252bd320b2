"""Post-training quantisation: an exported float32 ONNX file becomes an int8 one, in place,
calibrated on preprocessed images.

Weights are int8 with a scale per output channel, activations int8 with one scale per tensor.
`images` are float32 [C, H, W], as evaluation sees them; a hundred or more that look like those of
use, 300 at most help. OpenVINO's and Paddle's int8 are made by their own tools, in openvino.py and
static.py.
"""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Collection, Dict, Iterable, List, Mapping, Optional, Set, Tuple

import numpy as np

__all__ = [
    "EXTRA",
    "ONNX_SCHEMES",
    "OnnxScheme",
    "layer_sensitivity",
    "quantize_onnx",
    "required_images",
]

EXTRA = "pip install 'ppcls_nextvit[int8]'"
LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class OnnxScheme:
    """What an engine computes in int8: operators, the type of activations, options of ONNX
    Runtime's quantiser.
    """

    operators: Tuple[str, ...]
    activation: str
    options: Mapping[str, Any] = field(default_factory=dict)


# ONNX Runtime's kernels for x86 want uint8 activations, and stay in int8 between layers only if
# what lies between is quantised too. TensorRT wants symmetric int8 and float weights behind their
# own Q/DQ, and fuses the rest itself.
ONNX_SCHEMES = {
    "onnxruntime": OnnxScheme(
        (
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
        "QUInt8",
    ),
    "tensorrt": OnnxScheme(
        LAYERS,
        "QInt8",
        {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
        },
    ),
}
# on which a layer's share of the error is measured; its order hardly changes with more
SENSITIVITY_IMAGES = 16


def required_images(images: Iterable[np.ndarray]) -> List[np.ndarray]:
    """`images` as a list of float32 arrays; ValueError if there are none."""
    found = [np.asarray(image, np.float32) for image in images]
    if not found:
        raise ValueError("int8 needs images to calibrate with; got none")
    return found


def quantize_onnx(
    path: os.PathLike | str,
    images: Iterable[np.ndarray],
    engine: str = "onnxruntime",
    keep_float: int = 0,
) -> List[str]:
    """The ONNX file at `path`, float32, becomes an int8 one with QuantizeLinear and
    DequantizeLinear.

    images: float32 [C, H, W], to calibrate with.
    engine: whose kernels it is made for, a name of ONNX_SCHEMES. keep_float: so many of the layers
    that disturb the output most, by `layer_sensitivity`, stay in float32. Returns their names.
    ImportError without onnx and onnxruntime; ValueError without images, or if there are fewer
    layers.
    """
    images = required_images(images)
    model, ranges = _calibrated(path, images, engine)
    layers = _layers(model)
    if not 0 <= keep_float <= len(layers):
        raise ValueError(
            f"keep_float must be from 0 to the model's {len(layers)} layers; got {keep_float}"
        )
    kept = []
    if keep_float:
        kept = [name for _, name in _sensitivity(model, ranges, images, engine)[:keep_float]]
    _save(_quantized(model, ranges, engine, [name for name in layers if name not in kept]), path)
    return kept


def layer_sensitivity(
    path: os.PathLike | str, images: Iterable[np.ndarray], engine: str = "onnxruntime"
) -> List[Tuple[float, str]]:
    """[(error, layer), ...] of the ONNX file at `path`, the most disturbing first. images: float32
    [C, H, W].

    error: of the first output, root mean square over the standard deviation, when that convolution
    or matrix product alone is quantised.
    """
    images = required_images(images)
    model, ranges = _calibrated(path, images, engine)
    return _sensitivity(model, ranges, images, engine)


def _onnx_packages() -> Tuple[Any, Any, Any]:
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

    def __init__(self, name: str, images: Iterable[np.ndarray]):
        self.feeds = iter([{name: image[None]} for image in images])

    def get_next(self) -> Optional[Dict[str, np.ndarray]]:
        """{input name: [1, C, H, W]}, or None after the last."""
        return next(self.feeds, None)


def _calibrated(path: os.PathLike | str, images: List[np.ndarray], engine: str) -> Tuple[Any, Any]:
    """(model with shapes, value ranges of its tensors)."""
    if engine not in ONNX_SCHEMES:
        raise ValueError(f"engine must be one of {', '.join(ONNX_SCHEMES)}; got {engine!r}")
    onnx, _, quantization = _onnx_packages()
    operators = list(ONNX_SCHEMES[engine].operators)
    with tempfile.TemporaryDirectory() as folder:
        augmented = Path(folder) / "augmented.onnx"
        calibrator = quantization.create_calibrator(str(path), operators, str(augmented))
        model = onnx.load(str(path), load_external_data=False)
        model = onnx.shape_inference.infer_shapes(model)
        calibrator.collect_data(_Reader(model.graph.input[0].name, images))
        return model, calibrator.compute_data()


def _layers(model: Any) -> List[str]:
    """The names of the layers to quantise: not the products of which scores are made."""
    scores = _scores(model)
    return [
        node.name for node in model.graph.node if node.op_type in LAYERS and node.name not in scores
    ]


def _scores(model: Any) -> Set[str]:
    """The names of the nodes whose values a softmax takes, back to the first product or layer; a
    product of two activations is one of them.

    They stay float: the softmax's exponential magnifies every error, and a score of -1e4, which
    shuts out what is beyond a border, would take the whole range of 8 bits.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    left = [node.input[0] for node in model.graph.node if node.op_type == "Softmax"]
    scores = set()
    while left:
        node = made_by.get(left.pop())
        if node is None or node.name in scores:
            continue
        if node.op_type not in LAYERS:
            scores.add(node.name)
            left.extend(node.input)
        elif not weights & set(node.input):
            scores.add(node.name)
    return scores


def _quantized(
    model: Any, ranges: Any, engine: str, layers: Collection[str], alone: bool = False
) -> Any:
    """A copy of `model` with `layers`, and, if not `alone`, the engine's other operators, in
    int8.
    """
    _, _, quantization = _onnx_packages()
    scheme = ONNX_SCHEMES[engine]
    copy = type(model)()
    copy.CopyFrom(model)
    scores = _scores(model)
    excluded = [
        node.name
        for node in model.graph.node
        if node.name in scores or (node.op_type in LAYERS and node.name not in layers)
    ]
    quantizer = quantization.QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=quantization.QuantType.QInt8,
        activation_qType=quantization.QuantType[scheme.activation],
        tensors_range=ranges,
        nodes_to_quantize=list(layers) if alone else [],
        nodes_to_exclude=excluded,
        op_types_to_quantize=list(scheme.operators),
        # a channel that is always 0 has a range, too
        extra_options={"MinimumRealRange": 1e-6, **scheme.options},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _save(model: Any, path: os.PathLike | str) -> None:
    onnx, _, _ = _onnx_packages()
    onnx.checker.check_model(model)
    temporary = Path(path).with_suffix(".int8")
    onnx.save(model, str(temporary))
    os.replace(temporary, path)


def _outputs(model: Any, images: Iterable[np.ndarray]) -> np.ndarray:
    """The first output for all images, one by one: [images, ...]."""
    _, onnxruntime, _ = _onnx_packages()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def _sensitivity(
    model: Any, ranges: Any, images: List[np.ndarray], engine: str
) -> List[Tuple[float, str]]:
    images = images[:SENSITIVITY_IMAGES]
    expected = _outputs(model, images)
    found = []
    for name in _layers(model):
        error = _outputs(_quantized(model, ranges, engine, [name], alone=True), images) - expected
        found.append((float(np.sqrt((error**2).mean()) / max(expected.std(), 1e-30)), name))
    return sorted(found, reverse=True)
