import numpy as np
import pytest
from session_kit import ONE, SHAPE, TWO, session
from support import BrightRegion, bright_volume, dice, discs, filled, segmenter, tiny_default

import promptseg as ps
from promptseg.errors import PromptError, VolumeError
from promptseg.inference.encoder import EmbeddingCache
from promptseg.inference.slice_prompts import CORRECTION, REFINE
from promptseg.prompts.types import Box, Mask, Point, PromptSet, Scribble, Text
from promptseg.volume import bounding_slices

BOX = Box((7, 15, 10), (18, 26, 11))
BOTH = Box((7, 15, 10), (35, 26, 11))
WRONG = Point((29, 20, 14), positive=False)


def noise_volume(shape=(40, 36, 14)):
    rng = np.random.default_rng(3)
    smooth = discs(shape, 2, {n: (18 + n / 2, 17, 6) for n in range(14)}) * 90.0
    return ps.Volume((smooth + rng.normal(60, 15, shape)).astype(np.float32), np.diag([1, 1, 2, 1]))


class TestAnswering:
    def test_segment_answers_prompted_slices_and_propagate_the_rest(self):
        running = session()
        running.add(BOX)
        assert filled(running.segment().data > 0, 2) == [10]
        np.testing.assert_array_equal(running.propagate().data > 0, ONE)
        assert running.result.data.sum() == ONE.sum()

    def test_no_result_before_an_answer(self):
        running = session()
        assert running.result is None
        assert running.changed is None
        assert len(running.prompts) == 0

    def test_nothing_to_answer(self):
        with pytest.raises(PromptError, match="there is no prompt"):
            session().segment()

    def test_window_and_axis_are_checked_at_once(self):
        with pytest.raises(VolumeError, match="window 'moon' is unknown"):
            segmenter().session(bright_volume(ONE), window="moon")
        with pytest.raises(PromptError, match="axis is 'up'"):
            segmenter().session(bright_volume(ONE), axis="up")

    def test_several_targets(self):
        running = session(ONE | TWO)
        running.add(BOX, Point((29, 20, 12), target=2))
        np.testing.assert_array_equal(running.propagate().data, ONE + 2 * TWO)
        running.add(Point((29, 20, 6), target=5))
        assert set(np.unique(running.propagate().data)) <= {0, 1, 2, 5}
        assert running.result.targets == (1, 2, 5)


class TestUndo:
    STEPS = (
        (BOTH,),
        (WRONG,),
        (Point((12, 20, 17)), Point((30, 20, 17), positive=False)),
        (Box((24, 15, 6), (35, 26, 7), target=2),),
        (Scribble.polyline([(10, 20, 5), (14, 20, 5)]),),
    )

    @pytest.mark.parametrize("network", ["bright", "tiny"])
    def test_every_step_is_restored_exactly_and_repeated_exactly(self, network):
        image, volume = ONE | TWO, bright_volume(ONE | TWO)
        backbone = BrightRegion() if network == "bright" else tiny_default()
        running = segmenter(backbone).session(volume)
        results = []
        for step in self.STEPS:
            running.add(*step)
            results.append(running.propagate().data)
        assert len({r.tobytes() for r in results}) > 2
        for expected in results[-2::-1]:
            running.undo()
            np.testing.assert_array_equal(running.propagate().data, expected)
        for expected in results[1:]:
            running.redo()
            np.testing.assert_array_equal(running.propagate().data, expected)
        assert image.any()

    def test_undo_encodes_and_decodes_nothing(self):
        backbone = BrightRegion()
        running = session(ONE | TWO, backbone)
        running.add(BOTH)
        running.propagate()
        running.add(WRONG)
        running.propagate()
        before = backbone.encoded, len(backbone.asked)
        running.undo()
        running.propagate()
        assert (backbone.encoded, len(backbone.asked)) == before

    def test_undo_takes_back_one_add_of_several_prompts(self):
        running = session()
        running.add(BOX)
        running.add(Point((12, 20, 6)), Point((12, 20, 16)))
        running.undo()
        assert list(running.prompts) == [BOX]

    def test_a_new_prompt_ends_redoing(self):
        running = session()
        running.add(BOX)
        running.undo()
        running.add(Point((12, 20, 6)))
        with pytest.raises(PromptError, match="nothing to redo"):
            running.redo()

    def test_nothing_to_undo(self):
        with pytest.raises(PromptError, match="nothing to undo"):
            session().undo()

    def test_undoing_everything_leaves_no_prompt(self):
        running = session()
        running.add(BOX)
        running.propagate()
        running.undo()
        with pytest.raises(PromptError, match="there is no prompt"):
            running.propagate()

    def test_axis_changed_by_a_prompt_comes_back(self):
        running = session()
        running.add(Point((12, 20, 10)))
        before = running.propagate().data
        running.add(Box((7, 20, 5), (18, 21, 18)))
        running.propagate()
        running.undo()
        np.testing.assert_array_equal(running.propagate().data, before)


class TestRefusal:
    BAD = (
        Point((99, 0, 0)),
        Point((float("nan"), 0, 0)),
        Box((9, 9, 9), (3, 3, 3)),
        Point((1, 1, 1), target=0),
        Text("left atrium"),
        Box((10, 5, 5), (11, 9, 9)),
        Mask(np.zeros(SHAPE, bool)),
    )

    @pytest.mark.parametrize("bad", BAD, ids=repr)
    def test_leaves_the_session_as_it_was(self, bad):
        running = session(ONE | TWO)
        running.add(BOTH)
        running.propagate()
        running.add(WRONG)
        running.undo()
        result, changed = running.result, running.changed
        with pytest.raises(PromptError):
            running.add(Point((12, 20, 6)), bad)
        assert list(running.prompts) == [BOTH]
        assert running.result is result
        assert running.changed == changed
        running.redo()
        assert len(running.prompts) == 2
        running.propagate()

    def test_a_session_of_background_only_says_so_and_goes_on(self):
        running = session(ONE | TWO)
        running.add(WRONG)
        with pytest.raises(PromptError, match="no foreground prompt"):
            running.propagate()
        running.add(BOTH)
        assert running.propagate().data.any()


class TestReplay:
    @pytest.mark.parametrize("network", ["bright", "tiny"])
    def test_saved_prompts_give_the_identical_mask(self, network, tmp_path):
        owner = segmenter()
        if network == "tiny":
            owner = segmenter(tiny_default(), precision="bf16")
        volume = bright_volume(ONE | TWO) if network == "bright" else noise_volume()
        running = owner.session(volume)
        last = volume.shape[2] - 2
        for prompts in (
            [Box((7, 10, 5), (33, 26, 6))],
            [Point((29, 20, 8), positive=False)],
            [Point((12, 20, 9))],
            [Box((8, 14, last), (18, 27, last + 1))],
            [Scribble.polyline([(26, 20, 7), (31, 20, 7)], target=2)],
            [Point((20, 20, 7), positive=False, target=2)],
        ):
            running.add(*prompts)
            running.propagate()
        running.prompts.save(tmp_path / "prompts.json")
        loaded = PromptSet.load(tmp_path / "prompts.json")
        again = owner.segment(volume, loaded)
        np.testing.assert_array_equal(again.data, running.result.data)
        assert again.data.dtype == running.result.data.dtype
        assert again.score == pytest.approx(running.result.score)

    def test_answers_on_the_way_do_not_matter(self):
        steps = ([BOTH], [WRONG], [Point((12, 20, 6), role=CORRECTION)],
                 [Box((7, 15, 17), (18, 26, 18))])  # fmt: skip
        eager, lazy = session(ONE | TWO), session(ONE | TWO)
        for step in steps:
            marked = [p if p is not WRONG else WRONG for p in step]
            eager.add(*marked)
            eager.segment()
            eager.propagate()
            lazy.add(*marked)
        np.testing.assert_array_equal(eager.result.data, lazy.propagate().data)

    def test_masks_are_replayed(self, tmp_path):
        owner, volume = segmenter(), bright_volume(ONE)
        running = owner.session(volume)
        plane = np.zeros(SHAPE[:2], bool)
        plane[9:15, 17:23] = True
        running.add(Mask(plane, axis=2, index=9))
        running.propagate()
        running.prompts.save(tmp_path / "prompts.json")
        again = owner.segment(volume, PromptSet.load(tmp_path / "prompts.json"))
        np.testing.assert_array_equal(again.data, running.result.data)


class TestCorrections:
    def corrected(self, backbone=None, image=ONE | TWO):
        running = session(image, backbone)
        running.add(BOTH)
        before = running.propagate().data
        return running, before

    def test_a_background_click_takes_a_wrong_part_away(self):
        running, before = self.corrected()
        np.testing.assert_array_equal(before > 0, ONE | TWO)
        running.add(WRONG)
        after = running.propagate().data
        np.testing.assert_array_equal(after[:, :, 14:] > 0, ONE[:, :, 14:])

    def test_only_the_stretch_next_to_it_changes(self):
        running, before = self.corrected()
        running.add(WRONG)
        after = running.propagate().data
        np.testing.assert_array_equal(after[:, :, :11], before[:, :, :11])
        assert not np.array_equal(after[:, :, 13], before[:, :, 13])

    def test_between_two_anchors_it_stays_between(self):
        image = ONE | TWO
        running = session(image)
        running.add(BOTH, Box((7, 15, 18), (35, 26, 19)))
        before = running.propagate().data
        running.add(WRONG)
        after = running.propagate().data
        keep = [*range(11), 18, 19]
        np.testing.assert_array_equal(after[:, :, keep], before[:, :, keep])
        np.testing.assert_array_equal(after[:, :, 14] > 0, ONE[:, :, 14])

    def test_it_encodes_nothing(self):
        backbone = BrightRegion()
        running, _ = self.corrected(backbone)
        before = backbone.encoded
        running.add(WRONG)
        running.propagate()
        running.add(Point((12, 20, 6)))
        running.propagate()
        assert backbone.encoded == before

    def test_it_decodes_the_affected_stretch_only(self):
        running, _ = self.corrected()
        first = running.result.report["decoded_masks"]
        running.add(Point((29, 20, 17), positive=False))
        running.propagate()
        again = running.result.report["decoded_masks"] - first
        assert again <= 1 + (17 - 10) + (20 - 17) + 2

    def test_a_scribble_after_an_answer_is_a_correction(self):
        running, before = self.corrected()
        line = np.array([(29, j, 14) for j in range(18, 23)])
        running.add(Scribble(line, positive=False))
        assert running.prompts[-1].role == REFINE
        after = running.propagate().data
        assert before[tuple(line.T)].any()
        assert not after[tuple(line.T)].any()
        np.testing.assert_array_equal(after[:, :, :11], before[:, :, :11])
        again = segmenter().session(bright_volume(ONE | TWO), consistency="none")
        again.add(*PromptSet.from_json(running.prompts.to_dict()))
        np.testing.assert_array_equal(again.propagate().data, after)

    def test_it_ends_where_it_agrees_with_what_was_there(self):
        running = session(ONE)
        running.add(BOX)
        first = running.propagate().report["decoded_masks"]
        running.add(Point((12, 20, 14)))
        assert running.propagate().report["decoded_masks"] - first <= 1 + 2 * 2
        np.testing.assert_array_equal(running.result.data > 0, ONE)

    def test_a_part_that_leads_nowhere_takes_nothing_with_it(self):
        apart = discs(SHAPE, 2, {22: (29, 20, 5)})
        running = session(ONE | apart)
        running.add(BOX)
        np.testing.assert_array_equal(running.propagate().data > 0, ONE)
        running.add(Point((29, 20, 22)))
        np.testing.assert_array_equal(running.propagate().data > 0, ONE | apart)

    def test_undo_is_exact_even_if_the_tracks_were_forgotten(self, monkeypatch):
        monkeypatch.setattr("promptseg.propagation.tracker.TRACK_BYTES", 1)
        running, before = self.corrected()
        running.add(WRONG)
        after = running.propagate().data
        running.undo()
        np.testing.assert_array_equal(running.propagate().data, before)
        running.redo()
        np.testing.assert_array_equal(running.propagate().data, after)

    @pytest.mark.parametrize("consistency", ["auto", "clean"])
    def test_undo_is_exact_with_every_consistency(self, consistency):
        running = segmenter().session(bright_volume(ONE | TWO), consistency=consistency)
        running.add(BOTH)
        before = running.propagate()
        running.add(WRONG)
        changed = running.propagate()
        assert changed.report["encoded_slices"] == before.report["encoded_slices"]
        running.undo()
        np.testing.assert_array_equal(running.propagate().data, before.data)

    def test_clicks_after_an_answer_are_corrections_and_before_are_not(self):
        running = session(ONE | TWO)
        running.add(Point((12, 20, 10)))
        running.add(Point((12, 20, 12)))
        running.segment()
        running.add(Point((29, 20, 10)), Point((29, 20, 5), target=2))
        assert [p.role for p in running.prompts] == [None, None, CORRECTION, None]

    def test_a_target_that_was_never_answered_is_not_corrected(self):
        running = session(ONE | TWO)
        running.add(BOX)
        running.segment()
        running.add(Point((29, 20, 5), target=2))
        running.add(Point((29, 20, 9), target=2))
        assert [p.role for p in running.prompts if isinstance(p, Point)] == [None, None]

    def test_after_undoing_the_first_answer_clicks_start_anew(self):
        running = session(ONE | TWO)
        running.add(BOX)
        running.segment()
        running.undo()
        running.add(Point((29, 20, 5)))
        running.add(Point((29, 20, 9)))
        assert [p.role for p in running.prompts] == [None, None]

    def test_a_second_target_leaves_the_first_as_it_was(self):
        running = session(ONE | TWO)
        running.add(BOX)
        before = running.propagate().data
        running.add(Point((29, 20, 8), target=2))
        after = running.propagate().data
        np.testing.assert_array_equal(after == 1, before == 1)
        np.testing.assert_array_equal(after == 2, TWO)


class TestRefine:
    def noisy(self):
        rng = np.random.default_rng(0)
        image = ONE * 90.0 + rng.normal(10, 4, SHAPE)
        volume = ps.Volume(np.clip(image, 0, 100).astype(np.float32), np.eye(4))
        running = segmenter().session(volume, window="100,50", consistency="none")
        running.add(BOX)
        running.propagate()
        return running

    def test_graph_cut_takes_up_clicks_without_the_network(self):
        running = self.noisy()
        before, asked = running.result.data, running.result.report["decoded_masks"]
        running.add(Point((12, 20, 21)))
        after = running.refine("graph_cut").data
        assert after[12, 20, 21] == 1
        assert running.result.report["decoded_masks"] == asked
        assert dice(after[:, :, :20] > 0, before[:, :, :20] > 0) > 0.9

    def test_undo_restores_and_replay_repeats_it(self):
        running = self.noisy()
        before = running.result.data
        running.add(Point((12, 20, 21)), Point((12, 14, 10), positive=False))
        after = running.refine("graph_cut").data
        again = running.segmenter.segment(running.volume, running.prompts, window="100,50")
        np.testing.assert_array_equal(again.data, after)
        running.undo()
        np.testing.assert_array_equal(running.propagate().data, before)

    def test_every_click_gives_what_a_new_session_gives(self):
        running = self.noisy()
        clicks = Point((12, 20, 21)), Point((12, 14, 10), positive=False), Point((14, 21, 4))
        for click in (*clicks, None, clicks[0]):
            running.undo() if click is None else running.add(click)
            found = running.propagate() if click is None else running.refine("graph_cut")
            again = running.segmenter.segment(running.volume, running.prompts, window="100,50")
            np.testing.assert_array_equal(found.data, again.data)

    def test_network_mode_is_a_correction(self):
        running = session(ONE | TWO)
        running.add(BOTH)
        running.propagate()
        running.add(WRONG)
        refined = running.refine("network").data
        plain = session(ONE | TWO)
        plain.add(BOTH)
        plain.propagate()
        plain.add(WRONG)
        np.testing.assert_array_equal(refined, plain.propagate().data)

    @pytest.mark.parametrize("mode", ["graph_cut", "network", "both"])
    def test_first_clicks_of_a_new_target_stay_what_they_are(self, mode):
        running = session(ONE | TWO)
        running.add(BOX)
        running.propagate()
        running.add(Point((12, 20, 12)), Point((29, 20, 8), target=2))
        found = running.refine(mode).data
        np.testing.assert_array_equal(found == 2, TWO)

    @pytest.mark.parametrize("mode", ["graph_cut", "network", "both"])
    def test_without_an_answer_there_is_nothing_to_refine(self, mode):
        running = session()
        running.add(Point((12, 20, 12)))
        with pytest.raises(PromptError, match="nothing to refine"):
            running.refine(mode)
        assert [p.role for p in running.prompts] == [None]
        np.testing.assert_array_equal(running.propagate().data > 0, ONE)

    def test_without_a_new_click_there_is_nothing_to_refine(self):
        running = session()
        running.add(BOX)
        running.propagate()
        with pytest.raises(PromptError, match="nothing to refine"):
            running.refine()

    def test_unknown_mode(self):
        running = session()
        running.add(BOX)
        running.propagate()
        running.add(Point((12, 20, 12)))
        with pytest.raises(PromptError, match="'magic' is unknown: use graph_cut, network, both"):
            running.refine("magic")


class TestChanged:
    def test_first_answer_changes_what_it_fills(self):
        running = session()
        running.add(BOX)
        running.propagate()
        assert running.changed == bounding_slices(ONE)

    def test_correction_changes_where_it_differs(self):
        running = session(ONE | TWO)
        running.add(BOTH)
        before = running.propagate().data
        running.add(WRONG)
        after = running.propagate().data
        assert running.changed == bounding_slices(before != after)
        outside = np.ones(SHAPE, bool)
        outside[running.changed] = False
        np.testing.assert_array_equal(before[outside], after[outside])

    def test_the_same_answer_changes_nothing(self):
        running = session()
        running.add(BOX)
        running.propagate()
        running.propagate()
        assert running.changed is None

    def test_bounds_are_tight(self):
        mask = np.zeros((9, 8, 7), bool)
        mask[2, 3, 4] = mask[6, 3, 5] = True
        assert bounding_slices(mask) == (slice(2, 7), slice(3, 4), slice(4, 6))
        assert bounding_slices(np.zeros((2, 2, 2), bool)) is None


class TestSharedCache:
    def test_a_second_session_on_the_same_volume_encodes_nothing(self):
        backbone, cache = BrightRegion(), EmbeddingCache()
        owner = segmenter(backbone, cache=cache)
        owner.segment(bright_volume(ONE), [BOX])
        before = backbone.encoded
        owner.segment(bright_volume(ONE), [BOX])
        assert backbone.encoded == before

    @pytest.mark.parametrize("change", ["volume", "window", "spacing"])
    def test_another_volume_or_window_is_encoded_anew(self, change):
        backbone, cache = BrightRegion(), EmbeddingCache()
        owner = segmenter(backbone, cache=cache)
        image = ONE.copy()
        owner.segment(bright_volume(image), [BOX])
        before = backbone.encoded
        if change == "volume":
            image[0, 0, 10] = True
        spacing = (1.0, 1.0, 1.5) if change == "spacing" else (1.0, 1.0, 1.0)
        window = "100,50" if change == "window" else "auto"
        owner.segment(bright_volume(image, spacing), [BOX], window=window)
        assert backbone.encoded > before
