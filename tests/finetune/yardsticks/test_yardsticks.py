"""MONAI's networks under the objectives: shapes, branches, sampling, resuming, tables."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from adapter_kit import config, disc_cases
from stroke_kit import IGNORE, further, stroke_cohort
from torch import nn

from promptseg.errors import FormatError
from promptseg.evaluate.metrics import dice
from promptseg.finetune.case_loading import training_cases, unlabelled_cases
from promptseg.finetune.data import Sources, split_cases
from promptseg.finetune.objectives import objective_class
from promptseg.finetune.objectives.base import AUXILIARY, LEVELS
from promptseg.finetune.organ_case import UNKNOWN
from promptseg.finetune.yardsticks.comparing import case_scores, centred, run_lines, summary
from promptseg.finetune.yardsticks.networks import BODIES, Ascent, Body, Descent, unet
from promptseg.finetune.yardsticks.plain import PlainNetwork
from promptseg.finetune.yardsticks.predicting import block_labels, slice_labels
from promptseg.finetune.yardsticks.sampling import BlockSampler, SliceSampler, shrunk
from promptseg.finetune.yardsticks.training import PlainTrainer, Schedule

pytest.importorskip("monai")
SIDE = 32


class Bright(nn.Module):
    """Background and what is brighter than half."""

    def forward(self, images):
        return torch.cat([0.5 - images, images - 0.5], 1)


def cases_of(objective, strokes=False):
    images, drawn, labels = stroke_cohort()
    chosen = config(objective=objective, ignore=IGNORE if strokes else None)
    needs = objective_class(objective).uses_unlabelled
    sources = Sources(images, None if strokes else labels, drawn if strokes else None,
                      further() if needs and not strokes else None)  # fmt: skip
    split = split_cases(sources, chosen)
    return training_cases(split, chosen), unlabelled_cases(split, chosen)


class TestNetworks:
    @pytest.mark.parametrize(("name", "shape"), [("unet", (2, 1, 32, 32)),
                                                 ("vnet", (2, 1, 16, 16, 16))])  # fmt: skip
    def test_shapes_and_branches(self, name, shape):
        network = PlainNetwork(BODIES[name], 2)
        own = network.add_branch(AUXILIARY)
        levels = network.add_branch(LEVELS)
        images = torch.rand(shape)
        assert network.body(images).shape == (shape[0], 3, *shape[2:])
        assert any(key.startswith("decoder") for key in own)
        assert all(key.startswith("head") for key in levels)
        assert not {id(p) for p in own.values()} & {id(p) for p in network.parameters.values()}

    def test_the_seed_decides_the_weights(self):
        one, same, other = (PlainNetwork(unet, 1, seed) for seed in (0, 0, 1))
        bias = "encoder.stages.0.conv_0.conv.weight"
        assert torch.equal(one.parameters[bias], same.parameters[bias])
        assert not torch.equal(one.parameters[bias], other.parameters[bias])


class TestSampling:
    def test_slices_of_strokes(self):
        cases, _ = cases_of("scribble", strokes=True)
        batch = SliceSampler(cases, [], 1, SIDE, True).batch(range(4), 0.5)
        assert batch.images.shape == (4, 1, SIDE, SIDE)
        assert batch.shares.shape == (4, 2, SIDE, SIDE)
        assert batch.known is not None
        assert float(batch.shares.sum(1).mean()) < 0.5
        assert (batch.strokes, batch.boost, batch.progress) == (True, 1.0, 0.5)

    def test_blocks_in_turn(self):
        cases, blank = cases_of("semi")
        sampler = BlockSampler(cases, blank, 1, (8, 16, 16), False, levels=True)
        batch = sampler.batch(range(4), 0.0)
        assert batch.labelled.tolist() == [True, False] * 2
        assert batch.images.shape == (4, 1, 8, 16, 16)
        assert batch.levels is not None
        inside = batch.masks > 0
        assert (batch.levels[inside] < 0).all()
        assert (batch.levels[0][batch.masks[0] == 0] > 0).all()
        # Six slices in a block of eight: what is beyond the volume is not annotated.
        assert not batch.shares[:, :, 6:].any()
        assert not batch.shares[1].any()

    def test_equal_numbers_are_equal_blocks(self):
        cases, blank = cases_of("semi")
        sampler = BlockSampler(cases, blank, 1, (4, 16, 16), False)
        one, other = sampler.batch(range(2), 0.0), sampler.batch(range(2), 0.0)
        assert torch.equal(one.images, other.images)
        assert not torch.equal(one.images, sampler.batch(range(2, 4), 0.0).images)


class TestShrunk:
    def case(self):
        whole = disc_cases(1)[0]
        image, labels = np.zeros((3, 4, 4), np.int16), np.zeros((3, 4, 4), np.uint8)
        image[:2, :2, :2] = 8
        image[0, 0, 2] = 8
        labels[:2, :2, :2], labels[0, 0, 2], labels[:, 2:, 2:] = 1, 1, UNKNOWN
        return replace(whole, image=image, labels=labels, spacing=(0.5, 0.75), thickness=2.0)

    def test_means_and_the_greater_half(self):
        small = shrunk(self.case(), 2)
        assert small.image.shape == small.labels.shape == (2, 2, 2)
        assert small.image[0].tolist() == [[8, 1], [0, 0]]
        assert small.labels[0].tolist() == [[1, 0], [0, UNKNOWN]]
        assert (small.spacing, small.thickness) == ((1.0, 1.5), 4.0)

    def test_an_incomplete_voxel_is_filled_up(self):
        small = shrunk(self.case(), 2)
        assert small.labels[1].tolist() == [[0, 0], [0, UNKNOWN]]

    def test_by_one_is_the_same(self):
        case = self.case()
        assert shrunk(case, 1) is case


class TestTraining:
    def trainer(self, file, steps=4, objective="mean_teacher"):
        cases, _ = cases_of(objective, strokes=True)
        network = PlainNetwork(unet, 1)
        sampler = SliceSampler(cases, [], 1, SIDE, True)
        schedule = Schedule(steps=steps, batch=2, save_seconds=0.0)
        return PlainTrainer(
            network, objective_class(objective)(network), sampler, schedule, file, {"size": SIDE}
        )

    def test_resumed_equals_uninterrupted(self, tmp_path):
        straight = self.trainer(None)
        straight.run()
        first = self.trainer(tmp_path / "a.pt")
        for _ in range(2):
            first.update()
        first.save()
        second = self.trainer(tmp_path / "a.pt")
        second.run()
        assert second.step == straight.step == 4
        for name, value in straight.modules.state_dict().items():
            assert torch.equal(value, second.modules.state_dict()[name]), name

    def test_another_run_is_refused(self, tmp_path):
        one = self.trainer(tmp_path / "a.pt")
        one.save()
        with pytest.raises(FormatError, match="steps was 4 and is now 5"):
            self.trainer(tmp_path / "a.pt", steps=5).run()

    def test_learns_strokes(self):
        trainer = self.trainer(None, steps=40, objective="scribble")
        trainer.schedule = Schedule(steps=40, batch=2, rate=5e-3)
        first = trainer.update()["strokes"]
        trainer.run()
        assert first > 0.5
        assert trainer.log[-1]["strokes"] < 0.3


class TestPredicting:
    def test_blocks_cover_the_case(self):
        network = PlainNetwork(BODIES["vnet"], 1)
        case = disc_cases(1)[0]
        found = block_labels(network.body, case, (16, 32, 32), 0.25)
        assert found.shape == case.image.shape
        assert set(np.unique(found)) <= {0, 1}

    def test_a_shrunk_case_is_answered_at_its_full_size(self):
        case = disc_cases(1)[0]
        bright = Body(Descent([nn.Identity()]), Ascent([]), Bright())
        found = block_labels(bright, case, (16, 32, 32), 0.25, shrink=2)
        plain = block_labels(bright, case, (16, 32, 32), 0.25)
        assert found.shape == case.image.shape
        assert dice(found == 1, plain == 1) > 0.75
        middles = [np.argwhere(mask == 1).mean(0) for mask in (found, plain)]
        np.testing.assert_allclose(*middles, atol=0.3)

    def test_nothing_beyond_what_it_looks_at(self):
        network = PlainNetwork(unet, 1)
        with torch.no_grad():
            network.body.head.bias[:] = torch.tensor([-9.0, 9.0])
        case = centred(disc_cases(1)[0], 0.5)
        found = slice_labels(network.body, case, SIDE)
        assert found[:, 12:36, 12:36].all()
        assert not found[:, :11].any()


class TestTable:
    def test_summary_by_hand(self):
        known = np.zeros((2, 4, 4), np.uint8)
        known[0, :2], known[1, :2] = 1, 2
        found = known.copy()
        found[0, 1] = 0
        scores = [case_scores(found, known, [0, 1])]
        line = summary(scores)
        assert line["labels"]["1"]["dice"] == pytest.approx(2 / 3)
        assert line["labels"]["2"]["dice"] == 1
        assert line["dice"] == pytest.approx(5 / 6)
        assert line["labels"]["1"]["hd95_voxels"] == pytest.approx(1)

    def test_a_line_is_made_once(self, tmp_path, capsys):
        made = []

        def make(name):
            made.append(name)
            return {"dice": 0.5, "labels": {"1": {"dice": 0.5}}, "steps": 3, "n": 1}

        for _ in range(2):
            run_lines(tmp_path, ["a", "b"], make, {"seed": 0})
        assert made == ["a", "b"]
        assert json.loads((tmp_path / "a.json").read_text())["seed"] == 0
        assert capsys.readouterr().out.count("Dice 0.5000") == 4
        with pytest.raises(SystemExit, match="seed 0, not 1"):
            run_lines(tmp_path, ["a"], make, {"seed": 1})
