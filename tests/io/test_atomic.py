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
