"""Which cases to annotate, and learning from what was annotated, across hospitals.

`select` ranks cases by a registered strategy, `adapt` fine-tunes in three stages, `loop` keeps a
project that learns from corrections, `federated` averages adapters of several sites.
"""
