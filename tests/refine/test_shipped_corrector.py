"""The shipped corrector on the synthetic CT: masks with known faults, and a user who clicks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from promptseg.datasets.phantom import abdomen_phantom
from promptseg.datasets.simulation.clicks import corrective_click
from promptseg.evaluate.metrics import dice
from promptseg.refine.corrector import load_corrector
from promptseg.volume.intensity import choose_window, normalise
from promptseg.weights.registry import locate, lookup

SPACING = (1.6, 1.6, 3.0)
BALL = ndimage.generate_binary_structure(3, 1)

if locate("corrector") is None:
    pytest.skip("weights/corrector.safetensors is not here", allow_module_level=True)


@pytest.fixture(scope="module")
def scene():
    volume, labels, names = abdomen_phantom()
    image = normalise(volume.data, choose_window(volume, "auto"))
    return image, {name: labels == label for label, name in names.items()}


@pytest.fixture(scope="module")
def corrector():
    return load_corrector()


def wide(mask):
    return ndimage.binary_dilation(mask, BALL, iterations=3)


def narrow(mask):
    return ndimage.binary_erosion(mask, BALL, iterations=3)


def half(mask):
    kept = mask.copy()
    slices = np.flatnonzero(mask.any((0, 1)))
    kept[:, :, slices[len(slices) // 2] :] = False
    return kept


class TestShippedCorrector:
    def test_size_and_terms(self):
        assert locate("corrector").stat().st_size < 4_000_000
        assert "research use only" in lookup("corrector").licence

    def mended(self, scene, corrector, organ, fault):
        """Dice before and after three clicks."""
        image, masks = scene
        target = masks[organ]
        before = answer = fault(target)
        prior = np.where(before, 0.95, 0.05).astype(np.float32)
        clicks, rng = [], np.random.default_rng(0)
        for _ in range(3):
            clicks.append(corrective_click(answer, target, SPACING, rng))
            answer = corrector.corrected(prior, image, clicks, SPACING) > 0.5
        return dice(before, target), dice(answer, target)

    @pytest.mark.parametrize("organ", ["left kidney", "spleen"])
    def test_three_clicks_mend_most_of_a_lost_half(self, scene, corrector, organ):
        before, after = self.mended(scene, corrector, organ, half)
        assert 1 - after < 0.5 * (1 - before)

    @pytest.mark.parametrize(("fault", "gain"), [(wide, 0.0), (narrow, 0.03)])
    def test_no_fault_grows_and_a_narrow_mask_is_widened(self, scene, corrector, fault, gain):
        before, after = self.mended(scene, corrector, "left kidney", fault)
        assert after >= before + gain
