"""Views of a volume: the part of every slice in which a group of targets is looked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from promptseg.inference.crop import (
    choose_region,
    frame_of,
    group_regions,
    touches_edge,
    whole_slice,
)
from promptseg.inference.decoder import SliceDecoder
from promptseg.inference.encoder import Progress
from promptseg.inference.labels import Answers
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.propagation.slice_step import SliceStep
from promptseg.propagation.stopping import StopCriteria
from promptseg.propagation.tracker import Tracker
from promptseg.volume.slicing import Frame, Region

ROOM_INSIDE, ROOM_OUTSIDE = 1 / 6, 1 / 3
# Share of a view's side within which a target may have left it. In the middle of a view of 1.7
# times its size (`inference.crop.CROP`) a target has 0.206 on each side.
LEAVING = 0.2
ByTarget = dict[int, dict[int, SlicePrompts]]
View = tuple[Region, list[int]]


class Views:
    """Chooses views around prompts, and has a tracker for each; both are kept.

    Args:
        decoder: Of the volume.
        axis: Slice axis.
        spacing: (3,) mm.
        criteria: When a propagation stops.
        step: Trained to go from slice to slice; None to ask the network alone.
    """

    def __init__(
        self,
        decoder: SliceDecoder,
        axis: int,
        spacing: Sequence[float],
        criteria: StopCriteria,
        step: SliceStep | None = None,
    ) -> None:
        self.decoder, self.axis, self.spacing, self.criteria = decoder, axis, spacing, criteria
        self.step = step
        self._trackers: dict[Frame, Tracker] = {}
        self._regions: dict[tuple[str, ...], Region] = {}

    def tracker(self, region: Region, progress: Progress | None = None) -> Tracker:
        """Of one view."""
        frame = frame_of(self.decoder.encoder, self.axis, region, self.spacing)
        if frame not in self._trackers:
            self._trackers[frame] = Tracker(self.decoder, frame, self.criteria, learned=self.step)
        self._trackers[frame].progress = progress
        return self._trackers[frame]

    def groups(self, by_key: ByTarget, given: Sequence[View] | None = None) -> list[View]:
        """Where each group of components is looked for: as given, else around their prompts."""
        views = [(region, [k for k in keys if k in by_key]) for region, keys in given or ()]
        seen = {key for _, keys in views for key in keys}
        left = {key: self._region(s) for key, s in by_key.items() if key not in seen}
        return [*(view for view in views if view[1]), *group_regions(left)]

    def _region(self, prompted: dict[int, SlicePrompts]) -> Region:
        """Where a target is looked for: around where it starts, with room about corrections."""
        starting = {i: p.without_corrections() or p for i, p in prompted.items() if p.starts}
        key = tuple(f"{i}:{p.signature()}" for i, p in starting.items())
        if key not in self._regions:
            self._regions[key] = choose_region(self.decoder, self.axis, self.spacing, starting)
        region, whole = self._regions[key], whole_slice(self.decoder.encoder, self.axis).shape
        side = max(region.shape)
        for prompts in prompted.values():
            extent = prompts.extent(self.axis)
            if extent is not None and (prompts.corrects or not region.contains(extent)):
                share = ROOM_INSIDE if region.contains(extent) else ROOM_OUTSIDE
                region = region.union(extent.grow(round(side * share)).clip(whole))
        return region

    def cut(self, frame: Frame, answers: Answers) -> list[int]:
        """Targets that reach an edge of a view that could be wider."""
        if self._whole(frame):
            return []
        return [
            target
            for target, slices in answers.items()
            if any(touches_edge(mask, frame) for mask in slices.values())
        ]

    def leaves(self, frame: Frame, answers: Answers, limits: Mapping[int, tuple[int, int]]) -> bool:
        """True if a target may go on outside of a view that could be wider.

        One that moves from slice to slice, as a rib does, is lost before it reaches the edge.

        Args:
            frame: The view.
            answers: By target and slice.
            limits: Half-open slice range by target.
        """
        if self._whole(frame):
            return False
        for target, slices in answers.items():
            seen = [index for index, mask in slices.items() if mask.area]
            first, last = limits[target][0], limits[target][1] - 1
            ends = {min(seen, default=first), max(seen, default=last)} - {first, last}
            if any(touches_edge(slices[index], frame, LEAVING) for index in ends):
                return True
        return False

    def _whole(self, frame: Frame) -> bool:
        return frame.region.contains(whole_slice(self.decoder.encoder, self.axis))
