import time

import pytest
import torch
from adapter_kit import BACKBONES, METHODS, answers, random_adapter, state_of, unchanged
from support import segmenter, tiny_default, tiny_network

from promptseg.adapters import Adapter, AdapterStack, base_digest, save_merged
from promptseg.backbones import load_backbone
from promptseg.backbones.default import DefaultBackbone
from promptseg.errors import AdapterError


@pytest.fixture(params=BACKBONES, ids=str)
def backbone(request):
    return BACKBONES[request.param]()


@pytest.mark.parametrize("method", METHODS)
class TestInvariants:
    def test_attached_answers_as_it_was_learned_and_base_comes_back(self, backbone, method):
        before, base = state_of(backbone), answers(backbone)
        adapter, learned = random_adapter(backbone, **METHODS[method])
        assert unchanged(backbone, before)
        stack = AdapterStack(backbone)
        stack.add(adapter)
        assert torch.equal(answers(backbone), base)
        stack.use("one")
        token = adapter.tokens[1][None]
        assert torch.allclose(answers(backbone, token), learned, atol=1e-4)
        assert not torch.allclose(learned[:2], base, atol=1e-4)
        stack.use(None)
        assert torch.equal(answers(backbone), base)
        stack.remove("one")
        assert unchanged(backbone, before)

    def test_merged_answers_as_unmerged(self, backbone, method):
        adapter, _ = random_adapter(backbone, **METHODS[method])
        before = state_of(backbone)
        stack = AdapterStack(backbone)
        stack.add(adapter)
        stack.use("one")
        adapted, merged = answers(backbone), stack.merged_state()
        assert torch.equal(answers(backbone), adapted)
        stack.remove("one")
        assert merged.keys() == before.keys()
        backbone.module.load_state_dict(merged)
        assert torch.allclose(answers(backbone), adapted, atol=1e-4)


class TestSeveral:
    def test_switch_gives_each_its_own_answer(self, backbone):
        first, one = random_adapter(backbone, "one", 1)
        second, two = random_adapter(backbone, "two", 2, targets="mlp", decoder="lora")
        stack = AdapterStack(backbone)
        stack.add(first)
        stack.add(second)
        for name, expected in (("one", one), ("two", two), ("one", one)):
            stack.use(name)
            token = stack.tokens[1][None]
            assert torch.allclose(answers(backbone, token), expected, atol=1e-4)
        stack.remove("one")
        stack.use("two")
        assert torch.allclose(answers(backbone, second.tokens[1][None]), two, atol=1e-4)

    def test_switch_takes_milliseconds(self):
        backbone = tiny_default()
        stack = AdapterStack(backbone)
        for adapter in [random_adapter(backbone, name, 3)[0] for name in ("one", "two")]:
            stack.add(adapter)
        took = []
        for name in ("one", "two") * 5:
            began = time.perf_counter()
            stack.use(name)
            took.append(time.perf_counter() - began)
        assert min(took) < 0.1

    def test_signatures_differ_by_adapter_and_scale(self):
        backbone = tiny_default()
        stack = AdapterStack(backbone)
        for adapter in [random_adapter(backbone, name, 3)[0] for name in ("one", "two")]:
            stack.add(adapter)
        seen = [stack.signature]
        for name, scale in (("one", 1.0), ("two", 1.0), ("two", 0.5)):
            stack.use(name, scale)
            seen.append(stack.signature)
        assert seen[0] == ""
        assert len(set(seen)) == 4

    def test_scale_goes_from_base_to_adapter(self, backbone):
        base = answers(backbone)
        adapter, learned = random_adapter(backbone)
        stack = AdapterStack(backbone)
        stack.add(adapter)
        stack.use("one", 0.0)
        assert torch.allclose(answers(backbone), base, atol=1e-6)
        stack.use("one", 0.5)
        halfway = answers(backbone)
        stack.use("one")
        assert torch.allclose(answers(backbone), learned[:2], atol=1e-4)
        assert not torch.allclose(halfway, learned[:2], atol=1e-4)
        assert not torch.allclose(halfway, base, atol=1e-4)


class TestRefusals:
    def refused(self, backbone, adapter: Adapter, words: str) -> None:
        """Twice: on a bare network, and beside another adapter in use."""
        before = state_of(backbone)
        stack = AdapterStack(backbone)
        with pytest.raises(AdapterError, match=words):
            stack.add(adapter)
        assert unchanged(backbone, before)
        assert stack.names == ()
        stack.add(random_adapter(backbone, "good")[0])
        stack.use("good")
        held = state_of(backbone)
        with pytest.raises(AdapterError, match=words):
            stack.add(adapter)
        assert unchanged(backbone, held)
        assert stack.names == ("good",)

    def changed(self, adapter: Adapter, **values) -> Adapter:
        from dataclasses import replace

        weights = {k: values.pop(k) for k in ("lora", "deltas", "tokens") if k in values}
        return replace(adapter, info=replace(adapter.info, **values), **weights)

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"family": "sam2"}, "family sam2"),
            ({"base_sha256": "0" * 64}, "sha256 0000"),
            ({"rank": 4}, "rank 4"),
            ({"method": "dora"}, "magnitude"),
        ],
    )
    def test_info_of_another(self, values, words):
        backbone = tiny_default()
        adapter, _ = random_adapter(backbone)
        self.refused(backbone, self.changed(adapter, **values), words)

    def test_layer_that_is_not_there(self):
        backbone = tiny_default()
        adapter, _ = random_adapter(backbone)
        lora = {k.replace("layers.0", "layers.7"): v for k, v in adapter.lora.items()}
        self.refused(backbone, self.changed(adapter, lora=lora), "no such layer")

    def test_parameter_that_is_not_there(self):
        backbone = tiny_default()
        adapter, _ = random_adapter(backbone)
        self.refused(backbone, self.changed(adapter, deltas={"nope": torch.zeros(2)}), "nope")

    def test_half_of_a_pair(self):
        backbone = tiny_default()
        adapter, _ = random_adapter(backbone)
        lora = dict(list(adapter.lora.items())[1:])
        self.refused(backbone, self.changed(adapter, lora=lora), "lacks")

    def test_token_of_another_width(self):
        backbone = tiny_default()
        adapter, _ = random_adapter(backbone)
        self.refused(backbone, self.changed(adapter, tokens={1: torch.zeros(5)}), "token")

    def test_wider_network(self):
        adapter, _ = random_adapter(tiny_default())
        other = DefaultBackbone(tiny_network(1))
        adapter = self.changed(adapter, base_sha256=base_digest(other))
        lora = {k: torch.zeros(2, 7) for k in adapter.lora}
        self.refused(other, self.changed(adapter, lora=lora), "shape")

    def test_name_twice_and_unknown_name(self):
        backbone = tiny_default()
        adapter, _ = random_adapter(backbone)
        stack = AdapterStack(backbone)
        stack.add(adapter)
        with pytest.raises(AdapterError, match="loaded already"):
            stack.add(adapter)
        for act in (stack.use, stack.remove, stack.get):
            with pytest.raises(AdapterError, match="loaded: one"):
                act("two")
        with pytest.raises(AdapterError, match="finite"):
            stack.use("one", float("nan"))
        assert stack.names == ("one",)


class TestMergedFiles:
    def test_default_checkpoint_loads_by_path(self, tmp_path):
        backbone = tiny_default()
        stack = AdapterStack(backbone)
        stack.add(random_adapter(backbone, targets="attention+mlp")[0])
        with pytest.raises(AdapterError, match="no adapter is active"):
            save_merged(stack, tmp_path / "merged.safetensors")
        stack.use("one")
        with pytest.raises(AdapterError, match=r"\.safetensors"):
            save_merged(stack, tmp_path / "merged.bin")
        path = save_merged(stack, tmp_path / "merged.safetensors")
        assert torch.allclose(answers(load_backbone(path)), answers(backbone), atol=1e-4)

    def test_sam_checkpoint_loads_by_path(self, tmp_path):
        backbone = BACKBONES["sam"]()
        stack = AdapterStack(backbone)
        stack.add(random_adapter(backbone)[0])
        stack.use("one")
        path = save_merged(stack, tmp_path / "merged.safetensors")
        assert torch.allclose(answers(load_backbone(path)), answers(backbone), atol=1e-4)


class TestSegmenter:
    def test_switching_never_reuses_embeddings(self):
        from support import bright_volume, discs

        from promptseg.prompts.types import Box

        backbone = tiny_default()
        whole = segmenter(backbone)
        volume = bright_volume(discs((40, 40, 3), 2, {1: (20, 20, 8)}))
        session = whole.session(volume)
        session.add(Box((10, 10, 1), (30, 30, 2)))
        base = session.segment()
        whole.adapters.add(random_adapter(backbone, strength=0.2)[0])
        assert session.segment().sha256 == base.sha256
        encoded = base.report["encoded_slices"]
        whole.adapters.use("one")
        adapted = session.segment()
        assert adapted.report["encoded_slices"] >= 1
        fresh = whole.session(volume)
        fresh.add(Box((10, 10, 1), (30, 30, 2)))
        assert adapted.sha256 == fresh.segment().sha256
        whole.adapters.use(None)
        again = session.segment()
        assert again.sha256 == base.sha256
        assert again.score == base.score
        assert encoded >= 1
        assert adapted.score != base.score
