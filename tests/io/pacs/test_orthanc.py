"""Against a real Orthanc: series in, objects out, found again."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pacs_kit import PASSWORD, SLICES, Orthanc, ct_series
from pydicom.uid import generate_uid

from promptseg.commands.cli import main
from promptseg.errors import FormatError
from promptseg.io.pacs import parse_address
from promptseg.io.pacs.exchange import connect, fetch_series, store_files
from promptseg.volume import read

pytestmark = pytest.mark.usefixtures("signed_in")


@pytest.fixture(params=["web", "dimse"])
def url(request: pytest.FixtureRequest, orthanc: Orthanc) -> str:
    return str(getattr(orthanc, request.param))


class TestBothProtocols:
    def test_put_list_get_read(self, url: str, tmp_path: Path, capsys) -> None:
        patient = f"P{generate_uid()[-12:]}"
        study, series = ct_series(tmp_path / "ct", patient)
        assert main(["pacs", "put", url, str(tmp_path / "ct"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["stored"] == SLICES
        assert main(["pacs", "list", url, "--patient", patient, "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["study"], found["series"]) == (study, series)
        assert (found["modality"], found["number"], found["instances"]) == ("CT", 1, SLICES)
        assert "name" not in found
        assert main(["pacs", "get", found["url"], "-o", str(tmp_path / "got")]) == 0
        fetched = read(found["url"])
        for other in (read(tmp_path / "got"), read(tmp_path / "ct")):
            np.testing.assert_array_equal(fetched.data, other.data)
            np.testing.assert_allclose(fetched.affine, other.affine)
        assert fetched.modality == "CT"
        assert fetched.source == found["url"]

    def test_names_are_shown_only_when_asked(self, url: str, tmp_path: Path, capsys) -> None:
        patient = f"P{generate_uid()[-12:]}"
        ct_series(tmp_path / "ct", patient)
        assert main(["pacs", "put", url, str(tmp_path / "ct")]) == 0
        assert main(["pacs", "list", url, "--patient", patient]) == 0
        assert "Case" not in capsys.readouterr().out
        assert main(["pacs", "list", url, "--patient", patient, "--keep-identifiers"]) == 0
        assert "Test^Case" in capsys.readouterr().out

    def test_several_series_ask_and_are_chosen_by_number(self, url: str, tmp_path: Path) -> None:
        study, _ = ct_series(tmp_path / "one", "P", 3)
        ct_series(tmp_path / "two", "P", 4, study)
        address = parse_address(url)
        for name in ("one", "two"):
            store_files(connect(address), address, sorted((tmp_path / name).iterdir()))
        place = str(address.of(study))
        with pytest.raises(FormatError, match=r"choose one.*3: CT 'thorax 3'.*4: CT 'thorax 4'"):
            read(place)
        assert read(place, series=4).shape == (12, 16, SLICES)
        with pytest.raises(FormatError, match="no series 9"):
            read(place, series=9)

    def test_nothing_there(self, url: str, tmp_path: Path, capsys) -> None:
        missing = str(parse_address(url).of("1.2.3", "1.2.3.4"))
        assert main(["pacs", "get", missing, "-o", str(tmp_path / "got")]) == 2
        assert "no such study or series" in capsys.readouterr().err
        with pytest.raises(FormatError, match="no such series"):
            read(missing)
        assert list(tmp_path.iterdir()) == []

    def test_too_large_is_refused(self, url: str, tmp_path: Path) -> None:
        study, series = ct_series(tmp_path / "ct", "P")
        address = parse_address(url)
        store_files(connect(address), address, sorted((tmp_path / "ct").iterdir()))
        (tmp_path / "got").mkdir()
        with pytest.raises(FormatError, match="more than 1000 bytes"):
            fetch_series(
                connect(address), address.of(study, series), tmp_path / "got", max_bytes=1000
            )


class TestSecrets:
    def test_wrong_and_no_password(self, orthanc: Orthanc, monkeypatch, capsys) -> None:
        monkeypatch.setenv("PROMPTSEG_PACS_PASSWORD", "nonsense-7")
        assert main(["pacs", "list", orthanc.web]) == 2
        said = capsys.readouterr()
        assert "status 401: it wants a user" in said.err
        assert "nonsense-7" not in said.err + said.out
        monkeypatch.delenv("PROMPTSEG_PACS_PASSWORD")
        assert main(["pacs", "list", orthanc.web]) == 2
        assert "PROMPTSEG_PACS_PASSWORD is not set" in capsys.readouterr().err

    def test_the_password_is_shown_nowhere(self, orthanc: Orthanc) -> None:
        pacs = connect(parse_address(orthanc.web))
        from promptseg.io.pacs.credentials import credentials_for

        assert PASSWORD not in repr(credentials_for(pacs.address)) + repr(vars(pacs))
        assert PASSWORD not in str(parse_address(orthanc.web))


class TestDamage:
    def test_no_server(self, capsys) -> None:
        for nowhere in ("dicomweb://127.0.0.1:9/dicom-web", "dimse://ORTHANC@127.0.0.1:9"):
            assert main(["pacs", "list", nowhere]) == 2
            assert nowhere in capsys.readouterr().err

    def test_another_title(self, orthanc: Orthanc, capsys) -> None:
        assert main(["pacs", "list", orthanc.dimse.replace("ORTHANC", "OTHER")]) == 2
        assert "PROMPTSEG_AE_TITLE" in capsys.readouterr().err

    def test_only_dicom_is_sent(self, orthanc: Orthanc, tmp_path: Path, capsys) -> None:
        (tmp_path / "note.txt").write_text("no DICOM here")
        assert main(["pacs", "put", orthanc.web, str(tmp_path)]) == 2
        assert "note.txt is no DICOM file" in capsys.readouterr().err

    def test_a_full_folder_is_left_alone(self, orthanc: Orthanc, tmp_path: Path, capsys) -> None:
        (tmp_path / "kept").write_text("")
        place = f"{orthanc.web}/studies/1.2/series/1.2.3"
        assert main(["pacs", "get", place, "-o", str(tmp_path)]) == 2
        assert "not an empty folder" in capsys.readouterr().err

    def test_compressed_pixels_travel_as_they_are(
        self, orthanc: Orthanc, tmp_path: Path, shared_data: Path
    ) -> None:
        files = sorted((shared_data / "dicom/mr_sagittal_siemens_j2k/dicom").iterdir())
        header = pydicom.dcmread(files[0], stop_before_pixels=True)
        for url in (orthanc.web, orthanc.dimse):
            address = parse_address(url)
            store_files(connect(address), address, files)
            place = address.of(header.StudyInstanceUID, header.SeriesInstanceUID)
            folder = tmp_path / address.scheme
            folder.mkdir()
            fetch_series(connect(address), place, folder)
            got = pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True)
            assert got.file_meta.TransferSyntaxUID == header.file_meta.TransferSyntaxUID
            np.testing.assert_array_equal(read(folder).data, read(files[0].parent).data)
