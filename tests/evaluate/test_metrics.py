"""Agreement of the metrics with MONAI and surface-distance, and their degenerate cases."""

import builtins
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from scipy import ndimage

from promptseg.errors import PromptsegError, VolumeError
from promptseg.evaluate import metrics

surface_distance = pytest.importorskip("surface_distance")


def blob(seed, shape, share=0.7):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return field > np.quantile(field, share)


def one(shape, at):
    mask = np.zeros(shape, bool)
    mask[at] = True
    return mask


def pairs():
    solid = np.zeros((9, 10, 8), bool)
    solid[2:7, 3:8, 1:6] = True
    return {
        "random 3D": (blob(0, (14, 15, 13)), blob(1, (14, 15, 13)), (1.0, 1.0, 1.0)),
        "anisotropic 3D": (blob(2, (14, 15, 9)), blob(3, (14, 15, 9)), (0.8, 0.7, 4.0)),
        "random 2D": (blob(4, (22, 25)), blob(5, (22, 25)), (1.0, 1.0)),
        "anisotropic 2D": (blob(6, (22, 25)), blob(7, (22, 25)), (0.5, 2.5)),
        "one voxel": (one((5, 5, 5), (2, 2, 2)), one((5, 5, 5), (2, 4, 2)), (1.0, 1.0, 2.0)),
        "touching the border": (solid[2:7, 3:8, 1:6], solid[2:7, 4:9, 1:6], (1.0, 2.0, 3.0)),
        "equal": (solid, solid, (1.0, 1.0, 1.0)),
        "full": (np.ones((3, 4, 5), bool), np.ones((3, 4, 5), bool), (1.0, 1.0, 1.0)),
        "one pixel": (one((4, 4), (0, 0)), one((4, 4), (3, 3)), (1.0, 1.5)),
    }


def reference(pred, truth, spacing):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return surface_distance.compute_surface_distances(truth, pred, spacing)


def batched(mask):
    return torch.from_numpy(mask)[None, None]


@pytest.mark.parametrize("name", pairs())
class TestAgreement:
    def test_surface_distances(self, name):
        pred, truth, spacing = pairs()[name]
        found, expected = (
            metrics.surface_distances(pred, truth, spacing),
            reference(pred, truth, spacing),
        )
        np.testing.assert_allclose(found.pred_to_truth, expected["distances_pred_to_gt"])
        np.testing.assert_allclose(found.truth_to_pred, expected["distances_gt_to_pred"])
        np.testing.assert_allclose(found.pred_areas, expected["surfel_areas_pred"], rtol=1e-5)
        np.testing.assert_allclose(found.truth_areas, expected["surfel_areas_gt"], rtol=1e-5)

    @pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0])
    def test_nsd(self, name, tolerance):
        pred, truth, spacing = pairs()[name]
        found = metrics.normalised_surface_dice(pred, truth, spacing, tolerance)
        expected = surface_distance.compute_surface_dice_at_tolerance(
            reference(pred, truth, spacing), tolerance
        )
        assert found == pytest.approx(expected, rel=1e-5)

    def test_nsd_of_monai(self, name):
        pred, truth, spacing = pairs()[name]
        expected = compute_surface_dice(
            batched(pred), batched(truth), [1.0], True, spacing=spacing, use_subvoxels=True
        )
        found = metrics.normalised_surface_dice(pred, truth, spacing, 1.0)
        assert found == pytest.approx(float(expected), abs=1e-5)

    def test_hd95(self, name):
        pred, truth, spacing = pairs()[name]
        expected = surface_distance.compute_robust_hausdorff(reference(pred, truth, spacing), 95)
        assert metrics.hd95(pred, truth, spacing) == pytest.approx(expected)

    def test_overlap_of_monai(self, name):
        pred, truth, _ = pairs()[name]
        a, b = batched(pred), batched(truth)
        assert metrics.dice(pred, truth) == pytest.approx(float(compute_dice(a, b)))
        assert metrics.jaccard(pred, truth) == pytest.approx(float(compute_iou(a, b)))

    def test_assd_of_monai(self, name):
        pred, truth, spacing = pairs()[name]
        expected = compute_average_surface_distance(
            batched(pred), batched(truth), True, symmetric=True, spacing=spacing
        )
        assert metrics.assd(pred, truth, spacing) == pytest.approx(float(expected), rel=1e-5)


class TestHausdorffOfMonai:
    def test_differs_by_less_than_a_voxel(self):
        grid = np.indices((30, 30, 30)) - 15
        truth, pred = np.linalg.norm(grid, axis=0) < 9, np.linalg.norm(grid, axis=0) < 12
        expected = compute_hausdorff_distance(batched(pred), batched(truth), True, percentile=95)
        assert metrics.hd95(pred, truth) == pytest.approx(float(expected), abs=1.0)


class TestProperties:
    @settings(max_examples=30, deadline=None)
    @given(
        st.integers(0, 10**6),
        st.sampled_from([(7, 9), (5, 6, 4)]),
        st.floats(0.05, 0.95),
        st.floats(0.3, 4.0),
    )
    def test_matches_the_reference_on_noise(self, seed, shape, share, step):
        rng = np.random.default_rng(seed)
        pred, truth = rng.random(shape) < share, rng.random(shape) < share
        if not (pred.any() and truth.any()):
            return
        spacing = (step, 1.0, 2.0)[: len(shape)]
        expected = reference(pred, truth, spacing)
        found = metrics.normalised_surface_dice(pred, truth, spacing, 1.0)
        assert found == pytest.approx(
            surface_distance.compute_surface_dice_at_tolerance(expected, 1.0), rel=1e-4
        )
        swapped = metrics.normalised_surface_dice(truth, pred, spacing, 1.0)
        assert swapped == pytest.approx(found)
        assert metrics.assd(truth, pred, spacing) == pytest.approx(
            metrics.assd(pred, truth, spacing)
        )

    def test_position_in_the_array_does_not_matter(self):
        pred, truth = blob(0, (8, 9, 7)), blob(1, (8, 9, 7))
        wide = [np.pad(m, ((3, 20), (5, 1), (0, 9))) for m in (pred, truth)]
        assert metrics.hd95(*wide) == metrics.hd95(pred, truth)
        assert metrics.assd(*wide) == metrics.assd(pred, truth)
        assert metrics.normalised_surface_dice(*wide) == pytest.approx(
            metrics.normalised_surface_dice(pred, truth)
        )


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 7)])
class TestEmpty:
    def test_both(self, shape):
        nothing = np.zeros(shape, bool)
        assert metrics.dice(nothing, nothing) == 1
        assert metrics.jaccard(nothing, nothing) == 1
        assert metrics.normalised_surface_dice(nothing, nothing) == 1
        assert metrics.hd95(nothing, nothing) == 0
        assert metrics.assd(nothing, nothing) == 0
        assert metrics.revision_degree(nothing, nothing) == 0

    def test_one(self, shape):
        nothing, something = np.zeros(shape, bool), one(shape, (2,) * len(shape))
        for pair in ((nothing, something), (something, nothing)):
            assert metrics.dice(*pair) == 0
            assert metrics.jaccard(*pair) == 0
            assert metrics.normalised_surface_dice(*pair) == 0
            assert metrics.hd95(*pair) == math.inf
            assert metrics.assd(*pair) == math.inf
            assert metrics.revision_degree(*pair) == 100


class TestClickSeries:
    def test_auc_of_a_perfect_series_is_four(self):
        assert metrics.dice_auc([1] * 5) == 4
        assert metrics.nsd_auc([1] * 5, [1] * 5) == 4

    def test_auc_is_the_trapezoid(self):
        assert metrics.dice_auc([0.0, 0.5, 0.5, 1.0, 1.0]) == pytest.approx(2.5)

    def test_surface_counts_only_above_dice(self):
        found = metrics.nsd_auc([1.0] * 5, [0.1, 0.2, 0.21, 0.9, 0.9])
        assert found == pytest.approx(2.5)

    def test_lengths_must_match(self):
        with pytest.raises(VolumeError, match="one of each"):
            metrics.nsd_auc([1.0], [1.0, 1.0])

    @pytest.mark.parametrize(("threshold", "expected"), [(0.5, 1), (0.85, 3), (0.9, 4), (0.95, 6)])
    def test_noc(self, threshold, expected):
        assert metrics.noc([0.6, 0.8, 0.85, 0.9], threshold, 6) == expected

    def test_noc_is_capped(self):
        assert metrics.noc([0.1, 0.2, 0.9], 0.85, 2) == 2
        assert metrics.noc([], 0.85, 5) == 5


class TestOverPropagation:
    def test_counts_slices_beyond_the_truth(self):
        truth, pred = np.zeros((4, 4, 10), bool), np.zeros((4, 4, 10), bool)
        truth[:, :, 3:6] = True
        pred[1:3, 1:3, 2:8] = True
        assert metrics.over_propagation(pred, truth, 2) == pytest.approx(12 / 48)
        assert metrics.over_propagation(pred, truth, -1) == pytest.approx(12 / 48)
        assert metrics.over_propagation(pred, truth, 0) == 0

    def test_no_truth(self):
        nothing = np.zeros((2, 2, 2), bool)
        assert metrics.over_propagation(nothing, nothing, 0) == 0
        assert metrics.over_propagation(~nothing, nothing, 0) == math.inf


class TestErrors:
    def test_shapes(self):
        with pytest.raises(VolumeError, match="same 2D or 3D shape"):
            metrics.dice(np.zeros((2, 2)), np.zeros((2, 3)))

    @pytest.mark.parametrize("spacing", [(1, 1, 1), (1, -1), (1, math.inf)])
    def test_spacing(self, spacing):
        with pytest.raises(VolumeError, match="spacing"):
            metrics.hd95(np.ones((2, 2)), np.ones((2, 2)), spacing)

    def test_without_monai(self, monkeypatch):
        real = builtins.__import__

        def refuse(name, *args, **kwargs):
            if name.startswith("monai"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        metrics._areas.cache_clear()
        monkeypatch.setattr(builtins, "__import__", refuse)
        with pytest.raises(PromptsegError, match=r"promptseg\[train\]"):
            metrics.hd95(np.ones((2, 2)), np.ones((2, 2)), (1.25, 1.5))
