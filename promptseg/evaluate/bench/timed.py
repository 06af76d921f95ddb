"""A backbone that counts the seconds of its parts, and peak memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import torch

from promptseg.backbones.base import Backbone, BackboneSpec, Decoded, Embedding, PromptBatch
from promptseg.backbones.memory import Memory, MemoryBackbone, Recollection

T = TypeVar("T")


class Timed:
    """A backbone that counts the seconds of its parts.

    Args:
        backbone: What is timed.
        device: Where it computes.
        spec: What the engine is told of it; its own by default.
    """

    def __init__(
        self, backbone: Backbone, device: torch.device, spec: BackboneSpec | None = None
    ) -> None:
        self.spec, self.module = backbone.spec if spec is None else spec, backbone.module
        self._backbone, self._device = backbone, device
        self.seconds = {"encode": 0.0, "decode": 0.0}

    def shares(self, total: float) -> dict[str, float]:
        """Shares of `total` seconds that encoding, decoding and all the rest took."""
        parts = {part: spent / total for part, spent in self.seconds.items()}
        return parts | {"rest": 1 - sum(parts.values())}

    def encode(self, images: torch.Tensor) -> Embedding:
        """As the backbone's."""
        return self._timed("encode", lambda: self._backbone.encode(images))

    def decode(
        self,
        embedding: Embedding,
        prompts: PromptBatch,
        multimask: bool = False,
        concept: torch.Tensor | None = None,
    ) -> Decoded:
        """As the backbone's."""
        named = {} if concept is None else {"concept": concept}
        return self._timed(
            "decode", lambda: self._backbone.decode(embedding, prompts, multimask, **named)
        )

    def _timed(self, part: str, work: Callable[[], T]) -> T:
        self._synchronise()
        began = perf_counter()
        found = work()
        self._synchronise()
        self.seconds[part] += perf_counter() - began
        return found

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class TimedMemory(Timed):
    """The same of a backbone with a memory."""

    def __init__(
        self, backbone: MemoryBackbone, device: torch.device, spec: BackboneSpec | None = None
    ) -> None:
        super().__init__(backbone, device, spec)
        self.span, self._memory = backbone.span, backbone
        self.seconds["memory"] = 0.0

    def remember(
        self,
        embedding: Embedding,
        logits: torch.Tensor,
        presence: torch.Tensor,
        pointers: torch.Tensor | None = None,
        by_user: bool = False,
    ) -> Memory:
        """As the backbone's."""
        return self._timed(
            "memory",
            lambda: self._memory.remember(embedding, logits, presence, pointers, by_user),
        )

    def recall(self, embedding: Embedding, recollections: Sequence[Recollection]) -> Embedding:
        """As the backbone's."""
        return self._timed("memory", lambda: self._memory.recall(embedding, recollections))


def timed(backbone: Backbone, device: torch.device, spec: BackboneSpec | None = None) -> Timed:
    """A backbone that counts the seconds of its parts, with a memory if it has one."""
    if isinstance(backbone, MemoryBackbone):
        return TimedMemory(backbone, device, spec)
    return Timed(backbone, device, spec)


def forget_peak() -> None:
    """Let the peak start from what is held now, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def memory_mb(field: str = "VmHWM") -> float:
    """Memory in MiB of the GPU if one is used, else of this process.

    Args:
        field: `VmHWM` for the peak since `forget_peak`, `VmRSS` for what is held now. Without
            /proc both are the peak since the process began.
    """
    if torch.cuda.is_available():
        peak = field == "VmHWM"
        held = torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
        return held / 2**20
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) / 2**10 for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (2**20 if sys.platform == "darwin" else 2**10)
