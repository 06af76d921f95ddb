import re
from pathlib import Path

import pytest
import torch
import transformers

from promptseg.backbones import load_backbone
from promptseg.backbones.convert import MEMORY, sam2_state
from promptseg.backbones.standins import original_sam2, random_sam, random_sam2

SAM2_NAMES = Path(__file__).with_name("sam2_names.txt")


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return transformers.Sam2Model(transformers.Sam2Config()).state_dict()


class TestSam:
    def test_reads_as_an_original_checkpoint(self, tmp_path: Path) -> None:
        backbone = load_backbone(random_sam(tmp_path / "sam_vit_b_01ec64.pth"))
        assert (backbone.spec.family, backbone.spec.input_size) == ("segment-anything", 256)
        with torch.no_grad():
            features = backbone.encode(torch.rand(1, 3, 256, 256)).features[0]
        assert features.isfinite().all()
        assert features.std() > 0.01

    def test_seed_decides(self, tmp_path: Path) -> None:
        files = [random_sam(tmp_path / f"{n}.pth", seed=seed) for n, seed in enumerate((1, 1, 2))]
        first, same, other = (torch.load(file, weights_only=True) for file in files)
        key = "mask_decoder.iou_token.weight"
        assert torch.equal(first[key], same[key])
        assert not torch.equal(first[key], other[key])


class TestSam2:
    def test_names_and_shapes_are_the_official_ones(self, expected: dict) -> None:
        lines = [line.split() for line in SAM2_NAMES.read_text().splitlines()]
        official = {
            name: [int(side) for side in shape.split(",")]
            for name, shape in lines
            if not re.match(MEMORY, name)
        }
        assert {name: list(t.shape) for name, t in original_sam2(expected).items()} == official

    def test_undoes_the_conversion(self, expected: dict) -> None:
        back = sam2_state(original_sam2(expected))
        assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in expected.items()}

    def test_reads_as_an_original_checkpoint(self, tmp_path: Path) -> None:
        backbone = load_backbone(random_sam2(tmp_path / "sam2.1_hiera_tiny.pt"), input_size=128)
        assert backbone.spec.family == "sam2"
        with torch.no_grad():
            features = backbone.encode(torch.rand(1, 3, 128, 128)).features
        assert all(level.isfinite().all() for level in features)
