"""What was run and what came of it: the manifest, measurements, the quality report, the log."""

from promptseg.report.manifest import (
    load_manifest,
    package_version,
    run_manifest,
    save_manifest,
    versions,
)

__all__ = ["load_manifest", "package_version", "run_manifest", "save_manifest", "versions"]
