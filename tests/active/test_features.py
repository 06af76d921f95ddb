import numpy as np
import pytest
import torch

from promptseg.active.features import class_probabilities, doubts, masked_feature, watching
from promptseg.active.looking import slice_sample


class TestMaskedFeature:
    def test_equation_by_hand(self):
        maps = torch.zeros(2, 32, 32)
        maps[0, 4, 6], maps[1, 4, 6] = 3.0, 1.0
        mask = torch.zeros(32, 32, dtype=torch.bool)
        mask[4:6, 6:8] = True
        found = masked_feature([maps], [mask])
        expected = np.zeros((16, 16))
        expected[2, 3] = 2.0 / 4  # mean over channels 2, greatest of the patch, four pixels
        assert np.allclose(found, expected.ravel())

    def test_outside_of_the_mask_does_not_count(self):
        maps = torch.full((3, 32, 32), 7.0)
        mask = torch.zeros(32, 32, dtype=torch.bool)
        mask[0, 0] = True
        assert (masked_feature([maps], [mask]) > 0).sum() == 1

    def test_nothing_predicted(self):
        assert masked_feature([torch.ones(1, 16, 16)], [torch.zeros(16, 16)]) is None

    def test_several_targets_add_up(self):
        maps = torch.ones(1, 16, 16)
        one, two = torch.zeros(16, 16), torch.zeros(16, 16)
        one[0, 0], two[5, 5] = 1, 1
        found = masked_feature([maps, maps], [one, two]).reshape(16, 16)
        assert found[0, 0] == found[5, 5] == 0.5

    def test_mask_of_another_size(self):
        mask = torch.zeros(64, 64)
        mask[:32] = 1
        found = masked_feature([torch.ones(1, 32, 32)], [mask]).reshape(16, 16)
        assert (found[:8] > 0).all()
        assert not found[8:].any()


class TestStrayPixels:
    @pytest.mark.parametrize(("side", "seen"), [(2, False), (5, True)])
    def test_are_no_prediction(self, side, seen):
        logits = torch.full((32, 32), -4.0)
        logits[:side, :side] = 4.0
        found = slice_sample("case", "", 3, [torch.ones(2, 32, 32)], [logits])
        assert (found.feature is not None) == seen


class TestDoubts:
    def test_two_classes_by_hand(self):
        shares = class_probabilities(torch.tensor([[[0.0, 200.0]]]))
        least, margin, entropy = doubts(shares)
        assert least == pytest.approx(0.5)
        assert margin == pytest.approx(1.0)
        assert entropy == pytest.approx(np.log(2))

    def test_probabilities_add_up(self):
        shares = class_probabilities(torch.randn(3, 4, 4))
        assert torch.allclose(shares.sum(0), torch.ones(4, 4, dtype=torch.float64))

    def test_three_classes_order_differently_from_two(self):
        shares = torch.tensor([[[0.5]], [[0.4]], [[0.1]]]).double()
        least, margin, _ = doubts(shares)
        assert least == pytest.approx(0.1)
        assert margin == pytest.approx(0.1)


class TestWatching:
    def test_unknown_layer_leaves_the_list_empty(self):
        layer = torch.nn.Linear(2, 2)
        with watching(layer) as seen:
            layer(torch.zeros(1, 2))
        assert seen == []
