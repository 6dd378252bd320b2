"""Classify images with an exported Next-ViT: python predict.py --model DIRECTORY --images
FILE_OR_DIRECTORY

Copy this file and the exported directory; nothing else of the project is needed, only paddle,
numpy, Pillow and PyYAML (and OpenCV where the export resizes with it).
"""

import argparse
import hashlib
import io
import json
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageOps

DESCRIPTION = "inference.yml"
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 89_478_485  # 256 MiB of RGB
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    Image.DecompressionBombError,
)


class ImageError(ValueError):
    """An image that cannot be read or used. The message begins with its path."""


# Preprocessing: the pixels of evaluation, bit for bit. Every option is in the export's description.


def decode(path):
    """The image as a PIL image in mode RGB: EXIF orientation applied, alpha dropped, 16-bit grey
    cut to its high byte, first frame.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    if not data:
        raise ImageError(f"{path}: the file is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(
                f"{path}: {image.width} x {image.height} pixels are more than the limit of "
                f"{MAX_PIXELS}"
            )
        if image.mode == "F":
            raise ImageError(
                f"{path}: 32-bit floating point pixels have no defined range; store it with 8 or "
                f"16 bits"
            )
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):
            image = Image.fromarray(
                (np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8).astype(np.uint8)
            )
        return image if image.mode == "RGB" else image.convert("RGB")
    except ImageError:
        raise
    except DECODER_ERRORS as error:
        raise ImageError(
            f"{path}: not an image, or damaged: {' '.join(str(error).split())}"
        ) from None


def pair(size):
    return (size, size) if isinstance(size, int) else tuple(size)


def resize(image, size, interpolation, backend):
    """`image` at `size` = (width, height), by Pillow or OpenCV."""
    # a strip of 1 x 50,000 pixels whose short side becomes 256
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{size[0]} x {size[1]} pixels after resizing are more than the limit of {MAX_PIXELS}"
        )
    name = interpolation or "bilinear"
    if backend == "cv2":
        import cv2

        flags = {
            "nearest": cv2.INTER_NEAREST,
            "bilinear": cv2.INTER_LINEAR,
            "area": cv2.INTER_AREA,
            "bicubic": cv2.INTER_CUBIC,
            "lanczos": cv2.INTER_LANCZOS4,
        }
        return cv2.resize(np.asarray(image), size, interpolation=flags[name])
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return image.resize(size, Image.Resampling[name.upper()])


def resize_image(
    image, size=None, resize_short=None, interpolation=None, backend="cv2", return_numpy=True
):
    width, height = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
    if resize_short:
        short = pair(resize_short)[0]
        size = (
            (short, int(short * height / width))
            if width <= height
            else (int(short * width / height), short)
        )
        if size == (width, height):
            return image
    return resize(image, pair(size), interpolation, backend)


def crop_image(image, size):
    """The centre; black is added where the image is smaller."""
    (width, height), pixels = pair(size), np.asarray(image)
    dh, dw = max(height - pixels.shape[0], 0), max(width - pixels.shape[1], 0)
    if dh or dw:
        pixels = np.pad(pixels, ((dh // 2, (dh + 1) // 2), (dw // 2, (dw + 1) // 2), (0, 0)))
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


def normalize_image(
    image, scale=None, mean=None, std=None, order="chw", output_fp16=False, channel_num=3
):
    """(image * scale - mean) / std, each step rounded to float32."""
    shape = (-1, 1, 1) if order == "chw" else (1, 1, -1)
    scale = np.float32(1 / 255 if scale is None else scale)
    mean, std = (
        np.asarray(values, np.float32).reshape(shape)
        for values in (mean or [0.485, 0.456, 0.406], std or [0.229, 0.224, 0.225])
    )
    return (np.asarray(image).astype(np.float32) * scale - mean) / std


def decode_image(path, to_rgb=True, channel_first=False, to_np=True, backend="pil"):
    image = decode(path)
    return image if to_rgb else np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def to_chw(image):
    return np.asarray(image).transpose(2, 0, 1)


TRANSFORMS = {
    "DecodeImage": decode_image,
    "ResizeImage": resize_image,
    "CropImage": crop_image,
    "NormalizeImage": normalize_image,
    "ToCHWImage": to_chw,
}


class Preprocess:
    """The `PreProcess.transform_ops` of a description: `preprocess(path)` -> float32 [3, H, W].
    ValueError for what is unknown.

    min_size: what H and W must be at least. size: (H, W) where the model takes no other.
    """

    def __init__(self, transform_ops, min_size=32, size=(None, None)):
        self.steps = [
            (name, arguments or {}) for entry in transform_ops for name, arguments in entry.items()
        ]
        self.min_size, self.size = min_size, tuple(size)
        for name, _ in self.steps:
            if name not in TRANSFORMS:
                raise ValueError(
                    f"{DESCRIPTION}: unknown transform {name!r}; this program knows "
                    f"{', '.join(TRANSFORMS)}"
                )
        if any(
            arguments.get("backend") == "cv2"
            for name, arguments in self.steps
            if name == "ResizeImage"
        ):
            try:
                import cv2  # noqa: F401
            except ImportError:
                raise ValueError(
                    f"{DESCRIPTION}: ResizeImage has `backend: cv2`: pip install "
                    f"opencv-python-headless"
                ) from None

    def __call__(self, path):
        image = path
        if not self.steps or self.steps[0][0] != "DecodeImage":
            image = decode(path)
        for name, arguments in self.steps:
            try:
                image = TRANSFORMS[name](image, **arguments)
            except ImageError as error:
                raise (
                    error if str(error).startswith(str(path)) else ImageError(f"{path}: {error}")
                ) from None
        image = np.asarray(image)
        image = np.ascontiguousarray(
            image if ("ToCHWImage", {}) in self.steps else image.transpose(2, 0, 1), np.float32
        )
        height, width = image.shape[1:]
        if min(height, width) < self.min_size:
            raise ImageError(
                f"{path}: {height} x {width} pixels after preprocessing; the model needs at least "
                f"{self.min_size}"
            )
        if self.size not in ((None, None), (height, width)):
            raise ImageError(
                f"{path}: {height} x {width} pixels after preprocessing; the model was exported "
                f"for "
                f"{self.size[0]} x {self.size[1]} alone"
            )
        return image


# Images in, classes out.


def read_hashed(folder, parse):
    """The description in `folder`, parsed by `parse`, after its files were found and their hashes
    compared.

    FileNotFoundError or ValueError, one line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such directory; expected the one that tools/export_model.py wrote"
        )
    if not (folder / DESCRIPTION).is_file():
        raise FileNotFoundError(f"{folder / DESCRIPTION}: no such file; an exported model has one")
    try:
        description = parse((folder / DESCRIPTION).read_text(encoding="utf-8"))
        hashes = {name: entry["sha256"] for name, entry in description["Files"].items()}
        for section, key in (
            ("PreProcess", "transform_ops"),
            ("PostProcess", "Topk"),
            ("Model", "softmax"),
            ("Model", "input"),
        ):
            description[section][key]
        names, classes = (
            description["PostProcess"]["Topk"]["label_list"],
            description["Model"]["class_num"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / DESCRIPTION}: not a description of an exported classifier: "
            f"{' '.join(str(error).split())}"
        ) from None
    for name, expected in hashes.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; {DESCRIPTION} names it")
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise ValueError(
                f"{folder / name}: does not match {DESCRIPTION}, so it is damaged or of another "
                f"export; export or copy again"
            )
    if len(names) != classes:
        raise ValueError(
            f"{folder / DESCRIPTION}: {len(names)} class names for {classes} classes; export "
            f"again with the right label file"
        )
    return description


class Classifier:
    """`classifier(batch)`: float32 [B, 3, H, W] -> probabilities float32 [B, classes]. run: the
    engine, from batch to output.

    A model exported for one batch size alone gets batches of that size, the last filled up with
    zeros.
    """

    def __init__(self, run, model):
        self.run, self.softmax, self.count = run, model["softmax"], model["input"]["shape"][0]

    def __call__(self, batch):
        output = self.run(batch) if self.count in (None, len(batch)) else self.in_parts(batch)
        if self.softmax:
            return output
        exponent = np.exp(output - output.max(axis=-1, keepdims=True))
        return exponent / exponent.sum(axis=-1, keepdims=True)

    def in_parts(self, batch):
        padded = np.pad(batch, [(0, -len(batch) % self.count), (0, 0), (0, 0), (0, 0)])
        parts = [
            np.array(self.run(padded[start : start + self.count]))
            for start in range(0, len(padded), self.count)
        ]
        return np.concatenate(parts)[: len(batch)]


class Timed:
    """`predictor`, which also runs each batch `repeat` times more, timed; the first one `warmup`
    times before, untimed.
    """

    def __init__(self, predictor, warmup, repeat):
        self.predictor, self.warmup, self.repeat, self.seconds, self.batches = (
            predictor,
            warmup,
            repeat,
            [],
            [],
        )

    def __call__(self, batch):
        output = self.predictor(batch)
        for _ in range(0 if self.seconds else self.warmup):
            self.predictor(batch)
        for _ in range(self.repeat):
            since = time.perf_counter()
            self.predictor(batch)
            self.seconds.append(time.perf_counter() - since)
            self.batches.append(len(batch))
        return output

    def summary(self, threads):
        """One line: milliseconds of a run, and images per second."""
        ms = 1000 * np.sort(self.seconds)
        quantiles = {
            "min": ms[0],
            **{
                name: ms[round(q * (len(ms) - 1))]
                for name, q in (("median", 0.5), ("p95", 0.95), ("p99", 0.99))
            },
            "max": ms[-1],
            "mean": ms.mean(),
        }
        values = " ".join(f"{name}={value:.2f}" for name, value in quantiles.items())
        rate = 1000 * sum(self.batches) / ms.sum()
        return (
            f"latency_ms: runs={len(ms)} batch={max(self.batches)} threads={threads} {values} "
            f"images_per_s={rate:.1f}"
        )


def list_images(source):
    """[source] for a file, the image files of a directory (by ending, sorted). FileNotFoundError if
    there is none.
    """
    source = Path(source)
    if not source.is_dir():
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such file or directory")
        return [source]
    found = sorted(
        path
        for path in source.iterdir()
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
    )
    if not found:
        raise FileNotFoundError(
            f"{source}: no images in this directory; expected files ending in "
            f"{' '.join(EXTENSIONS)}"
        )
    return found


def predict_files(predictor, paths, preprocess, batch_size, topk, names):
    """For each path, in order: {file_name, class_ids, scores, label_names}, best first, or
    {file_name, error}.

    Images that preprocessing leaves at different sizes run one size at a time.
    """
    for start in range(0, len(paths), batch_size):
        results, by_shape = {}, {}
        for path in paths[start : start + batch_size]:
            try:
                image = preprocess(path)
                by_shape.setdefault(image.shape, []).append((path, image))
            except ImageError as error:
                results[path] = {"file_name": str(path), "error": str(error)}
        for group in by_shape.values():
            for (path, _), row in zip(group, predictor(np.stack([image for _, image in group]))):
                order = np.argsort(-row, kind="stable")[:topk].tolist()
                results[path] = {
                    "file_name": str(path),
                    "class_ids": order,
                    "scores": [float(row[i]) for i in order],
                    "label_names": [names[i] for i in order],
                }
        yield from (results[path] for path in paths[start : start + batch_size])


def number(least):
    def parse(text):
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, got {value}")
        return value

    return parse


def common_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="what tools/export_model.py wrote"
    )
    parser.add_argument("--images", required=True, metavar="FILE|DIR")
    parser.add_argument("--batch-size", type=number(1), default=8)
    parser.add_argument("--threads", type=number(1), default=1, help="on a CPU")
    parser.add_argument("--topk", type=number(1), help="default: what the model was exported with")
    parser.add_argument("--json", metavar="FILE", help="write the predictions as JSON")
    parser.add_argument(
        "--repeat",
        type=number(1),
        metavar="N",
        help="run each batch N times more, timed, and print the latency",
    )
    parser.add_argument(
        "--warmup",
        type=number(0),
        default=1,
        metavar="N",
        help="untimed runs before the first of them (1)",
    )
    return parser


def predict(args, description, run):
    """Print and write what `args` ask for; returns the exit status: 1 if an image was bad. run: the
    engine (see Classifier).
    """
    paths, topk, model = (
        list_images(args.images),
        description["PostProcess"]["Topk"],
        description["Model"],
    )
    preprocess = Preprocess(
        description["PreProcess"]["transform_ops"],
        model["input"].get("min_size", 1),
        model["input"]["shape"][2:],
    )
    predictor = Classifier(run, model)
    if args.repeat:
        predictor = Timed(predictor, args.warmup, args.repeat)
    results = []
    for result in predict_files(
        predictor, paths, preprocess, args.batch_size, args.topk or topk["topk"], topk["label_list"]
    ):
        results.append(result)
        if "error" in result:
            print("error:", result["error"], file=sys.stderr)
        else:
            best = ", ".join(
                f"{name} {score:.4f}"
                for name, score in zip(result["label_names"], result["scores"])
            )
            print(f"{result['file_name']}: {best}", flush=True)
    if args.repeat and predictor.seconds:
        print(predictor.summary(args.threads))
    if args.json:
        Path(args.json).write_text(
            json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return int(any("error" in result for result in results))


# Paddle Inference.

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def read_description(folder):
    """inference.yml; see read_hashed."""

    def parse(text):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None

    return read_hashed(folder, parse)


def paddle_engine(
    folder,
    description,
    device="cpu",
    threads=1,
    onednn=True,
    precision=None,
    tensorrt=False,
    batch_size=8,
):
    """A function from float32 [B, 3, H, W] to the model's output, run by Paddle Inference.

    device: cpu or gpu. threads, onednn: on a CPU. Paddle 3 turns oneDNN on by itself, so False
    turns it off.
    precision: fp32; bf16 on a CPU with oneDNN; fp16 on a GPU; None: that of the export. tensorrt:
    on a GPU, from a .pdmodel, for batches up to `batch_size`. ValueError, one line, for what does
    not go together or cannot be loaded.
    """
    import paddle
    from paddle import inference

    program = next(
        (
            Path(folder) / name
            for name in description["Files"]
            if name.endswith((".json", ".pdmodel"))
        ),
        None,
    )
    if program is None:
        raise ValueError(f"{folder}: holds no program of Paddle's; export with --to paddle")
    legacy = program.suffix == ".pdmodel"
    precision = precision or description.get("Export", {}).get("precision", "fp32")
    if device == "gpu" and not paddle.is_compiled_with_cuda():
        raise ValueError("--device gpu: this paddle has no CUDA; install paddlepaddle-gpu")
    if precision == "bf16" and not (device == "cpu" and onednn):
        raise ValueError("--precision bf16 is for a CPU with oneDNN; a GPU has fp16")
    if precision == "fp16" and device != "gpu":
        raise ValueError("--precision fp16 needs --device gpu; a CPU has bf16")
    if tensorrt and (device != "gpu" or not legacy):
        raise ValueError("--tensorrt needs --device gpu and a model exported with --format pdmodel")
    config = inference.Config(str(program), str(Path(folder) / "inference.pdiparams"))
    config.disable_glog_info()
    if not legacy:
        config.enable_new_ir(True)
        # memory optimisation of a .json program needs it
        config.enable_new_executor(True)
    config.enable_memory_optim()
    if device == "gpu":
        half = (
            inference.PrecisionType.Half if precision == "fp16" else inference.PrecisionType.Float32
        )
        config.enable_use_gpu(256, 0, half)  # MB of the first pool; device 0
        if tensorrt:
            enable_tensorrt(config, description["Model"]["input"], batch_size, half)
    else:
        config.set_cpu_math_library_num_threads(threads)
        config.enable_mkldnn() if onednn else config.disable_mkldnn()
        if precision == "bf16":
            config.enable_mkldnn_bfloat16()
        if precision == "int8" and onednn:
            config.enable_mkldnn_int8()
            # it refuses residual additions (Paddle 3.3.1)
            config.delete_pass("cpu_quantize_squash_pass")
    try:
        predictor = inference.create_predictor(config)
    except (RuntimeError, ValueError) as error:
        # Paddle's own, from C++; its first line says what, the rest where
        exporter = description.get("Versions", {}).get("paddle")
        raise ValueError(
            f"{folder}: this paddle cannot load the model, which paddle {exporter} exported: "
            f"{str(error).strip().splitlines()[0]}"
        ) from None
    input = predictor.get_input_handle(predictor.get_input_names()[0])
    output = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(batch):
        input.reshape(batch.shape)
        input.copy_from_cpu(batch)
        predictor.run()
        return output.copy_to_cpu()

    return run


def enable_tensorrt(config, input, batch_size, precision):
    """TensorRT for whatever part of the model it takes, at the export's image size and batches up
    to `batch_size`.
    """
    count, channels, height, width = input["shape"]
    height, width = height or input["image_size"][0], width or input["image_size"][1]
    config.enable_tensorrt_engine(
        workspace_size=1 << 30,
        max_batch_size=count or batch_size,
        min_subgraph_size=3,
        precision_mode=precision,
        use_static=False,
        use_calib_mode=False,
    )
    least, most = (
        {input["name"]: [n, channels, height, width]} for n in (count or 1, count or batch_size)
    )
    config.set_trt_dynamic_shape_info(least, most, most)


def arguments(argv):
    parser = common_arguments()
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument(
        "--onednn", action=argparse.BooleanOptionalAction, default=True, help="on a CPU"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS[:3],
        help="bf16 on a CPU, fp16 on a GPU; default: that of the export",
    )
    parser.add_argument(
        "--tensorrt",
        action="store_true",
        help="on a GPU, with a model exported with --format pdmodel",
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = arguments(argv)
    try:
        description = read_description(args.model)
        return predict(
            args,
            description,
            paddle_engine(
                args.model,
                description,
                args.device,
                args.threads,
                args.onednn,
                args.precision,
                args.tensorrt,
                args.batch_size,
            ),
        )
    except (OSError, ValueError, ImportError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
