"""Tracks over a network with a memory, beside the library's own tracking of a video."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from backbones.tiny_video import VIDEO_SIDE, remembering_video, tracked
from support import bright_volume

from promptseg.backbones.folders import wrap
from promptseg.backbones.inputs import normalised
from promptseg.inference.decoder import SliceDecoder
from promptseg.inference.encoder import SliceEncoder
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.prompts.types import Box, Point
from promptseg.propagation.stopping import NEVER
from promptseg.propagation.track import Track, TrackState, track_bytes
from promptseg.propagation.tracker import Tracker
from promptseg.session import Segmenter
from promptseg.volume.slicing import Frame, Region

COUNT, START = 24, 6
TURNED = [8, 9, 12, 13, 14, 20]
SHAPE = (32, 32, COUNT)
FRAME = Frame(2, Region((0, 32), (0, 32)), SHAPE, (1.0, 1.0, 1.0), VIDEO_SIDE)
MASK = VIDEO_SIDE // 4
CLOSE = {"atol": 2e-3, "rtol": 1e-3}


@cache
def video(faint=False):
    return remembering_video(faint)


@cache
def grey():
    rng = np.random.default_rng(0)
    data = rng.random(SHAPE) * 0.6
    data[8:24, 8:24] += np.linspace(0.1, 0.4, COUNT)
    data[..., TURNED] = 1 - data[..., TURNED]
    return data.astype(np.float32)


def propagator(faint=False, criteria=NEVER):
    backbone = wrap(video(faint), name="tiny-video", sha256=f"{faint}")
    encoder = SliceEncoder(backbone, grey(), "image", torch.device("cpu"), "fp32", batch_size=4)
    return Tracker(SliceDecoder(encoder), FRAME, criteria)


def box(index, low=8, high=23):
    return SlicePrompts(box=((low, low, index), (high, high, index + 1)))


def corners(index):
    """(4,) a box as the library takes it."""
    return box(index).to_pixels(FRAME, index, MASK).box - 0.5


def pixels():
    """(N, 3, side, side) the volume as the library takes it."""
    return normalised(FRAME.extract(grey(), range(COUNT)), VIDEO_SIDE)


def followed(tracker, key_masks, limits=(0, COUNT)):
    """Answers of one target from prompts by slice."""
    masks = {i: tracker.answer(i, p) for i, p in key_masks.items()}
    return tracker.propagate({1: masks}, {1: limits})[1]


def assert_same(found, expected, **close):
    assert sorted(found) == sorted(expected)
    for index in expected:
        torch.testing.assert_close(
            found[index].logits, expected[index].logits, **close, msg=lambda m, i=index: f"{i}: {m}"
        )


@cache
def both_ways(faint=False):
    return followed(propagator(faint), {START: box(START)})


class TestParity:
    """The memory of the library is bfloat16, as ours is, so that rounding may flip a bit."""

    @pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
    @pytest.mark.parametrize("faint", [False, True], ids=["seen everywhere", "absent somewhere"])
    def test_as_the_library_tracks_a_video(self, faint, reverse):
        found = both_ways(faint)
        expected = tracked(video(faint), pixels(), {START: corners(START)}, START, reverse)
        assert sorted(expected) == list(range(START + 1) if reverse else range(START, COUNT))
        for index, (logits, score) in expected.items():
            torch.testing.assert_close(found[index].logits, logits, **CLOSE)
            presence = torch.tensor(score).sigmoid()
            assert found[index].presence == pytest.approx(float(presence), abs=1e-4)

    def test_between_two_boxes_both_are_remembered(self):
        later = START + 9
        tracker, steps = propagator(), []
        note = tracker.memories.note

        def watching(embedding, states):
            note(embedding, states)
            steps.extend(s for s in states if (s.track.start, s.track.step) == (START, 1))

        tracker.memories.note = watching
        followed(tracker, {START: box(START), later: box(later)})
        boxes = {index: corners(index) for index in (START, later)}
        expected = tracked(video(), pixels(), boxes, START, reverse=False)
        alone = both_ways()
        for index in range(START + 1, later):
            found = steps[-1].answers[index].logits
            torch.testing.assert_close(found, expected[index][0], **CLOSE)
            assert (found - alone[index].logits).abs().max() > 0.01

    def test_the_frames_differ_and_some_are_absent(self):
        seen, faint = both_ways(), both_ways(True)
        assert all(answer.area for answer in seen.values())
        assert (seen[START + 1].logits - seen[START + 9].logits).abs().max() > 0.1
        absent = [index for index, answer in faint.items() if not answer.area]
        assert 0 < len(absent) < COUNT - 1


class TestBatching:
    def test_targets_and_directions_together_are_one_by_one(self):
        tracker = propagator()
        prompts = {1: box(START), 2: box(START + 3, 3, 14)}
        key_masks = {t: {int(p.box[0][2]): None} for t, p in prompts.items()}
        for target, slices in key_masks.items():
            for index in slices:
                slices[index] = tracker.answer(index, prompts[target])
        limits = {1: (0, COUNT), 2: (4, 16)}
        together = tracker.propagate(key_masks, limits)
        for target in prompts:
            alone = propagator().propagate({target: key_masks[target]}, {target: limits[target]})
            assert_same(together[target], alone[target], **CLOSE)

    def test_a_step_of_all_tracks_is_one_call(self):
        tracker, sizes = propagator(), []
        decode = tracker.decoder.backbone.decode

        def counting(embedding, *rest, **options):
            sizes.append(len(embedding))
            return decode(embedding, *rest, **options)

        key_masks = {1: {START: tracker.answer(START, box(START))}}
        tracker.decoder.backbone.decode = counting
        tracker.propagate(key_masks, {1: (START - 3, START + 4)})
        assert sizes == [2, 2, 2]


class TestCarrying:
    def test_the_memory_travels_and_no_prompt(self):
        tracker, asked = propagator(), []
        decode = tracker.decoder.decode_embedded

        def watching(embedding, requests):
            asked.extend(requests)
            return decode(embedding, requests)

        key_masks = {1: {START: tracker.answer(START, box(START))}}
        tracker.decoder.decode_embedded = watching
        tracker.propagate(key_masks, {1: (START, START + 10)})
        assert tracker.carries == "memory"
        assert all(r.prompts.box is None and r.prompts.mask is None for r in asked)
        shapes = [r.memory.shape for r in asked]
        assert shapes[0] == (1, 1)
        assert shapes[-1] == (7, 9)

    def test_slices_that_are_not_trusted_are_not_remembered(self):
        criteria = replace(NEVER, presence=0.5, patience=COUNT)
        tracker, held = propagator(True, criteria), []
        note = tracker.memories.note

        def watching(embedding, states):
            note(embedding, states)
            held.append({s.track.step: s for s in states})

        tracker.memories.note = watching
        key_masks = {1: {START: tracker.answer(START, box(START))}}
        tracker.propagate(key_masks, {1: (0, COUNT)})
        state = held[-1][1]
        assert state.known_at
        kept = {index for index, _ in state.bank.pointers}
        assert kept <= {index for index, at in state.known_at.items() if at == index}

    def test_nearest_key_slices_are_recalled_and_those_at_the_ends_first(self):
        tracker = propagator()
        key_mask = tracker.answer(START, box(START))
        key_masks = dict.fromkeys((2, 3, 4, 6, 8, 20), key_mask)
        choose = tracker.memories.conditioning
        assert choose(Track(1, 6, 1, 8), key_masks) == [3, 4, 6, 8]
        assert choose(Track(1, 8, 1, 20), key_masks) == [4, 6, 8, 20]
        assert choose(Track(1, 2, -1, -1), key_masks) == [2, 3, 4, 6]

    def test_the_bytes_of_a_track_count_its_bank(self):
        tracker = propagator()
        key_mask = tracker.answer(START, box(START))
        state = TrackState(Track(1, START, 1, COUNT), START + 1, key_mask.logits)
        bare = track_bytes(state)
        tracker.memories.equip([state], {1: {START: key_mask}})
        assert track_bytes(state) - bare == state.bank.nbytes > 0


class TestWalkingOnce:
    def test_a_track_continued_is_one_made_at_once(self):
        whole = followed(propagator(), {START: box(START)}, (1, 20))
        tracker = propagator()
        followed(tracker, {START: box(START)}, (4, 12))
        before = tracker.decoder.decoded
        assert_same(followed(tracker, {START: box(START)}, (1, 20)), whole, **CLOSE)
        assert tracker.decoder.decoded - before == 19 - 8

    def test_a_track_cut_is_one_that_ended_there(self):
        short = followed(propagator(), {START: box(START)}, (4, 12))
        tracker = propagator()
        followed(tracker, {START: box(START)}, (1, 20))
        before = tracker.decoder.decoded
        assert_same(followed(tracker, {START: box(START)}, (4, 12)), short, **CLOSE)
        assert tracker.decoder.decoded == before

    def test_what_was_followed_before_does_not_change_the_answer(self):
        prompts = {START: box(START), 12: box(12)}
        fresh = followed(propagator(), prompts)
        tracker = propagator()
        first = followed(tracker, {START: box(START)})
        assert_same(followed(tracker, prompts), fresh, **CLOSE)
        before = tracker.decoder.decoded
        assert_same(followed(tracker, {START: box(START)}), first, atol=0, rtol=0)
        assert tracker.decoder.decoded == before

    def test_a_mask_of_the_user_starts_a_track(self):
        plane = np.zeros((32, 32), bool)
        plane[8:20, 6:22] = True
        found = followed(propagator(), {START: SlicePrompts(mask=plane)}, (3, 10))
        other = followed(propagator(), {START: box(START)}, (3, 10))
        assert sorted(found) == sorted(other)
        assert (found[START + 1].logits - other[START + 1].logits).abs().max() > 1e-3


class TestCorrecting:
    def session(self):
        backbone = wrap(video(), name="tiny-video", sha256="session")
        inside = np.zeros((32, 32, 10), bool)
        inside[8:24, 8:24, 2:9] = True
        owner = Segmenter(backbone, "cpu", "fp32", 4)
        running = owner.session(bright_volume(inside), 2, consistency="none", stop="never")
        running.add(Box((8, 8, 4), (24, 24, 5)))
        return running

    def test_a_correction_encodes_nothing_and_undo_restores(self):
        running = self.session()
        first = running.propagate()
        running.add(Point((28, 28, 7), positive=False))
        after = running.propagate()
        assert after.report["encoded_slices"] == first.report["encoded_slices"] == 10
        assert not np.array_equal(first.data, after.data)
        decoded = after.report["decoded_masks"]
        running.undo()
        back = running.propagate()
        np.testing.assert_array_equal(back.data, first.data)
        assert back.report["decoded_masks"] == decoded
        running.redo()
        np.testing.assert_array_equal(running.propagate().data, after.data)

    def test_the_same_prompts_give_the_same_again(self):
        one, two = self.session(), self.session()
        one.propagate()
        for running in (one, two):
            running.add(Point((28, 28, 7), positive=False))
        np.testing.assert_array_equal(one.propagate().data, two.propagate().data)
