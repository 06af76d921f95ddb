from dataclasses import replace

import pytest
from tracks_kit import EMPTY, disc

from promptseg.errors import PromptsegError
from promptseg.propagation.criteria import CRITERIA, Criterion
from promptseg.propagation.stopping import NEVER, StopCriteria, stop_criteria


class TestStopCriteria:
    def test_the_same_again_is_trusted(self):
        assert not StopCriteria().poor(disc(), disc().logits)

    @pytest.mark.parametrize(
        "answer",
        [disc(presence=0.6), disc(quality=0.2), disc(radius=1), EMPTY],
        ids=["absent", "poor quality", "speck", "empty"],
    )
    def test_what_the_network_disbelieves_is_not(self, answer):
        assert StopCriteria().poor(answer, disc().logits)

    @pytest.mark.parametrize(
        ("limits", "answer"),
        [
            ({"overlap": 0.25}, disc(column=28)),
            ({"growth": 2.5}, disc(radius=13.5)),
            ({"shrink": 0.15}, disc(radius=3)),
        ],
        ids=["jumped", "burst", "shrunk"],
    )
    def test_a_sudden_change_is_not_where_that_is_asked_for(self, limits, answer):
        assert not StopCriteria().poor(answer, disc().logits)
        assert StopCriteria(**limits).poor(answer, disc().logits)

    @pytest.mark.parametrize("answer", [disc(radius=10), disc(radius=5), disc(column=20)])
    def test_a_gradual_change_is(self, answer):
        strict = StopCriteria(overlap=0.25, growth=2.5, shrink=0.15)
        assert not strict.poor(answer, disc().logits)

    def test_every_limit_can_be_set(self):
        assert StopCriteria(growth=1.2).poor(disc(radius=10), disc().logits)
        assert StopCriteria(least_area=500).poor(disc(), disc().logits)
        assert not StopCriteria(presence=0.5).poor(disc(presence=0.6), disc().logits)


class TestNever:
    def test_every_answer_is_trusted(self):
        hopeless = replace(EMPTY, quality=0.0, presence=0.0)
        for answer in (hopeless, disc(radius=1), disc(radius=13.5)):
            for before in (EMPTY, disc()):
                assert not NEVER.poor(answer, before.logits)
        assert StopCriteria().poor(hopeless, disc().logits)


class TestGiven:
    @pytest.mark.parametrize("given", [None, "auto", "", {}, StopCriteria()])
    def test_what_measured_best_unless_told_otherwise(self, given):
        assert stop_criteria(given) == StopCriteria()
        assert stop_criteria(given).to_dict() == {}

    def test_limits_by_name_in_text_or_a_mapping(self):
        found = stop_criteria("growth=3, presence=0.4,patience=2")
        assert found == StopCriteria(growth=3.0, presence=0.4, patience=2)
        assert stop_criteria(found.to_dict()) == found

    def test_never_comes_back_from_what_is_saved(self):
        assert stop_criteria("never") == stop_criteria(NEVER.to_dict()) == NEVER

    @pytest.mark.parametrize("given", ["sideways=3", {"sideways": 3.0}])
    def test_an_unknown_name_is_refused_with_the_known_ones(self, given):
        with pytest.raises(PromptsegError, match="'sideways' is unknown: use growth, least_area"):
            stop_criteria(given)

    @pytest.mark.parametrize("given", ["growth", "growth=much", "growth=3;presence=1"])
    def test_a_limit_that_is_no_number_is_refused(self, given):
        with pytest.raises(PromptsegError, match="give NAME=NUMBER"):
            stop_criteria(given)

    def test_a_registered_criterion_stops_too(self, monkeypatch):
        sinking = Criterion(lambda seen, limit: seen.answer.presence < limit, 0.95)
        monkeypatch.setitem(CRITERIA, "sinking", sinking)
        faint = disc(presence=0.9)
        assert StopCriteria().poor(faint, disc().logits)
        assert not stop_criteria("sinking=0.8").poor(faint, disc().logits)
        assert stop_criteria("sinking=0.8").to_dict() == {"sinking": 0.8}
