import numpy as np
import pytest

from promptseg.errors import VolumeError
from promptseg.report.checks import Check, check
from promptseg.volume import Segmentation, Volume

SHAPE = (40, 40, 24)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def ball() -> np.ndarray:
    i, j, k = np.indices(SHAPE)
    return (i - 20) ** 2 + (j - 20) ** 2 + ((k - 12) * 2) ** 2 <= 14**2


def checked(mask: np.ndarray, axis: int = 2, affine=AFFINE, **fields) -> Check:
    volume = Volume(np.zeros(mask.shape, np.int16), affine)
    return check(Segmentation(mask.astype(np.uint8), affine, **fields), volume, axis)[1]


def flags(found: Check) -> list[tuple[str, int | None]]:
    return [(finding.kind, finding.slice) for finding in found.findings]


class TestSound:
    def test_nothing_is_said_of_a_ball(self) -> None:
        found = checked(ball())
        assert flags(found) == []
        assert found.components == [pytest.approx(ball().sum() * 0.002)]
        assert (found.holes, found.holes_ml, found.borders) == (0, 0, [])

    def test_area_curve_in_square_millimetres(self) -> None:
        found = checked(ball(), affine=np.diag([0.5, 2.0, 2.0, 1.0]))
        areas = ball().sum((0, 1))
        assert found.areas == [(k, float(areas[k])) for k in range(5, 20)]


class TestSlices:
    def test_a_missing_slice(self) -> None:
        mask = ball()
        mask[:, :, 10] = False
        assert ("gap", 10) in flags(checked(mask))

    def test_along_another_axis(self) -> None:
        mask = ball()
        mask[15] = False
        assert ("gap", 15) in flags(checked(mask, axis=0))

    def test_a_spike_and_a_dip(self) -> None:
        mask = ball()
        mask[4:36, 4:36, 9] = True
        mask[:, 18:, 15] = False
        found = flags(checked(mask))
        assert ("spike", 9) in found
        assert ("dip", 15) in found

    def test_an_outline_elsewhere(self) -> None:
        mask = np.zeros(SHAPE, bool)
        mask[2:12, 2:12, 4:14] = mask[13:23, 5:15, 14:20] = True
        assert ("jump", 14) in flags(checked(mask))

    def test_an_abrupt_end_of_thin_slices_only(self) -> None:
        mask = ball()
        mask[:, :, 13:] = False
        assert flags(checked(mask)) == [("abrupt", 12)]
        assert flags(checked(mask, affine=np.diag([1, 1, 8.0, 1]))) == []

    def test_the_end_of_the_image_is_no_abrupt_end(self) -> None:
        assert flags(checked(ball()[:, :, :13])) == [("border", 12)]


class TestParts:
    def test_stray_and_hole(self) -> None:
        mask = ball()
        mask[1:3, 1:3, 3] = True
        mask[19:21, 19:21, 12] = False
        found = checked(mask)
        assert ("stray", 3) in flags(found)
        assert ("holes", 12) in flags(found)
        assert (found.holes, found.holes_ml) == (1, pytest.approx(0.008))
        assert found.components[1] == pytest.approx(0.008)

    def test_two_equal_lesions_are_no_strays(self) -> None:
        mask = np.zeros(SHAPE, bool)
        mask[2:8, 2:8, 4:8] = mask[22:28, 22:28, 14:18] = True
        assert not [kind for kind, _ in flags(checked(mask)) if kind == "stray"]

    def test_a_cloud_of_specks_is_said_once(self) -> None:
        mask = ball()
        mask[0:40:4, 1, 1] = True
        found = checked(mask)
        assert len([kind for kind, _ in flags(found) if kind == "stray"]) == 5
        assert ("more_strays", None) in flags(found)
        said = [one.words("en") for one in found.findings if one.kind == "more_strays"]
        assert said == ["5 more small components lie apart"]

    def test_borders(self) -> None:
        mask = np.roll(ball(), -6, axis=0)
        found = checked(mask)
        assert found.borders == ["i-"]
        assert flags(found) == [("border", 12)]
        assert "i-" in found.findings[0].words("zh")


class TestDoubt:
    def test_low_predicted_quality(self) -> None:
        quality = {1: dict.fromkeys(range(5, 20), 0.9) | {9: 0.4, 2: 0.1}}
        found = checked(ball(), report={"slice_quality": quality})
        assert flags(found) == [("low_quality", 9)]
        assert found.findings[0].words("en") == "the network predicts a quality of 0.4 here"

    def test_uncertainty_counts_around_the_outline(self) -> None:
        doubt = np.zeros(SHAPE, np.float32)
        doubt[:, :, 10][ball()[:, :, 10]] = 0.5
        found = checked(ball(), uncertainty=doubt)
        assert flags(found) == [("doubtful", 10)]
        assert found.findings[0].values == {"percent": 25}

    def test_uncertainty_far_away_does_not(self) -> None:
        doubt = np.zeros(SHAPE, np.float32)
        doubt[:3, :3] = 1
        assert flags(checked(ball(), uncertainty=doubt)) == []


class TestEdges:
    def test_empty_and_other_grids(self) -> None:
        found = checked(np.zeros(SHAPE), score={1: 0.0})
        assert flags(found) == [("empty", None)]
        with pytest.raises(VolumeError, match="shape"):
            check(
                Segmentation(np.ones((3, 3, 3), np.uint8), np.eye(4)),
                Volume(np.zeros((4, 3, 3)), np.eye(4)),
                2,
            )
