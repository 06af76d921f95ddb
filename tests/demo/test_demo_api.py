import gzip
import os
import zipfile

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the demo needs the `demo` extra")
import nibabel as nib
from demo_kit import bright_server, masks_equal, running, tubes
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from support import segmenter

from promptseg.demo.launch import serve
from promptseg.errors import PromptsegError
from promptseg.prompts.types import PromptSet
from promptseg.volume import read, write

SLOW_S = 120


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    server = bright_server(tmp_path_factory.mktemp("served"), max_upload=2_000_000)
    blocks, address = running(server)
    yield server, address
    blocks.close()


@pytest.fixture
def client(served, tmp_path):
    return connect(served[1], tmp_path)


def connect(address, folder, **options):
    slow = {"timeout": SLOW_S}
    return Client(address, verbose=False, download_files=str(folder), httpx_kwargs=slow, **options)


def call(client, name, *arguments):
    return client.predict(*arguments, api_name=f"/{name}")


def voxels(state, target="1"):
    return state["targets"][target]["voxels"]


class TestOneUser:
    def test_open_prompt_propagate_correct_undo_download(self, client, tmp_path):
        path = tmp_path / "tubes.nii.gz"
        write(tubes(), path)
        assert call(client, "open", handle_file(str(path)))["image"]["shape"] == [40, 48, 12]
        first = call(client, "add_point", [14, 16, 5], True, 1)
        call(client, "add_point", [16, 18, 5], True, 1)
        two = call(client, "add_box", [21, 27, 5], [36, 42, 6], 2)
        assert voxels(two) == voxels(first) > 100
        with pytest.raises(AppError, match="text"):
            call(client, "add_text", "left kidney", 1)
        done = call(client, "propagate")
        assert done["propagated"]
        assert voxels(done) > 5 * voxels(first)
        waiting = call(client, "add_point", [14, 23, 7], False, 1)
        assert waiting["pending"] == 1
        refined = call(client, "refine", "graph_cut")
        assert refined["pending"] == 0
        undone = call(client, "undo")
        assert voxels(undone) == voxels(done)
        again = call(client, "redo")
        assert voxels(again) == voxels(refined)
        mask = read(call(client, "download_mask"))
        prompts = PromptSet.load(call(client, "download_prompts"))
        assert masks_equal(mask.data, segmenter().segment(tubes(), prompts).data)
        assert call(client, "download_report").endswith(".json")
        assert "ps.Segmenter.from_pretrained" in call(client, "python")

    def test_a_refusal_is_an_error_with_the_same_words(self, client):
        with pytest.raises(AppError, match=r"(?i)open an image first"):
            call(client, "add_point", [1, 1, 1], True, 1)
        call(client, "open_sample")
        with pytest.raises(AppError, match="valid"):
            call(client, "add_point", [99, 1, 1], True, 1)
        with pytest.raises(AppError, match="not offered"):
            call(client, "choose_model", "/etc/passwd", "")
        assert call(client, "state")["prompts"] == 0

    def test_scribble_and_slice(self, client):
        call(client, "open_sample")
        state = call(client, "add_scribble", [[13, 16, 4], [14, 16, 4], [15, 16, 4]], True, 1)
        assert voxels(state) > 100
        assert call(client, "slice", "axial", 4).startswith("data:image/jpeg;base64,")
        with pytest.raises(AppError, match="valid 0 to 11"):
            call(client, "slice", "axial", 12)


class TestStrokes:
    def test_a_negative_stroke_is_obeyed(self, client):
        call(client, "open_sample")
        call(client, "add_box", [5, 7, 5], [35, 41, 6], 1)
        call(client, "propagate")
        before = read(call(client, "download_mask")).data > 0
        stroke = [[i, 34, 7] for i in range(25, 32)]
        assert before[25:32, 34, 7].all()
        assert call(client, "add_scribble", stroke, False, 1)["pending"] == 1
        call(client, "refine", "graph_cut")
        after = read(call(client, "download_mask")).data > 0
        assert not after[25:32, 34, 7].any()
        assert after[14, 16, 7]


class TestBadUploads:
    def refused(self, client, path, words):
        with pytest.raises(AppError, match=words) as caught:
            call(client, "open", handle_file(str(path)))
        assert str(path.parent) not in str(caught.value)
        assert call(client, "state")["image"] is None

    def test_each_is_refused_and_the_server_goes_on(self, client, tmp_path):
        program = tmp_path / "scan.nii.gz"
        program.write_bytes(b"\x7fELF" + os.urandom(1000))
        self.refused(client, program, "not gzip data")
        bomb, evil = tmp_path / "bomb.zip", tmp_path / "evil.zip"
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.nii", b"\0" * 9_000_000)
        self.refused(client, bomb, "unpacks to 9000000 bytes")
        with zipfile.ZipFile(evil, "w") as archive:
            archive.writestr("../../evil.nii", b"x")
        self.refused(client, evil, "leads outside")
        header = nib.Nifti1Header()
        header.set_data_shape((1200, 1200, 1100))
        header.set_data_dtype(np.int16)
        header["magic"], header["vox_offset"] = b"n+1", 352
        claim = tmp_path / "claim.nii.gz"
        claim.write_bytes(gzip.compress(header.binaryblock + b"\0" * 100_000))
        self.refused(client, claim, "header asks for 3168")
        four = tmp_path / "four.nii.gz"
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)), four)
        self.refused(client, four, "4D")
        assert call(client, "open_sample")["image"]["name"] == "sample.nii.gz"

    def test_a_path_on_the_server_is_no_upload(self, client, tmp_path):
        path = tmp_path / "other.nii.gz"
        write(tubes(), path)
        with pytest.raises(AppError, match="was not sent"):
            call(client, "open", {"path": str(path)})
        assert path.exists()

    def test_more_than_the_limit_is_not_taken(self, client, tmp_path):
        large = tmp_path / "large.nii"
        large.write_bytes(os.urandom(2_500_000))
        with pytest.raises(Exception, match=r"(?i)413|size|large"):
            call(client, "open", handle_file(str(large)))
        assert call(client, "open_sample")["image"]

    def test_uploads_are_deleted_once_read(self, served, client, tmp_path):
        path = tmp_path / "private-name.nii.gz"
        write(tubes(), path)
        call(client, "open", handle_file(str(path)))
        assert list(served[0].folder.rglob("private-name*")) == []


class TestSeveralUsers:
    def test_nobody_sees_another_s_volume(self, served, tmp_path):
        one, two = (connect(served[1], tmp_path / name) for name in "ab")
        call(one, "open_sample")
        call(one, "add_point", [14, 16, 5], True, 1)
        assert call(two, "state")["image"] is None
        with pytest.raises(AppError):
            call(two, "download_mask")
        call(two, "open_sample")
        call(two, "add_point", [28, 34, 5], True, 1)
        assert voxels(call(one, "state")) != voxels(call(two, "state"))


class TestGuarding:
    def test_other_hosts_need_a_password(self, tmp_path):
        with pytest.raises(PromptsegError, match="--password"):
            serve(bright_server(tmp_path), host="0.0.0.0")

    def test_a_password_is_asked_for(self, tmp_path):
        blocks, address = running(bright_server(tmp_path), password="s3cret")
        try:
            with pytest.raises(Exception, match=r"(?i)auth|log|401|credential"):
                connect(address, tmp_path)
            with pytest.raises(Exception, match=r"(?i)auth|log|401|400|credential"):
                connect(address, tmp_path, auth=("me", "wrong"))
            allowed = connect(address, tmp_path, auth=("anyone", "s3cret"))
            assert call(allowed, "open_sample")["image"]["shape"] == [40, 48, 12]
        finally:
            blocks.close()
