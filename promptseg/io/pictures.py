"""PNG, JPEG, TIFF and BMP pictures as one slice; the pages of a TIFF as the slices of a volume."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image as Pictures
from PIL import ImageSequence, UnidentifiedImageError

from promptseg.errors import FormatError, VolumeError
from promptseg.io.atomic import atomic_path
from promptseg.io.image import DEFAULT_MAX_BYTES, Image

SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
LOSSY = (".jpg", ".jpeg")
_TIFF = (".tif", ".tiff")
_GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_MOST_OF_16_BITS = 65535


def read(path: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES) -> Image:
    """Read grey values as (rows, columns, pages), one millimetre a pixel.

    Colours become luminance, with a note.

    Args:
        path: The picture.
        max_bytes: Refuse a picture that needs more memory than this.

    Raises:
        FormatError: The file is missing, damaged or no picture.
        VolumeError: It is too large, or its pages differ in size.
    """
    pages, coloured = _pages(Path(path), False, max_bytes)
    notes = ["a picture has no spacing: 1 mm a pixel is taken"]
    if len(pages) > 1:
        notes.append(f"{len(pages)} pages: taken as slices 1 mm apart")
    if coloured:
        notes.append("the picture has colours: their luminance is taken")
    return Image(_stacked(path, pages), np.eye(4), notes=tuple(notes))


def read_labels(path: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES) -> Image:
    """Read labels: grey values, or the indices of a palette.

    Raises:
        FormatError: As `read`; also for JPEG, which changes labels, and for colours.
    """
    if Path(path).suffix.lower() in LOSSY:
        raise FormatError(f"{path}: JPEG does not keep labels exactly: save them as PNG")
    pages, coloured = _pages(Path(path), True, max_bytes)
    if coloured:
        raise FormatError(f"{path}: labels are colours: save them as grey values or with a palette")
    return Image(_stacked(path, pages), np.eye(4))


def write(image: Image, path: str | os.PathLike[str]) -> None:
    """Write one slice as a picture: whole numbers of 8 or 16 bits, in TIFF any.

    Raises:
        FormatError: There are several slices, the values do not fit, or it cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    flat = [axis for axis in range(3) if image.data.shape[axis] == 1]
    if not flat:
        raise FormatError(f"{path}: a picture holds one slice, this has shape {image.data.shape}: "
                          "end the name in .nii.gz")  # fmt: skip
    pixels = _fitted(path, np.squeeze(image.data, axis=flat[-1]), kind)
    try:
        with atomic_path(path) as temporary:
            Pictures.fromarray(pixels).save(temporary)
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error


def _fitted(path: Path, pixels: np.ndarray, kind: str) -> np.ndarray:
    """Pixels in a type that the kind of picture holds."""
    if pixels.dtype.kind == "f" and kind in _TIFF:
        return pixels.astype(np.float32)
    low, high = float(pixels.min()), float(pixels.max())
    most = 255 if kind == ".bmp" else _MOST_OF_16_BITS
    if pixels.dtype.kind == "f" or low < 0 or high > most:
        raise FormatError(
            f"{path}: values from {low:g} to {high:g} do not fit into {kind[1:]}, which holds "
            f"whole numbers from 0 to {most}: end the name in .nii.gz"
        )
    return pixels.astype(np.uint8 if high <= 255 else np.uint16)


def _pages(path: Path, indices: bool, max_bytes: int) -> tuple[list[np.ndarray], bool]:
    """(H, W) pixels of each page, and True if there were colours."""
    if not os.path.exists(path):
        raise FormatError(f"{path}: no such file")
    try:
        with Pictures.open(path) as picture:
            count = getattr(picture, "n_frames", 1)
            needed = 4 * picture.size[0] * picture.size[1] * count
            if needed > max_bytes:
                raise VolumeError(
                    f"{path}: needs {needed} bytes, the limit is {max_bytes}: crop it"
                )
            found = [_grey(page, indices) for page in ImageSequence.Iterator(picture)]
    except UnidentifiedImageError as error:
        raise FormatError(f"{path}: no picture, or damaged: open and save it again") from error
    except (OSError, SyntaxError, Pictures.DecompressionBombError) as error:
        raise FormatError(f"{path}: cannot be read as a picture: {error}") from error
    return [pixels for pixels, _ in found], any(coloured for _, coloured in found)


def _grey(page: Pictures.Image, indices: bool) -> tuple[np.ndarray, bool]:
    """(H, W) pixels, and True if they are the luminance of colours."""
    if page.mode in _GREY or (indices and page.mode == "P"):
        return np.array(page), False
    pixels = np.array(page.convert("RGB"))
    if np.all(pixels == pixels[..., :1]):
        return pixels[..., 0], False
    return np.array(page.convert("L")), True


def _stacked(path: str | os.PathLike[str], pages: list[np.ndarray]) -> np.ndarray:
    sizes = {page.shape for page in pages}
    if len(sizes) > 1:
        raise VolumeError(f"{path}: its pages differ in size: {sorted(sizes)}: save them apart")
    return np.stack(pages, axis=-1)
