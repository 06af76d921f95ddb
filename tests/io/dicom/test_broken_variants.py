"""Broken, odd and hostile DICOM: an error that says why or a repair that is told, never a guess."""

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import promptseg as ps

pydicom = pytest.importorskip("pydicom", reason="needs the dicom extra")

from dicom_kit import enhanced, save, series, values  # noqa: E402
from pydicom.uid import generate_uid  # noqa: E402

from promptseg.io.dicom import SeriesChoice, list_series, read_stack  # noqa: E402

HU = values() - 1000


def changed(places, **changes):
    """A series of which some slices have other elements; None removes one."""
    found = series()
    for place in places:
        for name, value in changes.items():
            if value is None:
                delattr(found[place], name)
            else:
                setattr(found[place], name, value)
    return found


def cut(path: Path, keep: float):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


ALL = range(4)
REFUSED = {
    "no position": (lambda: changed(ALL, ImagePositionPatient=None), "no position in the patient"),
    "no orientation": (lambda: changed(ALL, ImageOrientationPatient=None), "no orientation"),
    "no pixel spacing": (lambda: changed(ALL, PixelSpacing=None), "no usable PixelSpacing"),
    "pixel spacing zero": (lambda: changed(ALL, PixelSpacing=[0, 0]), "no usable PixelSpacing"),
    "pixel spacing negative": (lambda: changed(ALL, PixelSpacing=[-1, 1]), "no usable PixelSp"),
    "pixel spacing of one": (lambda: changed(ALL, PixelSpacing=[1]), "no usable PixelSpacing"),
    "orientation too long": (
        lambda: changed(ALL, ImageOrientationPatient=[2, 0, 0, 0, 1, 0]),
        "not two unit vectors at a right angle",
    ),
    "orientation all zero": (
        lambda: changed(ALL, ImageOrientationPatient=[0] * 6),
        "not two unit vectors at a right angle",
    ),
    "orientation slanted": (
        lambda: changed(ALL, ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]),
        "not two unit vectors at a right angle",
    ),
    "position of two": (
        lambda: changed(ALL, ImagePositionPatient=[0, 0]),
        "no position in the patient",
    ),
    "no rows": (lambda: changed(ALL, Rows=None), "Rows and Columns are missing"),
    "no pixels": (lambda: changed([1], PixelData=None), "001.dcm: has no pixel data"),
    "too few pixels": (lambda: changed([2], PixelData=b"\0\0"), "002.dcm: its pixels cannot be"),
    "rows that lie": (lambda: changed(ALL, Rows=7000), "its pixels cannot be decoded"),
    "a slice missing": (lambda: [one for n, one in enumerate(series()) if n != 1], "1 is missing"),
    "slices out of line": (
        lambda: changed([1], ImagePositionPatient=[13, -20, 32.5]),
        "do not lie on a line",
    ),
    "steps of all kinds": (
        lambda: changed([1], ImagePositionPatient=[10, -20, 31.3]),
        "not evenly spaced",
    ),
    "all at one place": (
        lambda: changed(ALL, ImagePositionPatient=[1, 2, 3]),
        "all 4 slices are at one position",
    ),
    "one place twice": (
        lambda: [*series(SeriesInstanceUID="1.2.3.4"),
                 series(SeriesInstanceUID="1.2.3.4", data=values() + 7)[1]],
        "1 positions have several and nothing in the files tells",
    ),
    "slope zero": (lambda: changed(ALL, RescaleSlope=0), "RescaleSlope 0"),
    "slope of some": (
        lambda: changed([0, 1], RescaleSlope=None, RescaleIntercept=None),
        "2 of 4 slices lack RescaleSlope",
    ),
    "colour": (
        lambda: changed(ALL, SamplesPerPixel=3, PhotometricInterpretation="RGB"),
        r"is colour \(RGB, 3 values a pixel\)",
    ),
    "palette": (
        lambda: changed(ALL, PhotometricInterpretation="PALETTE COLOR"),
        "is colour .PALETTE COLOR",
    ),
    "two ways of drawing": (
        lambda: changed([1], PhotometricInterpretation="MONOCHROME1"),
        "drawn in different ways",
    ),
    "signed numbers called unsigned": (
        lambda: series(PixelRepresentation=0),
        "which no CT has: PixelRepresentation says unsigned",
    ),
    "no transfer syntax": (
        lambda: changed(ALL),
        "",
    ),
    "frames without position": (
        lambda: [_without_groups(enhanced(values()))],
        "4 frames that say nothing of their position",
    ),
    "frames that are not all described": (
        lambda: [enhanced(values(), NumberOfFrames=6)],
        "says 6 frames and describes 4",
    ),
    "mosaic without tiles": (
        lambda: changed(ALL, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]),
        "does not say how many tiles",
    ),
}  # fmt: skip
del REFUSED["no transfer syntax"]


def _without_groups(dataset):
    del dataset.PerFrameFunctionalGroupsSequence
    return dataset


class TestRefused:
    @pytest.mark.parametrize("name", sorted(REFUSED))
    def test_with_its_reason(self, tmp_path, name):
        make, reason = REFUSED[name]
        save(make(), tmp_path)
        with pytest.raises((ps.FormatError, ps.VolumeError), match=reason):
            ps.read(tmp_path)

    @pytest.mark.parametrize("keep", [0.02, 0.2, 0.97])
    def test_truncated_files(self, tmp_path, keep):
        save(series(), tmp_path)
        for path in tmp_path.iterdir():
            cut(path, keep)
        with pytest.raises((ps.FormatError, ps.VolumeError)):
            ps.read(tmp_path)

    def test_one_truncated_slice_in_the_middle(self, tmp_path):
        save(series(), tmp_path)
        cut(tmp_path / "001.dcm", 0.97)
        with pytest.raises(ps.PromptsegError, match=r"001\.dcm: its pixels cannot|is missing"):
            ps.read(tmp_path)

    def test_an_unknown_transfer_syntax(self, tmp_path):
        found = series()
        save(found, tmp_path)
        for path in tmp_path.iterdir():
            content = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")
            path.write_bytes(content)
        with pytest.raises(ps.PromptsegError):
            ps.read(tmp_path)

    def test_more_memory_than_allowed(self, tmp_path):
        save(series(), tmp_path)
        with pytest.raises(ps.VolumeError, match="needs 280 bytes"):
            ps.read(tmp_path, max_bytes=200)

    def test_a_folder_without_dicom(self, tmp_path):
        (tmp_path / "notes.txt").write_text("nothing")
        (tmp_path / "empty.dcm").touch()
        with pytest.raises(ps.FormatError, match="no DICOM image"):
            ps.read(tmp_path)

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(ps.FormatError, match="no DICOM image"):
            ps.read(tmp_path)


class TestChosen:
    def refused(self, folder):
        with pytest.raises(SeriesChoice, match="holds several volumes") as caught:
            ps.read(folder)
        return str(caught.value)

    def test_two_series_mixed_in_a_folder(self, tmp_path):
        other = series(data=values() + 5, SeriesDescription="other", SeriesNumber=4)
        save([*series(), *other], tmp_path)
        assert "1: CT 'synthetic', 4 slices; 2: CT 'other', 4 slices" in self.refused(tmp_path)
        assert np.array_equal(ps.read(tmp_path, series=2).data, HU + 5)
        assert np.array_equal(ps.read(tmp_path, series="1").data, HU)

    def test_a_series_that_is_not_there(self, tmp_path):
        save([*series(), *series()], tmp_path)
        with pytest.raises(SeriesChoice, match="has no series 7"):
            ps.read(tmp_path, series=7)

    def test_by_its_uid(self, tmp_path):
        save([*series(), *series(data=values() + 5, SeriesInstanceUID="1.2.3.44")], tmp_path)
        assert np.array_equal(ps.read(tmp_path, series="1.2.3.44").data, HU + 5)

    @pytest.mark.parametrize(
        ("element", "value"),
        [("PatientID", "P2"), ("FrameOfReferenceUID", "1.2.3.10"), ("Modality", "MR")],
    )
    def test_slices_of_another_scan_under_one_uid(self, tmp_path, element, value):
        uid = generate_uid()
        other = series(SeriesInstanceUID=uid, origin=(10, -20, 40.0), **{element: value})
        save([*series(SeriesInstanceUID=uid), *other], tmp_path)
        assert "2 volumes" in self.refused(tmp_path)

    def test_two_orientations_under_one_uid(self, tmp_path):
        uid = generate_uid()
        across = series(((0, 1, 0), (0, 0, -1)), SeriesInstanceUID=uid)
        save([*series(SeriesInstanceUID=uid), *across], tmp_path)
        assert "1.1: 4 slices, axial; 1.2: 4 slices, sagittal" in self.refused(tmp_path)

    @pytest.mark.parametrize(
        ("element", "first", "second"),
        [("EchoTime", 10, 90), ("TriggerTime", 0, 400), ("AcquisitionNumber", 1, 2)],
    )
    def test_several_volumes_at_the_same_positions(self, tmp_path, element, first, second):
        uid = generate_uid()
        both = [
            *series(SeriesInstanceUID=uid, modality="MR", **{element: second}),
            *series(SeriesInstanceUID=uid, modality="MR", data=values() + 9, **{element: first}),
        ]
        save(both, tmp_path)
        assert f"1.1: 4 slices, {element} {first}" in self.refused(tmp_path)
        assert np.array_equal(ps.read(tmp_path, series="1.1").data, values() + 9)
        assert np.array_equal(ps.read(tmp_path, series="1.2").data, values())

    def test_frames_of_several_times(self, tmp_path):
        both = np.repeat(values(), 2, axis=2)
        both[:, :, 1::2] += 50
        save([enhanced(both, per_position=2)], tmp_path)
        assert "TemporalPositionIndex 1" in self.refused(tmp_path)
        assert np.array_equal(ps.read(tmp_path, series="1.2").data, HU + 50)

    def test_every_volume_of_the_list_can_be_read(self, tmp_path):
        save([*series(), *series(data=values() + 5)], tmp_path)
        found = list_series(tmp_path)
        read = [read_stack(one, stack).data for one in found.series for stack in one.stacks]
        assert sorted(int(data[0, 0, 0] - HU[0, 0, 0]) for data in read) == [0, 5]


class TestReadAllTheSame:
    def read(self, folder):
        volume = ps.read(folder)
        assert np.array_equal(volume.data, HU)
        assert volume.affine[:3, 3] == pytest.approx((-10, 20, 30))
        assert volume.spacing == pytest.approx((0.6, 0.8, 2.5))
        return volume.notes

    def test_shuffled_names_and_numbers(self, tmp_path):
        found = series()
        for number, dataset in zip((3, 1, 4, 2), found, strict=True):
            dataset.InstanceNumber = number
        save(found, tmp_path, ["z", "b.dcm", "IM1", "a.ima"])
        assert self.read(tmp_path) == ()

    def test_against_the_normal(self, tmp_path):
        save(list(reversed(series())), tmp_path)
        assert self.read(tmp_path) == ()

    @pytest.mark.parametrize("position", ["HFS", "FFS", "HFDR", "FFDL", "HFP"])
    def test_the_patients_position_changes_nothing(self, tmp_path, position):
        save(series(PatientPosition=position), tmp_path)
        assert self.read(tmp_path) == ()

    def test_a_file_that_is_there_twice(self, tmp_path):
        save(series(), tmp_path)
        shutil.copy(tmp_path / "001.dcm", tmp_path / "copy.dcm")
        assert self.read(tmp_path) == ("1 file is there twice, read once",)

    def test_a_slice_that_is_there_under_two_uids(self, tmp_path):
        uid = generate_uid()
        save([*series(SeriesInstanceUID=uid), series(SeriesInstanceUID=uid)[2]], tmp_path)
        assert self.read(tmp_path) == ("1 slice is there twice with equal pixels, read once",)

    def test_other_objects_and_files_beside_the_slices(self, tmp_path):
        save(series(), tmp_path)
        report = series()[0]
        report.Modality, report.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.11"
        report.save_as(tmp_path / "report.dcm")
        (tmp_path / "readme.txt").write_text("hello")
        notes = self.read(tmp_path)
        assert notes == (
            "passed over: 1 Basic Text SR",
            "passed over, not DICOM: 1 (readme.txt)",
        )

    def test_a_localiser_in_the_series(self, tmp_path):
        uid = generate_uid()
        scout = series(((0, 1, 0), (0, 0, -1)), SeriesInstanceUID=uid)[:1]
        scout[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        save([*series(SeriesInstanceUID=uid), *scout], tmp_path)
        assert self.read(tmp_path) == ("1 localiser slices of the same series passed over",)

    def test_a_damaged_file_at_the_end_is_told(self, tmp_path):
        save(series(), tmp_path)
        (tmp_path / "999.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08\x00\x05\x00CS\xff\xff")
        [note] = self.read(tmp_path)
        assert "999.dcm" in note

    def test_studies_of_their_own(self, tmp_path):
        found = series()
        for number, dataset in enumerate(found):
            dataset.StudyInstanceUID = f"1.2.3.{number}"
        save(found, tmp_path)
        assert self.read(tmp_path) == ()

    def test_monochrome1_is_told(self, tmp_path):
        save(series(PhotometricInterpretation="MONOCHROME1"), tmp_path)
        [note] = self.read(tmp_path)
        assert note.startswith("MONOCHROME1: low values are drawn bright")

    def test_no_uids(self, tmp_path):
        found = series(StudyInstanceUID="", FrameOfReferenceUID=None)
        save(found, tmp_path)
        [note] = self.read(tmp_path)
        assert note.startswith("no StudyInstanceUID, FrameOfReferenceUID in the files")

    def test_no_rescale_is_told(self, tmp_path):
        save(series(RescaleSlope=None, RescaleIntercept=None), tmp_path)
        volume = ps.read(tmp_path)
        assert np.array_equal(volume.data, values())
        assert volume.notes[0].startswith("no RescaleSlope and RescaleIntercept")

    def test_a_value_that_is_no_number(self, tmp_path):
        save(series(SliceThickness="7.25"), tmp_path)
        for path in tmp_path.iterdir():
            path.write_bytes(path.read_bytes().replace(b"7.25", b"abcd"))
        assert self.read(tmp_path) == ()

    def test_one_file_stands_for_its_series(self, tmp_path):
        save([*series(), *series(data=values() + 5)], tmp_path)
        assert np.array_equal(ps.read(tmp_path / "006.dcm").data, HU + 5)

    def test_twelve_bits_with_an_overlay_above(self, tmp_path):
        found = series(BitsStored=12, HighBit=11, PixelRepresentation=0, RescaleIntercept=0)
        for dataset in found:
            stored = np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF
            marked = stored | np.where(np.arange(len(stored)) % 2, 0x8000, 0).astype("<u2")
            dataset.PixelData = marked.tobytes()
            dataset.add_new((0x6000, 0x0102), "US", 15)
        save(found, tmp_path)
        assert np.array_equal(ps.read(tmp_path).data, values().astype(np.uint16) & 0x0FFF)

    def test_twelve_signed_bits_without_their_sign_above(self, tmp_path):
        found = series(BitsStored=12, HighBit=11)
        for dataset in found:
            dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF).tobytes()
        save(found, tmp_path)
        self.read(tmp_path)

    def test_an_enhanced_file_with_a_position_of_its_own(self, tmp_path):
        save([enhanced(values(), ImagePositionPatient=[99, 99, 99])], tmp_path)
        self.read(tmp_path)

    @pytest.mark.parametrize("syntax", ["deflated", "implicit", "RLE"])
    def test_other_transfer_syntaxes(self, tmp_path, syntax):
        from pydicom import uid

        found = series()
        for number, dataset in enumerate(found):
            if syntax == "RLE":
                dataset.compress(uid.RLELossless)
            known = {
                "deflated": uid.DeflatedExplicitVRLittleEndian,
                "implicit": uid.ImplicitVRLittleEndian,
                "RLE": uid.RLELossless,
            }
            dataset.file_meta.TransferSyntaxUID = known[syntax]
            dataset["PixelData"].VR = "OB" if syntax == "RLE" else "OW"
            dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
        self.read(tmp_path)


class TestZip:
    def packed(self, folder, names=None):
        save(series(), folder / "in")
        path = folder / "series.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for place, one in enumerate(sorted((folder / "in").iterdir())):
                name = names[place] if names else f"study/{one.name}"
                archive.writestr(zipfile.ZipInfo(name), one.read_bytes())
        return path

    def test_read_without_being_unpacked(self, tmp_path, monkeypatch):
        path = self.packed(tmp_path)
        shutil.rmtree(tmp_path / "in")
        monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
        assert np.array_equal(ps.read(path).data, HU)
        assert [one.name for one in tmp_path.iterdir()] == ["series.zip"]

    @pytest.mark.parametrize("name", ["../evil.dcm", "/evil.dcm", "a/../../evil.dcm", "C:/x.dcm"])
    def test_a_path_that_leads_outside(self, tmp_path, name):
        path = self.packed(tmp_path, [name, "b", "c", "d"])
        with pytest.raises(ps.FormatError, match="leads outside the zip file: refused"):
            ps.read(path)
        assert not list(tmp_path.rglob("evil.dcm"))

    def test_a_bomb(self, tmp_path):
        path = tmp_path / "bomb.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.dcm", bytes(50_000_000))
        with pytest.raises(ps.FormatError, match="unpacks to 50000000 bytes, the limit is 1000000"):
            ps.read(path, max_bytes=1_000_000)

    def test_a_member_that_lies_about_its_size(self, tmp_path):
        path = self.packed(tmp_path)
        with zipfile.ZipFile(path) as archive:
            size = archive.infolist()[0].file_size
        content = path.read_bytes()
        at = content.index(b"PK\x01\x02")
        content = content[: at + 24] + (size // 2).to_bytes(4, "little") + content[at + 28 :]
        path.write_bytes(content)
        volume = ps.read(path)
        assert volume.shape[2] == 3
        assert any("passed over as damaged: 1 (study/000.dcm)" in note for note in volume.notes)

    def test_a_truncated_zip(self, tmp_path):
        path = self.packed(tmp_path)
        cut(path, 0.8)
        with pytest.raises(ps.FormatError):
            ps.read(path)

    def test_an_empty_zip(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.zip", "w"):
            pass
        with pytest.raises(ps.FormatError, match="no DICOM image"):
            ps.read(tmp_path / "x.zip")


class TestDicomdir:
    def test_what_it_names_is_not_followed(self, tmp_path):
        save(series(), tmp_path / "inside")
        save(series(data=values() + 5), tmp_path / "outside")
        listing = pydicom.Dataset()
        record = pydicom.Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = ["..", "outside", "000.dcm"]
        listing.DirectoryRecordSequence = [record]
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        found = pydicom.dataset.FileDataset("", listing, file_meta=meta, preamble=bytes(128))
        found.save_as(tmp_path / "inside" / "DICOMDIR", enforce_file_format=True)
        for path in (tmp_path / "inside", tmp_path / "inside" / "DICOMDIR"):
            assert np.array_equal(ps.read(path).data, HU)

    def test_links_to_folders_are_not_followed(self, tmp_path):
        save(series(), tmp_path / "inside")
        save(series(data=values() + 5), tmp_path / "outside")
        os.symlink(tmp_path / "outside", tmp_path / "inside" / "more")
        assert np.array_equal(ps.read(tmp_path / "inside").data, HU)


class TestLabelObjects:
    @pytest.fixture
    def labels(self, tmp_path):
        volume = ps.read(save(series(), tmp_path / "image"))
        data = np.zeros(volume.shape, np.uint8)
        data[1:4, 2:6, 1:3] = 1
        return ps.Segmentation.from_volume(volume, data)

    @pytest.mark.parametrize("format", ["rtstruct", "seg"])
    def test_of_another_series(self, labels, tmp_path, format):
        labels.save(tmp_path / "x.dcm", format=format)
        other = ps.read(save(series(FrameOfReferenceUID="1.2.3.77"), tmp_path / "other"))
        with pytest.raises(ps.FormatError, match="in another frame of reference than the image"):
            ps.read_labels(tmp_path / "x.dcm", other)

    @pytest.mark.parametrize("format", ["rtstruct", "seg"])
    def test_beside_the_image(self, labels, tmp_path, format):
        labels.save(tmp_path / "x.dcm", format=format)
        other = ps.read(save(series(origin=(500, 500, 500.0)), tmp_path / "other"))
        with pytest.raises(ps.VolumeError, match="belongs to another"):
            ps.read_labels(tmp_path / "x.dcm", other)

    @pytest.mark.parametrize("format", ["rtstruct", "seg"])
    @pytest.mark.parametrize("keep", [0.3, 0.9])
    def test_truncated(self, labels, tmp_path, format, keep):
        labels.save(tmp_path / "x.dcm", format=format)
        cut(tmp_path / "x.dcm", keep)
        volume = ps.read(tmp_path / "image")
        with pytest.raises((ps.FormatError, ps.VolumeError)):
            ps.read_labels(tmp_path / "x.dcm", volume)

    def test_an_image_is_no_label(self, labels, tmp_path):
        volume = ps.read(tmp_path / "image")
        with pytest.raises(ps.FormatError, match="no DICOM-SEG and no RTSTRUCT"):
            ps.read_labels(tmp_path / "image" / "000.dcm", volume)
