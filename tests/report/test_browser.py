"""A report in a real browser, where there is one: no fault, no script run, nothing asked of a network."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from seqtext.report.html import Section, figure, heated, line, page, paragraph, table

ROOT = Path(__file__).parent.parent.parent
SPEC = importlib.util.spec_from_file_location("check_report", ROOT / "scripts" / "check_report.py")
checker = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(checker)
BROWSER = next((found for name in checker.BROWSERS if (found := shutil.which(name))), None)
EVIL = '<script>console.error("boo")</script><img src="https://example.invalid/a.png" onerror="console.error(1)">'


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(checker.BROWSERS)} is on the path")
def test_a_browser_finds_no_fault_in_a_page_of_evil_text_and_every_fault_in_another(tmp_path):
    pytest.importorskip("matplotlib")
    from seqtext.plot import INK, drawing, inline
    from seqtext.report.figures import line_figure

    with drawing(INK):
        drawn = inline(line_figure({EVIL: ([1, 2], [3.0, 4.0])}, x=EVIL, y="y"), title=EVIL, number=1)
    body = paragraph(EVIL) + table([EVIL], [[EVIL]], caption=EVIL) + figure(drawn, caption=EVIL)
    body += line(EVIL, heated([EVIL, "$x$"], [0.5, 1.0]))
    good, bad = tmp_path / "good.html", tmp_path / "bad.html"
    good.write_text(page(EVIL, paragraph(EVIL), [Section(EVIL, body)]), encoding="utf-8")
    assert checker.check(BROWSER, good, None) == []
    bad.write_text(f"<html lang=en><title>t</title><h2>a</h2>{EVIL}<h2>b</h2><p>b", encoding="utf-8")
    found = " ".join(checker.check(BROWSER, bad, None))
    for fault in (
        "an element <script>",
        "an attribute onerror of <img>",
        "points out of the page",
        "a request to https://example.invalid/a.png",
        "boo",
        "nothing under 'a'",
    ):
        assert fault in found
