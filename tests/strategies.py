"""Hypothesis strategies for grids: every orientation, anisotropic, oblique."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from promptseg.volume import Volume

settings.register_profile("promptseg", deadline=None)
settings.load_profile("promptseg")

shapes = st.tuples(*[st.integers(2, 9)] * 3)
orientations = st.tuples(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
spacings = st.tuples(*[st.floats(0.3, 10)] * 3)
angles = st.tuples(*[st.floats(-44, 44)] * 3)


@st.composite
def affines(draw: st.DrawFn, oblique: bool = True) -> np.ndarray:
    """One of the 48 orientations, scaled, turned and moved."""
    order, signs = draw(orientations)
    directions = np.eye(3)[:, order] * signs
    if oblique:
        directions = Rotation.from_euler("xyz", draw(angles), degrees=True).as_matrix() @ directions
    affine = np.eye(4)
    affine[:3, :3] = directions * draw(spacings)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return affine


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    """A small volume of distinct values on any grid."""
    shape = draw(shapes)
    return Volume(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), draw(affines()))
