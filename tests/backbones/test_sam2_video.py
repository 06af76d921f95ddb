import json
from dataclasses import replace

import pytest
import torch
from support import tiny_default
from tiny_sam import collate, mixed_prompts, prompt
from tiny_video import VIDEO_SIDE, remembering_video

from promptseg.backbones import load_backbone
from promptseg.backbones.folders import model_class, wrap
from promptseg.backbones.memory import MemoryBackbone, MemorySpan, Recollection
from promptseg.backbones.sam2_video import TransformersSam2Video
from promptseg.errors import WeightsError
from promptseg.evaluate.bench.video import image_part

MASK = VIDEO_SIDE // 4


@pytest.fixture(scope="module")
def backbone():
    return wrap(remembering_video(), name="tiny-video")


@pytest.fixture(scope="module")
def embedding(backbone):
    pixels = torch.rand(3, 3, VIDEO_SIDE, VIDEO_SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return backbone.encode(pixels)


@pytest.fixture(scope="module")
def folder(backbone, tmp_path_factory):
    path = tmp_path_factory.mktemp("video")
    backbone.module.save_pretrained(path)
    return path


def nothing(count, size=VIDEO_SIDE):
    return collate(*[prompt(0, False, False)] * count, size=size, mask_size=size // 4)


def masks(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, MASK, MASK, generator=generator) * 4


@torch.no_grad()
def remembered(backbone, embedding, by_user=True, presence=1.0, **options):
    count = len(embedding)
    asked = masks(count), torch.full((count,), presence)
    return backbone.remember(embedding, *asked, by_user=by_user, **options)


def recollection(memory, backs=(0,), pointers=(1,), horizon=10):
    return Recollection(
        tuple((memory[n].maps, back) for n, back in enumerate(backs)),
        tuple((memory[n].pointers, back) for n, back in enumerate(pointers)),
        horizon,
    )


class TestImagePart:
    @pytest.mark.parametrize("multimask", [False, True])
    def test_masks_of_prompts_are_those_without_a_memory(self, backbone, multimask):
        still = image_part(backbone.module)
        given = collate(*mixed_prompts(2), size=VIDEO_SIDE, mask_size=MASK)
        pixels = torch.rand(len(given), 3, VIDEO_SIDE, VIDEO_SIDE)
        with torch.no_grad():
            found = backbone.decode(backbone.encode(pixels), given, multimask)
            expected = still.decode(still.encode(pixels), given, multimask)
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.quality, expected.quality, atol=1e-5, rtol=0)

    def test_presence_and_pointers_come_with_them(self, backbone, embedding):
        given = collate(*[prompt(2, True, False)] * 3, size=VIDEO_SIDE, mask_size=MASK)
        for multimask, count in ((False, 1), (True, 3)):
            with torch.no_grad():
                found = backbone.decode(embedding, given, multimask)
            assert found.pointer.shape == (3, count, 128)
            assert found.presence.shape == (3,)
            assert ((found.presence > 0) & (found.presence < 1)).all()
        assert backbone.spec.presence

    def test_a_prompted_mask_is_kept_where_the_network_sees_nothing(self, embedding):
        sceptic = wrap(remembering_video())
        sceptic.module.mask_decoder.pred_obj_score_head.proj_out.bias.data -= 100
        given = collate(*[prompt(0, True, False)] * 3, size=VIDEO_SIDE, mask_size=MASK)
        with torch.no_grad():
            asked = sceptic.decode(embedding, given)
            alone = sceptic.decode(embedding, nothing(3))
        assert (asked.presence < 0.01).all()
        assert asked.logits.min() > -100
        assert (alone.logits == -1024).all()


class TestRecalling:
    def test_the_memory_changes_the_answer(self, backbone, embedding):
        memory = remembered(backbone, embedding)
        with torch.no_grad():
            without = backbone.decode(embedding, nothing(3)).logits
            known = backbone.recall(embedding, [recollection(memory)] * 3)
            recalled = backbone.decode(known, nothing(3)).logits
        assert (recalled - without).abs().max() > 0.01 * without.abs().max()

    @pytest.mark.parametrize(
        "other",
        [
            {"backs": (0, 2)},
            {"backs": (0, 1), "horizon": 4},
            {"pointers": (2, 1), "backs": (0, 1)},
        ],
        ids=["map from elsewhere", "shorter horizon", "pointer from elsewhere"],
    )
    def test_when_something_was_seen_matters(self, backbone, embedding, other):
        memory = remembered(backbone, embedding)
        plain = {"backs": (0, 1), "pointers": (1, 1)}
        with torch.no_grad():
            one = backbone.recall(embedding, [recollection(memory, **plain)] * 3)
            two = backbone.recall(embedding, [recollection(memory, **{**plain, **other})] * 3)
        assert (one.features[-1] - two.features[-1]).abs().max() > 1e-5
        assert torch.equal(one.features[0], two.features[0])

    def test_together_is_one_by_one(self, backbone, embedding):
        memory = remembered(backbone, embedding)
        asked = [
            recollection(memory, (0, 2), (1, 3)),
            recollection(memory, (0, 1), (4, 1)),
            recollection(memory, (0, 0), (2, 7), horizon=5),
        ]
        with torch.no_grad():
            together = backbone.recall(embedding, asked)
            for row, one in enumerate(asked):
                alone = backbone.recall(embedding[row], [one])
                for a, b in zip(together[row].features, alone.features, strict=True):
                    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)

    def test_the_embedding_stays_as_it_is(self, backbone, embedding):
        before = [feature.clone() for feature in embedding.features]
        with torch.no_grad():
            backbone.recall(embedding, [recollection(remembered(backbone, embedding))] * 3)
        for one, other in zip(before, embedding.features, strict=True):
            assert torch.equal(one, other)

    def test_networks_without_times_of_pointers(self, embedding):
        video = remembering_video()
        video.config.enable_temporal_pos_encoding_for_object_pointers = False
        timeless = wrap(video)
        memory = remembered(timeless, embedding)
        with torch.no_grad():
            one, two = (
                timeless.recall(embedding, [recollection(memory, pointers=(n,))] * 3)
                for n in (1, 5)
            )
        assert torch.equal(one.features[-1], two.features[-1])


class TestRemembering:
    def test_shapes_and_types(self, backbone, embedding):
        memory = remembered(backbone, embedding)
        side = VIDEO_SIDE // 16
        assert (memory.maps.shape, memory.maps.dtype) == ((3, 64, side, side), torch.bfloat16)
        assert (memory.pointers.shape, memory.pointers.dtype) == ((3, 128), torch.float32)
        assert memory.nbytes == 3 * (64 * side * side * 2 + 128 * 4)
        assert (len(memory), len(memory[1])) == (3, 1)

    def test_masks_of_the_user_are_certain(self, backbone, embedding):
        doubtful, faint = masks(3), masks(3) * 0.01
        there = torch.ones(3)
        with torch.no_grad():
            sure = [backbone.remember(embedding, m, there, by_user=True) for m in (doubtful, faint)]
            own = [backbone.remember(embedding, m, there) for m in (doubtful, faint)]
        assert torch.equal(sure[0].maps, sure[1].maps)
        assert not torch.equal(own[0].maps, own[1].maps)

    def test_an_absent_target_has_a_pointer_of_its_own(self, backbone, embedding):
        pointers = torch.ones(3, 128)
        absent = remembered(backbone, embedding, presence=0.4, pointers=pointers)
        there = remembered(backbone, embedding, presence=0.6, pointers=pointers)
        lost = backbone.module.no_object_pointer.expand(3, -1)
        torch.testing.assert_close(absent.pointers, lost)
        assert torch.equal(there.pointers, pointers)
        assert not torch.equal(absent.maps, there.maps)

    def test_masks_that_the_network_did_not_draw_get_a_pointer(self, backbone, embedding):
        drawn = remembered(backbone, embedding)
        with torch.no_grad():
            other = backbone.remember(embedding, masks(3, seed=1), torch.ones(3), by_user=True)
        assert (drawn.pointers - other.pointers).abs().max() > 1e-3


class TestLoading:
    def test_a_folder_loads_with_its_memory(self, folder, backbone, embedding):
        again = load_backbone(folder)
        assert isinstance(again, MemoryBackbone)
        assert again.spec == replace(backbone.spec, name=str(folder), sha256=again.spec.sha256)
        assert again.spec.family == "sam2"
        one, two = remembered(again, embedding), remembered(backbone, embedding)
        assert torch.equal(one.maps, two.maps)

    def test_others_have_none(self, backbone):
        assert not isinstance(tiny_default(), MemoryBackbone)
        assert not isinstance(image_part(backbone.module), MemoryBackbone)
        assert model_class("edgetam_video").__name__ == "EdgeTamModel"

    def test_missing_weights_of_the_memory_are_named(self, folder, tmp_path):
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in state.items() if "memory_enc" not in name}
        save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
        (tmp_path / "config.json").write_text((folder / "config.json").read_text())
        assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2_video"
        with pytest.raises(WeightsError, match=r"incomplete.*memory_encoder"):
            load_backbone(tmp_path)

    def test_how_much_is_remembered_is_the_networks_own(self, backbone):
        assert backbone.span == MemorySpan(maps=6, pointers=16, key_slices=4, ambiguous=True)
        video = remembering_video()
        video.config.max_cond_frame_num, video.config.num_maskmem = 2, 5
        video.config.multimask_output_for_tracking = False
        assert TransformersSam2Video(video).span == MemorySpan(4, 16, 2, ambiguous=False)

    def test_another_input_size(self):
        larger = wrap(remembering_video(), input_size=192)
        assert (larger.spec.input_size, larger.spec.mask_size) == (192, 48)
        with torch.no_grad():
            embedding = larger.encode(torch.rand(2, 3, 192, 192))
            memory = larger.remember(embedding, torch.randn(2, 48, 48), torch.ones(2))
            known = larger.recall(embedding, [recollection(memory, (0, 1), (1, 2))] * 2)
            assert larger.decode(known, nothing(2, 192)).logits.shape == (2, 1, 48, 48)

    def test_impossible_size_is_refused(self):
        with pytest.raises(WeightsError, match=r"my-video .*144.*multiple of 32"):
            wrap(remembering_video(), name="my-video", input_size=144)
