"""What a program can call, through `gradio_client`.

Every client has a session of its own, as every browser tab has: it opens an image, gives prompts,
propagates, corrects, and fetches the files.

    from gradio_client import Client, handle_file

    client = Client("http://127.0.0.1:7860")                     # auth=("me", password) if needed
    client.predict(handle_file("ct.nii.gz"), api_name="/open")   # or api_name="/open_sample"
    client.predict([60, 72, 44], [95, 110, 45], 1, api_name="/add_box")
    client.predict([70, 80, 44], True, 1, api_name="/add_point")
    client.predict(api_name="/propagate")
    client.predict([70, 80, 50], False, 1, api_name="/add_point")
    client.predict("graph_cut", api_name="/refine")
    client.predict(api_name="/undo")
    path = client.predict(api_name="/download_mask")

Coordinates are voxels (i, j, k) of the file, as in `promptseg.Point`. What is refused raises
`gradio_client.exceptions.AppError` with the same message as in Python.

| endpoint | arguments | gives |
|---|---|---|
| /open | file, series ("" unless a zip file holds several DICOM series) | state |
| /open_sample | | state |
| /choose_model | model, adapter ("" for none) | state |
| /choose_window | window as in `Segmenter.segment` | state |
| /add_point | at, positive, target | state |
| /add_box | lo, hi (half-open), target | state |
| /add_scribble | voxels, positive, target | state |
| /add_text | words, target | state |
| /postprocess | steps as in `promptseg.postprocess`, [] for none | state |
| /propagate | | state |
| /refine | mode: graph_cut, network or both | state |
| /undo, /redo, /clear | | state |
| /suggest | | state, with the slice in `check` |
| /state | | state |
| /slice | axis, index | the slice as a JPEG data URL |
| /python | | the same steps as a Python program |
| /download_mask | format ("" for `.nii.gz`) | path of the file |
| /download_prompts, /download_report, /download_review, /download_session | | path of the file |

Cases of a project have endpoints of their own: `promptseg.demo.case_api`.

State: `image` (name, shape, spacing), `case` (of a project, or None), `model`, `adapter`,
`prompts` and `pending` (counts), `propagated`, `targets` ({label: name, voxels, ml, score}),
`notes` (what should be known of the answer), `message`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from promptseg.demo import actions, looking
from promptseg.demo.display import plane_of
from promptseg.demo.downloads import write_download
from promptseg.demo.finishing import choose_steps
from promptseg.demo.opening import open_directly
from promptseg.demo.python_code import SAMPLE, python_code
from promptseg.demo.screen import LONG, QUICK
from promptseg.demo.server import Server
from promptseg.demo.showing import slice_jpeg
from promptseg.demo.uploads import without_folders
from promptseg.demo.visit import Visit
from promptseg.demo.words import give_words
from promptseg.errors import PromptError
from promptseg.prompts.types import Box, Point, Scribble, Text
from promptseg.volume.slicing import resolve_axis

State = dict[str, Any]


def add_api(server: Server) -> None:
    """Add the endpoints to the current `gr.Blocks`."""
    _add_opening(server)
    _add_prompting(server)
    _add_work(server)
    _add_looking(server)


def _add_opening(server: Server) -> None:
    def open(file: dict, request: gr.Request, series: str = "") -> dict:
        """Open an uploaded image; of a zip file with several DICOM series the one that is named."""
        path = Path(str(file["path"]))
        return act(server, request, lambda visit: open_directly(
            visit, server, [path], path.name, series))  # fmt: skip

    def open_sample(request: gr.Request) -> dict:
        """Open the synthetic CT."""
        return act(server, request, lambda visit: looking.open_volume(
            visit, server.sample(), SAMPLE, server.visits))  # fmt: skip

    def choose_model(model: str, adapter: str, request: gr.Request) -> dict:
        """Use another model or adapter."""
        return act(server, request, lambda visit: looking.choose_model(
            visit, server.models, model, adapter or None))  # fmt: skip

    def choose_window(window: str, request: gr.Request) -> dict:
        """Show the image, to you and to the model, in another window."""

        def work(visit: Visit) -> None:
            looking.choose_model_window(visit, window)
            looking.choose_preset(visit, window)

        return act(server, request, work)

    for work in (open, open_sample, choose_model, choose_window):
        publish(work, QUICK)


def _add_prompting(server: Server) -> None:
    def add_point(at: list[float], positive: bool, target: int, request: gr.Request) -> dict:
        """Add a click and answer its slice."""
        return _give(server, request, Point(tuple(at), positive, target))  # type: ignore[arg-type]

    def add_box(lo: list[float], hi: list[float], target: int, request: gr.Request) -> dict:
        """Add a half-open box and answer its slice."""
        return _give(server, request, Box(tuple(lo), tuple(hi), target))  # type: ignore[arg-type]

    def add_scribble(
        voxels: list[list[float]], positive: bool, target: int, request: gr.Request
    ) -> dict:
        """Add a stroke and answer its slices."""
        return _give(server, request, Scribble(np.array(voxels), positive, target))

    def add_text(words: str, target: int, request: gr.Request) -> dict:
        """Name a target and look for it in the whole volume."""
        return act(
            server,
            request,
            lambda visit: give_words(visit, server.models, Text(words, target)),
            True,
        )

    def undo(request: gr.Request) -> dict:
        """Take back the latest prompt."""
        return act(server, request, actions.undo)

    def redo(request: gr.Request) -> dict:
        """Give again what was taken back."""
        return act(server, request, actions.redo)

    def clear(request: gr.Request) -> dict:
        """Forget prompts and masks."""
        return act(server, request, actions.clear)

    for work in (add_point, add_box, add_scribble, undo, redo, clear):
        publish(work, QUICK)
    publish(add_text, LONG)


def _add_work(server: Server) -> None:
    def propagate(request: gr.Request) -> dict:
        """Carry the masks through the volume."""
        return act(server, request, lambda visit: actions.propagate(visit, server.models), True)

    def refine(mode: str, request: gr.Request) -> dict:
        """Take up the corrections since the last 3D mask."""
        return act(server, request, lambda visit: actions.refine(visit, mode), True)  # type: ignore[arg-type]

    def postprocess(steps: list[str], request: gr.Request) -> dict:
        """Do these steps to every mask from now on."""
        return act(server, request, lambda visit: choose_steps(visit, steps))

    for work in (propagate, refine, postprocess):
        publish(work, LONG)


def _add_looking(server: Server) -> None:
    def state(request: gr.Request) -> dict:
        """What is open and what was found."""
        return state_of(server.visits.of(request.session_hash))

    def suggest(request: gr.Request) -> dict:
        """The slice most worth checking next."""
        return act(server, request, actions.suggest)

    def slice(axis: str, index: int, request: gr.Request) -> str:
        """One slice with masks and prompts, as a JPEG data URL."""
        visit = server.visits.of(request.session_hash)
        with _refusing(visit):
            volume = visit.opened()
            plane = plane_of(volume, resolve_axis(axis, volume.affine))
            if not 0 <= index < volume.shape[plane.axis]:
                raise PromptError(f"slice {index}: valid 0 to {volume.shape[plane.axis] - 1}")
            return slice_jpeg(visit, plane, index)

    def python(request: gr.Request) -> str:
        """The same steps as a Python program."""
        return python_code(server.visits.of(request.session_hash))

    for work in (state, suggest, slice, python):
        publish(work, QUICK)
    for kind in ("prompts", "report", "review", "session"):
        _add_download(server, kind)

    def download_mask(request: gr.Request, format: str = "") -> gr.FileData:
        """The masks, as a file: `.nii.gz`, `.nrrd`, `.seg.nrrd`, `rtstruct` or `seg`."""
        return _written(server, request, "mask", format)

    publish(download_mask, QUICK)


def _written(server: Server, request: gr.Request, kind: str, format: str = "") -> gr.FileData:
    visit = server.visits.of(request.session_hash)
    folder = server.new_folder(visit)
    with _refusing(visit), visit.exclusive():
        path = write_download(visit, kind, folder, format)
    return gr.FileData(path=str(path), orig_name=path.name)


def _add_download(server: Server, kind: str) -> None:
    def download(request: gr.Request) -> gr.FileData:
        return _written(server, request, kind)

    download.__name__ = f"download_{kind}"
    download.__doc__ = f"The {kind}, as a file."
    publish(download, QUICK)


def state_of(visit: Visit) -> State:
    """A visit in plain values."""
    volume, session = visit.volume, visit.session
    found = None if session is None or visit.labels is None else session.result
    targets = {
        str(label): {
            "name": target.name,
            "voxels": 0 if visit.labels is None else int(np.sum(visit.labels == label)),
            "ml": None if found is None else found.volume_ml(label),
            "score": visit.scores.get(label),
        }
        for label, target in visit.targets.items()
    }
    image = None
    if volume is not None:
        spacing = [float(value) for value in volume.spacing]
        image = {"name": visit.name, "shape": list(volume.shape), "spacing": spacing}
    return {
        "image": image,
        "case": None if visit.case is None else visit.case.name,
        "model": visit.model,
        "adapter": visit.adapter,
        "prompts": len(visit.prompts),
        "pending": visit.pending,
        "propagated": visit.propagated,
        "targets": targets,
        "check": None if volume is None else [visit.view.axis, visit.view.indices[visit.view.axis]],
        "notes": list(visit.notes),
        "message": visit.message[1],
    }


def _give(server: Server, request: gr.Request, prompt: Point | Box | Scribble) -> State:
    return act(server, request, lambda visit: actions.give(visit, server.models, prompt))


def act(
    server: Server, request: gr.Request, work: Callable[[Visit], object], long: bool = False
) -> State:
    """Do something for a client and give the state; what is refused becomes an error there."""
    visit = server.visits.of(request.session_hash)
    if not server.attempt(visit, lambda: work(visit), long):
        raise gr.Error(visit.message[1], print_exception=False)
    return state_of(visit)


class _refusing:
    """Turns a refusal into the error that a client sees."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from promptseg.errors import PromptsegError

        if isinstance(error, PromptsegError):
            raise gr.Error(without_folders(str(error)), print_exception=False) from error


def publish(work: Callable[..., Any], options: dict[str, Any]) -> None:
    """Make a function an endpoint of its own name."""
    limits = {key: options[key] for key in ("concurrency_id", "concurrency_limit")}
    gr.api(work, api_name=work.__name__, api_description=work.__doc__, **limits)
