import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import SIZE, ragged_prompts, tiny_default, tiny_network

from promptseg.backbones.base import Backbone, PixelPrompts, PromptBatch
from promptseg.backbones.default import DefaultBackbone, load_default, save_default
from promptseg.errors import WeightsError


def images(count, size=SIZE):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def answers(backbone, multimask=False, size=SIZE):
    prompts = ragged_prompts(size)
    batch = PromptBatch.collate(prompts, size, size // 2)
    with torch.inference_mode():
        return backbone.decode(backbone.encode(images(len(prompts), size)), batch, multimask)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_default(tiny_network(), path, {"steps": "3"})
    return path


def refused(path):
    """The one line that loading `path` is refused with."""
    with pytest.raises(WeightsError) as caught:
        load_default(path, "tiny")
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 400
    return message


class TestProtocol:
    def test_says_what_it_is(self):
        backbone = tiny_default()
        assert isinstance(backbone, Backbone)
        spec = backbone.spec
        assert (spec.family, spec.input_size, spec.mask_size) == ("promptseg", SIZE, SIZE // 2)
        assert (spec.context, spec.crop, spec.presence) == ("2.5d", True, True)
        assert spec.concept == 32

    def test_blank_rows_as_one_by_one(self):
        backbone = tiny_default()
        tokens = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
        blank = PromptBatch.collate([PixelPrompts()] * 3, SIZE, SIZE // 2)
        with torch.inference_mode():
            embedding = backbone.encode(images(3))
            found = backbone.decode(embedding, blank, concept=tokens)
            for n in range(3):
                row = slice(n, n + 1)
                alone = backbone.decode(embedding[row], blank[row], concept=tokens[row])
                assert torch.allclose(found.logits[row], alone.logits, atol=1e-4)
                assert torch.allclose(found.presence[row], alone.presence, atol=1e-5)

    @pytest.mark.parametrize(("multimask", "count"), [(False, 1), (True, 3)])
    def test_one_candidate_or_three(self, multimask, count):
        found = answers(tiny_default(), multimask)
        assert found.logits.shape == (7, count, SIZE // 2, SIZE // 2)
        assert found.quality.shape == (7, count)
        assert found.presence.shape == (7,)
        for share in (found.quality, found.presence):
            assert 0 <= share.min() <= share.max() <= 1

    @pytest.mark.parametrize("multimask", [False, True])
    def test_ragged_batch_equals_one_by_one(self, multimask):
        backbone, prompts = tiny_default(), ragged_prompts()
        together = answers(backbone, multimask)
        with torch.inference_mode():
            embedding = backbone.encode(images(len(prompts)))
            for row, one in enumerate(prompts):
                batch = PromptBatch.collate([one], SIZE, SIZE // 2)
                alone = backbone.decode(embedding[row], batch, multimask)
                torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=0, atol=1e-5)
                torch.testing.assert_close(alone.quality[0], together.quality[row])

    def test_stays_as_it_is_while_it_answers(self):
        backbone = tiny_default()
        before = {n: v.clone() for n, v in backbone.module.state_dict().items()}
        one, other = answers(backbone), answers(backbone)
        assert torch.equal(one.logits, other.logits)
        assert all(torch.equal(before[n], v) for n, v in backbone.module.state_dict().items())


class TestInputSize:
    @pytest.mark.parametrize("size", [32, 48, 96])
    def test_multiples_of_sixteen_work(self, size):
        backbone = DefaultBackbone(tiny_network(), input_size=size)
        assert (backbone.spec.input_size, backbone.spec.mask_size) == (size, size // 2)
        found = answers(backbone, size=size)
        assert found.logits.shape[-1] == size // 2
        assert torch.isfinite(found.logits).all()

    @pytest.mark.parametrize("size", [0, -64, 16, 50, 100, 1000])
    def test_others_are_refused_by_name(self, size):
        with pytest.raises(WeightsError, match=f"input size {size} cannot work: .*multiple of 16"):
            DefaultBackbone(tiny_network(), input_size=size)


class TestFile:
    def test_round_trip(self, saved):
        backbone = load_default(saved, "tiny", sha256="ab")
        assert (backbone.spec.name, backbone.spec.sha256) == ("tiny", "ab")
        assert torch.equal(answers(backbone).logits, answers(tiny_default()).logits)
        assert all(p.requires_grad for p in backbone.module.parameters())
        assert not backbone.module.training

    def test_carries_its_configuration_and_what_was_told(self, saved):
        with safe_open(saved, "pt") as file:
            about = file.metadata()
        assert json.loads(about["config"])["hidden_size"] == 32
        assert about["steps"] == "3"

    def test_half_precision_weights_become_float32(self, saved):
        with safe_open(saved, "pt") as file:
            about = file.metadata()
        half = {name: value.half() for name, value in load_file(saved).items()}
        save_file(half, saved, about)
        module = load_default(saved, "tiny").module
        assert {p.dtype for p in module.parameters()} == {torch.float32}

    def test_input_size_and_attention_are_handed_on(self, saved):
        backbone = load_default(saved, "tiny", input_size=96, attention="eager")
        assert backbone.spec.input_size == 96
        assert answers(backbone, size=96).logits.shape[-1] == 48

    def test_nothing_is_left_behind_by_a_failed_write(self, tmp_path, monkeypatch):
        def fails(*_):
            raise OSError("disk full")

        monkeypatch.setattr("promptseg.backbones.default.save_file", fails)
        with pytest.raises(OSError, match="disk full"):
            save_default(tiny_network(), tmp_path / "tiny.safetensors", {})
        assert list(tmp_path.iterdir()) == []


class TestRefusedFiles:
    def test_missing(self, tmp_path):
        refused(tmp_path / "none.safetensors")

    @pytest.mark.parametrize("kept", [0, 4, 100, 5000])
    def test_truncated(self, saved, kept):
        saved.write_bytes(saved.read_bytes()[:kept])
        refused(saved)

    def test_not_safetensors(self, saved):
        saved.write_bytes(b"PK\x03\x04 this is no checkpoint " * 20)
        refused(saved)

    def rewritten(self, path, change):
        with safe_open(path, "pt") as file:
            about = dict(file.metadata())
        state = load_file(path)
        change(state, about)
        save_file(state, path, about)
        return refused(path)

    def test_without_configuration(self, saved):
        assert "not a default model" in self.rewritten(saved, lambda _, about: about.pop("config"))

    @pytest.mark.parametrize(
        "config",
        [
            "{not json",
            "[1, 2]",
            "7",
            '{"hidden_size": "wide"}',
            '{"hidden_size": 33}',
            '{"heads": 0}',
            '{"stem": [8]}',
            '{"attn_implementation": "magic"}',
            '{"hidden_size": 1000000000}',
        ],
    )
    def test_configuration_that_cannot_be_built(self, saved, config):
        self.rewritten(saved, lambda _, about: about.update(config=config))

    def test_another_shape_than_it_claims(self, saved):
        config = json.dumps({**tiny_network().config.to_diff_dict(), "hidden_size": 64})
        message = self.rewritten(saved, lambda _, about: about.update(config=config))
        assert "does not hold the network it claims" in message

    def test_a_missing_weight(self, saved):
        name = "mask_decoder.tokens.weight"
        message = self.rewritten(saved, lambda state, _: state.pop(name))
        assert name in message

    def test_a_weight_too_many(self, saved):
        message = self.rewritten(saved, lambda state, _: state.update(extra=torch.zeros(2)))
        assert "extra" in message

    def test_another_network(self, saved):
        def swap(state, about):
            state.clear()
            state["image_encoder.pos_embed"] = torch.zeros(1, 4, 4, 8)

        self.rewritten(saved, swap)


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        tiny_network().save_pretrained(tmp_path)
        return tmp_path

    def test_round_trip(self, folder):
        backbone = load_default(folder, "tiny", input_size=96)
        assert backbone.spec.input_size == 96
        assert torch.equal(
            answers(load_default(folder, "x")).logits, answers(tiny_default()).logits
        )

    def test_half_precision_weights_become_float32(self, folder):
        tiny_network().half().save_pretrained(folder)
        module = load_default(folder, "tiny").module
        assert {p.dtype for p in module.parameters()} == {torch.float32}

    @pytest.mark.parametrize(
        "damage", ["cut", "empty", "gone", "text", "fewer", "shapes", "config"]
    )
    def test_damage_is_refused_in_one_line(self, folder, damage):
        weights, config = folder / "model.safetensors", folder / "config.json"
        if damage in ("cut", "empty"):
            weights.write_bytes(weights.read_bytes()[: 3000 if damage == "cut" else 0])
        elif damage == "gone":
            weights.unlink()
        elif damage == "text":
            weights.write_text("no weights")
        elif damage == "fewer":
            state = load_file(weights)
            state.pop("mask_decoder.tokens.weight")
            save_file(state, weights, {"format": "pt"})
        elif damage == "shapes":
            about = json.loads(config.read_text())
            config.write_text(json.dumps({**about, "hidden_size": 64}))
        else:
            config.write_text("{")
        refused(folder)
