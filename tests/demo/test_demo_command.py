import pytest

from promptseg.commands.cli import main
from promptseg.commands.demo import parse_size


class TestCommand:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--host", "0.0.0.0"], "give --password"),
            (["--port", "70000"], "0 to 65535"),
            (["--max-upload", "much"], "500MB"),
            (["--idle-minutes", "0"], "positive"),
        ],
    )
    def test_bad_options_are_refused_in_one_line(self, options, words, capsys, monkeypatch):
        for name in ("PROMPTSEG_PASSWORD", "PROMPTSEG_DEBUG"):
            monkeypatch.delenv(name, raising=False)
        assert main(["demo", *options]) == 2
        shown = capsys.readouterr().err
        assert words in shown
        assert shown.count("\n") == 1

    @pytest.mark.parametrize(
        ("text", "size"), [("500MB", 500 << 20), ("1.5 gb", 3 << 29), ("4096", 4096)]
    )
    def test_sizes(self, text, size):
        assert parse_size(text) == size
