import json

import numpy as np
import pytest
import torch
import transformers
from tiny_hiera import tiny_hiera
from tiny_sam import (
    COMBINATIONS,
    SIZE,
    batch,
    collate,
    image,
    mixed_prompts,
    prompt,
    randomise,
    reference,
    save_tiny,
)

from promptseg.backbones import load_backbone
from promptseg.backbones.base import Backbone
from promptseg.backbones.folders import wrap
from promptseg.errors import WeightsError

DECODER = {
    "hidden_size": 32,
    "mlp_dim": 64,
    "iou_head_hidden_dim": 32,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="module")
def backbone(saved):
    return load_backbone(saved[1], library="transformers")


@pytest.fixture(scope="module")
def folder(backbone, tmp_path_factory):
    path = tmp_path_factory.mktemp("folder")
    backbone.module.save_pretrained(path)
    return path


def sam_hq():
    config = transformers.SamHQConfig(
        vision_config={
            "hidden_size": 32,
            "output_channels": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIZE,
            "patch_size": 8,
            "window_size": 3,
            "global_attn_indexes": [1, 2],
            "num_pos_feats": 16,
            "mlp_dim": 64,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": SIZE, "patch_size": 8},
        mask_decoder_config={**DECODER, "vit_dim": 32},
    )
    module = transformers.SamHQModel(config)
    randomise(module, seed=1)
    return wrap(module.eval(), name="tiny-hq")


def sam2_module(attention="sdpa"):
    config = transformers.Sam2Config(
        vision_config=tiny_hiera(2 * SIZE, 32).to_dict(),
        prompt_encoder_config={"hidden_size": 32, "image_size": 2 * SIZE},
        mask_decoder_config=DECODER,
    )
    module = transformers.AutoModel.from_config(config, attn_implementation=attention)
    randomise(module, seed=2)
    return module.eval()


@pytest.fixture(scope="module")
def sam2():
    return wrap(sam2_module(), name="tiny-sam2")


def assert_equals_one_by_one(backbone, multimask, size):
    prompts = mixed_prompts(size // SIZE)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        pixels = torch.rand(len(prompts), 3, size, size, generator=generator)
        embedding = backbone.encode(pixels)
        together = backbone.decode(embedding, collate(*prompts, size=size), multimask)
        for row, one in enumerate(prompts):
            alone = backbone.decode(
                backbone.encode(pixels[row : row + 1]), collate(one, size=size), multimask
            )
            scale = alone.logits.abs().max()
            assert scale > 0.01
            assert (together.logits[row] - alone.logits[0]).abs().max() <= 1e-4 * scale
            torch.testing.assert_close(together.quality[row], alone.quality[0], atol=1e-5, rtol=0)


class TestParity:
    @pytest.mark.parametrize("multimask", [False, True])
    @pytest.mark.parametrize(("points", "box", "mask"), COMBINATIONS)
    def test_same_masks_as_sam_predictor(self, saved, backbone, points, box, mask, multimask):
        given, pixels = prompt(3 * points, box, mask), image(0)
        logits, quality = reference(saved[0], pixels, given, multimask)
        with torch.no_grad():
            found = backbone.decode(backbone.encode(batch(pixels)), collate(given), multimask)
        assert np.abs(found.logits[0].numpy() - logits).max() <= 1e-4 * np.abs(logits).max()
        np.testing.assert_allclose(found.quality[0].numpy(), quality.clip(0, 1), atol=1e-5)

    def test_eager_and_sdpa_agree(self, saved, backbone):
        eager = load_backbone(saved[1], library="transformers", attention="eager")
        assert eager.module.config._attn_implementation == "eager"
        assert backbone.module.config._attn_implementation == "sdpa"
        with torch.no_grad():
            found = [one.encode(batch(image(0))).features[0] for one in (eager, backbone)]
        torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)

    def test_both_libraries_agree_at_another_size(self, saved):
        pair = [
            load_backbone(saved[1], library=library, input_size=96)
            for library in ("segment-anything", "transformers")
        ]
        with torch.no_grad():
            pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
            given = collate(prompt(2, True, False), size=96, mask_size=48)
            found = [one.decode(one.encode(pixels), given).logits for one in pair]
        assert found[0].shape == (1, 1, 48, 48)
        assert (found[0] - found[1]).abs().max() <= 1e-4 * found[0].abs().max()


class TestRaggedBatch:
    @pytest.mark.parametrize("multimask", [False, True])
    def test_sam(self, backbone, multimask):
        assert_equals_one_by_one(backbone, multimask, SIZE)

    @pytest.mark.parametrize("multimask", [False, True])
    def test_sam_hq(self, multimask):
        assert_equals_one_by_one(sam_hq(), multimask, SIZE)

    @pytest.mark.parametrize("multimask", [False, True])
    def test_sam2(self, sam2, multimask):
        assert_equals_one_by_one(sam2, multimask, 2 * SIZE)


class TestSamHq:
    def test_same_as_the_library_from_pixels(self):
        backbone, pixels = sam_hq(), torch.rand(1, 3, SIZE, SIZE)
        given = prompt(2, False, False)
        with torch.no_grad():
            found = backbone.decode(backbone.encode(pixels), collate(given))
            expected = backbone.module(
                transformers_pixels(pixels),
                input_points=given.points[None, None] - 0.5,
                input_labels=given.labels[None, None],
                multimask_output=False,
            )
        torch.testing.assert_close(found.logits, expected.pred_masks[:, 0])

    def test_another_input_size(self):
        backbone = wrap(sam_hq().module, input_size=96)
        with torch.no_grad():
            embedding = backbone.encode(torch.rand(1, 3, 96, 96))
        assert [tuple(feature.shape) for feature in embedding.features] == [(1, 32, 12, 12)] * 2


class TestSam2:
    def test_same_as_the_library_from_pixels(self, sam2):
        pixels, given = torch.rand(1, 3, 128, 128), prompt(2, True, True, scale=2)
        with torch.no_grad():
            found = sam2.decode(sam2.encode(pixels), collate(given, size=128, mask_size=32), True)
            expected = sam2.module(
                transformers_pixels(pixels),
                input_points=given.points[None, None] - 0.5,
                input_labels=given.labels[None, None],
                input_boxes=given.box[None, None] - 0.5,
                input_masks=given.mask[None, None],
            )
        assert sam2.spec.family == "sam2"
        torch.testing.assert_close(found.logits, expected.pred_masks[:, 0])
        torch.testing.assert_close(found.quality, expected.iou_scores[:, 0])

    def test_features_of_three_strides_are_kept(self, sam2):
        with torch.no_grad():
            embedding = sam2.encode(torch.rand(2, 3, 128, 128))
        assert [tuple(feature.shape) for feature in embedding.features] == [
            (2, 4, 32, 32),
            (2, 8, 16, 16),
            (2, 32, 8, 8),
        ]

    def test_another_input_size(self):
        backbone = wrap(sam2_module(), input_size=192)
        assert (backbone.spec.input_size, backbone.spec.mask_size) == (192, 48)
        with torch.no_grad():
            embedding = backbone.encode(torch.rand(1, 3, 192, 192))
            given = collate(prompt(2, True, False), size=192, mask_size=48)
            assert backbone.decode(embedding, given).logits.shape == (1, 1, 48, 48)

    def test_impossible_size_is_refused(self):
        with pytest.raises(WeightsError, match=r"my-sam2 .*144.*multiple of 32"):
            wrap(sam2_module(), name="my-sam2", input_size=144)


class TestEdgeTam:
    def test_another_input_size(self):
        pytest.importorskip("timm")
        encoder = transformers.TimmWrapperConfig(
            architecture="repvit_m1",
            model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
        )
        vision = transformers.EdgeTamVisionConfig(
            backbone_config=encoder,
            fpn_hidden_size=32,
            backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        )
        config = transformers.EdgeTamConfig(
            vision_config=vision,
            prompt_encoder_config={"hidden_size": 32, "image_size": 128},
            mask_decoder_config=DECODER,
        )
        backbone = wrap(transformers.EdgeTamModel(config), input_size=160)
        with torch.no_grad():
            embedding = backbone.encode(torch.rand(1, 3, 160, 160))
            given = collate(prompt(2, True, False), size=160, mask_size=40)
            assert backbone.decode(embedding, given).logits.shape == (1, 1, 40, 40)


class TestFolder:
    def test_same_as_before_saving(self, backbone, folder, capfd):
        again = load_backbone(folder)
        assert capfd.readouterr() == ("", "")
        assert isinstance(again, Backbone)
        assert (again.spec.family, again.spec.name) == ("sam", str(folder))
        assert len(again.spec.sha256) == 64
        with torch.no_grad():
            embedding = again.encode(batch(image(0)))
            torch.testing.assert_close(
                embedding.features, backbone.encode(batch(image(0))).features
            )
            found = again.decode(embedding, collate(prompt(2, True, True)))
            expected = backbone.decode(embedding, collate(prompt(2, True, True)))
        torch.testing.assert_close(found.logits, expected.logits)

    def test_another_size_keeps_the_attention(self, folder):
        backbone = load_backbone(folder, input_size=96, attention="eager")
        assert backbone.module.config._attn_implementation == "eager"
        assert type(backbone.module.vision_encoder.layers[0].attn).__name__ == "SamVisionAttention"
        with torch.no_grad():
            assert backbone.encode(torch.rand(1, 3, 96, 96)).features[0].shape[-1] == 12

    def test_impossible_size_is_refused(self, folder):
        with pytest.raises(WeightsError, match=r"100.*multiple of 8"):
            load_backbone(folder, input_size=100)

    def test_without_config(self, tmp_path):
        with pytest.raises(WeightsError, match=r"no config\.json"):
            load_backbone(tmp_path)

    @pytest.mark.parametrize("text", ["{", "[]", "{}"])
    def test_config_that_says_nothing(self, tmp_path, text):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(WeightsError, match="does not say its model_type"):
            load_backbone(tmp_path)

    def test_unknown_model_type(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(WeightsError, match=r"'bert' is not known; known: sam, "):
            load_backbone(tmp_path)

    def test_missing_weights_are_refused(self, folder, tmp_path):
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        del state["mask_decoder.iou_token.weight"]
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "config.json").write_text((folder / "config.json").read_text())
        with pytest.raises(WeightsError, match=r"incomplete.*mask_decoder\.iou_token\.weight"):
            load_backbone(tmp_path)

    @pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
    def test_absent_or_corrupt_weights_are_refused(self, folder, tmp_path, content):
        (tmp_path / "config.json").write_text((folder / "config.json").read_text())
        if content is not None:
            (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            load_backbone(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_family_that_the_library_lacks(self, tmp_path, monkeypatch):
        monkeypatch.setattr(transformers, "EdgeTamModel", None)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "edgetam"}))
        with pytest.raises(WeightsError, match=r"EdgeTamModel needs transformers 4\.57 or later"):
            load_backbone(tmp_path)


class TestAdapters:
    @pytest.mark.parametrize("make", [sam_hq, lambda: wrap(sam2_module())])
    def test_lora_on_other_families(self, make):
        self.check(make())

    def test_lora_on_sam(self, saved):
        self.check(load_backbone(saved[1], library="transformers"))

    def check(self, backbone):
        peft = pytest.importorskip("peft")
        size, small = backbone.spec.input_size, backbone.spec.mask_size
        pixels = torch.rand(1, 3, size, size)
        given = collate(prompt(1, True, False), size=size, mask_size=small)
        with torch.no_grad():
            before = backbone.decode(backbone.encode(pixels), given).logits
        config = peft.LoraConfig(target_modules=["qkv"], r=2, init_lora_weights=False)
        backbone.module = peft.get_peft_model(backbone.module, config)
        after = backbone.decode(backbone.encode(pixels), given).logits
        assert (after - before).abs().max() > 1e-4 * before.abs().max()
        after.square().mean().backward()
        gradients = {
            name: parameter.grad
            for name, parameter in backbone.module.named_parameters()
            if parameter.requires_grad
        }
        assert gradients
        assert all("lora_" in name for name in gradients)
        assert all(gradient.abs().max() > 0 for gradient in gradients.values())


class TestChoices:
    def test_unknown_attention(self, saved):
        with pytest.raises(WeightsError, match="'flash' is not known"):
            load_backbone(saved[1], attention="flash")

    def test_unknown_library(self, saved):
        with pytest.raises(WeightsError, match="'jax' is not known"):
            load_backbone(saved[1], library="jax")

    def test_unknown_name_lists_the_near_ones(self):
        with pytest.raises(WeightsError, match=r"'sam_vit_bb'.*Did you mean sam_vit_b .*default"):
            load_backbone("sam_vit_bb")

    def test_network_without_wrapper(self):
        with pytest.raises(WeightsError, match=r"cannot load mobile_sam: .*TinyViT"):
            load_backbone("mobile_sam")


def transformers_pixels(pixels):
    """What the library's image processors make of grey values in [0, 1]."""
    processor = transformers.SamImageProcessor()
    mean, deviation = (
        torch.tensor(list(values)).view(3, 1, 1)
        for values in (processor.image_mean, processor.image_std)
    )
    return (pixels - mean) / deviation
