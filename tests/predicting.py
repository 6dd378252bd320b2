"""What the tests of predicting, exporting and deploying share: random weights that matter, pictures
of every kind, programs by path.
"""

import importlib.util
import sys
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import paddle
import pytest
from scripts import seeded
from paddle import nn
from PIL import Image
from tiny import DATA, ROOT

from ppcls_nextvit import create_model

CPU = Path("/proc/cpuinfo")
needs_avx512 = pytest.mark.skipif(
    not CPU.exists() or "avx512bw" not in CPU.read_text(), reason="oneDNN's bfloat16 needs AVX512"
)
# logits of a random network hardly depend on the image; this makes top-k differ from image to image
HEAD_GAIN = 20.0


def program_at(path):
    """The module of a program in tools/ or deploy/, which are no packages. While it is imported its
    folder is first on the path, as when Python runs it.
    """
    spec = importlib.util.spec_from_file_location(
        path.replace("/", "_").removesuffix(".py"), ROOT / path
    )
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sys, "path", [str((ROOT / path).parent), *sys.path]):
        spec.loader.exec_module(module)
    return module


def random_model(name="NextViT_small", **arguments):
    """A shallow model in eval mode whose weights and BatchNorm statistics are all random (seeded),
    with logits of order 1 to 10.
    """
    model = create_model(name, num_classes=10, depths=(1, 1, 5, 1), **arguments)
    linear = {
        f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)
    }
    for key, value in model.state_dict().items():
        if key.endswith("sr.window"):
            continue
        source = key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        array = (
            seeded.tensor(source, value.shape[::-1]).T
            if key in linear
            else seeded.tensor(source, value.shape)
        )
        value.set_value(array * HEAD_GAIN if key == "proj_head.0.weight" else array)
    model.eval()
    return model


def random_weights(path):
    """`random_model`'s weights as a file."""
    paddle.save(random_model().state_dict(), str(path))
    return path


def clothes(folder, count=7):
    """The first `count` test images of Fashion-MNIST as grey 28 x 28 PNGs in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(DATA / "images.zip") as archive:
        for index in range(count):
            (folder / f"{index:05d}.png").write_bytes(archive.read(f"test/{index:05d}.png"))
    return folder


def varied_pictures(folder):
    """Images of every mode, size and orientation in `folder`: clothes before colour gradients."""
    clothes(folder, 1)
    with Image.open(folder / "00000.png") as image:
        grey = image.convert("L")
    rng = np.random.default_rng(0)

    def scene(width, height):
        ys, xs = np.mgrid[0:height, 0:width]
        back = np.stack(
            [255 * xs / width, 255 * ys / height, 127 + 127 * np.sin((xs + ys) / 5)], axis=-1
        )
        back += rng.normal(0, 20, back.shape)
        piece = np.asarray(grey.resize((width, height), Image.Resampling.BICUBIC))[:, :, None] / 255
        return Image.fromarray(np.clip(back * (1 - piece) + 255 * piece, 0, 255).astype(np.uint8))

    rotated = Image.Exif()
    rotated[0x0112] = 6  # Orientation: turn by 90 degrees
    scene(90, 47).save(folder / "landscape.jpg", quality=90)
    scene(47, 91).save(folder / "portrait_exif6.jpg", quality=90, exif=rotated)
    scene(33, 32).save(folder / "barely.webp", quality=90)
    scene(300, 211).convert("CMYK").save(folder / "cmyk.jpg", quality=90)
    scene(64, 64).convert("L").save(folder / "grey.jpg", quality=90)
    scene(55, 70).quantize(64).save(folder / "palette.png")
    scene(70, 55).convert("1").save(folder / "bilevel.png")
    transparent = scene(80, 60).convert("RGBA")
    transparent.putalpha(grey.resize((80, 60)))
    transparent.save(folder / "alpha.png")
    transparent.convert("LA").save(folder / "grey_alpha.png")
    Image.fromarray(np.asarray(grey.resize((50, 40))).astype(np.uint16) * 257 + 3).save(
        folder / "sixteen_bit.png"
    )
    scene(40, 40).save(folder / "animated.gif", save_all=True, append_images=[scene(40, 40)])
    scene(200, 9).save(folder / "stripe.bmp")
    Image.new("RGB", (1, 1), (200, 100, 50)).save(folder / "one_pixel.png")
    return folder
