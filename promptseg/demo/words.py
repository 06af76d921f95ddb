"""Targets that words name."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from promptseg.demo.answers import (
    keep,
    session_for,
    stoppable,
    take_over_unprompted,
    take_own_network,
)
from promptseg.demo.models import Models
from promptseg.demo.setting_aside import earlier, put_back
from promptseg.demo.visit import Visit
from promptseg.inference.encoder import Progress
from promptseg.prompts.types import Text
from promptseg.session import Session
from promptseg.volume import Segmentation


def give_words(visit: Visit, models: Models, words: Text, progress: Progress | None = None) -> None:
    """Name a target, and look for it in the whole volume; what is absent adds nothing.

    Raises:
        PromptError: Nothing here knows the words; they are not kept.
    """
    began = perf_counter()
    words.resolve(visit.opened())
    before = earlier(visit)
    try:
        session, result = _asked(visit, models, words, progress)
    except BaseException:
        put_back(visit, before)
        raise
    told = [one for one in result.report["text"] if one["words"] == words.words][-1]
    if told["found"] and not told.get("repeats"):
        visit.session, visit.undone, visit.after = session, [], []
        _keep(visit, result, words, told["target"])
        visit.tell("propagated", seconds=perf_counter() - began)
    else:
        put_back(visit, before)
        _say_not_added(visit, told)


def _asked(
    visit: Visit, models: Models, words: Text, progress: Progress | None
) -> tuple[Session, Segmentation]:
    """What a copy of the session answers with the words beside the other prompts."""
    take_own_network(visit, models)
    session = session_for(visit, models, [words])
    take_over_unprompted(visit, session)
    trial = session.copy()
    trial.add(words)
    return trial, trial.answer(True, progress=stoppable(visit, progress))


def _keep(visit: Visit, result: Segmentation, words: Text, target: int) -> None:
    keep(visit, result, propagated=True)
    unnamed = {visit.say("target", number=number) for number in (target, words.target)}
    if visit.targets[target].name in unnamed:
        visit.targets[target].name = words.words


def _say_not_added(visit: Visit, told: dict[str, Any]) -> None:
    if told["found"]:
        visit.refuse("same_words", words=told["words"], same=told["repeats"], target=told["target"])
    else:
        visit.refuse("absent", words=told["words"], concept=told["concept"])
