"""A saved Core ML package, run in numpy by the specification of its operators, where there is no
Core ML.

What this can show is that the file is right: operators, attributes, weights, types. Apple's kernels
are not here. Between operators a value has the type that the program declares, so half stays half;
sums within an operator are float32.

Source: MIL.proto and the operators' documentation of coremltools 9; the layout of weight.bin
(MILBlob/StorageFormat).
"""

import logging
from pathlib import Path

import numpy as np

from .verify import ExportError

__all__ = ["MilProgram", "import_coremltools"]

# MIL.proto's DataType. Strings stay strings.
DTYPES = {
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
# weight.bin, at the offset of a value: 0xDEADBEEF, type, bytes of the data, offset of the data.
BLOB = np.dtype([("sentinel", "<u4"), ("type", "<u4"), ("bytes", "<u8"), ("offset", "<u8")])


def import_coremltools():
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

    def __init__(self, path):
        import_coremltools()
        from coremltools.proto import Model_pb2
        from google.protobuf.message import DecodeError

        self.spec, path = Model_pb2.Model(), Path(path)
        try:
            self.spec.ParseFromString((path / MODEL).read_bytes())
            self.weights = (
                np.memmap(path / WEIGHTS, np.uint8, "r")
                if (path / WEIGHTS).exists()
                else np.zeros(0, np.uint8)
            )
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
        self.nodes, self.outputs = (
            [op for op in block.operations if op.type != "const"],
            list(block.outputs),
        )
        self.operators = [op.type for op in self.nodes]
        unknown = sorted(set(self.operators) - set(OPERATORS))
        if unknown:
            raise ExportError(
                f"{path.name} does not run here: no rule for the MIL operators {', '.join(unknown)}"
            )

    def __call__(self, **inputs):
        values = {**self.constants, **inputs}
        for node in self.nodes:
            arguments = {}
            for name, argument in node.inputs.items():
                given = [
                    values[a.name] if a.name else self._value(a.value) for a in argument.arguments
                ]
                arguments[name] = given if node.type == "concat" and name == "values" else given[0]
            results = OPERATORS[node.type](**arguments)
            for output, result in zip(
                node.outputs, results if isinstance(results, tuple) else (results,)
            ):
                values[output.name] = _declared(output, result)
        return {name: values[name] for name in self.outputs}

    def _value(self, value):
        """A Value of MIL.proto: an array, a string, or a list of them."""
        if value.type.WhichOneof("type") == "listType":
            return [self._value(item) for item in value.immediateValue.list.values]
        kind, shape = (
            value.type.tensorType.dataType,
            [dim.constant.size for dim in value.type.tensorType.dimensions],
        )
        if value.WhichOneof("value") == "blobFileValue":
            header = self.weights[value.blobFileValue.offset :][: BLOB.itemsize].view(BLOB)[0]
            if header["sentinel"] != 0xDEADBEEF:
                raise ValueError(f"no value at byte {value.blobFileValue.offset} of weight.bin")
            return (
                self.weights[header["offset"] :][: header["bytes"]]
                .view(DTYPES[kind])
                .reshape(shape)
            )
        content = value.immediateValue.tensor
        data = getattr(content, content.WhichOneof("value")).values
        if kind == 2:
            return data[0] if not shape else list(data)
        return (
            np.frombuffer(data, DTYPES[kind])
            if isinstance(data, bytes)
            else np.array(data, DTYPES[kind])
        ).reshape(shape)


def _declared(output, result):
    """`result` in the type that the program declares; ExportError if its shape is another."""
    if not isinstance(result, np.ndarray):  # of `classify`
        return result
    declared = output.type.tensorType
    sizes = [dim.constant.size if dim.HasField("constant") else None for dim in declared.dimensions]
    if len(sizes) != result.ndim or any(
        size not in (None, got) for size, got in zip(sizes, result.shape)
    ):
        raise ExportError(
            f"the program declares {output.name!r} as {sizes}, and it is {list(result.shape)}"
        )
    # becomes infinite, as it would in Core ML
    with np.errstate(over="ignore"):
        return result.astype(DTYPES[declared.dataType], copy=False)


def _float(x):
    return x.astype(np.float32, copy=False)


def _conv(x, weight, strides, pad_type, pad, dilations, groups, bias=None):
    _only(
        pad_type in ("valid", "custom") and (dilations == 1).all(),
        "conv",
        "padding 'valid' or 'custom', no dilation",
    )
    x, groups = (
        np.pad(
            _float(x),
            [(0, 0), (0, 0), *np.reshape(pad if pad_type == "custom" else [0] * 4, (2, 2))],
        ),
        int(groups),
    )
    (height, width), step = weight.shape[2:], strides
    rows, columns = (x.shape[2] - height) // step[0] + 1, (x.shape[3] - width) // step[1] + 1
    kernel = np.ascontiguousarray(
        _float(weight)
        .reshape(groups, len(weight) // groups, -1, height, width)
        .transpose(3, 4, 0, 1, 2)
    )
    out = np.float32(0)
    for i in range(height):
        for j in range(width):
            seen = x[:, :, i : i + step[0] * rows : step[0], j : j + step[1] * columns : step[1]]
            out = out + kernel[i, j] @ seen.reshape(len(x), groups, -1, rows * columns)
    out = out.reshape(len(x), len(weight), rows, columns)
    return out if bias is None else out + _float(bias)[:, None, None]


def _avg_pool(x, kernel_sizes, strides, pad_type, pad, exclude_padding_from_average, ceil_mode):
    # then exclude_padding_from_average says nothing
    _only(pad_type == "valid" or not pad.any(), "avg_pool", "no padding")
    x, counts = _float(x), np.ones((1, 1, *x.shape[2:]), np.float32)
    missing = [
        (-(size - kernel)) % step if ceil_mode else 0
        for size, kernel, step in zip(x.shape[2:], kernel_sizes, strides)
    ]
    x, counts = (
        np.pad(array, [(0, 0), (0, 0), *((0, more) for more in missing)]) for array in (x, counts)
    )
    rows, columns = (
        (size - kernel) // step + 1
        for size, kernel, step in zip(x.shape[2:], kernel_sizes, strides)
    )

    def sums(array):
        return sum(
            array[
                :,
                :,
                i : i + strides[0] * rows : strides[0],
                j : j + strides[1] * columns : strides[1],
            ]
            for i in range(kernel_sizes[0])
            for j in range(kernel_sizes[1])
        )

    return sums(x) / sums(counts)


def _matmul(x, y, transpose_x=False, transpose_y=False):
    x, y = _float(x), _float(y)
    return (x.swapaxes(-1, -2) if transpose_x else x) @ (y.swapaxes(-1, -2) if transpose_y else y)


def _softmax(x, axis):
    x = _float(x)
    exponents = np.exp(x - x.max(axis=int(axis), keepdims=True))
    return exponents / exponents.sum(axis=int(axis), keepdims=True)


def _reshape(x, shape):
    return x.reshape([int(size) for size in shape])


def _split(x, split_sizes, axis):
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1], axis=int(axis)))


def _reduce_mean(x, axes, keep_dims):
    return _float(x).mean(axis=tuple(axes), keepdims=bool(keep_dims))


def _classify(probabilities, classes):
    scores = probabilities.reshape(-1)
    _only(
        len(scores) == len(classes),
        "classify",
        f"as many scores as classes, {len(classes)}; got {len(scores)}",
    )
    return classes[int(scores.argmax())], dict(zip(classes, scores))


def _only(condition, operator, supported):
    if not condition:
        raise ExportError(f"the program's operator {operator!r} is run here with {supported} alone")


OPERATORS = {
    "add": lambda x, y: _float(x) + _float(y),
    "avg_pool": _avg_pool,
    "cast": lambda x, dtype: x,  # _declared does it
    "classify": _classify,
    "concat": lambda values, axis, interleave=False: np.concatenate(values, axis=int(axis)),
    "conv": _conv,
    "matmul": _matmul,
    "mul": lambda x, y: _float(x) * _float(y),
    "reduce_mean": _reduce_mean,
    "relu": lambda x: np.maximum(x, 0),
    "reshape": _reshape,
    "shape": lambda x: np.array(x.shape, np.int32),
    "softmax": _softmax,
    "split": _split,
    "transpose": lambda x, perm: x.transpose(perm),
}
