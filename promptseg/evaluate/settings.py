"""What an evaluation is asked to do, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import PromptError

if TYPE_CHECKING:
    from promptseg.session import RefineMode

PROTOCOLS = ("box", "point", "clicks", "scribble", "margin", "text", "auto")
STARTS = ("point", "box", "margin", "scribble")
BASELINES = ("ellipse", "grabcut", "random_walker", "graph_cut", "network")
VOLUME_BASELINES = ("random_walker", "graph_cut", "network")
REFINES = ("network", "graph_cut", "both")


@dataclass(frozen=True)
class Settings:
    """A protocol and its options.

    Args:
        protocol: One of `PROTOCOLS`.
        dims: `2d` prompts and scores every slice by itself, `3d` the volume.
        label: Label to segment; None takes every label of a case in turn.
        clicks: Clicks of the protocol `clicks`.
        start: What that protocol starts with; `point` counts as the first click.
        seed: Decides every random choice together with case, label and slice.
        slices: Slices a case and label in 2D, drawn by the seed; None takes all.
        least_pixels: Slices on which the label has fewer are left out in 2D.
        jitter: Greatest move of a box edge, as a share of the box's side.
        axis: Slice axis; `auto` is that of the largest spacing.
        window: As in `Segmenter.segment`.
        refine: How clicks correct an answer, as in `Session.refine`; slices know `network` only.
        text: Words of the protocol `text`; None takes the adapter's name of each label.
        scribbles: Folder with human scribbles; None simulates them.
        against: Baselines run beside the network on the same prompts.

    Raises:
        PromptError: A value is out of its range; says which and the valid ones.
    """

    protocol: str = "clicks"
    dims: str = "2d"
    label: int | None = None
    clicks: int = 5
    start: str = "point"
    seed: int = 0
    slices: int | None = None
    least_pixels: int = 10
    jitter: float = 0.05
    axis: int | str = "auto"
    window: str | None = "auto"
    refine: RefineMode = "network"
    text: str | None = None
    scribbles: Path | None = None
    against: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _one_of("protocol", self.protocol, PROTOCOLS)
        _one_of("dims", self.dims, ("2d", "3d"))
        _one_of("start", self.start, STARTS)
        _one_of("refine", self.refine, REFINES)
        for name in self.against:
            _one_of("against", name, BASELINES)
        for name, least in (("clicks", 1), ("seed", 0), ("slices", 1), ("least_pixels", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise PromptError(f"{name} is {value}: give at least {least}")
        if not 0 <= self.jitter < 0.5:
            raise PromptError(f"jitter is {self.jitter}: give 0 up to, not including, 0.5")
        self._check_together()

    def _check_together(self) -> None:
        flat = [name for name in self.against if name not in VOLUME_BASELINES]
        if self.dims == "3d" and flat:
            raise PromptError(f"against {flat[0]} works on slices only: use dims 2d")
        if "network" in self.against and self.refine == "network":
            raise PromptError(
                "against network needs refine graph_cut or both: else both are the same"
            )
        if self.refine != "network" and not (self.protocol == "clicks" and self.dims == "3d"):
            raise PromptError(
                f"refine {self.refine} corrects a volume by clicks: use protocol clicks and dims 3d"
            )
        if self.against and self.protocol in ("text", "auto"):
            raise PromptError(f"against needs prompts, and protocol {self.protocol} gives none")
        if self.scribbles is not None and "scribble" not in (self.protocol, self.start):
            raise PromptError("scribbles are given, but the protocol does not use any")

    @property
    def corrects(self) -> bool:
        """True if clicks follow the first answer."""
        return self.protocol == "clicks"

    @property
    def first(self) -> str:
        """What is given first."""
        return self.start if self.corrects else self.protocol

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        plain = asdict(self)
        return {**plain, "scribbles": None if self.scribbles is None else str(self.scribbles),
                "against": list(self.against)}  # fmt: skip


def settings_of(protocol: str, options: Mapping[str, Any]) -> Settings:
    """Settings of options by name; any list of baselines and any path will do.

    Raises:
        PromptError: An option is unknown or out of its range.
    """
    known = [field.name for field in fields(Settings) if field.name != "protocol"]
    for name in options:
        if name not in known:
            raise PromptError(f"evaluate has no option {name!r}: use one of {', '.join(known)}")
    given = {**options, "against": tuple(options.get("against", ()))}
    if given.get("scribbles") is not None:
        given["scribbles"] = Path(given["scribbles"])
    return Settings(protocol=protocol, **given)


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise PromptError(f"{name} is {value!r}: use one of {', '.join(valid)}")
