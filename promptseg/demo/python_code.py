"""What was just done, as Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptseg.prompts.types import Box, Point, Prompt, Text

if TYPE_CHECKING:
    from promptseg.demo.visit import Visit

SAMPLE = "sample.nii.gz"
_MOST_INLINE = 24


def python_code(visit: Visit) -> str:
    """A program that gives the mask of this page again."""
    if visit.volume is None:
        return 'import promptseg as ps\n\nvolume = ps.read("ct.nii.gz")'
    lines = ["import promptseg as ps", *_volume_lines(visit), *_segmenter_lines(visit)]
    if not len(visit.prompts) and visit.labels is None:
        return "\n".join(lines)
    options = (
        f"axis={visit.session_axis!r}, window={visit.model_window!r}, propagate={visit.propagated}"
    )
    lines += ["", *_prompt_lines(visit), f"result = segmenter.segment(volume, prompts, {options})"]
    if visit.post:
        lines += [f"result = ps.postprocess(result, {list(visit.post)!r}, volume)"]
    lines += ['result.save("mask.nii.gz")']
    names = {t: visit.targets[t].name for t in visit.scores if t in visit.targets}
    lines += [f"print(result.volume_ml({t}))  # {name}, ml" for t, name in names.items()]
    return "\n".join(lines)


def _volume_lines(visit: Visit) -> list[str]:
    if visit.name == SAMPLE:
        return [
            "from promptseg.datasets.phantom import abdomen_phantom",
            "",
            "volume, _, _ = abdomen_phantom()",
        ]
    return ["", f"volume = ps.read({visit.name!r})"]


def _segmenter_lines(visit: Visit) -> list[str]:
    adapter = "" if visit.adapter is None else f", adapter={visit.adapter!r}"
    return [f"segmenter = ps.Segmenter.from_pretrained({visit.model!r}{adapter})"]


def _prompt_lines(visit: Visit) -> list[str]:
    given = visit.prompts[: visit.answered] if visit.labels is not None else visit.prompts
    plain = all(isinstance(prompt, (Point, Box, Text)) for prompt in given)
    if not plain or len(given) > _MOST_INLINE:
        return ['prompts = ps.PromptSet.load("prompts.json")  # Download: Prompts']
    return ["prompts = [", *(f"    {written(prompt)}," for prompt in given), "]"]


def written(prompt: Prompt) -> str:
    """Python that makes a point, a box or a text."""
    options: dict[str, Any] = {}
    if isinstance(prompt, Point):
        head = f"ps.Point({_numbers(prompt.at)}"
        options |= {} if prompt.positive else {"positive": False}
    elif isinstance(prompt, Box):
        head = f"ps.Box({_numbers(prompt.lo)}, {_numbers(prompt.hi)}"
    else:
        head = f"ps.Text({getattr(prompt, 'words', '')!r}"
    options |= {} if prompt.target == 1 else {"target": prompt.target}
    role = getattr(prompt, "role", None)
    options |= {} if role is None else {"role": role}
    return head + "".join(f", {key}={value!r}" for key, value in options.items()) + ")"


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{float(value):g}" if float(value).is_integer() else repr(float(value))
                           for value in values) + ")"  # fmt: skip
