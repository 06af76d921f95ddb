import csv
import json

import pytest
from active_kit import sample, write_place
from PIL import Image

from promptseg.active.samples import case_of
from promptseg.active.selecting import count_of, read_chosen
from promptseg.commands.cli import main
from promptseg.errors import FormatError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("select"))


def job(place, out, *more: str) -> list[str]:
    model = ["--model", str(place / "tiny.safetensors"), "--device", "cpu", "--precision", "fp32"]
    return ["select", "--images", str(place / "images"), "-o", str(out), *model, *more]


@pytest.fixture(scope="module")
def reference(place):
    path = place / "reference.safetensors"
    assert main(job(place, path, "--adapter", str(place / "source"), "--make-reference")) == 0
    return path


class TestBudget:
    @pytest.mark.parametrize(
        ("budget", "total", "count"), [("20%", 10, 2), ("20%", 3, 1), ("3", 5, 3), ("100%", 4, 4)]
    )
    def test_count(self, budget, total, count):
        assert count_of(budget, total) == count

    @pytest.mark.parametrize("budget", ["0%", "101%", "0", "6", "many", "-1", "nan%", "1e9%"])
    def test_refusals(self, budget):
        with pytest.raises(FormatError, match="budget"):
            count_of(budget, 5)


class TestCase:
    def test_is_the_mean_of_its_slices(self):
        whole = case_of([sample("a", 4.0, entropy=1.0), sample("a", 16.0, entropy=3.0)])
        assert whole.entropy == 2.0
        assert whole.similarity == 10.0
        assert whole.feature[0] == pytest.approx(3.0)

    def test_slices_without_prediction_do_not_count_for_it(self):
        whole = case_of([sample("a", 4.0), sample("a")])
        assert whole.similarity == 4.0


class TestCommand:
    def test_stdr_writes_list_and_picture(self, place, reference, tmp_path, capsys):
        out = tmp_path / "chosen.json"
        options = ["--adapter", str(place / "source"), "--reference", str(reference)]
        assert main(job(place, out, *options, "--budget", "2", "--json")) == 0
        told = json.loads(out.read_text())
        assert json.loads(capsys.readouterr().out)["chosen"] == told["chosen"]
        assert (told["strategy"], len(told["chosen"]), told["of"]) == ("stdr", 2, 4)
        assert {row["reason"] for row in told["chosen"]} == {"similar", "dissimilar"}
        with Image.open(tmp_path / "chosen.png") as picture:
            assert min(picture.size) > 300

    def test_slices(self, place, tmp_path):
        out = tmp_path / "chosen.csv"
        options = ["--adapter", str(place / "source"), "--strategy", "entropy", "--by", "slice"]
        assert main(job(place, out, *options, "--budget", "5", "--slices", "3")) == 0
        rows = list(csv.DictReader(out.open()))
        assert len(rows) == 5
        assert all(row["slice"].isdecimal() for row in rows)

    @pytest.mark.parametrize("strategy", ["random", "cluster"])
    def test_without_an_adapter(self, place, tmp_path, strategy):
        out = tmp_path / "chosen.json"
        assert main(job(place, out, "--strategy", strategy, "--budget", "50%")) == 0
        assert len(json.loads(out.read_text())["chosen"]) == 2

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (["--strategy", "best"], "strategy 'best' is unknown"),
            (["--strategy", "entropy"], "give --adapter"),
            ([], "--reference"),
            (["--strategy", "random", "--budget", "9"], "budget"),
            (["--slices", "0"], "--slices"),
        ],
    )
    def test_bad_input(self, place, tmp_path, capsys, more, words):
        assert main(job(place, tmp_path / "chosen.json", *more)) == 2
        assert words in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    def test_reference_of_another_adapter_is_refused(self, place, reference, tmp_path, capsys):
        assert main(job(place, tmp_path / "c.json", "--reference", str(reference))) == 2
        assert "another model" in capsys.readouterr().err


class TestReadChosen:
    def test_every_form(self, tmp_path):
        (tmp_path / "a.txt").write_text("one\n\ntwo\none\n")
        (tmp_path / "a.csv").write_text("case,slice\none,1\ntwo,2\n")
        (tmp_path / "a.json").write_text('{"chosen": [{"case": "one"}, {"case": "two"}]}')
        for suffix in ("txt", "csv", "json"):
            assert read_chosen(tmp_path / f"a.{suffix}") == ["one", "two"]

    @pytest.mark.parametrize(
        ("name", "text"),
        [("a.json", "{}"), ("a.json", "["), ("a.csv", "name\none\n"), ("a.txt", "\n")],
    )
    def test_refusals(self, tmp_path, name, text):
        (tmp_path / name).write_text(text)
        with pytest.raises(FormatError):
            read_chosen(tmp_path / name)

    def test_missing(self, tmp_path):
        with pytest.raises(FormatError, match="cannot be read"):
            read_chosen(tmp_path / "none.json")
