import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class TestResultsPage:
    def test_the_page_is_what_the_files_give(self):
        command = [sys.executable, "benchmarks/results_page.py", "--check"]
        assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == 0
