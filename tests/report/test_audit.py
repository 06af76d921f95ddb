import json
import subprocess
import sys
from pathlib import Path

import pytest

from promptseg.commands.cli import main
from promptseg.errors import FormatError
from promptseg.report.audit import START, append, check_log, record, verify

MANIFEST = {
    "format": "promptseg-run",
    "version": 1,
    "model": {"name": "default", "sha256": "ab" * 32},
    "input": {"path": "/data/Miller^Jane/ct", "sha256": "cd" * 32, "shape": [3, 3, 3]},
    "outputs": {"mask": {"path": "/data/Miller^Jane/m.nii.gz", "sha256": "ef" * 32}},
    "result": {"sha256": "01" * 32, "targets": {"1": {"ml": 2.0}}, "report": {"axis": 2}},
    "patient": {"PatientName": "Miller^Jane"},
}
APPEND = (
    "import sys; from pathlib import Path; from promptseg.report.audit import append\n"
    "for n in range(15): append(Path(sys.argv[1]), {'run': [sys.argv[2], n]})"
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    for number in range(5):
        append(path, {"run": number})
    return path


def without(log: Path, *lines: int) -> None:
    kept = [line for n, line in enumerate(log.read_bytes().splitlines(True)) if n not in lines]
    log.write_bytes(b"".join(kept))


class TestChain:
    def test_whole(self, log: Path) -> None:
        verdict = verify(log)
        assert (verdict.entries, verdict.faults, verdict.remarks) == (5, (), ())
        first = json.loads(log.read_text().splitlines()[0])
        assert (first["number"], first["previous"]) == (1, START)

    def test_a_removed_line_shows(self, log: Path) -> None:
        without(log, 2)
        assert verify(log).faults == ("line 3: 1 lines before it were removed",)

    def test_removed_last_lines_show(self, log: Path) -> None:
        without(log, 3, 4)
        assert verify(log).faults == ("2 lines were removed from the end, 3 are there",)

    def test_a_changed_line_shows_at_the_next(self, log: Path) -> None:
        log.write_text(log.read_text().replace('"run": 1}', '"run": 7}'))
        assert "line 3: the line before it was changed" in verify(log).faults[0]

    def test_a_changed_last_line_shows(self, log: Path) -> None:
        log.write_text(log.read_text().replace('"run": 4}', '"run": 7}'))
        assert verify(log).faults == ("line 5 is not the one that was written",)

    def test_moved_lines_show(self, log: Path) -> None:
        lines = log.read_bytes().splitlines(True)
        log.write_bytes(b"".join([lines[0], lines[2], lines[1], *lines[3:]]))
        assert verify(log).faults[0].startswith("line 2:")

    @pytest.mark.parametrize("junk", [b"{", b"[]", b"\xff\xfe", b'{"format": "x"}'])
    def test_foreign_lines_show(self, log: Path, junk: bytes) -> None:
        log.write_bytes(log.read_bytes() + junk + b"\n")
        assert verify(log).faults[0].startswith("line 6:")

    def test_without_its_head_the_end_is_not_vouched_for(self, log: Path) -> None:
        last = verify(log).head
        log.with_name("audit.jsonl.head").unlink()
        assert "removed last lines would not show" in verify(log).faults[0]
        assert verify(log, last).faults == ()
        without(log, 4)
        assert "no line has the digest" in verify(log, last).faults[0]


class TestAppending:
    def test_several_processes_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "shared.jsonl"
        started = [
            subprocess.Popen([sys.executable, "-c", APPEND, str(path), name]) for name in "abc"
        ]
        assert [one.wait() for one in started] == [0, 0, 0]
        verdict = verify(path)
        assert (verdict.entries, verdict.faults) == (45, ())

    def test_half_a_line_of_a_crash_is_dropped(self, log: Path) -> None:
        log.write_bytes(log.read_bytes() + b'{"format": "promptseg-au')
        append(log, {"run": 5})
        assert verify(log).entries == 6
        assert verify(log).faults == ()

    def test_a_line_whose_run_was_stopped_right_after_counts(self, log: Path) -> None:
        head = log.with_name("audit.jsonl.head")
        before = head.read_text()
        append(log, {"run": 5})
        head.write_text(before)
        assert verify(log).remarks == (
            "1 lines after the recorded end: a run was interrupted there",
        )
        append(log, {"run": 6})
        assert (verify(log).entries, verify(log).faults) == (7, ())

    def test_nothing_is_added_to_a_shortened_log(self, log: Path) -> None:
        without(log, 4)
        before = log.read_bytes()
        with pytest.raises(FormatError, match="its end is not what was last written"):
            append(log, {"run": 5})
        assert log.read_bytes() == before
        log.write_bytes(b"")
        with pytest.raises(FormatError, match="emptied since entry 5"):
            append(log, {"run": 5})


class TestRecord:
    def test_off_unless_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PROMPTSEG_AUDIT", raising=False)
        assert record(MANIFEST) is None

    def test_no_path_and_no_name_unless_asked(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setenv("PROMPTSEG_AUDIT", str(tmp_path / "deep" / "a.jsonl"))
        record(MANIFEST)
        text = (tmp_path / "deep" / "a.jsonl").read_text()
        assert "Jane" not in text
        entry = json.loads(text)
        assert entry["run"]["model"] == MANIFEST["model"]
        assert entry["run"]["outputs"]["mask"] == {"sha256": "ef" * 32, "suffix": ".nii.gz"}
        record(MANIFEST, keep_identifiers=True)
        kept = json.loads((tmp_path / "deep" / "a.jsonl").read_text().splitlines()[1])["run"]
        assert kept["patient"] == {"PatientName": "Miller^Jane"}
        assert kept["input"]["path"] == "/data/Miller^Jane/ct"

    def test_a_log_that_cannot_be_written_is_refused_before_the_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PROMPTSEG_AUDIT", str(tmp_path))
        with pytest.raises(FormatError, match="names a folder"):
            check_log()
        (tmp_path / "file").touch()
        monkeypatch.setenv("PROMPTSEG_AUDIT", str(tmp_path / "file" / "a.jsonl"))
        with pytest.raises(FormatError, match="audit log cannot be written"):
            check_log()


class TestCommand:
    def test_verify(self, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["audit", "verify", str(log)]) == 0
        assert capsys.readouterr().out.startswith("whole: 5 entries")
        without(log, 0)
        assert main(["audit", "verify", str(log), "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert (told["whole"], told["entries"]) == (False, 0)

    def test_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["audit", "verify", str(tmp_path / "no")]) == 2
        assert "cannot be read" in capsys.readouterr().err
