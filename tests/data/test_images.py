"""Pictures: what is decoded, to which pixels, and what is refused."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_drop import png
from PIL import Image

from adapt_inf.data.images import decode_image, image_size, pixel_hash
from adapt_inf.data.samples import BadSample

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
LARGE = 10_000


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def refused(data: bytes, max_pixels: int = LARGE) -> BadSample:
    with pytest.raises(BadSample) as caught:
        decode_image(data, max_pixels)
    return caught.value


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_pictures_come_back_pixel_by_pixel(form: str, options: dict[str, Any]) -> None:
    image = decode_image(encode(Image.fromarray(PIXELS), form, **options), LARGE)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), PIXELS)


def test_jpeg_is_taken() -> None:
    assert decode_image(encode(Image.fromarray(PIXELS), "JPEG"), LARGE).size == (9, 6)


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "ICO", "PPM"])
def test_other_formats_are_refused(form: str) -> None:
    assert refused(encode(Image.fromarray(PIXELS), form)).kind == "image"


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", png(PIXELS)[:-40], png(PIXELS)[:50]])
def test_broken_pictures_are_refused(data: bytes) -> None:
    assert refused(data).kind == "image"


def test_a_picture_over_the_cap_is_refused_undecoded() -> None:
    error = refused(png(PIXELS), max_pixels=6 * 9 - 1)
    assert error.kind == "pixels"
    assert "9 x 6" in error.reason
    assert decode_image(png(PIXELS), max_pixels=6 * 9).size == (9, 6)


def test_a_bomb_is_refused() -> None:
    header = bytearray(png(PIXELS))
    header[16:24] = (100_000).to_bytes(4, "big") * 2  # ten billion pixels, says the header
    crc = zlib.crc32(bytes(header[12:29]))
    header[29:33] = crc.to_bytes(4, "big")
    assert refused(bytes(header), max_pixels=50_000_000).kind == "pixels"


def test_transparent_is_white() -> None:
    clear = np.zeros((2, 2, 4), dtype=np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    seen = np.asarray(decode_image(png(clear), LARGE))
    assert seen[0, 0].tolist() == [10, 20, 30]
    assert seen[1, 1].tolist() == [255, 255, 255]


def test_sixteen_bit_grey_is_scaled() -> None:
    grey = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    assert np.asarray(decode_image(encode(Image.fromarray(grey), "PNG"), LARGE))[0, :, 0].tolist() == [0, 100, 255]


def test_pictures_stand_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    assert decode_image(encode(Image.fromarray(PIXELS), "PNG", exif=exif), LARGE).size == (6, 9)


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_a_picture_that_moves_is_refused(form: str) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    error = refused(encode(frames[0], form, save_all=True, append_images=frames[1:]))
    assert (error.kind, "animated" in error.reason) == ("image", True)


def test_a_cameras_picture_with_a_preview_is_its_first() -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode_image(data, LARGE), decode_image(encode(frames[0], "JPEG"), LARGE))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_the_size_in_the_header_is_that_of_the_picture(form: str, orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    data = encode(Image.fromarray(PIXELS), form, exif=exif)
    assert image_size(data) == decode_image(data, LARGE).size


def test_the_hash_is_of_pixels_not_of_files() -> None:
    image = Image.fromarray(PIXELS)
    files = [encode(image, "PNG", compress_level=0), encode(image, "PNG"), encode(image, "WEBP", lossless=True)]
    assert len(set(files)) == 3
    assert len({pixel_hash(decode_image(data, LARGE)) for data in files}) == 1


def test_the_hash_tells_shapes_and_pixels_apart() -> None:
    other = PIXELS.copy()
    other[0, 0, 0] ^= 1
    images = [Image.fromarray(p) for p in (PIXELS, other, PIXELS.reshape(9, 6, 3))]
    assert len({pixel_hash(image) for image in images}) == 3


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_no_damage_escapes_as_another_error(form: str, data: st.DataObject) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = bytearray(encode(Image.fromarray(PIXELS), form, exif=exif))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    with suppress(BadSample):
        assert decode_image(cut, LARGE).mode == "RGB"
