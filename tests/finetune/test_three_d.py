"""`--three-d`: the coarse 3D view learns an adapter's organs, and travels with it."""

import argparse
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from adapter_kit import cohort, config, labelled_disc, random_adapter
from support import BrightRegion, segmenter, tiny_default

import promptseg as ps
from promptseg.adapters import read_adapter, write_adapter
from promptseg.commands.finetune import add_arguments, build_config
from promptseg.datasets.cohort import Case
from promptseg.errors import AdapterError, FormatError
from promptseg.finetune import view_training
from promptseg.finetune.running import train_adapter
from promptseg.finetune.view_lessons import Lesson, lessons_of
from promptseg.finetune.view_training import learned_from, learning, teach_view, turned
from promptseg.propagation.coarse import CoarseView
from promptseg.propagation.coarse_inputs import CHANNELS
from promptseg.propagation.coarse_network import CoarseNetwork

SIDE = 16


@pytest.fixture
def view():
    torch.manual_seed(0)
    return CoarseView(CoarseNetwork(CHANNELS, (8, 8, 8, 8), 2), "ab" * 32)


@pytest.fixture
def lesson():
    grid = torch.stack(torch.meshgrid(*[torch.arange(SIDE)] * 3, indexing="ij")) - 6.5
    ball = grid.square().sum(0) < 20
    channels = torch.rand(CHANNELS, SIDE, SIDE, SIDE) * 0.4 + ball * 0.5
    return Lesson(channels.half(), ball, 1)


def case(seed=0):
    volume, labels = labelled_disc(seed)
    return Case(f"case{seed}", volume, labels.data)


def lessons(view, one, boxes=2, labels=(1,), seed=0):
    rng = np.random.default_rng(seed)
    owner = segmenter(BrightRegion(crop=True))
    return list(lessons_of(owner, view, one, labels, "axial", "auto", boxes, rng))


class TestLessons:
    def test_two_looks_in_two_cubes_of_every_box(self, view):
        found = lessons(view, case())
        assert len(found) == 2 * 4
        assert {one.channels.shape for one in found} == {(CHANNELS, 48, 48, 48)}
        assert all(one.target.any() for one in found)

    def test_the_second_look_is_shown_the_tracks_and_the_first_is_not(self, view):
        first, _, second, _ = lessons(view, case(), boxes=1)
        trust = [set(one.channels[3].unique().tolist()) for one in (first, second)]
        assert trust == [{0.0, 1.0}, {0.0, 0.5, 1.0}]
        assert torch.equal(first.channels[0], second.channels[0])

    def test_the_target_is_the_truth_where_the_prompted_slice_shows_it(self, view):
        first = lessons(view, case(), boxes=1)[0]
        prompted = first.channels[3] == 1
        drawn = first.channels[2] > 0
        assert (drawn == first.target)[prompted].float().mean() > 0.9

    def test_a_label_that_is_not_there_gives_none(self, view):
        assert lessons(view, case(), labels=(2,)) == []

    def test_in_any_storage_order(self, view):
        one = case()
        mirrored = ps.Volume(one.volume.data[::-1].copy(), np.diag([-1.0, 1, 2, 1]), "MR")
        other = lessons(view, Case("other", mirrored, one.labels[::-1].copy()), boxes=1)
        prompted = other[0].channels[3] == 1
        assert ((other[0].channels[2] > 0) == other[0].target)[prompted].float().mean() > 0.9


class TestLearning:
    def test_what_learns_is_small_and_the_view_stays(self, view, lesson):
        before = {name: value.clone() for name, value in view.network.state_dict().items()}
        taught = learned_from(view, [lesson], 0, torch.device("cpu"), steps=3)
        assert set(taught) == {name for name, _ in learning(view.network)}
        assert all(torch.equal(before[n], v) for n, v in view.network.state_dict().items())
        assert not torch.equal(taught["head.weight"], before["head.weight"])
        assert not any(name.startswith(("down.2", "down.3", "up.2")) for name in taught)

    def test_the_shipped_size_is_an_eleventh(self):
        network = CoarseNetwork(CHANNELS)
        count = sum(p.numel() for _, p in learning(network))
        assert count / sum(p.numel() for p in network.parameters()) < 0.1
        assert 2 * count < 700_000

    def test_it_learns(self, view, lesson, monkeypatch):
        monkeypatch.setattr(view_training, "RATE", 5e-3)
        taught = learned_from(view, [lesson], 0, torch.device("cpu"), steps=60)
        before, after = (
            view_training.dice_by_label(one, [lesson], torch.device("cpu"))[1]
            for one in (view, view.taught(taught))
        )
        assert after > before + 0.1

    def test_turning_moves_channels_and_target_alike(self, lesson):
        other = turned(lesson, np.random.default_rng(3))
        assert torch.equal(other.channels[0] > 0.45, other.target)
        assert not torch.equal(other.target, lesson.target)


@pytest.fixture
def quick(monkeypatch, view):
    """Two steps of a small view in place of the one that ships."""
    short = functools.partial(learned_from, steps=2)
    monkeypatch.setattr(view_training, "learned_from", short)
    monkeypatch.setattr(view_training, "load_coarse", lambda: view)
    monkeypatch.setattr("promptseg.finetune.running.load_coarse", lambda: view)
    return view


def judged(monkeypatch, before, after):
    """The checked cases say so."""
    said = iter([{1: before}, {1: after}])
    monkeypatch.setattr(view_training, "dice_by_label", lambda *_: next(said))


class TestTeaching:
    def taught(self, view, tmp_path):
        backbone = tiny_default()
        adapter, _ = random_adapter(backbone)
        adapter = replace(adapter, info=replace(adapter.info, labels={1: "disc"}),
                          tokens={1: adapter.tokens[1]})  # fmt: skip
        pairs = train_pairs()
        options = (config(), torch.device("cpu"), view)
        return teach_view(backbone, adapter, pairs[:1], pairs[1:], *options)

    def test_kept_where_it_is_better_on_other_cases(self, quick, monkeypatch, tmp_path):
        judged(monkeypatch, 0.5, 0.6)
        taught = self.taught(quick, tmp_path)
        assert taught.parameters
        assert taught.scores["1"]["dice"]["mean"] == 0.6

    def test_dropped_where_it_is_not(self, quick, monkeypatch, tmp_path):
        judged(monkeypatch, 0.6, 0.6)
        taught = self.taught(quick, tmp_path)
        assert taught.parameters == {}
        assert taught.scores["1"]["dice"]["mean"] == 0.6


def train_pairs():
    from promptseg.datasets.cohort import open_cohort

    return open_cohort(*cohort(2))


class TestFolder:
    @pytest.fixture
    def adapter(self, view):
        found, _ = random_adapter(tiny_default())
        parameters = {n: p.detach().half().float() for n, p in learning(view.network)}
        info = replace(found.info, coarse_sha256=view.sha256)
        return replace(found, info=info, view=parameters)

    def test_it_comes_back(self, adapter, tmp_path):
        again = write_adapter(adapter, tmp_path / "one")
        assert again.view.keys() == adapter.view.keys()
        assert torch.equal(again.view["head.weight"], adapter.view["head.weight"])
        assert again.digest == adapter.digest

    def test_the_digest_vouches_for_it(self, adapter):
        bare = replace(adapter, view={})
        moved = {**adapter.view, "head.bias": adapter.view["head.bias"] + 1}
        assert len({adapter.digest, bare.digest, replace(adapter, view=moved).digest}) == 3

    def test_a_folder_without_its_view_is_refused(self, adapter, tmp_path):
        write_adapter(adapter, tmp_path / "one")
        (tmp_path / "one" / "coarse.safetensors").unlink()
        with pytest.raises(AdapterError, match=r"coarse\.safetensors"):
            read_adapter(tmp_path / "one")

    def owner(self, adapter, view):
        whole = segmenter(tiny_default(), coarse=view)
        whole.adapters.add(adapter)
        whole.adapters.use(adapter.name)
        return whole

    def test_it_is_used_with_its_adapter_only(self, adapter, view):
        moved = {**adapter.view, "head.bias": adapter.view["head.bias"] + 1}
        whole = self.owner(replace(adapter, view=moved), view)
        used = whole.runtime.view
        assert torch.equal(used.network.head.bias, moved["head.bias"])
        assert whole.runtime.view is used
        whole.adapters.use(None)
        assert whole.runtime.view is whole.runtime.coarse

    def test_another_view_is_used_as_it_is_and_said(self, adapter, view):
        other = CoarseView(view.network, "cd" * 32)
        whole = self.owner(adapter, other)
        assert whole.runtime.view is whole.runtime.coarse
        result = whole.segment(labelled_disc(0)[0], [ps.Box((12, 12, 2), (36, 36, 3))])
        assert "earlier coarse 3D view" in " ".join(result.report["notes"])

    def test_parameters_of_another_shape_are_refused(self, view):
        with pytest.raises(AdapterError, match=r"head\.bias"):
            view.taught({"head.bias": torch.zeros(3)})


class TestFromDataToAdapter:
    def test_trained_with_its_view(self, quick, monkeypatch, tmp_path):
        judged(monkeypatch, 0.5, 0.7)
        chosen = config(three_d=True, steps=2)
        adapter = train_adapter(chosen, *cohort(), tmp_path / "disc", backbone=tiny_default())
        assert adapter.info.coarse_sha256 == quick.sha256
        assert adapter.view
        assert adapter.info.scores["view_3d"]["1"]["dice"]["mean"] == 0.7
        text = (tmp_path / "disc" / "README.md").read_text()
        assert "with a coarse 3D view of its own" in text
        assert "| box, the coarse 3D view alone | disc | 0.700 | - |" in text

    def test_not_unless_it_was_asked_for(self, quick, tmp_path):
        chosen = config(steps=2)
        adapter = train_adapter(chosen, *cohort(), tmp_path / "disc", backbone=tiny_default())
        assert not adapter.view
        assert not (tmp_path / "disc" / "coarse.safetensors").exists()

    def test_going_on_keeps_the_view(self, quick, monkeypatch, tmp_path):
        judged(monkeypatch, 0.5, 0.7)
        first = train_adapter(config(three_d=True, steps=2), *cohort(), tmp_path / "first",
                              backbone=tiny_default())  # fmt: skip
        second = train_adapter(config(steps=2), *cohort(), tmp_path / "second", start=first,
                               backbone=tiny_default())  # fmt: skip
        assert second.info.coarse_sha256 == quick.sha256
        assert torch.equal(second.view["head.weight"], first.view["head.weight"])

    def test_strokes_do_not_teach_it(self, tmp_path):
        from stroke_kit import IGNORE, stroke_cohort

        images, drawn, _ = stroke_cohort()
        chosen = config(three_d=True, objective="scribble", ignore=IGNORE, validation_share=0.0)
        with pytest.raises(FormatError, match="three_d needs whole labels"):
            train_adapter(chosen, images, None, tmp_path / "disc", scribbles=drawn,
                          backbone=tiny_default())  # fmt: skip

    def test_the_option(self):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        assert build_config(parser.parse_args(["--organ", "disc", "--three-d"])).three_d
        assert not build_config(parser.parse_args(["--organ", "disc"])).three_d
