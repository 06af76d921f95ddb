import argparse
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from backbones.tiny_sam import SHAPE, SIZE
from backbones.tiny_video import tiny_video

from promptseg.backbones.segment_anything import build_sam
from promptseg.commands.bench import add_arguments, checks_text, measure
from promptseg.evaluate.bench.agreement import agreement
from promptseg.evaluate.bench.contenders import Contender, Ours, Outcome
from promptseg.evaluate.bench.limits import Limit, encoder_flops
from promptseg.evaluate.bench.lineup import Lineup
from promptseg.evaluate.bench.rows import CHECKS, ROWS
from promptseg.evaluate.bench.scenes import (
    ball_scene,
    largest_box,
    mean_overlap,
    slice_boxes,
)
from promptseg.evaluate.bench.turns import Turns, table


def options(arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def tiny_sam():
    torch.manual_seed(0)
    return build_sam(replace(SHAPE, channels=64, patch_size=4), SIZE).eval()


@pytest.fixture(scope="module")
def lineup():
    return Lineup(
        tiny_sam,
        True,
        ball_scene((SIZE, SIZE, 9), noise=2.0),
        lambda: ball_scene((48, 48, 24), noise=2.0),
        "cpu",
        "bf16",
        make_video=tiny_video,
    )


@pytest.fixture(scope="module")
def measured(lineup, tmp_path_factory):
    """Every row, and what the file held after each."""
    output = tmp_path_factory.mktemp("bench") / "bench.json"
    arguments = options(["-o", str(output)])
    report = measure(lineup, [*ROWS, *CHECKS], arguments)
    return report, {result.key: result for result in report.turns.results()}


class TestRows:
    def test_every_row_is_measured_and_written(self, measured):
        report, rows = measured
        assert list(rows) == list(ROWS)
        record = json.loads(report.output.read_text())
        assert [row["key"] for row in record["results"]] == list(ROWS)
        assert set(CHECKS) <= set(record)
        assert record["fitted"] is True

    def test_ratios_are_to_the_reference_of_the_group(self, measured):
        rows = measured[1]
        for key, reference in (("frontier", "sam-predictor"), ("sam2-frontier", "sam2-video")):
            expected = rows[reference].seconds / rows[key].seconds
            assert rows[key].times == pytest.approx(expected)
            assert rows[reference].times == rows[reference].dice_reference == 1.0

    def test_same_weights_give_the_same_masks(self, measured):
        rows = measured[1]
        assert rows["every-slice"].dice_reference > 0.99
        assert rows["transformers"].dice_reference > 0.99

    def test_fitted_masks_follow_the_target(self, measured):
        rows = measured[1]
        assert rows["sam2-every-slice"].dice_truth > 0.7
        assert rows["every-slice"].dice_truth > 0.4
        assert rows["sam-predictor"].dice_truth > 0.4

    def test_the_frontier_encodes_fewer_slices_at_no_loss(self, measured):
        rows = measured[1]
        assert rows["frontier"].encoded < rows["every-slice"].encoded == 9
        assert rows["frontier"].dice_truth >= rows["every-slice"].dice_truth - 0.01
        assert rows["default-frontier"].encoded < rows["default-whole"].encoded
        assert rows["default-frontier"].dice_reference > 0.99

    def test_shares_of_stages_add_up(self, measured):
        stages = measured[1]["every-slice"].stages
        assert set(stages) == {"encode", "decode", "rest"}
        assert sum(stages.values()) == pytest.approx(1.0)
        assert min(stages.values()) > 0
        assert set(measured[1]["sam2-memory"].stages) == {"encode", "decode", "memory", "rest"}
        assert measured[1]["sam-predictor"].stages == {}

    def test_with_its_memory_a_video_is_tracked_as_the_library_does(self, measured):
        rows = measured[1]
        # The library brings masks back to voxels without smoothing, which random masks show.
        assert rows["sam2-memory"].dice_reference > 0.8
        assert rows["sam2-frontier"].dice_reference < 0.6
        assert rows["sam2-memory"].encoded == rows["sam2-video"].encoded == 9

    def test_memory_of_a_row_is_within_its_peak(self, measured):
        assert all(0 <= row.grown_mb < row.peak_mb for row in measured[1].values())

    def test_text_names_every_row_and_check(self, measured):
        report, rows = measured
        text = report.text()
        assert all(row.name in text for row in rows.values())
        assert "both in float32, on 2 slices: Dice" in text
        assert "GFLOP a slice" in text


class TestAgreement:
    def test_both_in_float32_agree_and_bfloat16_nearly(self, lineup, measured):
        found = measured[0].checks["agreement"]
        assert len(found["others"]) == 2
        assert min(found["others"].values()) > 0.99
        assert 0.99 < found["correlation"] < 1.0
        assert found["mixed"] > 0.98

    def test_other_masks_do_not(self, lineup):
        nothing = np.zeros(lineup.scene.volume.shape, bool)
        found = agreement(lineup.segmenter, lineup.scene, 1, {"empty": nothing})
        assert found.slices == 1
        assert found.others == {"empty": 0.0}


def contender(key, masks, group="g", target=None):
    scene = ball_scene((16, 16, 6))
    turn = masks if callable(masks) else lambda: Outcome(masks, 6)
    return Contender(key, group, f"name of {key}", scene, turn)


class TestTurns:
    def test_an_interrupted_run_keeps_what_it_has(self, tmp_path, lineup):
        def stop():
            raise KeyboardInterrupt

        class Stopping:
            scene, fit, wanted = lineup.scene, True, lineup.wanted

            def contenders(self, keys):
                return [
                    contender("first", ball_scene((16, 16, 6)).targets),
                    contender("next", stop),
                ]

        arguments = options(["-o", str(tmp_path / "b.json")])
        with pytest.raises(KeyboardInterrupt):
            measure(Stopping(), [], arguments)
        (row,) = json.loads((tmp_path / "b.json").read_text())["results"]
        assert row["key"] == "first"
        assert row["dice_truth"] == 1.0
        assert row["times"] is None

    def test_contenders_alternate(self):
        masks = ball_scene((16, 16, 6)).targets
        turns = Turns([contender("a", masks), contender("b", ~masks)], rounds=2)
        assert [who.key for who, _ in turns] == ["a", "b", "a", "b"]
        first, last = turns.results()
        assert len(first.rounds) == 2
        assert first.seconds == min(first.rounds)
        assert (first.dice_truth, first.dice_reference) == (1.0, 0.0)
        assert last.dice_reference == 1.0
        assert "| name of a |" in table(turns.results())


class TestOptions:
    def test_only_and_against_choose_rows(self):
        few = options(["-o", "x", "--only", "region", "limit", "--slices", "2"])
        assert few.only == ["region", "limit"]
        assert set(options(["-o", "x"]).only) == {*ROWS, *CHECKS}

    def test_nothing_measured_says_nothing(self):
        assert checks_text({}) == []


class TestScenes:
    def test_target_covers_a_part_of_the_slices_and_of_each(self):
        target = ball_scene((48, 48, 24)).targets[0]
        filled = target.any((0, 1))
        assert 6 <= filled.sum() <= 10
        assert target.any((1, 2)).sum() <= 18

    def test_boxes_on_every_slice_or_where_the_ball_is(self):
        target = ball_scene((32, 32, 8)).targets[0]
        filled = int(target.any((0, 1)).sum())
        assert len(slice_boxes(target, everywhere=True)) == 8
        assert len(slice_boxes(target, everywhere=False)) == filled < 8
        assert largest_box(target)[0].lo[2] == 4

    def test_empty_masks_agree(self):
        empty = np.zeros((1, 1, 1, 3), bool)
        assert mean_overlap(empty, empty) == 1.0

    def test_targets_count_the_same(self):
        one = np.zeros((2, 1, 1, 4), bool)
        one[0, ..., :2] = one[1, ..., :1] = True
        other = one.copy()
        other[1] = False
        assert mean_overlap(one, other) == 0.5


class TestLimit:
    def test_counts_operations_of_the_encoder(self, lineup):
        backbone = lineup.segmenter.backbone
        size = backbone.spec.input_size
        assert encoder_flops(backbone, torch.rand(1, 3, size, size)) > 0
        assert Limit(flops=4.0, peak=8.0, reached=2.0).share == 0.25


class TestOurs:
    def test_nothing_is_kept_between_turns(self, lineup):
        ours = Ours(lineup.segmenter, one_box=True)
        first, second = ours.turn(lineup.scene), ours.turn(lineup.scene)
        assert first.encoded == second.encoded > 0
        assert np.array_equal(first.masks, second.masks)
