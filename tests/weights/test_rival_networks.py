"""The networks that the default one is compared with, behind one interface."""

import pytest
import torch
from support import ragged_prompts

from promptseg.backbones.base import PromptBatch
from rival_networks import NETWORKS, Named

SIZE, HALF = 64, 32


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param](SIZE).eval()


def learning(network):
    return [p for p in network.parameters() if p.requires_grad]


class TestInterface:
    def test_shapes(self, network):
        prompts = PromptBatch.collate(ragged_prompts(SIZE), SIZE, HALF)
        with torch.no_grad():
            features = network.encode(torch.rand(len(prompts), 3, SIZE, SIZE))
            logits, quality, presence = network.decode(features, prompts)
        assert logits.shape == (len(prompts), 4, HALF, HALF)
        assert quality.shape == (len(prompts), 4)
        assert presence.shape == (len(prompts),)

    def test_prompts_reach_the_answer(self, network):
        prompts = PromptBatch.collate(ragged_prompts(SIZE), SIZE, HALF)
        with torch.no_grad():
            features = network.encode(torch.rand(1, 3, SIZE, SIZE))
            same = tuple(f.expand(len(prompts), -1, -1, -1) for f in features)
            logits, *_ = network.decode(same, prompts)
        assert (logits[0] - logits[1]).abs().max() > 1e-4

    def test_everything_that_learns_gets_a_gradient(self, network):
        prompts = PromptBatch.collate(ragged_prompts(SIZE), SIZE, HALF)
        features = network.encode(torch.rand(len(prompts), 3, SIZE, SIZE))
        sum(part.sum() for part in network.decode(features, prompts)).backward()
        unused = [p for p in learning(network) if p.grad is None]
        network.zero_grad()
        # The decoders of transformers keep one token and its perceptron for a single mask.
        assert sum(p.numel() for p in unused) < 0.02 * sum(p.numel() for p in learning(network))

    def test_about_as_large_as_the_default(self, network):
        assert sum(p.numel() for p in learning(network)) == pytest.approx(3.3e6, rel=0.05)


class TestNames:
    def test_tables_are_not_orthogonalised(self):
        names = [name for name, _ in Named(NETWORKS["vit"](SIZE)).named_parameters()]
        tables = [name for name in names if name.startswith("tokens ")]
        assert any("pos_embed" in name for name in tables)
        assert any("point_embed" in name for name in tables)
        assert not any("proj" in name or "patch_embed" in name for name in tables)
