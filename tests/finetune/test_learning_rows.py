"""Which labels are asked of a view, and how all are told apart at once."""

from dataclasses import replace

import pytest
import torch
from adapter_kit import config, disc_cases
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_default, tiny_sam
from torch.nn import functional

from promptseg.backbones.base import Decoded, PixelPrompts
from promptseg.finetune.learning import (
    ASKED_MOST,
    apart_loss,
    asked_of,
    dense_loss,
    row_losses,
    rows_of,
)
from promptseg.finetune.lora import make_learner
from promptseg.finetune.named_losses import LOSSES, loss_by_name
from promptseg.finetune.organ_case import UNKNOWN
from promptseg.finetune.processes import Processes
from promptseg.finetune.trainer import Trainer
from promptseg.finetune.views import View, ViewMaker


def view(number: int, shown: set[int], labels: int, own: int | None = None) -> View:
    """A view of 8 x 8 masks on which some labels are to be seen."""
    masks = torch.zeros(labels, 8, 8)
    for place in shown:
        masks[place, 2:6, 2:6] = 1
    places = [] if own is None else [own]
    return View(number, torch.zeros(3, 16, 16), masks, [], places, [])


class TestFewLabels:
    def test_all_are_asked(self):
        assert asked_of(view(3, {1}, 4), 4) == [0, 1, 2, 3]


class TestManyLabels:
    @given(
        number=st.integers(0, 10**6),
        shown=st.sets(st.integers(0, 10), max_size=11),
    )
    def test_own_first_shown_before_blank_and_one_blank(self, number, shown):
        own = min(shown) if shown else None
        asked = asked_of(view(number, shown, 11, own), 11)
        assert len(asked) == len(set(asked)) == ASKED_MOST
        assert own is None or asked[0] == own
        assert len(shown) == 11 or set(asked) - shown
        seen = min(len(shown), ASKED_MOST - 1)
        assert own is None or len(set(asked) & shown) >= seen

    def test_every_label_has_its_turn(self):
        asked = {place for n in range(300) for place in asked_of(view(n, {0, 1, 2}, 11, 0), 11)}
        assert asked == set(range(11))
        nothing = {place for n in range(300) for place in asked_of(view(n, set(), 11), 11)}
        assert nothing == set(range(11))

    def test_rows_name_them(self):
        views = [view(n, {0, 1}, 6, 0) for n in range(3)]
        views = [replace(one, prompts=[PixelPrompts()], ambiguous=[False]) for one in views]
        tokens, prompted = rows_of(views, 6)
        assert tokens.tokens
        assert len(tokens.views) == 3 * ASKED_MOST
        assert prompted.places == [0, 0, 0]


class TestDense:
    def masks(self) -> torch.Tensor:
        """Two views of two labels, the second small; (2, 2, 16, 16)."""
        masks = torch.zeros(2, 2, 16, 16)
        masks[:, 0, :8] = 1
        masks[:, 1, 12:, 12:] = 1
        masks[1] = 0
        return masks

    def test_is_low_where_features_point_to_their_label(self):
        tokens = torch.eye(2, 8) * 30
        shares = functional.adaptive_avg_pool2d(self.masks(), 4)
        right = torch.einsum("blhw,lc->bchw", 2 * shares - 1, tokens)
        wrong = torch.einsum("blhw,lc->bchw", 1 - 2 * shares, tokens)
        good, bad = (dense_loss(f, tokens, self.masks()) for f in (right, wrong))
        assert (good < 1e-3).all()
        assert (bad > 1).all()

    def test_each_view_alone(self):
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(2, 8, 4, 4, generator=generator)
        tokens = torch.randn(2, 8, generator=generator)
        both = dense_loss(features, tokens, self.masks())
        each = [dense_loss(features[n, None], tokens, self.masks()[n, None]) for n in (0, 1)]
        assert torch.allclose(both, torch.cat(each))

    @pytest.mark.parametrize("make", [tiny_default, tiny_sam])
    def test_teaches_encoder_and_tokens(self, make):
        backbone = make()
        chosen = config(dense=2.0, unprompted=0.0)
        learner = make_learner(backbone, chosen, 1)
        views = ViewMaker(disc_cases(), 1, backbone.spec, chosen)
        one = Trainer(learner, views, chosen, Processes(0, 1, torch.device("cpu")))
        start = one.weights.copies()
        parts = one.update([one.views[n] for n in range(2)])
        assert parts["dense_loss"] > 0
        moved = {n for n, p in one.parameters.items() if not torch.equal(p, start[n])}
        assert "tokens" in moved
        assert any("lora_B" in name for name in moved)

    def test_answers_of_one_view_compete(self):
        """Of two answers that both claim a place, the one whose label is there is to win."""
        shares = self.masks()[:1]
        both = torch.zeros(1, 2, 16, 16).requires_grad_()
        apart_loss(both, shares).sum().backward()
        first, second = both.grad[0]
        assert (first[:8] < 0).all()
        assert (second[:8] > 0).all()
        assert (second[12:, 12:] < 0).all()
        assert (both.grad[0][:, 9] > 0).all()


class TestIgnored:
    """Nothing is learnt where nobody annotated: labels below 0."""

    def answered(self) -> Decoded:
        torch.manual_seed(0)
        logits = torch.randn(2, 3, 16, 16).requires_grad_()
        return Decoded(logits, torch.rand(2, 3), torch.rand(2))

    def known(self, share: float) -> torch.Tensor:
        known = torch.ones(2, 16, 16)
        known[:, :, round(16 * share) :] = 0
        return known

    @pytest.mark.parametrize("name", [*LOSSES, "dice+3*cross_entropy"])
    def test_no_loss_pulls_at_ignored_pixels(self, name):
        answered, target = self.answered(), torch.zeros(2, 16, 16)
        target[:, 2:12, 2:6] = 1
        losses, _ = row_losses(answered, target, loss_by_name(name), self.known(0.5))
        losses.sum().backward()
        pulled = answered.logits.grad.abs().sum((0, 1)) > 0
        assert not pulled[:, 8:].any()
        assert pulled[:, :8].all()

    def test_what_stands_on_them_is_all_the_same(self):
        answered, target = self.answered(), torch.zeros(2, 16, 16)
        target[:, 2:12, 2:6] = 1
        other = target.clone()
        other[:, 9:, 9:] = 1
        known, loss = self.known(0.5), loss_by_name("dice+cross_entropy")
        one, two = (row_losses(answered, t, loss, known)[0] for t in (target, other))
        torch.testing.assert_close(one, two)

    def test_a_target_that_they_may_hide_is_not_learnt_as_absent(self):
        nothing, loss, one = torch.zeros(2, 16, 16), loss_by_name("cross_entropy"), self.answered()
        told = [replace(one, presence=torch.full((2,), share)) for share in (0.01, 0.99)]
        hidden = [row_losses(said, nothing, loss, self.known(0.5))[0] for said in told]
        torch.testing.assert_close(*hidden)
        absent, there = (row_losses(said, nothing, loss)[0] for said in told)
        assert (there - absent > 1).all()

    def test_a_view_of_nothing_else_teaches_nothing(self):
        answered = self.answered()
        losses, _ = row_losses(answered, torch.ones(2, 16, 16), loss_by_name("dice+focal"),
                               self.known(0.0))  # fmt: skip
        assert (losses < 0.01).all()
        scores = torch.randn(2, 1, 16, 16)
        shares = torch.zeros(2, 1, 16, 16)
        assert not apart_loss(scores, shares, self.known(0.0)).any()

    def test_the_map_of_the_encoder_is_not_pulled_either(self):
        scores = torch.zeros(2, 1, 16, 16).requires_grad_()
        shares = torch.zeros(2, 1, 16, 16)
        shares[..., 2:6] = 1
        apart_loss(scores, shares, self.known(0.5)).sum().backward()
        assert not scores.grad[..., 8:].any()
        assert (scores.grad[..., :8] != 0).all()

    @pytest.mark.parametrize("make", [tiny_default, tiny_sam])
    def test_a_step_is_the_same_whatever_they_hide(self, make):
        """Half of every slice is ignored; what the image shows there changes the features alone."""
        cases = []
        for case in disc_cases():
            labels = case.labels.copy()
            labels[:, :, labels.shape[2] // 2 :] = UNKNOWN
            cases.append(replace(case, labels=labels))
        backbone, chosen = make(), config(dense=0.2 if make is tiny_default else 0.0)
        learner = make_learner(backbone, chosen, 1)
        maker = ViewMaker(cases, 1, backbone.spec, chosen)
        one = Trainer(learner, maker, chosen, Processes(0, 1, torch.device("cpu")))
        batch = one.network.collate([maker[n] for n in range(4)])
        filled = batch.masks.maximum((batch.known < 0.5)[:, None].float())
        losses = [float(one.network.see(b).supervised()[0].detach())
                  for b in (batch, replace(batch, masks=filled))]  # fmt: skip
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)
