"""Image files of every kind, to predict."""

import zipfile

import numpy as np
from PIL import Image

from .tiny_run import DATA


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
