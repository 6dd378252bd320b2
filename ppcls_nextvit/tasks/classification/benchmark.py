"""Speed and memory of a classifier: one training step, or one batch of images."""

from typing import Any, Dict, Optional, Tuple

import numpy as np
import paddle

from ...engine.log import peak_memory_mb
from ...engine.optim import build_optimizer
from ..common import milliseconds
from .losses import soft_cross_entropy, target_distribution

__all__ = ["measure"]


def measure(
    model: paddle.nn.Layer,
    size: Tuple[int, int] = (224, 224),
    original: Optional[Tuple[int, int]] = None,
    runs: int = 5,
    train: bool = False,
    batch: int = 1,
) -> Dict[str, Any]:
    """{'network' or, with train, 'step': [milliseconds of each run], 'peak_memory_mb': number} of
    `model` on `batch` random images of `size` (height, width).

    A step is forward, cross entropy, backward and AdamW. `original` is for the other tasks, which
    resize. The first run warms up and is not counted.
    """
    rng = np.random.default_rng(0)
    images = paddle.to_tensor(
        rng.standard_normal((batch, model.in_channels, *size), dtype=np.float32)
    )
    labels = paddle.to_tensor(rng.integers(0, model.num_classes, batch))
    optimizer = build_optimizer({"name": "AdamW"}, model)
    optimizer.set_lr(1e-6)

    def step():
        target = target_distribution({"label": labels}, model.num_classes)
        soft_cross_entropy(model(images), target).backward()
        optimizer.step()
        optimizer.clear_grad()

    def forward():
        with paddle.no_grad():
            model(images)

    if train:
        model.train()
    else:
        model.eval()
    times = [milliseconds(step if train else forward) for _ in range(runs + 1)]
    memory = peak_memory_mb(paddle.device.get_device().partition(":")[0])
    return {"step" if train else "network": times[1:], "peak_memory_mb": memory}
