from collections import Counter

import numpy as np
import pytest
import torch
from scipy import ndimage
from support import discs

from pretraining import episodes
from pretraining.episodes import (
    Case,
    beyond_extent,
    choose_target,
    crop_matrix,
    normalise_crop,
    pick_component,
    random_window,
    real_episode,
    synthetic_episode,
    warp,
)
from promptseg.datasets.simulation import users
from promptseg.datasets.simulation.pixel_prompts import (
    KINDS,
    OUTLINING,
    mask_logits,
    neighbour_prompt,
    sample_prompts,
)

SIZE = 64
SHAPE = (60, 50, 12)
LABELS = discs(SHAPE, 2, dict.fromkeys(range(3, 9), (25, 20, 9))) * np.uint8(1)
LABELS |= discs(SHAPE, 2, dict.fromkeys(range(5, 10), (45, 35, 6))) * np.uint8(2)


def case(modality="MR", labels=LABELS, axes=(2,), spacing=(1.0, 1.0, 3.0), **options):
    rng = np.random.default_rng(0)
    image = (labels * 60 + rng.normal(40, 5, labels.shape)).astype(np.float32)
    image = image - 100 if modality == "CT" else np.clip(image, 0, None)
    return Case("one", "test", image, labels.astype(np.uint8), spacing, modality, axes, **options)


def draw(count, build=real_episode, given=None, each=3):
    """`count` episodes from as many seeds, without the draws that had no target."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        arguments = (SIZE, each, rng) if given is None else (given, SIZE, each, rng)
        found.append(build(*arguments))
    return [episode for episode in found if episode is not None]


@pytest.fixture(scope="module")
def real():
    return draw(120, given=case())


@pytest.fixture(scope="module")
def synthetic():
    return draw(40, synthetic_episode)


@pytest.fixture(scope="module", params=["real", "synthetic"])
def drawn(request):
    return request.getfixturevalue(request.param)


def on(points, mask):
    rows, columns = points[:, 1].long(), points[:, 0].long()
    return mask[rows.clamp(0, SIZE - 1), columns.clamp(0, SIZE - 1)]


class TestEpisode:
    def test_shapes_and_ranges(self, drawn):
        assert len(drawn) > 25
        for episode in drawn:
            assert episode.image.shape == (3, SIZE, SIZE)
            assert episode.target.shape == (SIZE, SIZE)
            assert episode.image.dtype == episode.target.dtype == torch.float32
            assert 0 <= episode.image.min() <= episode.image.max() <= 1
            assert 0 <= episode.target.min() <= episode.target.max() <= 1
            assert len(episode.prompts) == len(episode.ambiguous) == 3

    def test_foreground_prompts_are_inside_the_target(self, drawn):
        checked = 0
        for episode in drawn:
            inside = episode.target > 0.5
            for prompt in episode.prompts:
                if prompt.mask is None:
                    assert on(prompt.points[prompt.labels == 1], inside).all()
                    assert not on(prompt.points[prompt.labels == 0], inside).any()
                    checked += len(prompt.points)
                if prompt.scribbles is not None:
                    positive, negative = prompt.scribbles > 0
                    assert (positive & inside).any()
                    # What is slender may be traced with a pen that is wider.
                    reach = 5 if users.is_slender(inside.numpy()) else 1
                    near = ndimage.binary_dilation(inside.numpy(), np.ones((reach, reach)))
                    assert not (positive.numpy() & ~near).any()
                    assert not (negative & inside).any()
        assert checked > 30

    def test_boxes_hold_most_of_the_target(self, drawn):
        shares = []
        for episode in drawn:
            rows, columns = torch.nonzero(episode.target > 0.5, as_tuple=True)
            for prompt in episode.prompts:
                if prompt.box is None or len(prompt.points) > 1:
                    continue
                x0, y0, x1, y1 = prompt.box
                held = (columns + 0.5 > x0) & (columns + 0.5 < x1)
                held &= (rows + 0.5 > y0) & (rows + 0.5 < y1)
                shares.append(float(held.float().mean()))
        assert len(shares) > 15
        assert min(shares) > 0.6
        assert np.mean(shares) > 0.95

    def test_single_clicks_alone_are_ambiguous(self, drawn):
        for episode in drawn:
            for prompt, ambiguous in zip(episode.prompts, episode.ambiguous, strict=True):
                others = (prompt.box, prompt.mask, prompt.scribbles)
                alone = all(other is None for other in others)
                assert ambiguous == (alone and prompt.labels.tolist() == [1])

    def test_every_kind_appears(self, drawn):
        seen = Counter()
        for episode in drawn:
            for prompt, ambiguous in zip(episode.prompts, episode.ambiguous, strict=True):
                clicks = (prompt.labels == 1).sum(), (prompt.labels == 0).sum()
                seen["click"] += ambiguous
                seen["clicks"] += clicks[0] > 1 and prompt.box is None
                seen["background"] += clicks[1] > 0
                seen["box"] += prompt.box is not None and len(prompt.points) == 0
                seen["stroke"] += prompt.scribbles is not None
                seen["mask"] += prompt.mask is not None and len(prompt.points) == 0
                seen["corrected mask"] += prompt.mask is not None and len(prompt.points) > 0
        assert all(seen[kind] > 0 for kind in seen), seen
        assert len(seen) == 7

    @pytest.mark.parametrize("kind", [function for _, function in KINDS])
    def test_every_kind_works_at_every_size(self, kind):
        for size in (32, 64, 128):
            rows, columns = np.indices((size, size))
            target = (rows - size / 2) ** 2 + (columns - size / 3) ** 2 <= (size / 10) ** 2
            for seed in range(8):
                prompt = kind(target, np.random.default_rng(seed))
                if prompt.mask is not None:
                    assert prompt.mask.shape == (size // 2, size // 2)
                if prompt.scribbles is not None:
                    assert prompt.scribbles.shape == (2, size, size)
                assert len(prompt.points) == len(prompt.labels)

    def test_shares_of_the_kinds_add_up(self):
        for kinds in (KINDS, OUTLINING):
            assert sum(share for share, _ in kinds) == pytest.approx(1.0)

    def test_seed_decides_everything(self):
        for build, given in ((real_episode, case()), (synthetic_episode, None)):
            one, other = draw(6, build, given), draw(6, build, given)
            assert len(one) == len(other) > 0
            for a, b in zip(one, other, strict=True):
                assert torch.equal(a.image, b.image)
                assert torch.equal(a.target, b.target)
                for p, q in zip(a.prompts, b.prompts, strict=True):
                    for name in ("points", "labels", "box", "mask", "scribbles"):
                        first, second = getattr(p, name), getattr(q, name)
                        assert (first is None) == (second is None)
                        assert first is None or torch.equal(first, second)
            assert not torch.equal(one[0].image, one[1].image)


class TestRedrawnOutlines:
    @pytest.fixture
    def redrawn(self, monkeypatch):
        monkeypatch.setattr(episodes, "REDRAWN", 1.0)
        monkeypatch.setattr(episodes, "VESSELS", 0.0)
        return draw(60, given=case())

    def test_every_prompt_shows_the_outline(self, redrawn):
        present = [e for e in redrawn if (e.target > 0.5).any()]
        assert len(present) > 30
        for episode in present:
            assert not any(episode.ambiguous)
            assert all(
                p.box is not None or p.mask is not None or len(p.points) > 3
                for p in episode.prompts
            )

    def test_boxes_follow_them(self, redrawn):
        gaps = []
        for episode in redrawn:
            columns = torch.nonzero(episode.target > 0.5)[:, 1]
            for prompt in episode.prompts:
                if prompt.box is not None and len(prompt.points) == 0:
                    sides = float(columns.max() - columns.min() + 1)
                    gaps.append(abs(float(prompt.box[0] - columns.min())) / sides)
        assert len(gaps) > 20
        assert np.median(gaps) < 0.1


class TestLesionEpisodes:
    def test_take_the_place_of_the_organ(self, monkeypatch):
        monkeypatch.setattr(episodes, "LESIONS", 1.0)
        monkeypatch.setattr(episodes, "REDRAWN", 0.0)
        with_lesions = [e for e in draw(40, given=case()) if (e.target > 0.5).any()]
        monkeypatch.setattr(episodes, "LESIONS", 0.0)
        without = [e for e in draw(40, given=case()) if (e.target > 0.5).any()]
        assert len(with_lesions) > 20
        same = [torch.equal(a.target, b.target)
                for a, b in zip(with_lesions, without, strict=False)]  # fmt: skip
        assert not any(same)


class TestAbsentTargets:
    def absent(self, real):
        return [e for e in real if not (e.target > 0.5).any()]

    def test_are_now_and_then_drawn(self, real):
        share = len(self.absent(real)) / len(real)
        assert 0.03 < share < 0.35

    def test_have_an_empty_mask_and_a_neighbour_as_prompt(self, real):
        for episode in self.absent(real):
            assert episode.target.max() == 0
            for prompt in episode.prompts:
                assert prompt.mask is not None
                assert (prompt.mask > 0).any()
                assert len(prompt.points) == 0
                assert prompt.box is None
                assert prompt.scribbles is None

    def test_lie_just_outside_the_extent(self):
        rng = np.random.default_rng(0)
        found = {beyond_extent(case(), 2, (1,), 1, rng) for _ in range(20)}
        assert found == {2, 9}
        wider = {beyond_extent(case(), 2, (1,), 3, rng) for _ in range(60)}
        assert wider == {0, 1, 2, 9, 10, 11}

    def test_there_is_none_where_the_target_fills_the_volume(self):
        labels = discs(SHAPE, 2, dict.fromkeys(range(12), (25, 20, 9))) * np.uint8(1)
        rng = np.random.default_rng(0)
        full = case(labels=labels)
        assert {beyond_extent(full, 2, (1,), 2, rng) for _ in range(20)} == {None}

    def test_need_a_neighbour(self):
        nothing = np.zeros((SIZE, SIZE), bool)
        neighbour = nothing.copy()
        neighbour[20:40, 20:40] = True
        prompts, ambiguous = sample_prompts(nothing, neighbour, 4, np.random.default_rng(0))
        assert all(p.mask is not None and len(p.points) == 0 for p in prompts)
        assert ambiguous == [False] * 4


class TestCase:
    def test_extents_name_the_slices_of_each_label(self):
        found = case().extents[2]
        assert {label: slices.tolist() for label, slices in found.items()} == {
            1: [3, 4, 5, 6, 7, 8], 2: [5, 6, 7, 8, 9]}  # fmt: skip

    def test_specks_are_left_out(self):
        labels = LABELS.copy()
        labels[0, :5, 11] = 3
        assert 3 not in case(labels=labels).extents[2]

    def test_labels_without_background_all_count(self):
        labels = np.ones((20, 20, 1), np.uint8)
        labels[10:] = 2
        assert sorted(case(labels=labels).extents[2]) == [1, 2]

    def test_slices_come_with_their_neighbours(self):
        one = case()
        image, labels = one.slice_stack(2, 0)
        assert image.shape == labels.shape == (60, 50, 3)
        np.testing.assert_array_equal(image[..., 0], image[..., 1])
        np.testing.assert_array_equal(image[..., 2], one.image[:, :, 1])
        sideways, _ = one.slice_stack(0, 30)
        np.testing.assert_array_equal(sideways[..., 2], one.image[31])

    def test_labels_may_come_from_further_away_than_the_image(self):
        one = case()
        image, labels = one.slice_stack(2, 6, apart=3)
        np.testing.assert_array_equal(image[..., 0], one.image[:, :, 5])
        np.testing.assert_array_equal(labels[..., 0], one.labels[:, :, 3])
        np.testing.assert_array_equal(labels[..., 1], one.labels[:, :, 6])
        np.testing.assert_array_equal(labels[..., 2], one.labels[:, :, 9])

    @pytest.mark.parametrize(("spacing", "slices"), [(0.2, 5), (1.0, 4), (3.0, 1), (10.0, 1)])
    def test_masks_are_carried_over_millimetres(self, spacing, slices):
        assert case(spacing=(1.0, 1.0, spacing)).reach(2) == slices

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_every_axis_can_be_cut(self, axis):
        found = draw(12, given=case(axes=(axis,)))
        assert len(found) >= 6
        assert any((e.target > 0.5).any() for e in found)

    def test_a_flat_image_has_no_neighbours(self):
        found = draw(30, given=case(labels=LABELS[:, :, 5:6], modality="2D"))
        assert len(found) > 20
        assert all((e.target > 0.5).any() for e in found)

    def test_nothing_labelled_nothing_drawn(self):
        assert draw(5, given=case(labels=np.zeros(SHAPE, np.uint8))) == []
        empty = case(labels=np.zeros(SHAPE, np.uint8))
        assert choose_target(empty, 2, np.random.default_rng(0)) is None

    def test_choice_covers_labels_and_unions(self):
        rng = np.random.default_rng(0)
        chosen = Counter(tuple(sorted(choose_target(case(), 2, rng)[1])) for _ in range(200))
        assert set(chosen) == {(1,), (2,), (1, 2)}
        assert chosen[(1, 2)] < 20
        alone = case(instances=True)
        assert {len(choose_target(alone, 2, rng)[1]) for _ in range(100)} == {1}


class TestGreyValues:
    @pytest.mark.parametrize("modality", ["CT", "MR"])
    def test_target_stands_out(self, modality):
        one = case(modality)
        crop = one.image[:, :, 4:7]
        target = one.labels[:, :, 5] == 1
        gaps = []
        for seed in range(30):
            grey = normalise_crop(crop, one, target, np.random.default_rng(seed))
            assert grey.dtype == np.float32
            assert 0 <= grey.min() <= grey.max() <= 1
            gaps.append(grey[target].mean() - grey[~target].mean())
        assert np.mean(gaps) > 0.05
        assert min(gaps) >= 0

    def test_ct_windows_hold_the_mean_of_the_target(self):
        inside = np.full(50, 900.0, np.float32)
        for seed in range(50):
            low, high = random_window(inside, np.random.default_rng(seed))
            assert low - 0.06 * (high - low) <= 900 <= high + 0.06 * (high - low)

    def test_ground_is_air_in_ct_and_black_elsewhere(self):
        assert (case("CT").ground, case("MR").ground, case("2D").ground) == (-1000.0, 0.0, 0.0)


class TestGeometry:
    @pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
    def test_crops_hold_the_target(self, spacing):
        slice_ = LABELS[:, :, 5] == 1
        box = np.array([11, 16, 30, 35], np.float32)
        shares = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            matrix = crop_matrix(box, slice_.shape, spacing, SIZE, rng)
            warped = warp(slice_.astype(np.uint8), matrix, SIZE)
            pixel = abs(np.linalg.det(matrix[:, :2]))
            shares.append(warped.sum() * pixel / slice_.sum())
        assert np.median(shares) > 0.97
        assert min(shares) > 0.5

    def test_image_and_mask_are_moved_alike(self):
        slice_ = (LABELS[:, :, 5] == 1).astype(np.uint8)
        stack = np.stack([slice_] * 3, -1)
        matrix = crop_matrix(
            np.array([11, 16, 30, 35], np.float32), slice_.shape, (1, 1), SIZE,
            np.random.default_rng(3),
        )  # fmt: skip
        warped = warp(stack, matrix, SIZE)
        assert warped.shape == (SIZE, SIZE, 3)
        np.testing.assert_allclose(warped[..., 1], warp(slice_, matrix, SIZE), atol=1e-6)

    def test_identity_leaves_an_image_as_it_is(self):
        image = np.random.default_rng(0).random((SIZE, SIZE)).astype(np.float32)
        same = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
        np.testing.assert_allclose(warp(image, same, SIZE), image, atol=1e-5)

    def test_shrinking_keeps_the_place_and_the_mean(self):
        rows, columns = np.indices((256, 256))
        blob = np.exp(-((rows - 100) ** 2 + (columns - 60) ** 2) / 800).astype(np.float32)
        matrix = np.array([[4, 0, 1.5], [0, 4, 1.5]], np.float32)
        small = warp(blob, matrix, SIZE)
        assert small.sum() * 16 == pytest.approx(blob.sum(), rel=0.01)
        centre = [(small * axis).sum() / small.sum() for axis in np.indices(small.shape)]
        expected = [(value + 0.5) / 4 - 0.5 for value in (100, 60)]
        np.testing.assert_allclose(centre, expected, atol=0.1)

    def test_outside_is_the_ground(self):
        image = np.zeros((20, 20, 3), np.float32)
        far = np.array([[1, 0, 500], [0, 1, 500]], np.float32)
        assert np.all(warp(image, far, SIZE, -1000.0) == -1000)


class TestComponents:
    def test_one_of_several_and_what_touches_it(self):
        stack = np.zeros((40, 40, 3), bool)
        stack[5:12, 5:12], stack[25:35, 25:35] = True, True
        picked = {
            tuple(pick_component(stack, np.random.default_rng(seed))[[8, 30], [8, 30], 1])
            for seed in range(20)
        }
        assert picked == {(True, False), (False, True)}
        kept = pick_component(stack, np.random.default_rng(0))
        np.testing.assert_array_equal(kept[..., 0], kept[..., 1])

    def test_one_alone_stays(self):
        stack = np.zeros((40, 40, 3), bool)
        stack[5:12, 5:12] = True
        stack[20, 20] = True
        assert pick_component(stack, np.random.default_rng(0)) is stack


class TestMaskPrompts:
    def test_logits_follow_the_mask(self):
        mask = np.zeros((SIZE, SIZE), bool)
        mask[16:48, 16:48] = True
        for seed in range(10):
            logits = mask_logits(mask, np.random.default_rng(seed))
            assert logits.shape == (SIZE // 2, SIZE // 2)
            assert logits[12:20, 12:20].min() > 0
            assert logits[:4].max() < 0
            assert logits.abs().max() <= 12.01

    def test_neighbours_are_handed_on(self):
        neighbour = np.zeros((SIZE, SIZE), bool)
        neighbour[10:30, 10:30] = True
        target = np.roll(neighbour, 20, 0)
        prompts, _ = sample_prompts(target, neighbour, 60, np.random.default_rng(1))
        masks = [p.mask for p in prompts if p.mask is not None and len(p.points) == 0]
        near = [m for m in masks if (m > 0)[5:15, 5:15].float().mean() > 0.5]
        assert 5 <= len(near) < 40
        assert neighbour_prompt(neighbour, np.random.default_rng(0)).mask is not None
