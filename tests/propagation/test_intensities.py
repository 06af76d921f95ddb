import numpy as np
import pytest
import torch

from promptseg.inference.decoder import SliceMask
from promptseg.propagation.intensities import log_ratio, without_odd_greys

SIDE = 64


def disc(radius):
    rows, columns = np.indices((SIDE, SIDE)) - SIDE / 2 + 0.5
    return torch.from_numpy(np.hypot(rows, columns) <= radius)


def mask(radius, logit=2.0):
    return SliceMask(torch.where(disc(radius), logit, -logit), 0.9)


def grey(radius, inside=0.7, outside=0.3):
    noise = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.03
    return torch.where(disc(radius), inside, outside) + noise


class TestOddGreys:
    KNOWN = {4: mask(16), 5: mask(16)}  # noqa: RUF012
    GREYS = {4: grey(16), 5: grey(16), 6: grey(14), 7: grey(20)}  # noqa: RUF012

    def test_a_rim_that_looks_like_the_surroundings_goes(self):
        found = without_odd_greys({6: mask(18)}, self.KNOWN, self.GREYS, ())
        inside = found[6].logits > 0
        assert disc(18).sum() > inside.sum()
        assert not (disc(14) & ~inside).any()
        assert (inside & ~disc(14)).sum() < 0.3 * (disc(18) & ~disc(14)).sum()

    def test_nothing_is_added(self):
        found = without_odd_greys({7: mask(12)}, self.KNOWN, self.GREYS, ())
        assert torch.equal(found[7].logits > 0, disc(12))

    def test_prompted_slices_stay(self):
        answers = {5: mask(20), 6: mask(18)}
        found = without_odd_greys(answers, self.KNOWN, self.GREYS, {5: None})
        assert found[5] is answers[5]
        assert found[6] is not answers[6]

    def test_the_middle_of_a_mask_stays_whatever_it_looks_like(self):
        hollow = torch.where(disc(4), 0.3, grey(26))
        found = without_odd_greys({6: mask(26)}, self.KNOWN, {**self.GREYS, 6: hollow}, ())
        assert torch.equal(found[6].logits[disc(4)], mask(26).logits[disc(4)])

    @pytest.mark.parametrize(
        "known",
        [{}, {5: mask(16)}, {4: mask(2), 5: mask(2)}, {4: mask(16), 5: mask(0)}],
        ids=["none", "one", "small", "empty"],
    )
    def test_nothing_is_learned_from_too_little(self, known):
        answers = {6: mask(18)}
        assert without_odd_greys(answers, known, self.GREYS, ()) is answers

    def test_grey_levels_are_compared(self):
        ratio = log_ratio(disc(16)[None], grey(16)[None].clamp(0, 1))
        assert ratio is not None
        assert float(ratio[int(0.7 * 48)]) > 2 > -2 > float(ratio[int(0.3 * 48)])
        assert abs(float(ratio[0])) < 0.1
