"""How each ONNX operator of our exports is said in MIL, the language of Core ML's programs.

A rule is called with coremltools' Builder, the node's attributes, {'name': ...} for an output of
the program, and the node's inputs: values of MIL, arrays where known, None where not given.
"""

from typing import Any, Callable, Dict, List

import numpy as np

from .verify import ExportError

__all__ = ["RULES"]


# ONNX's padding is [top, left, bottom, right], MIL's [top, bottom, left, right].
def _pads(attributes: Dict[str, Any]) -> List[int]:
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    return [top, bottom, left, right]


def _conv(mb, attributes, named, x, weight, *bias):
    return mb.conv(
        x=x,
        weight=weight,
        strides=attributes.get("strides", [1, 1]),
        pad_type="custom",
        pad=_pads(attributes),
        dilations=attributes.get("dilations", [1, 1]),
        groups=attributes.get("group", 1),
        **dict(zip(("bias",), bias)),
        **named,
    )


def _conv_transpose(mb, attributes, named, x, weight, *bias):
    given = {name: attributes.get(name, [0, 0]) for name in ("output_padding", "output_shape")}
    if any(any(sizes) for sizes in given.values()):
        raise ExportError("there is no rule for Core ML of ConvTranspose to a size of its own")
    return mb.conv_transpose(
        x=x,
        weight=weight,
        strides=attributes.get("strides", [1, 1]),
        pad_type="custom",
        pad=_pads(attributes),
        dilations=attributes.get("dilations", [1, 1]),
        groups=attributes.get("group", 1),
        **dict(zip(("bias",), bias)),
        **named,
    )


def _max_pool(mb, attributes, named, x):
    if attributes.get("ceil_mode", 0):
        raise ExportError("there is no rule for Core ML of MaxPool that rounds sizes up")
    return mb.max_pool(
        x=x,
        kernel_sizes=attributes["kernel_shape"],
        strides=attributes.get("strides", [1, 1]),
        pad_type="custom",
        pad=_pads(attributes),
        **named,
    )


def _average_pool(mb, attributes, named, x):
    kernel, pads = attributes["kernel_shape"], _pads(attributes)
    strides = attributes.get("strides", [1, 1])
    even = all(
        isinstance(size, (int, np.integer)) and (size - window) % step == 0
        # nothing to round up: kernels without it are faster
        for size, window, step in zip(x.shape[2:], kernel, strides)
    )
    return mb.avg_pool(
        x=x,
        kernel_sizes=kernel,
        strides=strides,
        pad_type="custom",
        pad=pads,
        exclude_padding_from_average=not attributes.get("count_include_pad", 0),
        ceil_mode=bool(attributes.get("ceil_mode", 0)) and not even,
        **named,
    )


def _reshape(mb, attributes, named, x, shape):
    """`shape`: an array, whose zeros are sizes of x, or read at run time."""
    if isinstance(shape, np.ndarray):
        shape = [x.shape[axis] if size == 0 else int(size) for axis, size in enumerate(shape)]
    return mb.reshape(x=x, shape=shape, **named)


def _slice(mb, attributes, named, x, starts, ends, axes, steps=(1,)):
    """Of known places, without steps."""
    if set(steps) != {1}:
        raise ExportError(f"there is no rule for Core ML of Slice with steps {list(steps)}")
    begin, end = [0] * len(x.shape), [0] * len(x.shape)
    begin_mask, end_mask = [True] * len(begin), [True] * len(begin)
    for start, stop, axis in zip(starts, ends, axes):
        begin[axis], begin_mask[axis] = int(start), False
        if stop < x.shape[axis]:
            end[axis], end_mask[axis] = int(stop), False
    return mb.slice_by_index(
        x=x, begin=begin, end=end, begin_mask=begin_mask, end_mask=end_mask, **named
    )


def _layer_norm(mb, attributes, named, x, gain, shift):
    axes = list(range(len(x.shape)))[attributes.get("axis", -1) :]
    epsilon = np.float32(attributes.get("epsilon", 1e-5))
    return mb.layer_norm(x=x, axes=axes, gamma=gain, beta=shift, epsilon=epsilon, **named)


def _gemm(mb, attributes, named, x, weight, bias):
    """Without factors."""
    if {attributes.get("alpha", 1.0), attributes.get("beta", 1.0)} != {1.0}:
        raise ExportError("there is no rule for Core ML of Gemm with factors")
    product = mb.matmul(
        x=x,
        y=weight,
        transpose_x=bool(attributes.get("transA", 0)),
        transpose_y=bool(attributes.get("transB", 0)),
    )
    return mb.add(x=product, y=bias, **named)


def _clip(mb, attributes, named, x, low, high=None):
    """With a lower limit, and an upper one unless that is the largest number."""
    if high is None or high >= np.finfo(np.float32).max:
        return mb.maximum(x=x, y=low, **named)
    return mb.minimum(x=mb.maximum(x=x, y=low), y=high, **named)


def _batch_norm(mb, attributes, named, x, gain, shift, mean, variance):
    epsilon = np.float32(attributes.get("epsilon", 1e-5))
    return mb.batch_norm(
        x=x, mean=mean, variance=variance, gamma=gain, beta=shift, epsilon=epsilon, **named
    )


# (mode, where a pixel lies) that ours have: bilinear with half-pixel centres, and the pixel at the
# rounded-down place
LINEAR, NEAREST = (b"linear", b"half_pixel"), (b"nearest", b"asymmetric")


def _resize(mb, attributes, named, x, _roi, _scales, sizes):
    """A map [B, C, H, W] to a known size, or one that follows from known ones."""
    sizes = getattr(sizes, "val", sizes)
    mode = attributes["mode"], attributes.get("coordinate_transformation_mode", b"half_pixel")
    floor = attributes.get("nearest_mode", b"floor") == b"floor"
    if not isinstance(sizes, np.ndarray) or mode not in (LINEAR, NEAREST) or not floor:
        raise ExportError(
            f"there is no rule for Core ML of Resize to a size that is not known, or as {mode}; a "
            f"program for one size (--size) may need none"
        )
    height, width = (int(size) for size in sizes[2:])
    if mode == LINEAR:
        return mb.resize_bilinear(
            x=x,
            target_size_height=height,
            target_size_width=width,
            sampling_mode="UNALIGN_CORNERS",
            **named,
        )
    for axis, size in ((2, height), (3, width)):
        places = (np.arange(size) * x.shape[axis] // size).astype(np.int32)
        x = mb.gather(x=x, indices=places, axis=axis, **(named if axis == 3 else {}))
    return x


def _arg_max(mb, attributes, named, x):
    keep = bool(attributes.get("keepdims", 1))
    return mb.reduce_argmax(x=x, axis=attributes["axis"], keep_dims=keep, **named)


CASTS = {1: "fp32", 6: "int32", 7: "int32", 9: "bool"}  # MIL has no int64


def _cast(mb, attributes, named, x):
    if attributes["to"] not in CASTS:
        raise ExportError(f"there is no rule for Core ML of Cast to type {attributes['to']}")
    return mb.cast(x=x, dtype=CASTS[attributes["to"]], **named)


def _cum_sum(mb, attributes, named, x, axis):
    if attributes.get("exclusive", 0) or attributes.get("reverse", 0):
        raise ExportError("there is no rule for Core ML of CumSum but forward, itself included")
    return mb.cumsum(x=x, axis=int(axis), **named)


def _expand(mb, attributes, named, x, shape):
    """To a shape that is known, or follows from known ones."""
    shape = getattr(shape, "val", shape)
    if not isinstance(shape, np.ndarray):
        raise ExportError("there is no rule for Core ML of Expand to a size that is not known")
    if len(shape) > len(x.shape):
        x = mb.expand_dims(x=x, axes=list(range(len(shape) - len(x.shape))))
    reps = [int(size) if old == 1 else 1 for size, old in zip(shape, x.shape)]
    return mb.tile(x=x, reps=reps, **named)


def _grid_sample(mb, attributes, named, x, grid):
    mode, padding = attributes.get("mode", b"bilinear"), attributes.get("padding_mode", b"zeros")
    if (mode, padding) != (b"bilinear", b"zeros"):
        raise ExportError(
            f"there is no rule for Core ML of GridSample with mode {mode!r} and padding {padding!r}"
        )
    return mb.resample(
        x=x,
        coordinates=grid,
        sampling_mode="bilinear",
        padding_mode="constant",
        padding_value=0.0,
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=bool(attributes.get("align_corners", 0)),
        **named,
    )


def _top_k(mb, attributes, named, x, count):
    if not attributes.get("largest", 1):
        raise ExportError("there is no rule for Core ML of TopK of the smallest")
    axis = attributes.get("axis", -1)
    return mb.topk(x=x, k=int(np.reshape(count, ())), axis=axis, ascending=False)


def _mod(mb, attributes, named, x, y):
    if attributes.get("fmod", 0):
        raise ExportError("there is no rule for Core ML of Mod with fmod")
    return mb.mod(x=x, y=y, **named)


def _extreme(operator):
    def rule(mb, attributes, named, x):
        keep = bool(attributes.get("keepdims", 1))
        return getattr(mb, operator)(x=x, axes=attributes["axes"], keep_dims=keep, **named)

    return rule


def _of_two(operator):
    """The rule of an operator that MIL calls so, of x and y."""

    def rule(mb, attributes, named, x, y):
        return getattr(mb, operator)(x=x, y=y, **named)

    return rule


def _of_one(operator):
    """The rule of an operator that MIL calls so, of x."""

    def rule(mb, attributes, named, x):
        return getattr(mb, operator)(x=x, **named)

    return rule


def _sum(mb, attributes, named, first, *others):
    for index, value in enumerate(others):
        first = mb.add(x=first, y=value, **(named if index == len(others) - 1 else {}))
    return first


def _axes(operator):
    """The rule of Squeeze or Unsqueeze, of known axes."""

    def rule(mb, attributes, named, x, axes):
        return getattr(mb, operator)(x=x, axes=[int(axis) for axis in axes], **named)

    return rule


def _reduce_sum(mb, attributes, named, x, axes):
    keep = bool(attributes.get("keepdims", 1))
    return mb.reduce_sum(x=x, axes=[int(axis) for axis in axes], keep_dims=keep, **named)


def _reduce_mean(mb, attributes, named, x):
    keep = bool(attributes.get("keepdims", 1))
    return mb.reduce_mean(x=x, axes=attributes["axes"], keep_dims=keep, **named)


RULES: Dict[str, Callable[..., Any]] = {
    "Add": _of_two("add"),
    "And": _of_two("logical_and"),
    "ArgMax": _arg_max,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda mb, attributes, named, *values: mb.concat(
        values=values, axis=attributes["axis"], **named
    ),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "CumSum": _cum_sum,
    "Div": _of_two("real_div"),
    "Erf": _of_one("erf"),
    "Expand": _expand,
    "Floor": _of_one("floor"),
    "GatherElements": lambda mb, attributes, named, x, indices: mb.gather_along_axis(
        x=x, indices=indices, axis=attributes.get("axis", 0), **named
    ),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda mb, attributes, named, x: mb.reduce_mean(
        x=x, axes=[2, 3], keep_dims=True, **named
    ),
    "Greater": _of_two("greater"),
    "GridSample": _grid_sample,
    "LayerNormalization": _layer_norm,
    "Less": _of_two("less"),
    # without an epsilon
    "Log": lambda mb, attributes, named, x: mb.log(x=x, epsilon=0.0, **named),
    "MatMul": _of_two("matmul"),
    "MaxPool": _max_pool,
    "Min": _of_two("minimum"),
    "Mod": _mod,
    "Mul": _of_two("mul"),
    "Not": _of_one("logical_not"),
    # mb.inverse adds an epsilon
    "Reciprocal": lambda mb, attributes, named, x: mb.real_div(x=np.float32(1), y=x, **named),
    "ReduceMax": _extreme("reduce_max"),
    "ReduceMean": _reduce_mean,
    "ReduceMin": _extreme("reduce_min"),
    "ReduceSum": _reduce_sum,
    "Relu": _of_one("relu"),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _of_one("shape"),
    "Sigmoid": _of_one("sigmoid"),
    "Sin": _of_one("sin"),
    "Slice": _slice,
    "Softmax": lambda mb, attributes, named, x: mb.softmax(
        x=x, axis=attributes.get("axis", -1), **named
    ),
    "Split": lambda mb, attributes, named, x, sizes: mb.split(
        x=x, split_sizes=sizes.astype(np.int32), axis=attributes["axis"]
    ),
    "Sqrt": _of_one("sqrt"),
    "Squeeze": _axes("squeeze"),
    "Sub": _of_two("sub"),
    "Sum": _sum,
    "Tile": lambda mb, attributes, named, x, reps: mb.tile(
        x=x, reps=reps.astype(np.int32), **named
    ),
    "TopK": _top_k,
    "Transpose": lambda mb, attributes, named, x: mb.transpose(
        x=x, perm=attributes["perm"], **named
    ),
    "Unsqueeze": _axes("expand_dims"),
    "Where": lambda mb, attributes, named, condition, x, y: mb.select(
        cond=condition, a=x, b=y, **named
    ),
}
