"""Flower's client: `flower-supernode` runs it at a site.

The site's own settings come from `--node-config` and stay there: `images`, `labels`, `work`, and
if wanted `cases`, `device`, `model`, `clip`, `noise`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from promptseg.active.federated.privacy import Privacy
from promptseg.active.federated.site import Site, one_round
from promptseg.active.federated.update import pack, unpack, with_update
from promptseg.adapters import Adapter
from promptseg.adapters.info import info_of
from promptseg.errors import FormatError

FILE = "adapter.safetensors"
CASES = "num-examples"
app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Go on from everyone's adapter on this site's cases."""
    content = message.content
    settings: dict[str, Any] = {**content["config"]}
    info = info_of(json.loads(str(settings.pop("info"))), "the server's adapter")
    update = unpack(content["arrays"][FILE].numpy().tobytes())
    adapter = with_update(Adapter("federated", info), update)
    found, cases = one_round(site_of({**context.node_config}), adapter, options_of(settings))
    array = Array(np.frombuffer(pack(found), np.uint8))
    told = {"arrays": ArrayRecord({FILE: array}), "metrics": MetricRecord({CASES: cases})}
    return Message(content=RecordDict(told), reply_to=message)


def site_of(config: dict[str, Any]) -> Site:
    """The site's own settings.

    Raises:
        FormatError: A folder is not named.
    """
    for name in ("images", "labels", "work"):
        if not config.get(name):
            raise FormatError(f'--node-config lacks {name}: give {name}="FOLDER"')
    clip = config.get("clip")
    privacy = Privacy(None if clip is None else float(clip), float(config.get("noise", 0.0)))
    own = {name: str(config[given]) for name, given in (("device", "device"), ("backbone", "model"))
           if config.get(given)}  # fmt: skip
    cases = config.get("cases")
    return Site(
        Path(str(config["images"])),
        Path(str(config["labels"])),
        Path(str(config["work"])),
        None if cases is None else str(cases),
        privacy,
        own,
    )


def options_of(settings: dict[str, Any]) -> dict[str, Any]:
    """What the server may decide of a site's training: its length, and nothing about files."""
    allowed = {"steps": int, "batch": int, "rate": float, "seed": int, "precision": str,
               "half": float}  # fmt: skip
    return {name: kind(settings[name]) for name, kind in allowed.items() if name in settings}
