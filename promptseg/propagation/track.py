"""Tracks from prompted slices: where they lead, and where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from promptseg.inference.decoder import SliceMask
from promptseg.propagation.memory_bank import Bank
from promptseg.propagation.stopping import StopCriteria


@dataclass(frozen=True)
class Track:
    """One way from a key slice: slices `start + step`, `start + 2 step`, ... before `stop`."""

    target: int
    start: int
    step: int
    stop: int


@dataclass
class TrackState:
    """Where a track stands.

    Args:
        track: The way.
        index: The next slice.
        carried: (m, m) logits that the last trusted slice handed on.
        misses: Poor slices since then.
        lost: True once the track has ended early.
        answers: By slice, trusted or bridged.
        pending: Poor slices that become part of the answer if the target comes back.
        known_at: Slice whose answer settled that of each slice: itself, or the end of a gap.
        origin: (m, m) logits of the key slice, by default those carried at the start.
        before: Answers that a correction may change; the track ends where it agrees with them.
        agreed: Slices in a row on which it did.
        settled: True once it has ended that way, or has strayed.
        moved: Pixels that the correction changed on the slice where the track starts.
        end: First slice that it leaves as it was, of one that has strayed.
        bank: What it remembers, of a network with a memory.
    """

    track: Track
    index: int
    carried: Tensor
    misses: int = 0
    lost: bool = False
    answers: dict[int, SliceMask] = field(default_factory=dict)
    pending: dict[int, SliceMask] = field(default_factory=dict)
    known_at: dict[int, int] = field(default_factory=dict)
    origin: Tensor | None = None
    before: Mapping[int, SliceMask] | None = None
    agreed: int = 0
    settled: bool = False
    moved: int = 0
    end: int | None = None
    bank: Bank | None = None

    def __post_init__(self) -> None:
        if self.origin is None:
            self.origin = self.carried

    def lead(self, lag: int) -> tuple[int, Tensor]:
        """The latest trusted slice at least `lag` slices back, else the key slice: its logits."""
        back = [i for i in self.answers if abs(self.index - i) >= lag]
        if back:
            index = max(back, key=lambda i: i * self.track.step)
            return index, self.answers[index].logits
        return self.track.start, self.carried if self.origin is None else self.origin

    def handed_on(self, lag: int) -> Tensor:
        """Logits of the same."""
        return self.lead(lag)[1]

    @property
    def active(self) -> bool:
        """True while there are slices left and the target is not lost."""
        return self.index != self.track.stop and not self.lost and not self.settled

    @property
    def last(self) -> int:
        """The slice before the next one."""
        return self.index - self.track.step

    @property
    def reach(self) -> int:
        """Slices from the key slice to the next one."""
        return abs(self.index - self.track.start)

    def take(self, answer: SliceMask, criteria: StopCriteria) -> None:
        """Digest the answer on the next slice."""
        if criteria.poor(answer, self.carried):
            self.pending[self.index] = answer
            self.misses += 1
            self.lost = self.misses > criteria.patience
        else:
            self._bridge(answer)
            self.answers[self.index], self.known_at[self.index] = answer, self.index
            self.carried = answer.logits
        self.index += self.track.step

    def _bridge(self, answer: SliceMask) -> None:
        for index in self.pending:
            mean = (self.carried + answer.logits) / 2
            self.answers[index], self.known_at[index] = replace(answer, logits=mean), self.index
        self.pending, self.misses = {}, 0


def plan_tracks(
    key_masks: dict[int, dict[int, SliceMask]],
    limits: dict[int, tuple[int, int]],
) -> list[Track]:
    """Both ways from every key slice, up to the next key slice or the limit."""
    tracks = []
    for target, slices in key_masks.items():
        low, high = limits[target]
        indices = sorted(slices)
        for n, index in enumerate(indices):
            after = indices[n + 1] if n + 1 < len(indices) else max(high, index + 1)
            before = indices[n - 1] if n else min(low - 1, index - 1)
            if slices[index].area:
                tracks += [Track(target, index, step, stop)
                          for step, stop in ((1, after), (-1, before))]  # fmt: skip
    return tracks


def mask_bytes(mask: SliceMask) -> int:
    """Memory that an answer holds."""
    parts = (mask.logits, mask.given, mask.pointer)
    return sum(part.nbytes for part in parts if part is not None)


def masks_bytes(masks: dict[int, SliceMask]) -> int:
    """Memory that answers by slice hold."""
    return sum(mask_bytes(mask) for mask in masks.values())


def track_bytes(state: TrackState) -> int:
    """Memory that a track holds."""
    bank = 0 if state.bank is None else state.bank.nbytes
    return masks_bytes(state.answers) + masks_bytes(state.pending) + bank


def tensor_key(answer: SliceMask | None) -> int:
    """Number that differs where the logits differ; 0 for none."""
    return 0 if answer is None else hash(answer.logits.numpy().tobytes())
