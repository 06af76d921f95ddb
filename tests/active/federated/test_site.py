import json

import pytest
import torch
from active_kit import write_place

from promptseg.active.federated.app import write_app
from promptseg.active.federated.averaging import Reply, average
from promptseg.active.federated.privacy import Privacy
from promptseg.active.federated.site import Site, one_round
from promptseg.active.federated.update import distance, update_of, with_update
from promptseg.adapters import read_adapter, write_adapter
from promptseg.commands.cli import main
from promptseg.errors import FormatError
from promptseg.io.toml_text import parse_toml

SHORT = {"steps": 1, "batch": 1, "device": "cpu", "precision": "fp32", "half": 0.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("sites"))


def site(place, cases: str, **more) -> Site:
    options = {"backbone": str(place / "tiny.safetensors")}
    work = place / f"work{cases}"
    return Site(place / "images", place / "labels", work, cases, options=options, **more)


class TestRounds:
    def test_two_sites_two_rounds(self, place):
        adapter = read_adapter(place / "source")
        for _ in range(2):
            known = update_of(adapter)
            replies = []
            for name, cases in (("a", "1-2"), ("b", "3-4")):
                update, count = one_round(site(place, cases), adapter, SHORT)
                assert count == 2
                replies.append(Reply(name, update, count))
            found = average(replies, known)
            assert set(found.used) == {"a", "b"}
            assert distance(found.update, known) > 0
            adapter = with_update(adapter, found.update)
        written = write_adapter(adapter, place / "everyone")
        assert written.info.labels == {1: "disc"}

    def test_update_leaves_clipped(self, place):
        adapter = read_adapter(place / "source")
        near = site(place, "1-1", privacy=Privacy(clip=1e-4))
        update, _ = one_round(near, adapter, SHORT)
        assert distance(update, update_of(adapter)) <= 1.1e-4

    def test_round_that_was_done_is_not_done_again(self, place):
        adapter = read_adapter(place / "source")
        first, _ = one_round(site(place, "2-2"), adapter, SHORT)
        again, _ = one_round(site(place, "2-2"), adapter, SHORT)
        assert all(torch.equal(first[name], again[name]) for name in first)


class TestApp:
    def test_file(self, place, tmp_path):
        path = write_app(tmp_path / "app", place / "source", tmp_path / "out", rounds=3)
        told = parse_toml(path.read_text())["tool"]["flwr"]["app"]
        assert told["config"]["rounds"] == 3
        assert told["config"]["adapter"] == str((place / "source").resolve())
        assert told["components"]["clientapp"] == "promptseg.active.federated.client:app"

    def test_unknown_setting(self, place, tmp_path):
        with pytest.raises(FormatError, match="no setting"):
            write_app(tmp_path / "app", place / "source", tmp_path / "out", turns=3)


class TestCommand:
    def test_average(self, place, tmp_path, capsys):
        adapter = read_adapter(place / "source")
        for name, by in (("a", 0.1), ("b", 0.3)):
            update = {k: v + by for k, v in update_of(adapter).items()}
            write_adapter(with_update(adapter, update), tmp_path / name)
        out = tmp_path / "mean"
        given = [str(tmp_path / "a"), str(tmp_path / "b"), "--start", str(place / "source")]
        assert main(["federated", "average", *given, "-o", str(out), "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["used"]) == 2
        assert torch.allclose(read_adapter(out).tokens[1], adapter.tokens[1] + 0.2, atol=1e-3)

    def test_nothing_usable(self, place, tmp_path, capsys):
        given = [str(place / "source"), "--start", str(place / "source"), "--max-norm", "-1"]
        assert main(["federated", "average", *given, "-o", str(tmp_path / "out")]) == 2
        assert "moved by" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_app(self, place, tmp_path):
        given = [str(tmp_path / "app"), "--adapter", str(place / "source"), "-o", str(tmp_path)]
        assert main(["federated", "app", *given]) == 0
        assert (tmp_path / "app" / "pyproject.toml").is_file()

    def test_epsilon(self, capsys):
        pytest.importorskip("opacus", reason="opacus is not installed: promptseg[federated]")
        assert main(["federated", "epsilon", "--noise", "4", "--rounds", "5", "--json"]) == 0
        assert 0 < json.loads(capsys.readouterr().out)["epsilon"] < 10
