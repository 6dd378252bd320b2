"""COCO's mean average precision of boxes and masks, by pycocotools."""

import contextlib
import io
import json

import numpy as np
import paddle

from ...data.datasets.coco import coco_index, mask_tools

__all__ = ["coco_map", "gathered", "result_records"]

# pycocotools' order
FIGURES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")


def result_records(dataset, index, boxes, scores, labels, masks=None):
    """What was found in image `index` of a COCODataset, as COCO's result records: a list of dicts
    that json can write.

    boxes: [n, 4], (left, top, right, bottom) in pixels of the original image; scores: [n]; labels:
    [n], class indices; masks: n run
    lengths {size, counts: str}, or None.
    """
    records = []
    for i, ((left, top, right, bottom), score, label) in enumerate(
        zip(*(np.asarray(part).tolist() for part in (boxes, scores, labels)))
    ):
        records.append(
            {
                "image_id": dataset.image_ids[index],
                "category_id": dataset.category_ids[label],
                "bbox": [left, top, right - left, bottom - top],
                "score": score,
            }
        )
        if masks is not None:
            records[-1]["segmentation"] = masks[i]
    return records


def gathered(records, processes):
    """The records of all processes, in the order of their ranks, in every process."""
    if not processes.many:
        return records
    text = np.frombuffer(json.dumps(records).encode(), np.uint8)
    sizes = processes.sum(np.eye(processes.world_size)[processes.rank] * len(text)).astype(int)
    # int32: not every backend gathers bytes
    padded, parts = np.zeros(sizes.max(), np.int32), []
    padded[: len(text)] = text
    paddle.distributed.all_gather(parts, paddle.to_tensor(padded))
    return [
        record
        for part, size in zip(parts, sizes)
        for record in json.loads(part.numpy()[:size].astype(np.uint8).tobytes())
    ]


def coco_map(dataset, records):
    """{box_map, box_map_50, box_map_75, box_map_small, ..._medium, ..._large, class_box_map} of
    COCO's result records as shares, and {mask_map, ...} if they have masks.

    dataset: a COCODataset, all of whose images count, found in or not. class_box_map,
    class_mask_map: {class name: share}. A size or a class without objects has None. ValueError if
    there is no object at all.
    """
    tools = mask_tools()
    from pycocotools.cocoeval import COCOeval

    truth, result = dataset.ground_truth(), {}
    if all(annotation["iscrowd"] for annotation in truth.dataset["annotations"]):
        raise ValueError(
            f"{dataset.annotation_path}: no object to find, so there is no average precision"
        )
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        if kind == "bbox":
            areas = [record["bbox"][2] * record["bbox"][3] for record in records]
        elif all("segmentation" in record for record in records):
            areas = [float(tools.area(record["segmentation"])) for record in records]
        else:
            break
        found = [
            {**record, "id": i, "area": area, "iscrowd": 0}
            for i, (record, area) in enumerate(zip(records, areas), 1)
        ]
        # pycocotools prints its progress and its table
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(truth, coco_index({**truth.dataset, "annotations": found}), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        result.update(
            {f"{name}_{figure}": share(value) for figure, value in zip(FIGURES, evaluation.stats)}
        )
        # [IoU thresholds, recalls, classes], all sizes, most detections
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        result[f"class_{name}_map"] = {
            label: share(precision[:, :, i].mean()) for i, label in enumerate(dataset.class_names)
        }
    return result


def share(value):
    """pycocotools' figure, which is -1 where nothing was to be found, then None."""
    return None if value < 0 else float(value)
