import pytest
import torch
from peft import LoraConfig, get_peft_model
from support import SIZE, tiny_network

from promptseg.backbones.network import (
    PROMPT_CHANNELS,
    STRIDE,
    PromptsegConfig,
    PromptsegModel,
    position_map,
)


def inputs(count=2, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, size, size, generator=generator)
    maps = torch.rand(count, PROMPT_CHANNELS, size // 2, size // 2, generator=generator)
    return images, maps


@pytest.fixture(scope="module")
def network():
    return tiny_network()


class TestShapes:
    def test_maps_at_four_strides(self, network):
        with torch.inference_mode():
            maps = network.encode(inputs()[0])
        assert [tuple(m.shape) for m in maps] == [
            (2, 32, 4, 4), (2, 16, 8, 8), (2, 16, 16, 16), (2, 8, 32, 32)]  # fmt: skip

    @pytest.mark.parametrize("size", [32, 48, 64, 96])
    def test_other_input_sizes(self, network, size):
        with torch.inference_mode():
            logits, quality, presence = network(*inputs(size=size))
        assert logits.shape == (2, 4, size // 2, size // 2)
        assert quality.shape == (2, 4)
        assert presence.shape == (2,)
        assert all(torch.isfinite(part).all() for part in (logits, quality, presence))

    def test_number_of_masks_follows_the_configuration(self):
        config = PromptsegConfig(
            SIZE, (8, 16, 16), 32, depth=1, heads=2, decoder=(32, 16, 16, 8), masks=2
        )
        logits, quality, _ = PromptsegModel(config)(*inputs(1))
        assert logits.shape[1] == quality.shape[1] == 2

    def test_default_shape_fits_its_place(self):
        parameters = sum(p.numel() for p in PromptsegModel(PromptsegConfig()).parameters())
        assert parameters * 4 <= 16_000_000


class TestWhatDecides:
    def test_image_and_prompts_and_concept(self, network):
        images, maps = inputs()
        with torch.inference_mode():
            features = network.encode(images)
            plain = network.decode(features, maps)[0]
            concept = torch.randn(2, 32)
            others = [
                network.decode(network.encode(images.flip(0)), maps)[0],
                network.decode(features, maps.flip(0))[0],
                network.decode(features, maps, concept)[0],
            ]
            own = network.mask_decoder.concept.weight.expand(2, -1)
            same = network.decode(features, maps, own)[0]
        assert all((plain - other).abs().max() > 1e-3 for other in others)
        assert torch.equal(plain, same)

    def test_the_middle_slice_is_not_the_only_one_seen(self, network):
        images, _ = inputs()
        neighbour = images.clone()
        neighbour[:, 2] = 0
        with torch.inference_mode():
            one, other = network.encode(images)[0], network.encode(neighbour)[0]
        assert (one - other).abs().max() > 1e-3

    def test_positions_differ_and_do_not_depend_on_the_size(self):
        table = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
        coarse, fine = position_map(4, 4, table), position_map(12, 12, table)
        assert coarse.shape == (1, 32, 4, 4)
        torch.testing.assert_close(coarse, fine[:, :, 1::3, 1::3], atol=1e-5, rtol=0)
        flat = coarse.flatten(2)[0].T
        assert torch.cdist(flat, flat).add(torch.eye(16) * 9).min() > 0.1


class TestBatch:
    @pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
    def test_a_row_does_not_depend_on_the_others(self, network, precision):
        images, maps = inputs(5)
        cast = torch.autocast("cpu", precision, enabled=precision != torch.float32)
        with torch.inference_mode(), cast:
            features = network.encode(images)
            together = network.decode(features, maps)[0].float()
            for rows in ([0], [3, 4], [1, 2, 3]):
                some = network.decode(tuple(f[rows] for f in features), maps[rows])[0].float()
                close = 1e-5 if precision == torch.float32 else 0
                torch.testing.assert_close(some, together[rows], rtol=0, atol=close)

    def test_gradients_reach_every_parameter(self):
        network = tiny_network()
        logits, quality, presence = network(*inputs())
        (logits.square().mean() + quality.sum() + presence.sum()).backward()
        missing = [n for n, p in network.named_parameters() if p.grad is None]
        assert missing == []


class TestFolder:
    def test_round_trip(self, network, tmp_path):
        network.save_pretrained(tmp_path)
        again = PromptsegModel.from_pretrained(tmp_path).eval()
        assert again.config.to_diff_dict() == network.config.to_diff_dict()
        with torch.inference_mode():
            for one, other in zip(network(*inputs()), again(*inputs()), strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=0)

    def test_weights_are_safetensors(self, network, tmp_path):
        network.save_pretrained(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]

    def test_attention_kinds_agree(self, network, tmp_path):
        network.save_pretrained(tmp_path)
        eager = PromptsegModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
        with torch.inference_mode():
            one, other = network(*inputs())[0], eager(*inputs())[0]
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


class TestLora:
    """LoRA addresses the blocks by the names that they have in every SAM of transformers."""

    def adapted(self, targets, seed=0):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, lora_dropout=0.0)
        return get_peft_model(tiny_network(), config)

    def outputs(self, model):
        with torch.inference_mode():
            return model(*inputs())[0]

    @pytest.mark.parametrize("targets", [["qkv"], ["qkv", "proj"], ["lin1", "lin2"]])
    def test_a_step_trains_the_adapter_and_nothing_else(self, targets):
        model = self.adapted(targets)
        base = {n: p.clone() for n, p in model.named_parameters() if "lora_" not in n}
        before = self.outputs(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.SGD(trained, 0.1)
        for _ in range(2):
            optimiser.zero_grad()
            model(*inputs())[0].square().mean().backward()
            optimiser.step()
        assert (self.outputs(model) - before).abs().max() > 1e-5
        assert all(torch.equal(base[n], p) for n, p in model.named_parameters() if n in base)
        assert all("lora_" in n for n, p in model.named_parameters() if p.requires_grad)
        assert sum(p.numel() for p in trained) < sum(p.numel() for p in base.values()) / 5

    def test_a_fresh_adapter_changes_nothing(self):
        assert torch.equal(self.outputs(self.adapted(["qkv"])), self.outputs(tiny_network()))

    def test_merged_equals_unmerged(self):
        model = self.adapted(["qkv", "lin1", "lin2"])
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.1)
        unmerged = self.outputs(model)
        merged = model.merge_and_unload()
        assert isinstance(merged, PromptsegModel)
        assert not any("lora_" in name for name, _ in merged.named_parameters())
        torch.testing.assert_close(self.outputs(merged), unmerged, atol=1e-5, rtol=0)
        assert (unmerged - self.outputs(tiny_network())).abs().max() > 1e-4

    def test_blocks_at_stride_sixteen_are_what_is_adapted(self):
        model = self.adapted(["qkv"])
        names = [n for n, _ in model.named_parameters() if "lora_A" in n]
        assert len(names) == model.base_model.model.config.depth
        assert all("image_encoder.layers." in n for n in names)
        assert STRIDE == 16
