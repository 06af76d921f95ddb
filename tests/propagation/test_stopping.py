from dataclasses import replace

import pytest
from tracks_kit import EMPTY, disc

from promptseg.errors import PromptsegError
from promptseg.propagation.criteria import CRITERIA, Criterion
from promptseg.propagation.stopping import (
    NEVER,
    StopCriteria,
    criteria_for,
    criteria_where_extent_given,
    stop_criteria,
)


class TestStopCriteria:
    def test_the_same_again_is_trusted(self):
        assert not StopCriteria().poor(disc(), disc().logits)

    @pytest.mark.parametrize(
        "answer",
        [
            disc(presence=0.4),
            disc(quality=0.2),
            disc(column=28),
            disc(radius=13.5),
            disc(radius=3),
            disc(radius=1),
            EMPTY,
        ],
        ids=["absent", "poor quality", "jumped", "burst", "shrunk", "speck", "empty"],
    )
    def test_a_sudden_change_is_not(self, answer):
        assert StopCriteria().poor(answer, disc().logits)

    @pytest.mark.parametrize("answer", [disc(radius=10), disc(radius=5), disc(column=20)])
    def test_a_gradual_change_is(self, answer):
        assert not StopCriteria().poor(answer, disc().logits)

    def test_other_grey_levels_inside_are_not(self):
        criteria = StopCriteria()
        doubtful = replace(disc(), quality=0.6)
        assert criteria.poor(replace(doubtful, similarity=0.8), disc().logits)
        assert not criteria.poor(replace(doubtful, similarity=0.95), disc().logits)

    def test_a_good_answer_on_a_thick_slice_may_look_different(self):
        odd = replace(disc(), similarity=0.5, quality=0.8)
        assert not criteria_for(StopCriteria(), lag=1).poor(odd, disc().logits)
        assert criteria_for(StopCriteria(), lag=3).poor(odd, disc().logits)

    def test_a_slice_unlike_the_target_is_poor_however_sure_the_answer(self):
        thick = criteria_for(StopCriteria(), lag=1)
        sure = replace(disc(), quality=0.95)
        assert thick.poor(replace(sure, similarity=0.05), disc().logits)
        assert not thick.poor(replace(sure, similarity=0.3), disc().logits)

    def test_grey_levels_count_for_nothing_where_likeness_is_off(self):
        odd = replace(disc(), similarity=0.0)
        assert not StopCriteria(similarity=0).poor(odd, disc().logits)
        assert StopCriteria().poor(odd, disc().logits)

    def test_every_limit_can_be_set(self):
        burst = disc(radius=13.5)
        assert not StopCriteria(growth=4, overlap=0).poor(burst, disc().logits)
        assert StopCriteria(growth=1.2).poor(disc(radius=10), disc().logits)
        assert StopCriteria(least_area=500).poor(disc(), disc().logits)


class TestNever:
    @pytest.mark.parametrize("lag", [1, 3])
    def test_every_answer_is_trusted(self, lag):
        hopeless = replace(EMPTY, quality=0.0, presence=0.0, similarity=0.0)
        for answer in (hopeless, disc(radius=1), disc(radius=13.5)):
            for before in (EMPTY, disc()):
                assert not criteria_for(NEVER, lag).poor(answer, before.logits)
                assert not NEVER.poor(answer, before.logits)
        assert criteria_where_extent_given(StopCriteria()).poor(hopeless, disc().logits)


class TestGiven:
    @pytest.mark.parametrize("given", [None, "auto", "", {}, StopCriteria()])
    def test_what_measured_best_unless_told_otherwise(self, given):
        assert stop_criteria(given) == StopCriteria()
        assert stop_criteria(given).to_dict() == {}

    def test_limits_by_name_in_text_or_a_mapping(self):
        found = stop_criteria("growth=3, presence=0.4,patience=2")
        assert found == StopCriteria(growth=3.0, presence=0.4, patience=2)
        assert stop_criteria(found.to_dict()) == found

    def test_a_limit_asked_for_is_kept_though_it_is_the_default(self):
        found = stop_criteria("presence=0.5")
        assert found.to_dict() == {"presence": 0.5}
        assert stop_criteria(found.to_dict()) == found != StopCriteria()

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
