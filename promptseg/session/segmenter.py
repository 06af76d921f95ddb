"""Segmenter: the one object most users need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from promptseg.adapters import Adapter, AdapterStack, read_adapter
from promptseg.backbones import load_backbone
from promptseg.backbones.base import Backbone
from promptseg.errors import WeightsError
from promptseg.inference.device import Precision, choose_device, choose_precision
from promptseg.inference.encoder import EmbeddingCache, Progress
from promptseg.predictor.examples import Lessons
from promptseg.predictor.runtime import CoarseLike, CorrectorLike, RankingLike, Runtime, StepLike
from promptseg.prompts.types import Prompt, PromptSet
from promptseg.propagation.stopping import StopLike
from promptseg.session.every_adapter import by_every_adapter
from promptseg.session.session import Session
from promptseg.volume import Segmentation, Volume

if TYPE_CHECKING:
    from promptseg.refine.corrector import Corrector
    from promptseg.text.proposal_scores import ImageText

AdapterLike: TypeAlias = "str | Path | Adapter"


class Segmenter:
    """A promptable network, ready to segment volumes.

    Args:
        backbone: Any object with `spec`, `encode` and `decode`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        batch_size: Slices encoded at once; halved when memory runs out.
        cache: Where embeddings are kept; memory only by default.
        text_model: Image-text model for words that no adapter knows, as `load_clip` gives it.
        corrector: Network that takes up corrective clicks in 3D before the graph cut, or its file;
            `auto` for the one that ships, which helps where much of a mask is wrong; None for the
            graph cut alone. Read when first needed.
        coarse: Network that looks at a whole target in 3D and says where it ends, or its file;
            `auto` for the one that ships, None to take what tracks through the slices find. Read
            when first needed.
        step: Network that goes from slice to slice in place of the model alone, or its file; `auto`
            for the one that ships, which belongs to the default model. Read when first needed.
        ranking: What says which of several masks a lone click or a box means, or its file; `auto`
            for the one that ships, which belongs to the default model, None to go by the quality
            that the network predicts. Read when first needed.

    Raises:
        WeightsError: If the backbone is none, such as the name of one.

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
        text_model: ImageText | None = None,
        corrector: CorrectorLike = None,
        coarse: CoarseLike = None,
        step: StepLike = None,
        ranking: RankingLike = None,
    ) -> None:
        if not isinstance(backbone, Backbone):
            raise WeightsError(
                f"backbone is {backbone!r}, with no spec, module, encode and decode: load a model "
                "by name or path with Segmenter.from_pretrained"
            )
        place = choose_device(device)
        chosen = choose_precision(precision, place)
        backbone.module.to(place).eval()
        self.runtime = Runtime(
            backbone,
            AdapterStack(backbone),
            place,
            chosen,
            batch_size,
            cache,
            text_model,
            corrector,
            coarse,
            step,
            ranking,
        )

    @property
    def lessons(self) -> Lessons:
        """The cases that `Session.learn` was told of."""
        return self.runtime.lessons

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "default",
        adapter: AdapterLike | Sequence[AdapterLike] | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 8,
        cache: EmbeddingCache | None = None,
        text_model: str | Path | ImageText | None = None,
        corrector: CorrectorLike = None,
        coarse: CoarseLike = "auto",
        step: StepLike = "auto",
        ranking: RankingLike = "auto",
    ) -> Segmenter:
        """Load a model of the registry, a checkpoint or a folder of transformers.

        Args:
            model: Name, file or folder; see `promptseg weights list`.
            adapter: LoRA adapter by name, folder or as read; or several, of which the first is
                in use until `segmenter.adapters.use(name)` switches.
            device: As in the constructor.
            precision: As in the constructor.
            batch_size: As in the constructor.
            cache: As in the constructor.
            text_model: As in the constructor, or the folder or `hf-hub:` name of one.
            corrector: As in the constructor.
            coarse: As in the constructor.
            step: As in the constructor.
            ranking: As in the constructor.

        Raises:
            WeightsError: If a model is unknown, missing, corrupt or unsafe.
            AdapterError: If the adapter is unknown or does not fit.
        """
        single = adapter is None or isinstance(adapter, (str, Path, Adapter))
        wanted: list[Any] = [adapter] if single else list(adapter)  # type: ignore[arg-type]
        held: list[Adapter] = [
            one if isinstance(one, Adapter) else read_adapter(one)
            for one in wanted
            if one is not None
        ]
        words = text_model
        if isinstance(words, (str, Path)):
            from promptseg.text.clip import load_clip

            words = load_clip(words, device=device)
        segmenter = cls(
            load_backbone(model), device, precision, batch_size, cache, words, corrector, coarse,
            step, ranking,
        )  # fmt: skip
        for one in held:
            segmenter.adapters.add(one)
        if held:
            segmenter.adapters.use(held[0].name)
        return segmenter

    def with_cache(self, cache: EmbeddingCache | None) -> Segmenter:
        """The same network and adapters with another cache of embeddings."""
        other = copy(self)
        other.runtime = replace(self.runtime, cache=cache)
        return other

    @property
    def backbone(self) -> Backbone:
        """The network."""
        return self.runtime.backbone

    @property
    def adapters(self) -> AdapterStack:
        """Adapters held by the network, at most one of them in use."""
        return self.runtime.adapters

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.runtime.device

    @property
    def precision(self) -> Precision:
        """`fp32`, `bf16` or `fp16`."""
        return self.runtime.precision

    @property
    def cache(self) -> EmbeddingCache | None:
        """Where embeddings are kept between sessions."""
        return self.runtime.cache

    @property
    def text_model(self) -> ImageText | None:
        """Image-text model for words that no adapter knows."""
        model: ImageText | None = self.runtime.text_model
        return model

    @property
    def corrector(self) -> Corrector | None:
        """What takes up corrective clicks in 3D before the graph cut, None for nothing.

        Raises:
            WeightsError: If its file is missing or damaged.
        """
        return self.runtime.corrector

    @property
    def organ(self) -> str | None:
        """What the active adapter is for, None without one."""
        active = self.adapters.active
        return None if active is None else active.info.organ

    def session(
        self,
        volume: Volume,
        axis: int | str = "auto",
        window: str | None = "auto",
        consistency: str = "auto",
        stop: StopLike = None,
    ) -> Session:
        """Start an interactive session on a volume; embeddings stay cached in it.

        Args:
            volume: 3D image.
            axis: As in `segment`.
            window: As in `segment`.
            consistency: As in `segment`.
            stop: As in `segment`.

        Raises:
            VolumeError: If the window is unknown, or `volume` is no Volume.
            PromptError: If the axis is unknown.
        """
        return Session(self, volume, axis, window, consistency, stop)

    def segment(
        self,
        volume: Volume,
        prompts: Iterable[Prompt] = (),
        axis: int | str = "auto",
        propagate: bool = True,
        window: str | None = "auto",
        uncertainty: bool = False,
        progress: Progress | None = None,
        consistency: str = "auto",
        stop: StopLike = None,
    ) -> Segmentation:
        """Segment what the prompts point at.

        Args:
            volume: 3D image.
            prompts: Points, boxes, scribbles, masks and words of one or several targets; with an
                adapter none at all asks for every label of it, and of all that are loaded. Words
                alone are looked for in the whole volume, by the adapter that knows them, loaded
                or installed; `result.report["text"]` says which, and why a target is empty.
            axis: Slice axis; `auto` is the axis of a flat prompt, else of the largest spacing.
            propagate: False answers the prompted slices only.
            window: `auto`, a name such as `lung`, or `WIDTH,LEVEL`.
            uncertainty: True to fill `result.uncertainty`, see `Session.uncertainty`.
            progress: Called with stage, done, total.
            consistency: How slices are made to agree: `none`; `clean` drops parts that hang
                together with no prompted slice; `auto` is what measures best: `clean` with the
                trained slice step and a look at the whole target with the coarse 3D view. For
                a model that has no step the shipped one goes from slice to slice, and the model
                is asked on each with what arrived there.
            stop: When a propagation stops: `auto`, `never`, or limits of
                `propagation.criteria.CRITERIA` by name, such as `{"growth": 3.0}` or `growth=3`.

        Returns:
            Labels on the volume's own grid; `score`, `uncertainty`, `report`.

        Raises:
            PromptError: If a prompt cannot be used; nothing was computed.
            VolumeError: If the window is unknown, or `volume` is no Volume.
        """
        began = perf_counter()
        given = PromptSet(prompts)
        if not given and len(self.adapters) > 1:

            def one() -> Segmentation:
                session = self.session(volume, axis, window, stop=stop)
                return session.answer(True, uncertainty, progress)

            return by_every_adapter(self.adapters, volume, one)
        session = self.session(volume, axis, window, consistency, stop)
        session.add(*given)
        result = session.answer(propagate, uncertainty, progress)
        timings = {**result.report["timings"], "total": perf_counter() - began}
        return replace(result, report={**result.report, "timings": timings})
