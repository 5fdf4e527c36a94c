"""The reference page says what the command line does."""

from pathlib import Path

from torpor.cli import exits, reference

PAGE = Path("docs/reference/cli.md")


def test_the_page_is_made_from_the_commands():
    assert PAGE.read_text() == reference.page(), "run: python -m torpor.cli.reference > docs/reference/cli.md"


def test_every_exit_code_is_on_the_page():
    codes = {1, 2, 130, *(code for _, code in exits.CODES)}
    text = PAGE.read_text().split("**Exit codes.**")[1].split("\n\n")[0]
    assert [code for code in sorted(codes) if f"{code} " not in text] == []
