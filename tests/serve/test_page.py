"""The page in a real browser; without Chromium and Playwright these are skipped."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from running import encoded, opened, photo

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
expect = sync_api.expect

DARK = Path(__file__).parents[2] / "examples" / "dark.jpg"
WAIT = 30_000  # milliseconds

CONTRAST = """
(selectors) => {
  const luminance = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  return selectors.map((selector) => {
    const element = document.querySelector(selector);
    let below = element;
    while (below && (numbers(getComputedStyle(below).backgroundColor)[3] ?? 1) < 0.5)
      below = below.parentElement;
    const [a, b] = [getComputedStyle(element).color, getComputedStyle(below).backgroundColor]
      .map(numbers).map(luminance).sort();
    return [selector, (b + 0.05) / (a + 0.05)];
  });
}
"""


@pytest.fixture
def open_page(browser, server):
    """Open the page in a window of its own; errors of its code fail the test."""
    contexts, errors = [], []

    def new(width=1200, height=800, route=None, **options):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            **{"reduced_motion": "reduce", "color_scheme": "light", **options},
        )
        contexts.append(context)
        context.set_default_timeout(WAIT)
        page = context.new_page()
        if route:
            page.route(*route)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda said: (
                errors.append(said.text)
                if said.type == "error" and "Failed to load resource" not in said.text
                else None
            ),
        )
        page.goto(server.address)
        page.wait_for_selector("body[data-ready]" if route is None else "body", state="attached")
        return page

    yield new
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def page(open_page):
    return open_page()


def file(name, data):
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def show(page, given=DARK):
    """Upload a picture, and wait for the result."""
    page.set_input_files("#picker", given)
    done(page)


def done(page):
    expect(page.locator("#download")).to_be_enabled(timeout=WAIT)
    expect(page.locator("#status")).to_contain_text("Enhanced by", timeout=WAIT)


def seen(page):
    """Return what is shown of the photo: the mean of its left and of its right part."""
    box = page.evaluate(
        """() => {
          const { left, top, right, bottom } = document.getElementById("before")
            .getBoundingClientRect();
          return { x: left, y: top, width: right - left, height: bottom - top };
        }"""
    )
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB"), float)
    width = pixels.shape[1]
    inner = pixels[60:]  # below the tags
    return inner[:, width // 10 : 4 * width // 10].mean(), inner[:, 6 * width // 10 : -20].mean()


def api(server, data=None, **query):
    data = DARK.read_bytes() if data is None else data
    return httpx.post(
        f"{server.address}/v1/enhance", content=data, params={"enhancer": "gamma", **query}
    ).content


def slide(page, selector, value):
    """Move a slider with the keyboard, to a multiple of 10."""
    page.focus(selector)
    page.keyboard.press("Home")
    for _ in range(value // 10):
        page.keyboard.press("PageUp")


def test_a_photo_is_shown_before_and_after(page):
    expect(page.get_by_role("heading", name="Drop a photo here")).to_be_visible()
    show(page)
    left, right = seen(page)
    dark = np.asarray(Image.open(DARK).convert("RGB"), float)
    width = dark.shape[1]
    assert left == pytest.approx(dark[30:, width // 10 : 4 * width // 10].mean(), abs=4)
    assert right > left + 40
    expect(page.locator("#file")).to_have_text("dark.jpg · 600 × 400 · 72 kB")  # noqa: RUF001


def test_the_divider_is_dragged(page):
    show(page)
    box = page.locator("#divider").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    whole = page.locator("#before").bounding_box()
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(whole["x"] + whole["width"] - 1, y, steps=4)
    page.mouse.up()
    assert page.locator("#split").input_value() == "100"
    left, right = seen(page)
    assert abs(left - right) < 30  # all of it is as it was
    page.mouse.click(whole["x"] + 1, y)
    assert page.locator("#split").input_value() == "0"
    assert min(seen(page)) > left + 40


def test_strength_is_shown_at_once_and_downloaded(page, server):
    show(page)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    levels = {}
    for percent in (0, 50):
        slide(page, "#strength", percent)
        expect(page.locator("#strength-value")).to_have_text(f"{percent}%")
        levels[percent] = seen(page)[1]
    page.keyboard.press("End")
    levels[100] = seen(page)[1]
    assert levels[50] == pytest.approx((levels[0] + levels[100]) / 2, abs=2)
    assert levels[100] > levels[0] + 40
    assert asked == []
    slide(page, "#strength", 50)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "dark-gamma.jpg"
    assert Path(download.value.path()).read_bytes() == api(server, strength=0.5)


def test_download_is_what_was_computed_in_the_format_of_the_photo(page, server):
    data = encoded(photo(40, 50), "WEBP", lossless=True)
    show(page, file("Summer.WEBP", data))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download WebP").click()
    assert download.value.suggested_filename == "Summer-gamma.WEBP"
    assert Path(download.value.path()).read_bytes() == api(server, data)


def test_what_the_browser_cannot_show_is_shown_too(page, server):
    data = encoded(photo(60, 80), "TIFF")
    show(page, file("scan.tif", data))
    left, right = seen(page)
    assert right > left + 30
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "scan-gamma.tif"
    assert Path(download.value.path()).read_bytes() == api(server, data)


def test_another_enhancer(page):
    show(page)
    page.get_by_label("Enhancer").select_option("builtin:identity")
    expect(page.locator("#status")).to_contain_text("Enhanced by identity", timeout=WAIT)
    left, right = seen(page)
    assert abs(left - right) < 30
    page.get_by_label("Enhancer").select_option("builtin:spline-x2")
    expect(page.locator("#problem")).to_contain_text("too many pixels", timeout=WAIT)
    expect(page.get_by_label("Strength")).to_be_disabled()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("notes.txt", b"no picture at all", "Not a picture that can be read"),
        ("moving.gif", encoded(photo(), "GIF"), "Not a picture that can be read"),
        ("half.jpg", encoded(photo(200, 200), "JPEG")[:3000], "damaged or truncated"),
        ("empty.png", b"", "mpty"),
    ],
)
def test_a_wrong_file(page, name, data, words):
    page.set_input_files("#picker", file(name, data))
    expect(page.get_by_role("alert")).to_contain_text("This photo can't be enhanced", timeout=WAIT)
    expect(page.get_by_role("alert")).to_contain_text(words, ignore_case=True)
    assert "bytes given" not in page.get_by_role("alert").inner_text()
    show(page)  # the next one goes
    expect(page.locator("#problem")).to_be_hidden()


def test_too_large(page):
    asked = []
    page.on("request", lambda request: asked.append(request.method))
    page.set_input_files("#picker", file("big.jpg", bytes(301_000)))
    said = "This photo is too largeIt has 301 kB, and this server takes up to 300 kB."
    expect(page.get_by_role("alert")).to_have_text(said)
    page.set_input_files("#picker", file("wide.png", encoded(np.zeros((1, 250_001), np.uint8))))
    expect(page.get_by_role("alert")).to_contain_text("250001 × 1 pixels")  # noqa: RUF001
    assert "POST" not in asked


def test_dropped_and_pasted(page):
    move = """([kind, name]) => {
      const data = new DataTransfer();
      const bytes = Uint8Array.from(atob(window.sent), (c) => c.charCodeAt(0));
      data.items.add(new File([bytes], name, { type: "image/jpeg" }));
      const event = kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
        : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
      document.getElementById("stage").dispatchEvent(event);
    }"""
    page.evaluate("(sent) => { window.sent = sent; }", base64.b64encode(DARK.read_bytes()).decode())
    page.evaluate(move, ["dragenter", "a.jpg"])
    expect(page.get_by_text("Let go to open it")).to_be_visible()
    page.evaluate(move, ["drop", "dropped.jpg"])
    done(page)
    expect(page.locator("#file")).to_contain_text("dropped.jpg")
    expect(page.get_by_text("Let go to open it")).to_be_hidden()
    page.evaluate(move, ["paste", "pasted.jpg"])
    expect(page.locator("#file")).to_contain_text("pasted.jpg")
    done(page)


def test_by_keyboard_alone(page):
    def tab_to(selector):
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("(s) => document.activeElement.matches(s)", selector):
                outline = page.evaluate(
                    """() => {
                      const on = document.activeElement;
                      const shown = on.id === "split" ? on.nextElementSibling.children[0] : on;
                      return getComputedStyle(shown).outlineStyle;
                    }"""
                )
                assert outline == "solid", f"nobody sees that {selector} has the focus"
                return
        raise AssertionError(f"{selector} is not reached")

    # listened to from now on: Playwright may be slower to catch the dialog than a key to open it
    page.on("filechooser", lambda chooser: chooser.set_files(DARK))
    tab_to("#choose")
    page.keyboard.press("Enter")
    done(page)
    page.evaluate("document.activeElement.blur()")
    tab_to("#view")
    page.keyboard.press("1")
    assert page.locator("#zoom").inner_text() == "100%"
    page.keyboard.press("+")
    assert page.locator("#zoom").inner_text() == "125%"
    page.keyboard.press("0")
    tab_to("#split")
    before = seen(page)
    page.keyboard.press("ArrowLeft")
    assert page.locator("#split").input_value() == "49"
    page.keyboard.press("Home")
    assert seen(page)[0] > before[0] + 40
    tab_to("#original")
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Original")).to_have_attribute("aria-pressed", "true")
    assert seen(page)[0] == pytest.approx(before[0], abs=3)
    page.keyboard.press("Space")
    tab_to("#enhancer")
    tab_to("#strength")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#strength-value")).to_have_text("99%")
    tab_to("#download")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert opened(Path(download.value.path()).read_bytes()).size == (600, 400)


def test_zoom_and_pan(page):
    show(page)
    fitted = page.locator("#before").bounding_box()
    page.get_by_role("button", name="Zoom in").click()
    assert page.locator("#before").bounding_box()["width"] > 1.2 * fitted["width"]
    page.mouse.move(400, 400)
    page.mouse.wheel(0, -900)
    page.wait_for_function("document.getElementById('view').classList.contains('zoomed')")
    start = page.locator("#after").bounding_box()
    page.mouse.move(300, 400)
    page.mouse.down()
    page.mouse.move(340, 430, steps=3)
    page.mouse.up()
    moved = page.locator("#after").bounding_box()
    assert moved["x"] - start["x"] == pytest.approx(40, abs=1)
    assert moved["y"] - start["y"] == pytest.approx(30, abs=1)
    assert moved == page.locator("#before").bounding_box()
    page.get_by_role("button", name="Fit").click()
    assert page.locator("#before").bounding_box() == pytest.approx(fitted, abs=0.1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out(open_page, scheme):
    page = open_page(color_scheme=scheme)
    ratios = page.evaluate(
        CONTRAST, [".brand", ".empty h2", "#limits", "#choose", "#summary", "label"]
    )
    page.set_input_files("#picker", file("a.txt", b"no picture"))
    expect(page.get_by_role("alert")).to_be_visible()
    ratios += page.evaluate(CONTRAST, ["#problem"])
    show(page)
    ratios += page.evaluate(
        CONTRAST, ["#file", "#status", "#another", ".tools button", "#download"]
    )
    assert {selector: ratio for selector, ratio in ratios if ratio < 4.5} == {}
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(ground.split("(")[1].split(",")[0]) < 128) == (scheme == "dark")


def test_everything_has_a_name(page):
    show(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input:not([aria-hidden])")]
          .filter((e) => e.checkVisibility())
          .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
          .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    tree = page.locator("body").aria_snapshot()
    for line in ('img "Before: dark.jpg"', 'slider "Divider between before and after"', "status"):
        assert line in tree


def test_on_a_phone(open_page):
    page = open_page(390, 844, is_mobile=True, has_touch=True, device_scale_factor=2)
    show(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for name in ("Zoom in", "Original", "Another photo"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box["width"] >= 36
        assert box["height"] >= 36
    whole = page.locator("#before").bounding_box()
    assert whole["width"] == pytest.approx(390, abs=1)
    page.touchscreen.tap(whole["x"] + 2, whole["y"] + whole["height"] / 2)
    assert int(page.locator("#split").input_value()) <= 1
    with page.expect_download():
        page.get_by_role("button", name="Download").tap()


def test_a_busy_server_is_waited_for(open_page):
    answers = []

    def busy_once(route):
        if not answers:
            answers.append(429)
            route.fulfill(status=429, headers={"Retry-After": "1"}, json={"detail": "busy"})
        else:
            route.continue_()

    page = open_page(route=("**/v1/enhance?*", busy_once))
    page.wait_for_selector("body[data-ready]", state="attached")
    page.set_input_files("#picker", DARK)
    expect(page.locator("#status")).to_contain_text("The server is busy", timeout=WAIT)
    expect(page.locator("#progress")).to_be_visible()
    done(page)
    expect(page.locator("#progress")).to_be_hidden()


def test_a_token_is_asked_for(open_page):
    def guarded(route):
        if route.request.headers.get("authorization") == "Bearer right":
            route.continue_()
        else:
            route.fulfill(status=401, json={"detail": "token"})

    page = open_page(route=("**/v1/**", guarded))
    page.get_by_role("textbox", name="Token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("That was not it.")).to_be_visible()
    page.get_by_role("textbox", name="Token").fill("right")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-ready]", state="attached")
    expect(page.get_by_role("dialog")).to_be_hidden()
    show(page)


def test_a_server_that_is_gone(page):
    show(page)
    page.route("**/v1/**", lambda route: route.abort())
    page.get_by_label("Enhancer").select_option("builtin:identity")
    expect(page.get_by_role("alert")).to_contain_text("The server can't be reached", timeout=WAIT)
    page.unroute("**/v1/**")
    page.get_by_label("Enhancer").select_option("builtin:gamma")
    done(page)
