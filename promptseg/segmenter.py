"""Segmenter: the one object most users need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from promptseg.backbones import load_backbone
from promptseg.backbones.base import Backbone
from promptseg.embeddings import (
    EmbeddingCache,
    Precision,
    Progress,
    choose_device,
    choose_precision,
)
from promptseg.errors import AdapterError
from promptseg.prompts import Prompt, PromptSet
from promptseg.volume import Segmentation, Volume

if TYPE_CHECKING:
    from promptseg.session import Session


class Segmenter:
    """A promptable network, ready to segment volumes.

    Args:
        backbone: Any object with `spec`, `encode` and `decode`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        batch_size: Slices encoded at once; halved when memory runs out.
        cache: Where embeddings are kept; memory only by default.

    Example:
        >>> import promptseg as ps
        >>> volume = ps.read("ct.nii.gz")                                    # doctest: +SKIP
        >>> seg = ps.Segmenter.from_pretrained("default")                    # doctest: +SKIP
        >>> result = seg.segment(volume, [ps.Box((60, 72, 44), (95, 110, 45))])  # doctest: +SKIP
        >>> result.save("mask.nii.gz")                                       # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: Backbone,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 8,
        cache: EmbeddingCache | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.backbone = backbone
        self.backbone.module.to(self.device).eval()
        self.batch_size = batch_size
        self.cache = cache

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "default",
        adapter: str | Path | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 8,
        cache: EmbeddingCache | None = None,
    ) -> Segmenter:
        """Load a model of the registry, a checkpoint or a folder of transformers.

        Args:
            model: Name, file or folder; see `promptseg weights list`.
            adapter: LoRA adapter by name or folder.
            device: As in the constructor.
            precision: As in the constructor.
            batch_size: As in the constructor.
            cache: As in the constructor.

        Raises:
            WeightsError: If the model is unknown, missing, corrupt or unsafe.
            AdapterError: If the adapter is unknown or does not fit.
        """
        if adapter is not None:
            raise AdapterError(f"adapter {str(adapter)!r} is unknown: no adapter is installed")
        return cls(load_backbone(model), device, precision, batch_size, cache)

    def session(
        self, volume: Volume, axis: int | str = "auto", window: str | None = "auto"
    ) -> Session:
        """Start an interactive session on a volume; embeddings stay cached in it."""
        from promptseg.session import Session

        return Session(self, volume, axis, window)

    def segment(
        self,
        volume: Volume,
        prompts: Iterable[Prompt],
        axis: int | str = "auto",
        propagate: bool = True,
        window: str | None = "auto",
        uncertainty: bool = False,
        progress: Progress | None = None,
    ) -> Segmentation:
        """Segment what the prompts point at.

        Args:
            volume: 3D image.
            prompts: Points, boxes, scribbles and masks of one or several targets.
            axis: Slice axis; `auto` is the axis of a flat prompt, else of the largest spacing.
            propagate: False answers the prompted slices only.
            window: `auto`, a name such as `lung`, or `WIDTH,LEVEL`.
            uncertainty: True to fill `result.uncertainty`.
            progress: Called with stage, done, total.

        Returns:
            Labels on the volume's own grid; `score`, `uncertainty`, `report`.

        Raises:
            PromptError: If a prompt cannot be used; nothing was computed.
            VolumeError: If the window is unknown.
        """
        began = perf_counter()
        session = self.session(volume, axis, window)
        session.add(*PromptSet(prompts))
        result = session.answer(propagate, uncertainty, progress)
        timings = {**result.report["timings"], "total": perf_counter() - began}
        return replace(result, report={**result.report, "timings": timings})
