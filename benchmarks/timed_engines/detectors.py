"""Detectors and segmentors, ours and the suites', part by part."""

import importlib.util
from functools import partial

from .memory import peak_memory


def create_dense(name, **backbone):
    """A creator of that detector or segmentor, with the published recipes' defaults."""

    def create(variant):
        from ppcls_nextvit import create_model

        return create_model(name, backbone={"name": variant, **backbone})

    return create


def create_paddleseg_upernet(variant):
    """PaddleSeg's own UPerNet on our backbone, with the parts that our measurement asks for."""
    from ppcls_nextvit.hosts import paddleseg
    from ppcls_nextvit.models.segmentors.encoder_decoder import EncoderDecoder

    paddleseg.register()
    import paddleseg as suite
    from paddleseg.cvlibs import manager

    backbone = manager.BACKBONES[variant](extra_norms=True, drop_path_rate=0.2)
    model = manager.MODELS["UPerNet"](
        num_classes=150,
        backbone=backbone,
        backbone_indices=(0, 1, 2, 3),
        enable_auxiliary_loss=True,
    )
    model.num_classes, model.in_channels, model.suite = 150, 3, f"paddleseg {suite.__version__}, "
    model.decode = lambda images: model.head(model.backbone(images))[0]
    # logits at the heads' size, as ours, and so our losses
    model.forward = lambda images: model.head(model.backbone(images))
    model.brings_losses, model.losses = False, partial(EncoderDecoder.losses, model)
    return model


def create_untimed(module, reason):
    """For a suite that has nothing to time: the ImportError says whether it is there."""

    def create(variant):
        raise ImportError(
            f"{module} is installed, but {reason}"
            if importlib.util.find_spec(module)
            else f"{module} is not installed"
        )

    return create


class Parts:
    """A detector or segmentor, part by part, by this project's own measurement: pre- and
    postprocessing are ours.
    """

    def __init__(self, create, variant, size, threads, folder):
        # first: a suite that is not timed needs no Paddle
        self.model = create(variant)
        import paddle

        from ppcls_nextvit.data.transforms.joint import opencv

        # the ImportError that names the extra
        opencv()
        self.on_gpu = paddle.device.get_device().startswith("gpu")
        self.version = f"{getattr(self.model, 'suite', '')}paddlepaddle {paddle.__version__}"

    def parts(self, task, size, train, batch, runs):
        from ppcls_nextvit.tasks import TASKS

        measured = TASKS[task].measure(self.model, tuple(size), train=train, batch=batch, runs=runs)
        memory = measured.pop("peak_memory_mb")
        return {"ms": measured, "memory_mb": memory if self.on_gpu else peak_memory()}
