"""The target `coreml`: inference.mlpackage (an ML program for iOS 16, macOS 13 and later), built
from the ONNX.

Where the description has a recipe of preprocessing, the input is a picture of 8-bit RGB, already
cut to size, and normalisation is part
of the program: Core ML's own ImageType has one scale for all channels, ImageNet's has three. Where
the description has class names and the outputs are probabilities, the package is a classifier, as
Vision and Xcode know it. The saved package is checked by mil.py on any system;
deploy/coreml/predict.py runs it in Core ML itself, on a Mac. A model in Parts goes out as one
package each, of arrays, not of pictures, which two_stage.py joins.

Our own rules, one for each ONNX operator of an export, rather than a converter: they are shorter
than what would have to be checked in one.
"""

import contextlib
import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

import numpy as np

from ..data.transforms.joint.colour import MEAN, STD
from .coreml_rules import RULES
from .mil import MilProgram, import_coremltools
from .onnx import to_onnx
from .parts import FIRST, Parts
from .target import STEM, Target
from .two_stage import TwoStage
from .verify import Batch, ExportError, Program, Signature

__all__ = ["TARGET", "load", "to_mil"]

PACKAGE = f"{STEM}.mlpackage"
RECIPE = "transform_ops"  # in the package's metadata, as JSON
SETTINGS = "two_stage"  # likewise, of what joins it with others
# transforms that normalise, with what they take where the recipe does not say
NORMALIZE: Dict[str, Dict[str, Any]] = {
    "NormalizeImage": {},
    "Normalize": {"mean": MEAN, "std": STD},
}
LARGEST_SIZE = 1024  # of a picture of any size: Core ML wants a limit


def package_of(part: str) -> str:
    """The name of the package of a part of Parts."""
    return PACKAGE if part == FIRST else f"{STEM}.{part}.mlpackage"


def write(
    layer: Callable,
    folder: Path,
    signature: Signature,
    precision: str,
    images: Iterable[np.ndarray],
    description: Dict[str, Any],
) -> int:
    """inference.mlpackage in `folder`, and others for other Parts; returns the number of operators.
    See Target.
    """
    if isinstance(layer, Parts):
        return sum(
            _write_part(layer, name, folder / package_of(name), precision, description)
            for name in layer.programs
        )
    # a detector takes its picture's size, too, and pads pictures by what no pixel is
    alone = len(signature.inputs) == 1
    recipe = description.get("PreProcess", {}).get("transform_ops") if alone else None
    signature = _one_picture(signature) if recipe else signature
    _check_sizes(signature, bool(recipe))
    normalize = normalization(recipe) if recipe else None
    program = to_mil(to_onnx(layer, signature), signature, normalize)
    package = _converted(program, signature, precision, recipe, _class_names(description))
    package.short_description = description.get("Global", {}).get("model_name", "")
    if recipe:
        package.user_defined_metadata[RECIPE] = json.dumps(recipe)
    package.save(str(folder / PACKAGE))
    return len(MilProgram(folder / PACKAGE).operators)


def _write_part(
    parts: Parts, name: str, path: Path, precision: str, description: Dict[str, Any]
) -> int:
    """The package `path` of one of `parts`; returns the number of operators."""
    layer, signature = parts.programs[name]
    program = to_mil(to_onnx(layer, signature), signature)
    package = _converted(program, signature, precision, None, None)
    package.short_description = description.get("Global", {}).get("model_name", "")
    if name == FIRST:
        package.user_defined_metadata[SETTINGS] = json.dumps(parts.settings)
    package.save(str(path))
    return len(MilProgram(path).operators)


def _class_names(description: Dict[str, Any]) -> Optional[List[str]]:
    """The class names of a classifier of pictures whose outputs are probabilities, else None."""
    pictures = description.get("PreProcess", {}).get("transform_ops")
    if not pictures or not description.get("Model", {}).get("softmax"):
        return None
    return description["PostProcess"]["Topk"]["label_list"]


def _converted(
    program: Any,
    signature: Signature,
    precision: str,
    recipe: Optional[List[Any]],
    classes: Optional[List[str]],
) -> Any:
    """`program` as a model of coremltools, whose weights and sums have the type `precision`."""
    ct = import_coremltools()
    passes = ct.PassPipeline.DEFAULT
    # the norm that it makes of normalisation adds its epsilon, 5e-6
    passes.remove_passes({"common::fuse_elementwise_to_batchnorm"})
    half = ct.transform.FP16ComputePrecision(
        # small probabilities are no half numbers: the softmax which makes an output stays float32
        lambda op: not (op.op_type == "softmax" and op.outputs[0].name in signature.outputs)
    )
    pictures = None
    if recipe:
        pictures = [_picture(name, signature, recipe) for name in signature.inputs]
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        return ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
            pass_pipeline=passes,
            compute_precision=half if precision == "fp16" else ct.precision.FLOAT32,
            inputs=pictures,
            classifier_config=ct.ClassifierConfig(distinct(classes)) if classes else None,
        )


def load(folder: Path, signature: Signature, precision: str = "fp32") -> Program:
    """inference.mlpackage in `folder` as a program (see verify.py), run by mil.py: pictures one by
    one, as Core ML takes them.
    """
    program = MilProgram(folder / PACKAGE)
    told = program.spec.description.metadata.userDefined
    if SETTINGS in told:
        return _joined(program, folder, signature, json.loads(told[SETTINGS]))
    recipe = json.loads(told.get(RECIPE, "null"))
    gain, shift = normalization(recipe) if recipe else (None, None)

    def outputs(inputs: Batch) -> Dict[str, np.ndarray]:
        results = program(**inputs)
        scores = next((result for result in results.values() if isinstance(result, dict)), None)
        if scores is None:
            return results
        return {signature.outputs[0]: np.array([list(scores.values())])}

    def run(batch: Batch) -> Dict[str, np.ndarray]:
        if gain is None or shift is None:
            return outputs(batch)
        ((name, values),) = batch.items()
        # what preprocessing made of them is undone
        pixels = ((values - shift) / gain).astype(np.float32)
        results = [outputs({name: picture[None]}) for picture in pixels]
        return {
            name: np.concatenate([result[name] for result in results]) for name in signature.outputs
        }

    return run


def _joined(
    first: MilProgram, folder: Path, signature: Signature, settings: Dict[str, Any]
) -> Program:
    """The packages of Parts in `folder` as the one program that they make."""
    programs = [first, *(MilProgram(folder / package_of(name)) for name in ("boxes", "masks"))]
    try:
        whole = TwoStage(settings, *(partial(_run, program) for program in programs))
    except ValueError as error:
        raise ExportError(f"{PACKAGE} does not run: {error}") from None

    def run(batch: Batch) -> Dict[str, np.ndarray]:
        found = whole(*(batch[name] for name in signature.inputs))
        return dict(zip(signature.outputs, found))

    return run


def _run(program: MilProgram, inputs: Dict[str, np.ndarray]) -> Dict[str, Any]:
    return program(**inputs)


def normalization(recipe: List[Dict[str, Any]]) -> Tuple[np.ndarray, np.ndarray]:
    """(gain, shift), float64 [1, 3, 1, 1]: preprocessed = pixel * gain + shift, for 0 ... 255, as
    NormalizeImage, or Normalize of the dense tasks, of `recipe` says.
    """
    ((scale, mean, std),) = [
        (entry.get("scale", 1.0), entry["mean"], entry["std"])
        for step in recipe
        for name, given in step.items()
        if name in NORMALIZE
        for entry in [{**NORMALIZE[name], **(given or {})}]
    ] or [(1.0, [0.0] * 3, [1.0] * 3)]
    mean, std = (np.reshape(np.asarray(values, np.float64), (1, 3, 1, 1)) for values in (mean, std))
    return scale / std, -mean / std


def distinct(names: List[str]) -> List[str]:
    """`names`, where those that occur twice have their index added: a classifier's scores go by
    name ('crane' is a bird and a machine).
    """
    repeated = {name for name in names if names.count(name) > 1}
    return [f"{name} ({index})" if name in repeated else name for index, name in enumerate(names)]


def _one_picture(signature: Signature) -> Signature:
    ((name, (batch, channels, *size)),) = signature.inputs.items()
    if batch not in (None, 1) or channels != 3:
        raise ValueError(
            f"--to coreml takes one picture of 3 channels at a time (give --batch 1); got {batch} "
            f"of {channels} channels"
        )
    return replace(signature, inputs={name: (1, channels, *size)})


def _check_sizes(signature: Signature, pictures: bool) -> None:
    """ValueError for a size that is not known, but for the height and width of pictures."""
    fixed = [shape[:2] if pictures else shape for shape in signature.inputs.values()]
    if any(size is None for shape in fixed for size in shape):
        raise ValueError(
            "--to coreml needs fixed sizes where the input is no picture; give --batch and --size"
        )


def _picture(name: str, signature: Signature, recipe: List[Dict[str, Any]]) -> Any:
    """The input `name` as an ImageType: 8-bit pixels, in the order of colours of the recipe."""
    ct = import_coremltools()
    sizes = [
        ct.RangeDim(signature.min_size, LARGEST_SIZE, default=224) if size is None else size
        for size in signature.inputs[name]
    ]
    rgb = all(step["DecodeImage"].get("to_rgb", True) for step in recipe if "DecodeImage" in step)
    layout = ct.colorlayout.RGB if rgb else ct.colorlayout.BGR
    return ct.ImageType(name, ct.Shape(sizes), color_layout=layout)


def to_mil(
    model: Any,
    signature: Signature,
    normalize: Optional[Tuple[np.ndarray, np.ndarray]] = None,
) -> Any:
    """An onnx.ModelProto as a program of coremltools, with the inputs of `signature`.

    normalize: (gain, shift), with which the only input begins. ExportError that names what there is
    no rule for.
    """
    ct = import_coremltools()
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, get_new_symbol
    from onnx import numpy_helper

    unknown = sorted({node.op_type for node in model.graph.node} - set(RULES))
    if unknown:
        raise ExportError(
            f"there is no rule for Core ML of the operators {', '.join(unknown)}; there are for "
            f"{', '.join(RULES)}; a program for one size (--size) may need fewer"
        )
    inputs = {
        name: mb.placeholder([get_new_symbol() if size is None else size for size in shape])
        for name, shape in signature.inputs.items()
    }
    program = Program()
    with Function(inputs, opset_version=ct.target.iOS16) as function:
        values = {
            **{tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer},
            **function.inputs,
            "": None,  # an optional input that is not given
        }
        if normalize:
            ((name, x),) = function.inputs.items()
            gain, shift = (array.astype(np.float32) for array in normalize)
            values[name] = mb.add(x=mb.mul(x=x, y=gain), y=shift)
        for node in model.graph.node:
            given = [values[name] for name in node.input]
            named = {"name": node.output[0]} if node.output[0] in signature.outputs else {}
            results = RULES[node.op_type](mb, _attributes(node), named, *given)
            results = results if isinstance(results, (list, tuple)) else [results]
            values.update(zip(node.output, results))
        function.set_outputs([values[name] for name in signature.outputs])
    program.add_function("main", function)
    return program


def _attributes(node: Any) -> Dict[str, Any]:
    from onnx import helper

    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    for name, expected in (("auto_pad", b"NOTSET"), ("allowzero", 0)):
        if found.get(name, expected) != expected:
            raise ExportError(
                f"there is no rule for Core ML of {node.op_type} with {name} = {found[name]!r}"
            )
    return found


TARGET = Target(
    "coreml",
    ("fp32", "fp16"),
    write,
    load,
    ("paddle2onnx", "onnx", "onnxslim", "coremltools"),
    described=True,
    next_step="in Core ML itself, on a Mac: python deploy/coreml/predict.py --model {directory} "
    "--images FILE",
)
