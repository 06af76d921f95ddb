import numpy as np
import pytest
import torch
from adapter_kit import labelled_disc, random_adapter, state_of, unchanged
from support import dice, segmenter, tiny_default, tiny_sam

from promptseg.adapters import read_adapter, write_adapter
from promptseg.errors import PromptError, VolumeError
from promptseg.predictor.examples import spread
from promptseg.predictor.learning import Effort, learn
from promptseg.predictor.lessons import LEARNED, sizes_of
from promptseg.prompts.types import Box, Text
from promptseg.volume import Volume

SHORT = Effort(steps=2, seconds=1000)


def taught(backbone=None, cases: int = 1, effort: Effort = SHORT):
    """A segmenter that was shown the masks of a few discs."""
    seg = segmenter(tiny_default() if backbone is None else backbone)
    for seed in range(cases):
        image, labels = labelled_disc(seed)
        seg.session(image).learn(labels.data, {1: "disc"}, effort)
    return seg


class TestLearn:
    @pytest.mark.parametrize("make", [tiny_default, tiny_sam])
    def test_base_is_as_before_without_the_adapter(self, make):
        backbone = make()
        before = state_of(backbone)
        seg = taught(backbone)
        assert seg.adapters.active.name == LEARNED
        seg.adapters.use(None)
        assert unchanged(backbone, before)
        assert all(p.grad is None for p in backbone.module.parameters())

    def test_is_repeatable(self):
        one, two = (taught().adapters.active for _ in range(2))
        assert torch.equal(one.tokens[1], two.tokens[1])
        assert one.digest == two.digest

    def test_every_accepted_case_counts(self):
        seg = taught(cases=2)
        assert len(seg.lessons) == 2
        assert len(seg.adapters.active.info.training_cases) == 2
        assert seg.adapters.names == (LEARNED,)

    def test_same_case_accepted_again_replaces_the_first(self):
        seg = taught()
        image, labels = labelled_disc(0)
        other = labels.data.copy()
        other[:, :, 3] = 0
        seg.session(image).learn(other, effort=SHORT)
        assert len(seg.lessons) == 1
        assert seg.adapters.active.info.labels == {1: "disc"}

    def test_next_case_needs_no_prompt(self):
        seg = taught(cases=2, effort=Effort(steps=40, seconds=1000, rate=3e-3))
        image, labels = labelled_disc(7)
        found = seg.segment(image).data == 1
        assert dice(found, labels.data == 1) > 0.6

    def test_words_ask_for_it(self):
        seg = taught(cases=1, effort=Effort(steps=30, seconds=1000, rate=3e-3))
        image, _ = labelled_disc(7)
        told = seg.segment(image, [Text("disc")]).report["text"]
        assert told[0]["adapter"] == LEARNED

    def test_takes_the_latest_answer(self):
        seg = segmenter(tiny_default())
        image, labels = labelled_disc(0)
        session = seg.session(image)
        filled = np.argwhere(labels.data[:, :, 2])
        low, high = filled.min(0), filled.max(0) + 1
        session.add(Box((*low.tolist(), 2), (*high.tolist(), 3)))
        session.propagate()
        if not session.result.data.any():
            pytest.skip("the random network found nothing")
        adapter = session.learn(effort=SHORT)
        assert adapter.info.axis == "axial"
        assert adapter.info.training_cases == (image.sha256[:12],)

    def test_an_active_adapter_has_no_part_in_it(self):
        plain = taught().adapters.active
        backbone = tiny_default()
        seg = segmenter(backbone)
        one, _ = random_adapter(backbone, decoder="lora")
        seg.adapters.add(one)
        seg.adapters.use("one")
        image, labels = labelled_disc(0)
        adapter = seg.session(image).learn(labels.data, {1: "disc"}, SHORT)
        assert torch.allclose(adapter.tokens[1], plain.tokens[1], atol=1e-6)
        assert set(adapter.deltas) == set(plain.deltas)

    def test_can_be_kept(self, tmp_path):
        seg = taught()
        written = write_adapter(seg.adapters.active, tmp_path / "kept")
        again = read_adapter(tmp_path / "kept")
        assert again.info.organ == "disc"
        assert torch.equal(again.tokens[1], written.tokens[1])


class TestRefusals:
    def test_no_answer(self):
        image, _ = labelled_disc(0)
        with pytest.raises(PromptError, match="nothing was answered"):
            segmenter(tiny_default()).session(image).learn()

    def test_empty_mask_changes_nothing(self):
        seg = taught()
        kept = seg.adapters.active
        image, labels = labelled_disc(3)
        with pytest.raises(PromptError, match="nothing to learn"):
            seg.session(image).learn(np.zeros_like(labels.data), effort=SHORT)
        assert len(seg.lessons) == 1
        assert seg.adapters.active is kept

    def test_other_grid(self):
        image, labels = labelled_disc(0)
        with pytest.raises(VolumeError, match="shape"):
            segmenter(tiny_default()).session(image).learn(labels.data[:-1], effort=SHORT)


class TestLessons:
    def test_oldest_case_is_forgotten_first(self):
        seg = taught(cases=1)
        seg.lessons.max_bytes = seg.lessons.examples[0].nbytes
        first = seg.lessons.examples[0].name
        image, labels = labelled_disc(1)
        seg.session(image).learn(labels.data, effort=SHORT)
        assert [e.name for e in seg.lessons.examples] != [first]
        assert len(seg.lessons) == 1

    def test_axis_is_named_by_its_direction_in_the_body(self):
        image, labels = labelled_disc(0)
        turned = np.array([[0, 0, 2.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
        seg = segmenter(tiny_default())
        session = seg.session(Volume(image.data, turned, "MR"), axis=2)
        assert session.learn(labels.data, effort=SHORT).info.axis == "sagittal"


class TestLearning:
    def test_stops_in_time(self):
        seg = taught()
        backbones = sizes_of(seg.backbone)
        seg.adapters.use(None)
        found = learn(backbones, seg.lessons.examples, Effort(steps=10**6, seconds=0.5))
        assert 0 <= found.steps < 10**6

    def test_half_size_only_where_the_network_takes_it(self):
        assert [b.spec.input_size for b in sizes_of(tiny_default())] == [32, 64]
        assert len(sizes_of(tiny_sam())) == 1

    def test_spread_keeps_the_ends(self):
        assert spread(range(3, 20), 4)[0] == 3
        assert spread(range(3, 20), 4)[-1] == 19
        assert spread([5, 6], 4) == [5, 6]

    def test_examples_hold_every_label(self):
        seg = taught()
        assert seg.lessons.examples[0].labels == (1,)
        seen = seg.lessons.examples[0].seen
        assert {s.size for s in seen} == {32, 64}
        assert any(bool(s.masks[1].any()) for s in seen)
        assert any(not bool(s.masks[1].any()) for s in seen)
