"""The five recipes of CONTRIBUTING.md: each a file of its own and one line in a registry."""

import numpy as np
import pytest
import torch
from tracks_kit import disc

import promptseg as ps
from promptseg import backbones
from promptseg.active import strategies
from promptseg.active.samples import Sample
from promptseg.finetune import objectives
from promptseg.io.formats import FORMATS, Format
from promptseg.propagation.criteria import CRITERIA, Criterion
from promptseg.propagation.stopping import stop_criteria

FORMAT = """
import numpy as np
from promptseg.io.image import Image

def read(path, max_bytes=None):
    return Image(np.load(path), np.diag([2.0, 2.0, 3.0, 1.0]))

def write(image, path):
    with open(path, "wb") as stream:
        np.save(stream, image.data)
"""
NETWORK = """
import torch
from promptseg.backbones.base import BackboneSpec, Decoded, Embedding

class Threshold:
    spec = BackboneSpec(name="threshold", family="threshold", input_size=64, mask_size=64)
    module = torch.nn.Identity()

    def encode(self, images):
        return Embedding((images[:, :1],))

    def decode(self, embedding, prompts, multimask=False, concept=None):
        logits = 20 * (embedding.features[0].float() - 0.5)
        return Decoded(logits, torch.full((len(logits), 1), 0.9))
"""
CRITERION = """
def lopsided(seen, limit):
    rows = (seen.answer.logits > 0).nonzero()[:, 0].float()
    return float(rows.std()) > limit
"""
OBJECTIVE = """
from promptseg.finetune.objectives.base import Objective

class Halved(Objective):
    def losses(self, batch):
        return self.network.see(batch) / 2
"""
STRATEGY = '''
from promptseg.active.strategies import Choice

def choose(samples, count, rng):
    """The last names of the alphabet."""
    chosen = sorted(samples, key=lambda sample: sample.case, reverse=True)[:count]
    return [Choice(sample, None, "late") for sample in chosen]
'''


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Write a file of its own, found as a module or as a member of a package."""

    def write(name: str, text: str, package=None) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        if package is not None:
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])

    return write


class TestRecipes:
    def test_a_format(self, added, monkeypatch, tmp_path):
        added("numpy_format", FORMAT)
        monkeypatch.setitem(FORMATS, "numpy", Format("numpy", (".npy",), "numpy_format"))
        grey = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
        ps.write(ps.Volume(grey, np.eye(4)), tmp_path / "image.npy")
        volume = ps.read(tmp_path / "image.npy")
        assert np.array_equal(volume.data, grey)
        assert volume.spacing.tolist() == [2.0, 2.0, 3.0]

    def test_a_network(self, added, monkeypatch):
        added("threshold_network", NETWORK)
        monkeypatch.setitem(backbones.MAKERS, "threshold", "threshold_network:Threshold")
        data = np.zeros((24, 24, 3), np.float32)
        data[6:18, 8:16, 1] = 100
        segmenter = ps.Segmenter.from_pretrained("threshold", device="cpu", precision="fp32")
        box = ps.Box((4, 6, 1), (20, 18, 2))
        found = segmenter.segment(ps.Volume(data, np.eye(4)), [box], propagate=False, axis=2)
        assert np.array_equal(found.data > 0, data > 50)

    def test_a_criterion(self, added, monkeypatch):
        added("lopsided_criterion", CRITERION)
        from lopsided_criterion import lopsided

        monkeypatch.setitem(CRITERIA, "lopsided", Criterion(lopsided, 100.0))
        answer = disc()
        assert not stop_criteria(None).poor(answer, answer.logits)
        assert stop_criteria("lopsided=0.5").poor(answer, answer.logits)
        assert stop_criteria("lopsided=0.5").to_dict() == {"lopsided": 0.5}

    def test_an_objective(self, added, monkeypatch):
        added("halved", OBJECTIVE, objectives)
        monkeypatch.setitem(objectives.OBJECTIVES, "halved", "halved:Halved")

        class Network:
            @staticmethod
            def see(batch):
                return batch

        found = objectives.objective_class("halved")(Network())
        assert found(torch.tensor(3.0)) == 1.5

    def test_a_strategy(self, added, monkeypatch):
        added("late", STRATEGY, strategies)
        own = strategies.Strategy("late", "late", frozenset(), "the last names")
        monkeypatch.setitem(strategies.STRATEGIES, "late", own)
        samples = [Sample(name, None, None, 0.0, 0.0, 0.0) for name in "bcad"]
        chosen = strategies.strategy("late").choose(samples, 2, np.random.default_rng(0))
        assert [choice.sample.case for choice in chosen] == ["d", "c"]
