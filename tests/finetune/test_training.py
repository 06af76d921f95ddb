import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapter_kit import METHODS, cohort, config, disc_cases, state_of, unchanged
from support import segmenter, tiny_default, tiny_sam

import promptseg as ps
from promptseg.adapters import read_adapter
from promptseg.errors import AdapterError, PromptsegError
from promptseg.finetune import trainer as training
from promptseg.finetune.lora import lora_targets, make_learner
from promptseg.finetune.memory import transformer_blocks
from promptseg.finetune.processes import Processes
from promptseg.finetune.running import plan_adapter, train_adapter
from promptseg.finetune.trainer import Trainer
from promptseg.finetune.views import ViewMaker

ALONE = Processes(0, 1, torch.device("cpu"))


def trainer(backbone, **options) -> Trainer:
    chosen = config(**options)
    learner = make_learner(backbone, chosen, 1)
    views = ViewMaker(disc_cases(), 1, backbone.spec, chosen)
    return Trainer(learner, views, chosen, ALONE)


def gradients(one: Trainer) -> dict[str, torch.Tensor]:
    """Of the first step, without taking it."""
    one.learner.modes()
    one.gradients([one.views[n] for n in range(one.config.batch)])
    return {name: p.grad.clone() for name, p in one.parameters.items() if p.grad is not None}


def close(one: dict, other: dict) -> bool:
    scale = max(float(g.abs().max()) for g in one.values())
    return one.keys() == other.keys() and all(
        torch.allclose(one[name], other[name], atol=5e-4 * scale) for name in one
    )


class TestTargets:
    def test_fused_layers_by_name(self):
        module = tiny_sam().module
        assert lora_targets(module, ("attention",)) == [
            f"image_encoder.blocks.{n}.attn.qkv" for n in (0, 1)
        ]
        every = lora_targets(module, ("attention_all",))
        assert [name.rpartition(".")[2] for name in every] == ["qkv", "proj"] * 2
        assert all(".mlp." in name for name in lora_targets(module, ("mlp",)))
        decoder = lora_targets(module, ("decoder",))
        assert all(name.startswith("mask_decoder.transformer.") for name in decoder)

    def test_without_such_layers(self):
        with pytest.raises(AdapterError, match="'attention'"):
            lora_targets(torch.nn.Sequential(torch.nn.Linear(2, 2)), ("attention",))

    def test_key_rows_stay_as_they_are(self):
        one = trainer(tiny_default())
        for _ in range(2):
            one.update([one.views[n] for n in range(2)])
        (matrix,) = (p for name, p in one.learner.lora.items() if "lora_B" in name)
        query, key, value = matrix.detach().chunk(3)
        assert not key.any()
        assert query.any()
        assert value.any()


class TestWhatLearns:
    def test_backbone_with_adapters_is_refused(self):
        from adapter_kit import random_adapter

        from promptseg.adapters import AdapterStack

        backbone = tiny_default()
        AdapterStack(backbone).add(random_adapter(backbone)[0])
        before = state_of(backbone)
        with pytest.raises(AdapterError, match="remove them"):
            trainer(backbone)
        assert unchanged(backbone, before)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("make", [tiny_default, tiny_sam])
    def test_only_the_adapter(self, method, make):
        backbone = make()
        before = state_of(backbone)
        one = trainer(backbone, **METHODS[method])
        start = one.weights.copies()
        one.update([one.views[n] for n in range(2)])
        moved = {n for n, p in one.parameters.items() if not torch.equal(p, start[n])}
        assert "tokens" in moved
        assert any("lora" in name for name in moved) == one.config.uses_lora
        assert any("head" in name for name in moved) == bool(one.learner.heads)
        plain = {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in backbone.module.state_dict().items()
            if ".lora_" not in name
        }
        assert plain.keys() == before.keys()
        for name, tensor in plain.items():
            assert name in one.learner.heads or torch.equal(tensor, before[name]), name
        one.learner.release()
        assert unchanged(backbone, before)

    def test_frozen_statistics_stay(self):
        backbone = tiny_default()
        backbone.module.add_module("norm", torch.nn.BatchNorm2d(3))
        one = trainer(backbone, dropout=0.5)
        one.learner.modes()
        assert not backbone.module.norm.training
        modes = {type(m).__name__ for m in backbone.module.modules() if m.training}
        assert modes == {"Dropout", "ModuleDict"}

    def test_encoder_is_asked_once_for_each_view(self):
        one = trainer(tiny_default(), encoder="frozen", views=3, batch=4)
        asked = []
        encode = one.learner.backbone.encode
        one.learner.backbone.encode = lambda images: asked.append(len(images)) or encode(images)
        for step in range(3):
            one.update([one.views[n] for n in range(4 * step, 4 * step + 4)])
        assert sum(asked) == 3

    def test_small_views_come_first(self):
        one = trainer(tiny_default(), steps=4, half=0.5)
        sizes = []
        for views in one.batches():
            sizes.append(views[0].size)
            one.update(views)
            if one.step == 4:
                break
        assert sizes == [32, 32, 64, 64]
        assert trainer(tiny_sam(), half=0.5).small is None


class TestSameGradients:
    def test_in_parts(self):
        whole = gradients(trainer(tiny_default(), batch=4))
        assert close(whole, gradients(trainer(tiny_default(), batch=4, micro_batch=1)))

    def test_when_blocks_are_computed_twice(self):
        from promptseg.finetune.memory import checkpointed

        for make in (tiny_default, tiny_sam):
            plain, saving = trainer(make()), trainer(make())
            module = saving.learner.backbone.module
            with checkpointed(module):
                assert transformer_blocks(module)
                assert close(gradients(plain), gradients(saving))
            assert all("forward" not in vars(block) for block in transformer_blocks(module))

    def test_when_memory_runs_out(self, monkeypatch):
        whole = gradients(trainer(tiny_default(), batch=4))
        small = trainer(tiny_default(), batch=4)
        objective = small.objective

        def tight(views):
            if len(views) > 1:
                raise torch.OutOfMemoryError("out of memory")
            return objective(views)

        small.objective = tight
        assert close(whole, gradients(small))
        assert small.micro == 1

    def test_when_not_even_one_fits(self):
        one = trainer(tiny_default())

        def none(views):
            raise torch.OutOfMemoryError("out of memory")

        one.objective = none
        with pytest.raises(PromptsegError, match="one slice does not fit"):
            gradients(one)

    def test_over_processes(self):
        """The parts of two processes add up to the whole."""
        whole, parts = gradients(trainer(tiny_default(), batch=4)), []
        for rank in (0, 1):
            one = trainer(tiny_default(), batch=4)
            one.learner.modes()
            views = Processes(rank, 2, torch.device("cpu")).share([0, 1, 2, 3])
            one.gradients([one.views[n] for n in views])
            parts.append({n: p.grad for n, p in one.parameters.items() if p.grad is not None})
        assert close(whole, {name: parts[0][name] + parts[1][name] for name in whole})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "disc"
    backbone = tiny_default()
    before = state_of(backbone)
    chosen = config(validation_slices=2, final_slices=1, validate_every=2, checkpoint_steps=2)
    adapter = train_adapter(chosen, *cohort(), out, backbone=backbone)
    assert unchanged(backbone, before)
    return adapter, out


class TestFromDataToAdapter:
    def test_folder(self, finished):
        adapter, out = finished
        names = {path.name for path in out.iterdir()}
        assert names >= {
            "adapter_model.safetensors",
            "adapter_config.json",
            "heads.safetensors",
            "promptseg.json",
            "recipe.toml",
            "README.md",
        }
        assert read_adapter(out).digest == adapter.digest
        assert adapter.info.steps == 4
        assert len(adapter.info.training_cases) == 2
        assert len(adapter.info.validation_cases) == 1
        areas = sorted(float((k.data > 0).sum((0, 1)).max()) / 100 for k in cohort()[1])
        assert adapter.info.sections[1] in [pytest.approx(area, abs=0.01) for area in areas[1:]]
        assert "Dice" in (out / "README.md").read_text()

    def test_scores_and_pictures(self, finished):
        adapter, out = finished
        assert {"box_2d", "auto_3d"} == set(adapter.info.scores)
        assert 0 <= adapter.info.scores["box_2d"]["1"]["dice"]["mean"] <= 1
        assert (out / "training" / "contours" / "step000004.png").stat().st_size > 100

    def test_logs(self, finished):
        _, out = finished
        rows = [json.loads(r) for r in (out / "training" / "log.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if "box_dice" in row] == [2, 4]
        assert any("loss" in row for row in rows)
        assert list((out / "training").glob("events.*"))

    def test_segments_with_and_without_prompt(self, finished):
        adapter, _ = finished
        whole = segmenter(tiny_default())
        whole.adapters.add(adapter)
        whole.adapters.use("disc")
        assert whole.organ == "disc"
        volume = cohort(1)[0][0]
        assert whole.segment(volume, [ps.Box((12, 12, 2), (36, 36, 3))]).data.shape == volume.shape
        result = whole.segment(volume)
        assert result.labels == {1: "disc"}
        assert set(result.score) == {1}

    def test_folder_is_not_overwritten(self, finished):
        adapter, out = finished
        with pytest.raises(AdapterError, match="--resume"):
            train_adapter(config(), *cohort(), out, backbone=tiny_default())
        assert read_adapter(out).digest == adapter.digest

    def test_finished_run_is_not_trained_again(self, finished):
        adapter, out = finished
        chosen = config(validation_slices=2, final_slices=1, validate_every=2, checkpoint_steps=2)
        again = train_adapter(chosen, *cohort(), out, backbone=tiny_default(), resume=True)
        assert again.digest == adapter.digest


class Killed(Exception):
    """Stands for a kill at any moment."""


INTERRUPTED = {
    "steps": 5,
    "checkpoint_steps": 2,
    "dropout": 0.2,
    "targets": "attention+mlp",
    "half": 0.5,
}


class TestResume:
    def killed_at(self, step: int, out: Path, monkeypatch) -> None:
        update = Trainer.update

        def dies(self, views):
            if self.step == step:
                raise Killed
            return update(self, views)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "update", dies)
            with pytest.raises(Killed):
                train_adapter(config(**INTERRUPTED), *cohort(), out, backbone=tiny_default())

    def test_equals_uninterrupted(self, tmp_path, monkeypatch):
        chosen = config(**INTERRUPTED)
        straight = train_adapter(chosen, *cohort(), tmp_path / "a", backbone=tiny_default())
        for step in (1, 4):
            out = tmp_path / f"b{step}"
            self.killed_at(step, out, monkeypatch)
            resumed = train_adapter(chosen, *cohort(), out, backbone=tiny_default(), resume=True)
            assert resumed.digest == straight.digest
            assert resumed.info.steps == 5

    def test_log_has_no_step_twice(self, tmp_path, monkeypatch):
        monkeypatch.setattr(training, "LOG_EVERY", 1)
        self.killed_at(3, tmp_path / "c", monkeypatch)
        log = tmp_path / "c" / "training" / "log.jsonl"
        with open(log, "a") as file:
            file.write('{"step": 4, "lo')
        chosen = config(**INTERRUPTED)
        train_adapter(chosen, *cohort(), tmp_path / "c", backbone=tiny_default(), resume=True)
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        assert steps == [1, 2, 3, 4, 5]

    def test_other_recipe_base_or_cases_are_refused_by_name(self, tmp_path, monkeypatch):
        out = tmp_path / "d"
        self.killed_at(3, out, monkeypatch)
        chosen, images, labels = config(**INTERRUPTED), *cohort()
        for recipe, given, base, words in (
            (replace(chosen, rank=3), (images, labels), tiny_default(), "rank was 2 and is now 3"),
            (chosen, cohort(2), tiny_default(), "training was"),
            (chosen, (images, labels), tiny_default(1), "base was"),
        ):
            with pytest.raises(AdapterError, match=words):
                train_adapter(recipe, *given, out, backbone=base, resume=True)

    def test_of_a_version_that_knew_fewer_options(self, tmp_path, monkeypatch):
        out = tmp_path / "older"
        self.killed_at(3, out, monkeypatch)
        checkpoint = out / "training" / "last.pt"
        content = torch.load(checkpoint, weights_only=True)
        about = json.loads(content["about"])
        del about["single_slice"]
        torch.save({**content, "about": json.dumps(about)}, checkpoint)
        chosen = config(**INTERRUPTED)
        other = replace(chosen, single_slice=True)
        with pytest.raises(AdapterError, match="single_slice was False and is now True"):
            train_adapter(other, *cohort(), out, backbone=tiny_default(), resume=True)
        resumed = train_adapter(chosen, *cohort(), out, backbone=tiny_default(), resume=True)
        assert resumed.info.steps == 5

    def test_damaged_checkpoint(self, tmp_path, monkeypatch):
        out = tmp_path / "e"
        self.killed_at(3, out, monkeypatch)
        (out / "training" / "last.pt").write_bytes(b"no")
        with pytest.raises(AdapterError, match="damaged"):
            train_adapter(
                config(**INTERRUPTED), *cohort(), out, backbone=tiny_default(), resume=True
            )

    def test_full_disk_keeps_the_last_checkpoint(self, tmp_path, monkeypatch):
        out, written = tmp_path / "f", Path.write_bytes

        def full(self, data):
            if self.name == "last.pt" and (out / "training" / "last.pt").exists():
                raise OSError(errno.ENOSPC, "No space left on device")
            return written(self, data)

        chosen = config(**INTERRUPTED)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", full)
            with pytest.raises(AdapterError, match="No space left"):
                train_adapter(chosen, *cohort(), out, backbone=tiny_default())
        straight = train_adapter(chosen, *cohort(), tmp_path / "g", backbone=tiny_default())
        resumed = train_adapter(chosen, *cohort(), out, backbone=tiny_default(), resume=True)
        assert resumed.digest == straight.digest


class TestPlan:
    def test_says_what_would_be_trained(self):
        backbone = tiny_default()
        before = state_of(backbone)
        plan = plan_adapter(config(steps=50), *cohort(), backbone=backbone)
        assert unchanged(backbone, before)
        assert (plan.training_cases, plan.validation_cases, plan.steps) == (2, 1, 50)
        assert 0 < plan.trainable < plan.total
        assert plan.seconds_per_step > 0
        assert plan.memory_bytes > 4 * plan.total
        assert plan.lora_bytes == 4 * 2 * (32 + 96)
        assert "50 of" in str(plan)


def test_learns_a_disc():
    """From random weights, tokens and boxes come to see what is bright."""
    one = trainer(tiny_default(), encoder="full", batch=4, steps=60, rate=5e-3, whole=0.0)
    first = [one.update([one.views[n] for n in range(4)])["loss"] for _ in range(3)]
    for step in range(40):
        last = one.update([one.views[n] for n in range(4 * step, 4 * step + 4)])["loss"]
    assert last < 0.7 * max(first)


def test_public_call(tmp_path):
    images, labels = cohort(2)
    adapter = ps.finetune(
        images, labels, organ="disc", backbone=tiny_default(), rank=2, out=tmp_path / "disc",
        steps=1, batch=1, precision="fp32", validation_slices=0, final_slices=0, device="cpu",
    )  # fmt: skip
    assert adapter.info.organ == "disc"
    with pytest.raises(PromptsegError, match="colour"):
        ps.finetune(images, labels, organ="disc", colour=3)
