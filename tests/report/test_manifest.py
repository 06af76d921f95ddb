import json
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from promptseg.errors import FormatError
from promptseg.prompts.types import Box, Point, PromptSet
from promptseg.report import load_manifest, package_version, run_manifest, save_manifest
from promptseg.volume import Segmentation, Volume

SPEC = SimpleNamespace(
    name="tiny", family="promptseg", sha256="ab" * 32, licence="CC0", input_size=32
)
SEGMENTER = SimpleNamespace(
    device="cpu", precision="fp32", backbone=SimpleNamespace(spec=SPEC), extra=None
)
PROMPTS = PromptSet([Box((1, 1, 2), (4, 4, 3), target=2), Point((1.5, 2, 2), positive=False)])
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def manifest(tmp_path: Path, **changes) -> dict:
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([1, 2, 3, 1.0]))
    labels = np.zeros(volume.shape, np.uint8)
    labels[1, 1, :2] = 2
    result = Segmentation.from_volume(
        volume,
        labels,
        score={2: np.float32(0.5), 3: float("nan")},
        report={"axis": np.int64(2), "window": {"name": "lung"}, "timings": {"encode": 1.5}},
    )
    options = {
        "settings": {"axis": 2, "window": "lung", "propagate": True},
        "timings": {"read": 0.25},
        "adapters": {"kidney": "cd" * 32},
        "outputs": {"mask": {"path": str(tmp_path / "m.nii.gz"), "sha256": "ef" * 32}},
        "created": WHEN,
    }
    return run_manifest(SEGMENTER, volume, PROMPTS, result, **{**options, **changes})


class TestContent:
    def test_names_all_that_decides_the_mask(self, tmp_path: Path) -> None:
        found = manifest(tmp_path)
        assert found["device"] == "cpu"
        assert found["precision"] == "fp32"
        assert found["model"]["sha256"] == "ab" * 32
        assert found["adapters"] == [{"name": "kidney", "sha256": "cd" * 32}]
        assert found["settings"] == {"axis": 2, "window": "lung", "propagate": True}
        assert found["outputs"]["mask"]["sha256"] == "ef" * 32
        assert found["created"] == "2026-01-02T03:04:05+00:00"
        assert found["versions"]["torch"] == package_version("torch")
        assert PromptSet.from_json(found["prompts"]) == PROMPTS

    def test_timings_join_those_of_the_result(self, tmp_path: Path) -> None:
        assert manifest(tmp_path)["timings_s"] == {"encode": 1.5, "read": 0.25}

    def test_targets_with_voxels_millilitres_and_score(self, tmp_path: Path) -> None:
        targets = manifest(tmp_path)["result"]["targets"]
        assert targets["2"] == {"voxels": 2, "ml": pytest.approx(0.012), "score": 0.5}
        assert targets["3"] == {"voxels": 0, "ml": 0.0, "score": None}

    def test_hashes_follow_the_voxels(self, tmp_path: Path) -> None:
        one, two = manifest(tmp_path), manifest(tmp_path)
        assert one["input"]["sha256"] == two["input"]["sha256"]
        assert len({one["input"]["sha256"], one["result"]["sha256"]}) == 2

    def test_is_plain_json(self, tmp_path: Path) -> None:
        found = manifest(tmp_path)
        assert json.loads(json.dumps(found, allow_nan=False)) == found


class TestFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        found = manifest(tmp_path)
        save_manifest(found, tmp_path / "deep" / "run.json")
        assert load_manifest(tmp_path / "deep" / "run.json") == found
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run.json"]

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("[]", "not a run manifest"),
            ('{"format": "other"}', "not a run manifest"),
            ('{"format": "promptseg-run", "version": 9}', "version 9"),
            ('{"format": "promptseg-run", "version": 1}', "lacks device"),
        ],
    )
    def test_refused(self, tmp_path: Path, text: str, match: str) -> None:
        path = tmp_path / "run.json"
        path.write_text(text)
        with pytest.raises(FormatError, match=match):
            load_manifest(path)

    def test_missing_and_unwritable(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="cannot be read"):
            load_manifest(tmp_path / "none.json")
        (tmp_path / "file").write_text("")
        with pytest.raises(FormatError, match="cannot be written"):
            save_manifest(manifest(tmp_path), tmp_path / "file" / "run.json")
