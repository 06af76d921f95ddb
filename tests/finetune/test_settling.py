"""Short runs: a gentler rate, and no more kept than boxes can stand."""

import logging
from dataclasses import replace

import pytest
import torch
from adapter_kit import cohort, config, disc_cases
from support import tiny_default, tiny_sam

from promptseg.finetune import settling
from promptseg.finetune.data import Sources
from promptseg.finetune.lora import make_learner
from promptseg.finetune.processes import Processes
from promptseg.finetune.running import prepared, train_adapter
from promptseg.finetune.settling import SHARES, kept_share
from promptseg.finetune.trainer import SHORT_STEPS, Trainer
from promptseg.finetune.views import ViewMaker

ALONE = Processes(0, 1, torch.device("cpu"))


def trainer(backbone=None, labels=1, **options) -> Trainer:
    chosen = config(**options)
    backbone = backbone or tiny_default()
    learner = make_learner(backbone, chosen, labels)
    return Trainer(learner, ViewMaker(disc_cases(), labels, backbone.spec, chosen), chosen, ALONE)


def rates(one: Trainer) -> dict[float, float]:
    """Rate by factor, past the warm-up."""
    one.step = one.config.warmup
    one.update([one.views[0]])
    return {group["factor"]: group["lr"] for group in one.optimiser.param_groups}


class Boxes:
    """Stands for a validation: Dice by how far the tokens are from the start."""

    def __init__(self, one: Trainer, dice: dict[float, float]) -> None:
        self.one, self.dice, self.views = one, dice, [None] * 3
        self.asked: list[float] = []

    def boxes(self) -> float:
        start, end = self.one.weights.first["tokens"], self.one.weights.average["tokens"]
        now = self.one.parameters["tokens"].detach()
        share = float((now - start).norm() / (end - start).norm())
        self.asked.append(round(share, 3))
        return self.dice[round(share, 3)]


class TestRate:
    def test_short_runs_are_gentler(self):
        full = rates(trainer(steps=10 * SHORT_STEPS, warmup=0))[1.0]
        short = rates(trainer(steps=40, warmup=0))[1.0]
        assert full == pytest.approx(config().rate)
        assert 0.3 * full < short < 0.6 * full
        assert rates(trainer(steps=SHORT_STEPS, warmup=0))[1.0] == pytest.approx(full)

    def test_a_timed_run_goes_by_what_its_steps_take(self):
        one = trainer(steps=None, minutes=1.0, warmup=0)
        assert one.expected_steps >= SHORT_STEPS
        one.step, one.seconds = 5, 6.0
        assert one.expected_steps == pytest.approx(50)
        one.seconds = 0.6
        assert one.expected_steps == pytest.approx(500)

    def test_tokens_have_a_rate_of_their_own(self):
        one = trainer(steps=1000, warmup=0, token_rate=8.0, optimiser="adamw")
        assert rates(one)[8.0] == pytest.approx(8 * rates(one)[1.0])
        groups = {g["factor"]: g["params"] for g in one.optimiser.param_groups}
        assert [p is one.learner.tokens for p in groups[8.0]] == [True]
        assert len(groups[1.0]) + 1 == len(one.parameters)

    @pytest.mark.parametrize("make", [tiny_default, tiny_sam])
    def test_tokens_start_as_unlike_as_wanted(self, make):
        near, far = (make_learner(make(), config(spread=s), 5).tokens.detach() for s in (0.02, 0.5))
        assert float(torch.pdist(near).max()) < float(torch.pdist(far).min())
        assert torch.allclose(near.std(0).mean() * 25, far.std(0).mean(), rtol=1e-3)


class TestShare:
    def learned(self, **options) -> Trainer:
        one = trainer(**options)
        one.step = 7
        with torch.no_grad():
            for slow in one.weights.average.values():
                slow.add_(1.0)
        return one

    def test_all_where_boxes_do_not_suffer(self):
        one = self.learned()
        check = Boxes(one, {0.0: 0.7, 1.0: 0.7})
        assert kept_share(one, check) == 1.0
        assert check.asked == [0.0, 1.0]

    def test_the_largest_share_that_is_no_worse(self, caplog):
        one = self.learned()
        dice = {0.0: 0.7, 1.0: 0.5, 0.7: 0.6, 0.4: 0.75, 0.2: 0.72}
        with caplog.at_level(logging.WARNING, settling.__name__):
            assert kept_share(one, Boxes(one, dice)) == 0.4
        assert "7 steps are few: 40 % of what they changed is kept" in caplog.text

    def test_nothing_where_every_share_is_worse(self):
        one = self.learned()
        dice = dict.fromkeys([0.0, *SHARES], 0.5) | {0.0: 0.7}
        before = one.weights.copies()
        assert kept_share(one, Boxes(one, dice)) == 0.0
        assert all(torch.equal(p, before[n]) for n, p in one.parameters.items())

    def test_long_runs_are_not_measured(self):
        one = self.learned()
        one.step = SHORT_STEPS
        assert kept_share(one, Boxes(one, {})) == 1.0
        assert kept_share(self.learned(), None) == 1.0

    @pytest.mark.parametrize("options", [{}, {"dora": True}, {"encoder": "full"}])
    def test_none_of_it_is_the_base(self, options):
        backbone = tiny_default()
        images = torch.rand(1, 3, 64, 64)
        before = [f.detach() for f in backbone.encode(images).features]
        one = trainer(backbone, **options)
        for _ in range(2):
            one.update([one.views[n] for n in range(2)])
        with one.weights.averaged(0.0):
            now = backbone.encode(images).features
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, now, strict=True))
        assert not torch.allclose(before[0], backbone.encode(images).features[0], atol=1e-5)


@pytest.fixture(scope="module")
def taught():
    """A base that has seen discs: its boxes are worth keeping."""
    backbone = tiny_default()
    one = trainer(backbone, encoder="full", batch=4, steps=400, rate=5e-3, whole=0.0, unprompted=0)
    for step in range(40):
        one.update([one.views[n] for n in range(4 * step, 4 * step + 4)])
    taught = tiny_default()
    taught.module.load_state_dict(backbone.module.state_dict())
    return taught


class TestShortRun:
    def test_its_boxes_are_no_worse_than_without(self, taught):
        """A rate that ruins the network in a few steps leaves the boxes as they were."""
        chosen = config(steps=6, rate=1.0, validation_slices=4, warmup=0)
        with prepared(chosen, Sources(*cohort()), None, taught) as run:
            base = run.validation.boxes()
            run.trainer.run()
            share = kept_share(run.trainer, run.validation)
            with run.trainer.weights.averaged():
                ruined = run.validation.boxes()
            with run.trainer.weights.averaged(share):
                kept = run.validation.boxes()
        assert base > 0.3
        assert ruined < base <= kept
        assert share < 1

    def test_training_cases_stand_in_for_validation_cases(self, tmp_path, monkeypatch):
        seen = []

        def share(trainer, validation):
            seen.append(validation)
            return 0.4

        monkeypatch.setattr("promptseg.finetune.running.kept_share", share)
        chosen = config(steps=2, validation_share=0.0, validation_slices=3)
        train_adapter(chosen, *cohort(2), tmp_path / "a", backbone=tiny_default())
        assert len(seen[0].views) == 3
        assert all(len(view.prompts) == 1 for view in seen[0].views)
        again = replace(chosen, validation_slices=0)
        train_adapter(again, *cohort(2), tmp_path / "b", backbone=tiny_default())
        assert seen[1] is None
