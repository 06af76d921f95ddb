"""DICOM uploads: zipped, as files, and with several series to choose from."""

import zipfile

import numpy as np
import pytest
from demo_kit import bright_server, tubes
from pydicom import dcmread
from series_kit import series

from promptseg.demo import actions
from promptseg.demo.downloads import mask_formats, write_download
from promptseg.demo.looking import open_volume
from promptseg.demo.opening import drop_waiting, open_directly, open_series, open_upload
from promptseg.errors import FormatError, PromptsegError
from promptseg.io.dicom import SeriesChoice
from promptseg.prompts.types import Point
from promptseg.volume import Volume

SMALL = Volume(tubes().data[:, :, :5] + 7, tubes().affine)


@pytest.fixture
def server(tmp_path):
    made = bright_server(tmp_path / "server")
    made.uploads.mkdir(parents=True)
    return made


def sent(server, name, content):
    path = server.uploads / name
    path.write_bytes(content)
    return path


def zipped(server, name, *many):
    path = server.uploads / name
    with zipfile.ZipFile(path, "w") as archive:
        for files in many:
            for inner, content in files.items():
                archive.writestr(inner, content)
    return path


def middle(data):
    return np.sort(np.unique(data, return_counts=True)[1])


class TestOneSeries:
    def test_a_zip_file(self, server):
        visit, path = server.visits.of("one"), zipped(server, "ct.zip", series(tubes()))
        open_upload(visit, server, [path], "ct.zip")
        assert (visit.name, visit.volume.shape) == ("ct.zip", (40, 48, 12))
        assert visit.volume.modality == "CT"
        assert np.array_equal(middle(visit.volume.data), middle(tubes().data.astype(np.int16)))
        assert not path.exists()

    def test_several_files_in_any_order(self, server):
        visit = server.visits.of("one")
        files = [sent(server, name.split("/")[1], content) for name, content in
                 reversed(series(tubes()).items())]  # fmt: skip
        open_upload(visit, server, files, "12 files")
        assert visit.volume.shape == (40, 48, 12)
        assert list(server.uploads.iterdir()) == []

    def test_what_holds_none_is_refused_by_its_own_name(self, server):
        visit = server.visits.of("one")
        path = zipped(server, "papers.zip", {"a.txt": b"text", "b.pdf": b"%PDF"})
        with pytest.raises(FormatError, match=r"^papers\.zip") as caught:
            open_upload(visit, server, [path], "papers.zip")
        assert str(server.folder) not in str(caught.value)
        assert "/tmp" not in str(caught.value)
        assert not path.exists()


class TestFormats:
    def test_what_belongs_to_a_series_is_offered_for_one(self, server, tmp_path):
        visit = server.visits.of("one")
        open_upload(visit, server, [zipped(server, "ct.zip", series(tubes()))], "ct.zip")
        actions.give(visit, server.models, Point((14, 16, 5)))
        actions.propagate(visit, server.models)
        assert {".nii.gz", "rtstruct", "seg"} <= set(mask_formats(visit))
        for format in mask_formats(visit):
            path = write_download(visit, "mask", tmp_path, format)
            assert path.stat().st_size > 300
        written = dcmread(tmp_path / "rtstruct.dcm")
        assert written.Modality == "RTSTRUCT"
        assert [roi.ROIName for roi in written.StructureSetROISequence] == ["target 1"]
        assert dcmread(tmp_path / "seg.dcm").Modality == "SEG"

    def test_an_image_that_is_no_series_has_none_of_them(self, server, tmp_path):
        visit = server.visits.of("one")
        open_volume(visit, tubes(), "tubes.nii.gz", server.visits)
        actions.give(visit, server.models, Point((14, 16, 5)))
        assert not {"rtstruct", "seg"} & set(mask_formats(visit))
        with pytest.raises(PromptsegError, match="cannot be had as 'seg'"):
            write_download(visit, "mask", tmp_path, "seg")

    def test_a_session_file_brings_everything_back(self, server, tmp_path):
        visit, other = server.visits.of("one"), server.visits.of("two")
        open_volume(visit, tubes(), "tubes.nii.gz", server.visits)
        actions.give(visit, server.models, Point((14, 16, 5)))
        actions.propagate(visit, server.models)
        path = write_download(visit, "session", tmp_path)
        assert not visit.unsaved
        content = path.read_bytes()
        with pytest.raises(FormatError, match=r"open tubes\.nii\.gz first"):
            open_upload(other, server, [sent(server, "a.session", content)], "a.session")
        open_volume(other, tubes(), "same.nii.gz", server.visits)
        open_upload(other, server, [sent(server, "a.session", content)], "a.session")
        assert np.array_equal(other.labels, visit.labels)
        assert (other.name, other.propagated) == ("same.nii.gz", True)
        assert list(server.uploads.iterdir()) == []


class TestSeveralSeries:
    @pytest.fixture
    def waiting(self, server):
        visit = server.visits.of("one")
        path = zipped(server, "study.zip", series(tubes(), "venous"), series(SMALL, "arterial"))
        open_upload(visit, server, [path], "study.zip")
        return visit, path

    def test_the_visitor_chooses(self, server, waiting):
        visit, path = waiting
        assert visit.volume is None
        texts = dict(visit.waiting.choices)
        assert {text.split(", ")[-1] for text in texts} == {"12 slices", "5 slices"}
        chosen = next(value for text, value in texts.items() if "arterial" in text)
        open_series(visit, server, chosen)
        assert visit.volume.shape == (40, 48, 5)
        assert visit.name == f"study.zip ({chosen})"
        assert visit.waiting is None
        assert not path.exists()

    def test_a_wrong_choice_leaves_the_others(self, server, waiting):
        visit, path = waiting
        with pytest.raises(SeriesChoice, match=r"study\.zip: has no series 9"):
            open_series(visit, server, "9")
        assert path.exists()
        open_series(visit, server, "1")
        assert visit.volume is not None

    def test_none_of_them(self, server, waiting):
        visit, path = waiting
        drop_waiting(visit)
        assert not path.exists()
        with pytest.raises(PromptsegError, match="choose a file first"):
            open_series(visit, server, "1")

    def test_the_files_go_with_the_visit(self, server, waiting):
        server.visits.drop("one")
        assert not waiting[1].exists()

    def test_a_program_names_the_series(self, server):
        visit = server.visits.of("one")
        both = series(tubes(), "venous"), series(SMALL, "arterial")
        path = zipped(server, "study.zip", *both)
        with pytest.raises(SeriesChoice, match=r"study\.zip: holds several volumes"):
            open_directly(visit, server, [path], "study.zip", "")
        assert not path.exists()
        path = zipped(server, "study.zip", *both)
        open_directly(visit, server, [path], "study.zip", "2")
        assert visit.volume is not None
