"""Speed and memory of a segmentor: one training step, and one image through preprocessing, network
and postprocessing.
"""

from typing import Any, Dict, List, Tuple

import numpy as np
import paddle

from ...engine.log import peak_memory_mb
from ...engine.optim import build_optimizer
from ...models.segmentors.inference import Inference, best_class
from ..common import milliseconds
from .losses import CrossEntropyLoss
from .views import Views

__all__ = ["measure"]


def measure(
    model: Any,
    size: Tuple[int, int] = (512, 683),
    original: Tuple[int, int] = (480, 640),
    runs: int = 5,
    train: bool = False,
    batch: int = 2,
) -> Dict[str, Any]:
    """{name: [milliseconds of each run], 'peak_memory_mb': number} of `model` on random images of
    `size` (height, width).

    Inference, of one whole image, has 'preprocessing' (resize from `original` to size, normalise),
    'network' (logits at the heads' size) and 'postprocessing' (resized to size, then to `original`,
    and the best class). With train: 'step', forward, loss, backward and AdamW on `batch` images, of
    which UPerNet needs two. The first run warms up and is not counted.
    """
    measured = _train(model, size, batch, runs) if train else _infer(model, size, original, runs)
    memory = peak_memory_mb(paddle.device.get_device().partition(":")[0])
    return {**measured, "peak_memory_mb": memory}


def _infer(
    model: Any, size: Tuple[int, int], original: Tuple[int, int], runs: int
) -> Dict[str, List[float]]:
    picture = np.random.default_rng(0).integers(0, 256, (*original, 3)).astype(np.uint8)
    transforms: List[Dict[str, Any]] = [
        {"Resize": {"scale": list(size[::-1]), "keep_ratio": False}},
        {"Normalize": {}},
    ]
    views = Views(transforms, Inference(), "measure")
    made: Dict[str, Any] = {}

    def prepare():
        ((made["image"], _),) = views(picture, "random")

    def answer():
        made["logits"] = model.decode(made["image"])

    def finish():
        best_class(made["logits"][0], size, size, original)

    model.eval()
    parts = {"preprocessing": prepare, "network": answer, "postprocessing": finish}
    with paddle.no_grad():
        times = [
            {name: milliseconds(part) for name, part in parts.items()} for _ in range(runs + 1)
        ]
    return {name: [run[name] for run in times[1:]] for name in parts}


def _train(model: Any, size: Tuple[int, int], batch: int, runs: int) -> Dict[str, List[float]]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, model.in_channels, *size), dtype=np.float32)
    labels = rng.integers(0, model.num_classes, (batch, *size)).astype(np.uint8)
    data = {"image": paddle.to_tensor(images), "segmentation": paddle.to_tensor(labels)}
    optimizer = build_optimizer({"name": "AdamW"}, model)
    optimizer.set_lr(1e-6)
    if not model.brings_losses:
        loss = CrossEntropyLoss()
        model.criterion = lambda maps, label: (loss(maps, label), {})
    model.train()

    def step():
        parts, _ = model.losses(data)
        sum(parts.values()).backward()
        optimizer.step()
        optimizer.clear_grad()

    return {"step": [milliseconds(step) for _ in range(runs + 1)][1:]}
