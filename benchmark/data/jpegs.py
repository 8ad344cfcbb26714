"""One JPEG file: what of an image file is stored under the storage "jpeg", and its pixels.

A file that is a JPEG already, and that libjpeg turns into RGB by itself, is stored byte by byte as it is: encoding it again
would cost quality and change every pixel. Anything else (PNG and the like, CMYK, a shorter side above the limit) is decoded,
resized and encoded. EXIF orientation is ignored, as torchvision's ImageFolder ignores it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.data import imagefiles
from benchmark.errors import InputError

_LARGEST = 65_535  # pixels: the largest side of a JPEG


@dataclass(frozen=True)
class Stored:
    """`data` is a JPEG file, `pixels` u1 (H, W, 3) what it decodes to; reencoded: it is not the source file itself."""

    data: bytes
    pixels: NDArray[np.uint8]
    reencoded: bool


def decode_jpeg(
    data: NDArray[np.uint8], into: NDArray[np.uint8] | None = None, intact: Callable[[], bool] = lambda: True
) -> NDArray[np.uint8]:
    """RGB pixels u1 (H, W, 3) of the JPEG file `data` u1 (size,), if possible in the memory `into` u1 (H * W * 3,).

    intact: whether these are the bytes that were once found to be good; asked only where simplejpeg does not vouch for them.
    ValueError says why there are none.

    The interpreter's lock is released meanwhile. Where simplejpeg is not installed, and where it refuses a file, Pillow
    decodes: more slowly, but to the same pixels bit by bit (both are libjpeg-turbo's). simplejpeg takes every warning of
    libjpeg's for an error, such as stray bytes before the end marker, which Pillow lives with. It lives with some damage
    too, and so decodes nothing that has changed since.
    """
    try:
        import simplejpeg

        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, buffer=into)
    except (ImportError, ValueError):
        if not intact():
            raise ValueError("its bytes have changed since it was converted") from None
        return _decode_with_pillow(data)
    return pixels


def _decode_with_pillow(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        return np.array(Image.open(io.BytesIO(data.tobytes()), formats=["JPEG", "MPO"]).convert("RGB"))
    except Exception as error:  # Pillow's decoders raise a dozen types
        raise ValueError(str(error)) from None


def encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """A JPEG file of RGB pixels u1 (H, W, 3), with full colour resolution (4:4:4).

    Halving the colours' resolution, as most files do, would blur them a second time where the source was a JPEG.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def store(name: str, data: bytes, limit: int, quality: int) -> Stored:
    """What is stored of the image file `data`: itself, or where it is no plain JPEG within the limit its pixels encoded.

    limit: of its shorter side in pixels, 0 for none. The image is decoded in any case: InputError names a file that cannot be.
    """
    if _is_plain(data, limit):
        try:
            return Stored(data, decode_jpeg(np.frombuffer(data, np.uint8)), False)
        except ValueError as error:
            raise InputError(imagefiles.UNDECODABLE.format(name, error)) from None
    pixels = imagefiles.pixels(name, data)
    if max(pixels.shape) > _LARGEST:
        sides = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise InputError(f"{name} is {sides} pixels, a JPEG has at most {_LARGEST} a side; make it smaller")
    return from_pixels(pixels, limit, quality)


def from_pixels(pixels: NDArray[np.uint8], limit: int, quality: int) -> Stored:
    """RGB pixels u1 (H, W, 3), resized to the limit (antialiased bilinear) and encoded."""
    height, width = pixels.shape[:2]
    if limit and min(height, width) > limit:
        scale = limit / min(height, width)
        pixels = imagefiles.resize(pixels, *(max(limit, round(length * scale)) for length in (height, width)))
    encoded = encode_jpeg(np.ascontiguousarray(pixels), quality)
    return Stored(encoded, decode_jpeg(np.frombuffer(encoded, np.uint8)), True)


def _is_plain(data: bytes, limit: int) -> bool:
    """Whether the file is a JPEG of RGB or grey pixels (also a camera's MPO, which starts with one) within the limit."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data))  # reads the header alone
        return image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L") and not (limit and min(image.size) > limit)
    except Exception:  # whatever is wrong with it: decoding it as any image file names it
        return False
