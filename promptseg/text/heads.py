"""The word a phrase is about: `spleen` in `the spleen in the upper abdomen`.

English says it before what describes it (`that`, `in`, `holding`), Chinese after (`的`). A side
said in the description belongs to it. After `of` stands what it is part of, or it is not meant:
`the left atrium of the heart` is the atrium, `the muscle of the heart` is no skeletal muscle.
"""

from __future__ import annotations

import re

from promptseg.text.folding import fold
from promptseg.text.vocabulary import Concept, Vocabulary

_OF = re.compile(r"\s+of\s+", re.IGNORECASE)
_AFTER = re.compile(
    r"\s+(?:that|which|in|within|inside|on|at|with|near|below|above|under|behind|beside|between|"
    r"located|lying|holding|containing|receiving|pumping|found|as|for|from)\s+",
    re.IGNORECASE,
)


def head_of(words: str, known: Vocabulary) -> Concept | None:
    """The listed concept that a phrase is about; None where there is no such phrase."""
    if "的" in words:
        before, _, head = words.rpartition("的")
        return _described(head, before, known)
    found = _AFTER.search(words)
    if found is not None:
        return _described(words[: found.start()], words[found.end() :], known)
    parts = _OF.split(words, maxsplit=1)
    if len(parts) != 2:
        return None
    part, whole = _listed(parts[0], known), _listed(parts[1], known)
    if part is None or whole is None or part.name not in known.leaves(whole.name)[1:]:
        return None
    return part


def _described(head: str, description: str, known: Vocabulary) -> Concept | None:
    side = fold(description).side
    if side and not fold(head).side:
        return _listed(f"{side} {head}", known) or _listed(head, known, sideless=True)
    return _listed(head, known)


def _listed(words: str, known: Vocabulary, sideless: bool = False) -> Concept | None:
    found = known.find(words) or known.find_plain(words)
    # `the kidney on the left` must not become both kidneys.
    if found is not None and sideless and f"left {found.name}" in known:
        return None
    return found
