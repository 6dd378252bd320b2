"""Datasets: lists and folders of labelled images, COCO, ADE20K. Importing this fills DATASETS."""

from . import classification, coco, multilabel, segmentation, shards  # noqa: F401
