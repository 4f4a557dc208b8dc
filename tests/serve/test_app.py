"""The API: bytes in, better bytes out; everything else refused in plain words."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from running import encoded, opened, photo
from starlette.testclient import TestClient

import enhancekit
from enhancekit.errors import NonFiniteError, OptionError, PluginError, UnknownNameError
from enhancekit.export import export
from enhancekit.imaging.pictures import DeepPicture, encode
from enhancekit.imaging.reading import decode
from enhancekit.serve import Settings, create_app
from enhancekit.serve.asked import MEDIA_TYPES, OPTIONS
from enhancekit.serve.computer import Computer
from enhancekit.serve.guard import HEADERS
from enhancekit.serve.pool import BusyError, GivenUpError
from enhancekit.serve.uploads import TOGETHER, Uploads

slow = """
import threading
RELEASE = threading.Event()
RUNNING = threading.Semaphore(0)
def slow(picture):
    RUNNING.release()
    RELEASE.wait(20)
    return picture
def broken(picture):
    raise RuntimeError("boom /secret/path")
"""


@pytest.fixture
def client():
    """A client of a server that offers cheap enhancers."""
    names = ("builtin:gamma", "identity", "spline-x2", "clahe")
    with TestClient(create_app(Settings(enhancers=names, max_pixels=100_000))) as found:
        yield found


@pytest.fixture
def slowly(make_plugin):
    """A plugin whose enhancer waits until it is let go."""
    make_plugin(
        code=slow,
        enhancers=[
            {"name": n, "task": "tone", "target": f"{{code}}:{n}"} for n in ("slow", "broken")
        ],
    )
    import fake_orbit_plugin_code as code

    yield code
    code.RELEASE.set()


def enhance(client, data, accept="*/*", **query):
    return client.post("/v1/enhance", content=data, params=query, headers={"Accept": accept})


def refused(response, status, *words):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    for word in words:
        assert word in problem["detail"]
    return problem


class TestEnhance:
    def test_pixels_are_those_of_enhance(self, client):
        data = encoded(photo())
        response = enhance(client, data, enhancer="clahe", strength=0.7)
        assert response.status_code == 200
        assert response.headers["content-type"] == "image/png"
        assert response.headers["enhancekit-enhancer"] == "builtin:clahe"
        wanted = enhancekit.load("clahe").enhance(photo(), strength=0.7)
        assert np.array_equal(np.asarray(opened(response.content)), wanted)

    def test_the_first_named_is_the_default(self, client):
        response = enhance(client, encoded(photo()))
        assert response.headers["enhancekit-enhancer"] == "builtin:gamma"

    def test_each_stage_is_timed(self, client):
        timing = enhance(client, encoded(photo())).headers["server-timing"]
        stages = dict(part.split(";dur=") for part in timing.split(", "))
        assert list(stages) == ["decode", "wait", "compute", "encode"]
        assert all(float(v) >= 0 for v in stages.values())

    @pytest.mark.parametrize("kind", ["AVIF", "BMP", "JPEG", "PNG", "TIFF", "WEBP"])
    def test_the_format_stays(self, client, kind):
        response = enhance(client, encoded(photo(), kind))
        assert response.headers["content-type"] == MEDIA_TYPES[kind]
        assert opened(response.content).format == kind

    def test_what_came_with_the_picture_stays(self, client):
        exif = Image.Exif()
        exif[0x010F] = "Camera"
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        pixels = np.dstack((photo(), np.full((32, 32), 7, np.uint8)))
        response = enhance(client, encoded(pixels, exif=exif, dpi=(300, 300), icc_profile=icc))
        back = opened(response.content)
        assert back.info["icc_profile"] == icc
        assert back.getexif()[0x010F] == "Camera"
        assert back.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert np.array_equal(np.asarray(back)[..., 3], pixels[..., 3])
        bare = enhance(client, encoded(pixels, exif=exif), metadata="strip")
        assert 0x010F not in opened(bare.content).getexif()

    def test_16_bits_stay(self, client):
        pixels = np.random.default_rng(0).integers(0, 65536, (8, 9, 3), np.uint16)
        data = encode(DeepPicture(pixels), Path("a.png"))
        back = decode(enhance(client, data, enhancer="identity").content)
        assert np.array_equal(np.asarray(back), pixels)

    def test_what_gets_lost_is_said(self, client):
        frames = [Image.fromarray(photo(seed=i)) for i in range(2)]
        buffer = io.BytesIO()
        frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
        response = enhance(client, buffer.getvalue())
        assert response.status_code == 200
        assert "only the first is read" in response.headers["enhancekit-warning"]
        assert "enhancekit-warning" not in enhance(client, encoded(photo())).headers

    def test_larger(self, client):
        response = enhance(client, encoded(photo(9, 12)), enhancer="spline-x2")
        assert opened(response.content).size == (24, 18)

    def test_controls_reach_the_enhancer(self, make_plugin):
        make_plugin(
            code="def one(p, exposure=1.0): return 0 * p + exposure",
            enhancers=[
                {
                    "name": "steered",
                    "task": "tone",
                    "target": "{code}:one",
                    "controls": {"exposure": (0.1, 0.9)},
                }
            ],
        )
        with TestClient(create_app(Settings(enhancers=("steered",)))) as client:
            response = enhance(client, encoded(photo()), exposure="0.4")
            assert opened(response.content).getextrema() == ((102, 102),) * 3
            refused(enhance(client, encoded(photo()), exposure="1.4"), 400, "0.1 and 0.9")


class TestAccept:
    @pytest.mark.parametrize(
        ("accept", "given", "type_"),
        [
            ("image/webp", "PNG", "image/webp"),
            ("image/webp;q=0.5, image/jpeg", "PNG", "image/jpeg"),
            ("image/*", "JPEG", "image/jpeg"),
            ("", "JPEG", "image/jpeg"),
            ("image/png, image/jpeg", "JPEG", "image/jpeg"),
            ("image/webp, */*;q=0.1", "PNG", "image/webp"),
            ("image/png;q=0, */*", "JPEG", "image/jpeg"),
            ("text/html, image/tiff;q=0.2", "JPEG", "image/tiff"),
        ],
    )
    def test_it_decides(self, client, accept, given, type_):
        response = enhance(client, encoded(photo(), given), accept)
        assert response.headers["content-type"] == type_
        assert opened(response.content).get_format_mimetype() == type_

    def test_the_best_that_can_hold_the_picture(self, client):
        with_alpha = encoded(np.dstack((photo(), photo()[..., :1])))
        response = enhance(client, with_alpha, "image/jpeg, image/png;q=0.1")
        assert response.headers["content-type"] == "image/png"
        refused(enhance(client, with_alpha, "image/jpeg"), 422, "JPEG cannot hold", "RGBA")

    def test_none_that_is_written(self, client):
        refused(enhance(client, encoded(photo()), "image/gif"), 406, "image/gif", "image/png")
        refused(enhance(client, encoded(photo()), "image/png;q=0"), 406)

    def test_accept_in_several_lines(self, client):
        lines = [("Accept", "text/html"), ("Accept", "image/png")]
        found = client.post("/v1/enhance", content=encoded(photo(), "WEBP"), headers=lines)
        assert found.headers["content-type"] == "image/png"

    def test_anything_but_what_was_sent(self, client):
        found = enhance(client, encoded(photo(), "JPEG"), "image/jpeg;q=0, image/*")
        assert found.headers["content-type"] == "image/png"

    def test_a_warning_that_no_header_can_hold(self, client):
        profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
        profile[16:20] = b"\0\x1b[m"
        found = enhance(client, encoded(photo(), "JPEG", icc_profile=bytes(profile)))
        assert found.status_code == 200
        assert "x1b[m" in found.headers["enhancekit-warning"]

    def test_a_form(self, client):
        response = client.post("/v1/enhance", files={"file": ("a.png", encoded(photo()))})
        refused(response, 415, "--data-binary")
        shouted = {"Content-Type": "Multipart/Form-Data; boundary=x"}
        refused(
            client.post("/v1/enhance?enhancer=gamma", content=b"x", headers=shouted), 415, "curl"
        )

    def test_quality(self, client):
        sizes = [
            len(enhance(client, encoded(photo(), "JPEG"), quality=q).content) for q in (20, 95)
        ]
        assert sizes[0] < sizes[1] / 2
        refused(enhance(client, encoded(photo()), quality=50), 400, "PNG has no quality")


class TestRefusals:
    @pytest.mark.parametrize(
        ("query", "word"),
        [
            ({"strength": "2"}, "strength"),
            ({"strength": "much"}, "'much'"),
            ({"strength": "nan"}, "strength"),
            ({"mode": "slow"}, "exact or fast"),
            ({"quality": "1e1"}, "quality"),
            ({"lossless": "yes"}, "lossless"),
            ({"metadata": "all"}, "metadata"),
            ({"subsampling": "4:1:1"}, "4:2:0"),
            ({"exposure": "0.5"}, "exposure"),
            ({"url": "http://localhost/a.png"}, "url"),
            ({"enhancer": "nix"}, "nix"),
            ({"enhancer": "equalize"}, "does not offer builtin:equalize"),
            ({"enhancer": "spline-x2", "strength": "0.5"}, "enlarges"),
        ],
    )
    def test_options(self, client, query, word):
        refused(enhance(client, encoded(photo()), **query), 400, word)

    def test_an_option_given_twice(self, client):
        response = client.post("/v1/enhance?strength=1&strength=0", content=encoded(photo()))
        refused(response, 400, "strength is given twice")

    @pytest.mark.parametrize(
        "data",
        [b"", b"hello", encoded(photo())[:200], b"GIF89a" + bytes(60), b"<svg/>"],
        ids=["empty", "text", "truncated", "gif", "svg"],
    )
    def test_no_picture(self, client, data):
        assert refused(enhance(client, data), 422, "bytes given")["error"] == "ImageError"

    def test_too_many_pixels_are_refused_by_the_header(self, client):
        big = encoded(np.zeros((400, 400), np.uint8))
        refused(enhance(client, big), 422, "400 x 400 are too many pixels", "100,000")

    def test_of_what_enlarges_the_result_counts(self, client):
        data = encoded(np.zeros((200, 200), np.uint8))
        assert enhance(client, data, enhancer="identity").status_code == 200
        refused(enhance(client, data, enhancer="spline-x2"), 422, "25,000")

    def test_too_many_bytes(self, client):
        with TestClient(create_app(Settings(enhancers=("gamma",), max_bytes=1000))) as small:
            refused(enhance(small, bytes(1001)), 413, "1,001", "1,000")
            # of unknown length, cut off while it comes in
            refused(small.post("/v1/enhance", content=iter([bytes(600)] * 2)), 413, "1,000")

    def test_a_broken_enhancer_harms_nobody_else(self, slowly):
        with TestClient(create_app(Settings(enhancers=("gamma", "broken")))) as client:
            problem = refused(
                enhance(client, encoded(photo()), enhancer="broken"), 500, "orbit:broken"
            )
            assert problem["error"] == "PluginError"
            assert enhance(client, encoded(photo()), enhancer="gamma").status_code == 200
        with pytest.raises(PluginError, match="boom"):
            create_app(Settings(enhancers=("broken",)))

    def test_what_goes_wrong_inside_is_not_told_to_strangers(self, client, monkeypatch):
        def fail(*_args, **_options):
            raise RuntimeError("the secret path /srv/secret")

        monkeypatch.setattr("enhancekit.serve.service.check_fits", fail)
        response = enhance(client, encoded(photo()))
        refused(response, 500, "its log says why")
        assert "secret" not in response.text

    def test_unknown_paths_and_methods(self, client):
        refused(client.get("/nix"), 404, "/nix")
        refused(client.get("/v1/enhance"), 405)
        refused(client.post("/healthz"), 405)

    def test_pages_of_other_sites(self, client):
        response = client.post(
            "/v1/enhance", content=encoded(photo()), headers={"Sec-Fetch-Site": "cross-site"}
        )
        refused(response, 403)


class TestLoad:
    def test_more_than_may_wait_are_told_to_come_back(self, slowly):
        slowly.RELEASE.set()
        app = create_app(Settings(enhancers=("slow",), queue=2))
        with TestClient(app) as client, ThreadPoolExecutor(4) as threads:
            slowly.RELEASE.clear()
            slowly.RUNNING = threading.Semaphore(0)
            waiting = [threads.submit(enhance, client, encoded(photo())) for _ in range(2)]
            assert slowly.RUNNING.acquire(timeout=10)
            until = time.monotonic() + 10
            while "enhancekit_pictures_in_hand 2.0" not in client.get("/metrics").text:
                assert time.monotonic() < until
            response = enhance(client, encoded(photo()))
            refused(response, 429, "try again")
            assert int(response.headers["retry-after"]) > 0
            slowly.RELEASE.set()
            assert [w.result(20).status_code for w in waiting] == [200, 200]
            assert enhance(client, encoded(photo())).status_code == 200

    def test_what_takes_too_long_is_given_up(self, slowly):
        slowly.RELEASE.set()
        app = create_app(Settings(enhancers=("slow", "gamma"), queue=4, timeout=1))
        with TestClient(app) as client:
            slowly.RELEASE.clear()
            refused(enhance(client, encoded(photo())), 504, "1 s")
            # the thread that computes is still busy with it, so the next one waits in vain
            refused(enhance(client, encoded(photo()), enhancer="gamma"), 504)
            until = time.monotonic() + 10
            while client.get("/healthz").status_code == 200:
                assert time.monotonic() < until
            refused(client.get("/healthz"), 503, "restart")
            slowly.RELEASE.set()
            while client.get("/healthz").status_code != 200:
                assert time.monotonic() < until
            assert enhance(client, encoded(photo()), enhancer="gamma").status_code == 200

    def test_all_bodies_together_are_bounded(self):
        uploads = Uploads(100, 1)
        with uploads.holding() as first:
            for _ in range(TOGETHER):
                uploads.count(100, 100)
            with pytest.raises(BusyError):
                first.add(b"x")
        assert uploads.held == TOGETHER * 100


class TestToken:
    TOKEN = "0123456789abcdef"  # noqa: S105

    @pytest.fixture
    def client(self):
        with TestClient(create_app(Settings(enhancers=("gamma",), token=self.TOKEN))) as found:
            yield found

    @pytest.mark.parametrize("path", ["/v1/enhancers", "/metrics", "/openapi.json"])
    @pytest.mark.parametrize("shown", [None, "", "Bearer", "Bearer x", "Basic 0123456789abcdef"])
    def test_it_is_asked_for(self, client, path, shown):
        headers = {} if shown is None else {"Authorization": shown}
        response = client.get(path, headers=headers)
        refused(response, 401, "token")
        assert response.headers["www-authenticate"] == "Bearer"

    def test_it_lets_in(self, client):
        headers = {"Authorization": f"bearer {self.TOKEN}"}
        assert client.get("/metrics", headers=headers).status_code == 200
        headers = {"Authorization": f"Bearer {self.TOKEN}"}
        for path in ("/v1/enhancers", "/metrics", "/openapi.json"):
            assert client.get(path, headers=headers).status_code == 200
        response = client.post("/v1/enhance", content=encoded(photo()), headers=headers)
        assert response.status_code == 200
        refused(client.post("/v1/enhance", content=encoded(photo())), 401)

    def test_the_page_and_the_health_are_open(self, client):
        for path in ("/", "/page.js", "/style.css", "/icon.svg", "/healthz"):
            assert client.get(path).status_code == 200

    def test_it_is_not_shown(self):
        assert self.TOKEN not in repr(Settings(token=self.TOKEN))


class TestAround:
    def test_every_answer_keeps_browsers_safe(self, client):
        for path in ("/", "/page.js", "/healthz", "/metrics", "/nix", "/v1/enhancers"):
            headers = client.get(path).headers
            assert {k: headers[k] for k in HEADERS} == HEADERS
        policy = HEADERS["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "http" not in policy

    def test_the_page_needs_nothing_from_elsewhere(self, client):
        for path in ("/", "/page.js", "/style.css", "/viewer.js", "/viewer.css"):
            text = client.get(path).text
            assert "https://" not in text
            assert "http://" not in text
            assert "style=" not in text
            assert "onclick" not in text

    def test_the_page_is_asked_for_once(self, client):
        tag = client.get("/style.css").headers["etag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}'):
            again = client.get("/style.css", headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")
        assert client.get("/style.css", headers={"If-None-Match": '"other"'}).status_code == 200

    def test_no_address_is_corrected(self, client):
        assert client.post("/v1/enhance/", follow_redirects=False).status_code == 404

    def test_enhancers(self, client):
        found = client.get("/v1/enhancers").json()
        assert [e["name"] for e in found["enhancers"]] == [
            "builtin:gamma",
            "builtin:identity",
            "builtin:spline-x2",
            "builtin:clahe",
        ]
        assert [e["default"] for e in found["enhancers"]] == [True, False, False, False]
        assert found["limits"] == {"bytes": 64_000_000, "pixels": 100_000, "seconds": 120}
        assert {f["media_type"] for f in found["formats"]} == set(MEDIA_TYPES.values())

    def test_without_names_everything_usable_is_offered(self):
        app = create_app()
        with TestClient(app) as client:
            names = {e["name"] for e in client.get("/v1/enhancers").json()["enhancers"]}
        usable = {
            e.qualified_name
            for e in enhancekit.enhancers.list()
            if e.spec.target or e.spec.weights is not None
        }
        assert names == usable

    def test_files_of_weights_are_offered(self, tmp_path):
        network = enhancekit.load("mfnn-lite", pretrained=False, width=4, counts=(1,), device="cpu")
        torch.nn.init.normal_(network.module.head.final.weight, std=0.2)
        network.save(tmp_path / "mine.safetensors")
        name = f"file:{tmp_path / 'mine.safetensors'}"
        data = photo(20, 30)
        with TestClient(create_app(Settings(enhancers=(name, "gamma"), device="cpu"))) as client:
            offered = client.get("/v1/enhancers").json()["enhancers"]
            assert [e["name"] for e in offered] == ["file:mfnn-lite", "builtin:gamma"]
            assert offered[0]["controls"] == {"exposure": [0.05, 0.95]}
            for query in ({}, {"enhancer": "file:mfnn-lite"}):
                done = enhance(client, encoded(data), exposure=0.4, **query)
                wanted = np.asarray(network.enhance(data, exposure=0.4))
                np.testing.assert_allclose(np.asarray(opened(done.content)), wanted, atol=1)
            refused(enhance(client, encoded(data), enhancer="mfnn-lite"), 400, "does not offer")
        with pytest.raises(OptionError, match="one more file:mfnn-lite"):
            create_app(Settings(enhancers=(name, name.replace("/mine", "//mine"))))

    def test_exported_files_are_offered(self, tmp_path):
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        small = {"width": 4, "counts": (1,)}
        export("mfnn-lite", tmp_path / "lite.onnx", pretrained=False, options=small)
        name = f"onnx:{tmp_path / 'lite.onnx'}"
        with TestClient(create_app(Settings(enhancers=(name,), device="cpu"))) as client:
            data = photo(20, 30)
            done = enhance(client, encoded(data), exposure=0.4)
            assert done.status_code == 200, done.text
            wanted = enhancekit.load(name).enhance(data, exposure=0.4)
            np.testing.assert_array_equal(np.asarray(opened(done.content)), wanted)

    def test_weights_are_needed(self):
        with pytest.raises(OptionError, match=r"has no weights.*file:PATH"):
            create_app(Settings(enhancers=("mfnn-report",)))

    def test_one_named_twice_is_offered_once(self):
        with TestClient(create_app(Settings(enhancers=("gamma", "builtin:gamma")))) as client:
            found = client.get("/v1/enhancers").json()["enhancers"]
        assert [e["name"] for e in found] == ["builtin:gamma"]

    def test_an_unknown_name_stops_the_server_at_once(self):
        with pytest.raises(UnknownNameError, match="nix"):
            create_app(Settings(enhancers=("nix",)))

    @pytest.mark.parametrize(
        "wrong",
        [{"max_pixels": 0}, {"timeout": 0}, {"timeout": float("nan")}, {"token": "short"}],
    )
    def test_settings_that_cannot_be(self, wrong):
        with pytest.raises(OptionError):
            Settings(**wrong)

    def test_metrics_count_what_happened(self, client):
        data = encoded(photo(8, 9))
        done = enhance(client, data)
        enhance(client, b"no picture")
        client.get("/any/path/at/all")
        text = client.get("/metrics").text
        for line in (
            'enhancekit_requests_total{route="/v1/enhance",status="200"} 1.0',
            'enhancekit_requests_total{route="/v1/enhance",status="422"} 1.0',
            'enhancekit_requests_total{route="other",status="404"} 1.0',
            'enhancekit_pictures_total{enhancer="builtin:gamma"} 1.0',
            "enhancekit_pixels_total 72.0",
            f'enhancekit_bytes_total{{direction="in"}} {float(len(data))}',
            f'enhancekit_bytes_total{{direction="out"}} {float(len(done.content))}',
            'enhancekit_stage_seconds_count{stage="compute"} 1.0',
            "enhancekit_pictures_in_hand 0.0",
        ):
            assert line in text.splitlines()

    def test_openapi_describes_what_there_is(self, client):
        found = client.get("/openapi.json").json()
        assert found["openapi"] == "3.1.0"
        served = {r.path for r in client.app.routes if r.path.startswith(("/v1", "/h", "/m", "/o"))}
        assert set(found["paths"]) == served
        post = found["paths"]["/v1/enhance"]["post"]
        assert [p["name"] for p in post["parameters"]] == list(OPTIONS)
        assert set(post["responses"]["200"]["content"]) == set(MEDIA_TYPES.values())
        problem = found["components"]["schemas"]["Problem"]
        given = enhance(client, b"no picture").json()
        assert set(problem["required"]) <= set(given) <= set(problem["properties"])


class TestTogether:
    def test_small_pictures_of_a_network_are_computed_at_once(self):
        network = enhancekit.load("identity")
        network.module = torch.nn.Identity()  # only functions have none
        computer = Computer()
        held, go = threading.Event(), threading.Event()

        def first_turn():
            held.set()
            return go.wait(10)

        pictures = [torch.full((1, 3, 4, 4), i / 10) for i in range(8)]
        with ThreadPoolExecutor(10) as threads:
            blocker = threads.submit(computer.call, lambda: "done", first_turn)
            assert held.wait(10)
            futures = [threads.submit(computer.small, network, p, {}) for p in pictures]
            other = threads.submit(computer.small, network, torch.ones(1, 3, 5, 5), {})
            until = time.monotonic() + 10
            while len(computer._calls) < 9:
                assert time.monotonic() < until
            go.set()
            results = [f.result(10) for f in futures]
            assert blocker.result(10) == "done"
            assert other.result(10).shape == (1, 3, 5, 5)
        computer.close()
        assert computer.batches == 1
        for picture, result in zip(pictures, results, strict=True):
            assert torch.equal(picture, result)

    def test_other_controls_are_never_taken_together(self):
        network = enhancekit.load("mfnn", precision="fp32")
        computer = Computer()
        held, go = threading.Event(), threading.Event()
        picture = torch.rand(1, 3, 16, 16) * 0.2
        with ThreadPoolExecutor(3) as threads:
            blocker = threads.submit(computer.call, lambda: held.set() or go.wait(10))
            assert held.wait(10)
            wanted = ({"exposure": 0.2}, {"exposure": 0.8})
            futures = [threads.submit(computer.small, network, picture, each) for each in wanted]
            until = time.monotonic() + 10
            while len(computer._calls) < 2:
                assert time.monotonic() < until
            go.set()
            assert blocker.result(10)
            for future, each in zip(futures, wanted, strict=True):
                torch.testing.assert_close(future.result(30), network.run(picture, **each))
        computer.close()

    def test_one_bad_picture_does_not_spoil_the_others(self):
        network = enhancekit.load("identity")
        network.module = torch.nn.Identity()
        computer = Computer()
        held, go = threading.Event(), threading.Event()
        with ThreadPoolExecutor(3) as threads:
            blocker = threads.submit(computer.call, lambda: held.set() or go.wait(10))
            assert held.wait(10)
            good, bad = (
                threads.submit(computer.small, network, torch.full((1, 3, 2, 2), value), {})
                for value in (0.5, float("nan"))
            )
            until = time.monotonic() + 10
            while len(computer._calls) < 2:
                assert time.monotonic() < until
            go.set()
            assert blocker.result(10)
            assert torch.equal(good.result(10), torch.full((1, 3, 2, 2), 0.5))
            with pytest.raises(NonFiniteError):
                bad.result(10)
        computer.close()

    def test_what_nobody_waits_for_is_not_computed(self):
        computer, done = Computer(), []
        with pytest.raises(GivenUpError):
            computer.call(lambda: done.append(1), lambda: False)
        computer.close()
        assert done == []

    def test_small_and_large_pictures_of_a_network_come_out_the_same(self):
        app = create_app(Settings(enhancers=("mfnn-lite",), precision="fp32"))
        direct = enhancekit.load("mfnn-lite", precision="fp32")
        with TestClient(app) as client:
            for size in (40, 80):  # computed with its like, and alone
                response = enhance(client, encoded(photo(size, size)), exposure=0.4)
                wanted = direct.enhance(photo(size, size), exposure=0.4)
                assert np.array_equal(np.asarray(opened(response.content)), wanted)
