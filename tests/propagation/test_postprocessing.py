import numpy as np
import pytest
import torch

from promptseg.errors import PromptsegError
from promptseg.inference.decoder import SliceMask
from promptseg.propagation.postprocessing import (
    SWITCHES,
    Consistency,
    cleaned,
    filled,
    smoothed,
    without_strays,
)


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
        found = cleaned(answers(square(6, 16), stray, square(6, 16)), [3], 5.0)
        assert not (found[4].logits[20:23, 20:23] > 0).any()
        assert (found[4].logits[6:16, 6:16] > 0).all()

    def test_two_prompted_bodies_both_stay(self):
        both = square(2, 8) | square(14, 20)
        stack = without_strays(stack_of(both, both), [0])
        assert torch.equal(stack > 0, torch.from_numpy(np.stack([both, both])))

    def test_small_cavities_are_filled_and_rings_are_not(self):
        ring = square(4, 20) & ~square(8, 16)
        assert torch.equal(filled(stack_of(ring, ring)) > 0, stack_of(ring, ring) > 0)
        pin = square(4, 20)
        pin[10, 10] = False
        found = filled(stack_of(square(4, 20), pin, square(4, 20)))
        assert bool(found[1, 10, 10] > 0)

    def test_thin_slices_are_smoothed_and_thick_ones_are_not(self):
        jump = stack_of(square(4, 20), square(8, 12), square(4, 20))
        assert torch.equal(smoothed(jump, 5.0), jump)
        assert (smoothed(jump, 0.5)[1] > 0).sum() > (jump[1] > 0).sum()

    @pytest.mark.parametrize("spacing", [0.5, 5.0])
    def test_prompted_slices_stay_as_they_are(self, spacing):
        before = answers(square(4, 20), square(8, 12) | square(21, 23), square(4, 20))
        found = cleaned(before, [4], spacing)
        assert torch.equal(found[4].logits, before[4].logits)
        assert sorted(found) == sorted(before)
