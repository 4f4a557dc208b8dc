"""Evaluation: figures that scikit-image confirms, intervals by scene, and clear refusals."""

from __future__ import annotations

import json
import math
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import enhancekit
from enhancekit.errors import AmbiguousNameError, DataError, OptionError, PluginError
from enhancekit.training.evaluation import (
    Evaluation,
    Sample,
    chosen_pairs,
    held_out_share,
    interval_by_scene,
    read_sample,
)
from enhancekit.training.pairs import Pair, is_held_out
from enhancekit.training.protocols import find_protocol
from enhancekit.training.recipe import Data, Source
from enhancekit.training.sources import split_pairs, training_photographs

SCENE = r"^(\d)"


def measured(pairs, name="gamma", protocol="rgb", **options):
    evaluation = Evaluation(enhancekit.load(name, device="cpu"), find_protocol(protocol), **options)
    return evaluation, [evaluation.add(read_sample(pair)) for pair in pairs]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def compared(picture, protocol):
    """Give what the protocol compares, in other words than the package's."""
    if protocol != "y-border2":
        return picture / 255.0
    red, green, blue = np.moveaxis(picture[2:-2, 2:-2] / 255.0, 2, 0)
    return ((16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255)[..., None]


def metric(name):
    target = f"{{code}}:{name}"
    return {"name": name, "target": target, "higher_is_better": True, "protocol": "any"}


@pytest.fixture
def one_pair(tmp_path):
    """Write a pair of the given pixels."""

    def make(low, high, name="view"):
        for side, array in (("low", low), ("high", high)):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / side / f"{name}.png")
        return Pair(name, tmp_path / "low" / f"{name}.png", tmp_path / "high" / f"{name}.png", name)

    return make


class TestFigures:
    @pytest.mark.parametrize("protocol", ["rgb", "lol", "y-border2"])
    @pytest.mark.parametrize("name", ["identity", "gamma"])
    def test_agree_with_scikit_image(self, pairs, name, protocol):
        chosen = chosen_pairs(pairs, scene=SCENE)
        evaluation, outputs = measured(chosen, name, protocol)
        assert [row["picture"] for row in evaluation.rows] == [p.name for p in chosen]
        assert [row["scene"] for row in evaluation.rows] == [p.scene for p in chosen]
        for pair, output, row in zip(chosen, outputs, evaluation.rows, strict=True):
            low = pixels(pair.input)
            wanted = low if name == "identity" else 255 * (low / 255.0) ** (1 / 2.2)
            assert output.dtype == np.uint8
            assert np.abs(output - wanted).max() <= (0 if name == "identity" else 0.51)
            a, b = compared(pixels(pair.target), protocol), compared(output, protocol)
            psnr = peak_signal_noise_ratio(a, b, data_range=1)
            ssim = structural_similarity(
                a,
                b,
                data_range=1,
                channel_axis=2,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            assert row["psnr"] == pytest.approx(psnr, abs=1e-6)
            assert row["ssim"] == pytest.approx(ssim, abs=1e-6)
            if protocol == "lol":
                assert row["mae"] == pytest.approx(np.abs(a - b).mean(), abs=1e-9)
                assert row["delta_e"] > 1

    def test_summaries_follow_from_the_rows(self, pairs):
        evaluation, _ = measured(chosen_pairs(pairs, scene=SCENE), protocol="lol")
        summaries = evaluation.summaries()
        assert list(summaries) == ["psnr", "ssim", "mae", "delta_e"]
        for name, summary in summaries.items():
            values = {row["picture"]: row[name] for row in evaluation.rows}
            assert len(set(values.values())) == len(values) == 6
            worst = (min if name in ("psnr", "ssim") else max)(values, key=values.get)
            assert summary.higher_is_better == (name in ("psnr", "ssim"))
            assert summary.mean == pytest.approx(sum(values.values()) / 6)
            assert (summary.worst_picture, summary.worst) == (worst, values[worst])
            low, high = summary.interval
            assert min(values.values()) <= low < summary.mean < high <= max(values.values())
            assert summary.interval == interval_by_scene(
                list(values.values()), [row["scene"] for row in evaluation.rows]
            )
            assert summary.protocol.startswith("RGB, whole pictures")
        assert summaries["psnr"].unit == "dB"

    @pytest.mark.parametrize("reference_mean", [False, True])
    def test_the_references_mean_is_used_only_when_asked_for(self, pairs, reference_mean):
        evaluation, outputs = measured(chosen_pairs(pairs), reference_mean=reference_mean)
        figures = {"psnr", "ssim"}
        labelled = {f"{name} (GT-mean)" for name in figures}
        wanted = figures | labelled if reference_mean else figures
        assert set(evaluation.summaries()) == wanted
        for row in evaluation.rows:
            assert set(row) == {"picture", "scene"} | wanted
        for name, summary in evaluation.summaries().items():
            assert ("scaled to the reference's mean" in summary.protocol) == (name in labelled)
        if reference_mean:
            for pair, output, row in zip(
                chosen_pairs(pairs), outputs, evaluation.rows, strict=True
            ):
                target = pixels(pair.target)
                grey = np.array([0.299, 0.587, 0.114])
                scaled = output * ((target @ grey).mean() / (output @ grey).mean())
                error = (scaled.round().clip(0, 255) - target) / 255
                wanted_psnr = -10 * math.log10((error**2).mean())
                assert row["psnr (GT-mean)"] == pytest.approx(wanted_psnr, abs=1e-6)
                assert row["psnr"] != row["psnr (GT-mean)"]

    def test_chosen_metrics_replace_the_protocols(self, pairs):
        evaluation, _ = measured(chosen_pairs(pairs), metrics=["mae"])
        assert set(evaluation.rows[0]) == {"picture", "scene", "mae"}

    def test_a_perfect_output(self, one_pair):
        picture = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
        good, other = one_pair(picture, picture, "good"), one_pair(picture, 255 - picture, "bad")
        evaluation, _ = measured([good, other], "identity")
        summary = evaluation.summaries()["psnr"]
        assert evaluation.rows[0]["psnr"] == summary.mean == math.inf
        assert summary.interval == (math.inf, math.inf)
        assert summary.worst_picture == "bad"
        assert math.isfinite(evaluation.summaries()["ssim"].mean)


@pytest.fixture
def reference(tmp_path):
    """Write a reference and give the pair whose input is to be made of it."""

    def make(array, name="view"):
        path = tmp_path / f"{name}.png"
        Image.fromarray(array).save(path)
        return Pair(name, path, path, name)

    return make


def random_picture(height=40, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class TestReadSample:
    def test_without_making_it_is_the_two_pictures(self, one_pair):
        low, high = random_picture(seed=1), random_picture(seed=2)
        sample = read_sample(one_pair(low, high))
        assert (sample.name, sample.scene) == ("view", "view")
        np.testing.assert_array_equal(sample.input, low)
        np.testing.assert_array_equal(sample.reference, high)
        assert sample.input.dtype == sample.reference.dtype == np.uint8

    @pytest.mark.parametrize("level", [10, 25, 50])
    def test_gaussian_noise_has_its_level_and_is_not_clipped(self, reference, level):
        black_and_white = np.zeros((64, 96, 3), np.uint8)
        black_and_white[:, 48:] = 255
        sample = read_sample(reference(black_and_white), f"gaussian:{level}")
        assert sample.input.dtype == np.float32
        np.testing.assert_array_equal(sample.reference, black_and_white)
        noise = sample.input - black_and_white / 255
        assert noise.std() * 255 == pytest.approx(level, rel=0.03)
        assert noise.mean() * 255 == pytest.approx(0, abs=level / 25)
        assert (sample.input < 0).mean() == pytest.approx(0.25, abs=0.02)
        assert (sample.input > 1).mean() == pytest.approx(0.25, abs=0.02)

    @pytest.mark.parametrize("level", [10, 40])
    def test_poisson_noise_counts_photons(self, reference, level):
        sample = read_sample(reference(np.full((64, 64, 3), 102, np.uint8)), f"poisson:{level}")
        photons = sample.input * level
        np.testing.assert_allclose(photons, photons.round(), atol=1e-4)
        assert photons.var() == pytest.approx(0.4 * level, rel=0.06)

    @pytest.mark.parametrize("make", ["gaussian", "gaussian:25", "poisson", "camera", "dark"])
    def test_the_name_decides_the_noise(self, reference, make):
        picture = random_picture()
        first, again, other = (
            read_sample(reference(picture, name), make).input for name in ("a", "a", "b")
        )
        np.testing.assert_array_equal(first, again)
        assert (first != other).mean() > 0.5

    @pytest.mark.parametrize("make", ["camera", "dark", "bicubic-x2"])
    def test_what_cameras_and_files_round_is_in_8_bits(self, reference, make):
        sample = read_sample(reference(random_picture()), make)
        assert sample.input.dtype == np.uint8
        assert len(np.unique(sample.input)) > 50

    @pytest.mark.parametrize(
        ("times", "size"),
        [(2, (24, 48)), (2, (25, 48)), (2, (24, 49)), (2, (25, 49)), (3, (26, 49)), (4, (27, 51))],
        ids=str,
    )
    def test_references_are_cut_before_they_are_shrunk(self, reference, times, size):
        picture = random_picture(*size)
        sample = read_sample(reference(picture), f"bicubic-x{times}")
        cut = picture[:24, :48]
        np.testing.assert_array_equal(sample.reference, cut)
        wanted = Image.fromarray(cut).resize((48 // times, 24 // times), Image.Resampling.BICUBIC)
        assert sample.input.shape == (24 // times, 48 // times, 3)
        off = np.abs(sample.input.astype(int) - np.asarray(wanted).astype(int))
        assert off.max() <= 2  # Pillow rounds after each of its two passes

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            ("snow", "no degradation is called 'snow'; there are dark, camera, gaussian"),
            ("gaussian:loud", "'gaussian:loud': the level 'loud' is no number"),
            ("gaussian:", "the level '' is no number"),
            ("gaussian:0", "gaussian:0 is no degradation"),
            ("gaussian:1e300", "gaussian:1e+300 is no degradation"),
            ("gaussian:nan", "gaussian:nan is no degradation"),
            ("camera:3", "only gaussian and poisson take a level"),
            ("bicubic-x2:2", "only gaussian and poisson take a level"),
        ],
    )
    def test_what_cannot_be_made(self, reference, make, said):
        with pytest.raises(DataError) as caught:
            read_sample(reference(random_picture()), make)
        assert said in str(caught.value)

    @pytest.mark.parametrize("make", ["camera", "bicubic-x2", "gaussian:25"])
    @pytest.mark.parametrize("size", [(1, 9), (9, 1), (3, 3)], ids=str)
    def test_too_small_a_reference(self, reference, make, size):
        pair = reference(random_picture(*size))
        with pytest.raises(DataError, match=rf"view\.png is {size[1]}x{size[0]}, too small"):
            read_sample(pair, make)


class TestMade:
    @pytest.fixture
    def probe(self, enhancer_of):
        return lambda run, **given: Evaluation(enhancer_of(run, **given), find_protocol("rgb"))

    def test_the_enhancer_sees_what_no_file_could_hold(self, probe, reference):
        seen = []

        def run(pictures, dtype, controls):
            seen.append(pictures)
            return pictures

        sample = read_sample(reference(np.zeros((24, 24, 3), np.uint8)), "gaussian:100")
        evaluation = probe(run)
        output = evaluation.add(sample)
        (pictures,) = seen
        assert pictures.shape == (1, 3, 24, 24)
        np.testing.assert_array_equal(pictures[0].permute(1, 2, 0).numpy(), sample.input)
        assert pictures.min() < -1  # farther outside than a caller's pixels may lie
        wanted = (sample.input.clip(0, 1) * 255).round()
        assert output.dtype == np.uint8
        np.testing.assert_array_equal(output, wanted)
        psnr = -10 * math.log10(((wanted / 255) ** 2).mean())
        assert evaluation.rows[0]["psnr"] == pytest.approx(psnr, abs=1e-6)

    def test_photons_above_white_stay_there(self, reference):
        sample = read_sample(reference(np.full((48, 48, 3), 250, np.uint8)), "poisson:255")
        assert sample.input.dtype == np.float32
        assert sample.input.max() > 1
        assert np.abs(sample.input - 250 / 255).max() < 0.5

    def test_grey_with_noise_has_the_psnr_that_follows_from_its_level(self, reference):
        pair = reference(np.full((96, 96, 3), 128, np.uint8))
        evaluation = Evaluation(enhancekit.load("identity"), find_protocol("rgb"))
        evaluation.add(read_sample(pair, "gaussian:25"))
        wanted = 20 * math.log10(255 / 25)
        assert evaluation.rows[0]["psnr"] == pytest.approx(wanted, abs=0.1)

    @pytest.mark.parametrize("make", ["gaussian:25", "camera"])
    def test_non_local_means_is_better_than_nothing_done(self, reference, make):
        ramp = np.linspace(60, 200, 48)
        sample = read_sample(
            reference(np.add.outer(ramp, ramp)[..., None].repeat(3, 2).astype(np.uint8) // 2), make
        )
        psnr = []
        for name in ("identity", "nl-means"):
            evaluation = Evaluation(enhancekit.load(name), find_protocol("rgb"))
            evaluation.add(sample)
            psnr.append(evaluation.rows[0]["psnr"])
        assert psnr[1] > psnr[0] + 2

    def test_enlarged_pictures_are_compared_with_larger_references(self, probe):
        large = random_picture(32, 40)
        sample = Sample("view", "view", large[::2, ::2], large)
        evaluation = probe(lambda x, *_: x.repeat_interleave(2, 2).repeat_interleave(2, 3), scale=2)
        output = evaluation.add(sample)
        wanted = large[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(output, wanted)
        psnr = peak_signal_noise_ratio(large, wanted, data_range=255)
        assert evaluation.rows[0]["psnr"] == pytest.approx(psnr, abs=1e-6)

    def test_what_does_not_enlarge_is_refused_there(self):
        large = random_picture(32, 40)
        evaluation = Evaluation(enhancekit.load("identity"), find_protocol("rgb"))
        with pytest.raises(DataError, match="the output is 20x16, the reference is 40x32"):
            evaluation.add(Sample("view", "view", large[::2, ::2], large))


class TestInterval:
    def test_is_deterministic_and_holds_the_mean(self):
        values = np.random.default_rng(3).normal(20, 3, 40).tolist()
        scenes = [str(i // 4) for i in range(40)]
        low, high = interval_by_scene(values, scenes)
        assert interval_by_scene(values, scenes) == (low, high)
        assert low < np.mean(values) < high

    def test_is_wide_enough_and_no_wider(self):
        values = np.random.default_rng(4).normal(0, 1, 400).tolist()
        low, high = interval_by_scene(values, [str(i) for i in range(400)])
        assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)

    def test_scenes_count_not_pictures(self):
        values = [float(v) for v in (10, 20, 30, 25, 15) for _ in range(10)]
        by_scene = interval_by_scene(values, [str(i // 10) for i in range(50)])
        by_picture = interval_by_scene(values, [str(i) for i in range(50)])
        assert by_scene[1] - by_scene[0] > 2.5 * (by_picture[1] - by_picture[0]) > 0

    def test_pictures_weigh_the_same_whatever_the_scene(self):
        names = [f"large {i}" for i in range(20) for _ in range(9)]
        names += [f"small {i}" for i in range(20)]
        low, high = interval_by_scene([0.0] * 180 + [10.0] * 20, names)
        # the mean over pictures is 1; that over scenes would be 5
        assert 0.3 < low < 1 < high < 2.5

    @pytest.mark.parametrize("values", [[5.0], [1.0, 2.0, 6.0]])
    def test_one_scene_tells_nothing_about_others(self, values):
        mean = pytest.approx(np.mean(values))
        assert interval_by_scene(values, ["a"] * len(values)) == (mean, mean)

    def test_an_infinite_value(self):
        assert interval_by_scene([20.0, math.inf], ["a", "b"]) == (math.inf, math.inf)


class TestRefused:
    @pytest.mark.parametrize("metrics", [["delta_e"], ["psnr", "delta_e"]])
    def test_colour_under_luma(self, pairs, metrics):
        with pytest.raises(OptionError, match=r"delta_e.*compares colours.*'y-border2'"):
            measured(chosen_pairs(pairs), protocol="y-border2", metrics=metrics)

    @pytest.mark.parametrize("shape", [(12, 14, 3), (14, 12, 3), (24, 24, 3)])
    def test_two_sizes(self, one_pair, shape):
        pair = one_pair(np.zeros((12, 12, 3), np.uint8), np.zeros(shape, np.uint8))
        evaluation = Evaluation(enhancekit.load("identity"), find_protocol("rgb"))
        with pytest.raises(DataError) as caught:
            evaluation.add(read_sample(pair))
        said = "'view' has two sizes: the output is 12x12, the reference is "
        assert f"{said}{shape[1]}x{shape[0]}; nothing is resized" in str(caught.value)
        assert evaluation.rows == []

    def test_a_third_partys_metric_is_blamed(self, make_plugin, pairs):
        plugin = make_plugin(
            metrics=[metric("broken"), metric("worded")],
            code="""
            def broken(output, reference):
                raise KeyError("missing wheel")
            def worded(output, reference):
                return "high"
            """,
        )
        for name, said in (("broken", "KeyError: 'missing wheel'"), ("worded", "ValueError")):
            with pytest.raises(PluginError) as caught:
                measured(chosen_pairs(pairs), metrics=[name])
            assert f"metric orbit:{name} ({plugin}" in str(caught.value)
            assert said in str(caught.value)

    def test_a_metric_that_writes_does_not_change_the_next(self, make_plugin, pairs):
        make_plugin(
            metrics=[metric("writing")],
            code="""
            def writing(output, reference):
                output[:] = reference
                return 1.0
            """,
        )
        own, _ = measured(chosen_pairs(pairs), metrics=["psnr"])
        both, _ = measured(chosen_pairs(pairs), metrics=["writing", "psnr"])
        assert both.summaries()["psnr"] == own.summaries()["psnr"]

    def test_errors_name_the_picture(self, one_pair):
        pair = one_pair(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(OptionError, match=r"^view: ssim needs at least 11x11"):
            measured([pair], name="identity")

    def test_one_asked_for_twice_stands_once(self, pairs):
        evaluation, _ = measured(chosen_pairs(pairs), metrics=["psnr", "builtin:psnr", "psnr"])
        assert list(evaluation.summaries()) == ["psnr"]

    def test_metrics_of_one_name(self, make_plugin, pairs):
        make_plugin(
            metrics=[metric("psnr")],
            code="def psnr(output, reference): return 42.0",
        )
        with pytest.raises(AmbiguousNameError, match="orbit:psnr"):
            measured(chosen_pairs(pairs), metrics=["psnr"])
        own, _ = measured(chosen_pairs(pairs), metrics=["builtin:psnr"])
        both, _ = measured(chosen_pairs(pairs), metrics=["orbit:psnr", "builtin:psnr"])
        means = sorted(s.mean for s in both.summaries().values())
        assert means == sorted([42.0, own.summaries()["psnr"].mean])

    def test_a_plugin_does_not_change_what_a_protocol_means(self, make_plugin, pairs):
        before, _ = measured(chosen_pairs(pairs))
        make_plugin(
            metrics=[metric("psnr")],
            code="def psnr(output, reference): return 42.0",
        )
        after, _ = measured(chosen_pairs(pairs))
        assert after.rows == before.rows


class TestHeldOutShare:
    """Which share is measured follows from what the weights held out in training."""

    @pytest.fixture
    def trained(self, tmp_path):
        def make(share, *scenes):
            path = tmp_path / f"{share}.safetensors"
            tiny = {"width": 4, "counts": (1, 1), "pack": 1}
            network = enhancekit.load("mfnn-denoise-lite", pretrained=False, device="cpu", **tiny)
            network.save(path, split={"held_out": share, "scenes": [*scenes]})
            return enhancekit.load(f"file:{path}", device="cpu")

        return make

    def test_by_default_the_least_of_all(self, trained):
        plain = enhancekit.load("identity")
        assert held_out_share(None, "", [plain]) == 0.1
        assert held_out_share(None, "", [plain, trained(0.3, ""), trained(0.2, "")]) == 0.2
        assert held_out_share(0.25, "", [plain, trained(0.3, "")]) == 0.25

    def test_two_weights_of_one_enhancer(self, trained):
        both = [trained(0.2, ""), trained(0.3, "")]
        assert held_out_share(None, "", both) == held_out_share(None, "", both[::-1]) == 0.2

    def test_more_than_was_held_out(self, trained):
        said = "file:mfnn-denoise-lite held out a share of 0.2 .* so a share of 0.3 holds"
        with pytest.raises(OptionError, match=said):
            held_out_share(0.3, "", [trained(0.2, "")])

    @pytest.mark.parametrize(
        ("scene", "said"),
        [
            ("", "not scenes by their references"),
            (r"^(b)", "not scenes by --scene"),
            (None, "not each photograph by itself"),
        ],
    )
    def test_other_scenes(self, trained, scene, said):
        with pytest.warns(UserWarning, match=f"scenes by --scene '.*' in training, {said}"):
            held_out_share(None, scene, [trained(0.2, r"^(a)")])
        held_out_share(None, scene, [trained(0.2, r"^(a)", scene)])

    def test_on_the_command_line(self, trained, pairs, cli, tmp_path):
        trained(0.8, SCENE)
        given = ("--data", pairs, "--split", "held-out", "--json")
        name = f"file:{tmp_path / '0.8.safetensors'}"
        done = cli("evaluate", name, *given, "--scene", SCENE)
        assert done.err == ""
        (found,) = json.loads(done.out)
        assert found["data"]["held_out"] == 0.8
        assert found["pairs"] == sum(is_held_out(str(i), 0.8) for i in range(6))
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            assert "not scenes by their references" in cli("evaluate", name, *given).err
        done = cli("evaluate", name, *given, "--held-out", 0.9, "--scene", SCENE)
        assert (done.code, done.out) == (1, "")


class TestChosenPairs:
    @pytest.mark.parametrize("share", [0.4, 0.5, 0.8])
    def test_held_out_is_what_training_holds_out(self, pairs, share):
        data = Data(
            root=str(pairs),
            sources=(Source(input="low", target="high", scene=SCENE),),
            held_out=share,
        )
        (trained,), held_out = split_pairs(data)
        chosen = chosen_pairs(pairs, scene=SCENE, held_out=share)
        assert chosen == held_out["low"]
        assert {p.name for p in chosen} == {str(i) for i in range(6) if is_held_out(str(i), share)}
        assert {p.name for p in chosen} | {p.name for p in trained} == set("012345")
        assert 0 < len(chosen) < 6

    def test_input_and_target_are_other_names_for_the_folders(self, pairs, tmp_path):
        for mine, theirs in (("input", "low"), ("target", "high")):
            (tmp_path / mine).symlink_to(pairs / theirs)
        assert [p.name for p in chosen_pairs(tmp_path)] == list("012345")

    def test_no_such_folders(self, pairs, tmp_path):
        (tmp_path / "low").mkdir()
        with pytest.raises(DataError, match=r"neither low/ and high/ nor input/ and target/"):
            chosen_pairs(tmp_path)
        with pytest.raises(DataError, match=r"no scene of .* is held out at a share of 0\.0"):
            chosen_pairs(pairs, held_out=0.0)

    def test_references_alone_are_each_a_scene(self, pairs):
        chosen = chosen_pairs(pairs / "high", made=True)
        assert [p.name for p in chosen] == [p.scene for p in chosen] == list("012345")
        assert all(p.input == p.target == pairs / "high" / f"{p.name}.png" for p in chosen)

    @pytest.mark.parametrize("share", [0.4, 0.8])
    def test_held_out_references_are_those_training_holds_out(self, pairs, share):
        data = Data(root=str(pairs), clean=({"folder": "high"},), held_out=share)
        trained = {path.stem for path in training_photographs(data, data.clean[0], {})}
        chosen = {p.name for p in chosen_pairs(pairs / "high", held_out=share, made=True)}
        assert chosen | trained == set("012345")
        assert not chosen & trained
        assert 0 < len(chosen) < 6

    @pytest.mark.parametrize("folder", ["high", "low/../high", "copies"])
    def test_references_of_held_out_pairs_are_not_trained_on(self, pairs, folder):
        shutil.copytree(pairs / "high", pairs / "copies", dirs_exist_ok=True)
        source = {"input": "low", "target": "high"}  # a scene is what a reference shows
        clean = {"folder": folder}
        data = Data(root=str(pairs), sources=(source,), clean=(clean,), held_out=0.5)
        held_out = split_pairs(data)[1]
        unseen = {p.name for p in held_out["low"]}
        assert unseen
        assert not unseen & {p.stem for p in training_photographs(data, data.clean[0], held_out)}
        alone = Data(root=str(pairs), clean=(clean,), held_out=0.0)
        found = training_photographs(alone, alone.clean[0], {})
        assert {p.stem for p in found} == set("012345")

    def test_no_references(self, pairs, tmp_path):
        with pytest.raises(DataError, match="holds no pictures"):
            chosen_pairs(tmp_path, made=True)
        with pytest.raises(DataError, match="is not a folder"):
            chosen_pairs(tmp_path / "none", made=True)
        with pytest.raises(DataError, match=r"no scene of .* is held out"):
            chosen_pairs(pairs / "high", held_out=0.0, made=True)

    def test_on_the_command_line(self, pairs, cli):
        done = cli(
            *("evaluate", "identity", "--data", pairs, "--split", "held-out"),
            *("--held-out", 0.5, "--scene", SCENE, "--json"),
        )
        assert done.code == 0, done.err
        (found,) = json.loads(done.out)
        wanted = chosen_pairs(pairs, scene=SCENE, held_out=0.5)
        assert [row["picture"] for row in found["pictures"]] == [p.name for p in wanted]
