"""2D pictures (.png, .jpg) as volumes of one slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from promptseg.errors import FormatError
from promptseg.volume import Volume

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_LOSSY = (".jpg", ".jpeg")


def read_picture(path: Path) -> Volume:
    """Grey values of a picture as (rows, columns, 1) with unit spacing; colours become luminance.

    Raises:
        FormatError: The file is missing, damaged or no picture.
    """
    pixels = _open(path, colours=False)
    return Volume(pixels[..., None], np.eye(4), source=path)


def read_label_picture(path: Path) -> Volume:
    """Labels of a picture as (rows, columns, 1): its grey values or its palette's indices.

    Raises:
        FormatError: As `read_picture`; also for JPEG, which changes labels, and for colours.
    """
    if path.suffix.lower() in _LOSSY:
        raise FormatError(f"{path}: JPEG does not keep labels exactly: save them as PNG")
    return Volume(_open(path, colours=True)[..., None], np.eye(4), source=path)


def _open(path: Path, colours: bool) -> np.ndarray:
    """(H, W) pixels; with `colours` a colour picture must hold three equal channels."""
    try:
        with Image.open(path) as picture:
            grey = colours or picture.mode in ("L", "1", "I", "F", "I;16")
            pixels = np.array(picture if grey else picture.convert("L"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise FormatError(f"{path}: cannot be read as a picture: {error}") from error
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] >= 3 and np.all(pixels[..., :3] == pixels[..., :1]):
        return pixels[..., 0]
    raise FormatError(f"{path}: labels are colours: save them as grey values or with a palette")
