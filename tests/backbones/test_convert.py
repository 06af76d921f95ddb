from pathlib import Path

import pytest
import torch
import transformers
from tiny_sam import SHAPE, batch, collate, image, prompt, tiny_sam

from promptseg.backbones import load_backbone
from promptseg.backbones.convert import (
    sam2_config,
    sam2_state,
    sam_config,
    sam_state,
    to_transformers,
)
from promptseg.backbones.layout import sam_shape
from promptseg.backbones.segment_anything import SegmentAnything
from promptseg.backbones.transformers import TransformersSam
from promptseg.errors import WeightsError
from promptseg.weights.registry import convert

# Names and shapes of the official sam2.1_hiera_tiny.pt.
SAM2_NAMES = Path(__file__).with_name("sam2_names.txt")


def sam2_tiny_state(deviation=0.05):
    lines = (line.split(" ") for line in SAM2_NAMES.read_text().splitlines())
    generator = torch.Generator().manual_seed(0)
    return {
        name: deviation * torch.randn([int(side) for side in shape.split(",")], generator=generator)
        for name, shape in lines
    }


class TestSam:
    def test_every_weight_finds_its_place(self):
        module = transformers.SamModel(sam_config(SHAPE))
        renamed = sam_state(tiny_sam().state_dict())
        expected = module.state_dict()
        assert set(renamed) == set(expected)
        assert {name: tensor.shape for name, tensor in renamed.items()} == {
            name: tensor.shape for name, tensor in expected.items()
        }

    def test_published_size_gives_the_library_s_default_configuration(self):
        from segment_anything import sam_model_registry

        with torch.device("meta"):
            state = sam_model_registry["vit_b"]().state_dict()
        found, default = sam_config(sam_shape(state, "vit_b")), transformers.SamConfig()
        same = ("hidden_size", "num_hidden_layers", "mlp_dim", "window_size", "image_size")
        for key in (*same, "patch_size", "num_pos_feats", "output_channels", "qkv_bias"):
            assert getattr(found.vision_config, key) == getattr(default.vision_config, key)
        assert tuple(found.vision_config.global_attn_indexes) == (2, 5, 8, 11)
        for key in ("hidden_size", "mlp_dim", "num_hidden_layers", "attention_downsample_rate"):
            assert getattr(found.mask_decoder_config, key) == getattr(
                default.mask_decoder_config, key
            )

    def test_same_features_and_masks(self):
        state = tiny_sam(seed=5).state_dict()
        pair = SegmentAnything(state), TransformersSam(to_transformers(state, "tiny"))
        with torch.no_grad():
            features = [one.encode(batch(image(1))) for one in pair]
            masks = [
                one.decode(feature, collate(prompt(2, True, True))).logits
                for one, feature in zip(pair, features, strict=True)
            ]
        for first, second in (masks, [feature.features[0] for feature in features]):
            assert (first - second).abs().max() <= 1e-4 * first.abs().max()

    def test_from_safetensors(self, tmp_path):
        torch.save(tiny_sam().state_dict(), tmp_path / "tiny.pth")
        converted = convert(tmp_path / "tiny.pth", tmp_path / "tiny.safetensors")
        pair = [load_backbone(path) for path in (tmp_path / "tiny.pth", converted)]
        with torch.no_grad():
            found = [one.encode(batch(image(0))).features[0] for one in pair]
        assert torch.equal(found[0], found[1])

    def test_incomplete_weights_are_refused(self):
        state = tiny_sam().state_dict()
        del state["prompt_encoder.no_mask_embed.weight"]
        with pytest.raises(WeightsError, match=r"tiny .*prompt_encoder\.no_mask_embed\.weight"):
            to_transformers(state, "tiny")


class TestSam2:
    def test_every_weight_finds_its_place(self):
        state = sam2_tiny_state()
        with torch.device("meta"):
            expected = transformers.Sam2Model(sam2_config(state, "tiny")).state_dict()
        renamed = sam2_state(state)
        assert set(renamed) == set(expected)
        assert {name: tensor.shape for name, tensor in renamed.items()} == {
            name: tensor.shape for name, tensor in expected.items()
        }

    def test_values_are_kept(self):
        state = sam2_tiny_state()
        renamed = sam2_state(state)
        points = torch.cat(
            [state[f"sam_prompt_encoder.point_embeddings.{kind}.weight"] for kind in range(4)]
        )
        assert torch.equal(renamed["prompt_encoder.point_embed.weight"], points)
        pairs = {
            "mask_decoder.pred_obj_score_head.proj_out.bias": (
                "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
            ),
            "mask_decoder.pred_obj_score_head.layers.0.bias": (
                "sam_mask_decoder.pred_obj_score_head.layers.1.bias"
            ),
            "vision_encoder.backbone.blocks.3.mlp.proj_out.weight": (
                "image_encoder.trunk.blocks.3.mlp.layers.1.weight"
            ),
            "mask_decoder.transformer.layers.1.cross_attn_image_to_token.o_proj.weight": (
                "sam_mask_decoder.transformer.layers.1.cross_attn_image_to_token.out_proj.weight"
            ),
        }
        for new, old in pairs.items():
            assert torch.equal(renamed[new], state[old])

    def test_checkpoint_loads_at_a_small_size(self, tmp_path):
        torch.save({"model": sam2_tiny_state()}, tmp_path / "sam2.pt")
        backbone = load_backbone(tmp_path / "sam2.pt", input_size=128)
        assert (backbone.spec.family, backbone.spec.input_size) == ("sam2", 128)
        with torch.no_grad():
            embedding = backbone.encode(torch.rand(1, 3, 128, 128))
        assert embedding.features[2].shape == (1, 256, 8, 8)
        assert embedding.features[2].isfinite().all()

    def test_unpublished_size_is_refused(self):
        state = sam2_tiny_state()
        cut = {name: value for name, value in state.items() if ".blocks.11." not in name}
        with pytest.raises(WeightsError, match=r"odd .*96 channels and 11 blocks"):
            sam2_config(cut, "odd")

    def test_same_masks_as_the_original(self):
        build = pytest.importorskip("sam2.build_sam")
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        original = build.build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu")
        state = sam2_tiny_state(0.08)
        original.load_state_dict(state)
        from promptseg.backbones.transformers import TransformersSam2

        backbone = TransformersSam2(to_transformers(state, "tiny"))
        predictor, pixels = SAM2ImagePredictor(original), torch.rand(3, 1024, 1024)
        with torch.no_grad():
            predictor.set_image(pixels.permute(1, 2, 0).numpy())
            given = prompt(2, True, False, scale=16)
            found = backbone.decode(
                backbone.encode(pixels[None]),
                collate(given, size=1024, mask_size=256),
            ).logits[0]
        _, _, logits = predictor.predict(
            given.points.numpy() - 0.5,
            given.labels.numpy(),
            given.box.numpy() - 0.5,
            multimask_output=False,
        )
        clipped = found.clamp(-32, 32).numpy()
        assert abs(clipped - logits).max() <= 1e-4 * abs(logits).max()
