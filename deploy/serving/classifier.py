"""An exported Next-ViT behind a service: from the bytes of one picture to its best classes.

Needs numpy, Pillow and onnxruntime or paddle, whichever the exported folder is for. server.py and
the Triton repository share it.
"""

import hashlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# no decoder that starts other programs (EPS)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 50_000_000  # 150 MB as RGB; of the upload and of every step after it
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
    """A picture that cannot be used. `status` is the HTTP status that says why: 413 too large, 415
    no image, 422 damaged.
    """

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status = status


# Preprocessing: the pixels of evaluation, bit for bit. Every option is in export.json.


def decode(data, max_pixels=MAX_PIXELS):
    """The picture as a PIL image in mode RGB: EXIF orientation applied, alpha dropped, 16-bit grey
    cut to its high byte, first frame.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise ImageError(
            415,
            f"not an image in one of the formats {', '.join(FORMATS)}; it begins with {data[:8]!r}",
        ) from None
    except Image.DecompressionBombError as error:
        raise ImageError(413, f"more pixels than the limit of {max_pixels}: {error}") from None
    except DECODER_ERRORS as error:
        raise ImageError(422, f"damaged image: {one_line(error)}") from None
    check_pixels(image.size, max_pixels, "the image")
    if image.mode == "F":
        raise ImageError(
            415,
            "32-bit floating point pixels have no defined range; store the image with 8 or 16 bits",
        )
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):
            image = Image.fromarray(
                (np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8).astype(np.uint8)
            )
        return image if image.mode == "RGB" else image.convert("RGB")
    except DECODER_ERRORS as error:
        raise ImageError(422, f"truncated or damaged image: {one_line(error)}") from None


def one_line(error):
    return " ".join(str(error).split())


def check_pixels(size, max_pixels, what):
    if size[0] * size[1] > max_pixels:
        raise ImageError(
            413, f"{what} has {size[0]} x {size[1]} pixels, more than the limit of {max_pixels}"
        )


def pair(size):
    return (size, size) if isinstance(size, int) else tuple(size)


def resize_image(
    image,
    max_pixels,
    size=None,
    resize_short=None,
    interpolation=None,
    backend="cv2",
    return_numpy=True,
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
    # a strip of 1 pixel by 50,000 would become 3 billion
    check_pixels(pair(size), max_pixels, "the resized image")
    if backend == "cv2":
        import cv2

        flags = {
            "nearest": cv2.INTER_NEAREST,
            "bilinear": cv2.INTER_LINEAR,
            "area": cv2.INTER_AREA,
            "bicubic": cv2.INTER_CUBIC,
            "lanczos": cv2.INTER_LANCZOS4,
        }
        return cv2.resize(
            np.asarray(image), pair(size), interpolation=flags[interpolation or "bilinear"]
        )
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return image.resize(pair(size), Image.Resampling[(interpolation or "bilinear").upper()])


def crop_image(image, max_pixels, size):
    """The centre; black is added where the image is smaller."""
    (width, height), pixels = pair(size), np.asarray(image)
    dh, dw = max(height - pixels.shape[0], 0), max(width - pixels.shape[1], 0)
    if dh or dw:
        pixels = np.pad(pixels, ((dh // 2, (dh + 1) // 2), (dw // 2, (dw + 1) // 2), (0, 0)))
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


def normalize_image(
    image,
    max_pixels,
    scale=None,
    mean=None,
    std=None,
    order="chw",
    output_fp16=False,
    channel_num=3,
):
    """(image * scale - mean) / std, each step rounded to float32."""
    shape = (-1, 1, 1) if order == "chw" else (1, 1, -1)
    scale = np.float32(1 / 255 if scale is None else scale)
    mean, std = (
        np.asarray(values, np.float32).reshape(shape)
        for values in (mean or [0.485, 0.456, 0.406], std or [0.229, 0.224, 0.225])
    )
    return (np.asarray(image).astype(np.float32) * scale - mean) / std


def decode_image(data, max_pixels, to_rgb=True, channel_first=False, to_np=True, backend="pil"):
    image = decode(data, max_pixels)
    return image if to_rgb else np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def to_chw(image, max_pixels):
    return np.asarray(image).transpose(2, 0, 1)


TRANSFORMS = {
    "DecodeImage": decode_image,
    "ResizeImage": resize_image,
    "CropImage": crop_image,
    "NormalizeImage": normalize_image,
    "ToCHWImage": to_chw,
}


class Preprocess:
    """The `PreProcess.transform_ops` of a description: `preprocess(data)`, data the picture's bytes
    -> float32 [3, H, W].

    max_pixels: of the picture and of every step. min_size: what the model needs. ValueError for an
    unknown transform, on calling ImageError for a bad picture.
    """

    def __init__(self, transform_ops, max_pixels=MAX_PIXELS, min_size=1):
        self.steps = [
            (name, arguments or {}) for entry in transform_ops for name, arguments in entry.items()
        ]
        if not self.steps or self.steps[0][0] != "DecodeImage":
            self.steps.insert(0, ("DecodeImage", {}))
        self.max_pixels, self.min_size = max_pixels, min_size
        for name, _ in self.steps:
            if name not in TRANSFORMS:
                raise ValueError(
                    f"unknown transform {name!r} in the description; this program knows "
                    f"{', '.join(TRANSFORMS)}"
                )

    def __call__(self, data):
        image = data
        for name, arguments in self.steps:
            image = TRANSFORMS[name](image, self.max_pixels, **arguments)
        image = np.asarray(image)
        image = np.ascontiguousarray(
            image if ("ToCHWImage", {}) in self.steps else image.transpose(2, 0, 1), np.float32
        )
        if min(image.shape[1:]) < self.min_size:
            raise ImageError(
                422,
                f"{image.shape[1]} x {image.shape[2]} pixels after preprocessing; "
                f"the model needs at least {self.min_size}",
            )
        return image


# The model


def read_description(folder):
    """The contents of export.json, after the hashes it holds were compared. FileNotFoundError or
    ValueError, one line.
    """
    path = Path(folder) / "export.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected a folder that tools/export_model.py wrote"
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        hashes = {name: entry["sha256"] for name, entry in description["Files"].items()}
        target, shape = description["Export"]["target"], description["Model"]["input"]["shape"]
        (
            description["PreProcess"]["transform_ops"],
            description["PostProcess"]["Topk"],
            description["Model"]["softmax"],
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not the description of an exported classifier: {one_line(error)}"
        ) from None
    if target not in LOADERS:
        raise ValueError(
            f"{folder}: an export to {target}; this program runs {' and '.join(LOADERS)}"
        )
    if shape[0] is not None:
        raise ValueError(
            f"{folder}: the batch is fixed at {shape[0]}; batching needs an export with --batch "
            f"dynamic"
        )
    for name, expected in hashes.items():
        file = Path(folder) / name
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file, yet {path.name} lists it")
        if hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise ValueError(
                f"{file}: does not match {path.name}, so it is damaged or of another export; "
                f"export or copy again"
            )
    return description


def load_onnx(files, device, threads):
    """`run(batch)`: float32 [B, 3, H, W] -> [B, classes], by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    provider = "CUDAExecutionProvider" if device == "gpu" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(
            f"--device {device}: this onnxruntime has no {provider}; install onnxruntime-gpu"
        )
    session = onnxruntime.InferenceSession(files[".onnx"], options, providers=[provider])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def load_paddle(files, device, threads):
    """`run(batch)`: float32 [B, 3, H, W] -> [B, classes], by Paddle Inference."""
    import paddle
    from paddle import inference

    paddle.disable_signal_handler()  # it prints a page when a worker is told to end
    config = inference.Config(files.get(".json") or files[".pdmodel"], files[".pdiparams"])
    config.disable_glog_info()
    if ".json" in files:
        config.enable_new_ir(True)
        config.enable_new_executor(True)  # memory optimisation of a .json program needs it
    config.enable_memory_optim()
    if device == "gpu":
        config.enable_use_gpu(256, 0)  # MB of the first pool; device 0
    else:
        config.set_cpu_math_library_num_threads(threads)
    predictor = inference.create_predictor(config)
    source = predictor.get_input_handle(predictor.get_input_names()[0])
    result = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(batch):
        source.reshape(batch.shape)
        source.copy_from_cpu(batch)
        predictor.run()
        return result.copy_to_cpu()

    return run


LOADERS = {"onnx": load_onnx, "paddle": load_paddle}


class Classifier:
    """`classifier(images)`: a list of float32 [3, H, W] -> probabilities, one [classes] for each.
    Sizes that differ run one at a time.

    folder: the exported files. device: cpu or gpu. threads: on a CPU.
    """

    def __init__(self, folder, description, device="cpu", threads=1):
        files = {Path(name).suffix: str(Path(folder) / name) for name in description["Files"]}
        self.run = LOADERS[description["Export"]["target"]](files, device, threads)
        self.softmax = description["Model"]["softmax"]

    def __call__(self, images):
        by_shape = {}
        for index, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(index)
        rows = {}
        for indices in by_shape.values():
            output = self.run(np.stack([images[index] for index in indices]))
            if not self.softmax:
                exponent = np.exp(output - output.max(axis=-1, keepdims=True))
                output = exponent / exponent.sum(axis=-1, keepdims=True)
            rows.update(zip(indices, output))
        return [rows[index] for index in range(len(images))]


def best(row, k, names):
    """The k largest of `row` [classes], best first: [{class_id, label, score}]."""
    return [
        {"class_id": i, "label": names[i], "score": float(row[i])}
        for i in np.argsort(-row, kind="stable")[:k].tolist()
    ]
