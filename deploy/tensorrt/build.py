"""Build a TensorRT engine from an exported Next-ViT: python build.py --model DIRECTORY

DIRECTORY is what `tools/export_model.py --to tensorrt` or `tools/quantize.py --to tensorrt` wrote;
its precision is in the file (float32, float16, or int8 with scales measured on your images). Beside
it come inference.engine and inference.engine.json, for infer.py. Needs TensorRT 8.6 or later, on
the machine that will run the engine; or, with --rtx, TensorRT-RTX, which builds for other GPUs too.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ONNX = "inference.onnx"
ENGINE = "inference.engine"
RECORD = "inference.engine.json"
DESCRIPTION = "export.json"
DEFAULT_BATCH = (1, 8, 32)
AXES = ("batch", "channels", "height", "width")


class BuildError(ValueError):
    """No engine was built; nothing was written."""


def read_export(folder: str | Path) -> dict:
    """export.json of `folder`, after inference.onnx was found and its hash compared.
    FileNotFoundError or BuildError, one line.
    """
    folder = Path(folder)
    for name in (DESCRIPTION, ONNX):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: no such file; expected the directory of an export with --to "
                f"tensorrt"
            )
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        expected = description["Files"][ONNX]["sha256"]
        description["Export"]["precision"]
        for shape in (
            *description["Export"]["inputs"].values(),
            [None, 3, *image_size(description)],
        ):
            # of images, or, of a detector's other inputs, of rows of fixed length
            fits = len(shape) == 4 or (len(shape) == 2 and None not in shape)
            if not fits or not all(size is None or 0 < int(size) == size for size in shape):
                raise ValueError(f"expected sizes of images, got {shape}")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise BuildError(
            f"{folder / DESCRIPTION}: not the description of an export: {told}"
        ) from None
    if hashlib.sha256((folder / ONNX).read_bytes()).hexdigest() != expected:
        raise BuildError(
            f"{folder / ONNX}: does not match {DESCRIPTION}, so it is damaged or of another "
            f"export; export or copy again"
        )
    return description


def image_size(description: dict) -> tuple[int, int]:
    """(height, width) for which the model was exported."""
    height, width = description.get("Model", {}).get("input", {}).get("image_size", (224, 224))
    return height, width


def profile_shapes(
    shape: tuple, asked: dict[str, tuple | None], image_size: tuple[int, int]
) -> list[tuple]:
    """(smallest, usual, largest) shape of an input of `shape` [batch, channels, height, width],
    None where the export left it open.

    asked: {"batch" | "height" | "width": (smallest, usual, largest) or None}; by default
    DEFAULT_BATCH images of `image_size` = (height, width). BuildError for a range where the export
    has a fixed number, or one that does not grow.
    """
    default = {
        "batch": DEFAULT_BATCH,
        "height": (image_size[0],) * 3,
        "width": (image_size[1],) * 3,
    }
    columns = []
    for axis, fixed in zip(AXES, shape):
        wanted = asked.get(axis)
        if fixed is not None:
            if wanted:
                raise BuildError(
                    f"--{axis}: the export has a fixed {axis} of {fixed}; export with --batch or "
                    f"--size dynamic to choose"
                )
            columns.append((fixed,) * 3)
            continue
        low, usual, high = wanted or default[axis]
        if not 1 <= low <= usual <= high:
            raise BuildError(
                f"--{axis}: expected 1 <= smallest <= usual <= largest, got {low} {usual} {high}"
            )
        columns.append((low, usual, high))
    return [tuple(column[i] for column in columns) for i in range(3)]


def import_tensorrt(rtx: bool) -> ModuleType:
    """The module tensorrt, or tensorrt_rtx. BuildError names what to install."""
    try:
        if not rtx:
            import tensorrt

            return tensorrt
        try:
            import tensorrt_rtx
        except ImportError:
            # installed without the package of the shorter name
            import tensorrt_rtx_bindings as tensorrt_rtx
        return tensorrt_rtx
    except ImportError as error:
        package = "tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings" if rtx else "tensorrt"
        raise BuildError(
            f"TensorRT{'-RTX' * rtx} cannot be imported ({error}): pip install {package}"
        ) from None


def create_network(trt: ModuleType, builder: Any, config: Any, precision: str) -> Any:
    """A network whose types are those of the file, where this TensorRT (9.1 and later) has such;
    before, flags allow them.
    """
    kinds = trt.NetworkDefinitionCreationFlag.__members__
    if "STRONGLY_TYPED" in kinds:
        return builder.create_network(1 << int(kinds["STRONGLY_TYPED"]))
    if precision in ("fp16", "int8"):
        config.set_flag(trt.BuilderFlag.FP16)  # of int8: for the layers between
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    return builder.create_network(1 << int(kinds["EXPLICIT_BATCH"]))


def parse(trt: ModuleType, network: Any, path: Path, logger: Any) -> Any:
    """Fill `network` from the ONNX file. BuildError with the parser's own words."""
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BuildError(f"{path}: TensorRT cannot read it: {reasons or 'it does not say why'}")
    # it holds the weights until the engine is built
    return parser


def set_capabilities(trt: ModuleType, config: Any, capabilities: list[str] | None) -> None:
    """Build for GPUs by compute capability ('8.9'), not for the one in this machine. BuildError for
    one that is not known.
    """
    if not capabilities:
        return
    if not hasattr(config, "num_compute_capabilities"):
        raise BuildError(
            "--compute-capability: TensorRT builds for the GPU in the machine; give --rtx for "
            "others"
        )
    known = {
        name: value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    config.num_compute_capabilities = len(capabilities)
    for index, text in enumerate(capabilities):
        name = f"SM{text.replace('.', '')}"
        if name not in known:
            expected = ", ".join(f"{each[2:-1]}.{each[-1]}" for each in known)
            raise BuildError(f"--compute-capability {text}: not known; expected one of {expected}")
        config.set_compute_capability(known[name], index)


def load_timing_cache(config: Any, path: Path) -> bool:
    """Give `config` the timings in the file `path`, or empty ones; returns whether this TensorRT
    keeps timings.
    """
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None:
        raise BuildError(
            f"{path}: not a timing cache of this TensorRT; remove it, or name another file"
        )
    # False: not timings of another GPU or version
    return config.set_timing_cache(cache, False)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` or leave what is there: a program that reads it never meets half a
    file.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def build(args: argparse.Namespace) -> dict:
    """Write inference.engine and inference.engine.json into args.model; returns the record."""
    if args.rtx and args.timing_cache:
        raise BuildError(
            "--timing-cache: TensorRT-RTX keeps none; it chooses kernels on the GPU that runs the "
            "engine"
        )
    folder = Path(args.model)
    description = read_export(folder)
    export = description["Export"]
    asked = {"batch": args.batch, "height": args.height, "width": args.width}
    profiles = {
        name: profile_shapes(shape, asked, image_size(description))
        for name, shape in export["inputs"].items()
    }
    trt = import_tensorrt(args.rtx)
    logger = trt.Logger(trt.Logger.VERBOSE if args.verbose else trt.Logger.WARNING)
    builder = trt.Builder(logger)
    config = builder.create_builder_config()
    network = create_network(trt, builder, config, export["precision"])
    parser = parse(trt, network, folder / ONNX, logger)
    set_capabilities(trt, config, args.compute_capability)
    profile = builder.create_optimization_profile()
    for name, shapes in profiles.items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    if args.workspace:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, args.workspace << 20)
    keeps_timings = args.timing_cache and load_timing_cache(config, Path(args.timing_cache))
    engine = builder.build_serialized_network(network, config)
    del parser
    if engine is None:
        raise BuildError("TensorRT could not build an engine; its own messages are above")
    if keeps_timings:
        write_whole(Path(args.timing_cache), bytes(config.get_timing_cache().serialize()))
    record = {
        "onnx_sha256": description["Files"][ONNX]["sha256"],
        "precision": export["precision"],
        "rtx": args.rtx,
        "tensorrt": trt.__version__,
        "compute_capability": args.compute_capability or ["this machine's"],
        "profiles": {name: [list(shape) for shape in shapes] for name, shapes in profiles.items()},
    }
    # no moment at which it speaks of another engine
    (folder / RECORD).unlink(missing_ok=True)
    write_whole(folder / ENGINE, bytes(engine))
    write_whole(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    return record


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="an export with --to tensorrt"
    )
    for axis, what in (
        ("batch", "images per run (default: {} {} {})".format(*DEFAULT_BATCH)),
        ("height", "pixels"),
        ("width", "pixels"),
    ):
        parser.add_argument(
            f"--{axis}",
            type=positive,
            nargs=3,
            metavar=("MIN", "USUAL", "MAX"),
            help=f"{what}, where the export left it open; the engine is fastest at USUAL",
        )
    parser.add_argument(
        "--timing-cache",
        metavar="FILE",
        help="read and renewed: later builds on the same GPU take seconds",
    )
    parser.add_argument(
        "--workspace",
        type=positive,
        metavar="MIB",
        help="limit of the GPU memory that a layer may take while it runs",
    )
    parser.add_argument("--rtx", action="store_true", help="build with TensorRT-RTX")
    parser.add_argument(
        "--compute-capability",
        nargs="+",
        metavar="X.Y",
        help="with --rtx: of the GPUs to build for, e.g. 8.6 8.9",
    )
    parser.add_argument("--verbose", action="store_true", help="print what TensorRT does")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    try:
        record = build(args)
    except (OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    engine = Path(args.model) / ENGINE
    print(
        f"{engine}: {record['precision']}, {engine.stat().st_size / 1e6:.1f} MB, "
        f"TensorRT{'-RTX' * args.rtx} {record['tensorrt']}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
