"""Speed by comparison: the same targets in the same volume with the same weights.

Contenders take turns in one run on one machine, so that the ratios mean something where the
times do not.
"""
