from __future__ import annotations

import numpy as np
import pytest
import torch
from clip_kit import save_plain_folder
from shape_kit import BAR, DISC, SHAPE, ShapeModel
from support import BrightRegion, bright_encoder, dice, discs, tiny_sam

from promptseg.errors import PromptError
from promptseg.inference.crop import frame_of, whole_slice
from promptseg.inference.labels import fuse_labels
from promptseg.predictor.engine import Engine
from promptseg.prompts.types import PromptSet
from promptseg.text.proposal_masks import MaskRules, automatic_masks, distinct, grid_points
from promptseg.text.proposal_scores import Scorer, mask_pictures
from promptseg.text.proposals import Proposal, Refused, propose, propose_in_volume
from promptseg.text.proposals import checked_names as names_of

RULES = MaskRules(grid=8)


def engine_of(mask=DISC | BAR, backbone=None, spacing=(1.0, 1.0, 2.0), **options):
    return Engine(bright_encoder(mask, backbone, **options), 2, np.array(spacing))


def frame_in(engine):
    return frame_of(engine.encoder, 2, whole_slice(engine.encoder, 2), engine.spacing)


class TestAutomaticMasks:
    def test_finds_each_shape_once(self):
        engine = engine_of()
        found = automatic_masks(engine.decoder, frame_in(engine), 5, RULES)
        assert len(found) == 2
        assert max(dice(one.mask, DISC[..., 5]) for one in found) > 0.9
        assert max(dice(one.mask, BAR[..., 5]) for one in found) > 0.9

    def test_nothing_on_an_empty_slice(self):
        engine = engine_of()
        assert automatic_masks(engine.decoder, frame_in(engine), 0, RULES) == []

    @pytest.mark.parametrize("name", ["quality", "stability"])
    def test_untrusted_masks_go(self, name):
        engine = engine_of()
        rules = MaskRules(grid=8, **{name: 0.95, "offset": 3.0})
        assert automatic_masks(engine.decoder, frame_in(engine), 5, rules) == []

    def test_masks_of_other_sizes_go(self):
        engine = engine_of()
        middle = int(DISC[..., 3].sum() + BAR[..., 3].sum()) // 2
        frame, share = frame_in(engine), middle / (40 * 44)
        big = automatic_masks(engine.decoder, frame, 3, MaskRules(8, least_voxels=middle))
        little = automatic_masks(engine.decoder, frame, 3, MaskRules(8, most_share=share))
        assert [dice(one.mask, BAR[..., 3]) > 0.9 for one in big] == [True]
        assert [dice(one.mask, DISC[..., 3]) > 0.9 for one in little] == [True]

    def test_batched_is_one_by_one(self):
        every = MaskRules(6, quality=0, stability=0, overlap=0.95, least_voxels=1, most_share=1)
        answers = []
        for batch in (1, 16):
            image = np.random.default_rng(0).random(SHAPE) > 0.5
            engine = engine_of(image, tiny_sam(3))
            engine.decoder.batch_size = batch
            answers.append(automatic_masks(engine.decoder, frame_in(engine), 4, every))
        alone, together = answers
        assert len(alone) == len(together) > 2
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one.mask, other.mask)
            assert one.quality == pytest.approx(other.quality, abs=1e-5)

    def test_one_call_of_the_network_a_batch(self):
        backbone = BrightRegion()
        engine = engine_of(backbone=backbone)
        engine.decoder.batch_size = 25
        automatic_masks(engine.decoder, frame_in(engine), 5, RULES)
        clicks = len(grid_points(frame_in(engine), 8))
        assert [len(batch) for batch in backbone.asked] == [25] * (clicks // 25) + [clicks % 25]
        assert backbone.encoded == 1

    def test_clicks_cover_the_view_and_nothing_else(self):
        engine = engine_of(spacing=(1.0, 2.0, 2.0))
        frame = frame_in(engine)
        points, (height, width) = grid_points(frame, 16), frame.valid
        x, y = np.unique(points[:, 0]), np.unique(points[:, 1])
        assert len(points) == len(x) * len(y) == 16 * 7
        assert 0 < x[0] < x[-1] < width
        assert 0 < y[0] < y[-1] < height
        np.testing.assert_allclose(np.diff(x), width / 16)

    def test_padding_is_no_mask(self):
        engine = engine_of(np.ones((20, 64, 3), bool), tiny_sam(1))
        every = MaskRules(6, quality=0, stability=0, overlap=1, least_voxels=1, most_share=1)
        found = automatic_masks(engine.decoder, frame_in(engine), 1, every)
        assert all(one.mask.shape == (20, 64) for one in found)

    @pytest.mark.parametrize("wrong", [{"grid": 0}, {"quality": float("nan")}, {"overlap": -1}])
    def test_rules_are_checked(self, wrong):
        with pytest.raises(PromptError, match=next(iter(wrong))):
            MaskRules(**wrong)


class TestDistinct:
    def test_no_two_overlap_and_what_goes_is_repeated(self):
        blobs = torch.from_numpy(np.random.default_rng(0).random((60, 40)) > 0.3)
        kept = distinct(blobs, 0.6).tolist()

        def overlap(a, b):
            return int((blobs[a] & blobs[b]).sum()) / int((blobs[a] | blobs[b]).sum())

        assert 1 < len(kept) < 60
        assert all(overlap(a, b) <= 0.6 for a in kept for b in kept if a != b)
        for row in set(range(60)) - set(kept):
            assert any(overlap(row, better) > 0.6 for better in kept if better < row)

    def test_of_nothing(self):
        assert len(distinct(torch.zeros(0, 5, dtype=torch.bool), 0.5)) == 0


class TestPropose:
    @pytest.mark.parametrize(("words", "truth"), [("the disc", DISC), ("long bar", BAR)])
    def test_words_choose_the_mask(self, words, truth):
        found = propose(engine_of(), 5, words, Scorer(ShapeModel()), rules=RULES)
        assert isinstance(found, Proposal)
        assert dice(found.mask, truth[..., 5]) > 0.9
        assert found.score > 0.9
        assert (found.axis, found.index, found.candidates) == (2, 5, 2)

    def test_a_thing_that_is_not_there_is_refused(self):
        found = propose(engine_of(DISC), 5, "bar", Scorer(ShapeModel()), rules=RULES)
        assert isinstance(found, Refused)
        assert found.score < 0.5
        assert found.candidates == 1
        assert "'bar'" in found.reason
        assert "slice 5" in found.reason

    def test_an_empty_slice_is_refused(self):
        found = propose(engine_of(), 0, "disc", Scorer(ShapeModel()), rules=RULES)
        assert isinstance(found, Refused)
        assert "no mask on slice 0" in found.reason

    def test_the_threshold_decides(self):
        model = ShapeModel()
        model.scale = 1.5
        answers = [
            propose(engine_of(), 5, "disc", Scorer(model), threshold, RULES)
            for threshold in (0.0, 0.3, 0.9)
        ]
        score = answers[0].score
        assert 0.3 < score < 0.9
        assert [type(one) for one in answers] == [Proposal, Proposal, Refused]
        assert f"{score:.2f}" in answers[2].reason

    def test_scores_that_are_no_numbers_are_refused(self):
        model = ShapeModel()
        model.scale = float("nan")
        assert isinstance(propose(engine_of(), 5, "disc", Scorer(model), rules=RULES), Refused)

    @pytest.mark.parametrize(
        ("index", "words", "threshold", "named"),
        [(9, "disc", 0.5, "slice 9"), (5, " ", 0.5, "words"), (5, [], 0.5, "words"),
         (5, "disc", 1.5, "1.5")],
    )  # fmt: skip
    def test_mistakes_are_named(self, index, words, threshold, named):
        with pytest.raises(PromptError, match=named):
            propose(engine_of(), index, words, Scorer(ShapeModel()), threshold, RULES)

    def test_contrasts_must_differ_from_the_words(self):
        with pytest.raises(PromptError, match="contrasts"):
            propose(engine_of(), 5, "Disc", Scorer(ShapeModel()), rules=RULES, contrasts=["disc "])

    def test_names_are_tidied(self):
        assert names_of([" left  atrium", "LA"]) == ("left atrium", "LA")

    def test_a_real_image_text_model_answers(self, tmp_path):
        from promptseg.text.clip import load_clip

        save_plain_folder(tmp_path / "clip")
        scorer = Scorer(load_clip(tmp_path / "clip", device="cpu"), "MR")
        found = propose(engine_of(), 5, "left atrium", scorer, threshold=0.0, rules=RULES)
        assert isinstance(found, Proposal)
        assert 0 < found.score < 1


class TestCaching:
    def test_the_same_question_encodes_nothing(self):
        model, backbone = ShapeModel(), BrightRegion()
        engine, scorer = engine_of(backbone=backbone), Scorer(model)
        first = propose(engine, 5, "disc", scorer, rules=RULES)
        seen = len(model.pictures), len(model.texts), backbone.encoded
        again = propose(engine, 5, "disc", scorer, rules=RULES)
        assert (len(model.pictures), len(model.texts), backbone.encoded) == seen
        assert again.score == first.score
        np.testing.assert_array_equal(again.mask, first.mask)

    def test_other_words_encode_only_themselves(self):
        model = ShapeModel()
        engine, scorer = engine_of(), Scorer(model)
        propose(engine, 5, "disc", scorer, rules=RULES)
        pictures, texts = len(model.pictures), len(model.texts)
        propose(engine, 5, "bar", scorer, rules=RULES)
        assert len(model.pictures) == pictures == 4
        assert model.texts[texts:] == [sentence.format("bar") for sentence in scorer.templates]

    def test_the_same_picture_twice_is_encoded_once(self):
        model = ShapeModel()
        picture = np.random.default_rng(0).random((8, 8)).astype(np.float32)
        vectors = Scorer(model).images([picture, picture.copy(), picture * 0])
        assert len(model.pictures) == 2
        np.testing.assert_array_equal(vectors[0], vectors[1])

    def test_old_vectors_make_room(self):
        model = ShapeModel()
        scorer = Scorer(model, held=3)
        pictures = [np.full((4, 4), level, np.float32) for level in np.linspace(0, 1, 6)]
        assert len(scorer.images(pictures)) == 6
        scorer.images(pictures[3:])
        assert len(model.pictures) == 6
        scorer.images(pictures[:1])
        assert len(model.pictures) == 7

    def test_scores_do_not_depend_on_the_company(self):
        engine, scorer = engine_of(), Scorer(ShapeModel())
        shown = np.stack(
            [mask_pictures(engine, 5, mask[..., 5], 48) for mask in (DISC, BAR, DISC | BAR)]
        )
        together = scorer.score(shown, ["bar"])
        alone = [Scorer(ShapeModel()).score(one[None], ["bar"])[0] for one in shown]
        np.testing.assert_allclose(together, alone)
        assert together[1] > 0.9 > 0.3 > together[0]


class TestPictures:
    def test_shown_in_its_surroundings_and_alone(self):
        near = DISC | discs(SHAPE, 2, {5: (10, 19, 2)})
        seen, alone = mask_pictures(engine_of(near), 5, DISC[..., 5], 64)
        assert seen.shape == alone.shape == (64, 64)
        assert (seen > 0.5).sum() > (alone > 0.5).sum()
        assert np.all(alone <= seen + 1e-6)

    def test_square_in_millimetres(self):
        tall = np.zeros((40, 20, 3), bool)
        tall[10:30, 5:15] = True
        _, alone = mask_pictures(engine_of(tall, spacing=(1.0, 2.0, 1.0)), 1, tall[..., 1], 70)
        rows, cols = np.flatnonzero(alone.any(1)), np.flatnonzero(alone.any(0))
        assert abs(np.ptp(rows) - np.ptp(cols)) <= 3


class TestProposeInVolume:
    def test_the_largest_of_the_likely_slices_is_propagated(self):
        engine = engine_of()
        found = propose_in_volume(engine, "disc", Scorer(ShapeModel()), every=1, rules=RULES)
        assert isinstance(found, Proposal)
        assert found.index == 7
        answered = engine.run(PromptSet([found.prompt(3)]))
        labels = fuse_labels(answered, engine.shape).labels
        assert dice(labels == 3, DISC) > 0.9

    def test_every_second_slice(self):
        seen = []
        found = propose_in_volume(
            engine_of(), "bar", Scorer(ShapeModel()), every=2, rules=RULES,
            progress=lambda *now: seen.append(now) if now[0] == "propose" else None,
        )  # fmt: skip
        assert isinstance(found, Proposal)
        assert found.index in (3, 5)
        assert seen == [("propose", n, 4) for n in range(1, 5)]

    def test_absent_everywhere_is_refused(self):
        found = propose_in_volume(engine_of(DISC), "bar", Scorer(ShapeModel()), rules=RULES)
        assert isinstance(found, Refused)
        assert "9 slices" in found.reason

    def test_slices_are_encoded_in_batches(self):
        backbone = BrightRegion()
        engine = engine_of(backbone=backbone, batch_size=4)
        propose_in_volume(engine, "bar", Scorer(ShapeModel()), every=1, rules=RULES)
        assert backbone.batches == [4, 4, 1]

    @pytest.mark.parametrize("every", [0, -2])
    def test_every_no_slice_is_a_mistake(self, every):
        with pytest.raises(PromptError, match="every"):
            propose_in_volume(engine_of(), "bar", Scorer(ShapeModel()), every=every)
