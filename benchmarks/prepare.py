"""What the engines need before they start: weights in each project's format, and our exports."""

from pathlib import Path

import numpy
from timed_engines import ENGINES
from timed_engines.deployed import Deployed

# random images that int8 is calibrated with; the speed does not depend on them
CALIBRATION = 8
# precisions that are exported beside float32, and compared with the model
REDUCED = ("bf16", "int8")


def prepare(args, size, folder, absent):
    """Write into `folder` what the engines asked for need, once for all: weights, and exports for
    `size`; returns the multiply-adds.

    `absent` gets the engines whose export needs what is not installed, or is too far from the
    model.
    """
    import paddle

    from ppcls_nextvit.models.complexity import count_macs

    paddle.set_device("cpu")
    model = shared_model(args, folder)
    exports = [
        ENGINES[name].made_by
        for name in args.engines
        if ENGINES[name].kind is Deployed and "latency" in args.task
    ]
    for target in dict.fromkeys(target for target, _ in exports):
        precisions = [precision for name, precision in exports if name == target]
        missing = prepare_exports(model, target, precisions, size, folder)
        absent.update(
            {
                name: missing[ENGINES[name].made_by]
                for name in args.engines
                if ENGINES[name].made_by in missing
            }
        )
        args.engines = [name for name in args.engines if name not in absent]
    return count_macs(model, size)


def shared_model(args, folder):
    """The model whose weights all engines share: of an earlier call in `folder`, of --weights, else
    random. Written there for Paddle and in each PyTorch format of its family, by that name.
    """
    import paddle

    from ppcls_nextvit import create_model, load_weights
    from ppcls_nextvit.models.registry import variant_of
    from ppcls_nextvit.weights.convert import convert
    from ppcls_nextvit.weights.families.base import family_for

    paddle.seed(0)
    model = create_model(args.model)
    weights = Path(folder, "weights.pdparams")
    if args.weights:
        load_weights(model, args.weights)
    else:
        spread(model)
    if weights.exists():
        load_weights(model, str(weights))
        return model
    weights.parent.mkdir(parents=True, exist_ok=True)
    paddle.save(model.state_dict(), str(weights))
    for form in family_for(variant_of(args.model).family).formats:
        if form.torch and form.written_as:
            file = Path(folder, f"{form.written_as}.safetensors")
            convert(weights, file, args.model, form.written_as)
    return model


def prepare_exports(model, target, precisions, size, folder):
    """Write the exports to `target` in `precisions` that are not in `folder` yet; returns {(target,
    precision): why it cannot be}.
    """
    from ppcls_nextvit.export import TARGETS
    from ppcls_nextvit.export.verify import ExportError
    from ppcls_nextvit.tasks.classification import quantize
    from ppcls_nextvit.tasks.classification.export import export_classifier

    folders = {
        precision: Path(folder, str(size), f"{target}_{precision}")
        for precision in ("fp32", *REDUCED)
    }
    if all(folders[precision].exists() for precision in precisions):
        return {}
    description = {
        "PreProcess": {"transform_ops": []},
        "PostProcess": {"Topk": {"topk": 1, "label_list": [""] * model.num_classes}},
    }
    missing = {}
    try:
        for reduced in (precision for precision in REDUCED if precision in precisions):
            try:
                quantize.export_pair(
                    model,
                    TARGETS[target],
                    {precision: folders[precision] for precision in ("fp32", reduced)},
                    description,
                    (size, size),
                    images(size),
                    softmax=False,
                    reduced=reduced,
                )
            except ExportError as error:  # of random weights
                missing[target, reduced] = str(error)
        # the pair's float32 files are in the format that int8 needs, such as Paddle's
        if TARGETS[target].int8_options or not set(REDUCED) & set(precisions):
            export_classifier(
                model,
                TARGETS[target],
                folders["fp32"],
                description,
                (size, size),
                softmax=False,
                size=(size, size),
            )
    except ImportError as error:
        return {(target, precision): str(error) for precision in folders}
    return missing


def images(size):
    """Random images to calibrate int8 with: [float32 [3, size, size], ...]."""
    rng = numpy.random.default_rng(2)
    return list(rng.standard_normal((CALIBRATION, 3, size, size), dtype=numpy.float32))


def spread(model, size=64):
    """Give random weights the scale of trained ones, and BatchNorms statistics that fit: fresh ones
    make logits near 0.
    """
    import paddle

    for layer in model.sublayers():
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.ndim in (2, 4):
            fan_in = weight.shape[0] if weight.ndim == 2 else numpy.prod(weight.shape[1:])
            weight.set_value(weight.numpy() * numpy.float32(fan_in**-0.5 / weight.numpy().std()))
        if hasattr(layer, "_momentum"):
            # statistics are those of the last batch alone
            layer._momentum = 0.0
    model.train()
    with paddle.no_grad():
        model(paddle.randn([8, model.in_channels, size, size]))
    model.eval()
