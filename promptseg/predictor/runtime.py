"""What every answer is computed with: network, adapters, device, precision, cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

import torch

from promptseg.adapters import AdapterStack
from promptseg.backbones.base import Backbone
from promptseg.errors import WeightsError
from promptseg.inference.encoder import EmbeddingCache
from promptseg.predictor.examples import Lessons

if TYPE_CHECKING:
    from typing_extensions import Self

    from promptseg.inference.ranking import MaskRanking
    from promptseg.propagation.coarse import CoarseView
    from promptseg.propagation.slice_step import SliceStep
    from promptseg.refine.corrector import Corrector

CoarseLike: TypeAlias = "str | Path | CoarseView | None"
CorrectorLike: TypeAlias = "str | Path | Corrector | None"
StepLike: TypeAlias = "str | Path | SliceStep | None"
RankingLike: TypeAlias = "str | Path | MaskRanking | None"


class Movable(Protocol):
    """What can be taken to a device."""

    def to(self, device: torch.device) -> Self:
        """The same there."""
        ...


class Trained(Protocol):
    """What belongs to the model that it was trained on."""

    base: str | None


@dataclass(frozen=True)
class Lent:
    """A network and its slice step, which propagate for another network."""

    backbone: Backbone
    step: SliceStep


Held = TypeVar("Held", bound=Movable)
Belonging = TypeVar("Belonging", bound=Trained)


@dataclass(frozen=True, eq=False)
class Runtime:
    """A network ready to answer; it never changes, but for the adapter that is in use.

    Args:
        backbone: On its device, in evaluation mode.
        adapters: Of the backbone.
        device: Where to compute.
        precision: `fp32`, `bf16` or `fp16`.
        batch_size: Slices encoded at once; halved when memory runs out.
        cache: Where embeddings are kept; memory only by default.
        text_model: Image-text model (`promptseg.text.proposal_scores.ImageText`) or None.
        corrector_source: What takes up corrective clicks in 3D before the graph cut, its file,
            `auto` for the one that ships, or None.
        coarse_source: What looks at whole targets in 3D, likewise.
        step_source: What goes from slice to slice, likewise; it belongs to one model.
        ranking_source: What says which mask a click or a box means, likewise.
    """

    backbone: Backbone
    adapters: AdapterStack
    device: torch.device
    precision: Literal["fp32", "bf16", "fp16"]
    batch_size: int = 8
    cache: EmbeddingCache | None = None
    text_model: Any = None
    corrector_source: CorrectorLike = None
    coarse_source: CoarseLike = None
    step_source: StepLike = None
    ranking_source: RankingLike = None

    @property
    def crop_factor(self) -> float | None:
        """What the adapter in use was trained with, else the network; None where neither says."""
        active = self.adapters.active
        own = None if active is None else active.info.crop_factor
        return self.backbone.spec.crop_factor if own is None else own

    @cached_property
    def lessons(self) -> Lessons:
        """The cases that were accepted in this sitting."""
        return Lessons()

    @cached_property
    def corrector(self) -> Corrector | None:
        """What takes up corrective clicks in 3D before the graph cut, None for nothing.

        Raises:
            WeightsError: If its file is missing or damaged.
        """
        from promptseg.refine.corrector import load_corrector

        return self._loaded(self.corrector_source, load_corrector)

    @cached_property
    def coarse(self) -> CoarseView | None:
        """What looks at whole targets in 3D, None for nothing.

        Raises:
            WeightsError: If its file is missing or damaged.
        """
        from promptseg.propagation.coarse import load_coarse

        return self._loaded(self.coarse_source, load_coarse)

    @cached_property
    def step(self) -> SliceStep | None:
        """What goes from slice to slice, None for nothing; `auto` is none for other models.

        Raises:
            WeightsError: If its file is missing or damaged, or belongs to another model.
        """
        from promptseg.propagation.slice_step import load_step

        return self._own(self.step_source, self._loaded(self.step_source, load_step))

    @cached_property
    def lent(self) -> Lent | None:
        """What propagates for a network that has neither a memory nor a step of its own.

        Raises:
            WeightsError: If a file is missing or damaged.
        """
        if self.step_source != "auto" or self.step is not None:
            return None
        if self.backbone.spec.propagates == "memory":
            return None
        from promptseg.backbones import load_backbone
        from promptseg.propagation.slice_step import load_step

        step, backbone = load_step(None), load_backbone("default")
        if step.base != backbone.spec.sha256:
            return None
        backbone.module.to(self.device).eval()
        return Lent(backbone, step.to(self.device))

    @cached_property
    def ranking(self) -> MaskRanking | None:
        """What says which mask a prompt means, None for nothing; `auto` is none for other models.

        Raises:
            WeightsError: If its file is missing or damaged, or belongs to another model.
        """
        from promptseg.inference.ranking import load_ranking

        return self._own(self.ranking_source, self._loaded(self.ranking_source, load_ranking))

    def _own(self, source: object, held: Belonging | None) -> Belonging | None:
        """What was trained on one model, if it is this one; None for another's where `auto`."""
        if held is None or held is source or held.base == self.backbone.spec.sha256:
            return held
        if source == "auto":
            return None
        raise WeightsError(
            f"{source} belongs to the model with sha256 {held.base}, "
            f"{self.backbone.spec.name} has {self.backbone.spec.sha256}"
        )

    def _loaded(
        self, source: str | Path | Held | None, load: Callable[[Path | None], Held]
    ) -> Held | None:
        """A network as it is, or out of its file, `auto` for the one that ships."""
        if source is None or not isinstance(source, (str, Path)):
            return source
        return load(None if source == "auto" else Path(source)).to(self.device)

    @property
    def view(self) -> CoarseView | None:
        """The coarse view as the adapter in use has taught it, where it did."""
        active, plain = self.adapters.active, self.coarse
        if plain is None or active is None or not active.view or not self.fits_view:
            return plain
        if active.digest not in self._views:
            self._views.clear()
            self._views[active.digest] = plain.taught(active.view).to(self.device)
        return self._views[active.digest]

    @property
    def fits_view(self) -> bool:
        """False where the adapter in use has taught another coarse view than there is."""
        active = self.adapters.active
        if active is None or not active.view or self.coarse is None:
            return True
        return active.info.coarse_sha256 == self.coarse.sha256

    @cached_property
    def _views(self) -> dict[str, CoarseView]:
        return {}
