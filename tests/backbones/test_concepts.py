"""Tokens that name a target, on every family."""

import pytest
import torch
import transformers
from support import SIZE, ragged_prompts, tiny_default, tiny_sam

from promptseg.backbones.base import PixelPrompts, PromptBatch
from promptseg.backbones.folders import wrap


def tiny_transformers_sam():
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 64,
            "image_size": SIZE, "patch_size": 8, "window_size": 3, "output_channels": 32,
            "global_attn_indexes": [0], "num_pos_feats": 16,
        },
        prompt_encoder_config={
            "hidden_size": 32, "image_size": SIZE, "patch_size": 8, "mask_input_channels": 16,
        },
        mask_decoder_config={
            "hidden_size": 32, "mlp_dim": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
            "iou_head_hidden_dim": 32, "iou_head_depth": 2,
        },
    )  # fmt: skip
    return wrap(transformers.SamModel(config))


@pytest.fixture(params=[tiny_default, tiny_sam, tiny_transformers_sam])
def backbone(request):
    return request.param()


def decode(backbone, prompts, tokens=None):
    spec = backbone.spec
    torch.manual_seed(3)
    embedding = backbone.encode(torch.rand(1, 3, SIZE, SIZE))
    batch = PromptBatch.collate(prompts, spec.input_size, spec.mask_size)
    return backbone.decode(embedding[[0] * len(prompts)], batch, concept=tokens).logits


@torch.no_grad()
def test_token_alone_answers_and_tokens_differ(backbone):
    assert backbone.spec.concept == 32
    tokens = torch.randn(2, 32)
    logits = decode(backbone, [PixelPrompts()] * 2, tokens)
    assert logits.shape == (2, 1, backbone.spec.mask_size, backbone.spec.mask_size)
    assert (logits[0] - logits[1]).abs().max() > 0.05 * logits.abs().max()


@torch.no_grad()
def test_ragged_prompts_with_tokens_answer_as_each_alone(backbone):
    prompts, tokens = ragged_prompts(), torch.randn(7, 32)
    if backbone.spec.mask_size != SIZE // 2:
        prompts = [p for p in prompts if p.mask is None]
        tokens = tokens[: len(prompts)]
    together = decode(backbone, prompts, tokens)
    for row, prompt in enumerate(prompts):
        alone = decode(backbone, [prompt], tokens[row : row + 1])
        assert torch.allclose(together[row], alone[0], atol=1e-4)


@torch.no_grad()
def test_no_token_is_as_before(backbone):
    prompts = ragged_prompts()[:3]
    first = decode(backbone, prompts)
    decode(backbone, prompts, torch.randn(3, 32))
    assert torch.equal(decode(backbone, prompts), first)


def test_token_gets_a_gradient(backbone):
    token = torch.randn(1, 32, requires_grad=True)
    decode(backbone, [PixelPrompts()], token).sum().backward()
    assert token.grad.abs().sum() > 0
