"""Speed and memory of a segmentor: one training step, and one image through network and post-processing."""
import time

import numpy as np
import paddle

from ..engine.log import peak_memory_mb
from .heads import resize
from .losses import CrossEntropyLoss

__all__ = ["measure"]


def measure(model, batch=1, size=(512, 512), original=None, runs=5, train=False):
    """{name: [milliseconds of each run], 'peak_memory_mb': number} of `model` on random images of `size` (height, width).

    Inference has 'network' (logits at the heads' size) and 'postprocessing' (resized to size, then to `original`, by default the same, and
    the best class). With train: 'step', forward, loss, backward and AdamW on labels of size. The first run warms up and is not counted.
    """
    rng = np.random.default_rng(0)
    images = paddle.to_tensor(rng.standard_normal((batch, 3, *size), dtype=np.float32))
    labels = paddle.to_tensor(rng.integers(0, model.num_classes, (batch, *size)).astype(np.uint8))
    measured = _train(model, images, labels, runs) if train else _infer(model, images, original or size, runs)
    return {**measured, "peak_memory_mb": peak_memory_mb(paddle.device.get_device().partition(":")[0])}


def _infer(model, images, original, runs):
    model.eval()
    times = {"network": [], "postprocessing": []}
    with paddle.no_grad():
        for _ in range(runs + 1):
            logits = _timed(times["network"], lambda: model.decode_head(model.neck(model.backbone(images))))
            _timed(times["postprocessing"], lambda: resize(resize(logits, images.shape[2:]), original).argmax(axis=1))  # noqa: B023 - now
    return {name: values[1:] for name, values in times.items()}


def _train(model, images, labels, runs):
    model.train()
    optimizer, loss, times = paddle.optimizer.AdamW(1e-6, parameters=model.parameters()), CrossEntropyLoss(), []

    def step():
        total, _ = loss([resize(logits, labels.shape[1:]) for logits in model(images)], labels)
        total.backward()
        optimizer.step()
        optimizer.clear_grad()

    for _ in range(runs + 1):
        _timed(times, step)
    return {"step": times[1:]}


def _timed(times, function):
    start = time.perf_counter()
    result = function()
    if paddle.device.get_device() != "cpu":                 # which Paddle's synchronize refuses
        paddle.device.synchronize()
    times.append(1000 * (time.perf_counter() - start))
    return result
