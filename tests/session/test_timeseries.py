import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support import bright_volume, dice, segmenter

from promptseg.errors import FormatError, PromptError, VolumeError
from promptseg.io.provenance import read_provenance
from promptseg.prompts.types import Box, Point
from promptseg.session.timeseries import (
    Phase,
    ejection,
    read_phases,
    save_phases,
    segment_phases,
    volume_table,
    write_table,
)
from promptseg.session.timeseries.segmenting import prompts_of
from promptseg.volume import Segmentation

SHAPE = (48, 48, 6)
AFFINE = np.diag([1.5, 1.5, 8.0, 1.0])
RADII = (12, 10, 7, 9, 11)


def ventricle(radius: float, shift: float = 0.0) -> np.ndarray:
    i, j, k = np.indices(SHAPE)
    return ((i - 24 - shift) ** 2 + (j - 24) ** 2 <= radius**2) & (k >= 1) & (k < 5)


def cine(path: Path, unit: str = "sec", step: float = 0.04) -> Path:
    data = np.stack([ventricle(radius) * 100 for radius in RADII], -1).astype(np.int16)
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = step
    nib.save(image, path)
    return path


def phases() -> list[Phase]:
    return [Phase(bright_volume(ventricle(r, n), (1.5, 1.5, 8.0))) for n, r in enumerate(RADII)]


class TestReading:
    def test_nifti_phases_with_their_times(self, tmp_path: Path) -> None:
        found = read_phases(cine(tmp_path / "cine.nii.gz"))
        assert [phase.time_ms for phase in found] == pytest.approx([0, 40, 80, 120, 160])
        for phase, radius in zip(found, RADII, strict=True):
            np.testing.assert_array_equal(phase.volume.data, ventricle(radius) * 100)
            np.testing.assert_allclose(phase.volume.affine, AFFINE)
            assert phase.volume.source == tmp_path / "cine.nii.gz"

    @pytest.mark.parametrize(("unit", "step"), [("unknown", 0.04), ("sec", 0.0)])
    def test_no_time_is_made_up(self, tmp_path: Path, unit: str, step: float) -> None:
        found = read_phases(cine(tmp_path / "cine.nii.gz", unit, step))
        assert {phase.time_ms for phase in found} == {None}

    def test_one_file_a_phase(self, tmp_path: Path) -> None:
        for name, radius in (("ed", 12), ("es", 7)):
            image = nib.Nifti1Image((ventricle(radius) * 100).astype(np.int16), AFFINE)
            nib.save(image, tmp_path / f"{name}.nii.gz")
        found = read_phases([tmp_path / "ed.nii.gz", tmp_path / "es.nii.gz"])
        assert [phase.name for phase in found] == ["ed", "es"]

    def test_other_grids_and_3d_are_refused(self, tmp_path: Path) -> None:
        data = np.zeros(SHAPE, np.int16)
        data[3] = 7
        moved = AFFINE.copy()
        moved[0, 3] = 4
        nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "a.nii")
        nib.save(nib.Nifti1Image(data, moved), tmp_path / "b.nii")
        nib.save(nib.Nifti1Image(data[:, :, :5], AFFINE), tmp_path / "c.nii")
        with pytest.raises(VolumeError, match=r"b\.nii: its affine differs by up to 4"):
            read_phases([tmp_path / "a.nii", tmp_path / "b.nii"])
        with pytest.raises(VolumeError, match=r"c.nii: shape \(48, 48, 5\)"):
            read_phases([tmp_path / "a.nii", tmp_path / "c.nii"])
        with pytest.raises(VolumeError, match="is 3D"):
            read_phases(tmp_path / "a.nii")

    def test_damaged_missing_and_too_large(self, tmp_path: Path) -> None:
        path = cine(tmp_path / "cine.nii.gz")
        with pytest.raises(VolumeError, match="the limit is 1000"):
            read_phases(path, max_bytes=1000)
        path.write_bytes(path.read_bytes()[:400])
        with pytest.raises(FormatError, match="damaged"):
            read_phases(path)
        with pytest.raises(FormatError, match="no such file"):
            read_phases(tmp_path / "none.nii")

    def test_mosaics_of_two_time_points(self, shared_data: Path) -> None:
        found = read_phases(shared_data / "dicom/mr_mosaic_siemens_skyra/dicom")
        assert len(found) == 2
        assert found[0].volume.shape == found[1].volume.shape
        assert (found[0].volume.data != found[1].volume.data).any()

    def test_echoes_are_no_phases(self, shared_data: Path) -> None:
        with pytest.raises(VolumeError, match="not in time"):
            read_phases(shared_data / "dicom/mr_two_orientations_one_series_philips/dicom")

    def test_a_plain_series_is_no_time_series(self, shared_data: Path) -> None:
        with pytest.raises(FormatError, match="no series has several volumes"):
            read_phases(shared_data / "dicom/mr_hitachi_4slices/dicom")


class TestSegmenting:
    def test_each_phase_follows_the_one_before(self) -> None:
        given = [Box((10, 10, 2), (38, 38, 3))]
        results = segment_phases(segmenter(), phases(), given, axis=2)
        for number, (result, radius) in enumerate(zip(results, RADII, strict=True)):
            assert dice(result.mask(1), ventricle(radius, number)) > 0.97

    def test_from_a_phase_in_the_middle_both_ways(self) -> None:
        given = [Box((16, 16, 2), (36, 36, 3))]
        results = segment_phases(segmenter(), phases(), given, at=2, axis=2)
        assert dice(results[0].mask(1), ventricle(12)) > 0.97
        assert dice(results[4].mask(1), ventricle(11, 4)) > 0.97

    def test_a_target_that_is_gone_is_found_when_it_is_back(self) -> None:
        taken = phases()
        taken[1] = Phase(bright_volume(np.roll(ventricle(2), 20, 0), (1.5, 1.5, 8.0)))
        results = segment_phases(segmenter(), taken, [Box((10, 10, 2), (38, 38, 3))], axis=2)
        assert not results[1].mask(1).any()
        assert results[1].targets == (1,)
        assert dice(results[2].mask(1), ventricle(7, 2)) > 0.97

    def test_no_such_phase(self) -> None:
        with pytest.raises(PromptError, match="phase 5: there are 0 to 4"):
            segment_phases(segmenter(), phases(), [Point((24, 24, 2))], at=5)

    def test_prompts_along_any_axis_lie_in_the_mask(self) -> None:
        mask = np.moveaxis(ventricle(8), 2, 0)
        made = prompts_of(mask, 3, 0)
        assert [stroke.voxels[0, 0] for stroke in made] == [1, 2, 3, 4]
        assert {one.target for one in made} == {3}
        for stroke in made:
            assert mask[tuple(stroke.voxels.astype(int).T)].all()


class TestTable:
    def results(self) -> list[Segmentation]:
        return [Segmentation(ventricle(r).astype(np.uint8), AFFINE, score={1: 0.9}) for r in RADII]

    def test_ejection_fraction(self) -> None:
        found = ejection(self.results(), 1)
        large, small = int(ventricle(12).sum()), int(ventricle(7).sum())
        assert found["end_diastolic_phase"] == 0
        assert found["end_systolic_phase"] == 2
        assert found["end_diastolic_ml"] == pytest.approx(large * 0.018)
        assert found["ejection_fraction"] == pytest.approx(1 - small / large)
        assert ejection(self.results(), 2)["ejection_fraction"] is None

    def test_csv(self, tmp_path: Path) -> None:
        write_table(volume_table(phases(), self.results()), tmp_path / "t.csv")
        with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["phase"] for row in rows] == list("01234")
        assert float(rows[2]["volume_ml"]) == pytest.approx(ventricle(7).sum() * 0.018, rel=1e-5)
        assert rows[0]["time_ms"] == ""

    def test_labels_of_all_phases_in_one_file(self, tmp_path: Path) -> None:
        save_phases(self.results(), tmp_path / "l.nii.gz")
        image = nib.load(tmp_path / "l.nii.gz")
        assert image.shape == (*SHAPE, 5)
        np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 2], ventricle(7))
        np.testing.assert_allclose(image.affine, AFFINE)
        assert read_provenance(tmp_path / "l.nii.gz")["software"] == "promptseg"
        with pytest.raises(FormatError, match=r"\.nii"):
            save_phases(self.results(), tmp_path / "l.nrrd")
