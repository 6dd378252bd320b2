"""Decoding of every kind of image file, and evaluation's transforms with torchvision's
conventions.
"""

import io
import struct
import zlib

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFile

from ppcls_nextvit.data import images
from ppcls_nextvit.data.images import ImageError, decode_image
from ppcls_nextvit.data.transforms.evaluation import center_crop, normalize, resize_short
from ppcls_nextvit.data.transforms.pipeline import Preprocess
from ppcls_nextvit.schema import ConfigError

EVAL = [
    {"DecodeImage": {"to_rgb": True, "channel_first": False}},
    {"ResizeImage": {"resize_short": 256, "interpolation": "bicubic", "backend": "pil"}},
    {"CropImage": {"size": 224}},
    {
        "NormalizeImage": {
            "scale": "1.0/255.0",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "order": "",
        }
    },
    {"ToCHWImage": None},
]


def encoded(image, encoding="png", **options):
    buffer = io.BytesIO()
    image.save(buffer, encoding, **options)
    return buffer.getvalue()


def noise(height=6, width=8):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rgb_png_from_path_and_bytes(tmp_path):
    data = encoded(Image.fromarray(noise()))
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(decode_image(tmp_path / "a.png"), noise())
    assert np.array_equal(decode_image(data), noise())
    assert np.array_equal(decode_image(data, to_rgb=False), noise()[:, :, ::-1])


def test_grey_palette_alpha_and_bilevel():
    grey = noise()[:, :, 0]
    assert np.array_equal(decode_image(encoded(Image.fromarray(grey))), np.stack([grey] * 3, -1))
    alpha = np.dstack([noise(), np.zeros((6, 8), np.uint8)])
    # dropped, not composed
    assert np.array_equal(decode_image(encoded(Image.fromarray(alpha))), noise())
    assert np.array_equal(
        decode_image(encoded(Image.fromarray(np.dstack([grey, grey]), "LA"))),
        np.stack([grey] * 3, -1),
    )
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert decode_image(encoded(palette, transparency=0)).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert decode_image(encoded(Image.new("1", (1, 1), 1))).tolist() == [[[255] * 3]]


def test_16_bit_grey_keeps_its_high_byte():
    values = np.array([[0, 255, 256, 0x1234, 65535]], np.uint16)
    for encoding in ("png", "tiff"):
        assert decode_image(encoded(Image.fromarray(values), encoding))[0, :, 0].tolist() == [
            0,
            0,
            1,
            0x12,
            255,
        ]


def test_cmyk_jpeg():
    image = decode_image(
        encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "jpeg", quality=100)
    )
    assert np.abs(image.astype(int) - [255, 0, 0]).max() <= 3


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    image = decode_image(encoded(frames[0], "gif", save_all=True, append_images=frames[1:]))
    assert (image == [255, 0, 0]).all()


@pytest.mark.parametrize(
    "orientation, expected",
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),
        (8, lambda x: np.rot90(x)),
    ],
)
def test_exif_orientation_is_applied_as_opencv_does(orientation, expected):
    exif = Image.Exif()
    exif[0x112] = orientation
    plain = np.kron(noise(2, 3), np.ones((16, 16, 1), np.uint8))
    data = encoded(Image.fromarray(plain), "jpeg", quality=95, exif=exif)
    upright = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode_image(data), expected(upright))
    try:
        import cv2
    except ImportError:
        return
    assert (
        np.abs(
            decode_image(data, to_rgb=False).astype(int)
            - cv2.imdecode(np.frombuffer(data, np.uint8), 1)
        ).max()
        <= 1
    )


def png_of(width, height):
    """A PNG header that promises width x height pixels, with next to no data."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


JPEG = encoded(Image.fromarray(noise(64, 64)), "jpeg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "empty"),
        (b"hello, this is no image", "not an image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:20], "not an image|damaged"),
        (encoded(Image.fromarray(noise(64, 64)))[:3000], "truncated"),
        (png_of(10_000, 9_000), "10000 x 9000 pixels are more than the limit of 89478485"),
        (png_of(60_000, 60_000), "limit of 89478485"),
        (encoded(Image.new("F", (2, 2)), "tiff"), "floating point"),
    ],
)
def test_bad_files_name_their_path(tmp_path, monkeypatch, data, message):
    # as PaddleDetection leaves it
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = tmp_path / "bad.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as error:
        decode_image(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    with pytest.raises(ImageError, match=f"some/name: .*({message})"):
        decode_image(data, name="some/name")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError, match="none.png: no such file"):
        decode_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="cannot be read"):
        decode_image(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("encoding", ["png", "jpeg", "gif", "bmp", "tiff", "webp"])
def test_damaged_bytes_raise_nothing_else(encoding):
    data, rng = encoded(Image.fromarray(noise(32, 32)), encoding), np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 4):
            damaged[position] = rng.integers(256)
        try:
            decode_image(bytes(damaged[: rng.integers(1, len(data) + 1)]))
        except ImageError:
            # the test: no other exception comes through
            pass


@pytest.mark.parametrize(
    "height, width, expected",
    [
        (375, 500, (256, 341)),
        (500, 375, (341, 256)),
        (1, 1, (256, 256)),
        (256, 300, (256, 300)),
        (333, 500, (256, 384)),
    ],
)
def test_resize_short_truncates_the_long_side(height, width, expected):
    assert np.asarray(resize_short(Image.new("RGB", (width, height)), 256)).shape[:2] == expected


@pytest.mark.parametrize("height, width", [(2, 7), (7, 2), (2, 2)])
def test_a_side_that_is_smaller_than_the_crop_is_padded_alone(height, width):
    crop = center_crop(np.full((height, width, 3), 9, np.uint8), (4, 4))
    assert crop.shape == (4, 4, 3)
    assert np.count_nonzero(crop[..., 0]) == min(height, 4) * min(width, 4)


def test_center_crop_rounds_half_to_even_as_torchvision():
    columns = np.broadcast_to(np.arange(9, dtype=np.uint8)[None, :, None], (4, 9, 3))
    # 1.5 -> 2
    assert center_crop(columns[:, :7], (4, 4))[0, :, 0].tolist() == [2, 3, 4, 5]
    # 2.5 -> 2
    assert center_crop(columns, (4, 4))[0, :, 0].tolist() == [2, 3, 4, 5]


def test_center_crop_pads_a_smaller_image_with_black():
    cropped = center_crop(np.full((2, 3, 3), 9, np.uint8), (5, 4))
    assert (
        cropped.shape == (5, 4, 3)
        and (cropped[1:3, :3] == 9).all()
        and cropped.sum() == 2 * 3 * 3 * 9
    )


def test_normalize():
    image = noise()
    expected = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    result = normalize(image, 1 / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert result.dtype == np.float32 and np.abs(result - expected).max() < 1e-6
    assert result.transpose(2, 0, 1).flags["C_CONTIGUOUS"]


def test_evaluation_by_hand():
    image = Image.fromarray(noise(300, 401))
    # 342 wide: crop from column 59
    resized = np.asarray(image.resize((int(256 * 401 / 300), 256), Image.Resampling.BICUBIC))
    expected = (resized[16:240, 59:283] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    result = Preprocess(EVAL)(encoded(image))
    assert (
        result.shape == (3, 224, 224)
        and result.dtype == np.float32
        and result.flags["C_CONTIGUOUS"]
    )
    assert np.abs(result - expected.transpose(2, 0, 1)).max() < 1e-6
    # ToCHWImage is implied
    assert np.array_equal(result, Preprocess(EVAL[:-1])(encoded(image)))


def test_order_chw_normalises_channels_first():
    ops = [
        EVAL[0],
        {"ResizeImage": {"size": [8, 6], "backend": "pil"}},
        {"ToCHWImage": None},
        {"NormalizeImage": {"order": "chw"}},
    ]
    assert np.array_equal(
        Preprocess(ops)(encoded(Image.fromarray(noise()))),
        Preprocess([*ops[:2], {"NormalizeImage": {"order": "hwc"}}])(
            encoded(Image.fromarray(noise()))
        ),
    )


NORMALIZE = {"NormalizeImage": {"order": ""}}
FIRST = {"NormalizeImage": {"order": "chw"}}
MOVE = {"ToCHWImage": None}
CROP = {"CropImage": {"size": 8}}


@pytest.mark.parametrize(
    "steps, said",
    [
        ([NORMALIZE, MOVE], None),
        ([MOVE, FIRST], None),
        ([NORMALIZE], None),
        ([FIRST], "order must be '' before ToCHWImage"),
        ([{"NormalizeImage": None}, MOVE], "order must be '' before ToCHWImage"),
        ([MOVE, NORMALIZE], "order must be chw after ToCHWImage"),
        ([MOVE, CROP, FIRST], "CropImage must stand before ToCHWImage"),
        ([NORMALIZE, MOVE, MOVE], "ToCHWImage must stand before ToCHWImage"),
    ],
)
def test_transforms_agree_on_where_the_channels_are(steps, said):
    steps = [{"DecodeImage": None}, *steps]
    if said is None:
        assert Preprocess(steps)(encoded(Image.new("RGB", (9, 8)))).shape == (3, 8, 9)
        return
    with pytest.raises(ConfigError, match=said):
        Preprocess(steps)


def test_description_survives_yaml_and_means_the_same():
    described = yaml.safe_load(yaml.safe_dump(Preprocess(EVAL).describe()))
    assert (
        described[3]["NormalizeImage"]["scale"] == pytest.approx(1 / 255)
        and described[1]["ResizeImage"]["backend"] == "pil"
    )
    again = Preprocess(described)
    assert again.describe() == described
    data = encoded(Image.fromarray(noise(40, 30)))
    assert np.array_equal(again(data), Preprocess(EVAL)(data))


def test_preprocess_refuses_chance_and_unknown_names():
    with pytest.raises(ConfigError, match="RandFlipImage: not a transform of evaluation"):
        Preprocess([{"RandFlipImage": None}])
    with pytest.raises(ConfigError, match="Did you mean 'CropImage'"):
        Preprocess([{"CropImag": {"size": 3}}])
    with pytest.raises(ConfigError, match="DecodeImage must be the first"):
        Preprocess([{"CropImage": {"size": 3}}, {"DecodeImage": None}])
    with pytest.raises(ConfigError, match="either size or resize_short"):
        Preprocess([{"ResizeImage": {"backend": "pil"}}])


def test_limit_is_ours_not_pillows(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 47)
    with pytest.raises(ImageError, match="8 x 6 pixels are more than the limit of 47"):
        decode_image(encoded(Image.fromarray(noise())))


def test_a_strip_whose_longer_side_would_grow_beyond_measure_is_refused():
    with pytest.raises(
        ImageError,
        match="strip.png: ResizeImage: 256 x 1280000 pixels after resizing are more than the limit",
    ):
        Preprocess(EVAL)(encoded(Image.new("RGB", (1, 5000))), name="strip.png")
