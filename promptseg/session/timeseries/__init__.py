"""Time series: phases in, labels by phase, volume over time."""

from promptseg.session.timeseries.reading import Phase, read_phases
from promptseg.session.timeseries.segmenting import segment_phases
from promptseg.session.timeseries.table import ejection, save_phases, volume_table, write_table

__all__ = [
    "Phase",
    "ejection",
    "read_phases",
    "save_phases",
    "segment_phases",
    "volume_table",
    "write_table",
]
