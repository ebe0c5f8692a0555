"""A moving scene that is as hard to compress as a real one; each image has a number."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 1280, 720
_BITS = 16
_STRIP = HEIGHT // 12


def scene(count: int, *, moving: bool) -> list[NDArray[np.uint8]]:
    """Return images of shape (720, 1280, 3), each shifted a little further, or all the same."""
    dice = np.random.default_rng(7)
    rows, columns = np.mgrid[0:HEIGHT, 0 : WIDTH * 2]
    light = 110 + 60 * np.sin(rows / 90) + 40 * np.cos(columns / 140 + rows / 200)
    # Blobs of several pixels, and a little sensor noise.
    grain = np.kron(dice.normal(0, 16, (HEIGHT // 8, WIDTH // 4)), np.ones((8, 8)))
    light = light + grain + dice.normal(0, 4, light.shape)
    tints = np.stack([light, light * 0.9 + 12, light * 0.8 + 30], axis=2)
    wide = np.clip(tints, 0, 255).astype(np.uint8)
    found = []
    for index in range(count):
        shift = index * 12 % WIDTH if moving else 0
        pixels = np.ascontiguousarray(wide[:, shift : shift + WIDTH])
        stamp(pixels, 1)
        found.append(pixels)
    return found


def stamp(pixels: NDArray[np.uint8], number: int) -> None:
    """Write a number of 16 bits into an image, as stripes."""
    size = WIDTH // _BITS
    for bit in range(_BITS):
        pixels[:_STRIP, bit * size : (bit + 1) * size] = 255 * (number >> bit & 1)


def image_number(jpeg: bytes) -> int:
    """Return the number of an image of any size."""
    from PIL import Image

    image = Image.open(io.BytesIO(jpeg)).convert("L")
    size, row = image.width / _BITS, image.height * _STRIP // HEIGHT // 2
    shades = [image.getpixel((int((bit + 0.5) * size), row)) for bit in range(_BITS)]
    return sum((shade > 127) << bit for bit, shade in enumerate(shades))
