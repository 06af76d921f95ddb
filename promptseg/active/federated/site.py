"""One round at one site: going on from everyone's adapter on the site's own cases."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptseg.active.adapting import config_from
from promptseg.active.federated.privacy import Privacy
from promptseg.active.federated.update import Update, update_of
from promptseg.adapters import Adapter
from promptseg.backbones.base import Backbone
from promptseg.datasets.cohort import Images, Labels
from promptseg.finetune.running import train_adapter


@dataclass(frozen=True)
class Site:
    """A site's own data and rules.

    Args:
        images: Folder or list; they never leave.
        labels: The same, matched by file name.
        work: Folder for checkpoints.
        cases: Which of them, `N` or `A-B` in sorted order; None takes all.
        privacy: What is done to an update before it leaves.
        options: Of `FinetuneConfig`, such as the device.
    """

    images: Images
    labels: Labels
    work: Path
    cases: str | None = None
    privacy: Privacy = field(default_factory=Privacy)
    options: Mapping[str, Any] | None = None


def one_round(
    site: Site, adapter: Adapter, options: Mapping[str, Any], backbone: Backbone | None = None
) -> tuple[Update, int]:
    """Train on the site's cases and give the update as it may leave, with the number of cases.

    A round that was killed goes on from its checkpoint when it is asked for again.

    Args:
        site: Data and rules; its options win.
        adapter: Everyone's.
        options: Of the round: `steps` and so on.
        backbone: A loaded base; None loads the one the adapter names.
    """
    given = {**options, **(site.options or {})}
    if site.cases is not None:
        given["cases"] = site.cases
    config = config_from(adapter, **given)
    known = update_of(adapter)
    name = hashlib.sha256(f"{adapter.digest} {sorted(given.items())}".encode()).hexdigest()[:12]
    trained = train_adapter(
        config,
        site.images,
        site.labels,
        site.work / name,
        resume=True,
        backbone=backbone,
        start=adapter,
    )
    # Words that were learned here only are in the tokens too; nothing new may travel.
    found = {name: value for name, value in update_of(trained).items() if name in known}
    update = site.privacy.protected(found, known)
    return update, len(trained.info.training_cases)
