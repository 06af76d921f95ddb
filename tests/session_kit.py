"""Two bright tubes and a session on them."""

from support import bright_volume, discs, segmenter

SHAPE = (40, 44, 24)
ONE = discs(SHAPE, 2, dict.fromkeys(range(4, 20), (12, 20, 5)))
TWO = discs(SHAPE, 2, dict.fromkeys(range(4, 20), (29, 20, 5)))


def session(image=ONE, backbone=None, **options):
    return segmenter(backbone, **options).session(bright_volume(image), consistency="none")
