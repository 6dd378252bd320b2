"""Export: `python tools/export_model.py -c CONFIG -o Global.pretrained_model=WEIGHTS [-o Global.save_inference_dir=DIRECTORY]`."""
import paddle

from ppcls_nextvit.cli import config_parser, program
from ppcls_nextvit.config import load_config
from ppcls_nextvit.engine.classification import class_names
from ppcls_nextvit.export.static import describe_config, export_inference
from ppcls_nextvit.predict import preprocess_of, trained_model


def export_paddle(config, image):
    """Paddle Inference files in Global.save_inference_dir."""
    names, preprocess = class_names(config), preprocess_of(config)
    checked = preprocess(image) if image else None
    model, weights = trained_model(config)
    directory = config.Global.save_inference_dir
    difference = export_inference(model, directory, describe_config(config, preprocess, names, weights), config.Global.image_shape[1:],
                                  config.Arch.infer_add_softmax, checked)
    print(f"{directory}: inference.{{json,pdiparams,yml}}; they differ from the model by {difference:.1e} of its logits' scale")


TARGETS = {"paddle": export_paddle}


@program
def main(argv=None) -> int:
    parser = config_parser(__doc__)
    parser.add_argument("--to", choices=list(TARGETS), default="paddle", help="what to write (default: %(default)s)")
    parser.add_argument("--check-image", metavar="FILE", help="compare the exported files with the model on this image too")
    args = parser.parse_args(argv)
    config = load_config(args.config, args.override)
    paddle.set_device("cpu")                        # where the files are compared with the model
    TARGETS[args.to](config, args.check_image)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
