"""Train the text tower on the vocabulary and write weights/text.safetensors.

    python weights/train_text.py --minutes 5 -o weights/text.safetensors

Paraphrases of known concepts are pulled to a vector of their concept and pushed from all others
(softmax over scaled cosines, as in contrastive language-image training, with one learned vector
a concept for the image side); foreign words are pushed below a margin from every concept. The
threshold of refusal is then calibrated on names, templates and foreign words that training never
drew, and on text_calibration.toml. Prints the rates, the size and the sha256 for registry.toml.
The test list, tests/text/data/unseen.toml, is not read here.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from promptseg.text.folding import fold
from promptseg.text.resolving import Resolver
from promptseg.text.tower import (
    BYTES,
    TextTower,
    Tokens,
    TowerConfig,
    build_tower,
    load_tower,
    save_tower,
)
from promptseg.text.vocabulary import vocabulary
from promptseg.weights.registry import sha256_file
from text_wordings import CHINESE_FOREIGN, CHINESE_TEMPLATES, FOREIGN, TEMPLATES, Wordings, framed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LISTS = Path(__file__).with_name("text_calibration.toml")
COMMON_TOKENS = 6000
SCALE, MARGIN, GAP = 20.0, 0.45, 0.1
FALSE_ACCEPTANCE = 0.08
SHORT = 0.75
AGAIN = 10**6


def kept_tokens(wordings: Wordings) -> list[int]:
    """Tokens of all known names, templates and listed foreign words, and the commonest."""
    plain = Tokens()
    texts = [name for c in wordings.known.concepts.values() for name in c.wordings]
    texts += [*TEMPLATES, *CHINESE_TEMPLATES, *FOREIGN, *CHINESE_FOREIGN]
    needed = {token for text in texts for token in plain.numbers(fold(text).text)}
    return sorted(needed | set(range(BYTES, BYTES + COMMON_TOKENS)))


class Drawer:
    """Batches of half paraphrases, half foreign words; draw n depends on the seed and n."""

    def __init__(self, wordings: Wordings, tokens: Tokens, length: int, seed: int) -> None:
        self.wordings, self.tokens, self.length, self.seed = wordings, tokens, length, seed
        self.concepts = list(wordings.known.concepts.values())

    def __call__(self, number: int, size: int) -> tuple[list[Tensor], Tensor]:
        """Short and long texts as (n, T) tokens, and of all (N,) the place of their concept.

        The place of foreign words is the number of concepts.
        """
        chance = random.Random(f"{self.seed} {number}")
        places = [chance.randrange(len(self.concepts)) for _ in range(size // 2)]
        texts = [self.wordings.paraphrase(self.concepts[p], chance) for p in places]
        texts += [self.wordings.stranger(chance) for _ in range(size - len(places))]
        places += [len(self.concepts)] * (size - len(places))
        folded = [fold(text).text for text in texts]
        order = sorted(range(size), key=lambda n: len(self.tokens.numbers(folded[n])))
        cut = round(SHORT * size)
        batches = [self.tokens.batch([folded[n] for n in some], self.length)
                   for some in (order[:cut], order[cut:])]  # fmt: skip
        return batches, torch.tensor([places[n] for n in order])


def contrast(embeddings: Tensor, concepts: Tensor, places: Tensor) -> Tensor:
    """Cross entropy over concepts and none; the right one must win by a gap.

    Args:
        embeddings: (N, D) of the texts.
        concepts: (C, D).
        places: (N,) of the right concept, C for none.
    """
    likeness = functional.normalize(embeddings, dim=1) @ functional.normalize(concepts, dim=1).T
    count = likeness.shape[1]
    logits = torch.cat([likeness, likeness.new_full((len(likeness), 1), MARGIN)], 1)
    lowered = functional.one_hot(places, count + 1).to(logits) * GAP
    return functional.cross_entropy(SCALE * (logits - lowered), places)


def train(wordings: Wordings, config: TowerConfig, minutes: float, batch: int, seed: int,
          rate: float, start: TextTower | None = None) -> TextTower:  # fmt: skip
    """A tower after some minutes of processor time on one thread."""
    torch.manual_seed(seed)
    tokens = Tokens(kept_tokens(wordings))
    module = build_tower(config, tokens.count)
    names = list(wordings.known.concepts)
    concepts = torch.nn.Parameter(torch.randn(len(names), config.outputs) * 0.1)
    if start is not None:
        tokens, module = start.tokens, start.module.train().requires_grad_(True)
        with torch.no_grad():
            known = [start.concepts[name] for name in names]
            concepts.copy_(torch.from_numpy(np.stack(known)))
    draw = Drawer(wordings, tokens, config.length, seed)
    learned = [*module.parameters(), concepts]
    optimiser = torch.optim.AdamW(learned, rate, (0.9, 0.98), weight_decay=0.02)
    slow = [p.detach().clone() for p in learned]
    began, step = time.process_time(), 0
    while minutes and (progress := (time.process_time() - began) / (60 * minutes)) < 1:
        warm = min(1.0, (step + 1) / 30)
        for group in optimiser.param_groups:
            group["lr"] = rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        texts, places = draw(step if start is None else AGAIN + step, batch)
        loss = contrast(torch.cat([module(some) for some in texts]), concepts, places)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        step += 1
        with torch.no_grad():
            for kept, now in zip(slow, learned, strict=True):
                kept.lerp_(now, max(0.02, 1 / step))
        if step % 25 == 0:
            print(f"step {step}, {100 * progress:.0f} %, loss {loss.item():.3f}", flush=True)
    with torch.no_grad():
        for kept, now in zip(slow, learned, strict=True):
            now.copy_(kept)
    vectors = functional.normalize(concepts.detach(), dim=1).numpy()
    return TextTower(module, tokens, config, dict(zip(names, vectors, strict=True)), 0.5)


def calibrate(tower: TextTower, wordings: Wordings, seed: int) -> dict[str, float]:
    """Set the threshold on what training never drew; give the rates there.

    The threshold is the least at which at most `FALSE_ACCEPTANCE` of the foreign words pass.
    """
    chance = random.Random(f"{seed} calibration")
    lists = tomllib.loads(LISTS.read_text(encoding="utf-8"))
    resolver = Resolver(tower, wordings.known)
    known = [(framed(name, chance), concept) for name, concept in wordings.held_names]
    foreign = list(wordings.held_foreign)
    foreign += [wordings.stranger(chance, held=True) for _ in range(600)]
    listed = list(lists["paraphrases"].items())
    strangers = lists["foreign"]["words"]
    wrong = np.array([likeness(resolver, words)[1] for words in [*foreign, *strangers]])
    tower.threshold = float(np.quantile(wrong, 1 - FALSE_ACCEPTANCE))
    return {
        "threshold": tower.threshold,
        "held_names_right": right(resolver, known),
        "listed_paraphrases_right": right(resolver, listed),
        "listed_paraphrases_resolved": float(
            np.mean(
                [
                    (found := resolver.resolve(words).concept) is not None and found.name == concept
                    for words, concept in listed
                ]
            )
        ),
        "foreign_accepted": float(np.mean(wrong >= tower.threshold)),
        "listed_foreign_accepted": float(np.mean(wrong[len(foreign) :] >= tower.threshold)),
    }


def likeness(resolver: Resolver, words: str) -> tuple[str, float]:
    """Nearest concept by the tower and its likeness, whatever the threshold."""
    near = resolver.nearest(words, 1)
    return near[0] if near else ("", -1.0)


def right(resolver: Resolver, known: Sequence[tuple[str, str]]) -> float:
    """Share of wordings that the tower alone resolves to their concept."""
    found = [(likeness(resolver, words), concept) for words, concept in known]
    good = [name == concept and score >= resolver.tower.threshold
            for (name, score), concept in found]  # fmt: skip
    return float(np.mean(good))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, calibrate, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=4.0, help="of processor time; 0 calibrates only"
    )
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="go on from this tower")
    parser.add_argument("-o", "--output", type=Path, default=Path("weights/text.safetensors"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wordings = Wordings(vocabulary(), options.seed)
    config = TowerConfig(layers=options.layers)
    start = load_tower(options.start) if options.start else None
    tower = train(
        wordings, config, options.minutes, options.batch, options.seed, options.rate, start
    )
    rates = calibrate(tower, wordings, options.seed)
    save_tower(tower, options.output, {"rates": json.dumps(rates)})
    size, digest = options.output.stat().st_size, sha256_file(options.output)
    print(json.dumps({**rates, "bytes": size, "sha256": digest}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
