"""Enhancers side by side: what is measured, in which order, and a page that stands alone."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

import enhancekit
from enhancekit.comparison import Compared, Failed, as_dict, compare_folder, write_report
from enhancekit.comparison.measures import difference, measured
from enhancekit.errors import FolderError, OptionError

NASTY = "<script>alert(1)</script>&'.png"


@pytest.fixture
def folder(tmp_path):
    """A folder whose pictures the enhancers ``identity`` and ``gamma`` treat the less alike the
    darker they are, one broken, and one in a subfolder."""
    home = tmp_path / "photos"
    (home / "sub").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, top in (("bright.png", 250), (NASTY.replace("/", "_"), 60), ("sub/middle.png", 120)):
        low = top - 10
        pixels = random.integers(low, top, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(home / name)
    (home / "broken.jpg").write_bytes(b"no picture")
    return home


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def loaded(*names):
    return [enhancekit.load(name) for name in names]


class TestMeasures:
    def test_noise_is_found(self):
        random = np.random.default_rng(0)
        pixels = (0.5 + random.normal(0, 20 / 255, (200, 200, 3))).astype(np.float32)
        assert measured(pixels).noise == pytest.approx(20, rel=0.05)

    def test_clipping(self):
        pixels = np.full((10, 10, 3), 0.5, np.float32)
        pixels[0] = 0
        pixels[1:3] = (0.2, 0.2, 1)
        pixels[3] = (0, 0, 0.1)
        found = measured(pixels)
        assert (found.black, found.white) == pytest.approx((0.1, 0.2))

    def test_brightness_and_cast(self):
        red = np.zeros((5, 5, 3), np.float32)
        red[..., 0] = 1
        found = measured(red)
        assert found.brightness == pytest.approx(0.299)
        assert found.cast == pytest.approx(104.5, abs=1)  # of sRGB's red in CIELAB
        assert found.colour == (255, 0, 0)
        assert measured(np.full((5, 5, 3), 0.3, np.float32)).cast < 0.1

    def test_the_smallest_picture(self):
        assert measured(np.zeros((1, 1, 3), np.float32)).noise is None

    def test_difference_of_unequal_sizes(self):
        small, large = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (8, 8), "red")
        assert difference(small, large) == 0


class TestFolder:
    def test_versions_and_failures(self, folder):
        count, results = compare_folder(folder, loaded("identity", "gamma"))
        results = list(results)
        assert count == len(results) == 3
        (failed,) = [r for r in results if isinstance(r, Failed)]
        assert failed.name == "broken.jpg"
        assert failed.error.startswith("not a picture")
        for result in results:
            if isinstance(result, Compared):
                names = [v.name for v in result.versions]
                assert names == ["input", "builtin:identity", "builtin:gamma"]
                first, same, brighter = (v.measures for v in result.versions)
                assert first == same
                assert brighter.brightness > first.brightness
                assert [v.seconds is None for v in result.versions] == [True, False, False]

    def test_the_pictures_are_those_that_were_made(self, folder):
        _, results = compare_folder(folder, loaded("gamma"), include=["bright.png"])
        (result,) = results
        wanted = np.asarray(enhancekit.load("gamma").enhance(folder / "bright.png"), float)
        data = base64.b64decode(result.versions[1].address.partition(",")[2])
        assert np.abs(np.asarray(Image.open(io.BytesIO(data)), float) - wanted).mean() < 3

    def test_one_enhancer_is_compared_with_the_input(self, folder):
        _, results = compare_folder(folder, loaded("identity"), include=["bright.png"])
        assert next(results).disagreement == 0

    def test_strength_and_scale(self, folder):
        _, results = compare_folder(folder, loaded("gamma"), include=["bright.png"], strength=0)
        assert next(results).disagreement == 0
        _, results = compare_folder(folder, loaded("spline-x2"), include=["bright.png"], side=64)
        (result,) = results
        assert [v.size for v in result.versions] == [(60, 40), (120, 80)]
        data = base64.b64decode(result.versions[1].address.partition(",")[2])
        assert max(Image.open(io.BytesIO(data)).size) == 64

    def test_weights_of_the_same_network_go_by_their_files(self, folder, tmp_path):
        network = enhancekit.load("mfnn-lite", pretrained=False, width=4, counts=(1,), device="cpu")
        files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
        for file in files:
            network.save(file)
        names = [f"file:{file}" for file in files]
        _, results = compare_folder(folder, loaded(*names, "gamma"), include=["bright.png"])
        (result,) = results
        assert [v.name for v in result.versions[1:]] == [
            *(f"file:mfnn-lite ({file} {digest_of(file)[:12]})" for file in files),
            "builtin:gamma",
        ]
        with pytest.raises(OptionError, match="twice"):
            compare_folder(folder, loaded(names[0], names[0]))

    def test_refusals(self, folder, tmp_path):
        with pytest.raises(OptionError, match="twice"):
            compare_folder(folder, loaded("gamma", "gamma"))
        with pytest.raises(OptionError, match="name an enhancer"):
            compare_folder(folder, [])
        with pytest.raises(FolderError, match="no pictures that match"):
            compare_folder(folder, loaded("gamma"), include=["*.webp"])
        with pytest.raises(FolderError, match="no folder"):
            compare_folder(tmp_path / "nix", loaded("gamma"))


class TestCommand:
    def test_page_and_figures(self, cli, folder, tmp_path):
        page = tmp_path / "report.html"
        command = ("compare", folder, "-e", "identity", "-e", "gamma", "-o", page, "--recursive")
        done = cli(*command, "--json")
        assert done.code == 3
        assert "broken.jpg" in done.err
        found = json.loads(done.out)
        names = [p["name"] for p in found["pictures"]]
        assert names == [NASTY.replace("/", "_"), "sub/middle.png", "bright.png"]
        levels = [p["disagreement"] for p in found["pictures"]]
        assert levels == sorted(levels, reverse=True)
        assert len(set(levels)) == 3
        assert [f["name"] for f in found["failed"]] == ["broken.jpg"]
        text = page.read_text("utf-8")
        assert re.findall(r'<h2 id="name-\d">(.*?)</h2>', text)[2] == "bright.png"
        assert "<script>alert" not in text
        assert str(folder) not in text
        assert not re.search(r"(src|href)=|https?:|url\(|@import", text)
        assert "default-src 'none'" in text

    def test_figures_stand_on_the_page(self, folder, tmp_path):
        _, results = compare_folder(folder, loaded("gamma"), include=["bright.png"])
        results = list(results)
        write_report(tmp_path / "a.html", results, "title")
        text = (tmp_path / "a.html").read_text("utf-8")
        (picture,) = as_dict(results)["pictures"]
        for version in picture["versions"]:
            assert f"<td>{version['brightness']:.3f}</td>" in text
            assert f"<td>{version['noise']:.1f}</td>" in text

    def test_it_is_refused_before_any_work(self, cli, folder, tmp_path):
        for target, word in (("a.pdf", ".html"), ("nix/a.html", "no folder")):
            done = cli("compare", folder, "-e", "gamma", "-o", tmp_path / target)
            assert (done.code, word in done.err) == (1, True)

    @pytest.mark.parametrize(
        "more", [("--strength", "7"), ("-e", "spline-x2", "--strength", "0.5")]
    )
    def test_an_option_that_fits_no_picture_leaves_the_page_alone(
        self, cli, folder, tmp_path, more
    ):
        page = tmp_path / "report.html"
        page.write_text("before", "utf-8")
        done = cli("compare", folder, "-e", "gamma", "-o", page, "--overwrite", "always", *more)
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert page.read_text("utf-8") == "before"

    def test_a_page_is_replaced_on_request(self, cli, folder, tmp_path):
        page = tmp_path / "report.html"
        page.write_text("before", "utf-8")
        words = ("compare", folder, "-e", "gamma", "-o", page)
        done = cli(*words)
        assert (done.code, page.read_text("utf-8")) == (1, "before")
        assert "exists already; pass --overwrite" in done.err
        assert cli(*words, "--overwrite", "always").code == 3  # one of the pictures is broken
        assert "before" not in page.read_text("utf-8")[:10]

    def test_all_failed(self, cli, folder, tmp_path):
        page = tmp_path / "report.html"
        done = cli("compare", folder, "-e", "gamma", "-o", page, "--include", "broken.jpg")
        assert done.code == 1
        assert "Not compared" in page.read_text("utf-8")


def test_the_page_in_a_browser(browser, folder, tmp_path):
    _, results = compare_folder(folder, loaded("identity", "gamma"), recursive=True)
    path = tmp_path / "report.html"
    write_report(path, list(results), "Report")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text))
    page.goto(path.as_uri())
    section = page.locator(".picture").first
    section.locator("img").first.wait_for(state="visible")
    page.wait_for_function("document.querySelector('.view img').style.width === '60px'")

    def halves():
        view = section.locator(".view")
        view.scroll_into_view_if_needed()
        pixels = np.asarray(Image.open(io.BytesIO(view.screenshot())).convert("RGB"), float)
        height, width = pixels.shape[:2]
        middle = pixels[height // 2 - 60 : height // 2 - 30]
        return middle[:, width // 4 : width // 3].mean(), middle[
            :, -width // 3 : -width // 4
        ].mean()

    left, right = halves()
    assert left == pytest.approx(55, abs=6)
    assert right > left + 40
    section.get_by_role("combobox", name="Right").select_option("input")
    page.wait_for_function("document.querySelectorAll('.view img')[1].alt === 'input'")
    assert abs(np.subtract(*halves())) < 3
    section.get_by_role("button", name="Zoom in").click()
    section.get_by_role("slider").focus()
    page.keyboard.press("Home")
    assert section.get_by_role("slider").input_value() == "0"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()
    assert errors == []
