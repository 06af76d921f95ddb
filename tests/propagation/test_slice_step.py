"""The trained step from slice to slice: what it is told, its file, and what a track makes of it."""

import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, bright_volume, discs, segmenter, tiny_network
from tracks_kit import ALONG, FRAME, TUBE, click, disc

import promptseg as ps
from promptseg.backbones.base import Embedding
from promptseg.errors import WeightsError
from promptseg.inference.decoder import SliceDecoder, SliceMask
from promptseg.propagation.coarse import save_coarse
from promptseg.propagation.coarse_network import CoarseNetwork
from promptseg.propagation.slice_step import SURE, Place, SliceStep, load_step, save_step, together
from promptseg.propagation.step_network import (
    AWAY,
    CHANNELS,
    GREY,
    KEY,
    KEY_AWAY,
    KEY_GREY,
    NEIGHBOUR,
    NEIGHBOUR_GREY,
    StepNetwork,
    step_maps,
)
from promptseg.propagation.track import Track, TrackState
from promptseg.propagation.tracker import Tracker

SIDE = 32


@pytest.fixture
def base():
    return tiny_network()


@pytest.fixture
def network(base):
    return StepNetwork.begun(base).eval()


def random_places(count):
    torch.manual_seed(1)
    grey, key, lead = torch.rand(3, count, SIDE, SIDE)
    logits = torch.randn(2, count, SIDE, SIDE) * 4
    return [
        Place(grey[n], (logits[0, n], lead[n]), (logits[1, n], key[n]), (0.02 * n, 0.05 * n))
        for n in range(count)
    ]


class TestMaps:
    def test_every_channel_says_what_it_is_named_for(self):
        grey, lead, key = (torch.full((1, 4, 4), v) for v in (0.5, 0.25, 1.0))
        before, prompted = torch.full((1, 4, 4), 100.0), torch.full((1, 4, 4), -100.0)
        maps = step_maps(grey, (before, lead), (prompted, key), [(0.03, 0.2)])
        assert maps.shape == (1, CHANNELS, 4, 4)
        means = maps.mean((0, 2, 3)).tolist()
        told = {NEIGHBOUR: 1.0, NEIGHBOUR_GREY: -0.5, GREY: 0.0, KEY: -1.0, KEY_GREY: 1.0,
                AWAY: 0.3, KEY_AWAY: 0.4}  # fmt: skip
        assert means == pytest.approx([told[n] for n in range(CHANNELS)], abs=1e-6)

    def test_a_far_key_slice_says_no_more_than_far(self):
        zero = torch.zeros(1, 4, 4)
        near, far = (step_maps(zero, (zero, zero), (zero, zero), [(d, d)]) for d in (3.0, 300.0))
        torch.testing.assert_close(near, far)


class TestNetwork:
    def test_a_batch_is_what_each_slice_gives_alone(self, base, network):
        step = SliceStep(network, None)
        with torch.no_grad():
            embedding = Embedding(base.encode(torch.rand(5, 3, 64, 64)))
        places = random_places(5)
        whole = step.answers(embedding, places, "fp32", batch_size=3)
        for n, place in enumerate(places):
            alone = step.answers(embedding[[n]], [place], "fp32")[0]
            torch.testing.assert_close(whole[n].logits, alone.logits)
            assert whole[n].quality == pytest.approx(alone.quality)
            assert whole[n].presence == pytest.approx(alone.presence)

    def test_it_begins_as_the_network_that_it_is_made_from(self, base, network):
        torch.testing.assert_close(
            network.mask_decoder.to_half.mix[0].weight, base.mask_decoder.to_half.mix[0].weight
        )
        first = network.prompt_encoder.stride2[0].weight
        assert first[:, NEIGHBOUR].abs().sum() > 0
        assert first[:, NEIGHBOUR + 1 :].abs().sum() == 0

    def test_names_that_the_base_knows_are_left_out(self):
        named = StepNetwork.begun(tiny_network(names=("liver", "spleen")))
        assert named.mask_decoder.names is None


class TestFile:
    def test_what_is_written_is_read(self, network, tmp_path):
        path = tmp_path / "step.safetensors"
        save_step(network, "a" * 64, path, {"steps": "7"})
        again = load_step(path)
        assert (again.base, len(again.sha256)) == ("a" * 64, 64)
        for name, value in again.network.state_dict().items():
            torch.testing.assert_close(value, network.state_dict()[name], atol=2e-3, rtol=2e-3)

    def test_another_file_is_refused(self, tmp_path):
        path = tmp_path / "coarse.safetensors"
        small = CoarseNetwork(3, (8, 16), groups=4)
        save_coarse(small, path, {})
        with pytest.raises(WeightsError, match="no slice step of version 1"):
            load_step(path)

    def test_one_of_another_model_is_not_used_and_refused_where_it_was_asked_for(
        self, network, tmp_path
    ):
        path = tmp_path / "step.safetensors"
        save_step(network, "a" * 64, path, {})
        with pytest.raises(WeightsError, match=f"belongs to the model with sha256 {'a' * 64}"):
            _ = segmenter(BrightRegion(), step=path).runtime.step
        assert segmenter(BrightRegion(), step="auto").runtime.step is None
        assert segmenter(BrightRegion(name="a" * 64), step=path).runtime.step is not None


class TestTogether:
    def test_the_mean_of_both_once_either_is_sure(self):
        a, b = disc(8, quality=0.9, presence=1.0), disc(4, quality=0.5, presence=0.6)
        both = together(a, b)
        assert (both.quality, both.presence) == (0.9, 1.0)
        assert both.logits.max() == SURE
        inside = both.logits >= 0
        torch.testing.assert_close(inside, a.logits > 0)

    def test_a_very_sure_answer_has_no_more_say(self):
        a, b = disc(8), disc(8)
        loud = together(disc(8), ps_negated(b, 1000.0))
        assert (loud.logits == together(a, ps_negated(b, 1.0)).logits).all()


def ps_negated(mask, times):
    return type(mask)(-mask.logits * times, mask.quality, mask.presence)


class Recorder(SliceStep):
    """Answers what it is told to, by slices from the key slice on, and keeps what it was told."""

    def __init__(self, made=None):
        super().__init__(torch.nn.Identity(), None, "r" * 64)
        self.places, self.made = [], made

    def answers(self, embedding, places, precision, batch_size=16):
        self.places += places
        assert len(embedding) == len(places)
        return [self.made or disc(12, size=64) for _ in places]


def tracker(step, image=TUBE, criteria=None):
    decoder = SliceDecoder(bright_encoder(image))
    return Tracker(decoder, FRAME, criteria, learned=step)


def propagated(tracker, start=6):
    key = tracker.answer(start, click(start))
    return tracker.propagate({1: {start: key}}, {1: (0, 16)})[1]


class TestTracks:
    def test_it_is_told_how_far_both_slices_are(self):
        step = Recorder()
        propagated(tracker(step))
        side = 32.0
        down = [p.away for p in step.places[:2]]
        assert {tuple(np.round(np.multiply(a, side), 4)) for a in down} == {(1.0, 1.0)}
        far = max(p.away[1] for p in step.places)
        assert far * side > 5

    def test_it_sees_the_slice_itself_and_the_key_slice(self):
        step, held = Recorder(), discs((32, 32, 16), 2, dict.fromkeys(ALONG, (15, 15, 6)))
        propagated(tracker(step, held))
        first = step.places[0]
        assert first.grey.shape == first.neighbour[0].shape == (64, 64)
        torch.testing.assert_close(first.key[1], tracker(step, held).steps._greys.of(6))

    def test_without_it_the_network_is_asked_alone(self):
        found = propagated(tracker(None))
        assert set(found) == set(ALONG)

    def test_one_that_is_sure_that_nothing_is_there_ends_a_track(self):
        gone = SliceMask(torch.full((64, 64), -8.0), 0.0, 0.0)
        found = propagated(tracker(Recorder(gone)))
        assert set(found) == {6}

    def test_from_a_corrected_slice_it_goes_alone(self):
        step = Recorder(disc(12, size=64))
        track = tracker(step)
        first = propagated(track)
        asked = track.decoder.decoded
        assert asked > len(step.places) > 0
        moved = disc(20, size=64)
        found = track.correct(first, {6: moved}, 1, 6, {1: (0, 16)})
        assert track.decoder.decoded == asked
        torch.testing.assert_close(found[7].logits, disc(12, size=64).logits)

    def test_beside_a_correction_a_first_track_is_what_it_is_alone(self):
        step = Recorder(disc(12, size=64))
        track = tracker(step)
        key = track.answer(6, click(6))
        states = [
            TrackState(Track(n, 6, 1, 16), 7, key.logits, before=before)
            for n, before in ((1, {}), (2, None))
        ]
        embedding = track.decoder.encoder.embed(FRAME, [7, 7])
        corrected, own = track.steps._answers(embedding, states)
        (alone,) = track.steps._answers(embedding[[1]], states[1:])
        torch.testing.assert_close(own.logits, alone.logits)
        torch.testing.assert_close(corrected.logits, disc(12, size=64).logits)


class TestReport:
    def test_it_says_which_step_went_through_the_slices(self):
        image = discs((96, 96, 12), 2, dict.fromkeys(range(4, 8), (40, 40, 5)))
        step = Recorder(disc(6, size=64))
        whole = segmenter(BrightRegion(crop=True), step=step)
        box = ps.Box((35, 35, 5), (46, 46, 6))
        found = whole.segment(bright_volume(image), [box])
        assert found.report["step"] == "r" * 64
        plain = whole.segment(bright_volume(image), [box], consistency="none")
        assert plain.report["step"] is None
