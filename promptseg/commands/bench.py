"""`promptseg bench`: ours against the usual way, taking turns in one run."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.commands.parsing import UsageError, add_json, print_json

if TYPE_CHECKING:
    import torch

    from promptseg.bench import Run
    from promptseg.segmenter import Segmenter

AGAINST = ("sam-predictor", "transformers")
RANDOM = "random-vit-b"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="JSON")
    parser.add_argument(
        "--against", metavar="NAME", nargs="*", choices=AGAINST, default=list(AGAINST),
        help=f"contenders: {', '.join(AGAINST)} (all)",
    )  # fmt: skip
    parser.add_argument(
        "--model", default=RANDOM,
        help=f"original SAM checkpoint, or {RANDOM}: its shape with random weights (default)",
    )  # fmt: skip
    parser.add_argument("--slices", type=int, default=32, help="slices of 512 x 512 (32)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of every contender (1)")
    parser.add_argument("--batch", type=int, default=1, help="slices we encode at once (1)")
    parser.add_argument(
        "--check", metavar="N", type=int, default=2,
        help="slices on which masks are also compared in float32, ours as the others' (2)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a table, write the numbers."""
    from promptseg import bench
    from promptseg.io.atomic import atomic_path

    if min(arguments.slices, arguments.rounds, arguments.batch) < 1:
        raise UsageError("--slices, --rounds and --batch must be at least 1")
    sam = _sam(arguments.model)
    segmenter = _segmenter(sam, arguments)
    volume, mask = bench.ball_volume((512, 512, arguments.slices))
    others = _others(sam, segmenter, arguments.against)
    prompts = bench.slice_boxes(mask, everywhere=True)
    results = bench.compare(
        {"promptseg": bench.ours(segmenter)} | others, volume, prompts, arguments.rounds
    )
    middle = max(0, (len(prompts) - arguments.check) // 2)
    checked = prompts[middle : middle + arguments.check]
    equal = bench.at_equal_precision(segmenter, others, volume, checked) if checked else {}
    limit = bench.encoder_limit(segmenter)
    shares = bench.stage_shares(segmenter, volume, checked or prompts[:1])
    rounded = bench.rounding(segmenter, volume, checked or prompts[:1])
    about = _about(arguments, segmenter) | {
        "dice_in_float32": equal, "stages": shares, "rounding": asdict(rounded),
    }  # fmt: skip
    record = bench.as_record(results, limit, about)
    with atomic_path(arguments.output) as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if arguments.json:
        print_json(record)
    else:
        print(bench.table(results))
        for name, dice in equal.items():
            print(f"both in float32, {len(checked)} slices: Dice {dice:.4f} with {name}")
        print(
            f"{segmenter.precision} with float32: logits correlate by {rounded.correlation:.4f}, "
            f"Dice {rounded.dice:.4f} one standard deviation above their mean"
        )
        print("time: " + ", ".join(f"{part} {share:.0%}" for part, share in shares.items()))
        print(f"encoder: {limit.share:.0%} of {limit.peak / 1e9:.0f} GFLOP/s measured")
    return 0


def _sam(model: str) -> torch.nn.Module:
    """segment_anything's own network, random or from a checkpoint."""
    import torch
    from segment_anything import sam_model_registry

    from promptseg.weights import load_state

    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"]()
    if model != RANDOM:
        sam.load_state_dict(load_state(Path(model)))
    return sam.eval()


def _segmenter(sam: torch.nn.Module, arguments: argparse.Namespace) -> Segmenter:
    """The same weights through promptseg: fused attention, mixed precision, no cache."""
    from promptseg.backbones.convert import to_transformers
    from promptseg.backbones.folders import wrap
    from promptseg.segmenter import Segmenter

    module = to_transformers(sam.state_dict(), arguments.model, "sdpa")
    backbone = wrap(module, name=arguments.model)
    return Segmenter(backbone, arguments.device, arguments.precision, arguments.batch)


def _others(sam: torch.nn.Module, segmenter: Segmenter, names: list[str]) -> dict[str, Run]:
    from promptseg import bench

    sam.to(segmenter.device)
    made: dict[str, Run] = {}
    if "transformers" in names:
        made["transformers SamModel"] = bench.transformers_sam(segmenter.backbone.module)
    if "sam-predictor" in names:
        made["segment_anything SamPredictor"] = bench.sam_predictor(sam)
    return made


def _about(arguments: argparse.Namespace, segmenter: Segmenter) -> dict[str, Any]:
    import torch

    return {
        "model": arguments.model,
        "slices": arguments.slices,
        "device": str(segmenter.device),
        "precision": segmenter.precision,
        "batch": arguments.batch,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
