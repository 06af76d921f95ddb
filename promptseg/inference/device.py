"""Where and how precisely to compute: devices, mixed precision, memory that runs out."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, TypeVar

import torch

from promptseg.errors import PromptsegError

logger = logging.getLogger(__name__)
Found = TypeVar("Found")
Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(device: str = "auto") -> torch.device:
    """`auto` is the first GPU if there is one, else the CPU.

    Raises:
        PromptsegError: If the device is unknown or not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(str(device))
    except RuntimeError as error:
        raise PromptsegError(f"device {device!r} is unknown: use auto, cpu or cuda") from error
    if chosen.type not in ("cpu", "cuda"):
        raise PromptsegError(f"device {device!r} is unknown: use auto, cpu or cuda")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise PromptsegError(f"device {device!r} is not there: torch finds no GPU; use cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise PromptsegError(f"device {device!r} is not there: torch finds {count}; use cuda")
    return chosen


def choose_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """`auto` is the fastest that the device computes natively.

    bfloat16 on CPUs with bfloat16 instructions and on GPUs that have it, float16 on older GPUs,
    float32 otherwise.

    Raises:
        PromptsegError: If the precision is unknown.
    """
    if precision in ("fp32", "bf16", "fp16"):
        return precision
    if precision != "auto":
        raise PromptsegError(f"precision {precision!r} is unknown: use auto, fp32, bf16 or fp16")
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if device.type == "cpu" and cpu_computes_bfloat16() else "fp32"


def cpu_computes_bfloat16() -> bool:
    """True if this CPU has bfloat16 matrix instructions; read from the system, not timed."""
    if platform.system() != "Linux":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="ignore")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Mixed precision for `device`; nothing for `fp32`."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def out_of_memory(error: BaseException) -> bool:
    """True for what torch and numpy raise when an allocation fails, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def halved_until_it_fits(
    size: int,
    compute: Callable[[int], Found],
    what: str,
    device: torch.device,
    advice: str = "use a smaller model or the CPU",
) -> tuple[Found, int]:
    """What `compute` gives of the greatest size that fits into memory, and that size.

    Args:
        size: How many are tried first, halved for as long as an allocation fails.
        compute: Given how many.
        what: One of them, for messages.
        device: Where it computes; freed in between.
        advice: What to do where a single one does not fit.

    Raises:
        PromptsegError: A single one does not fit.
    """
    while True:
        try:
            return compute(size), size
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise PromptsegError(f"one {what} does not fit into memory: {advice}") from error
            size //= 2
            logger.warning("out of memory: going on with batches of %d (%s)", size, what)
            if device.type == "cuda":
                torch.cuda.empty_cache()
