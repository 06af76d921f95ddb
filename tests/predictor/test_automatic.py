import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, dice, discs

from promptseg.backbones.base import Decoded, Embedding, PromptBatch
from promptseg.inference.decoder import SliceMask
from promptseg.inference.labels import fuse_labels
from promptseg.predictor.automatic import (
    body_region,
    connected,
    find_targets,
    oversized,
    segment_unprompted,
)
from promptseg.predictor.engine import Engine

ONE = {1: torch.zeros(1)}


class Named(BrightRegion):
    """Where a token and no prompt is given: token 0 takes what is bright, token 1 what is grey."""

    def decode(
        self,
        embedding: Embedding,
        prompts: PromptBatch,
        multimask: bool = False,
        concept: torch.Tensor | None = None,
    ) -> Decoded:
        if concept is None:
            return super().decode(embedding, prompts, multimask)
        grey = embedding.features[0][:, 0].float()
        bright, middle = (grey > 0.75).float(), ((grey > 0.4) & (grey < 0.75)).float()
        mask = torch.where(concept[:, :1, None] > 0.5, middle, bright)
        found = mask.flatten(1).any(1).float()
        return Decoded((mask[:, None] - 0.5) * 16, torch.full((len(mask), 1), 0.9), found)


def engine(image: np.ndarray, axis: int = 2, **options) -> Engine:
    encoder = bright_encoder(image, Named(**options))
    return Engine(encoder, axis, np.ones(3))


def moving(count: int, first: int, last: int, radius: float = 9) -> np.ndarray:
    path = {n: (50 + n / 4, 60 - n / 3, radius) for n in range(first, last)}
    return discs((100, 110, count), 2, path)


class TestFinding:
    def test_slices_and_place(self):
        mask = moving(60, 20, 41)
        found = find_targets(engine(mask), ONE)[1]
        assert found.low <= 20
        assert found.high >= 41
        assert found.high - found.low < 30
        rows = np.flatnonzero(mask.any((1, 2)))
        assert found.region.rows[0] <= rows[0] + 2
        assert found.region.rows[1] >= rows[-1] - 1
        assert found.region.shape[0] < 40

    def test_thin_target_between_coarse_slices(self):
        assert find_targets(engine(moving(96, 41, 43)), ONE)[1].low <= 41

    def test_absent(self):
        assert find_targets(engine(np.zeros((64, 64, 12))), ONE) == {}

    def test_body_is_what_is_not_black(self):
        region = body_region(engine(moving(10, 2, 8)))
        assert region.shape[0] < 30
        assert body_region(engine(moving(10, 2, 8), crop=False)).shape == (100, 110)

    def test_largest_body_decides(self):
        mask = moving(40, 10, 30)
        mask |= discs(mask.shape, 2, {35: (10, 95, 5)})
        found = find_targets(engine(mask), ONE)[1]
        assert found.high <= 34
        assert found.region.cols[1] < 80


class TestSegmenting:
    @pytest.mark.parametrize("crop", [True, False])
    @pytest.mark.parametrize("family", ["promptseg", "sam"])
    def test_one_label(self, crop, family):
        mask = moving(40, 9, 31)
        whole = engine(mask, crop=crop, family=family)
        painted = fuse_labels(segment_unprompted(whole, ONE), whole.shape)
        assert dice(painted.labels == 1, mask) > (0.9 if crop else 0.85)
        assert painted.scores[1] == pytest.approx(0.9)

    def test_ends_are_followed_beyond_the_coarse_stretch(self):
        mask = moving(90, 10, 80)
        whole = engine(mask)
        painted = fuse_labels(segment_unprompted(whole, ONE), whole.shape)
        filled = np.flatnonzero((painted.labels > 0).any((0, 1)))
        assert (filled[0], filled[-1]) == (10, 79)

    def test_two_labels_and_one_that_is_nowhere(self):
        bright = moving(30, 5, 25)
        grey = discs((100, 110, 30), 2, dict.fromkeys(range(8, 20), (20, 20, 8)))
        whole = engine(np.where(bright, 1.0, np.where(grey, 0.6, 0.0)))
        tokens = {2: torch.zeros(1), 5: torch.ones(1)}
        painted = fuse_labels(segment_unprompted(whole, tokens), whole.shape)
        assert dice(painted.labels == 2, bright) > 0.9
        assert dice(painted.labels == 5, grey) > 0.85
        lonely = engine(bright.astype(float))
        painted = fuse_labels(segment_unprompted(lonely, tokens), lonely.shape)
        assert dice(painted.labels == 2, bright) > 0.9
        assert not (painted.labels == 5).any()
        assert painted.scores[5] == 0

    def test_nothing_there(self):
        whole = engine(np.zeros((64, 64, 12)))
        assert not fuse_labels(segment_unprompted(whole, ONE), whole.shape).labels.any()

    def test_same_answer_twice(self):
        mask = moving(30, 5, 25)
        first, second = (
            fuse_labels(segment_unprompted(whole, ONE), whole.shape).labels
            for whole in (engine(mask), engine(mask))
        )
        assert np.array_equal(first, second)

    def test_progress_arrives(self):
        seen = []
        segment_unprompted(engine(moving(30, 5, 25)), ONE, lambda *step: seen.append(step))
        for stage in ("find", "segment"):
            last = [step for step in seen if step[0] == stage][-1]
            assert last[1] == last[2] > 0


class TestConnected:
    def mask(self, *squares: tuple[int, int]) -> SliceMask:
        logits = torch.full((32, 32), -8.0)
        for corner, side in squares:
            logits[corner : corner + side, corner : corner + side] = 8
        return SliceMask(logits, 1.0)

    def test_small_strays_go_and_large_parts_stay(self):
        masks = {3: self.mask((2, 10), (20, 8), (30, 1)), 5: self.mask((2, 10))}
        kept = connected(masks, [3, 5])
        assert kept[3].area == 100 + 64
        assert kept[5].area == 100

    def test_slices_in_between_separate(self):
        masks = {1: self.mask((2, 3)), 3: self.mask((2, 10))}
        assert set(connected(masks, [1, 2, 3])) == {3}
        assert set(connected(masks, [1, 3])) == {1, 3}

    def test_nothing(self):
        assert connected({}, [1]) == {}
        assert connected({1: self.mask()}, [1]) == {}


class TestSections:
    """What is larger than any cross-section in training is something else."""

    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """A target of 2.5 cm² on thirteen slices, and above it a cyst of 28 cm²."""
        path = dict.fromkeys(range(24, 37), (50, 60, 9))
        target = discs((100, 110, 60), 2, path)
        return target, discs(target.shape, 2, dict.fromkeys(range(2, 20), (48, 58, 30)))

    @pytest.mark.parametrize("crop", [True, False])
    def test_a_cyst_is_left_out(self, crop):
        target, cyst = self.both()
        asked = engine(target | cyst, crop=crop)
        without = fuse_labels(segment_unprompted(asked, ONE), target.shape).labels > 0
        assert dice(without, cyst) > 0.9
        found = segment_unprompted(asked, ONE, sections={1: 2.6})
        assert dice(fuse_labels(found, target.shape).labels > 0, target) > 0.9

    def test_of_one_label_alone(self):
        target, cyst = self.both()
        tokens = {1: torch.zeros(1), 5: torch.zeros(1)}
        found = find_targets(engine(target | cyst), tokens, largest={5: 3.9})
        assert found[1].low < 20
        assert found[5].low >= 20

    def test_half_as_large_again_is_within(self):
        target, _ = self.both()
        found = segment_unprompted(engine(target), ONE, sections={1: 2.6 / 1.5})
        assert dice(fuse_labels(found, target.shape).labels > 0, target) > 0.9

    def test_nothing_else_is_there(self):
        """A larger organ than any in training is still found."""
        _, cyst = self.both()
        asked = engine(cyst)
        assert not find_targets(asked, ONE, largest={1: 3.0})[1].fits
        found = segment_unprompted(asked, ONE, sections={1: 2.0})
        assert dice(fuse_labels(found, cyst.shape).labels > 0, cyst) > 0.9

    def test_millimetres_count(self):
        target, cyst = self.both()
        fine = Engine(bright_encoder(target | cyst, Named()), 2, np.array([0.5, 0.5, 1.0]))
        assert find_targets(fine, ONE, largest={1: 7.5})[1].low < 20
        assert find_targets(fine, ONE, largest={1: 3.9})[1].low >= 20

    @pytest.mark.parametrize("times", [0.05, 1.0, 20.0])
    def test_images_of_mice_and_of_whole_bodies_too(self, times):
        """Such voxels are reckoned with as if they were larger or smaller: areas are not."""
        target, cyst = self.both()
        asked = Engine(bright_encoder(target | cyst, Named()), 2, times * np.ones(3))
        found = segment_unprompted(asked, ONE, sections={1: 2.6 * times**2})
        labels = fuse_labels(found, target.shape).labels
        assert dice(labels > 0, target) > 0.9
        assert oversized(asked, labels, {1: 2.6 * times**2}) == {}

    def test_what_is_larger_all_the_same_is_named(self):
        _, cyst = self.both()
        asked = engine(cyst)
        found = fuse_labels(segment_unprompted(asked, ONE, sections={1: 2.0}), cyst.shape).labels
        ((area, known),) = oversized(asked, found, {1: 2.0}).values()
        assert (area, known) == (pytest.approx(28, abs=1.5), 2.0)

    def test_what_is_not_connected_is_not_followed(self):
        """The smaller body beyond the found one is not run into."""
        target = discs((100, 110, 60), 2, dict.fromkeys(range(20, 50), (50, 60, 9)))
        beside = discs(target.shape, 2, dict.fromkeys(range(0, 20), (50, 88, 8)))
        found = segment_unprompted(engine(target | beside), ONE)
        answer = fuse_labels(found, target.shape).labels > 0
        assert not answer[:, :, :17].any()
