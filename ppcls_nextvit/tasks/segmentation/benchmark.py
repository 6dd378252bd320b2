"""Speed and memory of a segmentor: one training step, and one image through preprocessing, network
and postprocessing.
"""

import time

import numpy as np
import paddle

from ...engine.log import peak_memory_mb
from ...models.segmentors.heads import resize
from ...models.segmentors.inference import Inference, best_class
from .losses import CrossEntropyLoss
from .views import Views

__all__ = ["measure"]


def measure(model, size=(512, 683), original=(480, 640), runs=5, train=False, batch=2):
    """{name: [milliseconds of each run], 'peak_memory_mb': number} of `model` on random images of
    `size` (height, width).

    Inference, of one whole image, has 'preprocessing' (resize from `original` to size, normalise),
    'network' (logits at the heads' size) and 'postprocessing' (resized to size, then to `original`,
    and the best class). With train: 'step', forward, loss, backward and AdamW on `batch` images, of
    which UPerNet needs two. The first run warms up and is not counted.
    """
    measured = _train(model, size, batch, runs) if train else _infer(model, size, original, runs)
    return {
        **measured,
        "peak_memory_mb": peak_memory_mb(paddle.device.get_device().partition(":")[0]),
    }


def _infer(model, size, original, runs):
    picture, inference = (
        np.random.default_rng(0).integers(0, 256, (*original, 3)).astype(np.uint8),
        Inference(),
    )
    views = Views(
        [{"Resize": {"scale": list(size[::-1]), "keep_ratio": False}}, {"Normalize": {}}],
        inference,
        "measure",
    )
    times = {"preprocessing": [], "network": [], "postprocessing": []}
    model.eval()

    with paddle.no_grad():
        for _ in range(runs + 1):
            made = _timed(times["preprocessing"], lambda: list(views(picture, "random")))
            logits = _timed(times["network"], model.decode, made[0][0])
            _timed(times["postprocessing"], best_class, logits[0], size, size, original)
    return {name: values[1:] for name, values in times.items()}


def _train(model, size, batch, runs):
    rng, loss, times = np.random.default_rng(0), CrossEntropyLoss(), []
    images = paddle.to_tensor(
        rng.standard_normal((batch, model.in_channels, *size), dtype=np.float32)
    )
    labels = paddle.to_tensor(rng.integers(0, model.num_classes, (batch, *size)).astype(np.uint8))
    optimizer = paddle.optimizer.AdamW(1e-6, parameters=model.parameters())
    model.train()

    def step():
        total, _ = loss([resize(logits, size) for logits in model(images)], labels)
        total.backward()
        optimizer.step()
        optimizer.clear_grad()

    for _ in range(runs + 1):
        _timed(times, step)
    return {"step": times[1:]}


def _timed(times, function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    if paddle.device.get_device() != "cpu":  # which Paddle's synchronize refuses
        paddle.device.synchronize()
    times.append(1000 * (time.perf_counter() - start))
    return result
