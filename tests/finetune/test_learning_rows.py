"""Which labels are asked of a view, and how all are told apart at once."""

from dataclasses import replace

import pytest
import torch
from adapter_kit import config, disc_cases
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_default, tiny_sam
from torch.nn import functional

from promptseg.backbones.base import PixelPrompts
from promptseg.finetune.learning import ASKED_MOST, apart_loss, asked_of, dense_loss, rows_of
from promptseg.finetune.lora import make_learner
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
        start = one._copies()
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
