"""How far a correction reaches: about as far as it lies from the outline that it corrects.

Who corrects clicks in the middle of what is wrong. So it is about as far from there to the other
end of the error as to the outline on this side, and what changes beyond is a guess: a click inside
a vein at the edge of an atrium takes in the next vessel too, a cut around a background click in a
rib may take the whole rib. Nobody hits the middle, so a click counts as a share of the target's
radius away from the outline at least.

Both were chosen on the development half of benchmarks/targets.py; see docs/results.md.
"""

REACH = 2.0
"""In distances from the click to the outline."""
LEAST = 0.5
"""Distance that a click is taken to be from the outline at least, in radii of the mask there."""
LEAST_3D = 0.25
"""The same of a cut in 3D, in radii of the whole target."""
