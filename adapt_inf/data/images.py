"""Pictures from outside: decoded only if they are JPEG, PNG or WebP and not too large; told apart by their pixels.

A picture is what a person sees: turned as its EXIF data says, in RGB, transparency laid on white. Two files with the
same pixels are the same picture, whatever their encoding. One that moves is no picture.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

from PIL import ExifTags, Image, ImageOps

from adapt_inf.data.samples import BadSample

FORMATS = ("JPEG", "PNG", "WEBP")

# What Pillow raises on bytes that are no picture or a broken one, depending on the decoder that stumbles.
_UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """Decode one picture to RGB.

    Args:
        data: an encoded JPEG, PNG or WebP.
        max_pixels: largest width x height; checked before any pixel is decoded.

    Raises:
        BadSample: kind `image` (another format, animated, truncated, broken) or `pixels` (too large).
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise BadSample("pixels", f"the image has {image.width} x {image.height} pixels, over {max_pixels}")
            # Not the JPEG of a camera with a preview in it, whose first picture is the one that is meant.
            if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
                raise BadSample("image", "the image is animated: save the frame that is meant")
            image.load()
            return _as_seen(image)
    except Image.DecompressionBombError:
        raise BadSample("pixels", f"the image has over {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels") from None
    except Image.UnidentifiedImageError:
        raise BadSample("image", "the image is no JPEG, PNG or WebP") from None
    except _UNDECODABLE as error:
        raise BadSample("image", f"the image cannot be decoded ({_first_line(error)})") from None


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) of the picture that `decode_image` gives, from its header alone: some 20 times as fast.

    Args:
        data: an encoded JPEG, PNG or WebP that was decoded once before.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if sideways else (image.width, image.height)


def pixel_hash(image: Image.Image) -> str:
    """32 hex digits (128 bits of SHA-256) over the size and RGB pixels of a decoded picture."""
    digest = hashlib.sha256(f"{image.width}x{image.height}\0".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()[:32]


def _as_seen(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16-bit grey: Pillow would clip to 255 instead of scaling
        upright = upright.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return upright.convert("RGB")


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:120] if lines else type(error).__name__
