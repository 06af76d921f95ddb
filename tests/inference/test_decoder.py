import dataclasses

import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, discs, ragged_prompts, tiny_default, tiny_sam

from promptseg.backbones.base import Decoded, Embedding, PixelPrompts
from promptseg.backbones.memory import Recollection
from promptseg.errors import PromptsegError
from promptseg.inference.decoder import Request, SliceDecoder, SliceMask, best_candidates
from promptseg.inference.encoder import SliceEncoder
from promptseg.volume.slicing import Frame, Region

SHAPE = (32, 32, 8)
FRAME = Frame(2, Region((0, 32), (0, 32)), SHAPE, (1.0, 1.0, 1.0), 64)
TWO = discs(SHAPE, 2, {3: (10, 10, 4)}) | discs(SHAPE, 2, {3: (24, 24, 4), 5: (24, 24, 4)})


def click(x, y, label=1):
    return PixelPrompts(torch.tensor([[x, y]], dtype=torch.float32), torch.tensor([label]))


def shown(answer):
    """Voxels of an answer in the frame's region."""
    return FRAME.restore(answer.logits[None])[0].numpy() > 0


class TestRaggedBatch:
    @pytest.mark.parametrize("build", [tiny_default, tiny_sam])
    @pytest.mark.parametrize("ambiguous", [False, True])
    def test_equals_one_by_one(self, build, ambiguous):
        data = np.random.default_rng(0).random(SHAPE, np.float32)
        encoder = SliceEncoder(build(), data, "noise", torch.device("cpu"), "fp32")
        decoder = SliceDecoder(encoder, batch_size=3)
        requests = [Request(n, p, ambiguous) for n, p in enumerate(ragged_prompts())]
        together = decoder.decode(FRAME, requests)
        for request, answer in zip(requests, together, strict=True):
            alone = decoder.decode(FRAME, [request])[0]
            torch.testing.assert_close(answer.logits, alone.logits, rtol=0, atol=2e-5)
            assert answer.quality == pytest.approx(alone.quality, abs=1e-5)
            assert answer.presence == pytest.approx(alone.presence, abs=1e-5)

    @pytest.mark.parametrize("build", [tiny_default, tiny_sam])
    def test_prompts_decide_the_answer(self, build):
        data = np.random.default_rng(0).random(SHAPE, np.float32)
        encoder = SliceEncoder(build(), data, "noise", torch.device("cpu"), "fp32")
        answers = SliceDecoder(encoder).decode(FRAME, [Request(2, p) for p in ragged_prompts()])
        distances = [
            float((a.logits - b.logits).abs().max())
            for n, a in enumerate(answers)
            for b in answers[:n]
        ]
        assert min(distances) > 1e-3


class TestOrder:
    def test_answers_come_in_the_order_of_the_requests(self):
        decoder = SliceDecoder(bright_encoder(TWO), batch_size=2)
        requests = [
            Request(3, click(20, 20)),
            Request(3, click(48, 48), ambiguous=True),
            Request(5, click(20, 20)),
            Request(5, click(48, 48)),
            Request(3, click(48, 48)),
        ]
        answers = decoder.decode(FRAME, requests)
        first, second = discs(SHAPE, 2, {3: (10, 10, 4)}), discs(SHAPE, 2, {3: (24, 24, 4)})
        np.testing.assert_array_equal(shown(answers[0]), first[:, :, 3])
        for number in (1, 3, 4):
            np.testing.assert_array_equal(shown(answers[number]), second[:, :, 3])
        assert answers[2].area == 0
        assert decoder.decoded == 5

    def test_nothing_asked_nothing_answered(self):
        assert SliceDecoder(bright_encoder(TWO)).decode(FRAME, []) == []


class TestCandidates:
    def test_ambiguous_requests_take_the_most_trusted_of_three(self):
        decoder = SliceDecoder(bright_encoder(TWO))
        clear, open_ = decoder.decode(
            FRAME, [Request(3, click(20, 20)), Request(3, click(20, 20), ambiguous=True)]
        )
        assert torch.equal(clear.logits, open_.logits)
        assert open_.quality == pytest.approx(0.9)

    def test_each_row_chooses_for_itself(self):
        logits = torch.arange(6.0).reshape(2, 3, 1, 1).expand(2, 3, 4, 4)
        quality = torch.tensor([[0.1, 0.2, 0.9], [0.8, 0.3, 0.2]])
        found = best_candidates(Decoded(logits, quality, torch.tensor([0.25, 0.75])))
        assert [float(m.logits[0, 0]) for m in found] == [2.0, 3.0]
        assert [m.presence for m in found] == [0.25, 0.75]

    def test_presence_is_certain_where_it_is_not_predicted(self):
        decoded = Decoded(torch.zeros(1, 1, 4, 4), torch.ones(1, 1))
        assert best_candidates(decoded)[0].presence == 1.0

    def test_pointers_go_with_their_masks(self):
        quality = torch.tensor([[0.2, 0.9], [0.8, 0.1]])
        decoded = Decoded(torch.zeros(2, 2, 4, 4), quality, pointer=torch.eye(4).view(2, 2, 4))
        found = [int(mask.pointer.argmax()) for mask in best_candidates(decoded)]
        assert found == [1, 2]
        assert best_candidates(dataclasses.replace(decoded, pointer=None))[0].pointer is None


class TestMemory:
    def test_a_network_without_one_says_so(self):
        decoder = SliceDecoder(bright_encoder(TWO))
        request = Request(3, PixelPrompts(), memory=Recollection((), ()))
        with pytest.raises(PromptsegError, match="bright has no memory"):
            decoder.decode(FRAME, [request])
        embedding = decoder.encoder.embed(FRAME, [3])
        with pytest.raises(PromptsegError, match="bright has no memory"):
            decoder.remember(embedding, [SliceMask(torch.zeros(64, 64), 0.5)])

    def test_requests_of_one_kind_recall_as_much(self):
        some = Recollection(((torch.zeros(1, 2, 4, 4), 0),), ((torch.zeros(1, 8), 1),))
        plain, remembering = Request(3, PixelPrompts()), Request(3, PixelPrompts(), memory=some)
        assert remembering.kind == dataclasses.replace(remembering, index=5).kind
        assert len({plain.kind, remembering.kind, Request(3, PixelPrompts(), True).kind}) == 3


class TestAnswer:
    def test_area_counts_pixels_above_zero(self):
        logits = torch.full((8, 8), -1.0)
        logits[2:4, 3:6] = 0.5
        logits[7, 7] = 0.0
        assert SliceMask(logits, 0.5).area == 6

    def test_answers_are_float32_on_the_cpu_whatever_the_precision(self):
        encoder = SliceEncoder(
            tiny_default(), np.zeros(SHAPE, np.float32), "zero", torch.device("cpu"), "bf16"
        )
        answer = SliceDecoder(encoder).decode(FRAME, [Request(1, click(20, 20))])[0]
        assert answer.logits.dtype == torch.float32
        assert not answer.logits.requires_grad

    def test_answers_of_a_batch_share_no_memory(self):
        decoder = SliceDecoder(bright_encoder(TWO))
        answers = decoder.decode(FRAME, [Request(3, click(20, 20)), Request(3, click(48, 48))])
        before = answers[1].logits.clone()
        answers[0].logits.fill_(1)
        assert torch.equal(answers[1].logits, before)

    def test_embedding_rows_meet_their_requests(self):
        backbone = BrightRegion()
        decoder = SliceDecoder(bright_encoder(TWO, backbone))
        grey = torch.zeros(2, 1, 64, 64)
        grey[1, 0, 20:30, 20:30] = 1
        requests = [Request(0, click(25, 25)), Request(0, click(25, 25))]
        answers = decoder.decode_embedded(Embedding((grey,)), requests)
        assert [a.area for a in answers] == [0, 100]
        assert dataclasses.asdict(backbone.spec)["mask_size"] == 64


class TestOutOfMemory:
    def requests(self):
        return [Request(n, click(16 + 2 * n, 20)) for n in range(6)]

    def decoder(self, fits, error=None):
        class Small(BrightRegion):
            def decode(self, embedding, prompts, multimask=False):
                if len(prompts) > fits:
                    raise error or torch.OutOfMemoryError(f"{len(prompts)} masks")
                return super().decode(embedding, prompts, multimask)

        return SliceDecoder(bright_encoder(TWO, Small()), batch_size=6)

    def test_halves_the_batch_and_gives_the_same(self):
        decoder = self.decoder(fits=2)
        found = decoder.decode(FRAME, self.requests())
        expected = self.decoder(fits=6).decode(FRAME, self.requests())
        assert len(found) == len(expected) == 6
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one.logits, other.logits)
        assert decoder.batch_size == 1
        assert decoder.decoded == 6

    def test_one_mask_that_does_not_fit_is_an_error(self):
        with pytest.raises(PromptsegError, match="one mask does not fit"):
            self.decoder(fits=0).decode(FRAME, self.requests())

    def test_other_errors_are_not_hidden(self):
        with pytest.raises(RuntimeError, match="broken"):
            self.decoder(2, RuntimeError("broken")).decode(FRAME, self.requests())
