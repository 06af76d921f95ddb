import math

import pytest
import torch
from support import ragged_prompts

from promptseg.backbones.base import PixelPrompts, PromptBatch
from promptseg.backbones.prompt_maps import (
    BOX,
    HAS_BOX,
    HAS_CLICK,
    HAS_MASK,
    MASK,
    NEGATIVE,
    POSITIVE,
    named_maps,
    prompt_maps,
)

SIZE, HALF = 64, 32


def draw(*prompts):
    return prompt_maps(PromptBatch.collate(prompts, SIZE, HALF), SIZE)


def clicks(*points, labels):
    return PixelPrompts(torch.tensor(points, dtype=torch.float32), torch.tensor(labels))


class TestClicks:
    def test_peak_at_the_point_in_the_channel_of_its_sign(self):
        (maps,) = draw(clicks((21, 41), (51, 11), labels=[1, 0]))
        assert maps.shape == (7, HALF, HALF)
        for channel, (x, y) in ((POSITIVE, (10, 20)), (NEGATIVE, (25, 5))):
            assert divmod(int(maps[channel].argmax()), HALF) == (y, x)
            assert maps[channel].max() == pytest.approx(1.0, abs=1e-6)
        assert maps[POSITIVE, 5, 25] < 1e-6

    def test_near_clicks_do_not_add_up(self):
        (maps,) = draw(clicks((20, 20), (22, 20), (20, 22), labels=[1, 1, 1]))
        assert maps[POSITIVE].max() <= 1

    def test_flag_says_that_there_are_some(self):
        assert draw(clicks((20, 20), labels=[0]))[0, HAS_CLICK].min() == 1
        assert draw(PixelPrompts(box=torch.tensor([1.0, 2, 30, 40])))[0, HAS_CLICK].max() == 0

    def test_order_does_not_matter(self):
        one = draw(clicks((20, 20), (40, 30), (50, 5), labels=[1, 0, 1]))
        other = draw(clicks((50, 5), (20, 20), (40, 30), labels=[1, 1, 0]))
        assert torch.equal(one, other)


class TestStrokes:
    def test_thin_strokes_stay_visible_at_half_size(self):
        strokes = torch.zeros(2, SIZE, SIZE)
        strokes[0, 21, 10:50], strokes[1, 40:60, 33] = 1, 1
        (maps,) = draw(PixelPrompts(scribbles=strokes))
        assert maps[POSITIVE, 10, 5:25].min() == 1
        assert maps[NEGATIVE, 20:30, 16].min() == 1
        assert maps[HAS_CLICK].min() == 1
        assert maps[POSITIVE].sum() == 20


class TestBox:
    def test_share_of_each_pixel_inside(self):
        (maps,) = draw(PixelPrompts(box=torch.tensor([10.0, 21.0, 30.0, 40.0])))
        assert maps[BOX, 11:20, 5:15].min() == 1
        assert torch.all(maps[BOX, 10, 5:15] == 0.5)
        assert maps[BOX].sum() == pytest.approx(10 * 9.5)
        assert maps[HAS_BOX].min() == 1

    def test_none_is_empty_and_says_so(self):
        maps = draw(clicks((20, 20), labels=[1]), PixelPrompts(box=torch.tensor([1.0, 2, 30, 40])))
        assert maps[0, [BOX, HAS_BOX]].abs().max() == 0
        assert maps[1, HAS_BOX].min() == 1

    def test_box_around_everything(self):
        (maps,) = draw(PixelPrompts(box=torch.tensor([-9.0, 0, 64, 99])))
        assert maps[BOX].min() == 1


class TestMask:
    def test_logits_are_squashed(self):
        logits = torch.full((HALF, HALF), -40.0)
        logits[:16] = 2
        (maps,) = draw(PixelPrompts(mask=logits))
        assert torch.allclose(maps[MASK, :16], torch.tanh(torch.tensor(0.5)))
        assert maps[MASK, 16:].max() < -0.999
        assert maps[HAS_MASK].min() == 1

    def test_mask_of_another_size_is_resampled(self):
        batch = PromptBatch.collate([PixelPrompts(mask=torch.ones(16, 16) * 8)], SIZE, 16)
        maps = prompt_maps(batch, SIZE)
        assert maps.shape == (1, 7, HALF, HALF)
        assert maps[0, MASK].min() > 0.9

    def test_an_undecided_mask_is_not_no_mask(self):
        given, none = draw(PixelPrompts(mask=torch.zeros(HALF, HALF)), PixelPrompts())
        assert torch.equal(given[MASK], none[MASK])
        assert given[HAS_MASK].min() == 1
        assert none.abs().max() == 0


class TestRagged:
    def test_batch_equals_one_by_one(self):
        prompts = ragged_prompts()
        together = draw(*prompts)
        for row, one in enumerate(prompts):
            assert torch.equal(together[row], draw(one)[0]), row

    def test_kinds_differ(self):
        maps = draw(*ragged_prompts())
        for row in range(len(maps)):
            for other in range(row):
                assert not torch.equal(maps[row], maps[other])


class TestNamed:
    """What a token looks like stands in for a mask, where none is given."""

    def maps_of(self, prompt, likeness):
        coarse = torch.zeros(1, 16, 4, 4)
        coarse[0, 0, 1, 2] = likeness
        concept = torch.zeros(1, 16)
        concept[0, 0] = 4.0
        return named_maps(draw(prompt), coarse, concept)[0]

    def test_the_mask_lies_where_the_image_is_like_the_token(self):
        maps = self.maps_of(PixelPrompts(), 5.0)
        row, column = divmod(int(maps[MASK].argmax()), HALF)
        assert (row * 4 // HALF, column * 4 // HALF) == (1, 2)
        assert maps[MASK].max() == pytest.approx(math.tanh(5.0 / 4), abs=0.2)
        assert maps[HAS_MASK].min() == 1

    def test_unlike_places_count_against_it(self):
        assert self.maps_of(PixelPrompts(), -5.0)[MASK].min() < -0.5

    def test_a_given_mask_stays(self):
        given = PixelPrompts(mask=torch.full((HALF, HALF), 3.0))
        assert torch.equal(self.maps_of(given, 5.0), draw(given)[0])

    def test_other_channels_stay(self):
        box = PixelPrompts(box=torch.tensor([4.0, 4.0, 20.0, 20.0]))
        kept = [n for n in range(7) if n not in (MASK, HAS_MASK)]
        assert torch.equal(self.maps_of(box, 5.0)[kept], draw(box)[0][kept])
