import numpy as np

from pretraining.episodes import Case
from pretraining.runs import STEPS, run_episode


def ball_case():
    grid = np.indices((48, 48, 30))
    labels = (((grid - np.array([24, 24, 15])[:, None, None, None]) ** 2).sum(0) < 100).astype(
        np.uint8
    )
    return Case("ball", "ball", labels * 200, labels, spacing=(1.0, 1.0, 2.0))


def runs(count=60):
    made = (run_episode(ball_case(), 64, np.random.default_rng(n)) for n in range(count))
    return [one for one in made if one is not None]


class TestRun:
    def test_shapes_and_a_prompt_on_the_first_slice(self):
        for one in runs(12):
            assert one.images.shape == (STEPS, 3, 64, 64)
            assert one.targets.shape == (STEPS, 32, 32)
            assert (one.targets[0] > 0.5).any()
            prompt = one.prompt
            assert prompt.box is not None or len(prompt.points) or prompt.mask is not None

    def test_some_runs_leave_the_target(self):
        ends = [not (one.targets[-1] > 0.5).any() for one in runs()]
        assert 0.1 < np.mean(ends) < 0.9

    def test_a_stack_that_is_too_short_gives_none(self):
        labels = np.ones((32, 32, STEPS), np.uint8)
        flat = Case("flat", "flat", labels, labels)
        assert run_episode(flat, 64, np.random.default_rng(0)) is None


class TestShear:
    def test_a_sheared_target_moves_through_the_run_and_the_image_with_it(self):
        moved = []
        for n in range(40):
            one = run_episode(ball_case(), 64, np.random.default_rng(n), 6, moved=1.0)
            if one is None or (one.targets > 0.5).flatten(1).sum(1).min() < 20:
                continue
            middles = [np.argwhere(plane.numpy() > 0.5).mean(0) for plane in one.targets]
            moved.append(np.abs(middles[-1] - middles[0]).max())
            image = one.images[-1, 1].reshape(32, 2, 32, 2).mean((1, 3))
            inside = one.targets[-1] > 0.5
            contrast = image[inside].mean() - image[one.targets[-1] < 0.01].mean()
            assert abs(float(contrast)) > 0.2
        assert len(moved) > 5
        assert np.median(moved) > 2

    def test_the_distance_of_two_slices_is_in_sides_of_the_crop(self):
        for one in runs(12):
            assert 0.005 < one.apart < 1


class TestFar:
    def far(self, count=30):
        made = (
            run_episode(ball_case(), 64, np.random.default_rng(n), 6, far=1.0) for n in range(count)
        )
        return [one for one in made if one is not None and one.start is not None]

    def test_it_has_as_many_slices_as_any_run_and_a_start_of_its_own(self):
        for one in self.far():
            assert one.images.shape == (6, 3, 64, 64)
            assert one.start.image.shape == (3, 64, 64)
            assert one.start.logits.shape == (32, 32)

    def test_its_start_is_a_mask_of_the_target_with_faults(self):
        overlaps = []
        for one in self.far():
            started, after = one.start.logits > 0, one.targets[1] > 0.5
            both = float((started & after).sum())
            overlaps.append(2 * both / max(float(started.sum() + after.sum()), 1))
        assert 0.4 < np.median(overlaps) < 0.99

    def test_distances_count_from_the_prompted_slice(self):
        for one in self.far():
            near, away = one.away(3)
            assert near == one.apart
            assert np.isclose(away, one.start.away + 3 * one.apart)
        for one in runs(12):
            assert one.away(2) == (one.apart, one.apart * 2)

    def test_some_begin_more_than_a_step_away(self):
        assert max(one.start.away / one.apart for one in self.far()) > 3
