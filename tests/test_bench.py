import numpy as np
import pytest
import torch
from backbones.tiny_sam import tiny_sam

from promptseg import bench
from promptseg.backbones.convert import to_transformers
from promptseg.backbones.folders import wrap
from promptseg.prompts import Point, PromptSet
from promptseg.segmenter import Segmenter


@pytest.fixture(scope="module")
def contenders():
    sam = tiny_sam().eval()
    module = to_transformers(sam.state_dict(), "tiny", "sdpa")
    segmenter = Segmenter(wrap(module, name="tiny"), "cpu", "fp32")
    return segmenter, {
        "promptseg": bench.ours(segmenter),
        "predictor": bench.sam_predictor(sam),
    }


@pytest.fixture(scope="module")
def scene(contenders):
    size = contenders[0].backbone.spec.input_size
    volume, mask = bench.ball_volume((size, size, 4))
    return volume, bench.slice_boxes(mask, everywhere=True)


class TestCompare:
    def test_every_contender_has_a_time_a_round(self, contenders, scene):
        results = bench.compare(contenders[1], *scene, rounds=2)
        assert [r.name for r in results] == ["promptseg", "predictor"]
        assert all(len(r.rounds) == 2 and r.seconds == min(r.rounds) > 0 for r in results)

    def test_same_weights_give_the_same_masks(self, contenders, scene):
        results = bench.compare(contenders[1], *scene)
        assert results[0].dice == 1.0
        assert results[1].dice > 0.99

    def test_equal_precision_is_float32_whatever_is_timed(self, contenders, scene):
        exact, runs = contenders
        coarse = Segmenter(exact.backbone, "cpu", "bf16")
        found = bench.at_equal_precision(
            coarse, {"predictor": runs["predictor"]}, scene[0], scene[1][1:3]
        )
        assert found["predictor"] > 0.99
        exactly = bench.at_equal_precision(
            coarse, {"exact": runs["promptseg"]}, scene[0], scene[1][1:3]
        )
        two = [k for k in range(4) if k not in (1, 2)]
        assert exactly == {"exact": 1.0}
        assert not runs["promptseg"](scene[0], scene[1][1:3])[:, :, two].any()

    def test_only_boxes_are_taken(self, contenders, scene):
        with pytest.raises(TypeError, match="Point"):
            contenders[1]["predictor"](scene[0], PromptSet([Point((1, 1, 1))]))


class TestRounding:
    def test_none_in_float32_and_little_in_bfloat16(self, contenders, scene):
        exact = contenders[0]
        same = bench.rounding(exact, scene[0], scene[1][1:3])
        assert same.correlation == pytest.approx(1.0)
        assert same.dice == 1.0
        coarse = Segmenter(exact.backbone, "cpu", "bf16")
        found = bench.rounding(coarse, scene[0], scene[1][1:3])
        assert 0.9 < found.correlation < 1.0


class TestStages:
    def test_shares_add_up(self, contenders, scene):
        shares = bench.stage_shares(contenders[0], scene[0], scene[1][1:3])
        assert set(shares) == {"encode", "decode", "rest"}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert min(shares.values()) > 0


class TestScene:
    def test_boxes_on_every_slice_or_where_the_ball_is(self):
        _, mask = bench.ball_volume((32, 32, 8))
        filled = int(mask.any((0, 1)).sum())
        assert len(bench.slice_boxes(mask, everywhere=True)) == 8
        assert len(bench.slice_boxes(mask, everywhere=False)) == filled < 8


class TestLimit:
    def test_counts_operations_of_the_encoder(self, contenders):
        segmenter = contenders[0]
        size = segmenter.backbone.spec.input_size
        flops = bench.encoder_flops(segmenter.backbone, torch.rand(1, 3, size, size))
        assert flops > 0
        limit = bench.Limit(flops=4.0, peak=8.0, reached=2.0)
        assert limit.share == 0.25


class TestTable:
    def test_ratios_are_to_the_last(self):
        rows = [
            bench.Result("a", 2.0, [2.0], 1.0, 1.0),
            bench.Result("b", 6.0, [6.0], 1.0, 0.5),
        ]
        assert "| a | 2.00 | 3.00 |" in bench.table(rows)


class TestOverlap:
    def test_empty_masks_agree(self):
        assert bench.overlap(np.zeros(3, bool), np.zeros(3, bool)) == 1.0
