"""What is written here, as other programs read and check it."""

import shutil
import subprocess

import numpy as np
import pytest

import promptseg as ps

pydicom = pytest.importorskip("pydicom", reason="needs the dicom extra")
pytest.importorskip("highdicom", reason="needs the dicom extra")

from dicom_kit import enhanced, save, series  # noqa: E402

SHAPE = (96, 96, 6)


def ball(shape):
    i, j, k = np.indices(shape)
    return np.hypot(i - 45, j - 50) < 30 - 3 * abs(k - 3)


def volume_of(kind, folder):
    data = np.zeros(SHAPE, np.int16)
    made = {
        "CT": lambda: series(data=data),
        "MR": lambda: series(data=data, modality="MR"),
        "tilted": lambda: series(data=data, step=(0, 0.6, 2.4)),
        "enhanced": lambda: [enhanced(data)],
    }
    return ps.read(save(made[kind](), folder))


def labels_of(volume):
    data = ball(volume.shape).astype(np.uint8)
    data[60:64, 45:55, 2:4] = 2
    return ps.Segmentation.from_volume(volume, data, labels={1: "liver", 2: "left kidney"})


@pytest.fixture(params=["CT", "MR", "tilted", "enhanced"])
def made(request, tmp_path):
    """Labels of a volume of each kind, and the folder of its series."""
    return labels_of(volume_of(request.param, tmp_path / "image")), tmp_path


class TestConformance:
    @pytest.mark.parametrize("format", ["rtstruct", "seg"])
    def test_dciodvfy_finds_no_error(self, made, format):
        if shutil.which("dciodvfy") is None:
            pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
        labels, folder = made
        labels.save(folder / "x.dcm", format=format)
        run = subprocess.run(
            ["dciodvfy", folder / "x.dcm"], capture_output=True, text=True, check=False
        )
        errors = [line for line in run.stderr.splitlines() if line.startswith("Error")]
        assert errors == []

    @pytest.mark.parametrize("format", ["rtstruct", "seg", "labelmap"])
    def test_every_kind_of_image_there_and_back(self, made, format):
        labels, folder = made
        labels.save(folder / "x.dcm", format=format)
        found = ps.read_labels(folder / "x.dcm", ps.read(folder / "image"))
        assert np.array_equal(found.data, labels.data)


class TestIdentity:
    @pytest.mark.parametrize("format", ["rtstruct", "seg", "labelmap"])
    def test_patient_study_and_frame_of_reference(self, tmp_path, format):
        labels_of(volume_of("CT", tmp_path / "image")).save(tmp_path / "x.dcm", format=format)
        found = pydicom.dcmread(tmp_path / "x.dcm")
        assert (str(found.PatientName), found.PatientID) == ("Doe^Jane", "P1")
        assert (found.StudyInstanceUID, found.FrameOfReferenceUID) == ("1.2.3.1", "1.2.3.9")
        assert found.SeriesInstanceUID not in ("", "1.2.3.4")
        assert found.SoftwareVersions

    def test_rtstruct_refers_to_every_slice(self, tmp_path):
        labels_of(volume_of("CT", tmp_path / "image")).save(tmp_path / "x.dcm", format="rtstruct")
        found = pydicom.dcmread(tmp_path / "x.dcm")
        [frame] = found.ReferencedFrameOfReferenceSequence
        [listed] = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
        here = {pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "image").iterdir()}
        assert {one.ReferencedSOPInstanceUID for one in listed.ContourImageSequence} == here
        assert [one.ROIName for one in found.StructureSetROISequence] == ["Liver", "Kidney_L"]
        kinds = [one.RTROIInterpretedType for one in found.RTROIObservationsSequence]
        assert kinds == ["ORGAN", "ORGAN"]

    def test_names_that_are_given_are_kept(self, tmp_path):
        labels = labels_of(volume_of("CT", tmp_path / "image"))
        labels.save(tmp_path / "x.dcm", format="rtstruct", names={1: "GTV 60 Gy"})
        found = pydicom.dcmread(tmp_path / "x.dcm")
        assert found.StructureSetROISequence[0].ROIName == "GTV 60 Gy"
        assert found.RTROIObservationsSequence[0].RTROIInterpretedType == "GTV"
        with pytest.raises(ps.FormatError, match="names has target 7"):
            labels.save(tmp_path / "y.dcm", format="rtstruct", names={7: "x"})

    def test_seg_has_snomed_codes_and_the_series(self, tmp_path):
        labels_of(volume_of("CT", tmp_path / "image")).save(tmp_path / "x.dcm", format="seg")
        found = pydicom.dcmread(tmp_path / "x.dcm")
        [listed] = found.ReferencedSeriesSequence
        assert len(listed.ReferencedInstanceSequence) == SHAPE[2]
        codes = [one.SegmentedPropertyTypeCodeSequence[0] for one in found.SegmentSequence]
        assert [one.CodeValue for one in codes] == ["10200004", "64033007"]
        [side] = codes[1].SegmentedPropertyTypeModifierCodeSequence
        assert side.CodeMeaning == "Left"


class TestOtherReaders:
    @pytest.fixture
    def written(self, tmp_path):
        # Square pixels: rt-utils takes the spacing of rows for that of columns.
        slices = series(data=np.zeros(SHAPE, np.int16), PixelSpacing=[0.8, 0.8])
        labels = labels_of(ps.read(save(slices, tmp_path / "image")))
        labels.save(tmp_path / "rs.dcm", format="rtstruct")
        labels.save(tmp_path / "seg.dcm", format="seg")
        labels.save(tmp_path / "labelmap.dcm", format="labelmap")
        return labels, tmp_path

    @pytest.mark.parametrize("name", ["seg.dcm", "labelmap.dcm"])
    def test_highdicom(self, written, name):
        import highdicom

        labels, folder = written
        found = highdicom.seg.segread(folder / name).get_volume(combine_segments=True)
        assert np.array_equal(np.bincount(found.array.ravel())[1:], [
            int(labels.mask(1).sum()), int(labels.mask(2).sum())])  # fmt: skip

    def test_rt_utils(self, written):
        rt_utils = pytest.importorskip("rt_utils", reason="rt-utils is not installed")
        labels, folder = written
        found = rt_utils.RTStructBuilder.create_from(
            dicom_series_path=str(folder / "image"), rt_struct_path=str(folder / "rs.dcm")
        )
        for name, target in (("Liver", 1), ("Kidney_L", 2)):
            mask = found.get_roi_mask_by_name(name).transpose(1, 0, 2)
            assert np.array_equal(mask, labels.mask(target))

    def test_dicom_rt_tool(self, written):
        tool = pytest.importorskip(
            "DicomRTTool.ReaderWriter", reason="DicomRTTool is not installed"
        )
        labels, folder = written
        shutil.copy(folder / "rs.dcm", folder / "image" / "rs.dcm")
        reader = tool.DicomReaderWriter(description="x", arg_max=False, verbose=False)
        reader.walk_through_folders(str(folder / "image"))
        reader.set_contour_names_and_associations(contour_names=["liver", "kidney_l"])
        reader.get_images_and_mask()
        for place, target in ((1, 1), (2, 2)):
            count = int(labels.mask(target).sum())
            assert int(reader.mask[..., place].sum()) == pytest.approx(count, rel=0.01)
