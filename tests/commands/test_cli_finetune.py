import json
import shutil

import pytest
from adapter_kit import write_cohort
from support import tiny_network

from promptseg.backbones.default import save_default
from promptseg.commands.cli import main

SHORT = ["--steps", "2", "--batch", "1", "--rank", "2", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model file, a cohort, and an adapter that was trained through the command line."""
    root = tmp_path_factory.mktemp("cli")
    save_default(tiny_network(), root / "tiny.safetensors", {})
    write_cohort(root, 3)
    return root


def job(place, *more: str) -> list[str]:
    data = ["--images", str(place / "images"), "--labels", str(place / "labels")]
    return ["finetune", *data, "--model", str(place / "tiny.safetensors"), *SHORT, *more]


@pytest.fixture(scope="module")
def adapter(place):
    out = place / "adapters" / "disc"
    assert main(job(place, "--organ", "disc", "-o", str(out))) == 0
    return out


class TestFinetune:
    def test_dry_run_writes_nothing(self, place, capsys):
        before = sorted(place.rglob("*"))
        assert main(job(place, "--organ", "disc", "--dry-run", "--json")) == 0
        plan = json.loads(capsys.readouterr().out)
        assert (plan["training_cases"], plan["validation_cases"], plan["steps"]) == (2, 1, 2)
        assert plan["trainable"] < plan["total"]
        assert sorted(place.rglob("*")) == before

    def test_the_plan_says_what_was_made_of_the_folders(self, place, tmp_path, capsys):
        images, labels = tmp_path / "imagesTr", tmp_path / "labelsTr"
        shutil.copytree(place / "images", images)
        shutil.copytree(place / "labels", labels)
        for path in sorted(labels.iterdir()):
            path.rename(path.with_name(path.name.replace(".nii", "_seg.nii")))
        told = {"labels": {"background": 0, "left ventricle": 1}}
        (tmp_path / "dataset.json").write_text(json.dumps(told))
        arguments = ["--organ", "disc", "--dry-run"]
        data = ["--images", str(tmp_path), "--labels", str(tmp_path)]
        model = ["--model", str(place / "tiny.safetensors")]
        assert main(["finetune", *data, *model, *SHORT, *arguments]) == 0
        plan = capsys.readouterr().out
        assert "organ        disc (1 left ventricle)" in plan
        assert "note         3 cases matched by what their names share" in plan
        trained = ["--organ", "disc", "-o", str(tmp_path / "adapter")]
        assert main(["finetune", *data, *model, *SHORT, *trained]) == 0
        said = capsys.readouterr().err
        assert said.startswith("promptseg: 3 cases matched by what their names share")

    def test_goes_on_from_an_adapter_and_its_recipe_does_so_anywhere(
        self, place, adapter, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.chdir(place)
        data = ["--images", "images", "--labels", "labels", "--start", "adapters/disc"]
        model = ["--model", str(place / "tiny.safetensors")]
        out = tmp_path / "further"
        assert main(["finetune", *data, *model, *SHORT, "--organ", "disc", "-o", str(out)]) == 0
        monkeypatch.chdir(tmp_path)
        again = tmp_path / "again"
        assert main(["finetune", str(out / "recipe.toml"), "-o", str(again)]) == 0
        first, second, third = (
            (folder / "adapter_model.safetensors").read_bytes() for folder in (adapter, out, again)
        )
        assert first != second == third

    def test_recipe_repeats_the_run(self, place, adapter, tmp_path, capsys):
        out = tmp_path / "again"
        data = ["--images", str(place / "images"), "--labels", str(place / "labels")]
        assert main(["finetune", str(adapter / "recipe.toml"), *data, "-o", str(out)]) == 0
        first, second = (
            (folder / "adapter_model.safetensors").read_bytes() for folder in (adapter, out)
        )
        assert first == second

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ([], "--organ"),
            (["--organ", " "], "organ is empty"),
            (["--organ", "x", "--label", "9"], "none of the 3 cases has label 9"),
            (["--organ", "x", "--loss", "nice"], "loss"),
            (["--organ", "x", "--targets", "q"], "targets"),
            (["--organ", "x", "--cases", "0"], "cases"),
            (["--organ", "x", "--objective", "magic"], "objective"),
            (["nothing.toml"], "nothing.toml"),
            (["--organ", "x", "--minutes", "1"], "not allowed with"),
        ],
    )
    def test_bad_input_is_one_line(self, place, more, words, capsys):
        assert main([*job(place), *more, "-o", str(place / "never")]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
        assert not (place / "never").exists()

    def test_missing_folder(self, place, capsys):
        arguments = job(place, "--organ", "x", "-o", str(place / "never"))
        arguments[arguments.index("--images") + 1] = str(place / "nowhere")
        assert main(arguments) == 2
        assert "nowhere" in capsys.readouterr().err


class TestAdapters:
    def test_list_and_info(self, adapter, monkeypatch, capsys):
        monkeypatch.setenv("PROMPTSEG_ADAPTERS", str(adapter.parent))
        assert main(["adapters", "list", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)["adapters"]
        assert "disc" in [row["name"] for row in listed]
        assert main(["adapters", "info", "disc", "--json"]) == 0
        info = json.loads(capsys.readouterr().out)
        assert (info["organ"], info["steps"], info["rank"]) == ("disc", 2, 2)
        assert main(["adapters", "list"]) == main(["adapters", "info", "disc"]) == 0

    def test_merge(self, place, adapter, tmp_path, capsys):
        out = tmp_path / "merged.safetensors"
        assert main(["adapters", "merge", str(adapter), "-o", str(out)]) == 0
        assert out.stat().st_size > 1000
        assert main(["adapters", "merge", str(adapter), "-o", str(tmp_path / "x.pt")]) == 2
        assert "must end in" in capsys.readouterr().err

    def test_unknown(self, capsys):
        assert main(["adapters", "info", "nothing"]) == 2
        assert "no adapter or folder" in capsys.readouterr().err


class TestSegment:
    def image(self, place) -> str:
        return str(place / "images" / "case0.nii.gz")

    def job(self, place, adapter, *more: str) -> list[str]:
        model = ["--model", str(place / "tiny.safetensors"), "--device", "cpu"]
        return ["segment", self.image(place), *model, "--adapter", str(adapter), *more]

    def test_without_a_prompt(self, place, adapter, tmp_path, capsys):
        out, report = tmp_path / "mask.nii.gz", tmp_path / "report.json"
        assert main(self.job(place, adapter, "-o", str(out), "--report", str(report))) == 0
        assert out.exists()
        (named,) = json.loads(report.read_text())["adapters"]
        assert named["sha256"]
        capsys.readouterr()
        assert main(["rerun", str(report)]) == 0

    def test_of_another_base(self, place, adapter, tmp_path, capsys):
        save_default(tiny_network(1), tmp_path / "other.safetensors", {})
        arguments = self.job(place, adapter, "-o", str(tmp_path / "mask.nii.gz"))
        arguments[arguments.index("--model") + 1] = str(tmp_path / "other.safetensors")
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert "sha256" in error
        assert "train it again" in error
        assert not (tmp_path / "mask.nii.gz").exists()
