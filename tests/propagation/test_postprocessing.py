import numpy as np
import pytest
import torch

from promptseg.errors import PromptsegError
from promptseg.inference.decoder import SliceMask
from promptseg.propagation.postprocessing import SWITCHES, Consistency, cleaned


def stack_of(*slices):
    return torch.from_numpy(np.stack(slices) * 16.0 - 8).float()


def square(low, high, side=24):
    plane = np.zeros((side, side), bool)
    plane[low:high, low:high] = True
    return plane


def answers(*slices, start=3):
    stack = stack_of(*slices)
    return {start + n: SliceMask(plane, 0.8) for n, plane in enumerate(stack)}


class TestSwitches:
    def test_names(self):
        assert {name: Consistency.named(name) for name in SWITCHES} == {
            "auto": Consistency(clean=True, coarse=True),
            "none": Consistency(),
            "clean": Consistency(clean=True),
        }

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(PromptsegError, match="'loud' is unknown: use auto"):
            Consistency.named("loud")


class TestCleaning:
    def test_strays_go_and_what_the_prompt_touches_stays(self):
        stray = square(6, 16) | square(20, 23)
        found = cleaned(answers(square(6, 16), stray, square(6, 16)), [3])
        assert not (found[4].logits[20:23, 20:23] > 0).any()
        assert (found[4].logits[6:16, 6:16] > 0).all()

    def test_two_prompted_bodies_both_stay(self):
        both = square(2, 8) | square(14, 20)
        before = answers(both, both)
        assert cleaned(before, [3]) is before

    def test_a_body_across_a_slice_without_an_answer_is_a_stray(self):
        before = answers(square(6, 16), square(6, 16), square(6, 16))
        del before[4]
        assert (cleaned(before, [3])[5].logits < 0).all()

    @pytest.mark.parametrize("key", [[], [4]], ids=["no prompt", "nothing on it"])
    def test_all_stay_where_no_prompted_slice_shows_anything(self, key):
        before = answers(square(6, 16), np.zeros((24, 24), bool), square(20, 23))
        assert cleaned(before, key) is before

    def test_prompted_slices_stay_as_they_are(self):
        before = answers(square(4, 20), square(8, 12) | square(21, 23), square(4, 20))
        found = cleaned(before, [4])
        assert torch.equal(found[4].logits, before[4].logits)
        assert sorted(found) == sorted(before)
