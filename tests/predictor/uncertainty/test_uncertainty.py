import nibabel as nib
import numpy as np
import pytest
import torch
from adapter_kit import random_adapter
from support import BrightRegion, bright_volume, discs, segmenter, tiny_default
from tiny_cohort import load_benchmark, write_tiny_cohort

import promptseg as ps
from promptseg.adapters.injection import lora_layers
from promptseg.errors import PromptError, PromptsegError, WeightsError
from promptseg.inference.slice_prompts import REFINE
from promptseg.predictor.uncertainty import (
    Calibration,
    Sources,
    View,
    calibration_of,
    uncertainty_map,
)
from promptseg.predictor.uncertainty.calibration import (
    fit,
    read_calibrations,
    reliability,
    write_calibration,
)
from promptseg.predictor.uncertainty.dropout import adapter_dropout
from promptseg.predictor.uncertainty.maps import overruled
from promptseg.prompts.types import Box, Mask, Point, PromptSet
from promptseg.volume.slicing import Frame, Region

SHAPE = (26, 30, 12)
BLOB = discs(SHAPE, 2, {n: (11 + 0.4 * n, 13, 6) for n in range(2, 9)})
OTHER = discs(SHAPE, 2, dict.fromkeys(range(2, 9), (12, 25, 3)))
BOX = Box((6, 7, 4), (20, 20, 5))
MIRRORS = (View(mirror=(0,)), View(mirror=(1,)), View(mirror=(0, 1)))
FLIPS = Sources(candidates=False, views=MIRRORS)
FEW = Sources(views=(View(mirror=(0,)), View(zoom=1.2)), draws=2)


def session(image=BLOB, backbone=None, **options):
    running = segmenter(backbone).session(bright_volume(image), **options)
    running.add(BOX)
    return running


def noisy(shape=(30, 28, 6)):
    rng = np.random.default_rng(1)
    blob = discs(shape, 2, dict.fromkeys(range(6), (14, 13, 6))) * 60.0
    return ps.Volume((blob + rng.normal(80, 20, shape)).astype(np.float32), np.diag([1, 1, 3, 1]))


class TestViews:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("sides", [(0,), (1,), (0, 1)])
    def test_frames_prompts_and_voxels_turn_together(self, axis, sides):
        shape, view = (20, 24, 18), View(mirror=sides)
        rng = np.random.default_rng(0)
        data = rng.random(shape, np.float32)
        frame = Frame(axis, Region((-2, 13), (3, 16)), shape, (1.0, 1.5, 2.0), 32)
        turned = view.frame(frame).extract(view.show(data, axis), [4])
        plain = frame.extract(data, [4])
        height, width = frame.valid
        flipped = plain[:, :, :height, :width].flip([2 + side for side in sides])
        torch.testing.assert_close(turned[:, :, :height, :width], flipped, atol=1e-6, rtol=0)
        assert np.array_equal(view.back(view.show(data, axis), axis), data)

    def test_brightness_and_zoom(self):
        data = np.full((4, 4, 4), 0.25, np.float32)
        assert View(gamma=0.5).show(data, 0).max() == pytest.approx(0.5)
        frame = Frame(2, Region((4, 14), (2, 12)), (20, 20, 4), (1, 1, 1), 32)
        assert View(zoom=1.2).frame(frame).region == Region((3, 15), (1, 13))


class TestEquivariantNetwork:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_mirrored_views_agree_exactly(self, axis):
        image = np.moveaxis(BLOB | OTHER, 2, axis)
        lo, hi = (np.insert(c, axis, c_) for c, c_ in (((6, 7), 4), ((20, 20), 5)))
        running = segmenter().session(bright_volume(image))
        running.add(Box(tuple(lo.tolist()), tuple(hi.tolist())))
        result = running.propagate()
        plain = running.probability()
        doubt = running.uncertainty(FLIPS)
        assert doubt.shape == image.shape
        expected = 1 - np.abs(2 * plain - 1)
        np.testing.assert_allclose(doubt, expected, atol=1e-3)
        assert result.report["axis"] == axis

    def test_members_are_the_same_mask(self):
        running = session(BLOB | OTHER)
        running.add(Point((12, 25, 6), target=2))
        running.propagate()
        asked = running.asker.asked.ready(FLIPS)
        shape = asked.engine.shape
        from promptseg.predictor.uncertainty.asking import shares

        members = list(asked.ensemble.members(asked.question, asked.answered))
        assert [kind for kind, *_ in members] == ["answer", "views", "views", "views"]
        for target in (1, 2):
            found = [shares(answers, shape, target, view) for _, answers, view in members]
            for other in found[1:]:
                np.testing.assert_allclose(other, found[0], atol=1e-5)


class TestResult:
    def test_only_on_request(self):
        running = session()
        assert running.propagate().uncertainty is None
        doubt = running.uncertainty(FEW)
        assert running.result.uncertainty is doubt
        assert running.result.report["timings"]["uncertainty"] > 0
        assert running.propagate().uncertainty is None

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_grid_and_range_on_every_axis(self, axis):
        volume = noisy()
        at = tuple(side // 2 for side in volume.shape)
        result = segmenter(tiny_default()).segment(
            volume, [Point(at)], axis=axis, propagate=False, uncertainty=True
        )
        assert result.uncertainty.shape == volume.shape
        assert result.uncertainty.dtype == np.float32
        assert result.uncertainty.min() >= 0
        assert result.uncertainty.max() <= 1
        others = tuple(a for a in range(3) if a != axis)
        seen = np.flatnonzero(result.uncertainty.any(others))
        assert set(seen.tolist()) <= {at[axis]}
        np.testing.assert_array_equal(result.affine, volume.affine)

    def test_the_labels_do_not_change(self):
        volume = noisy()
        prompts = [Box((8, 7, 2), (20, 19, 3))]
        plain = segmenter(tiny_default()).segment(volume, prompts)
        asked = segmenter(tiny_default()).segment(volume, prompts, uncertainty=True)
        np.testing.assert_array_equal(plain.data, asked.data)

    def test_a_mask_that_the_user_gave_is_certain(self):
        running = segmenter().session(bright_volume(BLOB))
        plane = np.zeros(SHAPE[:2], bool)
        plane[8:16, 9:17] = True
        running.add(Mask(plane, axis=2, index=5))
        running.propagate()
        assert running.uncertainty(FEW)[:, :, 5].max() < 1e-3

    def test_nothing_answered_yet(self):
        running = session()
        for ask in (running.uncertainty, running.suggest, running.probability):
            with pytest.raises(PromptError, match="nothing was answered yet"):
                ask()

    def test_clicks_taken_up_by_graph_cut_settle_what_they_touch(self):
        running = session(BLOB | OTHER)
        running.propagate()
        running.add(Point((12, 25, 5), role=REFINE))
        result = running.propagate()
        assert result.data[12, 25, 5] == 1
        assert running.uncertainty(FEW)[12, 25, 5] < 0.2

    def test_views_are_encoded_once(self):
        backbone = BrightRegion()
        running = session(backbone=backbone)
        running.propagate()
        running.uncertainty(FEW)
        before = backbone.encoded
        running.uncertainty(FEW)
        running.add(Point((12, 13, 6)))
        running.propagate()
        running.uncertainty(FEW)
        assert backbone.encoded == before

    def test_progress_ends(self):
        running, calls = session(), []
        running.propagate()
        running.uncertainty(FEW, progress=lambda *call: calls.append(call))
        steps = [call for call in calls if call[0] == "uncertainty"]
        assert steps[-1][1] == steps[-1][2] == 3

    def test_another_adapter_needs_another_answer(self):
        owner = segmenter(tiny_default())
        owner.adapters.add(random_adapter(owner.backbone)[0])
        running = owner.session(noisy())
        running.add(Point((14, 13, 3)))
        running.segment()
        owner.adapters.use(owner.adapters.names[0])
        with pytest.raises(PromptError, match="adapter was switched"):
            running.uncertainty(FEW)


class TestMap:
    def test_twice_the_chance_of_a_wrong_label(self):
        labels = np.array([[[1, 1, 2, 0, 0, 1]]])
        one = np.array([[[0.9, 0.6, 0.1, 0.0, 0.2, 0.3]]], np.float32)
        two = np.array([[[0.1, 0.0, 0.8, 0.0, 0.3, 0.0]]], np.float32)
        doubt = uncertainty_map(labels, {1: one, 2: two}, Calibration())
        np.testing.assert_allclose(doubt, [[[0.2, 0.8, 0.4, 0.0, 0.6, 1.0]]], atol=1e-5)

    def test_clicks_turn_probabilities_round_where_they_overrule(self):
        before, after = np.array([[[1, 0, 1]]]), np.array([[[1, 1, 0]]])
        share = np.array([[[0.9, 0.2, 0.7]]], np.float32)
        np.testing.assert_allclose(overruled({1: share}, before, after)[1], [[[0.9, 0.8, 0.3]]])


class TestDropout:
    def owner(self):
        owner = segmenter(tiny_default())
        owner.adapters.add(random_adapter(owner.backbone, targets="attention+mlp")[0])
        owner.adapters.use(owner.adapters.names[0])
        return owner

    def state(self, module):
        weights = {name: value.clone() for name, value in module.state_dict().items()}
        modes = {name: child.training for name, child in module.named_modules()}
        return weights, modes, [type(child) for child in module.modules()]

    def unchanged(self, module, before):
        weights, modes, kinds = self.state(module)
        assert all(torch.equal(value, before[0][name]) for name, value in weights.items())
        assert (modes, kinds) == before[1:]

    def test_everything_is_as_before_afterwards_even_after_an_error(self):
        owner = self.owner()
        module = owner.backbone.module
        before, numbers = self.state(module), torch.random.get_rng_state()
        with adapter_dropout(module, 0.2, 3):
            assert any(layer.lora_dropout for _, layer in lora_layers(module))
            kinds = {type(d) for _, x in lora_layers(module) for d in x.lora_dropout.values()}
            assert kinds == {torch.nn.Dropout}
            torch.rand(3)
        self.unchanged(module, before)
        with pytest.raises(ZeroDivisionError), adapter_dropout(module, 0.2, 3):
            raise ZeroDivisionError
        self.unchanged(module, before)
        assert torch.equal(torch.random.get_rng_state(), numbers)

    def test_bad_rate(self):
        with (
            pytest.raises(PromptsegError, match=r"rate is 1\.5"),
            adapter_dropout(torch.nn.Identity(), 1.5, 0),
        ):
            pass

    def test_same_seed_same_map_another_seed_another(self):
        only = {"candidates": False, "views": ()}
        maps = []
        for seed in (5, 5, 6):
            running = self.owner().session(noisy())
            running.add(Box((8, 7, 2), (20, 19, 3)))
            running.segment()
            sources = Sources(draws=2, rate=0.5, seed=seed, **only)
            maps.append(running.uncertainty(sources))
            again = running.uncertainty(sources)
            np.testing.assert_array_equal(maps[-1], again)
        np.testing.assert_array_equal(maps[0], maps[1])
        assert not np.array_equal(maps[0], maps[2])

    def test_the_network_answers_as_before(self):
        owner = self.owner()
        before = self.state(owner.backbone.module)
        running = owner.session(noisy())
        running.add(Box((8, 7, 2), (20, 19, 3)))
        plain = running.segment().data
        running.uncertainty(Sources(views=(), draws=1))
        self.unchanged(owner.backbone.module, before)
        again = owner.session(noisy())
        again.add(Box((8, 7, 2), (20, 19, 3)))
        np.testing.assert_array_equal(again.segment().data, plain)

    def test_targets_found_without_a_prompt(self):
        owner = self.owner()
        result = owner.segment(noisy(), uncertainty=True)
        assert result.uncertainty is not None
        assert result.uncertainty.shape == result.data.shape

    def test_no_draw_without_an_adapter(self):
        running = session()
        running.propagate()
        asked = running.asker.asked.ready(FEW)
        kinds = [kind for kind, *_ in asked.ensemble.members(asked.question, asked.answered)]
        assert kinds == ["answer", "candidates", "views", "views"]


class TestCalibration:
    def samples(self, slope, offset, count=40_000):
        rng = np.random.default_rng(0)
        said = rng.beta(0.6, 0.8, count).clip(0.001, 0.999)
        real = Calibration(slope, offset)(said)
        return said, rng.random(count) < real

    @pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.4, 0.0), (1.7, -0.8)])
    def test_fit_finds_what_made_the_truth(self, slope, offset):
        said, truth = self.samples(slope, offset)
        found = fit(said, truth)
        assert found.slope == pytest.approx(slope, abs=0.04)
        assert found.offset == pytest.approx(offset, abs=0.05)

    def test_the_error_falls(self):
        said, truth = self.samples(0.4, 0.5)
        before = reliability(said, truth).ece
        after = reliability(fit(said, truth)(said), truth).ece
        assert before > 0.08
        assert after < 0.012

    def test_weights_count_samples(self):
        said, truth = self.samples(0.6, 0.2, 4000)
        twice = fit(np.repeat(said, 2), np.repeat(truth, 2))
        weighted = fit(said, truth, np.full(len(said), 2.0))
        assert weighted.slope == pytest.approx(twice.slope, abs=1e-5)

    def test_what_no_one_saw_stays_zero(self):
        found = Calibration(0.5, 1.0)(np.array([0.0, 0.5, 1.0], np.float32))
        assert found.dtype == np.float32
        assert found[0] == 0
        assert 0.5 < found[1] < found[2] <= 1

    def test_one_sided_truth_is_refused(self):
        with pytest.raises(WeightsError, match="inside and outside"):
            fit(np.array([0.2, 0.9]), np.array([True, True]))

    def test_bins(self):
        found = reliability(np.array([0.05, 0.05, 0.95, 1.0]), np.array([0, 1, 1, 1]) > 0, 10)
        assert found.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
        assert found.ece == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)

    def test_file_keeps_other_models(self, tmp_path):
        file = tmp_path / "calibration.toml"
        write_calibration(file, "a" * 64, Calibration(0.5, 0.1), {"model": 'the "one"', "cases": 3})
        write_calibration(file, "b" * 64, Calibration(2.0, -0.25), {"model": "two"})
        write_calibration(file, "a" * 64, Calibration(0.75, 0.0), {"ece_after": 0.01})
        assert calibration_of("a" * 64, file) == Calibration(0.75, 0.0)
        assert calibration_of("b" * 64, file) == Calibration(2.0, -0.25)
        assert read_calibrations(file)["b" * 64]["model"] == "two"

    def test_an_unknown_model_is_left_as_it_is(self, tmp_path):
        assert calibration_of("c" * 64, tmp_path / "none.toml") == Calibration()
        assert calibration_of(None) == Calibration()

    @pytest.mark.parametrize("text", ["[", "x = 1", '["a"]\nslope = "steep"\noffset = 0'])
    def test_a_damaged_file(self, tmp_path, text):
        file = tmp_path / "calibration.toml"
        file.write_text(text)
        with pytest.raises(WeightsError, match=r"calibration\.toml"):
            calibration_of("a", file)

    def test_impossible_constants(self):
        with pytest.raises(WeightsError, match="slope 0"):
            Calibration(0.0, 0.0)

    def test_shipped_constants_can_be_read(self):
        from promptseg.weights.assets import asset_dir

        for entry in read_calibrations(asset_dir("weights") / "calibration.toml").values():
            Calibration(entry["slope"], entry["offset"])


class TestQuestion:
    def test_the_question_is_what_was_asked(self):
        running = session()
        running.propagate()
        assert running.asker.asked.question.prompts == PromptSet([BOX])
        assert running.asker.asked.question.propagate is True


class TestBenchmark:
    def test_fits_writes_and_draws_and_goes_on_where_it_stopped(
        self, tmp_path, monkeypatch, capsys
    ):
        model = write_tiny_cohort(tmp_path / "acdc")
        benchmark = load_benchmark("calibration")
        monkeypatch.setattr(benchmark, "DATA", tmp_path)
        monkeypatch.setattr(benchmark, "GROUPS", {"acdc": benchmark.Group((1,), 1, 2, 2)})
        out, constants = tmp_path / "out", tmp_path / "calibration.toml"
        job = ["--out", str(out), "--model", str(model), "--write", str(constants)]
        assert benchmark.main([*job, "--device", "cpu"]) == 0
        shown = capsys.readouterr().out
        assert "| calibrated |" in shown
        ((digest, entry),) = read_calibrations(constants).items()
        assert entry["targets"] == 2
        assert calibration_of(digest, constants).slope == entry["slope"]
        assert next(out.glob("*/reliability.png")).read_bytes()[:4] == b"\x89PNG"
        samples = sorted(out.glob("*/*.npz"))
        stamps = [file.stat().st_mtime_ns for file in samples]
        assert len(samples) == 2
        assert benchmark.main([*job, "--device", "cpu"]) == 0
        assert [file.stat().st_mtime_ns for file in samples] == stamps
        assert capsys.readouterr().out == shown

    @pytest.mark.parametrize(("slope", "helps"), [(0.3, True), (1.0, False)])
    def test_constants_are_kept_only_where_they_help_on_other_patients(self, slope, helps):
        benchmark = load_benchmark("calibration")
        rng = np.random.default_rng(2)
        said = rng.uniform(0.01, 0.99, 4000)
        truth = rng.random(4000) < Calibration(slope, 0.0)(said)
        patient = rng.integers(0, 5, 4000)
        columns = {"mean": said, "truth": truth}
        samples = benchmark.Samples(columns, patient, np.ones(4000))
        calibrated = benchmark.cross_validated(samples)
        found, kept = benchmark.chosen_constants(samples, calibrated if helps else said)
        assert kept is helps
        assert (found == Calibration()) is not helps

    def test_wrong_voxels_are_found_by_rank(self):
        benchmark = load_benchmark("calibration")
        share = np.array([0.9, 0.6, 0.4, 0.1])
        mask, truth = share > 0.5, np.array([True, False, True, False])
        assert benchmark.found_errors(share, mask, truth) == 1.0
        assert benchmark.found_errors(share, mask, ~truth) == 0.0
        assert np.isnan(benchmark.found_errors(share, mask, mask))


class TestCommandLine:
    def test_the_file_is_on_the_grid_of_the_image(self, tmp_path):
        from promptseg.commands.cli import main

        model = write_tiny_cohort(tmp_path)
        image = tmp_path / "images" / "patient001_frame01.nii.gz"
        affine = np.array([[0, -1.5, 0, 4], [1.5, 0, 0, -7], [0, 0, 6, 2], [0, 0, 0, 1.0]])
        nib.save(nib.Nifti1Image(np.asarray(nib.load(image).dataobj), affine), image)
        job = ["segment", image, "-o", tmp_path / "m.nii.gz", "--model", model]
        job += ["--box", "8,7,2,24,21,3", "--uncertainty", tmp_path / "u.nii.gz"]
        assert main([str(part) for part in job]) == 0
        doubt = ps.read(tmp_path / "u.nii.gz")
        np.testing.assert_allclose(doubt.affine, affine, atol=1e-6)
        assert doubt.data.dtype == np.float32
        assert doubt.shape == (32, 30, 5)
        assert 0 <= doubt.data.min() < doubt.data.max() <= 1
        volume = ps.read(image)
        owner = ps.Segmenter.from_pretrained(model)
        again = owner.segment(volume, [Box((8, 7, 2), (24, 21, 3))], uncertainty=True)
        np.testing.assert_allclose(doubt.data, again.uncertainty, atol=1e-6)
