"""What the commands are tried on."""

import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a very small network of random weights."""
    import torch

    from promptseg.backbones.network import PromptsegConfig, PromptsegModel

    torch.manual_seed(0)
    config = PromptsegConfig(
        image_size=64, stem=(8, 8, 8), hidden_size=16, depth=1, heads=2, decoder=(16, 8, 8, 8),
        groups=4,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("model") / "tiny"
    PromptsegModel(config).save_pretrained(folder)
    return str(folder)
