import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from transformers.image_transforms import convert_to_rgb

from linrep.sample import IMAGE_FORMATS
from linrep.vlm.image import BadImage, decode, to_rgb


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def some_image(mode):
    array = np.random.default_rng(0).integers(0, 256, (12, 9, 4), dtype=np.uint8)
    return Image.fromarray(array).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "CMYK", "YCbCr", "LAB", "HSV", "RGBA", "LA", "P", "PA"])
def test_rgb_of_every_mode_is_transformers_own(mode):
    image = some_image("P").convert("PA") if mode == "PA" else some_image(mode)
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), convert_to_rgb(image, return_numpy=True))


def test_transparent_becomes_white():
    assert to_rgb(Image.new("RGBA", (1, 1), (10, 20, 30, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("LA", (1, 1), (10, 0))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([1, 2, 3])
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_premultiplied_modes(mode):
    image = Image.new("RGBA" if mode == "RGBa" else "LA", (1, 1), (100, 100, 100, 255) if mode == "RGBa" else (100, 255)).convert(
        mode
    )
    assert to_rgb(image).getpixel((0, 0)) == (100, 100, 100)


def test_sixteen_bits_keep_their_upper_half():
    deep = np.array([[0, 0x1234, 0x80FF, 0xFFFF]], np.uint16)
    image = decode(encoded(Image.fromarray(deep)))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0x12, 0x80, 0xFF]


def test_wide_integers_and_floats():
    assert np.asarray(to_rgb(Image.fromarray(np.array([[0, 200]], np.int32))))[0, :, 0].tolist() == [0, 200]
    assert np.asarray(to_rgb(Image.fromarray(np.array([[0, 65535]], np.int32))))[0, :, 0].tolist() == [0, 255]
    assert np.asarray(to_rgb(Image.fromarray(np.array([[0, 0.5, 1]], np.float32))))[0, :, 0].tolist() == [0, 127, 255]
    assert np.asarray(to_rgb(Image.fromarray(np.array([[np.nan, 300.0, -5]], np.float32))))[0, :, 0].tolist() == [0, 255, 0]


def test_the_cameras_orientation_is_applied():
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    upright = decode(encoded(image, "PNG", exif=exif))
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 0, 0)


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no image bytes"),
        (b"hello, I am a text file", "not an image"),
        (b"<html>404</html>", "not an image"),
        (encoded(some_image("RGB"), "JPEG")[:20], "not an image|corrupt"),
        (encoded(Image.effect_noise((200, 200), 50), "JPEG")[:-3000], "corrupt or truncated"),
        (encoded(some_image("RGB"))[:-40], "corrupt or truncated"),
        (png_header(100_000, 100_000), "too large"),
        (png_header(12_000, 12_000), "too large"),
        (b"P6 0 0 255\n", "not an image|corrupt|of 0x0"),
        (b"GIF89a\x00\x00\x00\x00\x00\x00\x00;", "not an image|corrupt|of 0x0"),
    ],
)
def test_bad_images_say_why(data, reason):
    with pytest.raises(BadImage, match=reason):
        decode(data)


def test_broken_in_any_byte_never_raises_anything_else():
    """A fuzz: whatever Pillow's decoders trip over becomes a BadImage."""
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = encoded(some_image("RGB"), kind)
        for _ in range(40):
            broken = bytearray(whole)
            for at in rng.integers(0, len(whole), 4):
                broken[at] = rng.integers(0, 256)
            with contextlib.suppress(BadImage):
                assert decode(bytes(broken)).mode == "RGB"


DECODED = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"), "WEBP": ("RGB", "RGBA"), "BMP": ("RGB", "L", "P", "1"),
    "GIF": ("P", "L"), "TIFF": ("RGB", "RGBA", "L", "CMYK", "1", "I;16", "F"), "AVIF": ("RGB", "RGBA"),
}  # fmt: skip
OTHERS = (
    "EPS",
    "PPM",
    "TGA",
    "ICO",
    "PCX",
    "SGI",
    "DDS",
    "JPEG2000",
    "IM",
    "MSP",
    "SPIDER",
    "XBM",
    "PDF",
    "ICNS",
    "BLP",
    "DIB",
    "QOI",
)


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in DECODED.items() for mode in modes])
def test_every_format_that_is_named_is_decoded_in_every_mode_it_has(kind, mode):
    image = (
        some_image("L").convert("I").convert("I;16") if mode == "I;16" else some_image("L" if mode == "F" else mode).convert(mode)
    )
    decoded = decode(encoded(image, kind))
    assert (decoded.mode, decoded.size) == ("RGB", (9, 12))


def test_the_formats_that_are_decoded_are_those_of_the_list():
    assert set(DECODED) == set(IMAGE_FORMATS)


@pytest.mark.parametrize("kind", OTHERS)
def test_no_other_format_is_decoded_whatever_the_file_is_called(kind):
    image = some_image({"MSP": "1", "XBM": "1", "SPIDER": "F", "BLP": "P", "ICNS": "RGBA"}.get(kind, "RGB")).resize((16, 16))
    with pytest.raises(BadImage, match="not an image of JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF"):
        decode(encoded(image, kind))


def test_no_program_is_started_for_any_bytes(monkeypatch):
    def started(*args, **kwargs):
        raise AssertionError(f"a program is started: {args}")

    for name in (
        "subprocess.Popen",
        "subprocess.run",
        "subprocess.call",
        "subprocess.check_call",
        "subprocess.check_output",
        "os.system",
    ):
        monkeypatch.setattr(name, started)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    for data in (
        postscript,
        b"\xc5\xd0\xd3\xc6" + postscript,
        b"%PDF-1.4\n",
        b"\xd7\xcd\xc6\x9a" + bytes(100),
        b"\x01\0\0\0" + bytes(100),
    ):
        with pytest.raises(BadImage, match="not an image"):
            decode(data)


def test_of_several_frames_the_first_counts():
    frames = [Image.new("RGB", (4, 4), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for kind, options in (("GIF", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("AVIF", {"quality": 100})):
        decoded = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
        assert np.abs(np.asarray(decoded, int) - [255, 0, 0]).max() <= 3, kind


def test_a_cameras_pair_of_images_is_its_first_one():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(
        buffer, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), (0, 0, 255))]
    )
    assert decode(buffer.getvalue()).getpixel((4, 4))[0] > 250


def test_cut_short_anywhere_every_format_is_refused_or_whole():
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"):
        data = encoded(Image.effect_noise((40, 40), 60).convert("RGB"), kind)
        right = np.asarray(decode(data))
        for cut in np.linspace(1, len(data) - 1, 12).astype(int):
            try:
                got = np.asarray(decode(data[:cut]))
            except BadImage:
                continue
            np.testing.assert_array_equal(got, right, err_msg=f"{kind} cut at {cut} of {len(data)}")
