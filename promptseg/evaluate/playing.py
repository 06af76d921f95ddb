"""One simulated interaction: the network answers, the user corrects, baselines see the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from promptseg.datasets.simulation.clicks import Mask, corrective_click
from promptseg.errors import PromptError
from promptseg.evaluate.protocols import first_prompts
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import Task
from promptseg.prompts.types import Box, Point, Prompt, PromptSet, Scribble
from promptseg.prompts.types import Mask as MaskPrompt
from promptseg.volume import Segmentation

if TYPE_CHECKING:
    from promptseg.evaluate.baselines import Scene
    from promptseg.session import RefineMode, Segmenter, Session


@dataclass
class Played:
    """What happened to one task.

    Args:
        task: What was segmented.
        prompts: In the order they were given.
        masks: Answers in the view, one after the first prompts and one after each click.
        seconds: One for each answer.
        against: The same for every baseline; None where it cannot answer.
        candidates: All masks that one click on a slice could mean; else empty.
    """

    task: Task
    prompts: list[Prompt]
    masks: list[Mask]
    seconds: list[float]
    against: dict[str, list[Mask | None]] = field(default_factory=dict)
    candidates: list[Mask] = field(default_factory=list)


def play(segmenter: Segmenter, task: Task, settings: Settings) -> Played:
    """Run one interaction.

    Args:
        segmenter: Answers the prompts.
        task: Its target must not be empty.
        settings: Protocol, clicks and baselines.

    Raises:
        PromptError: The model cannot use the protocol's prompts.
    """
    rng = np.random.default_rng(task.seed)
    steps = [first_prompts(task, settings, rng)]
    player = Player(segmenter, task, settings.refine, "graph_cut" in settings.against)
    played = Played(task, [], [], [])
    for number in range(rounds(settings) + 1):
        if number:
            click = _click(played.masks[-1], task, rng)
            if click is None:
                break
            steps.append([click])
        mask, seconds = player.answer(steps[-1])
        played.masks.append(mask)
        played.seconds.append(seconds)
    played.prompts = [prompt for step in steps for prompt in step]
    if settings.protocol == "point" and task.index is not None:
        played.candidates = [task.view(c.mask).copy() for c in player.session.candidates()]
    for name in settings.against:
        played.against[name] = replay(name, segmenter, task, steps, player.probability)
    return played


def rounds(settings: Settings) -> int:
    """Corrective clicks after the first prompts; a first click counts among the clicks."""
    if not settings.corrects:
        return 0
    return settings.clicks - (settings.start == "point")


class Player:
    """Gives prompts to a session as a user would.

    Args:
        segmenter: Network, device and precision.
        task: What is segmented.
        refine: How clicks correct, as in `Settings`.
        keep_probability: True to keep the foreground probability of the first answer.
    """

    def __init__(
        self, segmenter: Segmenter, task: Task, refine: RefineMode, keep_probability: bool = False
    ) -> None:
        self.session: Session = segmenter.session(task.volume, task.axis, task.window)
        self.task, self.refine, self.keep = task, refine, keep_probability
        self.probability: np.ndarray | None = None
        self._answered = False

    def answer(self, prompts: list[Prompt]) -> tuple[Mask, float]:
        """Add prompts; give the mask in the view and the seconds it took."""
        began = perf_counter()
        self.session.add(*prompts)
        if self._answered and self.refine != "network":
            result = self.session.refine(self.refine)
        else:
            result = self.session.answer(self.task.index is None)
        seconds = perf_counter() - began
        if self.keep and not self._answered:
            self.probability = self.task.view(self.session.probability())
        self._answered = True
        return self.task.view(result.data == 1).copy(), seconds


def replay(
    name: str,
    segmenter: Segmenter,
    task: Task,
    steps: list[list[Prompt]],
    probability: np.ndarray | None,
) -> list[Mask | None]:
    """A baseline's masks after the same prompts, one for each step."""
    if name == "network":
        player = Player(segmenter, task, "network")
        return [player.answer(step)[0] for step in steps]
    from promptseg.evaluate.baselines import BASELINES

    given: list[Prompt] = []
    answers = []
    for step in steps:
        given += step
        answers.append(BASELINES[name](scene_of(task, given, probability)))
    return answers


def scene_of(task: Task, prompts: list[Prompt], probability: np.ndarray | None = None) -> Scene:
    """Image and prompts of a task's view, for a baseline."""
    from promptseg.evaluate.baselines import Scene
    from promptseg.volume.intensity import choose_window, normalise

    seeds = np.zeros((2, *task.volume.shape), bool)
    box = None
    for prompt in PromptSet(prompts).to_voxel(task.volume):
        if isinstance(prompt, Point):
            i, j, k = (int(np.floor(c + 0.5)) for c in prompt.at)
            seeds[:, i, j, k] = prompt.positive, not prompt.positive
        elif isinstance(prompt, Scribble):
            seeds[0 if prompt.positive else 1][tuple(prompt.voxels.T)] = True
        elif isinstance(prompt, Box):
            box = prompt
        elif isinstance(prompt, MaskPrompt):
            raise PromptError("baselines take points, boxes and scribbles")
    image = normalise(task.view(task.volume.data), choose_window(task.volume, task.window))
    corners = None if box is None else (_in_view(task, box.lo), _in_view(task, box.hi))
    inside, outside = (np.ascontiguousarray(task.view(side)) for side in seeds)
    return Scene(image, task.spacing, inside, outside, corners, probability)


def _in_view(task: Task, voxel: tuple[float, ...]) -> tuple[int, ...]:
    kept = [a for a in range(3) if task.index is None or a != task.axis]
    return tuple(int(voxel[a]) for a in kept)


def _click(prediction: Mask, task: Task, rng: np.random.Generator) -> Point | None:
    found = corrective_click(prediction, task.target, task.spacing, rng)
    return None if found is None else Point(task.voxel(found[0]), found[1])


def play_whole(segmenter: Segmenter, task: Task, settings: Settings) -> Played:
    """Run a protocol without places (text, auto) once on the whole volume.

    Raises:
        PromptError: The model knows no organ.
    """
    began = perf_counter()
    prompts = first_prompts(task, settings, np.random.default_rng(task.seed))
    try:
        result = segmenter.segment(task.volume, prompts, axis=task.axis, window=task.window)
    except PromptError as error:
        raise PromptError(
            f"protocol {settings.protocol} needs a model that knows its organ: {error}"
        ) from error
    target = 1 if prompts else answered_label(result, task.label)
    return Played(task, prompts, [result.data == target], [perf_counter() - began])


def answered_label(result: Segmentation, label: int) -> int:
    """Label of an unprompted answer to compare with `label`: the same, or the only one there is.

    Raises:
        PromptError: There are several others.
    """
    if label in result.targets or not result.targets:
        return label
    if len(result.targets) > 1:
        raise PromptError(
            f"label {label} is none of the model's labels {list(result.targets)}: give one of them"
        )
    return result.targets[0]
