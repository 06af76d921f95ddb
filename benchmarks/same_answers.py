"""Digests of what promptseg answers to fixed prompts: equal before and after a change of the code.

    python benchmarks/same_answers.py --data ../shared/data > after.txt
    PYTHONPATH=../before python benchmarks/same_answers.py --data ../shared/data > before.txt
    diff before.txt after.txt

One line a case and step: its name, then SHA-256 of the labels, of the scores and of the saved
prompts, and the voxels of each label. Prompts are read off the known labels without any chance,
so that both runs are asked the same. Only the public API is used.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import promptseg as ps


@dataclass
class Question:
    """A volume, its known labels, and what both answer.

    Args:
        name: Printed first.
        volume: Image.
        known: (I, J, K) labels.
        segmenter: Network.
    """

    name: str
    volume: ps.Volume
    known: np.ndarray
    segmenter: ps.Segmenter

    def lines(self, step: str, prompts: list, **options: object) -> str:
        """Segment, and print the digests."""
        result = self.segmenter.segment(self.volume, prompts, **options)
        return digest(f"{self.name}, {step}", result, ps.PromptSet(prompts))


def digest(name: str, result: ps.Segmentation, prompts: ps.PromptSet) -> str:
    """One line that changes with any voxel, any score and any saved prompt."""
    labels = hashlib.sha256(np.ascontiguousarray(result.data.astype(np.int64)).tobytes())
    scores = json.dumps({str(t): repr(s) for t, s in sorted(result.score.items())})
    with tempfile.TemporaryDirectory() as folder:
        prompts.save(path := Path(folder) / "prompts.json")
        saved = path.read_bytes()
    parts = [labels.hexdigest(), *(hashlib.sha256(b).hexdigest() for b in (scores.encode(), saved))]
    counts = {int(t): int((result.data == t).sum()) for t in np.unique(result.data) if t}
    return f"{name}: {' '.join(part[:16] for part in parts)} {counts}"


def largest_slice(mask: np.ndarray, axis: int) -> int:
    """Where a mask is largest."""
    return int(mask.sum(axis=tuple(a for a in range(3) if a != axis)).argmax())


def box(mask: np.ndarray, axis: int = 2, target: int = 1) -> ps.Box:
    """Box two pixels wider than a mask on its largest slice."""
    index = largest_slice(mask, axis)
    places = np.argwhere(np.take(mask, [index], axis))
    low, high = np.maximum(places.min(0) - 2, 0), np.minimum(places.max(0) + 3, mask.shape)
    low[axis], high[axis] = index, index + 1
    return ps.Box(tuple(map(int, low)), tuple(map(int, high)), target)


def centre(mask: np.ndarray, axis: int = 2, target: int = 1, **options: bool) -> ps.Point:
    """Click on the voxel of a mask's largest slice that is nearest to its centre."""
    places = np.argwhere(np.take(mask, [largest_slice(mask, axis)], axis)).astype(float)
    places[:, axis] = largest_slice(mask, axis)
    nearest = np.linalg.norm(places - places.mean(0), axis=1).argmin()
    return ps.Point(tuple(map(float, places[nearest])), target=target, **options)


def atrium(data: Path, plain: ps.Segmenter) -> Iterator[str]:
    """Left atrium 57: box, click, words, and a session with corrections."""
    taught = ps.Segmenter.from_pretrained("default", "left_atrium", device="cpu", precision="fp32")
    volume, known = case(data / "left_atrium", 57)
    for name, segmenter in (("atrium", plain), ("atrium with its adapter", taught)):
        ask = Question(name, volume, known, segmenter)
        yield ask.lines("box", [box(known)])
        yield ask.lines("click", [centre(known)])
        yield ask.lines("words", [ps.Text("left atrium")])
    session = plain.session(volume)
    session.add(box(known))
    first = session.propagate()
    for mode in ("network", "graph_cut", "both"):
        wrong = (session.result.data == 0) & known
        session.add(centre(wrong))
        yield digest(f"atrium, corrected by {mode}", session.refine(mode), session.prompts)
    session.undo(), session.undo(), session.undo()
    yield digest("atrium, undone", session.propagate(), session.prompts)
    yield f"atrium, undone is the first answer: {bool((session.result.data == first.data).all())}"
    yield f"atrium, suggestion: {session.suggest()}"


def phantom(data: Path, plain: ps.Segmenter) -> Iterator[str]:
    """Kidneys and liver of the synthetic CT."""
    from promptseg.datasets.phantom import abdomen_phantom

    volume, labels, names = abdomen_phantom()
    number = {name: label for label, name in names.items()}
    ask = Question("phantom", volume, labels, plain)
    for organ in ("left kidney", "right kidney", "liver"):
        yield ask.lines(f"{organ}, box", [box(labels == number[organ])])
        yield ask.lines(f"{organ}, click", [centre(labels == number[organ])])
    kidneys = [labels == number[side] for side in ("left kidney", "right kidney")]
    both = [box(mask, 2, target) for target, mask in enumerate(kidneys, start=1)]
    yield ask.lines("both kidneys", both)
    yield ask.lines("kidney, coronal", [box(kidneys[0], 1)], axis="coronal")
    yield ask.lines("kidney, one slice", [box(kidneys[0])], propagate=False)
    yield ask.lines("kidney, uncertainty", [box(kidneys[0])], uncertainty=True)


def heart(data: Path, plain: ps.Segmenter) -> Iterator[str]:
    """ACDC, patient 71, first frame."""
    volume, labels = case(data / "acdc", 141)
    ask = Question("acdc", volume, labels, plain)
    for label in (1, 2, 3):
        yield ask.lines(f"label {label}, box", [box(labels == label)])
    yield ask.lines("left ventricle, click", [centre(labels == 3)])
    away = ps.Point(centre(labels == 1).at, positive=False)
    yield ask.lines("left ventricle, clicks", [centre(labels == 3), away])
    yield ask.lines("words", [ps.Text("left ventricle"), ps.Text("myocardium", 2)])


def hippocampus(data: Path, plain: ps.Segmenter) -> Iterator[str]:
    """The first hippocampus of those held back."""
    volume, labels = case(data / "hippocampus", 161)
    ask = Question("hippocampus", volume, labels, plain)
    yield ask.lines("box", [box(labels > 0)])
    yield ask.lines("click", [centre(labels > 0)])
    yield ask.lines("both parts", [box(labels == 1, 2, 1), box(labels == 2, 2, 2)])
    places = np.argwhere(labels > 0)
    ends = [places[places[:, a].argsort()[n]] for a in range(3) for n in (0, -1)]
    margin = ps.MarginPoints([tuple(map(float, place)) for place in ends])
    yield ask.lines("margin points", [margin])
    strokes = np.argwhere(labels == 1)[::7]
    yield ask.lines("scribble", [ps.Scribble(strokes)])


def case(folder: Path, number: int) -> tuple[ps.Volume, np.ndarray]:
    """The nth image of a folder in sorted order, counted from 1, and its labels."""
    image = sorted((folder / "images").iterdir())[number - 1]
    labels = ps.read(folder / "labels" / image.name).data
    return ps.read(image), labels.astype(bool) if labels.max() == 1 else labels


CASES: dict[str, Callable[[Path, ps.Segmenter], Iterator[str]]] = {
    "hippocampus": hippocampus,
    "acdc": heart,
    "phantom": phantom,
    "atrium": atrium,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=CASES, nargs="*", default=list(CASES))
    arguments = parser.parse_args()
    plain = ps.Segmenter.from_pretrained("default", device="cpu", precision="fp32")
    for name in arguments.only:
        for line in CASES[name](arguments.data, plain):
            print(line, flush=True)


if __name__ == "__main__":
    main()
