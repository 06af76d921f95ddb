import json

import numpy as np
import pytest
import torch
from support import bright_volume, discs, segmenter
from tiny_cohort import load_benchmark, write_tiny_cohort

from promptseg.inference.decoder import SliceMask
from promptseg.inference.labels import FrameMasks
from promptseg.inference.slice_prompts import REFINE
from promptseg.predictor.uncertainty import Suggestion, suggest
from promptseg.predictor.uncertainty.suggestion import prompted_slices, slice_states, slice_values
from promptseg.prompts.types import Box, Point, PromptSet, Scribble
from promptseg.volume.slicing import Frame, Region

SIDE, COUNT = 32, 24
FRAME = Frame(2, Region((0, SIDE), (0, SIDE)), (SIDE, SIDE, COUNT), (1, 1, 1), SIDE)
START = Box((8, 8, 12), (24, 24, 13))


def disc(radius, sharp=4.0, row=16.0):
    """(32, 32) logits that cross 0 on a circle; the smaller `sharp` the less sure."""
    rows, columns = np.indices((SIDE, SIDE))
    far = np.hypot(rows - row, columns - 16)
    return torch.from_numpy(np.clip((radius - far) * sharp, -8, 8)).float()


def masks(first=4, last=20, **odd):
    """Good answers, the same on every slice but those given as s9=SliceMask(...)."""
    plain = {i: SliceMask(disc(8), 0.9) for i in range(first, last)}
    return plain | {int(name[1:]): mask for name, mask in odd.items()}


def asked(*prompts, frame=FRAME, **answers):
    """A suggestion for targets t1=masks(...)."""
    group = FrameMasks(frame, {int(name[1:]): held for name, held in answers.items()})
    return suggest([group], PromptSet(prompts or (START,)))


class TestPlantedBadSlice:
    @pytest.mark.parametrize("at", [6, 9, 16, 18])
    @pytest.mark.parametrize(
        "bad",
        [
            SliceMask(disc(8, sharp=0.15), 0.9),
            SliceMask(disc(8), 0.2),
            SliceMask(disc(8), 0.9, presence=0.2),
            SliceMask(disc(8, row=22), 0.9),
        ],
        ids=["unsure edge", "poor quality", "hardly present", "moved"],
    )
    def test_is_found(self, bad, at):
        found = asked(t1=masks(**{f"s{at}": bad}))
        assert isinstance(found, Suggestion)
        assert abs(found.index - at) <= 1
        assert (found.axis, found.target) == (2, 1)

    def test_of_the_target_that_has_it(self):
        found = asked(
            START, Box((8, 8, 12), (24, 24, 13), target=3), t1=masks(),
            t3=masks(s8=SliceMask(disc(8), 0.1)),
        )  # fmt: skip
        assert (found.target, found.index) == (3, 8)

    def test_of_the_target_that_is_asked_for(self):
        group = FrameMasks(FRAME, {1: masks(), 3: masks(s8=SliceMask(disc(8), 0.1))})
        assert suggest([group], PromptSet([START]), (1,)).target == 1

    def test_a_bad_stretch_is_corrected_in_its_middle(self):
        bad = {f"s{i}": SliceMask(disc(8), 0.2) for i in range(4, 9)}
        assert asked(t1=masks(**bad)).index in (5, 6, 7)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_on_every_axis(self, axis):
        shape = tuple(COUNT if a == axis else SIDE for a in range(3))
        frame = Frame(axis, FRAME.region, shape, (1, 1, 1), SIDE)
        at = tuple(12 if a == axis else 16 for a in range(3))
        found = asked(Point(at), frame=frame, t1=masks(s8=SliceMask(disc(8), 0.2)))
        assert (found.axis, found.index) == (axis, 8)


class TestWhatWasGiven:
    def test_a_correction_lowers_the_value_of_its_slice(self):
        held = masks(s7=SliceMask(disc(8), 0.3), s17=SliceMask(disc(8), 0.3))
        first = asked(t1=held).index
        for role in (None, "correction", REFINE):
            click = Point((16.0, 16.0, float(first)), role=role)
            assert asked(START, click, t1=held).index != first
        values = [slice_values(slice_states(held, {12: 1, 7: n}))[7] for n in (0, 1, 2)]
        assert values[0] > values[1] > values[2] > 0

    def test_a_mask_that_the_user_gave_is_not_doubted(self):
        given = np.zeros((SIDE, SIDE), bool)
        given[8:24, 8:24] = True
        states = slice_states({5: SliceMask(disc(8, 0.1), 0.1, 0.1, given)}, {5: 1})
        assert states[5].doubt == states[5].poor == 0

    def test_prompts_of_every_kind_count_on_their_slices(self):
        prompts = PromptSet(
            [
                START,
                Point((1, 2, 5.6)),
                Point((1, 2, 6), positive=False, role=REFINE),
                Scribble(np.array([[3, 3, 9], [4, 4, 9], [4, 4, 10]])),
                Point((1, 2, 7), target=2),
            ]
        )
        found = prompted_slices(prompts, 2, (SIDE, SIDE, COUNT), 1)
        assert found == {12: 1, 6: 2, 9: 1, 10: 1}
        assert prompted_slices(prompts, 2, (SIDE, SIDE, COUNT), 2) == {7: 1}


class TestNothing:
    def test_no_mask_is_no_suggestion(self):
        empty = {5: SliceMask(torch.full((SIDE, SIDE), -8.0), 0.1)}
        assert asked(t1=empty) is None
        assert asked(t1={}) is None
        assert suggest([], PromptSet([START])) is None

    def test_one_slice(self):
        found = asked(t1={12: SliceMask(disc(8), 0.5)})
        assert found.index == 12
        assert 0 < found.score <= 1


class TestSession:
    SHAPE = (40, 44, 24)
    ONE = discs(SHAPE, 2, dict.fromkeys(range(4, 20), (12, 20, 5)))

    def session(self):
        running = segmenter().session(bright_volume(self.ONE))
        running.add(Box((7, 15, 10), (18, 26, 11)))
        return running

    def test_a_slice_with_a_mask_and_reasons(self):
        running = self.session()
        running.propagate()
        found = running.suggest()
        assert found.index in range(4, 20)
        assert found.index != 10
        assert found.target == 1
        assert "%" in found.reason
        assert running.suggest(target=7) is None

    def test_nothing_is_asked_of_the_network(self):
        running = self.session()
        running.propagate()
        engine = running.asker.answerer.engine
        before = engine.decoder.decoded, engine.encoder.encoded
        running.suggest()
        assert (engine.decoder.decoded, engine.encoder.encoded) == before

    def test_following_suggestions_visits_other_slices(self):
        running, seen = self.session(), []
        running.propagate()
        for _ in range(4):
            index = running.suggest().index
            seen.append(index)
            running.add(Point((12, 20, index)))
            running.propagate()
        assert len(set(seen)) == 4

    def test_what_was_checked_is_left_out_until_nothing_is_left(self):
        running, checked = self.session(), []
        running.propagate()
        while found := running.suggest(checked=checked):
            assert found.index not in [index for _, index, _ in checked]
            checked.append((found.axis, found.index, found.target))
        assert 1 < len(checked) <= 16
        assert running.suggest().index == checked[0][1]

    def test_it_refers_to_the_latest_answer(self):
        running = self.session()
        running.propagate()
        first = running.suggest()
        running.add(Point((12, 20, first.index)))
        assert running.suggest() == first
        running.propagate()
        assert running.suggest() != first


class TestBenchmark:
    def test_prints_a_table_and_goes_on_where_it_stopped(self, tmp_path, monkeypatch, capsys):
        model = write_tiny_cohort(tmp_path / "acdc")
        benchmark = load_benchmark("suggest")
        monkeypatch.setattr(benchmark, "DATA", tmp_path)
        monkeypatch.setattr(benchmark, "GROUPS", {"acdc": benchmark.Group("acdc", (1,), 1, 2)})
        job = ["--out", str(tmp_path / "out"), "--model", str(model), "--device", "cpu"]
        job += ["--data", "acdc", "--clicks", "1", "--draws", "2"]
        assert benchmark.main(job) == 0
        shown = capsys.readouterr().out
        files = sorted((tmp_path / "out").glob("*/*.json"))
        assert len(files) == 2
        found = json.loads(files[0].read_text())
        assert set(found["dice"]) == set(benchmark.CHOICES)
        assert [len(curve) for curve in found["dice"]["random"]] == [2, 2]
        assert "| suggested |" in shown
        assert "n = 2" in shown
        stamps = [file.stat().st_mtime_ns for file in files]
        assert benchmark.main(job) == 0
        assert [file.stat().st_mtime_ns for file in files] == stamps
        assert capsys.readouterr().out == shown
