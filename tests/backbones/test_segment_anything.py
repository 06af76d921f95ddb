import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry
from tiny_sam import (
    COMBINATIONS,
    MASK,
    SHAPE,
    SIZE,
    batch,
    collate,
    image,
    mixed_prompts,
    prompt,
    reference,
    save_tiny,
    tiny_sam,
)

from promptseg.backbones import load_backbone
from promptseg.backbones.base import Backbone
from promptseg.backbones.layout import layout_of, sam_shape
from promptseg.backbones.loading import resize_positions
from promptseg.backbones.points import scribble_points
from promptseg.backbones.segment_anything import SegmentAnything
from promptseg.errors import WeightsError
from promptseg.weights import registry as weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="module")
def backbone(saved):
    return load_backbone(saved[1])


@pytest.fixture(scope="module")
def state():
    return tiny_sam().state_dict()


class TestParity:
    @pytest.mark.parametrize("multimask", [False, True])
    @pytest.mark.parametrize(("points", "box", "mask"), COMBINATIONS)
    def test_same_masks_as_sam_predictor(self, saved, backbone, points, box, mask, multimask):
        given, pixels = prompt(3 * points, box, mask), image(0)
        logits, quality = reference(saved[0], pixels, given, multimask)
        with torch.no_grad():
            found = backbone.decode(backbone.encode(batch(pixels)), collate(given), multimask)
        assert found.logits.shape == (1, 3 if multimask else 1, MASK, MASK)
        scale = np.abs(logits).max()
        assert scale > 0.05
        assert np.abs(found.logits[0].numpy() - logits).max() <= 1e-4 * scale
        np.testing.assert_allclose(found.quality[0].numpy(), quality.clip(0, 1), atol=1e-5)

    def test_prompts_change_the_mask(self, backbone):
        embedding = backbone.encode(batch(image(0), image(0)))
        found = backbone.decode(embedding, collate(prompt(1, False, False), prompt(2, True, False)))
        assert (found.logits[0] - found.logits[1]).abs().max() > 1e-2 * found.logits.abs().max()


class TestRaggedBatch:
    @pytest.mark.parametrize("multimask", [False, True])
    def test_equals_one_by_one_on_different_images(self, backbone, multimask):
        prompts = mixed_prompts()
        with torch.no_grad():
            embedding = backbone.encode(batch(*(image(row) for row in range(len(prompts)))))
            together = backbone.decode(embedding, collate(*prompts), multimask)
            for row, one in enumerate(prompts):
                alone = backbone.decode(embedding[row], collate(one), multimask)
                scale = alone.logits.abs().max()
                assert (together.logits[row] - alone.logits[0]).abs().max() <= 1e-4 * scale
                torch.testing.assert_close(together.quality[row], alone.quality[0])

    def test_each_row_sees_its_own_image(self, backbone):
        embedding = backbone.encode(batch(image(0), image(1)))
        given = prompt(2, False, False)
        found = backbone.decode(embedding, collate(given, given)).logits
        assert (found[0] - found[1]).abs().max() > 1e-3 * found.abs().max()

    def test_count_of_prompts_and_embeddings_must_agree(self, backbone):
        embedding = backbone.encode(batch(image(0)))
        with pytest.raises(ValueError, match="2 prompts on 1 embeddings"):
            backbone.decode(embedding, collate(prompt(1, False, False), prompt(1, False, False)))

    def test_autocast_does_not_blur_the_points(self, backbone):
        with torch.no_grad():
            embedding = backbone.encode(batch(image(0)))
            plain = backbone.decode(embedding, collate(prompt(2, True, False)))
            with torch.autocast("cpu", torch.bfloat16):
                cast = backbone.decode(embedding, collate(prompt(2, True, False)))
        torch.testing.assert_close(cast.logits, plain.logits)

    def test_half_precision_embeddings_decode(self, backbone):
        with torch.no_grad():
            embedding = backbone.encode(batch(image(0)))
            exact = backbone.decode(embedding, collate(prompt(2, True, True))).logits
            stored = embedding.to("cpu", torch.float16)
            found = backbone.decode(stored, collate(prompt(2, True, True))).logits
        assert found.dtype == torch.float32
        assert (found - exact).abs().max() <= 0.02 * exact.abs().max()


class TestModule:
    def test_follows_the_protocol(self, saved, backbone):
        assert isinstance(backbone, Backbone)
        assert backbone.spec.family == "segment-anything"
        assert (backbone.spec.input_size, backbone.spec.mask_size) == (SIZE, MASK)
        assert (backbone.spec.context, backbone.spec.crop) == ("grey", False)
        assert backbone.spec.name == str(saved[1])
        assert len(backbone.spec.sha256) == 64

    def test_gradients_reach_the_encoder(self, state):
        backbone = SegmentAnything(state)
        found = backbone.decode(backbone.encode(batch(image(0))), collate(prompt(2, True, True)))
        found.logits.square().mean().backward()
        gradient = backbone.module.image_encoder.blocks[0].attn.qkv.weight.grad
        assert gradient.abs().max() > 0

    def test_unit_pixels_reach_the_encoder_as_they_are(self, state):
        backbone = SegmentAnything(state, pixels="unit")
        pixels = batch(image(0))
        torch.testing.assert_close(
            backbone.encode(pixels).features[0], backbone.module.image_encoder(pixels)
        )

    def test_images_of_another_size_are_refused(self, backbone):
        with pytest.raises(ValueError, match=r"\(1, 3, 32, 32\).*\(B, 3, 64, 64\)"):
            backbone.encode(torch.zeros(1, 3, 32, 32))


class TestInputSize:
    @pytest.mark.parametrize("size", [32, 96, 128])
    def test_positions_interpolate(self, state, size):
        backbone = SegmentAnything(state, input_size=size)
        assert (backbone.spec.input_size, backbone.spec.mask_size) == (size, size // 2)
        with torch.no_grad():
            embedding = backbone.encode(torch.rand(2, 3, size, size))
            given = prompt(2, True, False)
            both = collate(given, given, size=size, mask_size=size // 2)
            found = backbone.decode(embedding, both)
        assert found.logits.shape == (2, 1, size // 2, size // 2)
        assert found.logits.isfinite().all()

    def test_tables(self, state):
        encoder = "image_encoder"
        flat = {name: torch.full_like(tensor, 0.25) for name, tensor in state.items()}
        resized = resize_positions(flat, 12)
        assert resized[f"{encoder}.pos_embed"].shape == (1, 12, 12, SHAPE.width)
        assert resized[f"{encoder}.blocks.1.attn.rel_pos_h"].shape == (23, 8)
        assert resized[f"{encoder}.blocks.0.attn.rel_pos_h"].shape == (5, 8)
        for tensor in resized.values():
            torch.testing.assert_close(tensor, torch.full_like(tensor, 0.25))

    @pytest.mark.parametrize("size", [60, 0, -8, 4, True, 64.0])
    def test_impossible_sizes_are_refused_by_name(self, state, size):
        with pytest.raises(WeightsError, match=f"small-sam .*{size!r}.* multiple of 8"):
            SegmentAnything(state, name="small-sam", input_size=size)


class TestRecognition:
    @pytest.mark.parametrize(
        ("kind", "width", "depth", "heads", "everywhere"),
        [
            ("vit_b", 768, 12, 12, (2, 5, 8, 11)),
            ("vit_l", 1024, 24, 16, (5, 11, 17, 23)),
            ("vit_h", 1280, 32, 16, (7, 15, 23, 31)),
        ],
    )
    def test_published_sizes(self, kind, width, depth, heads, everywhere):
        with torch.device("meta"):
            state = sam_model_registry[kind]().state_dict()
        shape = sam_shape(state, kind)
        assert (shape.width, shape.depth, shape.heads) == (width, depth, heads)
        assert (shape.window, shape.global_blocks) == (14, everywhere)
        assert (shape.image_size, shape.patch_size, shape.channels) == (1024, 16, 256)
        assert (shape.decoder_hidden, shape.decoder_downsample, shape.masks) == (2048, 2, 3)

    def test_tiny_shape_is_read_back(self, state):
        assert sam_shape(state, "tiny") == SHAPE

    def test_missing_weight_is_named(self, state):
        partial = {name: value for name, value in state.items() if "iou_token" not in name}
        with pytest.raises(WeightsError, match=r"lacks 1 weights.*mask_decoder\.iou_token\.weight"):
            SegmentAnything(partial)

    def test_missing_position_table_is_named(self, state):
        partial = {name: value for name, value in state.items() if "pos_embed" not in name}
        with pytest.raises(WeightsError, match=r"image_encoder\.pos_embed.*missing"):
            SegmentAnything(partial)

    def test_unknown_weight_is_named(self, state):
        with pytest.raises(WeightsError, match=r"unknown 1 weights.*adapter"):
            SegmentAnything({**state, "adapter.weight": torch.zeros(1)})

    def test_wrong_shape_is_named(self, state):
        odd = {**state, "mask_decoder.iou_token.weight": torch.zeros(2, 32)}
        with pytest.raises(WeightsError, match=r"size mismatch for mask_decoder\.iou_token"):
            SegmentAnything(odd)

    @pytest.mark.parametrize(
        ("key", "layout", "said"),
        [
            ("image_encoder.patch_embed.seq.0.c.weight", "mobile_sam", "MobileSAM"),
            ("mask_decoder.hf_token.weight", "sam_hq", "SAM-HQ"),
            ("vision_encoder.pos_embed", "transformers", "folder"),
            ("fc.weight", "unknown", "no network"),
        ],
    )
    def test_other_networks_are_refused_by_name(self, tmp_path, key, layout, said):
        odd = {key: torch.zeros(1)}
        torch.save(odd, tmp_path / "odd.pth")
        assert layout_of(odd) == layout
        with pytest.raises(WeightsError, match=f"odd.pth.*{said}"):
            load_backbone(tmp_path / "odd.pth")


class TestKnownFiles:
    @pytest.fixture
    def known(self, saved, monkeypatch):
        """The registry knows the tiny checkpoint, as it knows MedSAM."""
        digest = weights.sha256_file(saved[1])
        entry = weights.Entry(
            "tiny", "segment-anything", "t", "t.pth", "MIT", "", None, None, digest, "unit"
        )
        monkeypatch.setattr(weights, "registry", lambda: {"tiny": entry})
        return digest

    @pytest.mark.parametrize("converted", [False, True])
    def test_name_licence_and_pixels_come_from_the_registry(
        self, saved, known, tmp_path, converted
    ):
        path = weights.convert(saved[1], tmp_path / "a.safetensors") if converted else saved[1]
        backbone = load_backbone(path)
        assert (backbone.spec.name, backbone.spec.licence) == ("tiny", "MIT")
        assert backbone.spec.sha256 == weights.sha256_file(path)
        pixels = batch(image(0))
        with torch.no_grad():
            expected = backbone.module.image_encoder(pixels)
            torch.testing.assert_close(backbone.encode(pixels).features[0], expected)

    def test_other_files_have_unknown_terms(self, backbone):
        assert backbone.spec.licence == "unknown"

    def test_by_name_from_the_named_folder(self, saved, known, tmp_path, monkeypatch):
        (tmp_path / "t.pth").write_bytes(saved[1].read_bytes())
        monkeypatch.setenv("PROMPTSEG_WEIGHTS", str(tmp_path))
        assert load_backbone("tiny").spec.sha256 == known
        (tmp_path / "t.pth").write_bytes(b"something else")
        with pytest.raises(WeightsError, match="not the tiny that is expected"):
            load_backbone("tiny")


class TestScribblePoints:
    def test_spread_over_both_strokes(self):
        strokes = torch.zeros(2, 64, 64)
        strokes[0, 10, 0:33], strokes[1, 40:43, 7] = 1, 1
        points, labels = scribble_points(strokes, count=3)
        assert labels.tolist() == [1, 1, 1, 0, 0, 0]
        assert sorted(points[:3, 0].tolist()) == [0.5, 16.5, 32.5]
        assert (points[:3, 1] == 10.5).all()
        assert sorted(points[3:, 1].tolist()) == [40.5, 41.5, 42.5]

    def test_same_stroke_gives_the_same_points(self):
        strokes = (torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(3)) > 0.9).float()
        first, second = scribble_points(strokes), scribble_points(strokes)
        torch.testing.assert_close(first[0], second[0])
        x, y = first[0].long().T
        assert all(
            strokes[1 - label, b, a] == 1 for a, b, label in zip(x, y, first[1], strict=True)
        )

    def test_faint_and_short_strokes(self):
        strokes = torch.zeros(2, 16, 16)
        strokes[0, 3, 3] = 0.2
        points, labels = scribble_points(strokes, count=4)
        assert points.tolist() == [[3.5, 3.5]]
        assert labels.tolist() == [1]
