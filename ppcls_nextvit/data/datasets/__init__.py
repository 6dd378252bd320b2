"""Datasets: lists and folders of labelled images, COCO, ADE20K."""
