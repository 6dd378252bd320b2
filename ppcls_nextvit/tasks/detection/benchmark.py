"""Speed and memory of a detector: one training step, and one image through preprocessing, network
and postprocessing.
"""

import time

import numpy as np
import paddle
from paddle.nn import functional as F

from ...data.transforms.joint import JointPipeline
from ...engine.log import peak_memory_mb
from ...models.detectors.mask_rcnn import Detections
from ...models.detectors.masks import encode_rle
from .predict import model_inputs, pasted

__all__ = ["measure"]

# boxes that pass the score threshold; a trained model on COCO has some hundreds
CANDIDATES = 1000


def measure(model, size=(800, 1333), original=(480, 800), runs=5, train=False, batch=1):
    """{name: [milliseconds of each run], 'peak_memory_mb': number} of `model` on random images of
    `size` (height, width).

    Inference, of one image, has 'preprocessing' (resize from `original` to size, normalise, pad),
    'network' and 'postprocessing' (decoding, both suppressions, masks pasted at `original` and
    encoded). Random weights find nothing, so the score threshold is set to what
    CANDIDATES boxes pass. With train: 'step', forward, losses, backward and AdamW on `batch` images
    with 7 objects each, as COCO has. The first run warms up and is not counted.
    """
    measured = _train(model, size, batch, runs) if train else _infer(model, size, original, runs)
    return {
        **measured,
        "peak_memory_mb": peak_memory_mb(paddle.device.get_device().partition(":")[0]),
    }


def _infer(model, size, original, runs):
    rng, times = (
        np.random.default_rng(0),
        {"preprocessing": [], "network": [], "postprocessing": []},
    )
    picture = rng.integers(0, 256, (*original, 3)).astype(np.uint8)
    transforms = JointPipeline(
        [
            {"Resize": {"scale": list(size[::-1]), "keep_ratio": False}},
            {"Normalize": {}},
            {"Pad": {"size_divisor": 32}},
        ]
    )
    threshold = model.score_threshold
    model.eval()
    try:
        with paddle.no_grad():
            for _ in range(runs + 1):
                _one_image(model, picture, transforms, _Clock(times))
    finally:
        model.score_threshold = threshold
    return {name: values[1:] for name, values in times.items()}


def _one_image(model, picture, transforms, clock):
    """MaskRCNN.forward and what surrounds it, piece by piece."""
    rpn, roi = model.rpn_head, model.roi_head
    image, shape, scale = map(paddle.to_tensor, model_inputs(picture, transforms, "random"))
    limit, factors = (paddle.concat([pair[0, 1:], pair[0, :1]] * 2) for pair in (shape, scale))
    clock.to("preprocessing")
    maps = model.neck(model.backbone(image))
    maps, outputs = maps[: len(roi.strides)], rpn(maps)
    clock.to("network")
    logits, deltas, anchors = rpn.flat(*outputs)
    proposals, _ = rpn.proposals(
        [x[0] for x in logits], [x[0] for x in deltas], anchors, limit, *model.test_proposals
    )
    clock.to("postprocessing")
    logits, deltas = roi.boxes(maps, proposals, [len(proposals)])
    clock.to("network")
    if clock.first:
        scores = F.softmax(logits, axis=-1)[:, :-1].flatten()
        model.score_threshold = float(
            scores.sort(descending=True)[min(CANDIDATES, len(scores) - 1)]
        )
        clock.restart()
    boxes, scores, labels = roi.detect(
        logits,
        deltas,
        proposals,
        limit,
        factors,
        model.score_threshold,
        model.nms_threshold,
        model.max_detections,
    )
    clock.to("postprocessing")
    masks = F.sigmoid(roi.masks(maps, boxes * factors, [len(boxes)], labels))
    clock.to("network")
    height, width = picture.shape[:2]
    for mask in pasted(Detections(boxes, scores, labels, masks), height, width)[3]:
        encode_rle(mask, height, width)
    clock.to("postprocessing", last=True)


class _Clock:
    """Adds the time since the last call to what is being measured."""

    def __init__(self, times):
        self.times, self.sums, self.first = (
            times,
            dict.fromkeys(times, 0.0),
            not any(times.values()),
        )
        self.restart()

    def restart(self):
        self.last = time.perf_counter()

    def to(self, name, last=False):
        if paddle.device.get_device() != "cpu":  # which Paddle's synchronize refuses
            paddle.device.synchronize()
        self.sums[name] += 1000 * (time.perf_counter() - self.last)
        if last:
            for key, value in self.sums.items():
                self.times[key].append(value)
        self.restart()


def _train(model, size, batch, runs, objects=7):
    rng, (height, width) = np.random.default_rng(0), (-(-side // 32) * 32 for side in size)
    count = batch * objects
    corner = rng.uniform(0, 0.6, (count, 2)) * [width, height]
    boxes = np.concatenate(
        [corner, corner + rng.uniform(0.05, 0.4, (count, 2)) * [width, height]], axis=1
    ).astype(np.float32)
    masks = np.zeros((count, height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int)):
        mask[y1:y2, x1:x2] = 1
    arrays = {
        "image": rng.standard_normal((batch, 3, height, width), dtype=np.float32),
        "shape": np.int32([size] * batch),
        "boxes": boxes,
        "labels": rng.integers(0, model.num_classes, count),
        "counts": np.int32([objects] * batch),
        "masks": masks,
    }
    data = {key: paddle.to_tensor(value) for key, value in arrays.items()}
    model.train()
    optimizer, times = paddle.optimizer.AdamW(1e-6, parameters=model.parameters()), {"step": []}
    for _ in range(runs + 1):
        clock = _Clock(times)
        parts, _ = model.losses(data)
        sum(parts.values()).backward()
        optimizer.step()
        optimizer.clear_grad()
        clock.to("step", last=True)
    return {"step": times["step"][1:]}
