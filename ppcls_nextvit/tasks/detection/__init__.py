"""Detection: images in, boxes with classes and masks out."""
