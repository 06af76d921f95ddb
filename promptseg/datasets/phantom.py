"""A synthetic abdominal CT with known organs, for the first command and for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from promptseg.datasets.solids import Canvas, Coordinates, Solid, ellipsoid, everywhere, tube
from promptseg.errors import VolumeError
from promptseg.volume import Volume

NAMES = {
    1: "liver",
    2: "spleen",
    3: "left kidney",
    4: "right kidney",
    5: "aorta",
    6: "vertebrae",
    7: "ribs",
    8: "stomach",
    9: "liver lesion",
    10: "gallbladder",
    11: "inferior vena cava",
    12: "pancreas",
}
"""Organ by label; right is the patient's right."""

SHAPE = (224, 176, 80)
SPACING = (1.6, 1.6, 3.0)
NOISE_HU = 11.0
BLUR_MM = 0.9
_BEND_MM = 4.0
_BEND_LENGTH_MM = 110.0
_TURN_DEGREES = (4.0, -3.0, 6.0)
_HALF_WIDTH, _HALF_DEPTH = 163.0, 111.0
_SQUARENESS = 2.4


def abdomen_phantom(
    seed: int = 0,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
) -> tuple[Volume, np.ndarray, dict[int, str]]:
    """Make a portal-venous abdominal CT: plausible HU, partial volume, blur, correlated noise.

    Args:
        seed: Bends the body, moves the bowel and draws the noise.
        shape: (I, J, K) voxels. The grid is centred on the body, which is about
            33 x 22 cm, and turned a few degrees against it.
        spacing: Millimetres along i, j, k.

    Returns:
        The CT (int16 HU, stored left-posterior-superior, oblique affine), the (I, J, K) uint8
        labels, and the organ names by label.

    Raises:
        VolumeError: A side or a spacing is not positive.
    """
    if min(shape) < 1 or not (np.all(np.isfinite(spacing)) and min(spacing) > 0):
        raise VolumeError(f"shape {shape}, spacing {spacing}: every number must be positive")
    rng = np.random.default_rng(seed)
    affine = _affine(shape, spacing)
    canvas = Canvas(affine, shape, _bend(rng), background=-1000.0, slack=2 * _BEND_MM)
    _paint_wall(canvas)
    _paint_skeleton(canvas)
    _paint_bowel(canvas, rng)
    _paint_organs(canvas, rng)
    _paint_vessels(canvas)
    blurred = gaussian_filter(canvas.values, BLUR_MM / np.array(spacing), truncate=3)
    noisy = blurred + _noise(rng, shape, spacing)
    data = np.clip(np.rint(noisy), -1024, 3071).astype(np.int16)
    return Volume(data, affine, modality="CT"), canvas.labels, dict(NAMES)


def _affine(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    """Left-posterior-superior, turned a little; exact in float32, as NIfTI files store it."""
    turned = Rotation.from_euler("xyz", _TURN_DEGREES, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turned @ np.diag([-1.0, -1.0, 1.0]) * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine.astype(np.float32).astype(np.float64)


def _bend(rng: np.random.Generator) -> Callable[[Coordinates], Coordinates]:
    """Smooth displacements of up to about 2 x `_BEND_MM`, so that no organ is an ellipsoid."""
    waves = rng.uniform(-1, 1, (3, 3, 3)) * 2 * np.pi / _BEND_LENGTH_MM
    phases = rng.uniform(0, 2 * np.pi, (3, 3))

    def displace(at: Coordinates) -> Coordinates:
        moved = []
        for along, start in zip(waves, phases, strict=True):
            total = np.zeros_like(at[0])
            for wave, phase in zip(along.astype(np.float32), start, strict=True):
                angle = wave[0] * at[0] + wave[1] * at[1] + wave[2] * at[2] + np.float32(phase)
                total += np.sin(angle)
            moved.append(total * np.float32(_BEND_MM / 1.5))
        return moved[0], moved[1], moved[2]

    return displace


def _layer(depth: float) -> Solid:
    """The trunk inside the layer at `depth`: 1 is the skin, 0 the middle of the body."""

    def distance(at: Coordinates) -> np.ndarray:
        across = np.abs(at[0] / np.float32(_HALF_WIDTH)) ** np.float32(_SQUARENESS)
        deep = np.abs(at[1] / np.float32(_HALF_DEPTH)) ** np.float32(_SQUARENESS)
        return ((across + deep) ** np.float32(1 / _SQUARENESS) - depth) * np.float32(125)

    return everywhere(distance)


def _paint_wall(canvas: Canvas) -> None:
    table = everywhere(lambda at: np.abs(at[1] + 125 - (at[0] / 45) ** 2) - 5)
    for solid, hu in ((table, -40), (table.shrunk(1.8), -880)):
        canvas.paint(solid, hu)
    for depth, hu in ((1.0, 20), (0.985, -105), (0.86, 55), (0.78, -95)):
        canvas.paint(_layer(depth), hu)


def _paint_skeleton(canvas: Canvas) -> None:
    for side in (-1, 1):
        canvas.paint(ellipsoid((side * 34, -76, 0), (30, 17, 400)), 58)
        canvas.paint(tube([(side * 30, -48, 60), (side * 46, -44, -140)], 17), 60)
    ribs = _ribs()
    canvas.paint(ribs, 480, 7)
    canvas.paint(ribs.shrunk(2.2), 210)
    for centre in range(-153, 170, 34):
        body = ellipsoid((0, -45, centre), (23, 18, 400)) & _slab(centre, 13.5)
        arch = ellipsoid((0, -72, centre), (17, 13, 22)) | tube(
            [(0, -80, centre), (0, -101, centre - 10)], 4
        )
        wings = tube([(-38, -72, centre), (0, -68, centre), (38, -72, centre)], 4)
        canvas.paint(ellipsoid((0, -45, centre + 17), (22, 17, 400)) & _slab(centre + 17, 4), 85)
        for solid in (body, arch, wings):
            canvas.paint(solid, 520, 6)
            canvas.paint(solid.shrunk(2.2), 190)
    canvas.paint(ellipsoid((0, -70, 0), (9.5, 8, 400)), 25, 0)


def _slab(middle: float, half: float) -> Solid:
    flat = everywhere(lambda at: np.abs(at[2] - np.float32(middle)) - np.float32(half))
    bound = np.array([np.inf, np.inf, half])
    return replace(
        flat, low=np.maximum(flat.low, middle - bound), high=np.minimum(flat.high, middle + bound)
    )


def _ribs() -> Solid:
    """Ribs in the wall, sloping down to the front, none below the lowest or at the front."""

    def distance(at: Coordinates) -> np.ndarray:
        x, y, z = at
        height = z + np.float32(0.35) * (y + 80)
        between = (height + 1015) % np.float32(31) - np.float32(15.5)
        in_wall = _layer(0.825).distance(at)
        round_ = (np.sqrt((in_wall / 4) ** 2 + (between / 7) ** 2) - 1) * 4
        lowest = -15 - 0.5 * y - height
        return np.maximum(round_, np.maximum(np.maximum(lowest, y - 78), 22 - np.abs(x)))

    return everywhere(distance)


def _paint_bowel(canvas: Canvas, rng: np.random.Generator) -> None:
    """Small bowel loops, and a colon with gas, in the lower and front half."""
    for _ in range(34):
        x, y, z = rng.uniform((-75, -5, -140), (75, 58, -15))
        way = rng.normal(0, 1, (3, 3)).cumsum(axis=0) * (22, 10, 12)
        path = [(x, y, z), *((x + a, np.clip(y + b, -15, 62), z + c) for a, b, c in way)]
        loop = tube(path, rng.uniform(9, 13)) & _layer(0.76)
        canvas.paint(loop, 75)
        canvas.paint(loop.shrunk(2.5), rng.uniform(8, 32))
        if rng.random() < 0.3:
            canvas.paint(loop.shrunk(3) & _above(path[0][1] + 4), -880)
    for side, top in ((1, -45), (-1, 5)):
        colon = tube([(side * 98, 2, top), (side * 103, -8, -70), (side * 98, -4, -150)], 18)
        canvas.paint(colon, 60)
        canvas.paint(colon.shrunk(3), -20)
        canvas.paint(colon.shrunk(3) & _above(2), -900)


def _above(y: float) -> Solid:
    """What lies in front of a fluid level: gas rises in a patient on the back."""
    return everywhere(lambda at: np.float32(y) - at[1])


def _paint_organs(canvas: Canvas, rng: np.random.Generator) -> None:
    chest = _layer(0.77) & everywhere(_below_diaphragm)
    canvas.paint(chest, -860)
    inside = _layer(0.765)
    left_lobe = ellipsoid((8, 40, 48), (72, 30, 34), coronal=-12)
    liver = (ellipsoid((74, 4, 38), (54, 74, 78), coronal=8) | left_lobe) & inside
    canvas.paint(liver - ellipsoid((30, -30, 0), (34, 34, 90)), 108, 1)
    spleen = ellipsoid((-94, -30, 52), (30, 44, 52), axial=25) & inside
    canvas.paint(spleen - ellipsoid((-58, -10, 50), (28, 34, 60)), 122, 2)
    _paint_stomach(canvas)
    canvas.paint(tube([(45, 2, -2), (5, 14, 12), (-45, 2, 30), (-68, -12, 38)], 10), 98, 12)
    canvas.paint(ellipsoid((52, 40, -18), (14, 17, 28), coronal=-15), 8, 10)
    _paint_kidney(canvas, (-64, -42, 0), -12, 3)
    _paint_kidney(canvas, (64, -42, -14), 12, 4)
    for branch in ([(30, 8, 30), (62, 6, 46), (98, 20, 58)], [(62, 6, 46), (80, -30, 30)]):
        canvas.paint(tube(branch, 5.5), 158)
    canvas.paint(tube([(28, -8, 62), (70, -14, 84)], 4.5), 150)
    x, y, z = rng.uniform((84, 8, 22), (98, 28, 40))
    canvas.paint(ellipsoid((x, y, z), (15, 13, 14)), 52, 9)


def _below_diaphragm(at: Coordinates) -> np.ndarray:
    """Distance to the lungs: two domes, high in the middle of each side."""
    x, y, z = at
    dome = 112 - ((np.abs(x) - 72) / 9.5) ** 2 - ((y - 10) / 11.5) ** 2
    return np.maximum(dome - z, 26 - np.abs(x))


def _paint_stomach(canvas: Canvas) -> None:
    stomach = ellipsoid((-52, 34, 52), (40, 34, 46), coronal=20) | tube(
        [(-40, 40, 30), (-8, 48, 4), (26, 38, 2)], 17
    )
    canvas.paint(stomach & _layer(0.75), 70, 8)
    canvas.paint(stomach.shrunk(4) & _layer(0.72), 22)
    canvas.paint(stomach.shrunk(4) & _layer(0.72) & _above(46), -930)


def _paint_kidney(
    canvas: Canvas, centre: tuple[float, float, float], tilt: float, label: int
) -> None:
    """Cortex, medulla and a sinus of fat that opens to the middle."""
    x, y, z = centre
    side = np.sign(x)
    kidney = ellipsoid(centre, (28, 26, 56), coronal=tilt, axial=-side * 25)
    sinus = ellipsoid((x - side * 16, y + 7, z), (17, 8, 22), coronal=tilt)
    canvas.paint(kidney - sinus, 195, label)
    canvas.paint(kidney.shrunk(7) - sinus, 150)
    canvas.paint(kidney & sinus, -60, 0)
    canvas.paint(tube([(x - side * 14, y + 6, z), (side * 18, -16, z + 6)], 4.5), 150)


def _paint_vessels(canvas: Canvas) -> None:
    aorta = tube([(-10, -14, 170), (-9, -13, -170)], 11)
    canvas.paint(aorta, 165, 5)
    cava = ellipsoid((20, -15, 0), (12, 10, 500))
    canvas.paint(cava, 142, 11)
    canvas.paint(tube([(-9, -6, 30), (-8, 12, 18), (-4, 20, -70)], 4), 160)


def _noise(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> np.ndarray:
    """Noise with the grain of filtered back projection: little power at the lowest frequencies."""
    white = rng.standard_normal(shape, dtype=np.float32)
    fine, coarse = (gaussian_filter(white, mm / np.array(spacing), truncate=3) for mm in (0.9, 2.6))
    grain = fine - 0.75 * coarse
    return grain * np.float32(NOISE_HU / max(float(grain.std()), 1e-6))
