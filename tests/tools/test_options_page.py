"""docs/reference/options.md is what the option classes say."""

from options_page import PAGE, options_page

from onnx_lapq.cli.fields import TABLES


def test_the_page_is_what_its_generator_writes():
    assert PAGE.read_text() == options_page(), "run: python tools/docs/options_page.py"


def test_every_option_is_on_the_page_once():
    page = options_page()
    for table, fields in TABLES.items():
        for name in fields:
            key = f"{table}.{name}" if table else name
            assert page.count(f"| `{key}` |") == 1, key
