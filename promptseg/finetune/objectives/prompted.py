"""Strokes answered by the network that is to learn, and learned as if they were labels."""

from __future__ import annotations

from promptseg.finetune.objectives.supervised import Supervised


class Prompted(Supervised):
    """Pseudo-labels of a promptable network (as with SAM in He et al., WS-SAM, NeurIPS 2023).

    Before training every case is segmented from its own strokes, as a user of the network would
    do it (`finetune.answered`); from then on it is a case with whole labels.
    """

    takes_strokes = True
    needs_strokes = True
    answers_strokes = True
