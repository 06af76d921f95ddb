"""Loading the compiled graph cut while the user still looks at the first answer."""

from __future__ import annotations

import threading

import numpy as np

_started = threading.Event()


def prepare_refinement() -> None:
    """Load the graph cut in the background, once a process.

    numba compiles it when it is first used on a machine, some seconds, and then reads it from
    its cache; either way before the first corrective click, and not during it.
    """
    if not _started.is_set():
        _started.set()
        threading.Thread(target=_refine_once, name="promptseg-ahead").start()


def _refine_once() -> None:
    from promptseg.refine import graph_cut_refine

    image = np.linspace(0, 1, 27, dtype=np.float32).reshape(3, 3, 3)
    graph_cut_refine(image, image, [[0, 0, 0]], [[2, 2, 2]])
