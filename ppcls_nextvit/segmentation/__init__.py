"""Semantic segmentation: Semantic FPN and UPerNet on Next-ViT, their losses and metric, inference,
prediction, export.
"""
