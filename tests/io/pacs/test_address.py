import pytest

from promptseg.errors import FormatError
from promptseg.io.pacs import is_address, parse_address
from promptseg.io.pacs.credentials import credentials_for


class TestAddress:
    @pytest.mark.parametrize(
        "text",
        [
            "dicomweb://pacs.example.org/dicom-web",
            "dicomweb://pacs.example.org:8443/a/b/studies/1.2.3/series/1.2.4",
            "dicomweb+http://10.0.0.7:8042/dicom-web/studies/1.2",
            "dicomweb://[::1]:8042/dicom-web",
            "dimse://ORTHANC@10.0.0.7:4242",
            "dimse+tls://ORTHANC@pacs.example.org:2762/studies/1.2/series/1.3",
        ],
    )
    def test_round_trip(self, text: str) -> None:
        assert is_address(text)
        assert str(parse_address(text)) == text

    def test_encrypted_except_on_this_machine(self) -> None:
        services = {
            "dicomweb://pacs.example.org/x": "https://pacs.example.org/x",
            "dicomweb://127.0.0.1:8042/x": "http://127.0.0.1:8042/x",
            "dicomweb://localhost:8042/x/studies/1.2": "http://localhost:8042/x",
            "dicomweb://localhost.example.org/x": "https://localhost.example.org/x",
            "dicomweb+http://10.0.0.7/x": "http://10.0.0.7/x",
        }
        for text, service in services.items():
            assert parse_address(text).service == service

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("https://host/x", "no PACS address"),
            ("dicomweb://", "no PACS address"),
            ("dicomweb://host:port/x", "cannot be read"),
            ("dicomweb://host/x?a=b", "no \\? and no #"),
            ("dicomweb://host/x/studies/a-b", "'a-b' is no UID"),
            ("dicomweb://host/x/series/1.2", "name the study too"),
            ("dimse://host:104", "dimse://AETITLE@HOST:PORT"),
            ("dimse://ORTHANC@host", "dimse://AETITLE@HOST:PORT"),
            ("dimse://A_TITLE_THAT_IS_TOO_LONG@host:104", "dimse://AETITLE@HOST:PORT"),
        ],
    )
    def test_refused(self, text: str, match: str) -> None:
        with pytest.raises(FormatError, match=match):
            parse_address(text)

    def test_a_password_is_refused_and_not_repeated(self) -> None:
        for text in ("dicomweb://alice:hunter2@host/x", "dicomweb://alice@host/x"):
            with pytest.raises(FormatError, match="ends up in logs") as caught:
                parse_address(text)
            assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("place", ["ct.nii.gz", "C:\\data\\ct", "/a/dicomweb", "file:///x"])
    def test_files_are_no_addresses(self, place: str) -> None:
        assert not is_address(place)


class TestCredentials:
    @pytest.fixture(autouse=True)
    def bare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("USER", "PASSWORD", "TOKEN"):
            monkeypatch.delenv(f"PROMPTSEG_PACS_{name}", raising=False)

    def test_never_in_the_clear_to_another_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROMPTSEG_PACS_TOKEN", "t0ken")
        assert credentials_for(parse_address("dicomweb://host/x")).token == "t0ken"
        with pytest.raises(FormatError, match="not encrypted") as caught:
            credentials_for(parse_address("dicomweb+http://host/x"))
        assert "t0ken" not in str(caught.value)

    def test_from_the_keyring(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keyring = pytest.importorskip("keyring", reason="keyring is not installed")
        held = {"promptseg:host": keyring.credentials.SimpleCredential("bob", "s3cret")}
        monkeypatch.setattr(keyring, "get_credential", lambda service, user: held.get(service))
        found = credentials_for(parse_address("dicomweb://host/x"))
        assert (found.user, found.password) == ("bob", "s3cret")
        assert "s3cret" not in repr(found)
        assert not credentials_for(parse_address("dicomweb://other/x"))
