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
