import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from promptseg.datasets.simulation import users

few = settings(deadline=None, max_examples=40)

KINDS = {
    "disc": lambda r, c: (r - 30) ** 2 + (c - 24) ** 2 <= 81,
    "ring": lambda r, c: np.abs(np.hypot(r - 32, c - 32) - 18) < 3,
    "line": lambda r, c: (r == 20) & (c > 5) & (c < 50),
    "pixel": lambda r, c: (r == 0) & (c == 63),
    "whole": lambda r, c: r >= 0,
    "two": lambda r, c: ((r < 12) & (c < 12)) | ((r > 40) & (c > 30) & (c < 60)),
}
TARGETS = {name: rule(*np.indices((64, 64))) for name, rule in KINDS.items()}


@st.composite
def targets(draw):
    """A smooth random target, sometimes of one pixel, never empty."""
    height, width = draw(st.integers(24, 60)), draw(st.integers(24, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    field = ndimage.gaussian_filter(rng.standard_normal((height, width)), draw(st.integers(0, 6)))
    return field >= np.quantile(field, draw(st.sampled_from([0.3, 0.7, 0.95, 0.999])))


seeds = st.integers(0, 10_000).map(np.random.default_rng)


def inside(points, target):
    return all(target[int(y), int(x)] for x, y in points)


def contains(box, target):
    rows, columns = np.nonzero(target)
    x0, y0, x1, y1 = box
    return (
        x0 <= columns.min() and y0 <= rows.min() and x1 >= columns.max() + 1
        and y1 >= rows.max() + 1
    )  # fmt: skip


class TestBoxes:
    @few
    @given(targets())
    def test_tight_box_is_the_smallest_that_holds_the_target(self, target):
        box = users.tight_box(target)
        assert contains(box, target)
        x0, y0, x1, y1 = box.astype(int)
        for edge in (target[y0], target[y1 - 1], target[:, x0], target[:, x1 - 1]):
            assert edge.any()
        assert not np.delete(target, np.s_[y0:y1], 0).any()

    @few
    @given(targets(), seeds, st.floats(0, 0.3))
    def test_loose_box_without_jitter_holds_the_target(self, target, rng, loose):
        box = users.jittered_box(target, rng, jitter=0.0, loose=loose)
        assert contains(box, target)
        assert box.min() >= 0
        assert tuple(box[2:]) <= target.shape[::-1]

    @few
    @given(targets(), seeds)
    def test_jitter_is_bounded_by_the_side(self, target, rng):
        tight = users.tight_box(target)
        sides = np.tile(tight[2:] - tight[:2], 2)
        moved = users.jittered_box(target, rng, jitter=0.1)
        assert np.all(np.abs(moved - tight) <= 0.1 * sides + 1e-4)
        assert np.all(moved[2:] > moved[:2])

    def test_jitter_moves_every_edge_on_its_own(self):
        rng = np.random.default_rng(0)
        boxes = np.array([users.jittered_box(TARGETS["disc"], rng, 0.1) for _ in range(200)])
        assert np.all(boxes.std(0) > 0.3)
        assert np.abs(np.corrcoef(boxes.T) - np.eye(4)).max() < 0.3


class TestDepth:
    def test_grows_inwards_and_ends_at_the_border_of_the_image(self):
        found = users.depth(TARGETS["whole"])
        assert found.dtype == np.float32
        assert found[0, 0] == found[63, 20] < found[5, 20] < found[31, 31]
        assert np.argmax(found[:, 32]) in (31, 32)

    @few
    @given(targets())
    def test_is_positive_inside_alone(self, target):
        np.testing.assert_array_equal(users.depth(target) > 0, target)

    def test_is_near_the_euclidean_distance(self):
        target = TARGETS["disc"]
        exact = ndimage.distance_transform_edt(np.pad(target, 1))[1:-1, 1:-1]
        np.testing.assert_allclose(users.depth(target), exact, atol=0.9)


class TestClicks:
    @few
    @given(targets(), seeds)
    def test_are_inside(self, target, rng):
        for point in (users.centre_click(target), users.inner_click(target, rng)):
            assert point.shape == (1, 2)
            assert point.dtype == np.float32
            assert inside(point, target)
            assert np.all(point % 1 == 0.5)

    @pytest.mark.parametrize("kind", TARGETS)
    def test_centre_is_the_deepest(self, kind):
        target = TARGETS[kind]
        ((x, y),) = users.centre_click(target)
        assert users.depth(target)[int(y), int(x)] == users.depth(target).max()

    def test_inner_clicks_spread_and_favour_depth(self):
        rng, target = np.random.default_rng(0), TARGETS["disc"]
        clicks = np.concatenate([users.inner_click(target, rng) for _ in range(300)])
        depths = users.depth(target)[clicks[:, 1].astype(int), clicks[:, 0].astype(int)]
        assert len(np.unique(clicks, axis=0)) > 80
        assert depths.mean() > users.depth(target)[target].mean() + 0.5

    @pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
    @pytest.mark.parametrize("kind", TARGETS)
    def test_inner_click_holds_at_both_ends_of_the_draw(self, kind, draw):
        class Fixed:
            def random(self):
                return draw

        assert inside(users.inner_click(TARGETS[kind], Fixed()), TARGETS[kind])


class TestMarginPoints:
    @few
    @given(targets(), seeds, st.floats(0.1, 4))
    def test_are_inside_and_near_the_margin(self, target, rng, inset):
        points = users.margin_points(target, rng, inset)
        assert 4 <= len(points) <= 9
        assert inside(points, target)
        depths = users.depth(target)[points[:, 1].astype(int), points[:, 0].astype(int)]
        assert depths.max() <= max(inset, 1.0)

    @few
    @given(seeds)
    def test_their_box_nearly_covers_the_target(self, rng):
        target = TARGETS["disc"]
        points = users.margin_points(target, rng, 2.0)
        tight = users.tight_box(target)
        found = np.concatenate([points.min(0), points.max(0)])
        assert np.abs(found - tight).max() <= 3


class TestStrokes:
    @pytest.mark.parametrize("kind", users.SCRIBBLES)
    @few
    @given(target=targets(), rng=seeds, thickness=st.integers(1, 4))
    def test_stay_inside(self, kind, target, rng, thickness):
        drawn = kind(target, rng, thickness)
        assert drawn.dtype == bool
        assert not (drawn & ~target).any()

    @few
    @given(targets(), seeds)
    def test_are_never_empty_and_stay_inside(self, target, rng):
        drawn = users.scribble(target, rng)
        assert drawn.any()
        assert not (drawn & ~target).any()

    @pytest.mark.parametrize("kind", users.SCRIBBLES)
    def test_are_thin(self, kind):
        shares = [
            kind(TARGETS["ring"], np.random.default_rng(seed), 1).sum() / TARGETS["ring"].sum()
            for seed in range(20)
        ]
        assert 0.01 < np.mean(shares) < 0.4

    def test_differ_in_kind_and_shape(self):
        rng = np.random.default_rng(0)
        drawn = {users.scribble(TARGETS["ring"], rng).tobytes() for _ in range(30)}
        assert len(drawn) > 25


class TestRoughMask:
    def test_resembles_the_target_and_differs(self):
        rng, target = np.random.default_rng(0), TARGETS["disc"]
        scores = []
        for _ in range(60):
            rough = users.rough_mask(target, rng)
            assert rough.dtype == bool
            assert rough.shape == target.shape
            scores.append(2 * (rough & target).sum() / (rough.sum() + target.sum()))
        assert 0.6 < np.mean(scores) < 0.97
        assert max(scores) < 1

    @few
    @given(targets(), seeds)
    def test_works_on_any_target(self, target, rng):
        assert users.rough_mask(target, rng).shape == target.shape


class TestSeeds:
    @pytest.mark.parametrize(
        "user",
        [
            users.jittered_box,
            users.inner_click,
            users.margin_points,
            users.scribble,
            users.rough_mask,
        ],
    )
    def test_same_seed_same_user_other_seed_another(self, user):
        def act(seed):
            return np.asarray(user(TARGETS["disc"], np.random.default_rng(seed)))

        np.testing.assert_array_equal(act(5), act(5))
        assert len({act(seed).tobytes() for seed in range(8)}) > 1


class TestTracing:
    @pytest.mark.parametrize(("name", "slender"), [("line", True), ("ring", True),
                                                   ("disc", False), ("whole", False)])  # fmt: skip
    def test_slender_is_long_for_its_width(self, name, slender):
        assert users.is_slender(TARGETS[name]) == slender

    @few
    @given(targets(), seeds)
    def test_strokes_lie_on_the_target_or_as_near_as_a_pen_is_wide(self, target, rng):
        drawn = users.traced(target, rng)
        assert (drawn & target).any()
        assert not (drawn & ~ndimage.binary_dilation(target, np.ones((7, 7)))).any()

    def test_parts_are_traced_and_some_strokes_are_wider_than_the_target(self):
        ring = TARGETS["ring"]
        strokes = [users.traced(ring, np.random.default_rng(seed)) for seed in range(30)]
        covered = [(drawn & ring).sum() / ring.sum() for drawn in strokes]
        assert min(covered) < 0.3
        line = TARGETS["line"]
        wide = [users.traced(line, np.random.default_rng(seed)) for seed in range(30)]
        assert any((drawn & ~line).any() for drawn in wide)
        assert any(not (drawn & ~line).any() for drawn in wide)
