"""Bytes to arrays and back, one module a format; knows no volume."""

from promptseg.io.formats import (
    FORMATS,
    Format,
    check_writable,
    format_of,
    holds_dicom,
    read_image,
    writable,
    write_image,
)
from promptseg.io.image import DEFAULT_MAX_BYTES, Image
from promptseg.io.labels import labels_on

__all__ = [
    "DEFAULT_MAX_BYTES",
    "FORMATS",
    "Format",
    "Image",
    "check_writable",
    "format_of",
    "holds_dicom",
    "labels_on",
    "read_image",
    "writable",
    "write_image",
]
