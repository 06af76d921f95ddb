import numpy as np
import pytest
import torch

from promptseg.inference.decoder import SliceMask
from promptseg.inference.labels import (
    AT_ONCE,
    FrameMasks,
    fuse_labels,
    placed_logits,
    probabilities,
    slice_logits,
)
from promptseg.volume.slicing import Frame, Region


class TestPainting:
    SHAPE = (16, 16, 4)

    def answered(self, region=Region((0, 16), (0, 16)), **levels):  # noqa: B008
        frame = Frame(2, region, self.SHAPE, (1.0, 1.0, 1.0), 16)
        answers = {
            int(target[1:]): {1: SliceMask(torch.full((16, 16), float(level)), 0.5)}
            for target, level in levels.items()
        }
        return FrameMasks(frame, answers)

    @pytest.mark.parametrize(
        ("one", "two", "label"), [(3, 5, 2), (5, 3, 1), (-1, 2, 2), (-3, -1, 0)]
    )
    def test_the_greatest_logit_above_zero_wins(self, one, two, label):
        painted = fuse_labels([self.answered(t1=one, t2=two)], self.SHAPE)
        assert np.all(painted.labels[:, :, 1] == label)
        assert not painted.labels[:, :, [0, 2, 3]].any()

    @pytest.mark.parametrize("turned", [False, True])
    def test_also_between_views(self, turned):
        small = self.answered(Region((4, 12), (4, 12)), t2=9)
        both = [self.answered(t1=5), small]
        labels = fuse_labels(both[::-1] if turned else both, self.SHAPE).labels[:, :, 1]
        assert np.all(labels[4:12, 4:12] == 2)
        assert (labels == 1).sum() == 256 - 64

    def test_a_view_beyond_the_image_is_cut(self):
        labels = fuse_labels([self.answered(Region((-8, 8), (8, 24)), t1=5)], self.SHAPE).labels
        assert labels[:, :, 1].sum() == 64
        assert labels[:8, 8:, 1].all()

    def test_uncertainty_is_greatest_at_one_half(self):
        doubt = {
            level: fuse_labels([self.answered(t1=level)], self.SHAPE, uncertainty=True).uncertainty
            for level in (0, 2, -2, 9)
        }
        assert np.allclose(doubt[0][:, :, 1], 1)
        np.testing.assert_allclose(doubt[2], doubt[-2])
        probability = 1 / (1 + np.exp(-2))
        assert doubt[2][0, 0, 1] == pytest.approx(1 - abs(2 * probability - 1), abs=1e-6)
        assert doubt[9].max() < 0.01
        assert not doubt[0][:, :, 0].any()
        assert fuse_labels([self.answered(t1=1)], self.SHAPE).uncertainty is None

    def test_probabilities_of_one_target(self):
        found = probabilities([self.answered(t1=2, t2=-2)], self.SHAPE, 2)
        assert found[3, 3, 1] == pytest.approx(1 / (1 + np.exp(2)), abs=1e-6)
        assert not found[:, :, 0].any()

    def test_many_slices_at_once_equal_one_by_one(self):
        shape = (16, 16, 2 * AT_ONCE + 3)
        frame = Frame(2, Region((2, 15), (-3, 12)), shape, (1.0, 1.0, 1.0), 16)
        generator = torch.Generator().manual_seed(2)
        answers = {
            target: {
                index: SliceMask(torch.randn(16, 16, generator=generator), 0.5)
                for index in range(target, shape[2], target)
            }
            for target in (1, 2)
        }
        given = np.zeros((16, 16), bool)
        given[3:5, 4:9] = True
        answers[2][4] = SliceMask(torch.zeros(16, 16), 1.0, given=given)
        group = FrameMasks(frame, answers)
        told = list(placed_logits([group], range(shape[2])))
        assert [index for index, _ in told] == list(range(shape[2]))
        for index, placed in told:
            alone = slice_logits([group], index)
            assert [t for t, *_ in placed] == [t for t, *_ in alone]
            for (_, place, logits), (_, expected_place, expected) in zip(
                placed, alone, strict=True
            ):
                assert place == expected_place
                np.testing.assert_array_equal(logits, expected)
