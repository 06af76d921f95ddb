"""Flower's server: rounds of sending everyone's adapter out and averaging what comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from promptseg.active.federated.averaging import Averaged, Reply, average
from promptseg.active.federated.client import CASES, FILE
from promptseg.active.federated.update import Update, pack, unpack, update_of, with_update
from promptseg.adapters import Adapter, read_adapter, write_adapter
from promptseg.errors import AdapterError, PromptsegError
from promptseg.io.atomic import atomic_path

POLL_S = 1.0
REPORT = "federated.json"
# What the server decides of a round at a site.
TOLD = ("steps", "batch", "rate", "half", "precision")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds; each leaves its adapter in `output`, and a server that was killed goes on."""
    settings: dict[str, Any] = {**context.run_config}
    output = Path(str(settings["output"]))
    rounds = int(settings["rounds"])
    report = _report(output)
    for number in range(len(report["rounds"]) + 1, rounds + 1):
        before = _adapter(settings, output, number - 1)
        known = update_of(before)
        found = _round(grid, settings, before, known, number)
        after = with_update(before, found.update)
        write_adapter(after, output / "rounds" / f"{number:02d}")
        report["rounds"].append({"round": number, "used": found.used, "refused": found.refused})
        _write(output / REPORT, report)
    write_adapter(_adapter(settings, output, rounds), output)


def _adapter(settings: dict[str, Any], output: Path, number: int) -> Adapter:
    """The adapter after some rounds."""
    if number == 0:
        return read_adapter(str(settings["adapter"]))
    return read_adapter(output / "rounds" / f"{number:02d}")


def _round(
    grid: Grid, settings: dict[str, Any], adapter: Adapter, known: Update, number: int
) -> Averaged:
    nodes = wait_for(grid, int(settings["min-sites"]), float(settings["wait"]))
    told: dict[str, Any] = {name: settings[name] for name in TOLD if name in settings}
    sent: dict[str, Any] = {"info": adapter.info.to_json(), "round": number, "seed": number}
    sent.update(told)
    config = ConfigRecord(sent)
    arrays = ArrayRecord({FILE: Array(np.frombuffer(pack(known), np.uint8))})
    messages = [
        Message(RecordDict({"arrays": arrays, "config": config}), node, "train") for node in nodes
    ]
    answers = grid.send_and_receive(messages, timeout=float(settings["timeout"]))
    replies, failed = replies_of(answers, nodes)
    norm = float(settings.get("max-norm", 0.0))
    found = average(replies, known, norm or None)
    return Averaged(found.update, found.used, {**failed, **found.refused})


def wait_for(grid: Grid, sites: int, seconds: float) -> list[int]:
    """Nodes that are connected, once there are enough.

    Raises:
        PromptsegError: There are too few for so long.
    """
    until = time.monotonic() + seconds
    while True:
        nodes = list(grid.get_node_ids())
        if len(nodes) >= sites:
            return nodes
        if time.monotonic() > until:
            raise PromptsegError(
                f"{len(nodes)} of {sites} sites are connected after {seconds:.0f} s: start the "
                "others, or set min-sites lower"
            )
        time.sleep(POLL_S)


def replies_of(
    answers: Iterable[Message], nodes: Sequence[int]
) -> tuple[list[Reply], dict[str, str]]:
    """What the sites sent, and why others sent nothing that can be read.

    Args:
        answers: Of the round.
        nodes: That were asked.
    """
    replies: list[Reply] = []
    failed: dict[str, str] = {}
    reason = "no answer in time"
    for answer in answers:
        site = str(answer.metadata.src_node_id)
        if answer.has_error():
            # Of a site that is gone the server itself answers: who it was is who is missing.
            reason = f"the site failed: {answer.error.reason}"
            continue
        try:
            content = answer.content["arrays"][FILE].numpy().tobytes()
            cases = int(answer.content["metrics"][CASES])
            replies.append(Reply(site, unpack(content), cases))
        except (AdapterError, KeyError, TypeError, ValueError) as error:
            failed[site] = f"the reply cannot be read: {error}"
    heard = {reply.site for reply in replies} | set(failed)
    return replies, {**failed, **{str(n): reason for n in nodes if str(n) not in heard}}


def _report(output: Path) -> dict[str, Any]:
    path = output / REPORT
    if not path.is_file():
        return {"format": "promptseg-federated", "version": 1, "rounds": []}
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return held


def _write(path: Path, content: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
