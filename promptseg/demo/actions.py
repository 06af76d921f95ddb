"""What a visitor can do; the page and the API call these and nothing else.

Each function changes one visit, or raises PromptsegError and leaves it as it was.
"""

from __future__ import annotations

from time import perf_counter

from promptseg.demo.answers import (
    answer_slices,
    begun,
    keep,
    name_targets,
    session_for,
    settle,
    stoppable,
    take_over_unprompted,
)
from promptseg.demo.corrections import check_axis, corrects, trial_of
from promptseg.demo.looking import show_slice
from promptseg.demo.models import Models
from promptseg.demo.setting_aside import (
    can_step_back,
    can_step_forward,
    setting_aside,
    step_back,
    step_forward,
)
from promptseg.demo.visit import Visit
from promptseg.errors import PromptError, PromptsegError
from promptseg.inference.encoder import Progress
from promptseg.prompts.types import Prompt, PromptSet
from promptseg.session import RefineMode


def give(visit: Visit, models: Models, *prompts: Prompt) -> None:
    """Add prompts and answer at once on their slices.

    Raises:
        PromptError: They cannot be used; they are not kept.
    """
    began = perf_counter()
    resolved = PromptSet(prompts).to_voxel(visit.opened())
    session = session_for(visit, models, list(resolved))
    check_axis(visit, resolved)
    take_over_unprompted(visit, session)
    session.add(*prompts)
    try:
        answer_slices(visit, session)
    except PromptsegError:
        session.undo()
        raise
    visit.undone, visit.after, visit.unsaved = [], [], True
    name_targets(visit, PromptSet(prompts).targets)
    say_answered(visit, perf_counter() - began)


def propagate(visit: Visit, models: Models, progress: Progress | None = None) -> None:
    """Carry the masks through the volume; without a prompt the adapter looks for its organs."""
    began = perf_counter()
    visit.opened()
    if not len(visit.prompts) and visit.adapter is None:
        raise PromptError(visit.say("prompt_first"))
    session = session_for(visit, models)
    result = session.answer(True, progress=stoppable(visit, progress))
    keep(visit, result, propagated=True)
    visit.tell("propagated", seconds=perf_counter() - began)


def refine(visit: Visit, mode: RefineMode = "graph_cut", progress: Progress | None = None) -> None:
    """Take up the corrections since the last 3D mask."""
    began = perf_counter()
    if visit.session is None or not visit.propagated:
        raise PromptError(visit.say("no_mask"))
    trial = trial_of(visit)
    if trial is not None and mode == "graph_cut":
        visit.session, result = trial.session, trial.result
    else:
        result = visit.session.refine(mode, progress=stoppable(visit, progress))
    keep(visit, result, propagated=True)
    visit.tell("refined", seconds=perf_counter() - began)


def take_up(visit: Visit, progress: Progress | None = None) -> None:
    """Take up what waits: corrections by refinement, other prompts by the network."""
    began = perf_counter()
    session = begun(visit)
    if any(corrects(prompt) for prompt in visit.prompts[visit.answered :]):
        refine(visit, progress=progress)
        return
    result = session.answer(True, progress=stoppable(visit, progress))
    keep(visit, result, propagated=True)
    visit.tell("refined", seconds=perf_counter() - began)


def suggest(visit: Visit) -> None:
    """Go to the slice most worth checking next, each time to another, until none is left."""
    session = begun(visit)
    if visit.labels is None:
        raise PromptError(visit.say("no_mask"))
    found = session.suggest(checked=visit.checked)
    if found is None:
        visit.tell("all_checked" if visit.checked else "nothing_to_check")
        visit.checked = []
        return
    visit.checked.append((found.axis, found.index, found.target))
    visit.view.axis = found.axis
    show_slice(visit, found.index)
    if found.target in visit.targets:
        visit.active = found.target
    visit.tell("check_here", index=found.index + 1, why=found.reason)


def show_uncertainty(visit: Visit, wanted: bool, progress: Progress | None = None) -> None:
    """Show how doubtful the masks are; it is computed when it is first wanted."""
    if wanted and visit.uncertainty is None:
        began = perf_counter()
        session = begun(visit)
        if visit.labels is None:
            raise PromptError(visit.say("no_mask"))
        visit.uncertainty = session.uncertainty(progress=stoppable(visit, progress))
        visit.tell("doubted", seconds=perf_counter() - began)
    visit.view.doubt = wanted


def undo(visit: Visit, progress: Progress | None = None) -> None:
    """Take back the latest prompt and what it did, or bring back what was cleared or replaced."""
    if can_step_back(visit):
        step_back(visit)
        visit.tell("brought_back", name=visit.name)
        return
    visit.opened()
    session = begun(visit)
    session.undo()
    answered = len(session.prompts) < visit.answered
    visit.undone.append(answered)
    settle(visit, session, answered, progress)
    visit.tell("undone")


def redo(visit: Visit, progress: Progress | None = None) -> None:
    """Do again what was taken back last."""
    if can_step_forward(visit):
        step_forward(visit)
        visit.tell("redone")
        return
    visit.opened()
    session = begun(visit)
    session.redo()
    settle(visit, session, visit.undone.pop() if visit.undone else False, progress)
    visit.tell("redone")


def clear(visit: Visit) -> None:
    """Start afresh on the same image; Undo brings prompts and masks back."""
    visit.opened()
    with setting_aside(visit):
        visit.session, visit.session_axis = None, "auto"
        visit.undone, visit.unsaved = [], False
        visit.forget_answer()
    visit.tell("cleared")


def say_answered(visit: Visit, seconds: float) -> None:
    if visit.propagated:
        visit.tell("pending", count=visit.pending)
    else:
        visit.tell("answered", seconds=seconds)
