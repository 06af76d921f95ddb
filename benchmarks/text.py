"""What words give: rates of the text tower, Dice of text beside no prompt, seconds of one answer.

    python benchmarks/text.py                                        # rates of the tower alone
    python benchmarks/text.py --data ../shared/data -o runs/text     # and Dice, resumable
    python benchmarks/text.py --seconds                              # and one answer on 100 slices

Dice: ACDC patients 71-80 (three labels) and left atrium cases 57-68, by `--prompt text` with each
adapter's own words, by a Chinese synonym, and by `--prompt auto`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import promptseg as ps
from promptseg.io.atomic import atomic_path
from promptseg.text.resolving import Resolver
from promptseg.text.tower import load_tower
from promptseg.text.vocabulary import vocabulary

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

UNSEEN = Path(__file__).parents[1] / "tests" / "text" / "data" / "unseen.toml"
COHORTS = {
    "left_atrium": ("left_atrium", (57, 68), {1: "左心房"}),
    "cardiac": ("acdc", (141, 160), {1: "右心室", 2: "心肌", 3: "左心室"}),
}


def rates(resolver: Resolver) -> dict[str, float]:
    """Shares of the unseen test list, after every wrong answer was printed."""
    lists = tomllib.loads(UNSEEN.read_text(encoding="utf-8"))
    right = refused = accepted = 0
    for words, concept in lists["paraphrases"].items():
        found = resolver.resolve(words).concept
        right += found is not None and found.name == concept
        refused += found is None
        if found is None or found.name != concept:
            print(f"  {words!r}: {concept}, found {'nothing' if found is None else found.name}")
    for words in lists["foreign"]["words"]:
        found = resolver.resolve(words)
        accepted += found.concept is not None
        if found.concept is not None:
            print(f"  {words!r}: taken as {found.concept.name} ({found.likeness:.2f})")
    known, foreign = len(lists["paraphrases"]), len(lists["foreign"]["words"])
    return {"right": right / known, "false_refusal": refused / known,
            "false_acceptance": accepted / foreign}  # fmt: skip


def dice(data: Path, name: str, out: Path) -> dict[str, dict[str, float]]:
    """Mean 3D Dice by way and label; each way is kept in `out` and not measured again."""
    folder, cases, synonyms = COHORTS[name]
    segmenter = ps.Segmenter.from_pretrained("default", adapter=name)
    found: dict[str, dict[str, float]] = {}
    for way in ("auto", "text", "chinese"):
        kept = out / f"{name}_{way}.json"
        if not kept.is_file():
            scores = {}
            for label, words in synonyms.items():
                report = ps.evaluate(
                    segmenter, data / folder / "images", data / folder / "labels",
                    "auto" if way == "auto" else "text", label=label, dims="3d", cases=cases,
                    text=words if way == "chinese" else None,
                )  # fmt: skip
                scores[segmenter.adapters.get(name).info.labels[label]] = report.summary["dice"][
                    "mean"
                ]
            out.mkdir(parents=True, exist_ok=True)
            with atomic_path(kept) as temporary:
                temporary.write_text(json.dumps(scores))
        found[way] = json.loads(kept.read_text())
    return found


def seconds(slices: int = 100) -> tuple[float, float]:
    """Of the first text prompt on a volume, and of one on the same volume once it is cached."""
    rng = np.random.default_rng(0)
    data = rng.normal(100, 20, (256, 256, slices)).astype(np.int16)
    data[90:160, 100:170, 20:80] += 60
    volume = ps.Volume(data, np.diag([1.0, 1.0, 2.5, 1.0]), "MR")
    segmenter = ps.Segmenter.from_pretrained("default", adapter="left_atrium")
    session = segmenter.session(volume)
    taken = []
    for _ in range(2):
        session.add(ps.Text("left atrium"))
        began = time.perf_counter()
        session.propagate()
        taken.append(time.perf_counter() - began)
        session.undo()
    return taken[0], taken[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print everything asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="measure Dice on the folders in here")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/text"))
    parser.add_argument("--seconds", action="store_true")
    options = parser.parse_args(arguments)
    resolver = Resolver(load_tower(), vocabulary())
    print(f"{len(vocabulary())} concepts, threshold {resolver.tower.threshold:.3f}")
    for name, share in rates(resolver).items():
        print(f"{name}: {100 * share:.1f} %")
    for name in COHORTS if options.data else ():
        for way, scores in dice(options.data, name, options.output).items():
            shown = ", ".join(f"{label} {score:.3f}" for label, score in scores.items())
            print(f"{name} {way}: Dice {shown}; mean {np.mean(list(scores.values())):.3f}")
    if options.seconds:
        first, again = seconds()
        print(f"one text prompt, 100 slices: {first:.2f} s with encoding, {again:.2f} s cached")


if __name__ == "__main__":
    main(sys.argv[1:])
