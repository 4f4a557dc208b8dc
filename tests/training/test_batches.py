"""Training batches: a pure function of seed and number, with inputs and targets aligned."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from enhancekit.errors import DataError
from enhancekit.training.batches import THUMBNAIL, Batch, Batches, Group, seeded
from enhancekit.training.pairs import find_pairs

HEIGHT, WIDTH, COUNT = 30, 40, 7


def located(number):
    """A picture whose every pixel says where it is, and in which picture."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack((x, y, np.full_like(x, number)), axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs in which each target is the negative of its input."""
    root = tmp_path_factory.mktemp("negatives")
    for side in ("low", "high"):
        (root / side).mkdir()
    for i in range(COUNT):
        Image.fromarray(located(i)).save(root / "low" / f"{i}.png")
        Image.fromarray(255 - located(i)).save(root / "high" / f"{i}.png")
    return find_pairs(root / "low", root / "high")


def make(pairs, **options):
    return Batches([Group(pairs)], **{"crop": 8, "augment": False, **options})


def assert_equal(a, b):
    for name in ("input", "target", "input_whole", "target_whole"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def shows(sample):
    """The number of the picture that a crop comes from."""
    return int((sample[2].mean() * 255).round())


class TestPure:
    @pytest.mark.parametrize("augment", [True, False])
    def test_the_same_number_gives_the_same_batch(self, pairs, augment):
        options = {"shrink": (1, 2), "augment": augment, "seed": 5}
        first, second = make(pairs, **options), make(pairs, **options)
        wanted = {n: first.batch(n, 3) for n in (0, 1, 7, 1000)}
        for n in (1000, 7, 0, 1):  # in another order, with draws in between
            second.thumbnails(n, 2)
            assert_equal(second.batch(n, 3), wanted[n])

    def test_another_number_or_seed_gives_another(self, pairs):
        data = make(pairs)
        given = [data.batch(0, 3), data.batch(1, 3), make(pairs, seed=1).batch(0, 3)]
        for a, b in itertools.combinations(given, 2):
            assert not torch.equal(a.input, b.input)

    def test_nothing_else_is_drawn_from(self, pairs):
        data = make(pairs, augment=True)
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        first = data.batch(3, 2)
        torch.manual_seed(2)
        np.random.seed(2)  # noqa: NPY002
        before = torch.get_rng_state()
        assert_equal(data.batch(3, 2), first)
        assert torch.equal(torch.get_rng_state(), before)

    def test_thumbnails_too(self, pairs):
        data = make(pairs, augment=True)
        first = data.thumbnails(4, 3)
        data.batch(9, 2)
        assert all(map(torch.equal, data.thumbnails(4, 3), first))
        assert not torch.equal(data.thumbnails(5, 3)[0], first[0])

    def test_a_batch_may_be_changed_freely(self, pairs):
        data = make(pairs)
        wanted = data.batch(0, 4).input.clone()
        batch = data.batch(0, 4)
        for tensor in (batch.input, batch.target, batch.input_whole, batch.target_whole):
            tensor.zero_()
        assert torch.equal(data.batch(0, 4).input, wanted)
        assert data.batch(0, 4).target_whole.any()

    def test_seeds(self):
        tuples = [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0), (1, 0, 1), (-1, 1, 0), (0, 5, 1)]
        drawn = {int(torch.randint(2**62, (1,), generator=seeded(*t))) for t in tuples}
        assert len(drawn) == len(tuples)
        assert int(torch.randint(2**62, (1,), generator=seeded(0, 1, 0))) in drawn


class TestShapes:
    def test_as_documented(self, pairs):
        batch = make(pairs, crop=12).batch(0, 5)
        assert batch.input.shape == batch.target.shape == (5, 3, 12, 12)
        assert batch.input_whole.shape == batch.target_whole.shape == (5, 3, THUMBNAIL, THUMBNAIL)
        for tensor in (batch.input, batch.target, batch.input_whole, batch.target_whole):
            assert tensor.dtype == torch.float32
            assert tensor.min() >= 0
            assert tensor.max() <= 1
        assert {t.shape for t in make(pairs).thumbnails(0, 4)} == {(4, 3, THUMBNAIL, THUMBNAIL)}

    def test_length_and_memory(self, pairs):
        data = make(pairs)
        assert len(data) == COUNT
        assert data.cached_bytes == COUNT * 2 * HEIGHT * WIDTH * 3

    def test_on_a_device(self, pairs):
        batch = make(pairs).batch(0, 2).to(torch.device("meta"))
        assert isinstance(batch, Batch)
        assert batch.target_whole.device.type == "meta"


def test_the_rarest_source_is_never_left_out(pairs):
    groups = [Group(pairs[:1], weight=1.5), Group(pairs[1:2]), Group(pairs[2:3], weight=1.5)]
    data = Batches(groups, crop=8, augment=False)
    numbers = {shows(batch.input[0]) for batch in (data.batch(n, 1) for n in range(20))}
    assert numbers == {0, 1, 2}


class TestChannels:
    def test_every_order_comes_and_is_that_of_the_whole_pair(self, pairs):
        plain, mixed = make(pairs), make(pairs, augment_channels=True)
        orders = set()
        for number in range(30):
            batch = mixed.batch(number, 1)
            # x and y grow along the picture and the third channel is flat, so each is known
            flat = batch.input[0].std((1, 2)).argmin()
            across = batch.input[0].diff(dim=2).abs().mean((1, 2)).argmax()
            order = [0, 0, 0]
            order[int(across)], order[int(flat)] = 0, 2
            order[3 - int(across) - int(flat)] = 1
            orders.add(tuple(order))
            torch.testing.assert_close(batch.input + batch.target, torch.ones(1, 3, 8, 8))
            number_in_picture = batch.input[0, flat].mean() * 255
            whole = plain._thumbnails[int(number_in_picture.round())][0]
            torch.testing.assert_close(batch.input_whole[0], whole[order])
        assert len(orders) == 6

    def test_of_thumbnails_too(self, pairs):
        inputs, targets = make(pairs, augment_channels=True).thumbnails(0, 40)
        torch.testing.assert_close(inputs + targets, torch.ones_like(inputs))
        assert {int(i) for i in inputs.std((2, 3)).argmin(1)} == {0, 1, 2}


class TestAligned:
    @pytest.mark.parametrize("augment", [True, False])
    @pytest.mark.parametrize("shrink", [(1,), (2,), (1, 2, 3)])
    @pytest.mark.parametrize("crop", [8, 10])
    def test_input_and_target_show_the_same(self, pairs, augment, shrink, crop):
        data = make(pairs, augment=augment, shrink=shrink, crop=crop)
        for number in range(6):
            batch = data.batch(number, 4)
            ones = torch.ones(4, 3, crop, crop)
            torch.testing.assert_close(batch.input + batch.target, ones)
            torch.testing.assert_close(
                batch.input_whole + batch.target_whole, torch.ones(4, 3, THUMBNAIL, THUMBNAIL)
            )
            inputs, targets = data.thumbnails(number, 4)
            torch.testing.assert_close(inputs + targets, torch.ones_like(inputs))

    def test_the_thumbnail_is_that_of_the_crops_picture(self, pairs):
        batch = make(pairs).batch(0, 7)
        assert [shows(c) for c in batch.input] == [shows(t) for t in batch.input_whole]

    @pytest.mark.parametrize("crop", [1, 8, 30])
    def test_crops_are_cut_out_of_the_picture(self, pairs, crop):
        data = make(pairs, crop=crop)
        seen = set()
        for sample in itertools.chain.from_iterable(data.batch(n, 5).input for n in range(8)):
            pixels = (sample.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
            left, top, number = (int(v) for v in pixels[0, 0])
            wanted = located(number)[top : top + crop, left : left + crop]
            np.testing.assert_array_equal(pixels, wanted)
            seen.add((left, top))
        assert len(seen) > (6 if crop == 30 else 20)

    def test_crops_reach_every_edge(self, pairs):
        data = make(pairs, crop=24)
        corners = [
            (sample[:2, 0, 0] * 255).round().int().tolist()
            for n in range(60)
            for sample in data.batch(n, 5).input
        ]
        lefts, tops = zip(*corners, strict=True)
        assert (min(lefts), max(lefts)) == (0, WIDTH - 24)
        assert (min(tops), max(tops)) == (0, HEIGHT - 24)


class TestShrink:
    def test_is_the_mean_of_the_pixels_covered(self, pairs):
        batch = make(pairs, crop=8, shrink=(3,)).batch(0, 4)
        for sample in batch.input * 255:
            left, top, number = (int(v) for v in (sample[:, 0, 0] - torch.tensor([1.0, 1, 0])))
            covered = located(number)[top : top + 24, left : left + 24].astype(np.float32)
            wanted = covered.reshape(8, 3, 8, 3, 3).mean((1, 3)).transpose(2, 0, 1)
            np.testing.assert_allclose(sample.numpy(), wanted, atol=1e-3)

    def test_factors_are_drawn_evenly(self, pairs):
        data = make(pairs, crop=8, shrink=(1, 2, 3))
        steps = [
            round(float(sample[0, 0, 1] - sample[0, 0, 0]) * 255)
            for n in range(60)
            for sample in data.batch(n, 5).input
        ]
        for factor in (1, 2, 3):
            assert steps.count(factor) == pytest.approx(100, abs=35)

    def test_what_does_not_fit_is_left_out(self, pairs):
        data = make(pairs, crop=16, shrink=(1, 4))
        sample = data.batch(0, 1).input[0]
        assert float(sample[0, 0, 1] - sample[0, 0, 0]) * 255 == pytest.approx(1, abs=1e-3)

    def test_a_picture_that_none_fits(self, pairs):
        with pytest.raises(DataError, match=r"crop of 16, shrunk by 2; set data.crop to at most"):
            make(pairs, crop=16, shrink=(4, 2))


class TestAugment:
    def test_all_eight_orientations(self, pairs):
        data = make(pairs, crop=8, augment=True)
        seen = set()
        for n in range(40):
            for sample in data.batch(n, 3).input * 255:
                right = (sample[:2, 0, 1] - sample[:2, 0, 0]).round().int().tolist()
                down = (sample[:2, 1, 0] - sample[:2, 0, 0]).round().int().tolist()
                seen.add((*right, *down))
        assert len(seen) == 8

    def test_off(self, pairs):
        batch = make(pairs, crop=8).batch(0, 6)
        assert (batch.input[:, 0].diff(dim=2) > 0).all()
        assert (batch.input[:, 1].diff(dim=1) > 0).all()

    def test_thumbnails_are_mirrored_sideways_only(self, pairs):
        inputs, _ = make(pairs, augment=True).thumbnails(0, 40)
        assert (inputs[:, 1].diff(dim=1) >= 0).all()
        rising = (inputs[:, 0, :, -1] > inputs[:, 0, :, 0]).all(dim=1)
        assert 5 < int(rising.sum()) < 35
        inputs, _ = make(pairs).thumbnails(0, 40)
        assert (inputs[:, 0, :, -1] > inputs[:, 0, :, 0]).all()


class TestOrder:
    @pytest.mark.parametrize("size", [1, 3, 7, 10])
    def test_every_picture_once_an_epoch(self, pairs, size):
        data = make(pairs)
        shown = [shows(s) for n in range(21) for s in data.batch(n, size).input]
        for start in range(0, len(shown) - COUNT + 1, COUNT):
            assert sorted(shown[start : start + COUNT]) == list(range(COUNT))

    def test_epochs_are_shuffled_anew(self, pairs):
        data = make(pairs)
        epochs = {tuple(shows(s) for s in data.batch(n, COUNT).input) for n in range(6)}
        assert len(epochs) == 6

    def test_the_batch_size_does_not_change_the_order(self, pairs):
        data = make(pairs)
        one = [shows(data.batch(n, 1).input[0]) for n in range(12)]
        four = [shows(s) for n in range(3) for s in data.batch(n, 4).input]
        assert one == four


class TestGroups:
    def test_weights_set_the_share(self, pairs):
        data = Batches(
            [Group(pairs[:5]), Group(pairs[5:], weight=7.5)], crop=8, augment=False
        )  # 5 pictures against 2 that count 15
        shown = [shows(s) for n in range(100) for s in data.batch(n, COUNT).input]
        rare = sum(number < 5 for number in shown) / len(shown)
        assert rare == pytest.approx(0.25, abs=0.05)
        assert set(shown) == set(range(COUNT))
        for few in ((0, 1, 2, 3, 4), (5, 6)):
            counts = [shown.count(number) for number in few]
            assert max(counts) - min(counts) <= 2

    def test_empty_groups_are_left_out(self, pairs):
        data = Batches([Group(), Group(pairs), Group(())], crop=8)
        assert len(data) == COUNT

    @pytest.mark.parametrize("groups", [[], [Group()], [Group(), Group(())]])
    def test_nothing_at_all(self, groups):
        with pytest.raises(DataError, match=r"no training pictures.*held_out"):
            Batches(groups, crop=8)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("clean")
    random = np.random.default_rng(0)
    for i in range(4):
        coarse = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8))
        coarse.resize((40, 30), Image.Resampling.BICUBIC).save(root / f"{i}.png")
    return sorted(root.iterdir())


class TestClean:
    def make(self, photographs, kind, **options):
        return Batches([Group((), photographs, kind)], **{"crop": 16, "augment": False, **options})

    @pytest.mark.parametrize("kind", ["dark", "gaussian", "poisson"])
    def test_the_reference_is_the_photograph(self, photographs, kind):
        batch = self.make(photographs, kind, crop=30).batch(0, 4)
        for low, high in zip(batch.input, batch.target, strict=True):
            pixels = (high * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            found = 0
            for path in photographs:
                with Image.open(path) as photograph:
                    whole = np.asarray(photograph)
                cuts = (whole[:, left : left + 30] for left in range(11))
                found += any(np.array_equal(pixels, cut) for cut in cuts)
            assert found == 1
            assert (low - high).abs().mean() > 0.005

    @pytest.mark.parametrize("kind", ["dark", "gaussian", "poisson", "bicubic-x2"])
    def test_pure(self, photographs, kind):
        first, second = (self.make(photographs, kind, seed=3) for _ in range(2))
        second.batch(8, 2)
        assert_equal(second.batch(2, 3), first.batch(2, 3))
        assert all(map(torch.equal, second.thumbnails(2, 3), first.thumbnails(2, 3)))

    def test_dark_is_darker_in_crop_and_thumbnail_alike(self, photographs):
        batch = self.make(photographs, "dark").batch(0, 8)
        assert (batch.input.mean((1, 2, 3)) < 0.75 * batch.target.mean((1, 2, 3))).all()
        crop = batch.input.mean((1, 2, 3)) / batch.target.mean((1, 2, 3))
        whole = batch.input_whole.mean((1, 2, 3)) / batch.target_whole.mean((1, 2, 3))
        torch.testing.assert_close(crop, whole, rtol=0.35, atol=0.02)

    @pytest.mark.parametrize(("times", "side"), [(2, 8), (3, 5), (4, 4)])
    def test_smaller(self, photographs, times, side):
        batch = self.make(photographs, f"bicubic-x{times}").batch(0, 2)
        assert batch.input.shape == (2, 3, side, side)
        assert batch.target.shape == (2, 3, 16, 16)

    def test_an_unknown_kind(self, photographs):
        with pytest.raises(DataError, match="no degradation is called 'blurry'; there are dark"):
            self.make(photographs, "blurry").batch(0, 1)

    def test_memory_counts_a_photograph_once(self, photographs):
        assert self.make(photographs, "dark").cached_bytes == 4 * 30 * 40 * 3


class TestRefused:
    def write(self, root, low, high):
        for side, pixels in (("low", low), ("high", high)):
            (root / side).mkdir()
            Image.fromarray(pixels).save(root / side / "scene.png")
        return find_pairs(root / "low", root / "high")

    def test_sizes_that_differ(self, tmp_path):
        pairs = self.write(tmp_path, np.zeros((30, 40, 3), np.uint8), np.zeros((30, 41, 3), "u1"))
        with pytest.raises(DataError, match=r"'scene' has two sizes: .*40x30, .*41x30"):
            make(pairs)

    @pytest.mark.parametrize("crop", [31, 64])
    def test_a_crop_that_is_too_large(self, pairs, crop):
        with pytest.raises(DataError, match=rf"40x30, smaller than the crop of {crop}.*most 30"):
            make(pairs, crop=crop)

    def test_pictures_that_cannot_be_trained_on(self, tmp_path):
        pairs = self.write(tmp_path, np.zeros((30, 40, 4), "u1"), np.zeros((30, 40, 3), "u1"))
        with pytest.raises(
            DataError, match=r"'scene' cannot .*scene\.png: mode RGBA; training and evaluation take"
        ):
            make(pairs)

    def test_a_broken_picture(self, tmp_path):
        pairs = self.write(tmp_path, np.zeros((30, 40, 3), "u1"), np.zeros((30, 40, 3), "u1"))
        pairs[0].target.write_bytes(pairs[0].target.read_bytes()[:60])
        with pytest.raises(DataError, match=r"'scene' cannot be read: .*scene\.png"):
            make(pairs)

    def test_grey_is_repeated(self, tmp_path):
        grey = np.arange(1200, dtype=np.uint16).reshape(30, 40).astype(np.uint8)
        batch = make(self.write(tmp_path, grey, grey), crop=30).batch(0, 1)
        assert torch.equal(batch.input[0, 0], batch.input[0, 2])
