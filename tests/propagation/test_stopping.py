from dataclasses import replace

import pytest
from walks_kit import EMPTY, disc

from promptseg.propagation.stopping import NEVER, StopRules, rules_for, rules_where_told


class TestStopRules:
    def test_the_same_again_is_trusted(self):
        assert not StopRules().poor(disc(), disc().logits)

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
        assert StopRules().poor(answer, disc().logits)

    @pytest.mark.parametrize("answer", [disc(radius=10), disc(radius=5), disc(column=20)])
    def test_a_gradual_change_is(self, answer):
        assert not StopRules().poor(answer, disc().logits)

    def test_other_grey_levels_inside_are_not(self):
        rules = StopRules()
        doubtful = replace(disc(), quality=0.6)
        assert rules.poor(replace(doubtful, likeness=0.8), disc().logits)
        assert not rules.poor(replace(doubtful, likeness=0.95), disc().logits)

    def test_a_good_answer_on_a_thick_slice_may_look_different(self):
        odd = replace(disc(), likeness=0.5, quality=0.8)
        assert not rules_for(StopRules(), lag=1).poor(odd, disc().logits)
        assert rules_for(StopRules(), lag=3).poor(odd, disc().logits)

    def test_a_slice_unlike_the_target_is_poor_however_sure_the_answer(self):
        thick = rules_for(StopRules(), lag=1)
        sure = replace(disc(), quality=0.95)
        assert thick.poor(replace(sure, likeness=0.05), disc().logits)
        assert not thick.poor(replace(sure, likeness=0.3), disc().logits)

    def test_grey_levels_count_for_nothing_where_likeness_is_off(self):
        odd = replace(disc(), likeness=0.0)
        assert not StopRules(likeness=0).poor(odd, disc().logits)
        assert StopRules().poor(odd, disc().logits)

    def test_every_limit_can_be_set(self):
        burst = disc(radius=13.5)
        assert not StopRules(growth=4, overlap=0).poor(burst, disc().logits)
        assert StopRules(growth=1.2).poor(disc(radius=10), disc().logits)
        assert StopRules(least_area=500).poor(disc(), disc().logits)


class TestNever:
    @pytest.mark.parametrize("lag", [1, 3])
    def test_every_answer_is_trusted(self, lag):
        hopeless = replace(EMPTY, quality=0.0, presence=0.0, likeness=0.0)
        for answer in (hopeless, disc(radius=1), disc(radius=13.5)):
            for before in (EMPTY, disc()):
                assert not rules_for(NEVER, lag).poor(answer, before.logits)
                assert not NEVER.poor(answer, before.logits)
        assert rules_where_told(StopRules()).poor(hopeless, disc().logits)
