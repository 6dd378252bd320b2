"""Scaled decoding: the same part of the picture as with all pixels, never fewer than needed."""

import io

import numpy as np
import pytest
from PIL import Image

from ppcls_nextvit.data import check_loader
from ppcls_nextvit.data.images import ImageError
from ppcls_nextvit.data.scaled import ScalableJpeg, open_scalable
from ppcls_nextvit.data.transforms.pipeline import Pipeline, Preprocess
from ppcls_nextvit.schema import ConfigError

CROP = {"RandomResizedCrop": {"size": 32, "interpolation": "bicubic"}}
RAND = {"RandCropImage": {"size": 32, "interpolation": "bicubic", "backend": "pil"}}
SHORT = {"ResizeImage": {"resize_short": 40, "interpolation": "bicubic", "backend": "pil"}}
SIZE = {"ResizeImage": {"size": [50, 40], "interpolation": "bilinear", "backend": "pil"}}


def picture(width, height, mode="RGB"):
    """Smooth waves that no symmetry maps onto themselves, so that a part out of its place shows."""
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [np.sin(x / 37 + c) + np.cos(y / (23 + 5 * c) + x / 61) for c in range(3)]
    image = Image.fromarray((np.stack(waves, 2) * 60 + 128).clip(0, 255).astype(np.uint8))
    return image.convert(mode)


def jpeg(image, turned=1, **more):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = turned
    image.save(file, "JPEG", quality=95, exif=exif, **more)
    return file.getvalue()


def both(data, step):
    """The same draws without and with scaled decoding, float32 [3, H, W] each."""
    for arguments in (None, {"scaled": True}):
        pipeline = Pipeline([{"DecodeImage": arguments}, step])
        yield [pipeline(data, np.random.default_rng(seed)) for seed in range(6)]


@pytest.mark.parametrize("step", [CROP, RAND, SHORT, SIZE], ids=lambda step: next(iter(step)))
@pytest.mark.parametrize("turned", range(1, 9))
def test_the_same_part_of_a_turned_picture(step, turned):
    whole, scaled = both(jpeg(picture(517, 389), turned), step)
    for one, other in zip(whole, scaled, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).mean() < 1.2  # of 255; a pixel beside it: 3 and more


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours(mode):
    whole, scaled = both(jpeg(picture(400, 300, mode)), CROP)
    assert max(np.abs(a - b).mean() for a, b in zip(whole, scaled, strict=True)) < 1.2


def test_a_progressive_file():
    whole, scaled = both(jpeg(picture(400, 300), progressive=True), CROP)
    assert max(np.abs(a - b).mean() for a, b in zip(whole, scaled, strict=True)) < 1.2


def test_what_is_not_reduced_is_the_same_bit_for_bit():
    whole, scaled = both(jpeg(picture(60, 50)), CROP)
    assert np.array_equal(whole, scaled)
    file = io.BytesIO()
    picture(400, 300).save(file, "PNG")
    whole, scaled = both(file.getvalue(), CROP)
    assert np.array_equal(whole, scaled)


@pytest.mark.parametrize("box", [(0, 0, 400, 300), (37, 11, 130, 129), (200, 100, 63, 64)])
@pytest.mark.parametrize("wanted", [(32, 32), (16, 8), (100, 129), (400, 400)])
def test_never_fewer_pixels_than_needed(box, wanted):
    part = open_scalable(jpeg(picture(400, 300)))
    assert isinstance(part, ScalableJpeg) and part.size == (400, 300)
    pixels, (left, top, right, bottom) = part.part(box, wanted)
    reduction = box[2] / (right - left)
    assert reduction in (1, 2, 4, 8) and box[3] / (bottom - top) == reduction
    enough = right - left >= wanted[0] and bottom - top >= wanted[1]
    assert enough or reduction == 1
    twice = (right - left) / 2 >= wanted[0] and (bottom - top) / 2 >= wanted[1]
    assert not twice or reduction == 8
    assert 0 <= left < 1 and 0 <= top < 1
    assert pixels.width - 1 < right <= pixels.width and pixels.height - 1 < bottom <= pixels.height


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_damaged_file_is_named(share):
    data = jpeg(picture(400, 300))
    pipeline = Pipeline([{"DecodeImage": {"scaled": True}}, CROP])
    with pytest.raises(ImageError, match="^a.jpg: "):
        pipeline(data[: int(share * len(data))], np.random.default_rng(0), "a.jpg")
    with pytest.raises(ImageError, match="^none.jpg: no such file"):
        pipeline("none.jpg", np.random.default_rng(0))


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
def test_notes_that_break_a_file_are_left_out():
    data = jpeg(picture(400, 300), 6)
    broken = data[:2] + b"\xff\xe2\x00\x08MPF\x00II" + data[2:]
    whole, scaled = both(broken, CROP)
    assert max(np.abs(a - b).mean() for a, b in zip(whole, scaled, strict=True)) < 1.2


@pytest.mark.parametrize(
    "ops, message",
    [
        ([{"DecodeImage": {"scaled": True}}], "after DecodeImage with `scaled: True` comes"),
        ([{"DecodeImage": {"scaled": True}}, {"RandFlipImage": None}], "scaled: True` comes"),
        (
            [
                {"DecodeImage": {"scaled": True}},
                {"RandomResizedCrop": {"size": 8, "backend": "cv2"}},
            ],
            "with `backend: pil`",
        ),
        ([{"DecodeImage": {"scaled": True, "to_rgb": False}}, CROP], "needs to_rgb: True"),
    ],
)
def test_where_it_cannot_be(ops, message):
    if "cv2" in str(ops):
        pytest.importorskip("cv2", reason="needs the extra `cv2`")
    with pytest.raises(ConfigError, match=message):
        Pipeline(ops)


def test_evaluation_sees_all_pixels():
    ops = [{"DecodeImage": {"scaled": True}}, SHORT]
    with pytest.raises(ConfigError, match="scaled: True is for training"):
        Preprocess(ops)
    dataset = {"name": "ImageNetDataset", "image_root": "a", "cls_label_path": "b"}
    section = {
        "dataset": {**dataset, "transform_ops": ops},
        "sampler": {"batch_size": 2},
        "loader": {},
    }
    check_loader(section, "Train")
    with pytest.raises(ConfigError, match="Eval.*scaled: True is for training"):
        check_loader(section, "Eval")
    assert Preprocess([{"DecodeImage": None}]).describe()[0]["DecodeImage"].keys() == {
        "to_rgb",
        "channel_first",
        "to_np",
        "backend",
    }
