"""What a network can segment by name on its own, as an adapter that changes nothing in it."""

from __future__ import annotations

from promptseg.adapters.files import Adapter
from promptseg.adapters.info import AdapterInfo
from promptseg.adapters.stack import base_digest
from promptseg.backbones.base import Backbone, KnowsNames
from promptseg.volume.orientation import CANONICAL

OWN = "own names"


def own_info(backbone: Backbone) -> AdapterInfo | None:
    """What a backbone knows by name; None if it knows nothing."""
    spec = backbone.spec
    if not spec.names:
        return None
    return AdapterInfo(
        organ="structures that the model has learnt by name",
        labels=dict(enumerate(spec.names, 1)),
        backbone=spec.name,
        family=spec.family,
        base_sha256=base_digest(backbone),
        method="none",
        rank=0,
        targets=(),
        decoder="frozen",
        orientation=CANONICAL,
        licence=spec.licence,
    )


def own_adapter(backbone: Backbone) -> Adapter | None:
    """The backbone's own tokens as an adapter; None if it knows nothing by name."""
    info = own_info(backbone)
    if info is None or not isinstance(backbone, KnowsNames):
        return None
    tokens = backbone.named_tokens()
    return Adapter(OWN, info, tokens=dict(zip(info.labels, tokens, strict=True)))
