import torch

from promptseg.propagation.coarse_inputs import CHANNELS
from promptseg.propagation.coarse_network import CoarseNetwork, count


class TestCoarseNetwork:
    def test_shapes_and_half_precision_fits_eight_megabytes(self):
        network = CoarseNetwork(CHANNELS)
        logits, quality = network(torch.zeros(2, CHANNELS, 32, 32, 32))
        assert logits.shape == (2, 32, 32, 32)
        assert quality.shape == (2,)
        assert 2 * count(network) < 8e6

    def test_the_same_network_from_its_config(self):
        torch.manual_seed(0)
        network = CoarseNetwork(3, (8, 16), groups=4)
        again = CoarseNetwork(**network.config())
        again.load_state_dict(network.state_dict())
        x = torch.randn(1, 3, 8, 8, 8)
        torch.testing.assert_close(network(x)[0], again(x)[0])
