"""Open reports in a headless Chromium and say what is wrong with them.

    python scripts/check_report.py report.html [--shots FOLDER]

Of each page it is checked, as the browser has it: that it has a title and a language, that every section has its
heading and something in it, that every picture has a name, and that there is no script, nothing that points out of the
page, no message in the console and no request to a network.
With --shots, pictures of the page in light, in dark and in a narrow window are left in the folder. Ends with 1 where a
page has a fault, and with 2 where there is no browser.
"""

from __future__ import annotations

import argparse
import html.parser
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NARROW = 500
"""Pixels of the narrowest window that a headless browser opens."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    # A browser asks its maker for this and that by itself: it finds nobody.
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"),
]


class Page(html.parser.HTMLParser):
    """The headings of a page, the text of each section, and what should not be there."""

    def __init__(self) -> None:
        super().__init__()
        self.title, self.language = "", ""
        self.sections: dict[str, int] = {}
        self.tags: list[str] = []
        self.faults: list[str] = []
        self.inside: str | None = None
        self.heading = False
        self.unnamed = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "html":
            self.language = given.get("lang") or ""
        if tag in ("script", "iframe", "object", "embed"):
            self.faults.append(f"an element <{tag}>")
        for name, value in attrs:
            if name.startswith("on"):
                self.faults.append(f"an attribute {name} of <{tag}>")
            outside = name in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:"))
            if outside:
                self.faults.append(f"<{tag} {name}={value!r}> points out of the page")
        if tag == "svg" and given.get("role") == "img" and not given.get("aria-label"):
            self.faults.append("a picture without a name")
        if tag == "h2":
            self.heading, self.inside = True, ""
        elif tag in ("svg", "table", "p", "details") and self.inside in self.sections:
            self.sections[str(self.inside)] += 1
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "h2" and self.inside is not None:
            self.heading = False
            if self.inside in self.sections:
                self.faults.append(f"two sections called {self.inside!r}")
            self.sections[self.inside] = 0

    def handle_data(self, data: str) -> None:
        if self.heading:
            self.inside = (self.inside or "") + data
        elif self.tags and self.tags[-1] == "title" and not self.title:
            self.title = data


def browse(browser: str, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *QUIET, f"--user-data-dir={profile}", *flags, page.resolve().as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def requests(log: Path) -> list[str]:
    """The addresses that a page, and not the browser by itself, asked a network for."""
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = [event["params"] for event in events if "initiator" in event.get("params", {})]
    urls = {one.get("url", "") for one in asked if one["initiator"] != "not an origin"}
    return sorted(url for url in urls if url.startswith(("http:", "https:", "ws:", "wss:")))


def check(browser: str, page: Path, shots: Path | None) -> list[str]:
    """What is wrong with a page."""
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "net.json"
        done = browse(browser, page, "--dump-dom", f"--log-net-log={log}")
        asked = requests(log)
    dom = Page()
    dom.feed(done.stdout)
    faults = [*dom.faults, *(f"a request to {url}" for url in asked)]
    faults += [line.strip() for line in done.stderr.splitlines() if "CONSOLE" in line]
    if not dom.title or dom.language != "en" or not dom.sections:
        faults.append(f"title {dom.title!r}, language {dom.language!r}, {len(dom.sections)} sections")
    faults += [f"nothing under {name!r}" for name, count in dom.sections.items() if not count]
    if shots is not None:
        shots.mkdir(parents=True, exist_ok=True)
        for name, scheme, width in (("light", 1, 1200), ("dark", 0, 1200), ("narrow", 1, NARROW)):
            picture = shots / f"{page.stem}-{name}.png"
            browse(
                browser,
                page,
                f"--blink-settings=preferredColorScheme={scheme}",
                f"--window-size={width},6000",
                f"--screenshot={picture.resolve()}",
            )
            if not picture.exists():
                faults.append(f"no picture {name}")
    print(f"{page}: {dom.title}: {len(dom.sections)} sections, {len(faults)} faults")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--shots", type=Path)
    given = parser.parse_args()
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        print(f"no browser: none of {', '.join(BROWSERS)} is on the path", file=sys.stderr)
        return 2
    faults = [(page, fault) for page in given.pages for fault in check(browser, page, given.shots)]
    for page, fault in faults:
        print(f"{page}: {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
