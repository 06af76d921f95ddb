"""Geodesic distance, encodings, fusion, graph cut and margin points."""

from itertools import product

import maxflow
import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from skimage.graph import MCP_Geometric

from promptseg.errors import PromptError, VolumeError
from promptseg.refine import (
    egd,
    euclidean_encoding,
    fuse,
    gaussian_encoding,
    geodesic_distance,
    graph_cut_refine,
    interior_margin_points,
    plain_graph_cut,
    working_region,
)
from promptseg.refine.geodesic import KeptDistances
from promptseg.refine.mincut import minimum_cut


def independent_distance(image, seeds, spacing=None, euclid=0.0):
    """Dijkstra by scipy on the same graph, with explicit zero edges kept as a tiny cost."""
    number = np.arange(image.size).reshape(image.shape)
    steps = np.ones(image.ndim) if spacing is None else np.array(spacing)
    rows, columns, costs = [], [], []
    for move in product((-1, 0, 1), repeat=image.ndim):
        if move <= (0,) * image.ndim:
            continue
        a = tuple(slice(max(0, -m), n - max(0, m)) for m, n in zip(move, image.shape, strict=True))
        b = tuple(slice(max(0, m), n - max(0, -m)) for m, n in zip(move, image.shape, strict=True))
        length = euclid * np.linalg.norm(steps * move)
        rows.append(number[a].ravel())
        columns.append(number[b].ravel())
        costs.append(np.hypot(image[a].astype(float) - image[b], length).ravel())
    cost = np.maximum(np.concatenate(costs), 1e-12)
    graph = coo_matrix((cost, (np.concatenate(rows), np.concatenate(columns))), (image.size,) * 2)
    found = dijkstra(graph.tocsr(), False, np.flatnonzero(seeds), min_only=True)
    return found.reshape(image.shape)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def seeded(shape, count=3, rng=0):
    seeds = np.zeros(shape, bool)
    seeds.ravel()[np.random.default_rng(rng).choice(seeds.size, count, replace=False)] = True
    return seeds


class TestGeodesicDistance:
    @pytest.mark.parametrize("shape", [(24, 31), (8, 11, 13)])
    @pytest.mark.parametrize("euclid", [0.0, 0.2])
    def test_equals_an_independent_shortest_path(self, shape, euclid):
        image = np.random.default_rng(1).random(shape).astype(np.float32)
        spacing = (2.0, 0.7, 1.0)[: len(shape)]
        seeds = seeded(shape)
        found = geodesic_distance(image, seeds, spacing, euclid=euclid)
        assert_close(found, independent_distance(image, seeds, spacing, euclid))

    def test_agrees_with_scikit_image_on_a_spatial_cost(self):
        seeds = seeded((20, 26), 2)
        mcp = MCP_Geometric(np.ones(seeds.shape), fully_connected=True)
        expected, _ = mcp.find_costs([tuple(p) for p in np.argwhere(seeds)])
        found = geodesic_distance(np.zeros(seeds.shape), seeds, euclid=1.0)
        assert_close(found, expected)

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.integers(2, 5))
    def test_any_small_image(self, seed, height, width, levels):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, levels, (height, width)).astype(np.float32) / levels
        seeds = seeded(image.shape, 1, seed)
        assert_close(geodesic_distance(image, seeds), independent_distance(image, seeds))

    def test_real_2d_and_3d(self, shared_data):
        path = sorted((shared_data / "left_atrium" / "images").glob("*.nii.gz"))[0]
        volume = nib.load(path).dataobj[60:90, 50:80, 30:54].astype(np.float32) / 255
        for image in (volume, volume[:, :, 3], np.asfortranarray(volume)):
            seeds = seeded(image.shape, 4)
            found = geodesic_distance(image, seeds)
            expected = independent_distance(image, seeds)
            worst = np.abs(found - expected).max() / expected.max()
            assert worst < 1e-4

    def test_memory_order_does_not_matter(self):
        image = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
        seeds = seeded(image.shape)
        expected = geodesic_distance(image, seeds)
        found = geodesic_distance(np.asfortranarray(image), np.asfortranarray(seeds))
        np.testing.assert_array_equal(found, expected)

    def test_spacing_is_free_without_a_spatial_term(self):
        image, seeds = np.random.default_rng(0).random((9, 9)), seeded((9, 9))
        np.testing.assert_array_equal(
            geodesic_distance(image, seeds, (5.0, 1.0)), geodesic_distance(image, seeds)
        )

    def test_weight_scales(self):
        image, seeds = np.random.default_rng(0).random((9, 9)), seeded((9, 9))
        assert_close(geodesic_distance(image, seeds, weight=3), 3 * geodesic_distance(image, seeds))

    def test_tensor_in_tensor_out(self):
        image, seeds = np.random.default_rng(0).random((9, 9)), seeded((9, 9))
        found = geodesic_distance(torch.from_numpy(image), torch.from_numpy(seeds))
        assert isinstance(found, torch.Tensor)
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), geodesic_distance(image, seeds))

    def test_no_seed_is_infinitely_far(self):
        assert np.isinf(geodesic_distance(np.ones((3, 3)), np.zeros((3, 3), bool))).all()

    def test_constant_image_is_everywhere_near(self):
        assert not geodesic_distance(np.ones((5, 4)), seeded((5, 4), 1)).any()

    @pytest.mark.parametrize(
        ("image", "seeds", "spacing", "error"),
        [
            (np.zeros(4), np.zeros(4, bool), None, VolumeError),
            (np.full((2, 2), np.nan), np.zeros((2, 2), bool), None, VolumeError),
            (np.zeros((2, 2)), np.zeros((2, 3), bool), None, PromptError),
            (np.zeros((2, 2)), np.zeros((2, 2), bool), (1, 0), VolumeError),
            (np.zeros((2, 2)), np.zeros((2, 2), bool), (1, 1, 1), VolumeError),
        ],
    )
    def test_bad_input(self, image, seeds, spacing, error):
        with pytest.raises(error):
            geodesic_distance(image, seeds, spacing)


class TestKeptDistances:
    """What is kept of earlier clicks changes the time of an answer and not a bit of it."""

    def held(self, image, euclid=0.05, spacing=None):
        return KeptDistances().on(image, spacing, 1.0, euclid)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6), st.sampled_from([0.0, 0.05]), st.booleans())
    def test_growing_seeds_give_the_distances_of_all_of_them(self, number, euclid, flat):
        rng = np.random.default_rng(number)
        shape = (14, 17) if flat else (6, 9, 8)
        image = rng.random(shape).astype(np.float32)
        kept, seeds = self.held(image, euclid), np.zeros(shape, bool)
        for _ in range(4):
            seeds.ravel()[rng.integers(seeds.size, size=2)] = True
            found = kept.distance("foreground", seeds)
            np.testing.assert_array_equal(found, geodesic_distance(image, seeds, euclid=euclid))

    def test_a_click_taken_back_leaves_no_trace(self):
        image = np.random.default_rng(4).random((9, 10, 7)).astype(np.float32)
        few, more = seeded(image.shape, 1), seeded(image.shape, 4, 3)
        kept = self.held(image)
        kept.distance("foreground", few | more)
        found = kept.distance("foreground", few)
        np.testing.assert_array_equal(found, geodesic_distance(image, few, euclid=0.05))

    @pytest.mark.parametrize(
        "change", [{"spacing": (2.0, 1.0, 1.0)}, {"weight": 3.0}, {"euclid": 0.5}]
    )
    def test_another_setting_starts_anew(self, change):
        image = np.random.default_rng(5).random((9, 10, 7)).astype(np.float32)
        kept, seeds = KeptDistances(), seeded(image.shape)
        told = {"spacing": None, "weight": 1.0, "euclid": 0.05}
        kept.on(image, **told).distance("foreground", seeds)
        told |= change
        found = kept.on(image, **told).distance("foreground", seeds)
        np.testing.assert_array_equal(found, geodesic_distance(image, seeds, **told))

    def test_another_shape_starts_anew(self):
        image = np.random.default_rng(5).random((9, 10, 7)).astype(np.float32)
        kept = KeptDistances()
        kept.on(image, euclid=0.05).distance("foreground", seeded(image.shape))
        seeds = seeded((9, 8, 7), 2, 9)
        found = kept.on(image[:, :8], euclid=0.05).distance("foreground", seeds)
        np.testing.assert_array_equal(found, geodesic_distance(image[:, :8], seeds, euclid=0.05))

    def test_an_image_written_over_is_another(self):
        image = np.random.default_rng(6).random((9, 10)).astype(np.float32)
        kept, seeds, before = KeptDistances(), seeded(image.shape), image.copy()
        first = kept.on(image, euclid=0.05)
        first.distance("foreground", seeds)
        image += np.linspace(0, 5, 10, dtype=np.float32)
        found = kept.on(image, euclid=0.05).distance("foreground", seeds)
        more = seeds | seeded(image.shape, 2, 8)
        expected = geodesic_distance(before, more, euclid=0.05)
        np.testing.assert_array_equal(first.distance("foreground", more), expected)
        np.testing.assert_array_equal(found, geodesic_distance(image, seeds, euclid=0.05))

    def test_two_sets_of_seeds_do_not_mix(self):
        image = np.random.default_rng(7).random((9, 10)).astype(np.float32)
        kept = self.held(image)
        for side, rng in (("foreground", 1), ("background", 2)) * 2:
            seeds = seeded(image.shape, 3, rng)
            found = kept.distance(side, seeds)
            np.testing.assert_array_equal(found, geodesic_distance(image, seeds, euclid=0.05))

    def test_a_cut_is_the_same_with_what_was_kept(self):
        rng = np.random.default_rng(8)
        image = ndimage.gaussian_filter(rng.random((20, 22, 12)), 1).astype(np.float32)
        probability = ndimage.gaussian_filter(rng.random(image.shape), 2)
        probability = (probability - probability.min()) / np.ptp(probability)
        kept, clicks = KeptDistances(), rng.permutation(np.argwhere(image > 0))[:6]
        for count in range(1, 6):
            told = clicks[:count], clicks[5:]
            found = graph_cut_refine(probability, image, *told, kept=kept)
            np.testing.assert_array_equal(found, graph_cut_refine(probability, image, *told))
        assert 0 < kept.nbytes < 20 * image.size


class TestEncodings:
    def test_egd_is_the_exponential(self):
        image, seeds = np.random.default_rng(0).random((9, 9)), seeded((9, 9))
        assert_close(egd(image, seeds), np.exp(-geodesic_distance(image, seeds)))
        assert (egd(image, seeds)[seeds] == 1).all()

    def test_egd_of_a_tensor(self):
        image, seeds = torch.rand(5, 5), torch.from_numpy(seeded((5, 5)))
        assert_close(egd(image, seeds).numpy(), egd(image.numpy(), seeds.numpy()))

    def test_euclidean_uses_the_spacing(self):
        seeds = np.zeros((3, 4), bool)
        seeds[0, 0] = True
        assert euclidean_encoding(seeds, (2.0, 1.0))[2, 3] == pytest.approx(5.0)

    def test_gaussian(self):
        seeds = np.zeros((1, 4), bool)
        seeds[0, 0] = True
        expected = np.exp(-(np.arange(4) ** 2) / 8)
        np.testing.assert_allclose(gaussian_encoding(seeds, 2.0)[0], expected, rtol=1e-6)

    def test_no_click(self):
        nothing = np.zeros((3, 3), bool)
        assert np.isinf(euclidean_encoding(nothing)).all()
        assert not gaussian_encoding(nothing, 1.0).any()
        assert not egd(np.ones((3, 3)), nothing).any()

    @pytest.mark.parametrize("sigma", [0, -1, float("nan")])
    def test_sigma_must_be_positive(self, sigma):
        with pytest.raises(PromptError, match="sigma"):
            gaussian_encoding(np.ones((2, 2), bool), sigma)


class TestFuse:
    def setup_method(self):
        rng = np.random.default_rng(0)
        self.image = rng.random((12, 14)).astype(np.float32)
        self.probability = rng.random((12, 14)).astype(np.float32)
        self.inside, self.outside = seeded((12, 14), 2, 1), seeded((12, 14), 2, 2)

    def test_equations(self):
        to_f = independent_distance(self.image, self.inside)
        to_b = independent_distance(self.image, self.outside)
        share = np.exp(-to_f) / (np.exp(-to_f) + np.exp(-to_b))
        alpha = np.exp(-np.minimum(to_f, to_b))
        expected = (1 - alpha) * self.probability + alpha * share
        found = fuse(self.probability, self.image, self.inside, self.outside)
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_background_mirrors_foreground(self):
        found = fuse(self.probability, self.image, self.inside, self.outside)
        mirrored = fuse(1 - self.probability, self.image, self.outside, self.inside)
        np.testing.assert_allclose(found, 1 - mirrored, atol=1e-5)

    def test_one_class_only_pulls_towards_it(self):
        nothing = np.zeros_like(self.inside)
        up = fuse(self.probability, self.image, self.inside, nothing)
        down = fuse(self.probability, self.image, nothing, self.outside)
        assert (up >= self.probability - 1e-6).all()
        assert (down <= self.probability + 1e-6).all()
        assert (up[self.inside] == 1).all()
        assert (down[self.outside] == 0).all()

    def test_no_click_changes_nothing(self):
        nothing = np.zeros_like(self.inside)
        found = fuse(self.probability, self.image, nothing, nothing)
        np.testing.assert_array_equal(found, self.probability)


def general_cut(gain, capacities):
    """The same by PyMaxflow, on a graph of all elements."""
    graph = maxflow.Graph[float]()
    nodes = graph.add_grid_nodes(gain.shape)
    for axis, capacity in enumerate(capacities):
        ahead = np.zeros((3,) * gain.ndim)
        ahead[tuple(2 if a == axis else 1 for a in range(gain.ndim))] = 1
        graph.add_grid_edges(nodes, capacity, ahead, symmetric=True)
    graph.add_grid_tedges(nodes, np.maximum(gain, 0), np.maximum(-gain, 0))
    graph.maxflow()
    return ~graph.get_grid_segments(nodes)


def cut_energy(labels, gain, capacities):
    total = -float((gain * labels).sum())
    for axis, capacity in enumerate(capacities):
        step = np.diff(labels.astype(int), axis=axis) != 0
        total += float((np.delete(capacity, -1, axis) * step).sum())
    return total


class TestMinimumCut:
    @pytest.mark.parametrize("shape", [(3, 4), (2, 2, 3)])
    @pytest.mark.parametrize("strength", [0.3, 2.0])
    def test_is_the_least_of_all_labellings(self, shape, strength):
        rng = np.random.default_rng(int(strength * 10))
        gain = rng.normal(size=shape).astype(np.float32)
        capacities = (rng.random((len(shape), *shape)) * strength).astype(np.float32)
        for axis in range(len(shape)):
            np.moveaxis(capacities[axis], axis, 0)[-1] = 0

        def energy(labels):
            total = -(gain * labels).sum()
            for axis in range(len(shape)):
                cut = np.diff(labels.astype(int), axis=axis) != 0
                total += (np.delete(capacities[axis], -1, axis) * cut).sum()
            return total

        best = min(
            energy(np.array(bits, bool).reshape(shape))
            for bits in product((0, 1), repeat=int(np.prod(shape)))
        )
        assert energy(minimum_cut(gain, capacities)) == pytest.approx(best, abs=1e-4)

    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(0, 10**6),
        st.lists(st.integers(1, 14), min_size=2, max_size=3),
        st.sampled_from([0.2, 1.0, 6.0]),
        st.booleans(),
    )
    def test_costs_as_much_as_that_of_pymaxflow(self, seed, shape, strength, whole):
        rng = np.random.default_rng(seed)
        gain = 3 * rng.normal(size=shape).astype(np.float32)
        capacities = strength * rng.random((len(shape), *shape)).astype(np.float32)
        if whole:
            gain, capacities = np.round(gain), np.round(capacities)
        for axis in range(len(shape)):
            np.moveaxis(capacities[axis], axis, 0)[-1] = 0
        found, expected = minimum_cut(gain, capacities), general_cut(gain, capacities)
        assert cut_energy(found, gain, capacities) == pytest.approx(
            cut_energy(expected, gain, capacities), rel=1e-5, abs=1e-3
        )

    def test_same_labels_as_pymaxflow_on_a_real_image(self, shared_data):
        path = sorted((shared_data / "left_atrium" / "images").glob("*.nii.gz"))[0]
        image = nib.load(path).dataobj[60:84, 50:74, 30:54].astype(np.float32)
        gain = np.log((image + 1) / (256 - image))
        capacities = np.zeros((3, *image.shape), np.float32)
        for axis in range(3):
            step = np.diff(image, axis=axis) / image.std()
            np.moveaxis(capacities[axis], axis, 0)[:-1] = np.moveaxis(
                np.exp(-50 * step**2), axis, 0
            )
        found = minimum_cut(gain, capacities)
        assert 0 < found.mean() < 1
        np.testing.assert_array_equal(found, general_cut(gain, capacities))


def ball(shape=(40, 44), radius=11.0):
    grid = np.indices(shape) - (np.array(shape) // 2).reshape(-1, *(1,) * len(shape))
    return np.linalg.norm(grid, axis=0) <= radius


def overlap(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


class TestGraphCutRefine:
    @pytest.mark.parametrize("shape", [(40, 44), (20, 26, 28)])
    def test_clicks_correct_a_shifted_probability(self, shape):
        truth = ball(shape, 8)
        rng = np.random.default_rng(0)
        image = (0.3 + 0.4 * truth + 0.03 * rng.normal(size=shape)).clip(0, 1)
        probability = 0.1 + 0.8 * np.roll(truth, 5, -1)
        centre = tuple(n // 2 for n in shape)
        missed, wrong = np.array(centre), np.array(centre)
        missed[-1] -= 6
        wrong[-1] += 10
        found = graph_cut_refine(probability, image, missed[None], wrong[None])
        plain = plain_graph_cut(probability, image, missed[None], wrong[None])
        assert overlap(found, truth) > 0.95
        assert overlap(found, truth) > overlap(probability > 0.5, truth)
        assert overlap(found, truth) >= overlap(plain, truth)

    @pytest.mark.parametrize("cut", [graph_cut_refine, plain_graph_cut])
    def test_clicks_are_hard_constraints(self, cut):
        truth = ball()
        inside, outside = np.array([[1, 1], [2, 40]]), np.array([[20, 22]])
        found = cut(truth * 0.98 + 0.01, truth.astype(float), inside, outside)
        assert found[tuple(inside.T)].all()
        assert not found[tuple(outside.T)].any()

    def test_bool_clicks_equal_coordinates(self):
        truth = ball()
        image = truth + np.random.default_rng(0).random(truth.shape)
        at = np.array([[20, 30]])
        mask = np.zeros(truth.shape, bool)
        mask[20, 30] = True
        np.testing.assert_array_equal(
            graph_cut_refine(truth * 0.8, image, at), graph_cut_refine(truth * 0.8, image, mask)
        )

    def test_intensity_scale_does_not_matter(self):
        truth = ball()
        image = truth + np.random.default_rng(0).random(truth.shape)
        at = np.array([[20, 30]])
        np.testing.assert_array_equal(
            graph_cut_refine(truth * 0.8, image, at), graph_cut_refine(truth * 0.8, image * 40, at)
        )

    def test_region_limits_the_change(self):
        truth = ball()
        region = (slice(10, 20), slice(10, 30))
        found = graph_cut_refine(truth * 0.9, truth * 1.0, background=[[15, 20]], region=region)
        outside = np.ones(truth.shape, bool)
        outside[region] = False
        np.testing.assert_array_equal(found[outside], truth[outside])
        assert not found[15, 20]

    def test_nothing_to_do(self):
        assert not graph_cut_refine(np.zeros((5, 6)), np.ones((5, 6))).any()

    def test_inputs_are_left_alone(self):
        truth = ball()
        probability, image = truth * 0.9, truth * 1.0
        before = probability.copy(), image.copy()
        graph_cut_refine(probability, image, [[20, 20]], [[0, 0]])
        np.testing.assert_array_equal(probability, before[0])
        np.testing.assert_array_equal(image, before[1])

    @pytest.mark.parametrize(
        ("foreground", "background", "words"),
        [
            ([[5, 5]], [[5, 5]], "both foreground and background"),
            ([[40, 0]], None, r"\(40, 0\) is outside"),
            ([[-1, 0]], None, r"\(-1, 0\) is outside"),
            ([[1, 2, 3]], None, "integer indices"),
            ([[1.5, 2.0]], None, "integer indices"),
            (np.zeros((3, 3), bool), None, "click mask"),
        ],
    )
    def test_bad_clicks(self, foreground, background, words):
        with pytest.raises(PromptError, match=words):
            graph_cut_refine(ball() * 0.9, ball() * 1.0, foreground, background)

    def test_bad_numbers(self):
        with pytest.raises(PromptError, match="sigma"):
            graph_cut_refine(ball() * 0.9, ball() * 1.0, sigma=0)
        with pytest.raises(VolumeError, match="same 2D or 3D shape"):
            graph_cut_refine(np.zeros((3, 3)), np.zeros((3, 4)))


class TestWorkingRegion:
    def test_grows_and_clips(self):
        inside = np.zeros((50, 60), bool)
        inside[2:5, 20:30] = True
        region = working_region(inside)
        assert region[0].start == 0
        assert region[1] == slice(12, 38)

    def test_margin_follows_the_spacing(self):
        inside = np.zeros((50, 60), bool)
        inside[20, 20] = True
        assert working_region(inside, (4.0, 1.0)) == (slice(18, 23), slice(12, 29))


class TestInteriorMarginPoints:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6), st.booleans())
    def test_always_inside(self, seed, three):
        rng = np.random.default_rng(seed)
        mask = ndimage.gaussian_filter(rng.normal(size=(10, 12, 9) if three else (20, 23)), 1.5)
        mask = mask > np.quantile(mask, 0.8)
        points = interior_margin_points(mask, rng=seed)
        assert mask[tuple(points.T)].all()
        assert 1 <= len(points) <= (11 if three else 9)

    @pytest.mark.parametrize("shape", [(60, 64), (30, 32, 34)])
    def test_near_the_boundary_and_covering(self, shape):
        mask = ball(shape, 12)
        depth = ndimage.distance_transform_edt(mask)
        for seed in range(10):
            points = interior_margin_points(mask, count=2 * len(shape), inset=2, rng=seed)
            assert (depth[tuple(points.T)] > 1).all()
            assert (depth[tuple(points.T)] <= 5).all()
            low, high = points.min(0) - 6, points.max(0) + 6
            box = tuple(slice(max(0, a), b + 1) for a, b in zip(low, high, strict=True))
            assert mask[box].sum() == mask.sum()

    def test_seeded(self):
        mask = ball()
        first, again = (interior_margin_points(mask, rng=3) for _ in range(2))
        np.testing.assert_array_equal(first, again)

    def test_one_element(self):
        mask = np.zeros((5, 5), bool)
        mask[2, 3] = True
        assert interior_margin_points(mask).tolist() == [[2, 3]]

    def test_bad_input(self):
        with pytest.raises(PromptError, match="empty"):
            interior_margin_points(np.zeros((4, 4), bool))
        with pytest.raises(PromptError, match="count"):
            interior_margin_points(ball(), count=0)
