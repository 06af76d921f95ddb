from dataclasses import replace

import pytest
import torch
from support import BrightRegion, bright_encoder
from tracks_kit import FRAME, SHAPE, TUBE

from promptseg.backbones.memory import MemorySpan
from promptseg.inference.decoder import SliceDecoder
from promptseg.propagation.carrying import box_of, carried_by, lag_of, shown_as
from promptseg.propagation.tracker import Tracker
from promptseg.volume.slicing import Frame


class TestLag:
    @pytest.mark.parametrize(("spacing", "lag"), [(0.4, 5), (1.0, 3), (2.0, 2), (5.0, 1)])
    def test_how_far_back_follows_the_spacing(self, spacing, lag):
        assert lag_of(Frame(2, FRAME.region, SHAPE, (1.0, 1.0, spacing), 64)) == lag

    def test_networks_that_take_boxes_get_the_neighbour(self):
        thin = Frame(2, FRAME.region, SHAPE, (1.0, 1.0, 0.5), 64)
        for family, lag in (("promptseg", 5), ("sam", 1)):
            decoder = SliceDecoder(bright_encoder(TUBE, BrightRegion(family=family)))
            assert Tracker(decoder, thin).lag == lag


class TestCarried:
    def test_ours_gets_masks_and_others_boxes(self):
        for family, expected in (("promptseg", "mask"), ("sam2", "box")):
            backbone = BrightRegion(family=family)
            assert carried_by(backbone) == shown_as(backbone.spec) == expected

    def test_networks_with_a_memory_use_it_and_are_still_shown_boxes(self):
        class MemoryBackbone(BrightRegion):
            span = MemorySpan(6, 16, 4)

            def remember(self, embedding, logits, presence, pointers=None, by_user=False):
                raise NotImplementedError

            def recall(self, embedding, recollections):
                raise NotImplementedError

        backbone = MemoryBackbone(family="sam2")
        backbone.spec = replace(backbone.spec, propagates="memory")
        assert carried_by(backbone) == "memory"
        assert shown_as(backbone.spec) == "box"


class TestBox:
    def test_box_surrounds_the_mask_in_pixels_of_the_input(self):
        logits = torch.full((32, 32), -8.0)
        logits[4:12, 10:20] = 8
        x0, y0, x1, y1 = box_of(logits, 64, grow=0.0).tolist()
        assert (x0, y0, x1, y1) == (20, 8, 40, 24)
        assert box_of(logits, 64, grow=0.1).tolist() == pytest.approx([18, 6.4, 42, 25.6])

    def test_box_stays_inside_the_input(self):
        assert box_of(torch.ones(32, 32), 64, grow=0.5).tolist() == [0, 0, 64, 64]
