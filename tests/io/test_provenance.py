from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from promptseg.errors import FormatError
from promptseg.io.provenance import from_text, in_words, provenance_of, read_provenance, to_text
from promptseg.volume import Segmentation, Volume, read

MODEL = {"name": "default", "family": "promptseg", "sha256": "ab" * 32}
KIDNEY = {"name": "kidney", "organ": "kidney", "created": "2026-01-01", "digest": "cd" * 32}
HEART = {"name": "heart", "organ": "heart", "created": "2026-01-02", "digest": "ef" * 32}


def labels(**report) -> Segmentation:
    data = np.zeros((5, 6, 7), np.uint8)
    data[1:3, 2:4, 3] = 2
    return Segmentation(data, np.diag([1, 1, 3, 1.0]), report=report)


class TestWhatIsSaid:
    def test_model_and_adapter(self) -> None:
        found = labels(model=MODEL, adapter=KIDNEY).provenance
        assert found["model"] == MODEL
        assert found["adapters"] == [KIDNEY]
        assert found["software"] == "promptseg"

    def test_every_adapter_that_took_part_once(self) -> None:
        parts = {"kidney": {"adapter": KIDNEY}, "heart": {"adapter": HEART}, "none": {}}
        found = provenance_of({"adapter": HEART, "adapters": parts})
        assert found["adapters"] == [HEART, KIDNEY]

    def test_nothing_is_made_up(self) -> None:
        assert set(provenance_of({})) == {"software", "version"}

    def test_in_words(self) -> None:
        words = in_words(provenance_of({"model": MODEL, "adapter": KIDNEY}))
        assert words.endswith("model default abababababab, adapter kidney cdcdcdcdcdcd")

    @pytest.mark.parametrize("text", ["", "free text", "[1]", "{}", '{"promptseg": 3}', "[" * 9999])
    def test_other_comments_say_nothing(self, text: str) -> None:
        assert from_text(text) is None

    def test_text_round_trip_through_padding(self) -> None:
        found = provenance_of({"model": MODEL})
        assert from_text(to_text(found) + "\0\0\0") == found


class TestNifti:
    @pytest.mark.parametrize("name", ["m.nii", "m.nii.gz"])
    def test_read_from_the_mask_alone(self, tmp_path: Path, name: str) -> None:
        mask = labels(model=MODEL, adapter=KIDNEY)
        mask.save(tmp_path / name)
        assert read_provenance(tmp_path / name) == mask.provenance
        np.testing.assert_array_equal(read(tmp_path / name).data, mask.data)

    def test_nifti2_and_another_comment_before(self, tmp_path: Path) -> None:
        mask = labels(model=MODEL)
        wide = Volume(mask.data, mask.affine, header=nib.Nifti2Header())
        Segmentation.from_volume(wide, mask.data, report=mask.report).save(tmp_path / "m.nii")
        image = nib.load(tmp_path / "m.nii")
        image.header.extensions.insert(0, nib.nifti1.Nifti1Extension("comment", b"note" * 9))
        nib.save(image, tmp_path / "two.nii")
        assert read_provenance(tmp_path / "two.nii")["model"] == MODEL

    def test_another_programs_mask(self, tmp_path: Path) -> None:
        nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), tmp_path / "m.nii.gz")
        with pytest.raises(FormatError, match="another program"):
            read_provenance(tmp_path / "m.nii.gz")

    def test_damaged_extension_is_no_crash(self, tmp_path: Path) -> None:
        labels(model=MODEL).save(tmp_path / "m.nii")
        content = bytearray((tmp_path / "m.nii").read_bytes())
        content[352:356] = b"\xff\xff\xff\x7f"
        (tmp_path / "m.nii").write_bytes(content)
        assert read_provenance(tmp_path / "m.nii")["model"] == MODEL
        content[352:356] = b"\x00\x00\x00\x80"
        (tmp_path / "m.nii").write_bytes(content)
        with pytest.raises(FormatError, match="another program"):
            read_provenance(tmp_path / "m.nii")

    def test_same_labels_same_bytes(self, tmp_path: Path) -> None:
        for name in ("a.nii.gz", "b.nii.gz"):
            labels(model=MODEL).save(tmp_path / name)
        assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


class TestSharedVoxels:
    def shared(self) -> Segmentation:
        mask = labels()
        layer = mask.data == 2
        layer[1:4, 2:4, 2:5] = True
        return Segmentation(mask.data, mask.affine, layers={3: layer})

    def test_a_layer_is_the_whole_mask_of_its_target(self) -> None:
        mask = self.shared()
        assert mask.targets == (2, 3)
        assert mask.mask(2).sum() == 4
        assert mask.mask(3).sum() == 18
        assert mask.volume_ml(3) == pytest.approx(0.054)

    def test_nifti_refuses_rather_than_losing_voxels(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="targets 3 share voxels"):
            self.shared().save(tmp_path / "m.nii.gz")
        assert list(tmp_path.iterdir()) == []

    def test_digest_knows_the_layers(self) -> None:
        mask = self.shared()
        bare = Segmentation(mask.data, mask.affine)
        assert mask.sha256 != bare.sha256
        assert mask.sha256 == self.shared().sha256


class TestEveryFormat:
    @pytest.mark.parametrize("name", ["m.nii.gz", "m.nrrd", "m.seg.nrrd", "m.mha"])
    def test_read_from_the_mask_alone(self, tmp_path: Path, name: str) -> None:
        mask = labels(model=MODEL, adapter=KIDNEY, postprocessing=[{"step": "largest"}])
        mask.save(tmp_path / name)
        found = read_provenance(tmp_path / name)
        assert found == mask.provenance
        assert found["postprocessing"] == ["largest"]
