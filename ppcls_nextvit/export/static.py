"""Model -> Paddle Inference files: fused, any batch and image size, and run once against the model they came from.

    DIRECTORY/inference.json        program (PIR)
    DIRECTORY/inference.pdiparams   weights
    DIRECTORY/inference.yml         preprocessing, class names, hashes: all that a program needs to use the two others

PreProcess and PostProcess in the yml have PaddleClas's layout.
"""
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import paddle
import PIL
import yaml
from paddle import nn
from paddle.nn import functional as F

from .. import __version__
from ..models import fuse_bn
from ..models.nextvit import MIN_INPUT_SIZE

__all__ = ["ExportError", "describe_config", "export_inference", "sha256_of"]

FILES = ("inference.json", "inference.pdiparams", "inference.yml")
INPUT_NAME = "x"
TOLERANCE = 1e-4            # of the logits' scale
SMALLEST_SCALE = 0.01       # of logits behind a Softmax: float32 probabilities cannot tell smaller ones apart


class ExportError(ValueError):
    """The exported files do not compute what the model computes, or cannot be run; nothing was written."""


class _Traced(nn.Layer):
    """`model`, with Softmax or without, run as plain Python while it is recorded.

    Paddle's source transformation would turn every `if` on a size into an If operator; recorded plainly, an `if` on an unknown
    number is an error.
    """

    def __init__(self, model, softmax):
        super().__init__()
        self.model, self.softmax = model, softmax
        self.eval()

    def forward(self, x):
        return self.run(x)

    @paddle.jit.not_to_static
    def run(self, x):
        logits = self.model(x)
        return F.softmax(logits, axis=-1) if self.softmax else logits


def sha256_of(path):
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe_config(config, preprocess, names, weights):
    """What inference.yml takes from a run: preprocess (Preprocess), names (one per class), weights (the path of their file)."""
    return {"Global": {"model_name": config.Arch.name},
            "PreProcess": {"transform_ops": preprocess.describe()},
            "PostProcess": {"Topk": {"topk": min(config.Infer.topk, len(names)), "label_list": list(names)}},
            "Weights": {"file": Path(weights).name, "sha256": sha256_of(weights)}}


def export_inference(model, directory, description, image_size=(224, 224), softmax=True, image=None):
    """Write the three files of the module's docstring; returns the largest difference found, as a share of the logits' scale.

    model: a NextViT, not fused, with its weights; it is left in eval mode. directory: made if need be; other files in it stay.
    description: what inference.yml shall hold beside input, output, hashes and versions (see describe_config).
    image_size: (height, width) meant for use; the files are checked there and at a larger, not square size, with batches of 2 and 3.
    softmax: end in Softmax. image: float32 [3, H, W], checked too.
    Raises ExportError if the files' output differs from the model's by more than TOLERANCE, or cannot be had; no file is left behind.
    """
    directory = Path(directory)
    parent = _existing_parent(directory)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=parent))
    try:
        spec = paddle.static.InputSpec([None, model.in_channels, None, None], "float32", INPUT_NAME)
        traced = paddle.jit.to_static(_Traced(fuse_bn(model), softmax), input_spec=[spec], full_graph=True)
        paddle.jit.save(traced, str(work / "inference"))
        difference = _check(model, work, _inputs(model.in_channels, image_size, image), softmax)
        description = {
            **description,
            "Model": {"class_num": model.num_classes, "softmax": softmax,
                      "input": {"name": INPUT_NAME, "dtype": "float32", "shape": [None, model.in_channels, None, None],
                                "image_size": list(image_size), "min_size": MIN_INPUT_SIZE}},
            "Files": {name: {"sha256": sha256_of(work / name)} for name in FILES[:2]},
            "Check": {"difference": float(difference), "tolerance": TOLERANCE},
            "Versions": {"ppcls_nextvit": __version__, "paddle": paddle.__version__, "numpy": np.__version__, "pillow": PIL.__version__},
        }
        (work / FILES[2]).write_text(yaml.safe_dump(description, sort_keys=False, allow_unicode=True), encoding="utf-8")
        directory.mkdir(parents=True, exist_ok=True)
        for name in FILES:                                  # the yml comes last: its hashes tell whether all three belong together
            os.replace(work / name, directory / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return difference


def _existing_parent(directory):
    """The nearest folder above `directory` that exists: on the same disk, so that files can be moved, not copied."""
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"{directory}: is a file; the exported files need a directory")
    return next(parent for parent in directory.absolute().parents if parent.is_dir())


def _inputs(channels, image_size, image):
    """Batches to check: random ones of two sizes, the second not square, and the image."""
    rng = np.random.default_rng(0)
    (height, width), batches = image_size, []
    for shape in ((2, channels, height, width), (3, channels, height + 24, width + 8)):
        batches.append(rng.standard_normal(shape, dtype=np.float32))
    return batches if image is None else [*batches, np.asarray(image, np.float32)[None]]


def _check(model, folder, batches, softmax):
    """The largest difference over `batches`; ExportError if it is too large."""
    model.eval()
    worst = 0.0
    try:
        predictor = _predictor(folder)
        for batch in batches:
            with paddle.no_grad():
                logits = model(paddle.to_tensor(batch)).numpy().astype(np.float64)
            if not np.isfinite(logits).all():
                raise ExportError(f"the model's own logits are not finite for an input of {list(batch.shape)}; check the weights")
            difference = _difference(_run(predictor, batch), logits, softmax)
            if not difference <= TOLERANCE:                 # also true of NaN
                raise ExportError(f"the exported files differ from the model by {difference:.3g} of the logits' scale for an input of "
                                  f"{list(batch.shape)}; at most {TOLERANCE:g} is accepted, so nothing was written")
            worst = max(worst, difference)
    except RuntimeError as error:                           # Paddle's own, from C++
        raise ExportError(f"the exported files do not run: {error}") from error
    return worst


def _predictor(folder):
    from paddle import inference
    config = inference.Config(str(folder / FILES[0]), str(folder / FILES[1]))
    config.disable_glog_info()
    return inference.create_predictor(config)


def _run(predictor, batch):
    handle = predictor.get_input_handle(INPUT_NAME)
    handle.reshape(batch.shape)
    handle.copy_from_cpu(batch)
    predictor.run()
    return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu().astype(np.float64)


def _difference(output, logits, softmax):
    """max |output - logits| / max |logits|, both [B, classes].

    Behind a Softmax log-probabilities are compared, which are the logits but for a shift: probabilities alone would hide errors in
    small ones.
    """
    scale = np.abs(logits).max()
    if softmax:
        tiny = 1e-30
        shifted = logits - logits.max(axis=-1, keepdims=True)
        logits = np.maximum(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.log(tiny))
        output, scale = np.log(np.maximum(output, tiny)), max(scale, SMALLEST_SCALE)
    return float(np.abs(output - logits).max() / scale)
