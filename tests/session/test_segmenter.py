import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import orientations
from support import (
    BrightRegion,
    bright_volume,
    dice,
    discs,
    filled,
    segmenter,
    tiny_default,
    tiny_network,
)

import promptseg as ps
from promptseg.backbones.default import save_default
from promptseg.errors import AdapterError, PromptError, PromptsegError, VolumeError, WeightsError
from promptseg.weights import registry as weights

SHAPE = (20, 24, 10)
SPACING = np.array([1.0, 1.0, 2.5])
BLOB = discs(SHAPE, 2, {n: (9 + 0.3 * n, 13, 5) for n in range(2, 8)})
BOX = ps.Box((5, 8, 4), (16, 19, 5))


def turned(order, signs, oblique=False):
    """The blob, and a box in millimetres, on a grid of one of the 48 orientations.

    Gives the volume, and a function that brings (I, J, K) arrays back to the plain grid.
    """
    world = np.diag([*SPACING, 1.0])
    world[:3, 3] = -20, 30, 5
    if oblique:
        c, s = np.cos(0.3), np.sin(0.3)
        world[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ world[:3, :3]
    flips = [axis for axis in range(3) if signs[axis] < 0]
    data = np.flip(BLOB.transpose(order), flips)
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for axis, source in enumerate(order):
        step[source, axis] = signs[axis]
        step[source, 3] += BLOB.shape[source] - 1 if signs[axis] < 0 else 0
    volume = ps.Volume(np.ascontiguousarray(data).astype(np.int16) * 100, world @ step)

    def back(found):
        return np.flip(found, flips).transpose(np.argsort(order))

    return volume, world, back


class TestOwnGrid:
    @settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
    @given(orientations, st.booleans())
    def test_the_same_answer_in_every_orientation(self, orientation, oblique):
        volume, world, back = turned(*orientation, oblique)
        corners = np.array([BOX.lo, BOX.hi]) - 0.5
        lo, hi = corners @ world[:3, :3].T + world[:3, 3]
        result = segmenter().segment(volume, [ps.Box(tuple(lo), tuple(hi), frame="ras")])
        assert result.data.shape == volume.shape
        np.testing.assert_array_equal(result.affine, volume.affine)
        assert np.issubdtype(result.data.dtype, np.integer)
        found = back(result.data > 0)
        assert filled(found, 2) == list(range(2, 8))
        assert dice(found, BLOB) > 0.98

    def test_all_48(self):
        centre = np.array([9 + 0.3 * 4, 13, 4])
        for order in itertools.permutations(range(3)):
            for signs in itertools.product([-1.0, 1.0], repeat=3):
                volume, world, back = turned(order, signs)
                at = world[:3, :3] @ centre + world[:3, 3]
                result = segmenter().segment(
                    volume, [ps.Point(tuple(at), frame="ras")], axis="axial", propagate=False
                )
                found = back(result.data > 0)
                assert filled(found, 2) == [4]
                assert dice(found[:, :, 4], BLOB[:, :, 4]) > 0.98

    def test_the_volume_is_not_touched(self):
        volume = bright_volume(BLOB, SPACING)
        before = volume.data.copy()
        segmenter().segment(volume, [BOX])
        np.testing.assert_array_equal(volume.data, before)


class TestResult:
    def test_report_says_what_was_done(self):
        volume = bright_volume(BLOB, SPACING, "CT")
        asked = segmenter().segment(volume, [BOX], window="100,50", consistency="none")
        report = asked.report
        assert report["axis"] == 2
        assert report["propagated"] is True
        assert (report["device"], report["precision"]) == ("cpu", "fp32")
        window = {"kind": "fixed", "low": 0.0, "high": 100.0, "name": "100,50", "note": ""}
        assert report["window"] == window
        assert 6 <= report["encoded_slices"] <= 11
        assert report["decoded_masks"] >= 6
        timings = report["timings"]
        assert {"prepare", "segment", "paint", "total"} <= set(timings)
        parts = sum(seconds for stage, seconds in timings.items() if stage != "total")
        assert 0 < parts <= timings["total"]

    def test_propagate_off_answers_the_prompted_slice(self):
        result = segmenter().segment(bright_volume(BLOB), [BOX], propagate=False)
        assert filled(result.data > 0, 2) == [4]
        assert result.report["propagated"] is False
        # Once as the box was drawn and, since it is loose, once more as the mask shows it.
        assert result.report["encoded_slices"] == 2

    def test_uncertainty_on_request(self):
        volume = bright_volume(BLOB)
        assert segmenter().segment(volume, [BOX]).uncertainty is None
        doubt = segmenter().segment(volume, [BOX], uncertainty=True).uncertainty
        assert doubt.shape == volume.shape
        assert doubt.dtype == np.float32
        assert 0 <= doubt.min() <= doubt.max() <= 1
        assert doubt[BLOB].mean() < 0.5

    def test_score_is_the_predicted_quality(self):
        assert segmenter().segment(bright_volume(BLOB), [BOX]).score == pytest.approx({1: 0.9})

    def test_progress_is_told(self):
        told = []
        segmenter().segment(bright_volume(BLOB), [BOX], progress=lambda *step: told.append(step))
        assert told
        assert all(0 <= done <= total for _, done, total in told)

    def test_prompts_may_come_from_a_generator_or_be_one_set(self):
        volume = bright_volume(BLOB)
        once = segmenter().segment(volume, (p for p in [BOX])).data
        np.testing.assert_array_equal(once, segmenter().segment(volume, ps.PromptSet([BOX])).data)
        assert dice(once > 0, BLOB) > 0.99


class TestWindow:
    def test_decides_what_is_bright(self):
        values = np.where(BLOB, 180, -100).astype(np.int16)
        volume = ps.Volume(values, np.eye(4), "CT")
        soft = segmenter().segment(volume, [BOX])
        bone = segmenter().segment(volume, [BOX], window="bone")
        assert (soft.report["window"]["name"], bone.report["window"]["name"]) == (
            "soft_tissue", "bone")  # fmt: skip
        assert dice(soft.data > 0, BLOB) > 0.99
        assert not bone.data.any()

    def test_unknown_is_refused_before_anything_is_encoded(self):
        backbone = BrightRegion()
        with pytest.raises(VolumeError, match="window 'moon' is unknown"):
            segmenter(backbone).segment(bright_volume(BLOB), [BOX], window="moon")
        assert backbone.encoded == 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("prompt", "words"),
        [
            (ps.Text("spleen"), "text 'spleen'"),
            (ps.Point((99, 1, 1)), "outside the volume"),
            (ps.Point((1, 1, 1), positive=False), "no foreground prompt"),
            ("a point", "use Point, Box, Scribble, Mask or Text"),
        ],
    )
    def test_prompts_that_cannot_be_used(self, prompt, words):
        backbone = BrightRegion()
        with pytest.raises(PromptError, match=words):
            segmenter(backbone).segment(bright_volume(BLOB), [prompt])
        assert backbone.encoded == 0

    def test_no_prompt(self):
        with pytest.raises(PromptError, match="there is no prompt"):
            segmenter().segment(bright_volume(BLOB), [])

    def test_device_and_precision(self):
        with pytest.raises(PromptsegError, match="device 'tpu' is unknown"):
            ps.Segmenter(BrightRegion(), device="tpu")
        with pytest.raises(PromptsegError, match="precision 'int4' is unknown"):
            ps.Segmenter(BrightRegion(), device="cpu", precision="int4")

    def test_a_name_is_no_backbone(self):
        with pytest.raises(WeightsError, match=r"'default'.*from_pretrained"):
            ps.Segmenter("default")

    @pytest.mark.parametrize("volume", ["ct.nii.gz", np.zeros((4, 4, 4))], ids=["path", "array"])
    def test_what_is_no_volume(self, volume):
        with pytest.raises(
            VolumeError, match=rf"{type(volume).__name__}: give what promptseg\.read"
        ):
            segmenter().segment(volume, [BOX])

    def test_unknown_model_and_adapter(self):
        with pytest.raises(WeightsError, match="no_such_model"):
            ps.Segmenter.from_pretrained("no_such_model")
        with pytest.raises(AdapterError, match="no_such_adapter"):
            ps.Segmenter.from_pretrained("default", adapter="no_such_adapter")

    def test_text_is_refused_with_a_real_network_too(self):
        with pytest.raises(PromptError, match="text 'spleen'"):
            segmenter(tiny_default()).segment(bright_volume(BLOB), [ps.Text("spleen")])


class TestOutOfMemory:
    def test_the_answer_is_the_same_in_smaller_batches(self):
        backbone = BrightRegion(fits=2)
        owner = segmenter(backbone, batch_size=8)
        found = owner.segment(bright_volume(BLOB), [BOX], consistency="none")
        assert max(backbone.batches) == 2
        np.testing.assert_array_equal(found.data > 0, BLOB)


@pytest.fixture(scope="module")
def answers():
    if weights.locate("default") is None:
        pytest.skip("weights/default.safetensors is not there")
    shape = (64, 64, 5)
    truth = discs(shape, 2, {n: (32, 30 + n, 14) for n in range(5)})
    noise = np.random.default_rng(0).normal(0, 6, shape)
    volume = ps.Volume((truth * 80 + 60 + noise).astype(np.float32), np.diag([1, 1, 5.0, 1]))
    box = ps.Box((18, 18, 2), (47, 47, 3))
    found = {
        precision: ps.Segmenter.from_pretrained(device="cpu", precision=precision)
        .segment(volume, [box])
        .data
        for precision in ("fp32", "bf16")
    }
    return truth, found


class TestDefaultModel:
    def test_follows_a_plain_disc(self, answers):
        truth, found = answers
        assert dice(found["fp32"] > 0, truth) > 0.9

    def test_half_precision_gives_the_same_mask(self, answers):
        _, found = answers
        assert dice(found["fp32"] > 0, found["bf16"] > 0) > 0.98


class TestNetwork:
    def test_is_on_its_device_and_in_evaluation(self):
        backbone = tiny_default()
        backbone.module.train()
        found = segmenter(backbone)
        assert found.device == torch.device("cpu")
        assert not backbone.module.training

    def test_a_folder_is_loaded_by_its_path(self, tmp_path):
        tiny_network().save_pretrained(tmp_path)
        found = ps.Segmenter.from_pretrained(tmp_path, device="cpu", precision="fp32", coarse=None)
        volume = bright_volume(BLOB)
        expected = segmenter(tiny_default(), step="auto").segment(volume, [BOX])
        np.testing.assert_array_equal(found.segment(volume, [BOX]).data, expected.data)
        assert len(found.backbone.spec.sha256) == 64

    def test_a_file_is_loaded_by_its_path(self, tmp_path):
        path = tmp_path / "mine.safetensors"
        save_default(tiny_network(), path, {})
        found = ps.Segmenter.from_pretrained(path, device="cpu", precision="fp32", coarse=None)
        assert found.backbone.spec.family == "promptseg"
        assert len(found.backbone.spec.sha256) == 64
        volume = bright_volume(BLOB)
        expected = segmenter(tiny_default(), step="auto").segment(volume, [BOX])
        np.testing.assert_array_equal(found.segment(volume, [BOX]).data, expected.data)

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_half_precision_runs_through(self, precision):
        result = segmenter(tiny_default(), precision=precision).segment(bright_volume(BLOB), [BOX])
        assert result.report["precision"] == precision
        assert np.isfinite(list(result.score.values())).all()
