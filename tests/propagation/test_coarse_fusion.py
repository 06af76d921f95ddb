"""Tracks and the coarse view put together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptseg.backbones.base import BackboneSpec, Decoded, Embedding
from promptseg.inference.decoder import SliceDecoder, SliceMask
from promptseg.inference.encoder import SliceEncoder
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.propagation.coarse import CoarseView
from promptseg.propagation.coarse_fusion import (
    CoarseFusion,
    box_of_prompts,
    clicks_of,
    followed,
    planes_of,
)
from promptseg.volume.slicing import Frame, Region

SHAPE, SPACING, KEY = (48, 48, 24), (1.0, 1.0, 1.0), 12


class Repeats:
    """A backbone that gives back the mask it is shown, or fills the box."""

    def __init__(self, propagates="mask"):
        self.spec = BackboneSpec("repeats", "test", 64, 32, propagates=propagates)
        self.module = torch.nn.Identity()

    def encode(self, images):
        return Embedding((images[:, :1, ::2, ::2],))

    def decode(self, embedding, prompts, multimask, **_):
        logits = torch.full((len(prompts), 1, 32, 32), -8.0)
        for row in range(len(prompts)):
            if prompts.masks is not None and bool(torch.isfinite(prompts.masks[row]).any()):
                logits[row, 0] = prompts.masks[row]
            if not bool(torch.isnan(prompts.boxes[row]).any()):
                x0, y0, x1, y1 = (prompts.boxes[row] / 2).round().int().tolist()
                logits[row, 0, y0:y1, x0:x1] = 8.0
        return Decoded(logits, torch.ones(len(prompts), 1), torch.ones(len(prompts)))


class Bright(torch.nn.Module):
    """Marks what is bright."""

    def forward(self, x):
        return (x[:, 0] - 0.5) * 20, torch.zeros(len(x))


class BrightWhereAnswered(torch.nn.Module):
    """Marks what is bright on slices that somebody answered."""

    def forward(self, x):
        return (x[:, 0] * (x[:, 3] > 0) - 0.5) * 20, torch.zeros(len(x))


def ball():
    grid = np.indices(SHAPE, float)
    middle = (24, 24, KEY)
    return sum((grid[a] - middle[a]) ** 2 for a in range(3)) < 8**2


@pytest.fixture
def scene():
    """Fusion, frame and the ball that is bright in the volume."""

    def make(propagates="mask"):
        known = ball()
        encoder = SliceEncoder(
            Repeats(propagates), known.astype(np.float32), "ball", torch.device("cpu"), "fp32"
        )
        decoder = SliceDecoder(encoder)
        frame = Frame(2, Region((8, 40), (8, 40)), SHAPE, SPACING, 64)
        return CoarseFusion(CoarseView(Bright()), decoder, SPACING), frame, known

    return make


def on_slice(frame, plane):
    share = frame.project(plane.astype(np.float32), 32)
    return SliceMask((share * 2 - 1) * 8, 0.9)


def boxed():
    return {KEY: SlicePrompts(box=((16, 16, KEY), (33, 33, KEY + 1)))}


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def found(frame, masks):
    volume = np.zeros(SHAPE, bool)
    for index, plane in planes_of(frame, masks).items():
        volume[:, :, index] = plane
    return volume


class TestFused:
    @pytest.mark.parametrize("propagates", ["mask", "box"])
    def test_a_track_that_ended_early_reaches_the_ends(self, scene, propagates):
        fusion, frame, known = scene(propagates)
        masks = {n: on_slice(frame, known[:, :, n]) for n in (KEY - 1, KEY, KEY + 1)}
        whole = found(frame, fusion.fused(frame, boxed(), masks, (0, 24)))
        assert dice(found(frame, masks), known) < 0.6
        assert dice(whole, known) > 0.9

    def test_a_track_that_ran_on_is_cut(self, scene):
        fusion, frame, known = scene()
        masks = {n: on_slice(frame, known[:, :, KEY]) for n in range(2, 23)}
        whole = found(frame, fusion.fused(frame, boxed(), masks, (0, 24)))
        assert not (whole & ~known).any((0, 1))[: KEY - 9].any()
        assert dice(whole, known) > 0.9

    def test_the_prompted_slice_stays_as_it_is(self, scene):
        fusion, frame, known = scene()
        masks = {KEY: on_slice(frame, np.roll(known[:, :, KEY], 2, 0))}
        assert fusion.fused(frame, boxed(), masks, (0, 24))[KEY] is masks[KEY]

    def test_nothing_outside_the_slices_that_were_given(self, scene):
        fusion, frame, known = scene()
        masks = {KEY: on_slice(frame, known[:, :, KEY])}
        assert set(fusion.fused(frame, boxed(), masks, (10, 14))) <= {10, 11, 12, 13}

    def test_without_a_pixel_on_a_prompted_slice_nothing_changes(self, scene):
        fusion, frame, _ = scene()
        masks = {KEY: on_slice(frame, np.zeros(SHAPE[:2], bool))}
        assert fusion.fused(frame, boxed(), masks, (0, 24)) == masks

    def test_looks_from_farther_away_at_tracks_that_leave_the_view(self, scene):
        fusion, frame, _ = scene()
        rod = np.zeros(SHAPE, bool)
        rod[20:26, 20:26, 1:23] = True
        fusion.decoder.encoder.data[:] = rod
        fusion.view = CoarseView(BrightWhereAnswered())
        masks = {n: on_slice(frame, np.roll(rod[:, :, n], 2, 0)) for n in range(1, 23)}
        masks[KEY] = on_slice(frame, rod[:, :, KEY])
        box = {KEY: SlicePrompts(box=((20, 20, KEY), (26, 26, KEY + 1)))}
        assert dice(found(frame, fusion.fused(frame, box, masks, (0, 24))), rod) > 0.9
        seen = fusion.preview(frame, box, {KEY: masks[KEY]})
        assert seen.cube.region(SHAPE)[2].stop < 22

    def test_the_same_question_is_not_asked_twice(self, scene):
        fusion, frame, known = scene()
        masks = {KEY: on_slice(frame, known[:, :, KEY])}
        first = fusion.fused(frame, boxed(), masks, (0, 24))
        asked = fusion.decoder.decoded
        again = fusion.fused(frame, boxed(), masks, (0, 24))
        assert fusion.decoder.decoded == asked
        assert first.keys() == again.keys()


class TestFollowed:
    """What tracks found beyond a view of slices 8 to 15."""

    seen = slice(8, 16)

    @pytest.fixture
    def frame(self, scene):
        return scene()[1]

    def masks(self, frame, slices, side=12):
        plane = np.zeros(SHAPE[:2], bool)
        plane[10 : 10 + side, 10:22] = True
        return {i: on_slice(frame, plane) for i in slices}

    def test_tracks_go_on_where_both_mark_the_same(self, frame):
        tracks = self.masks(frame, range(3, 20))
        whole = followed(frame, self.masks(frame, range(8, 16)), tracks, self.seen)
        assert sorted(whole) == list(range(3, 20))

    def test_not_where_they_mark_other_things_at_the_border(self, frame):
        tracks = self.masks(frame, range(3, 20), side=16)
        found = self.masks(frame, range(8, 16))
        assert sorted(followed(frame, found, tracks, self.seen)) == list(range(8, 16))

    def test_not_where_the_view_ends_inside(self, frame):
        tracks, found = self.masks(frame, range(3, 20)), self.masks(frame, range(9, 16))
        assert sorted(followed(frame, found, tracks, self.seen)) == list(range(9, 20))

    def test_not_over_a_gap(self, frame):
        tracks = self.masks(frame, [*range(8, 17), 18, 19])
        found = self.masks(frame, range(8, 16))
        assert sorted(followed(frame, found, tracks, self.seen)) == list(range(8, 17))

    def test_answers_of_the_view_stay(self, frame):
        tracks, found = self.masks(frame, range(3, 20)), self.masks(frame, range(8, 16))
        whole = followed(frame, found, tracks, self.seen)
        assert all(whole[i] is found[i] for i in found)

    def test_tracks_within_the_view_add_nothing(self, frame):
        tracks, found = self.masks(frame, range(8, 16)), self.masks(frame, range(8, 14))
        assert followed(frame, found, tracks, self.seen) == found


class TestTold:
    def test_clicks_and_strokes_are_told_by_their_side(self):
        place = SlicePrompts(
            points=[(3.4, 4, 5), (1, 1, 5)], labels=[1, 0], correction=[False, False],
            strokes=([np.array([[7, 8, 5]])], []),
        )  # fmt: skip
        clicks = clicks_of([place])
        assert clicks.positive.tolist() == [[3, 4, 5], [7, 8, 5]]
        assert clicks.negative.tolist() == [[1, 1, 5]]

    def test_one_box_is_told_and_several_are_not(self):
        one = boxed()
        assert box_of_prompts(one) == ((16, 16, KEY), (33, 33, KEY + 1))
        assert box_of_prompts({**one, 3: replace(one[KEY])}) is None
