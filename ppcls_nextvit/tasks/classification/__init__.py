"""Classification: images in, class logits out."""
