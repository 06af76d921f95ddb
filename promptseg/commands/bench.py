"""`promptseg bench`: ours against the usual ways, taking turns in one run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.commands.parsing import UsageError, add_json, note, print_json
from promptseg.evaluate.bench.rows import CHECKS, ROWS

if TYPE_CHECKING:
    from promptseg.evaluate.bench.lineup import Lineup
    from promptseg.evaluate.bench.turns import Turns

AGAINST = ("sam-predictor", "transformers", "sam2-video")
RANDOM = "random-vit-b"
SIDE = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="JSON")
    parser.add_argument(
        "--against", metavar="NAME", nargs="*", choices=AGAINST, default=list(AGAINST),
        help=f"contenders: {', '.join(AGAINST)} (all)",
    )  # fmt: skip
    parser.add_argument(
        "--only", metavar="ROW", nargs="+", choices=(*ROWS, *CHECKS), default=[*ROWS, *CHECKS],
        help=f"measure these alone: {', '.join((*ROWS, *CHECKS))} (all)",
    )  # fmt: skip
    parser.add_argument(
        "--model", default=RANDOM,
        help=f"original SAM ViT-B checkpoint, or {RANDOM}: its shape with random weights, of "
        "which the last layer is fitted so that masks follow the target (default)",
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
    """Measure; after every row the file holds all that is known."""
    if min(arguments.slices, arguments.rounds, arguments.batch, arguments.check) < 1:
        raise UsageError("--slices, --rounds, --batch and --check must be at least 1")
    rivals = set(AGAINST) - set(arguments.against)
    keys = [key for key in arguments.only if key not in rivals]
    lineup = _lineup(arguments)
    report = measure(lineup, keys, arguments)
    if arguments.json:
        print_json(report.record())
    else:
        print(report.text())
    return 0


@dataclass
class Report:
    """What is known so far.

    Args:
        output: File that is written anew whenever something was measured.
        about: Machine and settings.
        turns: Contenders and what they did.
        checks: What was measured apart from the turns.
    """

    output: Path
    about: dict[str, Any]
    turns: Turns
    checks: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**self.about, "results": [asdict(r) for r in self.turns.results()], **self.checks}

    def save(self) -> None:
        """Write the file."""
        from promptseg.io.atomic import atomic_path

        with atomic_path(self.output) as path:
            path.write_text(json.dumps(self.record(), indent=1) + "\n", encoding="utf-8")

    def text(self) -> str:
        """For a reader."""
        from promptseg.evaluate.bench.turns import table

        results = self.turns.results()
        stages = [
            f"{r.key}: " + ", ".join(f"{part} {share:.1%}" for part, share in r.stages.items())
            for r in results
            if r.stages
        ]
        parts = [table(results), "\n".join(stages), *checks_text(self.checks)]
        return "\n\n".join(part for part in parts if part)


def measure(lineup: Lineup, keys: Sequence[str], arguments: argparse.Namespace) -> Report:
    """Let the contenders of some keys take turns, then check the rest."""
    from promptseg.evaluate.bench.turns import Turns

    turns = Turns(lineup.contenders(keys), arguments.rounds)
    report = Report(arguments.output, _about(lineup, arguments), turns)
    total = len(turns.contenders) * arguments.rounds
    for done, (contender, seconds) in enumerate(turns, 1):
        note(f"{done} of {total}: {contender.key} took {seconds:.1f} s")
        report.save()
    for name, check in (("agreement", _agreement), ("limit", _limit)):
        if name in keys:
            note(f"measuring the {name}")
            report.checks[name] = check(lineup, turns, arguments)
            report.save()
    return report


def checks_text(checks: dict[str, Any]) -> list[str]:
    """Sentences on agreement and limit, of those that were measured."""
    found = []
    if "agreement" in checks:
        a = checks["agreement"]
        where = f"on {a['slices']} slices"
        found += [
            f"both in float32, {where}: Dice {d:.4f} with {n}" for n, d in a["others"].items()
        ]
        found.append(
            f"ours in {a['precision']} with ours in float32, {where}: Dice {a['mixed']:.4f}; "
            f"logits correlate by {a['correlation']:.5f}; Dice {a['level_dice']:.4f} where they "
            "are cut one standard deviation above their mean"
        )
    if "limit" in checks:
        one = checks["limit"]
        found.append(
            f"encoder: {one['flops'] / 1e9:.0f} GFLOP a slice, {one['share']:.0%} of the "
            f"{one['peak'] / 1e9:.0f} GFLOP/s that a matrix product reaches in {one['precision']}"
        )
    return ["\n".join(found)] if found else []


def _agreement(lineup: Lineup, turns: Turns, arguments: argparse.Namespace) -> dict[str, Any]:
    from promptseg.evaluate.bench.agreement import agreement

    ran = {result.key: result.name for result in turns.results()}
    others = {ran[k]: turns.masks(k)[0] for k in ("transformers", "sam-predictor") if k in ran}
    found = agreement(lineup.segmenter, lineup.scene, arguments.check, others)
    return {"precision": lineup.segmenter.precision, **asdict(found)}


def _limit(lineup: Lineup, turns: Turns, arguments: argparse.Namespace) -> dict[str, Any]:
    from promptseg.evaluate.bench.limits import encoder_limit

    found = encoder_limit(lineup.segmenter)
    return {"precision": lineup.segmenter.precision, **asdict(found), "share": found.share}


def _lineup(arguments: argparse.Namespace) -> Lineup:
    from promptseg.evaluate.bench.lineup import Lineup, checkpoint_vit_b, random_vit_b
    from promptseg.evaluate.bench.scenes import ball_scene

    fit = arguments.model == RANDOM
    return Lineup(
        random_vit_b if fit else partial(checkpoint_vit_b, Path(arguments.model)),
        fit,
        ball_scene((SIDE, SIDE, arguments.slices)),
        device=arguments.device,
        precision=arguments.precision,
        batch=arguments.batch,
        say=note,
    )


def _about(lineup: Lineup, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    target = lineup.scene.targets[0]
    return {
        "model": arguments.model,
        "fitted": lineup.fit,
        "shape": list(lineup.scene.volume.shape),
        "slices_of_target": int(target.any((0, 1)).sum()),
        "device": str(lineup.wanted.device),
        "precision": lineup.wanted.precision,
        "batch": arguments.batch,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
