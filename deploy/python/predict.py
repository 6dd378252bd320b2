"""Classify images with an exported Next-ViT: python predict.py --model DIRECTORY --images FILE_OR_DIRECTORY

Copy this file and the exported directory; nothing else of the project is needed, only paddle, numpy, Pillow and PyYAML
(and OpenCV where inference.yml says `backend: cv2`).
"""
import argparse
import hashlib
import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageOps

FILES = ("inference.json", "inference.pdiparams", "inference.yml")
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 89_478_485             # 256 MiB of RGB
DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError, OverflowError,
                  MemoryError, NotImplementedError, RuntimeError, Image.DecompressionBombError)


class ImageError(ValueError):
    """An image that cannot be read or used. The message begins with its path."""


# Preprocessing: the pixels of evaluation, bit for bit. Every option is in inference.yml.

def decode(path):
    """The image as a PIL image in mode RGB: EXIF orientation applied, alpha dropped, 16-bit grey cut to its high byte, first frame."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    if not data:
        raise ImageError(f"{path}: the file is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(f"{path}: {image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS}")
        if image.mode == "F":
            raise ImageError(f"{path}: 32-bit floating point pixels have no defined range; store it with 8 or 16 bits")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):
            image = Image.fromarray((np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8).astype(np.uint8))
        return image if image.mode == "RGB" else image.convert("RGB")
    except ImageError:
        raise
    except DECODER_ERRORS as error:
        raise ImageError(f"{path}: not an image, or damaged: {' '.join(str(error).split())}") from None


def pair(size):
    return (size, size) if isinstance(size, int) else tuple(size)


def resize(image, size, interpolation, backend):
    """`image` at `size` = (width, height), by Pillow or OpenCV."""
    name = interpolation or "bilinear"
    if backend == "cv2":
        import cv2
        flags = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "bicubic": cv2.INTER_CUBIC,
                 "lanczos": cv2.INTER_LANCZOS4}
        return cv2.resize(np.asarray(image), size, interpolation=flags[name])
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return image.resize(size, Image.Resampling[name.upper()])


def resize_image(image, size=None, resize_short=None, interpolation=None, backend="cv2", return_numpy=True):
    width, height = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
    if resize_short:
        short = pair(resize_short)[0]
        size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
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
    return pixels[top:top + height, left:left + width]


def normalize_image(image, scale=None, mean=None, std=None, order="chw", output_fp16=False, channel_num=3):
    """(image * scale - mean) / std, each step rounded to float32."""
    shape = (-1, 1, 1) if order == "chw" else (1, 1, -1)
    scale = np.float32(1 / 255 if scale is None else scale)
    mean, std = (np.asarray(values, np.float32).reshape(shape) for values in (mean or [0.485, 0.456, 0.406], std or [0.229, 0.224, 0.225]))
    return (np.asarray(image).astype(np.float32) * scale - mean) / std


def decode_image(path, to_rgb=True, channel_first=False, to_np=True, backend="pil"):
    image = decode(path)
    return image if to_rgb else np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def to_chw(image):
    return np.asarray(image).transpose(2, 0, 1)


TRANSFORMS = {"DecodeImage": decode_image, "ResizeImage": resize_image, "CropImage": crop_image, "NormalizeImage": normalize_image,
              "ToCHWImage": to_chw}


class Preprocess:
    """The `PreProcess.transform_ops` of an inference.yml: `preprocess(path)` -> float32 [3, H, W]. ValueError for what is unknown."""

    def __init__(self, transform_ops, min_size=32):
        self.steps, self.min_size = [(name, arguments or {}) for entry in transform_ops for name, arguments in entry.items()], min_size
        for name, _ in self.steps:
            if name not in TRANSFORMS:
                raise ValueError(f"inference.yml: unknown transform {name!r}; this program knows {', '.join(TRANSFORMS)}")
        if any(arguments.get("backend") == "cv2" for name, arguments in self.steps if name == "ResizeImage"):
            try:
                import cv2  # noqa: F401
            except ImportError:
                raise ValueError("inference.yml: ResizeImage has `backend: cv2`: pip install opencv-python-headless") from None

    def __call__(self, path):
        image = path
        if not self.steps or self.steps[0][0] != "DecodeImage":
            image = decode(path)
        for name, arguments in self.steps:
            image = TRANSFORMS[name](image, **arguments)
        image = np.asarray(image)
        image = np.ascontiguousarray(image if ("ToCHWImage", {}) in self.steps else image.transpose(2, 0, 1), np.float32)
        if min(image.shape[1:]) < self.min_size:
            raise ImageError(f"{path}: {image.shape[1]} x {image.shape[2]} pixels after preprocessing; "
                             f"the model needs at least {self.min_size}")
        return image


# The model

def read_description(folder):
    """The contents of inference.yml, after the files were found and their hashes compared. FileNotFoundError or ValueError, one line."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such directory; expected the one that tools/export_model.py wrote")
    for name in FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; an exported model has {', '.join(FILES)}")
    try:
        description = yaml.safe_load((folder / FILES[2]).read_text(encoding="utf-8"))
        hashes = {name: description["Files"][name]["sha256"] for name in FILES[:2]}
        for section, key in (("PreProcess", "transform_ops"), ("PostProcess", "Topk"), ("Model", "softmax"), ("Model", "input")):
            description[section][key]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / FILES[2]}: not a description of an exported model: {' '.join(str(error).split())}") from None
    for name, expected in hashes.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise ValueError(f"{folder / name}: does not match inference.yml, so it is damaged or of another export; export or copy again")
    return description


class Predictor:
    """`predictor(batch)`: float32 [B, 3, H, W] -> probabilities float32 [B, classes].

    device: cpu or gpu. threads, onednn: on a CPU. Paddle 3 turns oneDNN on by itself, so False turns it off.
    """

    def __init__(self, folder, description, device="cpu", threads=1, onednn=True):
        from paddle import inference
        config = inference.Config(str(Path(folder) / FILES[0]), str(Path(folder) / FILES[1]))
        config.disable_glog_info()
        config.enable_new_ir(True)
        config.enable_new_executor(True)            # memory optimisation of a .json program needs it
        config.enable_memory_optim()
        if device == "gpu":
            import paddle
            if not paddle.is_compiled_with_cuda():
                raise ValueError("--device gpu: this paddle has no CUDA; install paddlepaddle-gpu")
            config.enable_use_gpu(256, 0)           # MB of the first pool; device 0
        else:
            config.set_cpu_math_library_num_threads(threads)
            config.enable_mkldnn() if onednn else config.disable_mkldnn()
        try:
            self.predictor = inference.create_predictor(config)
        except (RuntimeError, ValueError) as error:     # Paddle's own, from C++; its first line says what, the rest where
            exporter = description.get("Versions", {}).get("paddle")
            raise ValueError(f"{folder}: this paddle cannot load the model, which paddle {exporter} exported: "
                             f"{str(error).strip().splitlines()[0]}") from None
        self.input = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        self.output = self.predictor.get_output_handle(self.predictor.get_output_names()[0])
        self.softmax = description["Model"]["softmax"]

    def __call__(self, batch):
        self.input.reshape(batch.shape)
        self.input.copy_from_cpu(batch)
        self.predictor.run()
        output = self.output.copy_to_cpu()
        if self.softmax:
            return output
        exponent = np.exp(output - output.max(axis=-1, keepdims=True))
        return exponent / exponent.sum(axis=-1, keepdims=True)


def list_images(source):
    """[source] for a file, the image files of a directory (by ending, sorted). FileNotFoundError if there is none."""
    source = Path(source)
    if not source.is_dir():
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such file or directory")
        return [source]
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in EXTENSIONS and not path.name.startswith("."))
    if not found:
        raise FileNotFoundError(f"{source}: no images in this directory; expected files ending in {' '.join(EXTENSIONS)}")
    return found


def predict_files(predictor, paths, preprocess, batch_size, topk, names):
    """For each path, in order: {file_name, class_ids, scores, label_names}, best first, or {file_name, error}.

    Images that preprocessing leaves at different sizes run one size at a time.
    """
    for start in range(0, len(paths), batch_size):
        results, by_shape = {}, {}
        for path in paths[start:start + batch_size]:
            try:
                image = preprocess(path)
                by_shape.setdefault(image.shape, []).append((path, image))
            except ImageError as error:
                results[path] = {"file_name": str(path), "error": str(error)}
        for group in by_shape.values():
            for (path, _), row in zip(group, predictor(np.stack([image for _, image in group]))):
                order = np.argsort(-row, kind="stable")[:topk].tolist()
                results[path] = {"file_name": str(path), "class_ids": order, "scores": [float(row[i]) for i in order],
                                 "label_names": [names[i] for i in order]}
        yield from (results[path] for path in paths[start:start + batch_size])


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, metavar="DIR", help="what tools/export_model.py wrote")
    parser.add_argument("--images", required=True, metavar="FILE|DIR")
    parser.add_argument("--batch-size", type=positive, default=8)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--threads", type=positive, default=1, help="on a CPU")
    parser.add_argument("--onednn", action=argparse.BooleanOptionalAction, default=True, help="on a CPU")
    parser.add_argument("--topk", type=positive, help="default: what the model was exported with")
    parser.add_argument("--json", metavar="FILE", help="write the predictions as JSON")
    return parser.parse_args(argv)


def predict(args):
    description = read_description(args.model)
    paths = list_images(args.images)
    topk = description["PostProcess"]["Topk"]
    preprocess = Preprocess(description["PreProcess"]["transform_ops"], description["Model"]["input"].get("min_size", 1))
    predictor = Predictor(args.model, description, args.device, args.threads, args.onednn)
    results = []
    for result in predict_files(predictor, paths, preprocess, args.batch_size, args.topk or topk["topk"], topk["label_list"]):
        results.append(result)
        if "error" in result:
            print("error:", result["error"], file=sys.stderr)
        else:
            best = ", ".join(f"{name} {score:.4f}" for name, score in zip(result["label_names"], result["scores"]))
            print(f"{result['file_name']}: {best}", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any("error" in result for result in results))


def main(argv=None) -> int:
    args = arguments(argv)
    try:
        return predict(args)
    except (OSError, ValueError, ImportError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
