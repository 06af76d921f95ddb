"""Which of the masks that a click could mean it means."""

import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, bright_volume, dice, discs, segmenter

import promptseg as ps
from promptseg.errors import WeightsError
from promptseg.inference.decoder import SliceDecoder
from promptseg.inference.multimask import looked_at, mask_candidates
from promptseg.inference.ranking import (
    MaskRanking,
    RankingNetwork,
    RankingNetworks,
    expected,
    load_ranking,
    save_ranking,
)
from promptseg.inference.ranking_features import FEATURES, agreement
from promptseg.inference.slice_prompts import SlicePrompts

SHAPE = (96, 96, 3)
DISC = discs(SHAPE, 2, {1: (40, 50, 12)})
EVEN = (1.0, 1.0, 1.0)
CLICK = SlicePrompts(points=[(40, 50, 1)], labels=[1], correction=[False])


def looks_at(image, click=CLICK):
    return looked_at(SliceDecoder(bright_encoder(image)), 2, EVEN, 1, click)


def column(features, name):
    return features[:, FEATURES.index(name)]


def networks():
    return RankingNetworks({"features": len(FEATURES)}, {"features": 3})


class Prefers(MaskRanking):
    """Expects most of the mask with the greatest or the smallest value of a feature."""

    def __init__(self, name, sign=1):
        super().__init__(networks(), None, "k" * 64)
        self.name, self.sign, self.asked = name, sign, 0

    def of_click(self, features):
        self.asked += 1
        values = self.sign * column(features, self.name)
        order = values.argsort().argsort()
        return ((order + 1) / (len(order) + 1)).tolist()


class TestFeatures:
    def test_one_row_a_mask_and_all_are_finite(self):
        looks = looks_at(DISC)
        features = looks.features()
        assert features.shape == (len(looks.masks), len(FEATURES))
        assert np.isfinite(features).all()

    def test_what_holds_the_click_and_how_deep_it_lies(self):
        looks = looks_at(DISC)
        features = looks.features()
        right = [n for n, one in enumerate(looks.masks) if dice(one.mask, DISC[:, :, 1]) > 0.9]
        assert right
        assert (column(features, "holds_click")[right] == 1).all()
        assert (column(features, "click_depth")[right] > 0.85).all()
        rim = SlicePrompts(points=[(40, 61, 1)], labels=[1], correction=[False])
        off = looks_at(DISC, rim).features()
        assert column(off, "click_depth").max() < 0.5

    def test_a_disc_on_black_has_a_sharp_edge_and_its_surroundings_the_opposite(self):
        looks = looks_at(DISC)
        contrast = column(looks.features(), "signed_contrast")
        for value, one in zip(contrast, looks.masks, strict=True):
            if dice(one.mask, DISC[:, :, 1]) > 0.9:
                assert value > 1
            elif one.mask.any() and not one.mask[40, 50]:
                assert value < 0.5

    def test_the_storage_order_changes_nothing(self):
        turned = SlicePrompts(points=[(50, 40, 1)], labels=[1], correction=[False])
        plain, other = (
            looks_at(DISC).features(),
            looks_at(DISC.transpose(1, 0, 2), turned).features(),
        )
        np.testing.assert_allclose(plain, other, atol=2e-3)

    def test_an_image_without_anything_has_features_too(self):
        assert np.isfinite(looks_at(np.zeros(SHAPE, np.float32)).features()).all()


class TestAgreement:
    def masks(self, *stops):
        planes = np.zeros((len(stops), 20, 20), bool)
        for plane, stop in zip(planes, stops, strict=True):
            plane[:stop] = True
        return planes

    def test_what_every_view_drew_agrees(self):
        found = agreement(self.masks(10, 10, 10), [0, 0, 0])
        np.testing.assert_allclose(found[:, :2], 1)
        np.testing.assert_allclose(found[:, 5], 1)
        np.testing.assert_allclose(found[:, 6], 0.5)

    def test_the_wider_and_the_nearer_view(self):
        found = agreement(self.masks(20, 10, 5), [0, 0, 0])
        np.testing.assert_allclose(found[:, 2], [0, 2 / 3, 2 / 3])
        np.testing.assert_allclose(found[:, 3], [2 / 3, 2 / 3, 0])

    def test_nothing_agrees_with_nothing(self):
        assert not agreement(self.masks(0, 0), [0, 0])[:, :7].any()

    def test_a_single_view(self):
        assert np.isfinite(agreement(self.masks(4, 5, 6), [1])).all()


class TestNetwork:
    def test_the_order_of_the_masks_is_no_matter(self):
        torch.manual_seed(0)
        network = RankingNetwork(5).eval()
        features, valid = torch.randn(2, 7, 5), torch.ones(2, 7, dtype=torch.bool)
        order = torch.randperm(7)
        with torch.no_grad():
            found, turned = network(features, valid), network(features[:, order], valid)
        torch.testing.assert_close(found[..., order], turned)

    def test_masks_that_are_not_there_say_nothing(self):
        torch.manual_seed(0)
        network = RankingNetwork(5).eval()
        features = torch.randn(1, 7, 5)
        valid = torch.arange(7)[None] < 4
        with torch.no_grad():
            whole, cut = network(features, valid), network(features[:, :4], valid[:, :4])
        torch.testing.assert_close(whole[..., :4], cut)
        assert (whole[..., 4:] < -1000).all()

    def test_the_members_differ_and_all_are_heard(self):
        torch.manual_seed(0)
        network = RankingNetwork(5, members=3).eval()
        rows = torch.randn(7, 5).numpy()
        with torch.no_grad():
            scores = network(torch.from_numpy(rows)[None], torch.ones(1, 7, dtype=torch.bool))
        assert scores.shape == (3, 1, 7)
        assert not torch.allclose(scores[0], scores[1])
        assert expected(network, rows) == pytest.approx(scores.sigmoid().mean(0)[0].tolist())


class TestFile:
    def test_what_is_written_is_read(self, tmp_path):
        network = networks()
        save_ranking(network, "a" * 64, tmp_path / "r.safetensors", {"clicks": "3"})
        again = load_ranking(tmp_path / "r.safetensors")
        assert (again.base, len(again.sha256)) == ("a" * 64, 64)
        before = MaskRanking(network, None)
        rows = np.random.default_rng(0).normal(size=(6, len(FEATURES))).astype(np.float32)
        assert again.of_click(rows) == pytest.approx(before.of_click(rows), abs=1e-2)
        assert again.of_box(rows[:, :3]) == pytest.approx(before.of_box(rows[:, :3]), abs=1e-2)

    def test_that_of_another_model_is_not_used(self, tmp_path):
        path = tmp_path / "r.safetensors"
        save_ranking(networks(), "a" * 64, path, {})
        with pytest.raises(WeightsError, match=f"belongs to the model with sha256 {'a' * 64}"):
            _ = segmenter(BrightRegion(), ranking=path).runtime.ranking
        assert segmenter(BrightRegion(), ranking="auto").runtime.ranking is None
        assert segmenter(BrightRegion(name="a" * 64), ranking=path).runtime.ranking is not None

    def test_one_without_a_model_is_refused(self, tmp_path):
        path = tmp_path / "r.safetensors"
        save_ranking(networks(), "", path, {})
        with pytest.raises(WeightsError, match="which model it belongs to"):
            load_ranking(path)


class TestChoice:
    def test_the_mask_that_most_is_expected_of_goes_first(self):
        wide = discs(SHAPE, 2, {1: (40, 50, 24)})
        decoder = SliceDecoder(bright_encoder(wide))
        far, near = (
            mask_candidates(decoder, 2, EVEN, 1, CLICK, Prefers("log_side", sign))[0].mask
            for sign in (1, -1)
        )
        assert dice(far, wide[:, :, 1]) > 0.9
        assert near[40, 50]
        assert near.sum() < 0.8 * far.sum()

    def test_whatever_is_expected_an_empty_mask_is_never_meant(self):
        decoder = SliceDecoder(bright_encoder(DISC))
        found = mask_candidates(decoder, 2, EVEN, 1, CLICK, Prefers("log_area", -1))
        assert all(one.mask.any() for one in found)

    def test_the_answer_names_what_chose(self):
        ranking = Prefers("own_quality")
        ours = segmenter(BrightRegion(), ranking=ranking)
        answer = ours.segment(bright_volume(DISC), [ps.Point((40, 50, 1))])
        assert (ranking.asked, answer.report["ranking"]) == (1, "k" * 64)
        assert dice(answer.data > 0, DISC) > 0.9
        plain = segmenter(BrightRegion()).segment(bright_volume(DISC), [ps.Point((40, 50, 1))])
        assert plain.report["ranking"] is None
