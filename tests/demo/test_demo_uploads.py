import gzip
import os
import struct
import zipfile

import nibabel as nib
import numpy as np
import pytest
from demo_kit import tubes

from promptseg.demo.uploads import read_upload, unpack
from promptseg.errors import FormatError, PromptsegError
from promptseg.volume import write

LIMIT = 50_000_000


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "tubes.nii.gz"
    write(tubes(), path)
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


class TestReading:
    def test_a_nifti_file(self, image):
        np.testing.assert_array_equal(read_upload([image], LIMIT).data, tubes().data)

    def test_a_zip_file_that_holds_one(self, image, tmp_path):
        path = zipped(tmp_path / "one.zip", {"deep/inside/a.nii.gz": image.read_bytes()})
        np.testing.assert_array_equal(read_upload([path], LIMIT).data, tubes().data)


class TestRefusing:
    def test_a_renamed_executable(self, tmp_path):
        path = tmp_path / "scan.nii.gz"
        path.write_bytes(b"\x7fELF" + os.urandom(4096))
        with pytest.raises(FormatError, match=r"^scan\.nii\.gz: .*not gzip"):
            read_upload([path], LIMIT)

    def test_nothing(self):
        with pytest.raises(FormatError, match="no file"):
            read_upload([], LIMIT)

    def test_a_zip_bomb(self, tmp_path):
        path = zipped(tmp_path / "bomb.zip", {"a.nii": b"\0" * (LIMIT + 1)})
        with pytest.raises(FormatError, match="unpacks to"):
            read_upload([path], LIMIT)

    def test_a_zip_bomb_that_lies_about_its_size(self, tmp_path):
        path = zipped(tmp_path / "bomb.zip", {"a.nii": b"\0" * 1_000_000})
        raw = bytearray(path.read_bytes())
        at = raw.rindex(b"PK\x01\x02")
        raw[at + 24 : at + 28] = struct.pack("<I", 10)
        raw[22:26] = struct.pack("<I", 10)
        path.write_bytes(raw)
        with pytest.raises(PromptsegError):
            read_upload([path], LIMIT)

    @pytest.mark.parametrize(
        "name", ["../../evil.nii", "/etc/evil.nii", "..\\evil.nii", "C:\\evil.nii"]
    )
    def test_a_path_that_leads_outside(self, tmp_path, name):
        path = zipped(tmp_path / "evil.zip", {name: b"x"})
        with pytest.raises(FormatError, match="leads outside"):
            read_upload([path], LIMIT)
        assert not (tmp_path.parent / "evil.nii").exists()

    def test_a_link(self, tmp_path):
        path = tmp_path / "link.zip"
        with zipfile.ZipFile(path, "w") as archive:
            link = zipfile.ZipInfo("a.nii")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
        with pytest.raises(FormatError, match="is a link"):
            unpack(path, tmp_path, LIMIT)

    def test_a_claim_of_three_gigabytes(self, tmp_path):
        header = nib.Nifti1Header()
        header.set_data_shape((1200, 1200, 1100))
        header.set_data_dtype(np.int16)
        header["magic"] = b"n+1"
        header["vox_offset"] = 352
        path = tmp_path / "claim.nii"
        path.write_bytes(header.binaryblock + b"\0" * 10_000)
        with pytest.raises(PromptsegError, match="header asks for 3168"):
            read_upload([path], LIMIT)
        bomb = tmp_path / "claim.nii.gz"
        bomb.write_bytes(gzip.compress(header.binaryblock + b"\0" * 4_000_000))
        with pytest.raises(PromptsegError, match="header asks for 3168"):
            read_upload([bomb], LIMIT)

    def test_four_dimensions(self, tmp_path):
        path = tmp_path / "four.nii.gz"
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)), path)
        with pytest.raises(PromptsegError, match="4D"):
            read_upload([path], LIMIT)

    def test_messages_hold_no_folder_of_the_server(self, tmp_path):
        path = tmp_path / "x.nii"
        path.write_bytes(b"")
        with pytest.raises(FormatError) as caught:
            read_upload([path], LIMIT)
        assert str(tmp_path) not in str(caught.value)
