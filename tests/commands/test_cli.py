import errno
import gzip
import json
import os
import pickle
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from promptseg.commands import cli, doctor, progress
from promptseg.commands import segment as segment_command
from promptseg.commands.cli import main
from promptseg.commands.parsing import join_negatives
from promptseg.datasets.phantom import abdomen_phantom
from promptseg.inference.slice_prompts import BOTH
from promptseg.prompts.types import Box, MarginPoints, Point, PromptSet, Scribble, Text
from promptseg.volume import Segmentation, read, write
from promptseg.weights.registry import sha256_file

BOX = ["--box", "30,15,8,42,28,9"]
SMALL = {"shape": (60, 45, 16), "spacing": (6.0, 6.0, 15.0)}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "ct.nii.gz"
    write(abdomen_phantom(**SMALL)[0], path)
    return path


@pytest.fixture(autouse=True)
def no_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMPTSEG_DEBUG", raising=False)


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in folder.rglob("*")}


class Refusal:
    """Runs a command that must fail with one line and leave nothing behind."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def __call__(self, *arguments: object, status: int = 2) -> str:
        before = files(self.folder)
        self.capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == status
        captured = self.capsys.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("promptseg: ")
        assert "Traceback" not in lines[0]
        assert files(self.folder) == before
        return lines[0]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(tmp_path, capsys)


def nifti(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)


def huge_header(path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header["dim"][:4] = [3, 30_000, 30_000, 30_000]
    header["pixdim"][1:4] = 1
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + bytes(1000)))


def zero_spacing(path: Path) -> None:
    nifti(path, np.zeros((8, 8, 8), np.int16))
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[80:84] = struct.pack("<f", 0.0)
    path.write_bytes(gzip.compress(bytes(raw)))


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 999, (30, 30, 30)).astype(np.int16)
    nifti(path, noise)
    path.write_bytes(path.read_bytes()[:9000])


RGB = [("R", "u1"), ("G", "u1"), ("B", "u1")]
BAD_IMAGES = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("hello, I am no image"), "not gzip"),
    "truncated": (truncated, "truncated"),
    "colours": (lambda path: nifti(path, np.zeros((8, 8, 8), RGB)), "RGB"),
    "4d": (lambda path: nifti(path, np.zeros((8, 8, 8, 2), np.int16)), "4D"),
    "nan": (lambda path: nifti(path, np.full((8, 8, 8), np.nan, np.float32)), "no finite voxel"),
    "zero spacing": (zero_spacing, "spacing"),
    "terabytes": (huge_header, "bytes"),
}


class TestBadImages:
    @pytest.mark.parametrize("kind", BAD_IMAGES)
    def test_one_line(self, kind: str, tmp_path: Path, refused: Refusal) -> None:
        make, words = BAD_IMAGES[kind]
        path = tmp_path / "in.nii.gz"
        make(path)
        assert words in refused("segment", path, "-o", tmp_path / "out.nii.gz", *BOX)

    def test_folder_and_unknown_suffix(self, tmp_path: Path, refused: Refusal) -> None:
        (tmp_path / "in.xyz").write_text("x")
        assert "known format" in refused(
            "segment", tmp_path / "in.xyz", "-o", tmp_path / "o.nii.gz", *BOX
        )
        refused("segment", tmp_path, "-o", tmp_path / "o.nii.gz", *BOX)


class TestBadPrompts:
    @pytest.mark.parametrize(
        ("prompt", "words"),
        [
            (["--box", "40,15,8,70,28,9"], "outside the volume"),
            (["--box", "42,15,8,30,28,9"], "42"),
            (["--box", "nan,15,8,42,28,9"], "nan"),
            (["--box", "inf,15,8,42,28,9"], "inf"),
            (["--box", "1,2,3"], "i0,j0,k0,i1,j1,k1"),
            (["--box", "a,b,c,d,e,f"], "i0,j0,k0,i1,j1,k1"),
            (["--box", "-5,15,8,42,28,9"], "-5"),
            (["--point", "-5,-6,-7"], "-5"),
            (["--point", "-.5e3,1,1"], "-500"),
            (["--point", "-nan,1,1"], "nan"),
            (["--point", "99,1,1,-"], "99"),
            (["--point", "1,2"], "i,j,k"),
            (["--point", ""], "i,j,k"),
            (["--text", " "], "words"),
            (["--target", "0", "--point", "1,1,1"], "target"),
            (["--target", "-3", "--point", "1,1,1"], "target"),
            (["--target", "70000", "--point", "1,1,1"], "70000"),
            (["--frame", "mni", "--point", "1,1,1"], "mni"),
            (["--scribble", "/nowhere/s.nii.gz"], "no such file"),
            (["--scribble", "s.nii.gz,blank=x"], "blank"),
            (["--margin", "1,1,1;2,2"], "i,j,k"),
            (["--margin", "1,1,1;2,2,1"], "at least 3"),
            (["--prompts", "/nowhere/p.json"], "/nowhere/p.json"),
            ([], "no prompt"),
        ],
    )
    def test_one_line(
        self, prompt: list[str], words: str, image: Path, tmp_path: Path, refused: Refusal
    ) -> None:
        assert words in refused("segment", image, "-o", tmp_path / "out.nii.gz", *prompt)

    def test_broken_prompt_file(self, image: Path, tmp_path: Path, refused: Refusal) -> None:
        (tmp_path / "p.json").write_text('{"format": "promptseg-prompts"')
        refused("segment", image, "-o", tmp_path / "o.nii", "--prompts", tmp_path / "p.json")

    @pytest.mark.parametrize("fault", ["shape", "affine", "empty"])
    def test_scribble_file_must_fit(
        self, fault: str, image: Path, tmp_path: Path, refused: Refusal
    ) -> None:
        volume = read(image)
        data, affine = np.zeros(volume.shape, np.uint8), volume.affine.copy()
        data[30, 20, 8] = 0 if fault == "empty" else 1
        affine[0, 3] += 5 * (fault == "affine")
        nifti(tmp_path / "s.nii.gz", data[:-1] if fault == "shape" else data, affine)
        line = refused(
            "segment", image, "-o", tmp_path / "o.nii", "--scribble", tmp_path / "s.nii.gz"
        )
        words = {"shape": "shape", "affine": "elsewhere", "empty": "no stroke"}
        assert words[fault] in line


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class TestBadModels:
    def test_unknown_name(self, image: Path, tmp_path: Path, refused: Refusal) -> None:
        line = refused("segment", image, "-o", tmp_path / "o.nii.gz", *BOX, "--model", "sam_vit_x")
        assert "sam_vit_x" in line
        assert "sam_vit_b" in line

    @pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
    def test_corrupt_checkpoint(
        self, suffix: str, image: Path, tmp_path: Path, refused: Refusal
    ) -> None:
        path = tmp_path / f"broken.{suffix}"
        path.write_bytes(b"not a checkpoint" * 100)
        line = refused("segment", image, "-o", tmp_path / "o.nii.gz", *BOX, "--model", path)
        assert str(path) in line

    @pytest.mark.parametrize("how", ["pickle", "torch"])
    def test_pickled_payload_never_runs(
        self, how: str, image: Path, tmp_path: Path, refused: Refusal
    ) -> None:
        import torch

        path, marker = tmp_path / "evil.pth", tmp_path / "executed"
        content = {"model": Payload(marker)}
        if how == "pickle":
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path)
        line = refused("segment", image, "-o", tmp_path / "o.nii.gz", *BOX, "--model", path)
        assert str(path) in line
        assert not marker.exists()

    def test_adapter_and_device(
        self, image: Path, model: str, tmp_path: Path, refused: Refusal
    ) -> None:
        job = ["segment", image, "-o", tmp_path / "o.nii.gz", *BOX]
        assert "nope" in refused(*job, "--adapter", "nope")
        assert "2 times" in refused(*job, "--adapter", "a", "--adapter", "b")
        assert "toaster" in refused(*job, "--model", model, "--device", "toaster")
        assert "int3" in refused(*job, "--precision", "int3")


class TestBadOutputs:
    def test_format_is_checked_first(self, image: Path, tmp_path: Path, refused: Refusal) -> None:
        assert ".nii.gz" in refused("segment", image, "-o", tmp_path / "mask.jpg", *BOX)
        assert "floppy" in refused(
            "segment", image, "-o", tmp_path / "m.nii", *BOX, "--format", "floppy"
        )
        refused("segment", image, "-o", tmp_path / "m.nii", *BOX, "--uncertainty", tmp_path / "u")
        assert "holds one slice" in refused("segment", image, "-o", tmp_path / "m.png", *BOX)

    def test_never_over_the_input_or_each_other(
        self, image: Path, tmp_path: Path, refused: Refusal
    ) -> None:
        before = image.read_bytes()
        assert "the image" in refused("segment", image, "-o", image, *BOX)
        same = tmp_path / "m.nii.gz"
        assert "both" in refused("segment", image, "-o", same, *BOX, "--report", same)
        assert image.read_bytes() == before

    def test_folders(self, image: Path, tmp_path: Path, refused: Refusal) -> None:
        (tmp_path / "file").write_text("x")
        (tmp_path / "dir.nii").mkdir()
        assert "is a file" in refused("segment", image, "-o", tmp_path / "file" / "m.nii", *BOX)
        assert "folder" in refused("segment", image, "-o", tmp_path / "dir.nii", *BOX)

    def test_window_and_axis(self, image: Path, tmp_path: Path, refused: Refusal) -> None:
        job = ["segment", image, "-o", tmp_path / "o.nii.gz", *BOX]
        assert "lungs" in refused(*job, "--window", "lungs")
        assert "-5" in refused(*job, "--window", "-5,10")
        assert "diagonal" in refused(*job, "--axis", "diagonal")


class TestCommandLine:
    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["nonsense"],
            ["--nonsense"],
            ["segment"],
            ["segment", "a.nii.gz"],
            ["segment", "a", "b", "-o", "c"],
            ["segment", "a", "-o"],
            ["segment", "--nonsense"],
            ["segment", "--sample", "--box", "1,1,1,2,2,2"],
            ["segment", "--sample", "a.nii.gz"],
            ["segment", "--sample", "--report", "r.json"],
            ["weights"],
            ["weights", "info"],
            ["weights", "info", "nothing"],
            ["weights", "verify", "nothing"],
            ["weights", "convert", "/nowhere/a.pth"],
            ["rerun"],
            ["rerun", "/nowhere/run.json"],
            ["doctor", "extra"],
        ],
    )
    def test_mistakes_are_one_line(self, arguments: list[str], refused: Refusal) -> None:
        refused(*arguments)

    def test_help_lists_every_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--help"]) == 0
        shown = capsys.readouterr().out
        assert all(name in shown for name in cli.COMMANDS)

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--version"]) == 0
        assert capsys.readouterr().out.startswith("promptseg ")

    def test_join_negatives(self) -> None:
        given = ["--box", "-1,2", "--point", "-.5,1", "-o", "x", "--a=1", "-2", "--b", "-inf,0"]
        assert join_negatives(given) == [
            "--box=-1,2", "--point=-.5,1", "-o", "x", "--a=1", "-2", "--b=-inf,0",
        ]  # fmt: skip


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "status", "words"),
        [
            (RuntimeError("boom\nsecond line"), 1, "RuntimeError: boom second line"),
            (MemoryError(), 1, "out of memory"),
            (KeyError("x"), 1, "KeyError"),
            (KeyboardInterrupt(), 130, "interrupted"),
        ],
    )
    def test_one_line(
        self,
        error: BaseException,
        status: int,
        words: str,
        refused: Refusal,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(_: object) -> int:
            raise error

        monkeypatch.setattr(doctor, "run", fail)
        assert words in refused("doctor", status=status)

    def test_traceback_on_request(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PROMPTSEG_DEBUG", "1")
        assert main(["weights", "info", "nothing"]) == 2
        assert "Traceback" in capsys.readouterr().err

    def test_full_disk(
        self,
        image: Path,
        model: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        out = tmp_path / "o.nii.gz"
        monkeypatch.setattr(Path, "write_bytes", full)
        job = ["segment", str(image), "-o", str(out), *BOX, "--model", model, "--no-propagate"]
        assert main([*job, "--report", str(tmp_path / "r.json")]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == f"promptseg: {out}: cannot be written: No space left on device"
        assert list(tmp_path.iterdir()) == []


class TestPromptOrder:
    def prompts(self, image: Path, *arguments: str, tmp_path: Path) -> PromptSet:
        parser = cli.Parser()
        segment_command.add_arguments(parser)
        options = parser.parse_args(join_negatives([str(image), "-o", "x.nii", *arguments]))
        return segment_command.build_prompts(options.given, options.frame, read(image))

    def test_target_holds_for_what_follows(self, image: Path, tmp_path: Path) -> None:
        stroke = np.zeros(read(image).shape, np.uint8)
        stroke[30:33, 20, 8] = 7
        write(Segmentation.from_volume(read(image), stroke), tmp_path / "s.nii.gz")
        PromptSet([Point((2, 2, 2), target=9)]).save(tmp_path / "p.json")
        found = self.prompts(
            image, "--point", "1,2,3", "--target", "2", *BOX, "--point", "4,5,6,-",
            "--target", "5", "--text", "left kidney", "--scribble", f"{tmp_path}/s.nii.gz,-",
            "--prompts", f"{tmp_path}/p.json", tmp_path=tmp_path,
        )  # fmt: skip
        voxels = np.argwhere(stroke)
        assert list(found) == [
            Point((1, 2, 3)),
            Box((30, 15, 8), (42, 28, 9), target=2),
            Point((4, 5, 6), positive=False, target=2),
            Text("left kidney", target=5),
            Scribble(voxels, positive=False, target=5),
            Point((2, 2, 2), target=9),
        ]

    def test_margin_points_and_labels_of_scribbles(self, image: Path, tmp_path: Path) -> None:
        strokes = np.full(read(image).shape, 9, np.uint8)
        strokes[30, 20, 8], strokes[4, 4, 2], strokes[1, 1, 1] = 1, 2, 0
        write(Segmentation.from_volume(read(image), strokes), tmp_path / "s.nii.gz")
        found = self.prompts(
            image, "--target", "3", "--margin", "30,15,8;41,20,8;35,27,8",
            "--scribble", f"{tmp_path}/s.nii.gz,blank=9", tmp_path=tmp_path,
        )  # fmt: skip
        assert list(found) == [
            MarginPoints([(30, 15, 8), (41, 20, 8), (35, 27, 8)], target=3),
            Scribble([(30, 20, 8)]),
            Scribble([(1, 1, 1), (4, 4, 2)], positive=False),
            Scribble([(4, 4, 2)], target=2),
            Scribble([(1, 1, 1), (30, 20, 8)], positive=False, target=2),
        ]

    def test_frame_holds_for_all(self, image: Path, tmp_path: Path) -> None:
        x, y, z = read(image).to_world(np.array([[30.0, 20.0, 8.0]]), "lps")[0]
        found = self.prompts(image, "--point", f"{x},{y},{z}", "--frame", "lps", tmp_path=tmp_path)
        np.testing.assert_allclose(found.to_voxel(read(image))[0].at, (30, 20, 8), atol=1e-6)


@pytest.fixture(scope="module")
def done(image: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done") / "new"
    status = main(
        [
            "segment", str(image), "-o", str(folder / "mask.nii.gz"), *BOX, "--model", model,
            "--target", "2", "--point", "20,20,8", "--precision", "fp32", "--device", "cpu",
            "--uncertainty", str(folder / "u.nii.gz"), "--report", str(folder / "run.json"),
        ]
    )  # fmt: skip
    assert status == 0
    return folder


class TestSegment:
    def test_only_what_was_asked_for_is_written(self, done: Path) -> None:
        names = sorted(path.name for path in done.iterdir())
        assert names == ["mask.nii.gz", "run.json", "u.nii.gz"]

    def test_mask_is_on_the_same_grid(self, done: Path, image: Path) -> None:
        mask, volume = nib.load(done / "mask.nii.gz"), nib.load(image)
        assert mask.shape == volume.shape
        np.testing.assert_array_equal(mask.affine, volume.affine)
        assert set(np.unique(mask.dataobj)) <= {0, 1, 2}
        assert nib.load(done / "u.nii.gz").shape == volume.shape

    def test_manifest(self, done: Path, image: Path, model: str) -> None:
        manifest = json.loads((done / "run.json").read_text())
        assert manifest["input"]["path"] == str(image)
        assert manifest["model"]["name"] == model
        assert manifest["settings"] == {
            "axis": 2,
            "window": "soft_tissue",
            "propagate": True,
            "consistency": "auto",
            "postprocess": [],
        }
        assert {"read", "load_model", "total"} <= set(manifest["timings_s"])
        assert set(manifest["outputs"]) == {"mask", "uncertainty"}
        assert len(manifest["prompts"]["prompts"]) == 2

    def test_rerun_gives_the_same_mask(
        self, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        again = tmp_path / "again.nii.gz"
        assert main(["rerun", str(done / "run.json"), "-o", str(again)]) == 0
        assert capsys.readouterr().out == "same mask\n"
        assert again.read_bytes() == (done / "mask.nii.gz").read_bytes()

    def test_rerun_says_what_differs(
        self, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        manifest = json.loads((done / "run.json").read_text())
        manifest["prompts"]["prompts"][0]["hi"] = [60, 45, 9]
        (tmp_path / "run.json").write_text(json.dumps(manifest))
        assert main(["rerun", str(tmp_path / "run.json"), "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert found["same"] is False
        assert found["differing_voxels"] > 0

    def test_rerun_refuses_another_image_model_or_manifest(
        self, done: Path, tmp_path: Path, image: Path, refused: Refusal
    ) -> None:
        path = tmp_path / "run.json"
        original = (done / "run.json").read_text()
        for place, words in (("input", "not the image"), ("model", "sha256")):
            manifest = json.loads(original)
            manifest[place]["sha256"] = "00" * 32
            path.write_text(json.dumps(manifest))
            assert words in refused("rerun", path)
        manifest = json.loads(original)
        del manifest["settings"]["axis"]
        path.write_text(json.dumps(manifest))
        assert "damaged" in refused("rerun", path)
        path.write_text("{}")
        assert "manifest" in refused("rerun", path)

    def test_json_is_one_object_and_the_licence_is_on_stderr(
        self, image: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = str(tmp_path / "m.nii")
        job = ["segment", str(image), "-o", out, *BOX, "--model", model, "--no-propagate"]
        assert main([*job, "--json"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["outputs"]["mask"]["path"] == out
        assert captured.err.count("\n") == 1
        assert "licence" in captured.err

    def test_what_is_odd_is_one_line_each_on_stderr_and_in_the_manifest(
        self, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flat = nib.Nifti1Image(np.zeros((24, 24, 6), np.int16), np.eye(4))
        nib.save(flat, tmp_path / "flat.nii.gz")
        boxes = ["--box", "4,4,2,20,20,3", "--target", "2", "--box", "4,4,2,20,20,3"]
        report = tmp_path / "run.json"
        job = ["segment", str(tmp_path / "flat.nii.gz"), "-o", str(tmp_path / "m.nii"), *boxes]
        assert main([*job, "--model", model, "--no-propagate", "--report", str(report)]) == 0
        said = capsys.readouterr().err
        notes = json.loads(report.read_text())["notes"]
        for words in ("every voxel of the image is 0", "targets 1 and 2 have the same box"):
            assert said.count(words) == 1
            assert sum(words in note for note in notes) == 1

    def test_old_output_survives_a_failure(
        self, image: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "m.nii"
        out.write_text("old")
        (tmp_path / "bad").write_text("")

        def fail(*_: object) -> None:
            raise RuntimeError("boom")

        monkeypatch.setattr("promptseg.report.save_manifest", fail)
        job = ["segment", str(image), "-o", str(out), *BOX, "--model", model, "--no-propagate"]
        assert main([*job, "--report", str(tmp_path / "r.json")]) == 1
        assert out.read_text() == "old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "m.nii"]


@pytest.fixture(scope="module")
def corrected(image: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which a random corrector takes up a click."""
    import torch

    from promptseg.refine.corrector import save_corrector
    from promptseg.refine.corrector_network import ClickCorrector

    folder = tmp_path_factory.mktemp("corrected")
    torch.manual_seed(0)
    network = ClickCorrector((8, 16), 4)
    torch.nn.init.normal_(network.head.weight, std=0.3)
    save_corrector(network, folder / "c.safetensors")
    click = Point((40, 26, 8), role=BOTH)
    PromptSet([Box((30, 15, 8), (42, 28, 9)), click]).save(folder / "p.json")
    command = [
        "segment", str(image), "-o", str(folder / "mask.nii.gz"), "--model", model,
        "--prompts", str(folder / "p.json"), "--corrector", str(folder / "c.safetensors"),
        "--precision", "fp32", "--report", str(folder / "run.json"),
    ]  # fmt: skip
    assert main(command) == 0
    return folder


class TestCorrector:
    def test_the_manifest_names_it_and_a_rerun_takes_it(
        self, corrected: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        manifest = json.loads((corrected / "run.json").read_text())
        path = corrected / "c.safetensors"
        assert manifest["settings"]["corrector"] == str(path)
        assert manifest["result"]["report"]["corrector"] == sha256_file(path)
        assert main(["rerun", str(corrected / "run.json")]) == 0
        assert capsys.readouterr().out == "same mask\n"

    def test_it_changes_the_mask(
        self, corrected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        manifest = json.loads((corrected / "run.json").read_text())
        del manifest["settings"]["corrector"]
        manifest["result"]["report"]["corrector"] = None
        (tmp_path / "run.json").write_text(json.dumps(manifest))
        assert main(["rerun", str(tmp_path / "run.json")]) == 1
        assert "differs" in capsys.readouterr().out

    def test_a_rerun_refuses_another_one(
        self, corrected: Path, tmp_path: Path, refused: Refusal
    ) -> None:
        manifest = json.loads((corrected / "run.json").read_text())
        manifest["result"]["report"]["corrector"] = "00" * 32
        (tmp_path / "run.json").write_text(json.dumps(manifest))
        assert "the manifest wants 0000" in refused("rerun", tmp_path / "run.json")
        del manifest["settings"]["corrector"]
        (tmp_path / "run.json").write_text(json.dumps(manifest))
        assert "corrector auto has sha256" in refused("rerun", tmp_path / "run.json")

    def test_a_missing_one_is_refused_before_anything_is_done(
        self, image: Path, model: str, tmp_path: Path, refused: Refusal
    ) -> None:
        said = refused(
            "segment", image, "-o", tmp_path / "m.nii.gz", *BOX, "--model", model,
            "--corrector", tmp_path / "no.safetensors",
        )  # fmt: skip
        assert "no.safetensors" in said


class TestSample:
    def test_writes_five_files_and_prints_dice(
        self,
        model: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        small = abdomen_phantom(**SMALL)
        monkeypatch.setattr("promptseg.datasets.phantom.abdomen_phantom", lambda: small)
        monkeypatch.chdir(tmp_path)
        assert main(["segment", "--sample", "--model", model]) == 0
        shown = capsys.readouterr().out
        assert "Dice against the known mask: 0." in shown
        names = {"image.nii.gz", "mask.nii.gz", "known.nii.gz", "picture.png", "report.json"}
        assert {path.name for path in (tmp_path / "promptseg-sample").iterdir()} == names
        assert all(f"promptseg-sample/{name}" in shown for name in names)

        assert main(["rerun", "promptseg-sample/report.json"]) == 0
        assert capsys.readouterr().out == "same mask\n"


class TestWeights:
    def test_list_and_info(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["weights", "list"]) == 0
        assert "medsam_vit_b" in capsys.readouterr().out
        assert main(["weights", "list", "--json"]) == 0
        records = json.loads(capsys.readouterr().out)["weights"]
        assert {"name", "licence", "url", "size", "path"} <= set(records[0])
        assert main(["weights", "info", "sam_vit_b"]) == 0
        assert "375042383" in capsys.readouterr().out
        assert main(["weights", "info", "sam_vit_b", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["size"] == 375042383

    def test_verify_finds_a_damaged_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PROMPTSEG_WEIGHTS", str(tmp_path))
        (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(b"damaged")
        assert main(["weights", "verify", "sam_vit_b"]) == 1
        assert "mismatch" in capsys.readouterr().out
        assert main(["weights", "verify", "sam_vit_b", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["weights"][0]["status"] == "mismatch"
        assert main(["weights", "pull", "sam_vit_b"]) == 2

    def test_pull_of_a_file_that_is_here(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from promptseg.weights import registry as weights

        entry = weights.Entry("tiny", "sam2", "t", "tiny.pt", "CC0", "here")
        monkeypatch.setattr(weights, "registry", lambda: {"tiny": entry})
        monkeypatch.setenv("PROMPTSEG_WEIGHTS", str(tmp_path))
        (tmp_path / "tiny.pt").write_bytes(b"x")
        assert main(["weights", "pull", "tiny"]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'tiny.pt'} (licence: CC0)\n"

    def test_convert(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        import torch
        from safetensors.torch import load_file

        torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
        assert main(["weights", "convert", str(tmp_path / "a.pth")]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'a.safetensors'}\n"
        assert load_file(tmp_path / "a.safetensors")["a"].tolist() == [1, 1]


class TestDoctor:
    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        status = main(["doctor", "--json"])
        found = json.loads(capsys.readouterr().out)
        assert status == int(bool(found["problems"]))
        assert found["packages"]["core"]["torch"]
        assert found["compute"]["precision"] in ("fp32", "bf16", "fp16")
        assert any("cache" in folder for folder in found["weights"]["searched"])

    def test_a_package_that_does_not_load(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(doctor, "_MUST_LOAD", ("torch", "promptseg_no_such_package"))
        assert main(["doctor"]) == 1
        shown = capsys.readouterr().out
        assert "promptseg_no_such_package does not load" in shown
        assert shown.endswith("problems found\n")


class TestBars:
    def steps(self, monkeypatch: pytest.MonkeyPatch, terminal: bool, delay: float) -> None:
        monkeypatch.setattr(progress, "DELAY_S", delay)
        monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
        with progress.Bars() as bars:
            for stage in ("encode", "decode"):
                for done in range(5):
                    bars(stage, done + 1, 5)

    @pytest.mark.parametrize(
        ("terminal", "delay", "shown"), [(True, 0.0, True), (True, 2.0, False), (False, 0.0, False)]
    )
    def test_only_on_a_terminal_and_only_when_slow(
        self,
        terminal: bool,
        delay: float,
        shown: bool,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.steps(monkeypatch, terminal, delay)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert ("encode" in captured.err and "decode" in captured.err) is shown


class TestMissingExtra:
    def test_names_the_module_and_how_to_install_it(self, monkeypatch, capsys):
        def missing(_arguments):
            raise ModuleNotFoundError("No module named 'cv2'", name="cv2")

        monkeypatch.setattr("promptseg.commands.cli._run", missing)
        assert main(["evaluate"]) == 2
        assert capsys.readouterr().err == (
            "promptseg: cv2 is not installed: pip install 'promptseg[train]'\n"
        )
