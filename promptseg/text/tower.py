"""The text tower: words to a point on a sphere, by open_clip's transformer and tokenizer.

The table of tokens is pruned to those that are needed; any other token comes apart into the two
that it was merged from, down to single bytes, so that every text has an embedding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptseg.errors import WeightsError
from promptseg.text.folding import fold
from promptseg.weights.described import Described

NAME = "text"
FILE = Described("promptseg-text", 1, "text tower")
PAD, START, FIRST = 0, 1, 2
BYTES = 512
BATCH = 256


@dataclass(frozen=True)
class TowerConfig:
    """Shape of the tower.

    Args:
        width: Of the transformer.
        layers: Blocks.
        heads: Of attention.
        length: Tokens of a text at most; longer texts are cut.
        outputs: Size of an embedding.
    """

    width: int = 128
    layers: int = 3
    heads: int = 4
    length: int = 32
    outputs: int = 128


class Tokens:
    """Open_clip's byte-level tokens, pruned.

    Args:
        kept: Their numbers in open_clip's table; single bytes are always kept.
    """

    def __init__(self, kept: Sequence[int] = ()) -> None:
        self._full = clip_tokenizer()
        self.kept = sorted({*range(BYTES), *kept})
        self._places = {token: FIRST + n for n, token in enumerate(self.kept)}
        self._merges = {512 + rank: pair for pair, rank in self._full.bpe_ranks.items()}

    @property
    def count(self) -> int:
        """Rows of the token table: padding, start, those kept, end."""
        return FIRST + len(self.kept) + 1

    def numbers(self, text: str) -> list[int]:
        """Open_clip's own tokens of a text."""
        return list(self._full.encode(text))

    def encode(self, text: str, length: int) -> list[int]:
        """Rows of the table that a text becomes, at most `length`."""
        places = [place for token in self.numbers(text) for place in self._apart(token)]
        # The end is the greatest number: open_clip's pooling looks for that.
        return [START, *places[: length - 2], self.count - 1]

    def batch(self, texts: Sequence[str], length: int) -> Tensor:
        """(N, T) rows of N texts, padded to the longest."""
        rows = [self.encode(text, length) for text in texts]
        batch = torch.full((len(rows), max(map(len, rows))), PAD)
        for n, row in enumerate(rows):
            batch[n, : len(row)] = torch.tensor(row)
        return batch

    def _apart(self, token: int) -> list[int]:
        if token in self._places:
            return [self._places[token]]
        halves = (self._full.encoder[half] for half in self._merges[token])
        return [place for half in halves for place in self._apart(half)]


@lru_cache(maxsize=1)
def clip_tokenizer() -> Any:
    """Open_clip's tokenizer.

    Raises:
        WeightsError: Open_clip is not installed.
    """
    return _open_clip().SimpleTokenizer()


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise WeightsError(
            "words need open_clip: run pip install open_clip_torch, or give a point, a box or a "
            "scribble"
        ) from error
    return open_clip


def build_tower(config: TowerConfig, rows: int) -> nn.Module:
    """Open_clip's text transformer with a table of `rows` tokens; random weights."""
    _open_clip()
    from open_clip.transformer import TextTransformer

    return TextTransformer(
        context_length=config.length,
        vocab_size=rows,
        width=config.width,
        heads=config.heads,
        layers=config.layers,
        output_dim=config.outputs,
        no_causal_mask=True,
        use_pad_mask=True,
        pad_id=PAD,
        pool_type="argmax",
    )


class TextTower:
    """Words to embeddings, and where the known concepts lie.

    Args:
        module: Open_clip's text transformer.
        tokens: Its table.
        config: Its shape.
        concepts: (D,) unit vector by name of a concept.
        threshold: Least likeness at which words mean a concept.
        sha256: Digest of the file, None for one made in memory.
    """

    def __init__(
        self,
        module: nn.Module,
        tokens: Tokens,
        config: TowerConfig,
        concepts: Mapping[str, NDArray[np.float32]],
        threshold: float,
        sha256: str | None = None,
    ) -> None:
        self.module = module.float().eval().requires_grad_(False)
        self.tokens, self.config = tokens, config
        self.concepts, self.threshold, self.sha256 = dict(concepts), threshold, sha256

    @property
    def digest(self) -> str:
        """SHA-256 of the file; of the tensors where there is none."""
        if self.sha256 is not None:
            return self.sha256
        from promptseg.weights.digests import tensors_digest

        return tensors_digest(dict(sorted(self.module.state_dict().items())))

    def embed(self, words: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) unit vectors of N texts, folded first."""
        texts = [fold(text).text for text in words]
        parts = [self._embed(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, self.config.outputs), np.float32)

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        batch = self.tokens.batch(texts, self.config.length)
        return nn.functional.normalize(self.module(batch), dim=1).numpy()


def save_tower(tower: TextTower, path: Path, about: Mapping[str, str] | None = None) -> None:
    """Write one safetensors file in half precision.

    Args:
        tower: What to write.
        path: File.
        about: Further metadata, such as the measured rates.
    """
    state = {f"tower.{name}": t for name, t in tower.module.state_dict().items()}
    names = list(tower.concepts)
    state["concepts"] = torch.from_numpy(np.stack([tower.concepts[name] for name in names]))
    metadata = {
        "config": json.dumps(asdict(tower.config)),
        "tokens": json.dumps([t for t in tower.tokens.kept if t >= BYTES], separators=(",", ":")),
        "concepts": json.dumps(names),
        "threshold": repr(float(tower.threshold)),
        **(about or {}),
    }
    FILE.write(state, path, metadata)


def load_tower(path: Path | None = None) -> TextTower:
    """Read a tower; without a path the one that ships with promptseg, kept once read.

    Raises:
        WeightsError: It is missing, not whole, or another file than the registry knows.
    """
    if path is not None:
        return _read(path, None)
    from promptseg.weights import registry as weights

    found = weights.locate(NAME)
    if found is None:
        raise WeightsError(
            f"{weights.lookup(NAME).file}, which understands words, is in none of "
            f"{', '.join(map(str, weights.search_path()))}: install promptseg again, or give a "
            "point, a box or a scribble"
        )
    return _kept(found, found.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _kept(path: Path, _changed: int) -> TextTower:
    from promptseg.weights import registry as weights

    return _read(path, weights.check(weights.lookup(NAME), path))


def _read(path: Path, sha256: str | None) -> TextTower:
    about, state = FILE.read(path)
    try:
        return _built(about, state, sha256)
    except Exception as error:  # a wrong number fails wherever it is first used
        raise WeightsError(f"{path} does not hold the tower it claims: {error!r}") from error


def _built(about: Mapping[str, str], state: dict[str, Tensor], sha256: str | None) -> TextTower:
    config = TowerConfig(**json.loads(about["config"]))
    tokens = Tokens(json.loads(about["tokens"]))
    vectors = nn.functional.normalize(state.pop("concepts"), dim=1).numpy()
    concepts = dict(zip(json.loads(about["concepts"]), vectors, strict=True))
    module = build_tower(config, tokens.count)
    module.load_state_dict({name.removeprefix("tower."): t for name, t in state.items()})
    return TextTower(module, tokens, config, concepts, float(about["threshold"]), sha256)
