import pytest
import torch
from adapter_kit import answers, state_of, unchanged
from safetensors.torch import load_file, save_file
from support import SIZE, tiny_default, tiny_sam

from promptseg.adapters import AdapterStack, read_sam_lora, write_adapter
from promptseg.backbones.layout import SamShape
from promptseg.backbones.segment_anything import SegmentAnything, build_sam
from promptseg.errors import AdapterError


def wide_sam(depth: int) -> SegmentAnything:
    """ViT-B's width and heads, fewer blocks, a small input and random weights."""
    torch.manual_seed(1)
    shape = SamShape(
        image_size=SIZE, patch_size=16, width=768, depth=depth, heads=12, hidden=96,
        qkv_bias=True, window=2, global_blocks=(depth - 1,), channels=32, mask_channels=16,
        decoder_depth=1, decoder_hidden=32, decoder_downsample=2, masks=3, quality_depth=2,
        quality_hidden=16,
    )  # fmt: skip
    return SegmentAnything(build_sam(shape, SIZE).state_dict(), name="wide")


def by_its_own_formula(backbone: SegmentAnything, pairs: dict[str, torch.Tensor]) -> None:
    """Hooks that add w_b(w_a(x)) to q and v of each block, as the file's author does."""
    for n, block in enumerate(backbone.module.image_encoder.blocks):
        a_q, a_v = pairs[f"w_a_{2 * n:03d}"], pairs[f"w_a_{2 * n + 1:03d}"]
        b_q, b_v = pairs[f"w_b_{2 * n:03d}"], pairs[f"w_b_{2 * n + 1:03d}"]

        def added(layer, inputs, output, a_q=a_q, b_q=b_q, a_v=a_v, b_v=b_v):
            width = inputs[0].shape[-1]
            output = output.clone()
            output[..., :width] += inputs[0] @ a_q.T @ b_q.T
            output[..., -width:] += inputs[0] @ a_v.T @ b_v.T
            return output

        block.attn.qkv.register_forward_hook(added)


def small_file(path, width: int = 32, blocks: int = 2, rank: int = 3):
    torch.manual_seed(2)
    pairs = {}
    for n in range(2 * blocks):
        pairs[f"w_a_{n:03d}"] = torch.randn(rank, width) * 0.1
        pairs[f"w_b_{n:03d}"] = torch.randn(width, rank) * 0.1
    save_file(pairs, path)
    return pairs


class TestFormula:
    def check(self, make, path, pairs) -> None:
        backbone, reference = make(), make()
        base = answers(backbone)
        by_its_own_formula(reference, pairs)
        stack = AdapterStack(backbone)
        stack.add(read_sam_lora(path, backbone))
        stack.use(path.stem)
        assert torch.allclose(answers(backbone), answers(reference), atol=1e-4)
        assert not torch.allclose(answers(backbone), base, atol=1e-4)
        stack.use(None)
        assert torch.equal(answers(backbone), base)

    def test_small(self, tmp_path):
        pairs = small_file(tmp_path / "lora.safetensors")
        self.check(tiny_sam, tmp_path / "lora.safetensors", pairs)

    @pytest.mark.parametrize("rank", [4, 16])
    def test_real_file_on_the_first_blocks(self, shared_data, tmp_path, rank):
        path = shared_data / "sam_vit_b_lora" / f"lora_rank{rank}.safetensors"
        if not path.is_file():
            pytest.skip(f"no {path}")
        pairs = load_file(path)
        assert len(pairs) == 48
        first = {name: t for name, t in pairs.items() if int(name[-3:]) < 4}
        save_file(first, tmp_path / "lora.safetensors")
        self.check(lambda: wide_sam(2), tmp_path / "lora.safetensors", first)

    def test_survives_writing(self, tmp_path):
        small_file(tmp_path / "lora.safetensors")
        backbone = tiny_sam()
        adapter = read_sam_lora(tmp_path / "lora.safetensors", backbone)
        again = write_adapter(adapter, tmp_path / "lora")
        assert again.digest == adapter.digest


class TestRefusals:
    def test_each_leaves_the_backbone_alone(self, tmp_path):
        good = tmp_path / "good.safetensors"
        pairs = small_file(good)
        lacking = {name: t for name, t in pairs.items() if name != "w_b_001"}
        save_file(lacking, tmp_path / "lacking.safetensors")
        odd = {**pairs, "w_a_001": torch.zeros(5, 32)}
        save_file(odd, tmp_path / "odd.safetensors")
        (tmp_path / "text.safetensors").write_text("no")
        backbone = tiny_sam()
        before = state_of(backbone)
        for name, words in (
            ("lacking", "w_b_001 is missing"),
            ("odd", "w_a_001"),
            ("text", "whole safetensors"),
            ("nothing", "cannot be read"),
        ):
            with pytest.raises(AdapterError, match=words):
                read_sam_lora(tmp_path / f"{name}.safetensors", backbone)
        with pytest.raises(AdapterError, match="is for SAM"):
            read_sam_lora(good, tiny_default())
        assert unchanged(backbone, before)
