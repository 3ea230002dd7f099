"""Tables of scores: untrusted words stay words in the terminal and in Markdown."""

from io import StringIO

from culteval.harness.report.tables import escape, narrow_table
from rich.console import Console


def test_no_word_of_a_table_is_markup():
    words = ["[/x]", "[link=http://x]y", "[red]z[/red]"]
    out = StringIO()
    Console(file=out, width=200, force_terminal=True, color_system=None).print(
        narrow_table("[/title]", "[/caption]", words, [words], [], 200)
    )
    for word in (*words, "[/title]", "[/caption]"):
        assert word in out.getvalue()
    assert [out.getvalue().count(word) for word in words] == [2, 2, 2]  # as heading and as cell


def test_markdown_has_no_line_breaks_from_texts():
    assert escape("a\n# b\r\n| c\u2028d") == r"a # b \| c d"
