"""The forms of a model for inference. Each is a new model whose structure shows what it is."""

import copy

import paddle
from paddle import nn

__all__ = ["export_form", "fuse_bn"]


def fuse_bn(model: nn.Layer) -> nn.Layer:
    """The model's fused form: a deep copy in eval mode with its BatchNorms folded into convolutions
    and Linears; `model` is untouched.

    Of a Next-ViT every norm is folded but the last of a model without a head. TypeError for a layer
    that has no fused form.
    """
    if not hasattr(model, "fuse"):
        raise TypeError(
            f"fuse_bn knows Next-ViT only; got {type(model).__name__}, which has no fuse() of its "
            "own"
        )
    return model.fuse()


def export_form(layer: nn.Layer) -> nn.Layer:
    """The shape in which `layer` is exported: its own `export_form()`, or a copy in eval mode whose
    parts that have one are replaced by theirs; `layer` is untouched.
    """
    if hasattr(layer, "export_form"):
        return layer.export_form()
    copied = copy.deepcopy(layer)
    copied.eval()
    with paddle.no_grad():
        _replace_parts(copied)
    return copied


def _replace_parts(layer: nn.Layer) -> None:
    for name, part in list(layer.named_children()):
        if hasattr(part, "export_form"):
            layer.add_sublayer(name, part.export_form())
        else:
            _replace_parts(part)
