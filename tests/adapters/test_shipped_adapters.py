"""The adapters of this repository keep to the sizes that are promised."""

from pathlib import Path

import pytest

ADAPTERS = Path(__file__).parents[2] / "adapters"


@pytest.mark.parametrize("folder", sorted(p.parent.name for p in ADAPTERS.glob("*/promptseg.json")))
class TestSizes:
    def test_matrices_take_less_than_a_megabyte(self, folder: str) -> None:
        assert (ADAPTERS / folder / "adapter_model.safetensors").stat().st_size < 1_000_000

    def test_all_weights_take_less_than_four(self, folder: str) -> None:
        sizes = [path.stat().st_size for path in (ADAPTERS / folder).glob("*.safetensors")]
        assert sum(sizes) < 4_000_000
