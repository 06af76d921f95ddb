import os

import pytest
import torch
from safetensors.torch import save_file

from promptseg.io.atomic import atomic_path


def fail_halfway(target):
    with atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("halfway")


def interrupted(target):
    with atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("halfway")


class TestWriting:
    def test_the_new_file_takes_the_place_of_the_old(self, tmp_path):
        target = tmp_path / "deep" / "mask.nii.gz"
        for text in ("old", "new"):
            with atomic_path(target) as temporary:
                assert temporary.name == target.name
                temporary.write_text(text)
            assert target.read_text() == text
        assert os.listdir(target.parent) == ["mask.nii.gz"]

    def test_an_error_leaves_the_old_file_and_nothing_else(self, tmp_path):
        target = tmp_path / "mask.nii.gz"
        target.write_text("old")
        with pytest.raises(RuntimeError, match="halfway"):
            fail_halfway(target)
        assert target.read_text() == "old"
        assert os.listdir(tmp_path) == ["mask.nii.gz"]

    @pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
    def test_permissions_are_those_of_any_new_file(self, tmp_path, mask):
        before = os.umask(mask)
        try:
            with atomic_path(tmp_path / "a.safetensors") as temporary:
                save_file({"a": torch.zeros(2)}, temporary)
        finally:
            os.umask(before)
        assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
class TestLinks:
    def test_a_link_stays_and_the_file_it_leads_to_is_replaced(self, tmp_path):
        real = tmp_path / "store" / "blob"
        real.parent.mkdir()
        real.write_text("old")
        link = tmp_path / "mask.nii.gz"
        link.symlink_to(real)
        with atomic_path(link) as temporary:
            assert temporary.name == "mask.nii.gz"
            assert temporary.parent.parent == real.parent
            temporary.write_text("new")
        assert link.is_symlink()
        assert real.read_text() == "new"
        assert os.listdir(real.parent) == ["blob"]

    def test_a_chain_of_links_and_a_link_to_nothing_yet_are_followed(self, tmp_path):
        first, second = tmp_path / "first", tmp_path / "second"
        second.symlink_to("made/later.json")
        first.symlink_to(second)
        with atomic_path(first) as temporary:
            temporary.write_text("new")
        assert first.is_symlink()
        assert second.is_symlink()
        assert (tmp_path / "made" / "later.json").read_text() == "new"

    def test_an_error_leaves_what_the_link_leads_to(self, tmp_path):
        real, link = tmp_path / "real", tmp_path / "link"
        real.write_text("old")
        link.symlink_to(real)
        with pytest.raises(RuntimeError, match="halfway"):
            fail_halfway(link)
        assert real.read_text() == "old"

    def test_a_pipe_is_written_to_not_replaced(self, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            with atomic_path(pipe) as temporary:
                temporary.write_text("new")
            assert os.read(reader, 10) == b"new"
        finally:
            os.close(reader)
        assert pipe.is_fifo()
