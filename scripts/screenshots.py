"""Draw the pictures of the docs anew: the demo's picture, the page of `isthmus serve` and a report, in Chromium.

    isthmus demo --out isthmus-demo
    python scripts/screenshots.py isthmus-demo

Needs the extra dev and a Chromium. Each picture is written to docs/pictures/ as WebP, small enough for a repository.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
GALLERIES = ("picture-test.space/image", "sound-test.space/audio", "shape-test.space/point_cloud")
LARGEST = 150_000
"""Bytes of a picture."""

Shot = Callable[[Any, Path], None]


def write(png: bytes, name: str) -> None:
    """Write a picture as WebP, coarser until it is small enough."""
    PICTURES.mkdir(exist_ok=True)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in range(88, 20, -8):
        out = io.BytesIO()
        image.save(out, "webp", quality=quality, method=6)
        if out.tell() <= LARGEST:
            break
    (PICTURES / f"{name}.webp").write_bytes(out.getvalue())
    print(f"{name}.webp  {out.tell() / 1000:.0f} kB  {image.size[0]} x {image.size[1]}")


@contextmanager
def service(demo: Path) -> Iterator[str]:
    """The address of the demo's world served, in a process of its own."""
    galleries = [part for each in GALLERIES for part in ("--gallery", str(demo / "spaces" / each))]
    command = [sys.executable, "-m", "isthmus", "serve", str(demo / "unified.bridge"), *galleries]
    process = subprocess.Popen([*command, "--port", "0", "-q", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.terminate()
        process.wait(30)


def write_text(tab: Any, text: str) -> None:
    tab.fill("#text", text)
    tab.press("#text", "Enter")
    tab.wait_for_selector(".hits .card")


def drop(tab: Any, path: Path) -> None:
    tab.set_input_files("input[type=file]", str(path))
    tab.wait_for_selector(f".parts li:has-text('{path.name}')", timeout=60_000)
    tab.wait_for_selector(".hits .card")


def sound(tab: Any, demo: Path) -> None:
    """A sound is dropped: pictures that it was never paired with, and why the first two match."""
    drop(tab, demo / "raw/test/audio/340.wav")
    for number in (0, 1):
        tab.click(f".hits.image .why >> nth={number}")
    tab.wait_for_selector(".hits.image li:nth-child(2) .reasons li")


def combined(tab: Any, demo: Path) -> None:
    """A text, and less like a sound."""
    write_text(tab, "three hundred and forty")
    drop(tab, demo / "raw/test/audio/658.wav")
    tab.select_option(".parts li:nth-child(2) select", "-0.5")
    tab.click("text=Filters")


def mapped(tab: Any, demo: Path) -> None:
    """The map, one item pointed at."""
    tab.click("nav >> text=Map")
    box = tab.wait_for_selector(".map canvas", timeout=60_000).bounding_box()
    for step in range(60):  # until an item is under the pointer
        tab.mouse.move(box["x"] + box["width"] * (0.4 + 0.005 * step), box["y"] + box["height"] * 0.5)
        if tab.query_selector(".tip"):
            break


PAGES: dict[str, tuple[Shot, int, int, str]] = {
    "page-sound": (sound, 1200, 860, "light"),
    "page-combined": (combined, 1200, 860, "light"),
    "page-map": (mapped, 1200, 800, "dark"),
    "page-phone": (sound, 390, 844, "light"),
}
"""By name: what is done, width, height, colours."""
REPORTS = {"report-scores": "Methods that were tried", "report-examples": "Surest right answers"}
"""By name: the heading that the picture begins at."""


def settle(tab: Any) -> None:
    """Wait until every picture on the screen has come."""
    tab.wait_for_load_state("networkidle")
    tab.wait_for_timeout(1500)


def draw_page(browser: Any, demo: Path) -> None:
    with service(demo) as address:
        for name, (act, width, height, scheme) in PAGES.items():
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab = context.new_page()
            tab.goto(address)
            tab.wait_for_selector(".asking")
            act(tab, demo)
            tab.evaluate("scrollTo(0, 0)")
            settle(tab)
            write(tab.screenshot(), name)
            context.close()


def draw_report(browser: Any, demo: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.html"
        task = ["--query", demo / "spaces" / GALLERIES[1], "--gallery", demo / "spaces" / GALLERIES[0]]
        task += ["--pairs", demo / "pairs/audio-image.csv", "--baselines", "--out", out]
        command = [sys.executable, "-m", "isthmus", "report", demo / "unified.bridge", *task, "-q"]
        subprocess.run(list(map(str, command)), check=True)
        context = browser.new_context(viewport={"width": 1080, "height": 1000}, offline=True)
        tab = context.new_page()
        tab.goto(f"file://{out}")
        settle(tab)
        for name, heading in (
            ("report-scores", "Methods that were tried"),
            ("report-examples", "Surest right answers"),
        ):
            top = tab.locator(f"text={heading}").first.bounding_box()["y"] + tab.evaluate("scrollY")
            clip = {"x": 0, "y": max(0, top - 20), "width": 1080, "height": 900}
            write(tab.screenshot(full_page=True, clip=clip), name)
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="what `isthmus demo --out` wrote")
    demo = parser.parse_args().demo.resolve()
    chromium = next((path for path in CHROMIUM if Path(path).exists()), None)
    drawn = io.BytesIO()
    whole = Image.open(demo / "demo.png").convert("RGB")
    whole.thumbnail((1400, 1400))
    whole.save(drawn, "png")
    write(drawn.getvalue(), "demo")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        draw_page(browser, demo)
        draw_report(browser, demo)
        browser.close()


if __name__ == "__main__":
    main()
