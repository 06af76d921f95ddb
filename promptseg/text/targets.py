"""Targets of words: their numbers, and answers of several adapters put together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from promptseg.prompts.types import Prompt, PromptSet, Text
from promptseg.volume import Segmentation


def renumbered(prompts: PromptSet) -> PromptSet:
    """Several words on one target become targets of their own, the first keeping its number."""
    seen: set[int] = set()
    free = max(prompts.targets, default=0)
    numbered: list[Prompt] = []
    for prompt in prompts:
        if isinstance(prompt, Text):
            if prompt.target in seen:
                free += 1
                prompt = replace(prompt, target=free)
            seen.add(prompt.target)
        numbered.append(prompt)
    return PromptSet(numbered)


def worded_alone(prompts: PromptSet) -> set[int]:
    """Targets of which nothing but words say what they are."""
    placed = {prompt.target for prompt in prompts if not isinstance(prompt, Text)}
    return set(prompts.targets) - placed


def without_absent(result: Segmentation, targets: Collection[int]) -> Segmentation:
    """An answer that lists none of some targets that have no voxel."""
    absent = {target for target in targets if not (result.data == target).any()}
    score = {target: value for target, value in result.score.items() if target not in absent}
    return replace(result, score=score) if absent else result


def regrouped(result: Segmentation, targets: Mapping[int, int]) -> Segmentation:
    """Keys as the targets that they belong to."""
    if all(key == target for key, target in targets.items()):
        return result
    data, score = result.data.copy(), dict(result.score)
    for target in set(targets.values()):
        keys = [key for key, meant in targets.items() if meant == target]
        data[np.isin(result.data, keys)] = target
        found = [score.pop(key) for key in keys if key in score]
        score[target] = float(np.mean([s for s in found if s > 0] or [0.0]))
    larger = result.report.get("larger_than_trained", {})
    report = {**result.report, "larger_than_trained": {targets[k]: a for k, a in larger.items()}}
    return replace(result, data=data, score=dict(sorted(score.items())), report=report)


def merge(results: Sequence[Segmentation]) -> Segmentation:
    """Answers of several adapters on one grid; what is taken stays taken."""
    first = results[0]
    if len(results) == 1:
        return first
    data, score = first.data.astype(np.uint16), dict(first.score)
    doubts = [r.uncertainty for r in results if r.uncertainty is not None]
    for result in results[1:]:
        free = (data == 0) & (result.data > 0)
        data[free] = result.data[free]
        score |= result.score
    doubt = np.maximum.reduce(doubts) if doubts else None
    return replace(first, data=data, score=dict(sorted(score.items())), uncertainty=doubt)
