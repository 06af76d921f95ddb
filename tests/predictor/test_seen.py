"""The answer does not depend on the order in which a file stores its voxels."""

from dataclasses import replace

import numpy as np
import pytest
from orders import ORDERS, restored, stored
from support import dice, discs, segmenter, tiny_default
from text_kit import use_tiny_tower, worded_adapter, words_for

import promptseg as ps
from promptseg.finetune import words as finetune_words
from promptseg.predictor.seen import Seen
from promptseg.volume.orientation import axis_codes

SHAPE = (26, 22, 7)
SLANTED = np.array([[0.98, -0.17, 0.0], [0.17, 0.98, 0.0], [0.0, 0.0, 1.0]])
FEW = ["RAS", "LPS", "PIR", "SPR", "AIL", "RSP"]


@pytest.fixture(autouse=True)
def tower(monkeypatch, tmp_path):
    use_tiny_tower(monkeypatch, tmp_path)
    assert finetune_words.label_words({1: "liver"}) is not None


def lumpy():
    rng = np.random.default_rng(3)
    blob = discs(SHAPE, 2, {n: (12 + n / 3, 11, 5) for n in range(1, 6)}) * 70.0
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = SLANTED @ np.diag([1.0, 1.0, 1.5]), (-20, 31, 4)
    return ps.Volume((blob + rng.normal(60, 12, SHAPE)).astype(np.float32), affine, "MR")


VOLUME = lumpy()


def world(*voxels):
    return VOLUME.to_world(np.array(voxels, float))


def click(voxel, **options):
    return ps.Point(tuple(world(voxel)[0].tolist()), frame="ras", **options)


def box(volume, lo, hi):
    """A voxel box of VOLUME in the voxels of the same volume stored another way."""
    marked = np.zeros(SHAPE, np.uint8)
    marked[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))] = 1
    codes = axis_codes(volume.affine)
    at = np.argwhere(stored(replace(VOLUME, data=marked), codes).data)
    return ps.Box(tuple(at.min(0).tolist()), tuple((at.max(0) + 1).tolist()))


def by_box(made, volume):
    return made.segment(volume, [box(volume, (7, 5, 3), (20, 17, 4))])


def by_click(made, volume):
    return made.segment(volume, [click((13, 11, 3))])


def by_solid_box(made, volume):
    return made.segment(volume, [box(volume, (7, 5, 1), (20, 17, 6))])


def by_stroke(made, volume):
    return made.segment(volume, [ps.Scribble(world((11, 11, 3), (12, 11, 3), (13, 11, 3)),
                                             frame="ras")])  # fmt: skip


def by_margin(made, volume):
    points = world((8, 11, 3), (18, 11, 3), (13, 6, 3), (13, 16, 3), (13, 11, 1), (14, 11, 5))
    return made.segment(volume, [ps.MarginPoints(points, frame="ras")])


def by_correction(made, volume):
    running = made.session(volume)
    running.add(box(volume, (7, 5, 3), (20, 17, 4)))
    running.propagate()
    running.add(click((14, 11, 5)), click((22, 18, 4), positive=False))
    return running.refine()


def by_words(made, volume):
    return made.segment(volume, [ps.Text("left atrium")])


def by_words_and_click(made, volume):
    running = made.session(volume)
    running.add(ps.Text("left atrium"))
    running.propagate()
    running.add(click((14, 11, 5)))
    return running.propagate()


def by_adapter(made, volume):
    made.adapters.use("la")
    try:
        return made.segment(volume)
    finally:
        made.adapters.use(None)


WAYS = (by_box, by_click, by_solid_box, by_stroke, by_margin, by_correction, by_words,
        by_words_and_click, by_adapter)  # fmt: skip


def spoken(**further):
    made = segmenter(tiny_default())
    labels = {1: "left atrium"}
    adapter = worded_adapter(tiny_default(), labels, "la", 20.0, words_for(labels), **further)
    made.adapters.add(adapter)
    return made


class TestSameMask:
    @pytest.mark.parametrize("way", WAYS)
    def test_in_some_orders(self, way):
        made = spoken()
        first = way(made, VOLUME)
        assert 0 < first.data.astype(bool).mean() < 1
        for codes in FEW:
            volume = stored(VOLUME, codes)
            found = way(made, volume)
            np.testing.assert_array_equal(found.affine, volume.affine)
            np.testing.assert_array_equal(restored(found.data, volume, VOLUME), first.data)
            assert found.score == first.score

    @pytest.mark.parametrize("way", [by_correction, by_adapter])
    def test_in_all_orders(self, way):
        made = spoken()
        first = way(made, VOLUME).data
        for codes in ORDERS:
            volume = stored(VOLUME, codes)
            np.testing.assert_array_equal(
                restored(way(made, volume).data, volume, VOLUME), first, err_msg=codes
            )


class TestAnAdapterRemembersItsOrientation:
    def test_it_sees_what_it_was_trained_on(self):
        answers = {}
        for trained in ("RAS", "LPS"):
            made = spoken(orientation=trained)
            for codes in FEW:
                volume = stored(VOLUME, codes)
                found = by_adapter(made, volume)
                assert found.report["orientation"] == {"file": codes, "seen": trained}
                answers.setdefault(trained, []).append(restored(found.data, volume, VOLUME))
        for masks in answers.values():
            assert all(np.array_equal(mask, masks[0]) for mask in masks)
        assert not np.array_equal(answers["RAS"][0], answers["LPS"][0])


class TestInTheFilesOwnIndices:
    @pytest.mark.parametrize("codes", FEW)
    def test_what_a_session_says(self, codes):
        volume = stored(VOLUME, codes)
        running = segmenter(tiny_default()).session(volume, stop="never")
        plain = segmenter(tiny_default()).session(VOLUME, stop="never")
        for session in (running, plain):
            session.add(box(session.volume, (7, 5, 3), (20, 17, 4)))
            session.propagate()
        doubts = running.uncertainty(), plain.uncertainty()
        np.testing.assert_array_equal(restored(doubts[0], volume, VOLUME), doubts[1])
        shares = running.probability(), plain.probability()
        np.testing.assert_array_equal(restored(shares[0], volume, VOLUME), shares[1])
        for one, other in zip(running.candidates(), plain.candidates(), strict=True):
            np.testing.assert_array_equal(restored(one.mask, volume, VOLUME), other.mask)
        mine, other = running.suggest(), plain.suggest()
        marked = np.zeros(SHAPE, bool)
        np.moveaxis(marked, other.axis, 0)[other.index] = True
        there = stored(replace(VOLUME, data=marked.astype(np.uint8)), codes).data
        assert np.moveaxis(there, mine.axis, 0)[mine.index].all()
        assert (mine.score, mine.reason) == (other.score, other.reason)
        assert running.result.report["axis"] == mine.axis
        after = [s.suggest(checked=[(f.axis, f.index, 1)]) for s, f in
                 ((running, mine), (plain, other))]  # fmt: skip
        assert after[0].score == after[1].score
        assert (after[0].axis, after[0].index) != (mine.axis, mine.index)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_an_axis_by_number_is_one_of_the_file(self, axis):
        volume = stored(VOLUME, "PIR")
        found = segmenter().segment(volume, [ps.Point((5, 3, 13))], axis=axis, propagate=False)
        assert found.report["axis"] == axis
        others = tuple(a for a in range(3) if a != axis)
        assert np.count_nonzero(found.data.any(others)) <= 1

    def test_auto_is_the_same_axis_in_the_world(self):
        even = replace(VOLUME, affine=np.eye(4))
        for codes in ORDERS:
            seen = Seen.of(stored(even, codes))
            axis = seen.orientation.file_axis(seen.axis(ps.PromptSet()))
            assert codes[axis] in "SI"


class TestRealHeart:
    @pytest.mark.parametrize(("ranking", "least"), [(None, 0.5), ("auto", 0.01)])
    def test_a_click_in_another_order(self, shared_data, ranking, least):
        """What is learned of clicks takes a part of this atrium, the same in any order."""
        folder = shared_data / "left_atrium"
        name = sorted(path.name for path in (folder / "images").iterdir())[56]
        whole, labels = ps.read(folder / "images" / name), ps.read(folder / "labels" / name)
        part = (slice(40, 150), slice(20, 120), slice(30, 60, 6))
        affine = whole.affine @ np.diag([1, 1, 6, 1])
        heart = ps.Volume(np.ascontiguousarray(whole.data[part]), affine, "MR")
        truth = labels.data[part] > 0
        made = ps.Segmenter.from_pretrained(
            "default", device="cpu", precision="fp32", ranking=ranking
        )
        middle = np.argwhere(truth[:, :, 2]).mean(0).round()
        at = tuple(heart.to_world(np.array([[*middle, 2]]))[0].tolist())
        prompts = [ps.Point(at, frame="ras")]
        first = made.segment(heart, prompts).data
        assert dice(first > 0, truth) > least
        volume = stored(heart, "SPL")
        found = made.segment(volume, prompts).data
        np.testing.assert_array_equal(restored(found, volume, heart), first)
