"""DICOM uploads: zipped, as files, and with several series to choose from."""

import zipfile

import numpy as np
import pytest
from demo_kit import bright_server, tubes
from dicom_kit import series

from promptseg.demo.opening import drop_waiting, open_directly, open_series, open_upload
from promptseg.errors import FormatError, PromptsegError
from promptseg.io.dicom import SeriesChoice
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
