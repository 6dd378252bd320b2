"""A saved Core ML package, run in numpy by the specification of its operators, where there is no
Core ML.

What this can show is that the file is right: operators, attributes, weights, types. Apple's kernels
are not here. Between operators a value has the type that the program declares, so half stays half;
sums within an operator are float32.

Source: MIL.proto and the operators' documentation of coremltools 9; the layout of weight.bin
(MILBlob/StorageFormat).
"""

import logging
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import paddle

from .verify import ExportError

__all__ = ["MilProgram", "import_coremltools"]

# MIL.proto's DataType. Strings stay strings.
STRING = 2
DTYPES: Dict[int, Any] = {
    1: np.bool_,
    10: np.float16,
    11: np.float32,
    12: np.float64,
    21: np.int8,
    23: np.int32,
    24: np.int64,
    31: np.uint8,
}
MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"
# weight.bin, at the offset of a value: the sentinel, type, bytes of the data, offset of the data.
SENTINEL = 0xDEADBEEF
BLOB = np.dtype([("sentinel", "<u4"), ("type", "<u4"), ("bytes", "<u8"), ("offset", "<u8")])


def import_coremltools() -> Any:
    """The package coremltools; ImportError that names the extra."""
    try:
        # or it lists what it would use if that were installed
        logging.getLogger("coremltools").setLevel(logging.ERROR)
        import coremltools
    except ImportError as error:
        raise ImportError(
            "Core ML packages need coremltools: pip install 'ppcls_nextvit[coreml]'"
        ) from error
    return coremltools


class MilProgram:
    """The package at `path`: `program(name=array, ...)` -> {output name: array}, {class: score} or
    a class. `operators`: their types.

    spec: the whole description (Model.proto). ExportError for a package that is damaged or has an
    operator that is not known here.
    """

    def __init__(self, path: os.PathLike | str):
        import_coremltools()
        from coremltools.proto import Model_pb2
        from google.protobuf.message import DecodeError

        path = Path(path)
        self.spec = Model_pb2.Model()
        try:
            self.spec.ParseFromString((path / MODEL).read_bytes())
            self.weights = _weights(path / WEIGHTS)
            (block,) = self.spec.mlProgram.functions["main"].block_specializations.values()
            self.constants = {
                op.outputs[0].name: self._value(op.attributes["val"])
                for op in block.operations
                if op.type == "const"
            }
        except (OSError, DecodeError, ValueError, IndexError, KeyError) as error:
            raise ExportError(
                f"{path.name} does not run: no Core ML program, or damaged: {error}"
            ) from error
        self.nodes = [op for op in block.operations if op.type != "const"]
        self.outputs = list(block.outputs)
        self.operators = [op.type for op in self.nodes]
        unknown = sorted(set(self.operators) - set(OPERATORS))
        if unknown:
            raise ExportError(
                f"{path.name} does not run here: no rule for the MIL operators {', '.join(unknown)}"
            )

    def __call__(self, **inputs: np.ndarray) -> Dict[str, Any]:
        values = {**self.constants, **inputs}
        for node in self.nodes:
            results = OPERATORS[node.type](**self._arguments(node, values))
            results = results if isinstance(results, tuple) else (results,)
            for output, result in zip(node.outputs, results):
                values[output.name] = _declared(output, result)
        return {name: values[name] for name in self.outputs}

    def _arguments(self, node: Any, values: Dict[str, Any]) -> Dict[str, Any]:
        """The arguments of an operator by name: values known by now, or written in the program."""
        arguments = {}
        for name, argument in node.inputs.items():
            given = [
                values[part.name] if part.name else self._value(part.value)
                for part in argument.arguments
            ]
            arguments[name] = given if node.type == "concat" and name == "values" else given[0]
        return arguments

    def _value(self, value: Any) -> Any:
        """A Value of MIL.proto: an array, a string, or a list of them."""
        if value.type.WhichOneof("type") == "listType":
            return [self._value(item) for item in value.immediateValue.list.values]
        kind = value.type.tensorType.dataType
        shape = [dim.constant.size for dim in value.type.tensorType.dimensions]
        if value.WhichOneof("value") == "blobFileValue":
            return self._stored(value.blobFileValue.offset).view(DTYPES[kind]).reshape(shape)
        content = value.immediateValue.tensor
        data = getattr(content, content.WhichOneof("value")).values
        if kind == STRING:
            return data[0] if not shape else list(data)
        if isinstance(data, bytes):
            return np.frombuffer(data, DTYPES[kind]).reshape(shape)
        return np.array(data, DTYPES[kind]).reshape(shape)

    def _stored(self, offset: int) -> np.ndarray:
        """The bytes of the value at `offset` of weight.bin; ValueError if there is none."""
        header = self.weights[offset:][: BLOB.itemsize].view(BLOB)[0]
        if header["sentinel"] != SENTINEL:
            raise ValueError(f"no value at byte {offset} of weight.bin")
        return self.weights[header["offset"] :][: header["bytes"]]


def _weights(path: Path) -> np.ndarray:
    """The bytes of the file `path`, none if there is no such file."""
    return np.memmap(path, np.uint8, "r") if path.exists() else np.zeros(0, np.uint8)


def _declared(output: Any, result: Any) -> Any:
    """`result` in the type that the program declares; ExportError if its shape is another."""
    if not isinstance(result, np.ndarray):  # of `classify`
        return result
    declared = output.type.tensorType
    sizes = [dim.constant.size if dim.HasField("constant") else None for dim in declared.dimensions]
    known = [size in (None, got) for size, got in zip(sizes, result.shape)]
    if len(sizes) != result.ndim or not all(known):
        raise ExportError(
            f"the program declares {output.name!r} as {sizes}, and it is {list(result.shape)}"
        )
    # becomes infinite, as it would in Core ML
    with np.errstate(over="ignore"):
        return result.astype(DTYPES[declared.dataType], copy=False)


def _float(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32, copy=False)


def _conv(
    x: np.ndarray,
    weight: np.ndarray,
    strides: np.ndarray,
    pad_type: str,
    pad: np.ndarray,
    dilations: np.ndarray,
    groups: int,
    bias: Optional[np.ndarray] = None,
) -> np.ndarray:
    """x: [B, C, H, W], weight: [C_out, C / groups, h, w] -> [B, C_out, H', W']."""
    plain = pad_type in ("valid", "custom") and (dilations == 1).all()
    _only(plain, "conv", "padding 'valid' or 'custom', no dilation")
    groups = int(groups)
    edges = np.reshape(pad if pad_type == "custom" else [0] * 4, (2, 2))
    x = np.pad(_float(x), [(0, 0), (0, 0), *edges])
    height, width = weight.shape[2:]
    rows = (x.shape[2] - height) // strides[0] + 1
    columns = (x.shape[3] - width) // strides[1] + 1
    # [h, w, groups, C_out / groups, C / groups]
    kernel = np.ascontiguousarray(
        _float(weight)
        .reshape(groups, len(weight) // groups, -1, height, width)
        .transpose(3, 4, 0, 1, 2)
    )
    out: Any = np.float32(0)
    for i in range(height):
        for j in range(width):
            seen = _strided(x, i, j, strides, rows, columns)
            out = out + kernel[i, j] @ seen.reshape(len(x), groups, -1, rows * columns)
    out = out.reshape(len(x), len(weight), rows, columns)
    return out if bias is None else out + _float(bias)[:, None, None]


def _conv_transpose(
    x: np.ndarray,
    weight: np.ndarray,
    strides: np.ndarray,
    pad_type: str,
    pad: np.ndarray,
    dilations: np.ndarray,
    groups: int,
    bias: Optional[np.ndarray] = None,
    output_shape: Sequence[int] = (),
) -> np.ndarray:
    """x: [B, C, H, W], weight: [C, C_out, h, w] -> [B, C_out, (H - 1) * stride + h, ...], which
    output_shape may say, too.
    """
    plain = groups == 1 and (dilations == 1).all() and (pad_type == "valid" or not pad.any())
    _only(plain, "conv_transpose", "one group, no padding, no dilation")
    sides = [(size - 1) * step for size, step in zip(x.shape[2:], strides)]
    height, width = weight.shape[2:]
    out = np.zeros((len(x), weight.shape[1], sides[0] + height, sides[1] + width), np.float32)
    _only(tuple(output_shape) in ((), out.shape), "conv_transpose", f"the shape {out.shape}")
    flat = _float(x).reshape(*x.shape[:2], -1)
    for i in range(height):
        for j in range(width):
            part = (_float(weight[:, :, i, j]).T @ flat).reshape(*out.shape[:2], *x.shape[2:])
            _strided(out, i, j, strides, *x.shape[2:])[...] += part
    return out if bias is None else out + _float(bias)[:, None, None]


def _max_pool(
    x: np.ndarray,
    kernel_sizes: np.ndarray,
    strides: np.ndarray,
    pad_type: str,
    pad: np.ndarray,
    ceil_mode: bool = False,
) -> np.ndarray:
    """x: [B, C, H, W] -> [B, C, H', W']."""
    plain = (pad_type == "valid" or not pad.any()) and not ceil_mode
    _only(plain, "max_pool", "no padding, sizes rounded down")
    rows, columns = (
        (size - kernel) // step + 1
        for size, kernel, step in zip(x.shape[2:], kernel_sizes, strides)
    )
    seen = [
        _strided(x, i, j, strides, rows, columns)
        for i in range(kernel_sizes[0])
        for j in range(kernel_sizes[1])
    ]
    return np.max(seen, axis=0)


def _strided(
    x: np.ndarray, top: int, left: int, strides: np.ndarray, rows: int, columns: int
) -> np.ndarray:
    """[B, C, H, W] -> [B, C, rows, columns]: every strides-th pixel from (top, left) on."""
    bottom, right = top + strides[0] * rows, left + strides[1] * columns
    return x[:, :, top : bottom : strides[0], left : right : strides[1]]


def _avg_pool(
    x: np.ndarray,
    kernel_sizes: np.ndarray,
    strides: np.ndarray,
    pad_type: str,
    pad: np.ndarray,
    exclude_padding_from_average: bool,
    ceil_mode: bool,
) -> np.ndarray:
    """x: [B, C, H, W] -> [B, C, H', W']. Without padding exclude_padding_from_average says
    nothing.
    """
    _only(pad_type == "valid" or not pad.any(), "avg_pool", "no padding")
    missing = [(0, 0), (0, 0)]
    for size, kernel, step in zip(x.shape[2:], kernel_sizes, strides):
        missing.append((0, (-(size - kernel)) % step if ceil_mode else 0))
    ones = np.ones((1, 1, *x.shape[2:]), np.float32)
    x, counts = np.pad(_float(x), missing), np.pad(ones, missing)
    rows, columns = (
        (size - kernel) // step + 1
        for size, kernel, step in zip(x.shape[2:], kernel_sizes, strides)
    )

    def sums(array: np.ndarray) -> Any:
        return sum(
            _strided(array, i, j, strides, rows, columns)
            for i in range(kernel_sizes[0])
            for j in range(kernel_sizes[1])
        )

    return sums(x) / sums(counts)


def _matmul(
    x: np.ndarray, y: np.ndarray, transpose_x: bool = False, transpose_y: bool = False
) -> np.ndarray:
    x, y = _float(x), _float(y)
    return (x.swapaxes(-1, -2) if transpose_x else x) @ (y.swapaxes(-1, -2) if transpose_y else y)


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    x = _float(x)
    exponents = np.exp(x - x.max(axis=int(axis), keepdims=True))
    return exponents / exponents.sum(axis=int(axis), keepdims=True)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-_float(x)))


def _reshape(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return x.reshape([int(size) for size in shape])


def _split(x: np.ndarray, split_sizes: np.ndarray, axis: int) -> Tuple[np.ndarray, ...]:
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1], axis=int(axis)))


def _slice_by_index(
    x: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    begin_mask: np.ndarray,
    end_mask: np.ndarray,
    **rest: Any,
) -> np.ndarray:
    _only(not any(np.any(value) for value in rest.values()), "slice_by_index", "masks of the ends")
    axes = zip(begin, end, begin_mask, end_mask)
    return x[tuple(slice(None if a else i, None if b else j) for i, j, a, b in axes)]


def _layer_norm(
    x: np.ndarray, axes: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: np.ndarray
) -> np.ndarray:
    along: Any = tuple(axes)
    x = _float(x) - _float(x).mean(axis=along, keepdims=True)
    deviation = np.sqrt((x * x).mean(axis=along, keepdims=True) + _float(epsilon))
    return x / deviation * _float(gamma) + _float(beta)


def _erf(x: np.ndarray) -> np.ndarray:
    return paddle.erf(paddle.to_tensor(_float(x))).numpy()


def _gelu(x: np.ndarray, mode: str = "EXACT") -> np.ndarray:
    _only(mode == "EXACT", "gelu", "mode 'EXACT'")
    return _float(x) * (1 + _erf(_float(x) / np.float32(np.sqrt(2)))) / 2


def _linear(x: np.ndarray, weight: np.ndarray, bias: Optional[np.ndarray] = None) -> np.ndarray:
    out = _float(x) @ _float(weight).T
    return out if bias is None else out + _float(bias)


def _batch_norm(
    x: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    epsilon: np.ndarray,
) -> np.ndarray:
    """x: [B, C, H, W], the others but epsilon [C]."""
    gain = _float(gamma) / np.sqrt(_float(variance) + _float(epsilon))
    shift = _float(beta) - _float(mean) * gain
    return _float(x) * gain[:, None, None] + shift[:, None, None]


def _resize_bilinear(
    x: np.ndarray, target_size_height: int, target_size_width: int, sampling_mode: str
) -> np.ndarray:
    """x: [B, C, H, W] -> [B, C, target_size_height, target_size_width]."""
    _only(sampling_mode == "UNALIGN_CORNERS", "resize_bilinear", "half-pixel centres")
    x = _float(x)
    for axis, size in ((2, int(target_size_height)), (3, int(target_size_width))):
        step, last = x.shape[axis] / size, x.shape[axis] - 1
        place = np.clip((np.arange(size) + 0.5) * step - 0.5, 0, last)
        low = np.floor(place).astype(np.int64)
        share = np.expand_dims(np.float32(place - low), list(range(1, 4 - axis)))
        near, far = np.take(x, low, axis), np.take(x, np.minimum(low + 1, last), axis)
        x = near + (far - near) * share
    return x


def _gather(x: np.ndarray, indices: np.ndarray, axis: int, **rest: Any) -> np.ndarray:
    _only(not any(np.any(value) for value in rest.values()), "gather", "no batch axes or checks")
    return np.take(x, indices, int(axis))


def _reduce_argmax(x: np.ndarray, axis: int, keep_dims: bool, **rest: Any) -> np.ndarray:
    return np.argmax(x, int(axis), keepdims=bool(keep_dims))


def _reduce_mean(x: np.ndarray, axes: np.ndarray, keep_dims: bool) -> np.ndarray:
    return _float(x).mean(axis=tuple(axes), keepdims=bool(keep_dims))


def _reduce_sum(x: np.ndarray, axes: np.ndarray, keep_dims: bool) -> np.ndarray:
    return _float(x).sum(axis=tuple(axes), keepdims=bool(keep_dims))


def _reduce_max(x: np.ndarray, axes: np.ndarray, keep_dims: bool) -> np.ndarray:
    return x.max(axis=tuple(axes), keepdims=bool(keep_dims))


def _reduce_min(x: np.ndarray, axes: np.ndarray, keep_dims: bool) -> np.ndarray:
    return x.min(axis=tuple(axes), keepdims=bool(keep_dims))


def _log(x: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):  # of what `select` leaves out
        return np.log(_float(x) + _float(epsilon))


def _cumsum(x: np.ndarray, axis: int, exclusive: bool = False, reverse: bool = False) -> np.ndarray:
    _only(not (exclusive or reverse), "cumsum", "sums forward, which include the last")
    return np.cumsum(_float(x), int(axis))


def _topk(
    x: np.ndarray, k: int, axis: int, ascending: bool, **rest: Any
) -> Tuple[np.ndarray, np.ndarray]:
    """The k largest along an axis and their places, largest first; of equal ones the first."""
    plain = not ascending and rest.get("sort", True) and rest.get("return_indices", True)
    _only(plain, "topk", "the largest, sorted, with their places")
    order = np.argsort(-x, int(axis), kind="stable")
    places = np.take(order, np.arange(int(k)), int(axis))
    return np.take_along_axis(x, places, int(axis)), places


def _gather_along_axis(x: np.ndarray, indices: np.ndarray, axis: int, **rest: Any) -> np.ndarray:
    _only(not any(np.any(value) for value in rest.values()), "gather_along_axis", "no checks")
    return np.take_along_axis(x, indices, int(axis))


def _resample(
    x: np.ndarray,
    coordinates: np.ndarray,
    sampling_mode: str,
    padding_mode: str,
    padding_value: np.ndarray,
    coordinates_mode: str,
    align_corners: bool,
) -> np.ndarray:
    """x: [B, C, H, W], coordinates: [B, h, w, 2], (x, y), -1 and 1 at the map's outer edges -> [B,
    C, h, w], bilinear, 0 outside.
    """
    told = (
        sampling_mode,
        padding_mode,
        float(padding_value),
        coordinates_mode,
        bool(align_corners),
    )
    known = ("bilinear", "constant", 0.0, "normalized_minus_one_to_one", False)
    _only(told == known, "resample", "bilinear samples, 0 outside, and -1 and 1 at the edges")
    height, width = x.shape[2:]
    places = (_float(coordinates) + 1) * np.array([width, height], np.float32) / 2 - np.float32(0.5)
    low = np.floor(places)
    share, low = places - low, np.clip(low, -2, max(height, width)).astype(np.int64)
    image, out = np.arange(len(x))[:, None, None], np.float32(0)
    for j in (0, 1):
        for i in (0, 1):
            column, row = low[..., 0] + i, low[..., 1] + j
            weight = np.abs(1 - i - share[..., 0]) * np.abs(1 - j - share[..., 1])
            inside = (0 <= column) & (column < width) & (0 <= row) & (row < height)
            seen = _float(x)[image, :, row.clip(0, height - 1), column.clip(0, width - 1)]
            out = out + seen * (weight * inside)[..., None]
    return np.moveaxis(out, -1, 1)


def _classify(probabilities: np.ndarray, classes: List[str]) -> Tuple[str, Dict[str, float]]:
    scores = probabilities.reshape(-1)
    as_many = f"as many scores as classes, {len(classes)}; got {len(scores)}"
    _only(len(scores) == len(classes), "classify", as_many)
    return classes[int(scores.argmax())], dict(zip(classes, scores))


def _only(condition: bool, operator: str, supported: str) -> None:
    if not condition:
        raise ExportError(f"the program's operator {operator!r} is run here with {supported} alone")


OPERATORS: Dict[str, Callable[..., Any]] = {
    "add": lambda x, y: _float(x) + _float(y),
    "avg_pool": _avg_pool,
    "batch_norm": _batch_norm,
    "cast": lambda x, dtype: x,  # _declared does it
    "classify": _classify,
    "concat": lambda values, axis, interleave=False: np.concatenate(values, axis=int(axis)),
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "cumsum": _cumsum,
    "erf": _erf,
    "expand_dims": lambda x, axes: np.expand_dims(x, tuple(axes)),
    "floor": lambda x: np.floor(x),
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gelu": _gelu,
    "greater": lambda x, y: x > y,
    "layer_norm": _layer_norm,
    "less": lambda x, y: x < y,
    "linear": _linear,
    "log": _log,
    "logical_and": lambda x, y: x & y,
    "logical_not": lambda x: ~x,
    "matmul": _matmul,
    "max_pool": _max_pool,
    "maximum": lambda x, y: np.maximum(x, y),
    "minimum": lambda x, y: np.minimum(x, y),
    "mod": lambda x, y: np.mod(x, y),
    "mul": lambda x, y: _float(x) * _float(y),
    "real_div": lambda x, y: _float(x) / _float(y),
    "reduce_argmax": _reduce_argmax,
    "reduce_max": _reduce_max,
    "reduce_mean": _reduce_mean,
    "reduce_min": _reduce_min,
    "reduce_sum": _reduce_sum,
    "relu": lambda x: np.maximum(x, 0),
    "resample": _resample,
    "reshape": _reshape,
    "resize_bilinear": _resize_bilinear,
    "shape": lambda x: np.array(x.shape, np.int32),
    "rsqrt": lambda x, epsilon=0: 1 / np.sqrt(_float(x) + _float(epsilon)),
    "select": lambda cond, a, b: np.where(cond, a, b),
    "sigmoid": _sigmoid,
    "sin": lambda x: np.sin(_float(x)),
    "slice_by_index": _slice_by_index,
    "softmax": _softmax,
    "split": _split,
    "squeeze": lambda x, axes: np.squeeze(x, tuple(axes)),
    "sub": lambda x, y: _float(x) - _float(y),
    "sqrt": lambda x: np.sqrt(_float(x)),
    "tile": lambda x, reps: np.tile(x, reps),
    "topk": _topk,
    "transpose": lambda x, perm: x.transpose(perm),
}
