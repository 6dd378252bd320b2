"""Exported files against the model they came from: the same inputs through both, by the target's
own engine.

Nothing here knows what the model is for. A batch is {input name: array}; a program is a function
from a batch to {output name: array}.
"""

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import paddle

__all__ = [
    "TOLERANCES",
    "ExportError",
    "Report",
    "Signature",
    "eager",
    "image_batches",
    "log_probability_difference",
    "relative_difference",
    "verify",
]

Batch = Mapping[str, np.ndarray]
Program = Callable[[Batch], Dict[str, np.ndarray]]
Compare = Callable[[np.ndarray, np.ndarray], float]

# The largest difference accepted, as a share of the reference's scale, by the precision of the
# exported program.
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2, "int8": 0.3}
# of logits behind a Softmax: float32 probabilities cannot tell smaller ones apart
SMALLEST_SCALE = 0.01
# The smallest probability whose logarithm is taken.
TINY = 1e-30


class ExportError(ValueError):
    """The exported files do not compute what the model computes, or cannot be made or run; nothing
    was written.
    """


@dataclass(frozen=True)
class Signature:
    """What a program takes and gives: {input name: shape}, all float32, None where any size goes;
    the outputs' names, in order.

    min_size: the smallest height and width of an image where any goes, in pixels.
    """

    inputs: Dict[str, Tuple[Optional[int], ...]]
    outputs: Tuple[str, ...]
    min_size: int = 1


@dataclass
class Report:
    """What `verify` found: the largest difference of each output, and how often the best class
    agreed.

    difference: output name -> share of its scale. images: that top-1 was compared on; 0 if the
    outputs are no classes. shapes: of the first input, batch by batch.
    """

    difference: Dict[str, float] = field(default_factory=dict)
    same_top1: int = 0
    images: int = 0
    shapes: List[List[int]] = field(default_factory=list)

    @property
    def worst(self) -> float:
        """The largest difference of any output, as a share of its scale."""
        return max(self.difference.values())


def relative_difference(output: np.ndarray, expected: np.ndarray) -> float:
    """max |output - expected| / max |expected|."""
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def log_probability_difference(probabilities: np.ndarray, logits: np.ndarray) -> float:
    """max |log probabilities - log softmax(logits)| / max |logits|, both [B, classes].

    Log-probabilities are the logits but for a shift: probabilities alone would hide errors in small
    ones.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    expected = np.maximum(log_softmax, np.log(TINY))
    found = np.log(np.maximum(probabilities, TINY))
    return float(np.abs(found - expected).max() / max(np.abs(logits).max(), SMALLEST_SCALE))


def eager(layer: Callable, signature: Signature) -> Program:
    """`layer`, a function or a Layer in eval mode, run by Paddle without export, as a program with
    the names of `signature`.
    """

    def run(batch: Batch) -> Dict[str, np.ndarray]:
        with paddle.no_grad():
            outputs = layer(*(paddle.to_tensor(batch[name]) for name in signature.inputs))
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return {name: output.numpy() for name, output in zip(signature.outputs, outputs)}

    return run


def verify(
    program: Program,
    reference: Program,
    batches: Iterable[Batch],
    tolerance: float,
    compare: Compare = relative_difference,
    classes: Optional[str] = None,
    any_rows: bool = False,
) -> Report:
    """Run every batch through both programs; returns a Report.

    compare(output, reference's output), float64 arrays, is a number that may be `tolerance` at
    most.
    classes: the name of an output [B, classes] on which top-1 agreement is counted.
    any_rows: an output may have another number of rows, which is `compare`'s to judge.
    Raises ExportError if a difference is larger or not a number, an output has another shape, or
    the reference is not finite.
    """
    report = Report()
    for batch in batches:
        expected, outputs = reference(batch), program(batch)
        shape = list(next(iter(batch.values())).shape)
        report.shapes.append(shape)
        for name, values in expected.items():
            values, output = values.astype(np.float64), outputs[name].astype(np.float64)
            _check_output(name, output, values, shape, any_rows)
            difference = compare(output, values)
            if not difference <= tolerance:  # also true of NaN
                raise ExportError(
                    f"the exported files differ from the model by {difference:.3g} of the scale "
                    f"of {name!r} for an input of {shape}; at most {tolerance:g} is accepted, so "
                    f"nothing was written"
                )
            report.difference[name] = max(report.difference.get(name, 0.0), difference)
            if name == classes:
                report.images += len(values)
                report.same_top1 += int((output.argmax(axis=-1) == values.argmax(axis=-1)).sum())
    return report


def _check_output(
    name: str, output: np.ndarray, expected: np.ndarray, shape: List[int], any_rows: bool
) -> None:
    """ExportError if the two cannot be compared. shape: the input's, for the message. any_rows: see
    verify.
    """
    if not np.isfinite(expected).all():
        raise ExportError(
            f"the model's own output {name!r} is not finite for an input of {shape}; check the "
            f"weights"
        )
    first = 1 if any_rows else 0
    if output.ndim != expected.ndim or output.shape[first:] != expected.shape[first:]:
        raise ExportError(
            f"the exported files give {name!r} as {list(output.shape)} for an input of {shape}; "
            f"the model gives {list(expected.shape)}, so nothing was written"
        )


def image_batches(
    signature: Signature,
    image_size: Tuple[int, int],
    photos: Sequence[np.ndarray] = (),
    seed: int = 0,
) -> Iterator[Dict[str, np.ndarray]]:
    """Batches of photos and of random numbers for a program whose only input is a batch of images.

    image_size: (height, width) meant for use; where the program takes any size, a larger and a
    smaller one, not square, are added.
    photos: preprocessed images, float32 [C, H, W]; they are cut or mirrored at their edges to fit.
    """
    ((name, (batch, channels, *_)),) = signature.inputs.items()
    rng = np.random.default_rng(seed)
    for index, size in enumerate(_sizes(signature, image_size)):
        shape: Any = (batch or (2, 3, 1)[index], channels, *size)
        yield {name: rng.standard_normal(shape, dtype=np.float32)}
        fitted = [_fitted(photo, size) for photo in photos]
        # all photos at the size meant for use, one at each other
        step = batch or (len(fitted) if index == 0 else 1) or 1
        for start in range(0, len(fitted) if index == 0 else min(step, len(fitted)), step):
            chosen = [fitted[i % len(fitted)] for i in range(start, start + step)]
            yield {name: np.stack(chosen)}


def _sizes(signature: Signature, image_size: Tuple[int, int]) -> List[Tuple[int, int]]:
    """The sizes to compare at: the one meant for use, then, where any goes, a larger and a smaller
    one.
    """
    ((_, _, height, width),) = signature.inputs.values()
    h, w = height or image_size[0], width or image_size[1]
    if height is not None and width is not None:
        return [(h, w)]
    least = signature.min_size
    larger = (height or h + 24, width or w + 8)
    smaller = (height or max(least, h // 2 + 3), width or max(least, w * 3 // 4))
    return [(h, w), larger, smaller]


def _fitted(photo: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    photo = np.asarray(photo, np.float32)[:, : size[0], : size[1]]
    missing = [(0, wanted - got) for wanted, got in zip(size, photo.shape[1:])]
    return np.ascontiguousarray(np.pad(photo, [(0, 0), *missing], mode="reflect"))
