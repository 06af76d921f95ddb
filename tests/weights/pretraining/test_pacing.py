import json

import pytest
import torch

from pretraining.pacing import DECAY, follow, log, rate_share, run_to_end


class Course:
    """A training that ends after so many steps."""

    def __init__(self, steps):
        self.step, self.seconds, self.steps, self.saved = 0, 0.0, steps, 0

    @property
    def progress(self):
        return min(1.0, self.step / self.steps)

    def save(self):
        self.saved += 1

    def learn(self):
        self.step += 1
        return {"loss": float(self.step)}


class TestRate:
    def test_it_rises_stays_and_falls(self):
        course = Course(1000)
        shares = []
        for course.step in (0, 49, 100, 700, 875, 1000):
            shares.append(rate_share(course, 100))
        assert shares == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.5, 0.02])
        assert DECAY == 0.25


class TestFollow:
    def test_the_average_moves_little_late_and_much_at_first(self):
        moved = []
        for step in (0, 10_000):
            slow, fast = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
            with torch.no_grad():
                slow.weight.zero_(), fast.weight.fill_(1)
            follow(slow, fast, step)
            moved.append(float(slow.weight.detach()[0, 0]))
        assert moved == pytest.approx([0.9, 0.002])


class TestRun:
    def test_it_reports_means_and_saves_at_the_end(self):
        course, said = Course(25), []
        run_to_end(course, course.learn, said.append, every=10)
        assert said == [{"loss": 5.5}, {"loss": 15.5}]
        assert course.step == 25
        assert course.saved == 1
        assert course.seconds > 0

    def test_what_is_over_is_not_gone_on_with(self):
        course = Course(5)
        course.step = 5
        run_to_end(course, course.learn, lambda means: None)
        assert course.step == 5

    def test_a_log_is_a_line_a_report(self, tmp_path, capsys):
        log(tmp_path, {"step": 1, "loss": 0.25})
        log(tmp_path, {"step": 2, "loss": 0.125})
        rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        assert rows == [{"step": 1, "loss": 0.25}, {"step": 2, "loss": 0.125}]
        assert "step=2 loss=0.125" in capsys.readouterr().out
