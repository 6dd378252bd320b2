"""Speed and memory of a detector: one training step, and one image through preprocessing, network
and postprocessing.
"""

import contextlib
import time
from functools import reduce
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import paddle

from ...data.rle import encode_mask
from ...data.transforms.joint import JointPipeline
from ...engine.log import peak_memory_mb
from ...engine.optim import build_optimizer
from ..common import milliseconds
from .predict import model_inputs

__all__ = ["measure"]

# boxes that pass the score threshold; a trained model on COCO has some hundreds
CANDIDATES = 1000
# in an image, as COCO has
OBJECTS = 7


def measure(
    model: Any,
    size: Tuple[int, int] = (800, 1333),
    original: Tuple[int, int] = (480, 800),
    runs: int = 5,
    train: bool = False,
    batch: int = 1,
) -> Dict[str, Any]:
    """{name: [milliseconds of each run], 'peak_memory_mb': number} of `model` on random images of
    `size` (height, width).

    Inference, of one image, has 'preprocessing' (resize from `original` to size, normalise, pad),
    'network' and 'postprocessing' (the methods that the model names so, as decoding and
    suppression, and its masks at `original`, encoded). Random weights find nothing, so a score
    threshold is set to what CANDIDATES boxes pass. With train: 'step', forward, losses, backward
    and AdamW on `batch` images with OBJECTS objects each. The first run warms up and is not
    counted.
    """
    measured = _train(model, size, batch, runs) if train else _infer(model, size, original, runs)
    memory = peak_memory_mb(paddle.device.get_device().partition(":")[0])
    return {**measured, "peak_memory_mb": memory}


def _infer(
    model: Any, size: Tuple[int, int], original: Tuple[int, int], runs: int
) -> Dict[str, List[float]]:
    picture = np.random.default_rng(0).integers(0, 256, (*original, 3)).astype(np.uint8)
    transforms = JointPipeline(
        [
            {"Resize": {"scale": list(size[::-1]), "keep_ratio": False}},
            {"Normalize": {}},
            {"Pad": {"size_divisor": 32}},
        ]
    )
    model.eval()
    with paddle.no_grad(), _candidates(model, _batch(model, picture, transforms)):
        times = [_one_image(model, picture, transforms) for _ in range(runs + 1)]
    return {name: [run[name] for run in times[1:]] for name in times[0]}


def _batch(model: Any, picture: np.ndarray, transforms: JointPipeline) -> Dict[str, Any]:
    inputs = model_inputs(picture, transforms, "random", model.min_size)
    batch = {name: paddle.to_tensor(array) for name, array in inputs.items()}
    return {**batch, "original": paddle.to_tensor([picture.shape[:2]])}


@contextlib.contextmanager
def _candidates(model: Any, batch: Dict[str, Any]) -> Iterator[None]:
    """Within it the score threshold of a model that has one lets CANDIDATES boxes pass."""
    if not hasattr(model, "let_pass"):
        yield
        return
    threshold = model.score_threshold
    try:
        model.let_pass(CANDIDATES, batch["image"], batch["shape"], batch["scale"])
        yield
    finally:
        model.score_threshold = threshold


def _one_image(model: Any, picture: np.ndarray, transforms: JointPipeline) -> Dict[str, float]:
    """Milliseconds by part."""
    start = _now_ms()
    batch = _batch(model, picture, transforms)
    prepared = _now_ms()
    with _timed_methods(model) as inside:
        (found,) = model.predict(batch)
        answered = _now_ms()
    for mask in found.masks or ():
        encode_mask(mask)
    done = _now_ms()
    return {
        "preprocessing": prepared - start,
        "network": answered - prepared - sum(inside),
        "postprocessing": sum(inside) + done - answered,
    }


@contextlib.contextmanager
def _timed_methods(model: Any) -> Iterator[List[float]]:
    """The milliseconds of every call, within it, of the methods that `model.postprocessing` names
    ('method' or 'part.method').
    """
    times: List[float] = []
    owners = []
    for path in getattr(model, "postprocessing", ()):
        *parts, name = path.split(".")
        owner = reduce(getattr, parts, model)
        setattr(owner, name, _timed(getattr(owner, name), times))
        owners.append((owner, name))
    try:
        yield times
    finally:
        for owner, name in owners:
            delattr(owner, name)


def _timed(method: Callable[..., Any], times: List[float]) -> Callable[..., Any]:
    def timed(*arguments):
        start = _now_ms()
        result = method(*arguments)
        times.append(_now_ms() - start)
        return result

    return timed


def _now_ms() -> float:
    """The clock, once the device has done its work."""
    if paddle.device.get_device() != "cpu":  # which Paddle's synchronize refuses
        paddle.device.synchronize()
    return 1000 * time.perf_counter()


def _train(model: Any, size: Tuple[int, int], batch: int, runs: int) -> Dict[str, List[float]]:
    data = _training_batch(model.num_classes, size, batch)
    optimizer = build_optimizer({"name": "AdamW"}, model)
    optimizer.set_lr(1e-6)
    model.train()

    def step():
        parts, _ = model.losses(data)
        sum(parts.values()).backward()
        optimizer.step()
        optimizer.clear_grad()

    return {"step": [milliseconds(step) for _ in range(runs + 1)][1:]}


def _training_batch(num_classes: int, size: Tuple[int, int], batch: int) -> Dict[str, Any]:
    """Random images of `size` with OBJECTS rectangles each, padded to multiples of 32."""
    rng = np.random.default_rng(0)
    height, width = (-(-side // 32) * 32 for side in size)
    count = batch * OBJECTS
    corner = rng.uniform(0, 0.6, (count, 2)) * [width, height]
    extent = rng.uniform(0.05, 0.4, (count, 2)) * [width, height]
    boxes = np.concatenate([corner, corner + extent], axis=1).astype(np.float32)
    masks = np.zeros((count, height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int)):
        mask[y1:y2, x1:x2] = 1
    arrays = {
        "image": rng.standard_normal((batch, 3, height, width), dtype=np.float32),
        "shape": np.array([size] * batch, np.int32),
        "boxes": boxes,
        "labels": rng.integers(0, num_classes, count),
        "counts": np.full(batch, OBJECTS, np.int32),
        "masks": masks,
    }
    return {key: paddle.to_tensor(value) for key, value in arrays.items()}
