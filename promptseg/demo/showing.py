"""What the page shows of a visit."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from promptseg.demo.corrections import AXES, axis_name, slice_axis, trial_of
from promptseg.demo.display import Plane, data_url, draw_slice, plane_of
from promptseg.demo.sketching import sketched_plane
from promptseg.demo.visit import Visit
from promptseg.volume import Volume
from promptseg.volume.slicing import take_slice

if TYPE_CHECKING:
    from promptseg.demo.resuming import Offer

PULSE_MS = 10_000
"""How often a page asks whether its visit is still held."""

__all__ = [
    "AXES",
    "info_html",
    "labels_plane",
    "naming_json",
    "offer_html",
    "picture_json",
    "slice_jpeg",
    "targets_html",
]


def picture_json(visit: Visit) -> str:
    """The slice on the screen, as `viewer.js` reads it."""
    state = {
        "visit": visit.ident,
        "ended": visit.ended,
        # Work on a project's case is in the project's folder as soon as it is done.
        "unsaved": visit.unsaved and visit.worked and visit.case is None,
        "every": PULSE_MS,
        "texts": {key: visit.say(key) for key in ("gone", "gone_why", "lost", "lost_why",
                                                  "reload")},
    }  # fmt: skip
    if visit.volume is None:
        return json.dumps({**state, "empty": visit.say("welcome")})
    plane, index = plane_of(visit.volume, visit.view.axis), visit.view.indices[visit.view.axis]
    visit.version += 1
    return json.dumps(
        {
            **state,
            "src": slice_jpeg(visit, plane, index),
            "width": plane.size[0],
            "height": plane.size[1],
            "index": index,
            "axis": visit.view.axis,
            "count": visit.volume.shape[visit.view.axis],
            "letters": plane.letters,
            "version": visit.version,
            "colour": visit.targets[visit.active].colour,
            "label": visit.say("viewer"),
            "slice": visit.say("slice"),
            "hint": visit.say("help"),
            "second": visit.say("second_corner"),
        }
    )


def slice_jpeg(visit: Visit, plane: Plane, index: int) -> str:
    """A slice with masks, uncertainty and prompts, as a data URL."""
    volume, view = visit.opened(), visit.view
    doubt = None
    if view.doubt and visit.uncertainty is not None:
        doubt = take_slice(visit.uncertainty, plane.axis, index)
    picture = draw_slice(
        volume.data,
        plane,
        index,
        (view.low, view.high),
        labels_plane(visit, plane.axis, index),
        {label: target.colour for label, target in visit.targets.items()},
        view.opacity,
        doubt,
        visit.prompts.to_voxel(volume),
        sketched_plane(visit, plane.axis, index),
    )
    return data_url(picture)


def labels_plane(visit: Visit, axis: int, index: int) -> np.ndarray | None:
    """(rows, columns) labels of one slice, with the corrections that are previewed."""
    if visit.labels is None:
        return None
    trial = trial_of(visit)
    if trial is not None:
        return take_slice(trial.result.data, axis, index)
    if axis == slice_axis(visit) and index in visit.preview:
        return visit.preview[index][1]
    return take_slice(visit.labels, axis, index)


def info_html(visit: Visit) -> str:
    """Name, size and spacing of the image."""
    if visit.volume is None:
        return escape(visit.say("no_image"))
    volume: Volume = visit.volume
    sides = " × ".join(map(str, volume.shape))
    spacing = " × ".join(f"{value:.3g}" for value in volume.spacing)
    kind = f" · {volume.modality}" if volume.modality else ""
    along = visit.say(axis_name(volume, visit.view.axis))
    return (
        f"<strong title='{escape(visit.name, quote=True)}'>{escape(visit.name)}</strong>"
        f"<span>{sides} {visit.say('voxels')}</span>"
        f"<span>{spacing} mm{kind} · {along}</span>"
    )


def naming_json(visit: Visit) -> str:
    """Name and colour of the target that prompts are for, as `naming.js` reads them."""
    target = visit.targets[visit.active]
    return json.dumps(
        {
            "target": visit.active,
            "name": target.name,
            "colour": target.colour,
            "name_label": visit.say("target_name"),
            "colour_label": visit.say("colour"),
        }
    )


def offer_html(visit: Visit, offer: Offer) -> str:
    """What work is kept, and what to do to have it."""
    when = visit.say("offer_when", when=offer.when) if offer.when else ""
    masks = visit.say("with_masks" if offer.masks else "without_masks")
    text = visit.say("offer", name=offer.name, when=when, prompts=offer.prompts, masks=masks)
    return escape(text + ("" if offer.ready else visit.say("offer_open")))


def targets_html(visit: Visit) -> str:
    """Targets with colour, name, volume and quality, as a list to choose from."""
    rows = []
    for label, target in visit.targets.items():
        chosen = "true" if label == visit.active else "false"
        rows.append(
            f'<button type="button" data-target="{label}" aria-pressed="{chosen}">'
            f'<i style="background:{escape(target.colour, quote=True)}"></i>'
            f"<b>{escape(target.name)}</b><span>{_measured(visit, label)}</span></button>"
        )
    return "".join(rows)


def _measured(visit: Visit, label: int) -> str:
    if visit.labels is None or visit.session is None or visit.session.result is None:
        return ""
    if label not in visit.scores or not visit.propagated:
        return ""
    score = visit.say("quality", score=visit.scores[label])
    return f"<em>{visit.session.result.volume_ml(label):.1f} {visit.say('ml')}</em> {score}"
