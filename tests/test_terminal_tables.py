"""Tables as plain text, see recbole_posattn/reporting/terminal.py."""

from __future__ import annotations

from recbole_posattn.reporting.terminal import markdown_table, text_table


def test_a_text_table_is_aligned_and_never_cut_or_read_as_markup() -> None:
    long = "x" * 300
    assert text_table(["SASRec on ml-100k", "valid", "test"], [["ndcg@10", "0.1", 12], ["[bold]", "", long]]).split(
        "\n"
    ) == [
        "SASRec on ml-100k   valid" + " " * 299 + "test",
        "=" * (17 + 3 + 5 + 3 + 300),
        "ndcg@10               0.1" + " " * 301 + "12",
        "[bold]                      " + long,
    ]


def test_a_markdown_table_has_one_line_for_each_row() -> None:
    table = markdown_table(["what", "figure"], [["runs", 200], ["`[/]`", "1, 2"]])
    assert table == "| what  | figure |\n|-------|--------|\n| runs  | 200    |\n| `[/]` | 1, 2   |"
