"""Each objective on one network: what it is, what it teaches whom."""

import math

import numpy as np
import pytest
import torch
from plain_kit import label_batch, stroke_batch, tiny_plain

from promptseg.errors import FormatError
from promptseg.finetune.objectives import OBJECTIVES, objective_class
from promptseg.finetune.objectives.base import AUXILIARY, LEVELS, MAIN, Objective, swapped
from promptseg.finetune.objectives.crf import ALIKE, NEAR, offsets, pairwise
from promptseg.finetune.objectives.fixmatch import sure_cross_entropy
from promptseg.finetune.objectives.perturb import NOISE, blanked, noisy, strongly
from promptseg.finetune.objectives.random_walker import walked
from promptseg.finetune.objectives.scribble import mixed_labels
from promptseg.finetune.objectives.terms import hard_labels, inside_probability, ramp, soft_dice


def made(name: str, labels: int = 2) -> Objective:
    return objective_class(name)(tiny_plain(labels))


def gradients(objective: Objective, loss: torch.Tensor) -> dict[str, torch.Tensor | None]:
    every = {**objective.network.parameters, **objective.parameters}
    found = torch.autograd.grad(loss, list(every.values()), allow_unused=True, retain_graph=True)
    return dict(zip(every, found, strict=True))


class TestRegistry:
    def test_every_name_gives_a_class(self):
        classes = {name: objective_class(name) for name in OBJECTIVES}
        assert len(set(classes.values())) == len(OBJECTIVES) == 13
        assert all(issubclass(kind, Objective) for kind in classes.values())

    def test_unknown(self):
        with pytest.raises(FormatError, match=r"'dmpls'.*scribble"):
            objective_class("dmpls")

    @pytest.mark.parametrize("name", OBJECTIVES)
    def test_teaches_everything_it_added(self, name):
        objective = made(name)
        batch = stroke_batch() if objective.needs_strokes else label_batch()
        loss, parts = objective(batch)
        assert torch.isfinite(loss)
        assert all(math.isfinite(value) for value in parts.values())
        found = gradients(objective, loss)
        assert all(g is not None and g.isfinite().all() for g in found.values())

    @pytest.mark.parametrize("name", OBJECTIVES)
    def test_is_the_sum_over_samples(self, name):
        """A step in parts must be the whole step: where nothing is drawn, the loss adds up."""
        if name in ("scribble", "consistency", "cps", "mean_teacher", "uncertain_teacher",
                    "fixmatch"):  # fmt: skip
            pytest.skip("draws dropout, a mixture or noise")
        objective = made(name)
        if objective.needs_strokes:
            whole = stroke_batch(2)
            single = [stroke_batch(1, images=whole.images[n : n + 1]) for n in range(2)]
        else:
            whole = label_batch(1)
            single = [_row(whole, n) for n in range(2)]
        parts = [float(objective(one)[0].detach()) for one in single]
        assert float(objective(whole)[0].detach()) == pytest.approx(sum(parts), rel=1e-4)


def _row(batch, n):
    from dataclasses import replace

    part = slice(n, n + 1)
    return replace(batch, images=batch.images[part], masks=batch.masks[part],
                   labelled=batch.labelled[part], levels=batch.levels[part])  # fmt: skip


class TestMixedPseudoLabels:
    main = torch.tensor([[[[0.9, 0.4]], [[0.1, 0.6]]]])
    other = torch.tensor([[[[0.3, 0.8]], [[0.7, 0.2]]]])

    def test_ends_are_the_branches(self):
        assert torch.equal(mixed_labels(self.main, self.other, 1.0), hard_labels(self.main))
        assert torch.equal(mixed_labels(self.main, self.other, 0.0), hard_labels(self.other))

    def test_by_hand(self):
        """0.5: 0.6 to 0.4 and 0.6 to 0.4; 0.25: 0.45 to 0.55 and 0.7 to 0.3."""
        assert mixed_labels(self.main, self.other, 0.5).argmax(1).tolist() == [[[0, 0]]]
        assert mixed_labels(self.main, self.other, 0.25).argmax(1).tolist() == [[[1, 0]]]

    def test_equation_4_3_by_hand(self, monkeypatch):
        monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(0.25))
        labels = torch.tensor([[[[0.0, 1.0]], [[1.0, 0.0]]]])
        expected = 0.5 * (soft_dice(self.main, labels) + soft_dice(self.other, labels))
        assert torch.allclose(made("scribble").mutual(self.main, self.other), expected)

    def test_gradients_do_not_cross_branches(self):
        main, other = self.main.clone().requires_grad_(), self.other.clone().requires_grad_()
        objective = made("scribble")
        torch.manual_seed(0)
        objective.mutual(main, other).sum().backward()
        torch.manual_seed(0)
        share = float(torch.rand(()))
        alone = self.main.clone().requires_grad_()
        labels = mixed_labels(self.main, self.other, share)
        (0.5 * soft_dice(alone, labels)).sum().backward()
        assert torch.equal(main.grad, alone.grad)

    def test_partial_cross_entropy_of_a_branch_stays_in_it(self):
        objective = made("scribble")
        seen = objective.network.see(stroke_batch())
        found = gradients(objective, seen.fit(MAIN))
        assert all(found[name] is None for name in found if name.startswith(AUXILIARY))
        found = gradients(objective, seen.fit(AUXILIARY))
        assert all(found[name] is None for name in found if name.startswith(("decoder", "head")))
        assert found["encoder.fine.weight"].any()

    def test_equation_4_4(self, monkeypatch):
        objective = made("scribble")
        batch = stroke_batch()
        torch.manual_seed(5)
        total = objective(batch)[0]
        torch.manual_seed(5)
        seen = objective.network.see(batch)
        mutual = objective.mutual(seen.probabilities(MAIN), seen.probabilities(AUXILIARY)).sum()
        expected = 0.5 * (seen.fit(MAIN) + seen.fit(AUXILIARY)) + 0.5 * mutual
        assert torch.allclose(total, expected)

    def test_a_fresh_share_each_step(self):
        torch.manual_seed(0)
        shares = []
        objective = made("scribble")
        for _ in range(8):
            shares.append(float(objective.mutual(self.main, self.other)))
        assert len(set(shares)) > 1


class TestDualTaskConsistency:
    def test_equation_5_7_by_hand(self):
        objective = made("semi")
        batch = label_batch(progress=0.5)
        total, _ = objective(batch)
        seen = objective.network.see(batch)
        levels, chances = seen.levels(), seen.probabilities()[:, 1:]
        fitted = (levels[0] - batch.levels[0]).square().mean()
        tasks = (chances - inside_probability(levels)).square().mean((1, 2, 3)).sum()
        expected = 2 * seen.supervised()[0] + 2 * fitted + ramp(0.5) * tasks
        assert torch.allclose(total, expected, rtol=1e-4)

    def test_unlabelled_samples_teach_by_consistency_alone(self):
        objective = made("semi")
        batch = label_batch(unlabelled=1)
        row = _row(batch, 1)
        loss = objective(row)[0]
        seen = objective.network.see(row)
        tasks = (seen.probabilities()[:, 1:] - inside_probability(seen.levels())).square().mean()
        assert torch.allclose(loss, tasks, rtol=1e-4)

    def test_level_set_regression_leaves_the_mask_head_alone(self):
        objective = made("semi")
        batch = label_batch()
        levels = objective.network.see(batch).levels()
        found = gradients(objective, (levels - batch.levels).square().sum())
        assert found["head.weight"] is None
        assert found[f"{LEVELS} head.weight"].any()

    def test_needs_distances(self):
        batch = stroke_batch(strokes=False)
        with pytest.raises(FormatError, match="signed distances"):
            made("semi")(batch)


class TestBranches:
    def test_consistency_pulls_both(self):
        main = torch.tensor([[[[0.9]], [[0.1]]]], requires_grad=True)
        other = torch.tensor([[[[0.5]], [[0.5]]]], requires_grad=True)
        loss = made("consistency").mutual(main, other)
        assert float(loss.detach()) == pytest.approx(0.16)
        loss.sum().backward()
        assert torch.allclose(main.grad, -other.grad)

    def test_cross_labels(self):
        main = torch.tensor([[[[0.9]], [[0.1]]]])
        other = torch.tensor([[[[0.2]], [[0.8]]]])
        one, two = torch.tensor([[[[1.0]], [[0.0]]]]), torch.tensor([[[[0.0]], [[1.0]]]])
        expected = 0.5 * (soft_dice(main, two) + soft_dice(other, one))
        assert torch.allclose(made("cps").mutual(main, other), expected)


class TestCrf:
    def test_by_hand(self):
        """Two pixels one apart, grey values 0.1 apart, answers opposite."""
        probabilities = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
        grey = torch.tensor([[[[0.4, 0.5]]]])
        weight = math.exp(-1 / (2 * NEAR**2) - 0.1**2 / (2 * ALIKE**2))
        assert float(pairwise(probabilities, grey)) == pytest.approx(weight * 2 / 2, rel=1e-4)

    def test_equal_answers_cost_nothing(self):
        probabilities = torch.full((1, 2, 5, 5), 0.5)
        assert float(pairwise(probabilities, torch.rand(1, 1, 5, 5))) == 0

    def test_each_pair_once(self):
        steps = list(offsets(3, 2))
        assert len(steps) == (7 * 7 - 1) // 2
        assert not {tuple(-d for d in step) for step in steps} & set(steps)


class TestRandomWalker:
    def test_grows_up_to_the_edge(self):
        grey = np.zeros((12, 12), np.float32)
        grey[3:9, 3:9] = 1
        strokes = np.full((12, 12), -1, np.int16)
        strokes[6, 5:7], strokes[0] = 1, 0
        found = walked(grey, strokes)
        assert (found[3:9, 3:9] == 1).all()
        assert (found[:2] == 0).all()
        assert (found[strokes >= 0] == strokes[strokes >= 0]).all()

    def test_unsure_pixels_stay_unannotated(self):
        strokes = np.full((5, 9), -1, np.int16)
        strokes[:, 0], strokes[:, -1] = 0, 1
        grey = np.tile([0.5, 0.51], (5, 5))[:, :9].astype(np.float32)
        assert (walked(grey, strokes)[:, 4] == -1).all()

    def test_a_blank_slice_stays(self):
        strokes = np.full((5, 9), -1, np.int16)
        strokes[:, 0], strokes[:, -1] = 0, 1
        assert np.array_equal(walked(np.zeros((5, 9), np.float32), strokes), strokes)

    def test_one_class_stays(self):
        strokes = np.full((5, 5), -1, np.int16)
        strokes[2, 2] = 1
        assert np.array_equal(walked(np.zeros((5, 5), np.float32), strokes), strokes)


class TestTeachers:
    def test_average_by_hand(self):
        objective = made("mean_teacher")
        weight = objective.network.parameters["head.bias"]
        start = weight.detach().clone()
        with torch.no_grad():
            weight.add_(1.0)
        objective.stepped(1)
        assert torch.allclose(objective.state["head.bias"], start + 0.5)
        objective.stepped(10_000)
        assert torch.allclose(objective.state["head.bias"], start + 0.5 + 0.5 * 0.01)

    def test_teacher_has_no_gradient_and_the_student_keeps_its_weights(self):
        objective = made("mean_teacher")
        before = {n: p.detach().clone() for n, p in objective.network.parameters.items()}
        objective.slow["head.bias"][0] += 3.0
        batch = stroke_batch()
        lesson = objective.taught(batch, batch.images)
        assert not lesson.requires_grad
        plain = objective.network.see(batch).probabilities()
        assert not torch.allclose(lesson, plain)
        now = objective.network.parameters
        assert all(torch.equal(now[n], before[n]) for n in before)

    def test_state_comes_back(self):
        one, other = made("mean_teacher"), made("mean_teacher")
        one.slow["head.bias"].add_(1.0)
        other.restore(dict(one.state))
        assert torch.equal(other.slow["head.bias"], one.slow["head.bias"])

    def test_swapped_back_after_an_error(self):
        network = tiny_plain()
        kept = network.parameters["head.bias"].data_ptr()
        with (
            pytest.raises(ZeroDivisionError),
            swapped(network.parameters, {"head.bias": torch.zeros(3)}),
        ):
            raise ZeroDivisionError
        assert network.parameters["head.bias"].data_ptr() == kept

    def test_unsure_elements_do_not_count(self):
        """Of two pixels the teacher is sure of one: only that one's distance is the mean."""
        objective = made("uncertain_teacher", labels=1)
        batch = stroke_batch(1, side=2)
        seen = objective.network.see(stroke_batch(1, side=2, masks=batch.masks[:, :1]))
        lesson = torch.full((1, 2, 2, 2), 0.5)
        lesson[0, :, 0, 0] = torch.tensor([1.0, 0.0])
        found = objective.distance(seen, lesson, progress=0.0)
        expected = (seen.probabilities()[0, :, 0, 0] - lesson[0, :, 0, 0]).square().mean()
        assert torch.allclose(found, expected)


class TestFixMatch:
    def test_only_sure_elements(self):
        logits = torch.zeros(1, 2, 1, 2)
        probabilities = torch.tensor([[[[0.96, 0.9]], [[0.04, 0.1]]]])
        found = sure_cross_entropy(logits, probabilities)
        assert float(found) == pytest.approx(math.log(2) / 2, rel=1e-5)


class TestPerturbations:
    def test_noise_is_bounded(self):
        torch.manual_seed(0)
        images = torch.full((2, 1, 32, 32), 0.5)
        apart = noisy(images) - images
        assert float(apart.abs().max()) <= 0.2 + 1e-6
        assert float(apart.std()) == pytest.approx(NOISE, rel=0.1)

    def test_strong_ones_keep_the_shape_and_range(self):
        for shape in ((2, 3, 16, 16), (1, 1, 8, 8, 8)):
            images = torch.rand(shape)
            found = strongly(images)
            assert found.shape == images.shape
            assert float(found.min()) >= -0.2001
            assert float(found.max()) <= 1.2001

    def test_a_block_of_each_sample_is_blank(self):
        found = blanked(torch.zeros(3, 1, 10, 10))
        assert (found == 0.5).flatten(1).sum(1).tolist() == [9, 9, 9]
