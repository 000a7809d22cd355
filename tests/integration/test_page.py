"""The page as a person uses it, in headless Chromium: type, drop, combine, filter, map, keys, phone, dark, offline."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is an extra: pip install 'isthmus[serve]'")
pytest.importorskip("playwright", reason="playwright drives the browser: pip install 'isthmus[dev]'")

import uvicorn
from playwright import sync_api

from isthmus import load_bridge, open_space
from isthmus.serve.app import PAGE, build_app
from isthmus.serve.galleries import Gallery
from isthmus.serve.service import Service
from small_world import GALLERIES, ITEMS, make_small_world

CHROMIUM = next((path for path in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser")) if path.exists()), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.skipif(
        not (PAGE / "page.js").exists(), reason="the page is not built: npm ci and npm run build in page/"
    ),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--disable-quic", "--no-first-run"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def address(world: Path) -> Iterator[str]:
    """A service on a free port."""
    bridge = load_bridge(world / "unified.bridge")
    galleries = []
    for reference in (*GALLERIES, "picture-test.space/text"):
        space, _, modality = reference.partition("/")
        galleries.append(Gallery.of(bridge, open_space(world / "spaces" / space)[modality]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = build_app(Service(bridge, galleries, name="small.bridge"))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


class Watched:
    """A tab that notes faults of the console and requests to other hosts."""

    def __init__(self, browser: Any, address: str, where: str = "/", **options: Any) -> None:
        self.faults: list[str] = []
        self.abroad: list[str] = []
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.tab = self.context.new_page()
        self.tab.on("console", lambda told: self.faults.append(told.text) if told.type == "error" else None)
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        local = (address, "blob:", "data:")
        self.tab.on("request", lambda asked: None if asked.url.startswith(local) else self.abroad.append(asked.url))
        self.tab.goto(address + where)
        self.tab.wait_for_selector(".asking")

    def until(self, expression: str, seconds: float = 20.0) -> None:
        """Ask until an expression is true; the page's rules forbid the browser to evaluate strings by itself."""
        end = time.monotonic() + seconds
        while not self.tab.evaluate(expression):
            assert time.monotonic() < end, expression
            self.tab.wait_for_timeout(50)

    def hits(self, modality: str) -> list[str]:
        """Names of the hits of a modality, best first, once they are there."""
        self.tab.wait_for_selector(f".hits.{modality} .card")
        return [each.inner_text() for each in self.tab.query_selector_all(f".hits.{modality} .name")]


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Any]:
    opened: list[Watched] = []

    def open_(where: str = "/", **options: Any) -> Watched:
        opened.append(Watched(browser, address, where, **options))
        return opened[-1]

    yield open_
    for each in opened:
        assert each.faults == [], "the console told of a fault"
        assert each.abroad == [], "the page asked another host"
        each.context.close()


def type_text(page: Watched, text: str) -> None:
    page.tab.fill("#text", text)
    page.tab.press("#text", "Enter")
    page.until("document.querySelector('.status').textContent.includes('hit')")


def drop(page: Watched, path: Path) -> None:
    """Drop a file on the page as a person would."""
    data = list(path.read_bytes())
    transfer = page.tab.evaluate_handle(
        "([data, name]) => { const it = new DataTransfer();"
        " it.items.add(new File([new Uint8Array(data)], name)); return it; }",
        [data, path.name],
    )
    page.tab.dispatch_event(".page", "drop", {"dataTransfer": transfer})
    page.tab.wait_for_selector(f".parts li:has-text('{path.name}')", timeout=60_000)


def test_a_typed_text_finds_every_modality_and_stands_in_the_address(open_page: Any, address: str):
    page = open_page()
    type_text(page, "one two three")
    assert [len(page.hits(kind)) for kind in ("image", "audio", "point_cloud")] == [12, 12, 12]
    page.tab.wait_for_selector(".hits.image img")
    page.tab.wait_for_selector(".hits.audio .play")
    shared = open_page(page.tab.url.removeprefix(address))
    assert shared.hits("image") == page.hits("image")
    page.tab.go_back()
    page.tab.wait_for_selector(".welcome")


@pytest.mark.parametrize("kind", ["image", "audio", "point_cloud"])
def test_a_dropped_file_finds_itself(open_page: Any, world: Path, kind: str):
    page = open_page()
    path = sorted((world / "raw/test" / kind).iterdir())[4]
    drop(page, path)
    assert page.hits(kind)[0] == path.name


def test_a_search_starts_from_an_item_of_the_first_page(open_page: Any):
    page = open_page()
    page.tab.wait_for_selector(".starters.audio .pick")
    name = page.tab.inner_text(".starters.audio .pick >> nth=1")
    page.tab.click(".starters.audio .pick >> nth=1")
    assert page.hits("audio")[0] == name


def test_a_file_of_no_known_kind_is_refused_in_words(open_page: Any, tmp_path: Path):
    page = open_page()
    page.tab.set_input_files("input[type=file]", {"name": "notes.docx", "mimeType": "x/y", "buffer": b"x"})
    assert "notes.docx is none of picture, sound, 3D shape" in page.tab.inner_text("[role=alert]")


def test_items_combine_and_a_minus_takes_away(open_page: Any):
    page = open_page()
    type_text(page, "one two three")
    first = page.hits("image")
    page.tab.click(f".hits.image .pick >> text={first[1]}")
    page.until(f"document.querySelector('.hits.image .name')?.textContent === '{first[1]}'")
    type_text(page, "nine nine nine")
    page.tab.select_option(".parts li:nth-child(2) select", "-1")
    page.tab.wait_for_selector(".parts li.minus")
    assert len(page.tab.query_selector_all(".parts li:not(.bare)")) == 2
    page.tab.click("[aria-label='Remove nine nine nine']")
    page.until("document.querySelectorAll('.parts li').length === 2")


def test_galleries_and_filters_narrow_the_search(open_page: Any):
    page = open_page()
    type_text(page, "seven")
    page.tab.click("text=Filters")
    page.tab.uncheck("label:has-text('sound-test/audio') input")
    page.until("!document.querySelector('.hits.audio')")
    page.tab.fill("[name=filter]", 'text = "nothing at all"')
    page.tab.uncheck("label:has-text('picture-test/image') input")
    page.tab.uncheck("label:has-text('shape-test/point_cloud') input")
    page.tab.press("[name=filter]", "Enter")
    page.tab.wait_for_selector("text=Nothing here fits the filter.")
    page.tab.fill("[name=filter]", "text >")
    page.tab.press("[name=filter]", "Enter")
    page.tab.wait_for_selector("[role=alert]")
    page.faults.clear()  # the browser itself notes the answer 400


def test_why_shows_what_both_mean_as_bars(open_page: Any):
    page = open_page()
    type_text(page, "one two three")
    page.tab.click(".hits.audio .card:first-child .why")
    page.tab.wait_for_selector(".hits.audio .reasons li .fill")
    told = page.tab.inner_text(".hits.audio .reasons")
    assert "%" in told
    assert "An approximation: from posteriors over" in told
    type_text(page, "nine")
    page.tab.click(".hits.image .card:first-child .why")
    page.tab.wait_for_selector(".hits.image .reasons:has-text('Of what weighs most here, “one two three”')")


def test_the_map_tells_lists_and_searches(open_page: Any):
    page = open_page("/#view=map")
    canvas = page.tab.wait_for_selector(".map canvas", timeout=60_000)
    assert f"Map of {4 * ITEMS} items" in canvas.get_attribute("aria-label")
    box = canvas.bounding_box()
    mouse = page.tab.mouse
    mouse.move(box["x"] + 4, box["y"] + 4)
    mouse.down()
    for x, y in ((0.995, 0.005), (0.995, 0.995), (0.005, 0.995), (0.005, 0.005)):
        mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
    mouse.up()
    page.tab.wait_for_selector("section h2:has-text('inside')")
    assert len(page.tab.query_selector_all(".inside button")) > 3 * ITEMS
    page.tab.click(".inside li:first-child button")
    page.tab.wait_for_selector(".hits.image .card")


def test_the_keyboard_alone_is_enough(open_page: Any):
    page = open_page()
    keys = page.tab.keyboard
    keys.press("/")
    keys.type("one two three")
    keys.press("Enter")
    first = page.hits("image")
    page.tab.focus("[data-pick]")
    keys.press("ArrowRight")
    assert first[1] in page.tab.evaluate("document.activeElement.getAttribute('aria-label')")
    keys.press("ArrowDown")
    assert page.tab.evaluate("document.activeElement.hasAttribute('data-pick')")
    keys.press("ArrowUp")
    keys.press("Enter")
    page.until(f"document.querySelector('.parts .label')?.textContent === '{first[1]}'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_serious_fault_of_access_at_any_width_and_scheme(open_page: Any, scheme: str, width: int):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe: pip install 'isthmus[dev]'")
    page = open_page("/#t=|seven", color_scheme=scheme)
    page.tab.set_viewport_size({"width": width, "height": 844})
    page.hits("audio")
    page.tab.click("text=Filters")
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the window"
    for state in ("search", "map"):
        if state == "map":
            page.tab.click("nav >> text=Map")
            page.tab.wait_for_selector(".map canvas", timeout=60_000)
        found = axe.Axe().run(page.tab).response["violations"]
        serious = [
            (each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")
        ]
        assert serious == []


def test_a_token_is_asked_for(browser: Any, world: Path):
    bridge = load_bridge(world / "unified.bridge")
    gallery = Gallery.of(bridge, open_space(world / "spaces/picture-test.space")["image"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = build_app(Service(bridge, [gallery]), token="0123456789abcdef", hosts=None)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    tab = browser.new_page()
    tab.goto(f"http://127.0.0.1:{port}/")
    tab.fill("[name=token]", "wrong")
    tab.click("text=Enter")
    tab.wait_for_selector("[name=token]")
    tab.fill("[name=token]", "0123456789abcdef")
    tab.click("text=Enter")
    tab.wait_for_selector(".welcome")
    tab.close()
    server.should_exit = True
    thread.join(10)
