"""Any kind of picture to a float tensor and back."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import enhancekit
from enhancekit.errors import ImageError
from enhancekit.imaging.convert import open_image

NUMPY_DTYPES = ("uint8", "uint16", ">u2", "float16", "float32", "float64", ">f4")
TORCH_DTYPES = (
    torch.uint8,
    torch.uint16,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)
MODES = ("L", "LA", "RGB", "RGBA", "I;16", "F")
WHOLE = {"uint8": 255, "uint16": 65535, ">u2": 65535}
LEVELS = {"L": 256, "LA": 256, "RGB": 256, "RGBA": 256, "I;16": 65536}


@pytest.fixture(scope="module")
def identity():
    return enhancekit.load("identity")


@pytest.fixture(scope="module")
def brighten():
    return enhancekit.load("gamma", gamma=0.5)


@pytest.fixture(scope="module")
def double(enhancer_of):
    """Every pixel four times, so that what comes out is known to the bit."""

    def run(pictures, dtype, controls):
        return pictures.repeat_interleave(2, 2).repeat_interleave(2, 3)

    return enhancer_of(run, scale=2)


def repeated(array, rows=0):
    """Each pixel four times; `rows` is the axis of the height."""
    return array.repeat(2, axis=rows).repeat(2, axis=rows + 1)


def between(array, rows=0):
    """Twice the size by bilinear interpolation between the pixels' centres, edges repeated."""
    values = np.asarray(array, np.float64)
    for axis in (rows, rows + 1):
        values = np.moveaxis(values, axis, 0)
        before = np.concatenate((values[:1], values[:-1]))
        behind = np.concatenate((values[1:], values[-1:]))
        both = np.stack((values * 0.75 + before * 0.25, values * 0.75 + behind * 0.25), axis=1)
        values = np.moveaxis(both.reshape(-1, *values.shape[1:]), 0, axis)
    return values


def noise(shape, dtype, seed=0):
    """Random pixels over the whole range of a numpy dtype."""
    random = np.random.default_rng(seed)
    if dtype in WHOLE:
        return random.integers(0, WHOLE[dtype], shape, endpoint=True).astype(dtype)
    # 32 bits are what the pipeline computes in; one test below asks for 64
    return random.uniform(-0.1, 1.1, shape).astype(np.float32).astype(dtype)


def torch_noise(shape, dtype, seed=0):
    if dtype in (torch.uint8, torch.uint16):
        name = {torch.uint8: "uint8", torch.uint16: "uint16"}[dtype]
        return torch.from_numpy(noise(shape, name, seed))
    return torch.from_numpy(noise(shape, "float64", seed)).to(dtype)


def picture(mode, size=(7, 5), seed=0):
    """A PIL picture of random pixels."""
    random = np.random.default_rng(seed)
    width, height = size
    if mode == "F":
        return Image.fromarray(random.random((height, width), np.float32))
    channels = {"LA": (2,), "RGB": (3,), "RGBA": (4,)}.get(mode, ())
    dtype = np.uint16 if mode == "I;16" else np.uint8
    made = Image.fromarray(random.integers(0, LEVELS[mode], (height, width, *channels), dtype))
    assert made.mode == mode
    return made


def assert_same_array(result, wanted):
    assert type(result) is np.ndarray
    assert result.dtype == wanted.dtype
    assert result.shape == wanted.shape
    np.testing.assert_array_equal(result, wanted)


def assert_same_tensor(result, wanted):
    assert isinstance(result, torch.Tensor)
    assert result.dtype == wanted.dtype
    assert result.shape == wanted.shape
    assert result.device == wanted.device
    assert np.array_equal(result.double().numpy(), wanted.detach().double().numpy())


def assert_same_picture(result, wanted):
    assert isinstance(result, Image.Image)
    assert result.mode == wanted.mode
    assert result.size == wanted.size
    np.testing.assert_array_equal(np.asarray(result), np.asarray(wanted))


def closed(opened, enhanced):
    canvas = opened.canvas()
    canvas.write(slice(0, enhanced.shape[2]), slice(0, enhanced.shape[3]), enhanced)
    return canvas.close()


class TestIdentityKeepsEveryBit:
    @pytest.mark.parametrize("dtype", NUMPY_DTYPES)
    @pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
    @pytest.mark.parametrize("strength", [0.0, 1.0])
    def test_numpy(self, identity, dtype, channels, strength):
        given_array = noise((5, 7, *channels), dtype)
        before = given_array.copy()
        result = identity.enhance(given_array, strength=strength)
        assert_same_array(result, before)
        result += 1  # the result is the caller's own
        assert_same_array(given_array, before)

    @pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [(c, 5, 7) for c in (1, 3, 4)] + [(2, 3, 5, 7), (3, 4, 2, 1)])
    @pytest.mark.parametrize("strength", [0.0, 1.0])
    def test_torch(self, identity, dtype, shape, strength):
        given_tensor = torch_noise(shape, dtype)
        before = given_tensor.clone()
        result = identity.enhance(given_tensor, strength=strength)
        assert_same_tensor(result, before)
        result.zero_()
        assert_same_tensor(given_tensor, before)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("strength", [0.0, 1.0])
    def test_pil(self, identity, mode, strength):
        given_picture = picture(mode)
        before = given_picture.copy()
        result = identity.enhance(given_picture, strength=strength)
        assert result is not given_picture
        assert_same_picture(result, before)
        result.paste(0, (0, 0, *result.size))
        assert_same_picture(given_picture, before)

    @pytest.mark.parametrize("levels", [256, 65536])
    def test_every_level_of_whole_numbers(self, identity, levels):
        dtype = np.uint8 if levels == 256 else np.uint16
        every = np.arange(levels, dtype=dtype).reshape(16, -1)
        assert_same_array(identity.enhance(every), every)

    @pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
    def test_64_bits(self, identity, shape):
        array = np.random.default_rng(0).random(shape)
        assert_same_array(identity.enhance(array), array)
        tensor = torch.from_numpy(array.reshape(*shape[:2], -1)).permute(2, 0, 1)
        assert_same_tensor(identity.enhance(tensor), tensor)

    @settings(deadline=None, max_examples=40)
    @given(
        height=st.integers(1, 9),
        width=st.integers(1, 9),
        channels=st.sampled_from([(), (1,), (3,), (4,)]),
        dtype=st.sampled_from(NUMPY_DTYPES),
        seed=st.integers(0, 99),
    )
    def test_any_numpy_size(self, height, width, channels, dtype, seed):
        array = noise((height, width, *channels), dtype, seed)
        assert_same_array(enhancekit.load("identity").enhance(array), array)

    @settings(deadline=None, max_examples=40)
    @given(
        size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        channels=st.sampled_from([1, 3, 4]),
        batch=st.sampled_from([None, 1, 2]),
        dtype=st.sampled_from(TORCH_DTYPES),
    )
    def test_any_torch_size(self, size, channels, batch, dtype):
        shape = (channels, *size) if batch is None else (batch, channels, *size)
        tensor = torch_noise(shape, dtype)
        assert_same_tensor(enhancekit.load("identity").enhance(tensor), tensor)


class TestFiles:
    @pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
    @pytest.mark.parametrize("kind", ["str", "path", "bytes", "file", "buffer"])
    def test_path_and_bytes_give_a_picture(self, identity, tmp_path, mode, kind):
        path = tmp_path / "a.png"
        original = picture(mode)
        original.save(path)
        before = path.read_bytes()
        given_file = {
            "str": str(path),
            "path": path,
            "bytes": before,
            "file": io.BufferedReader(io.BytesIO(before)),
            "buffer": io.BytesIO(before),
        }[kind]
        assert_same_picture(identity.enhance(given_file), original)
        assert path.read_bytes() == before

    def test_a_file_of_text(self, identity):
        with pytest.raises(ImageError, match=r"gives str; open the file with mode 'rb'"):
            identity.enhance(io.StringIO("a.png"))

    @pytest.mark.parametrize("strength", [0.0, 1.0])
    def test_format_is_remembered(self, identity, strength):
        buffer = io.BytesIO()
        picture("RGB").save(buffer, "WEBP", lossless=True)
        assert identity.enhance(buffer.getvalue(), strength=strength).format == "WEBP"


class TestPilModes:
    @pytest.mark.parametrize("strength", [0.0, 1.0])
    def test_palette_becomes_rgb(self, identity, strength):
        palette = picture("RGB", (9, 8)).quantize(16)
        assert palette.mode == "P"
        result = identity.enhance(palette, strength=strength)
        assert_same_picture(result, palette.convert("RGB"))
        assert palette.mode == "P"

    @pytest.mark.parametrize("key", [3, bytes(range(0, 160, 10))], ids=["one", "table"])
    def test_transparent_palette_becomes_rgba(self, identity, key):
        palette = picture("RGB", (9, 8)).quantize(16)
        palette.info["transparency"] = key
        result = identity.enhance(palette)
        assert_same_picture(result, palette.convert("RGBA"))
        assert np.asarray(result)[..., 3].min() < 255

    def test_palette_with_alpha_becomes_rgba(self, identity):
        palette = picture("LA").convert("PA")
        assert_same_picture(identity.enhance(palette), palette.convert("RGBA"))

    def test_bilevel_becomes_grey(self, identity):
        bilevel = Image.fromarray(np.eye(6, 9) > 0)
        assert bilevel.mode == "1"
        result = identity.enhance(bilevel)
        assert_same_picture(result, bilevel.convert("L"))
        assert set(np.unique(np.asarray(result))) == {0, 255}

    @pytest.mark.parametrize(("mode", "key"), [("L", 9), ("RGB", (1, 2, 3))])
    def test_transparent_colour_becomes_alpha(self, identity, mode, key):
        keyed = Image.new(mode, (4, 3), key)
        keyed.putpixel((1, 1), 200 if mode == "L" else (200, 100, 50))
        keyed.info["transparency"] = key
        result = identity.enhance(keyed)
        assert result.mode == ("LA" if mode == "L" else "RGBA")
        alpha = np.asarray(result)[..., -1]
        assert alpha[1, 1] == 255
        assert alpha.sum() == 255

    def test_big_endian_deep_grey(self, identity):
        pixels = noise((5, 7), "uint16")
        deep = Image.frombytes("I;16B", (7, 5), pixels.astype(">u2").tobytes())
        np.testing.assert_array_equal(np.asarray(identity.enhance(deep)), pixels)

    @pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB", "RGBX", "La", "RGBa"])
    def test_others_are_refused_by_name(self, identity, mode):
        with pytest.raises(ImageError, match=rf"mode {mode} .*convert"):
            identity.enhance(Image.new(mode, (4, 3)))

    def test_deep_grey_with_a_transparent_colour_is_refused(self, identity):
        deep = picture("I;16")
        deep.info["transparency"] = 7
        with pytest.raises(ImageError, match="I;16 with a transparent colour"):
            identity.enhance(deep)

    def test_a_picture_that_cannot_be_decoded(self, identity):
        buffer = io.BytesIO()
        picture("RGB", (64, 64)).save(buffer, "JPEG")
        with (
            Image.open(io.BytesIO(buffer.getvalue()[:700])) as lazy,
            pytest.raises(ImageError, match="cannot be decoded"),
        ):
            identity.enhance(lazy)

    def test_orientation_of_a_pil_picture_is_applied(self, identity):
        buffer = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        picture("RGB", (7, 5)).save(buffer, "PNG", exif=exif)
        with Image.open(buffer) as lazy:
            result = identity.enhance(lazy)
        assert_same_picture(result, picture("RGB", (7, 5)).transpose(Image.Transpose.ROTATE_270))
        assert result.getexif()[0x0112] == 1


class TestAlphaAndGrey:
    @pytest.mark.parametrize("dtype", NUMPY_DTYPES)
    def test_numpy_alpha_is_untouched(self, brighten, dtype):
        array = noise((5, 7, 4), dtype)
        result = brighten.enhance(array)
        assert result.dtype == array.dtype
        np.testing.assert_array_equal(result[..., 3], array[..., 3])
        assert (result[..., :3] != array[..., :3]).mean() > 0.9

    @pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [(4, 5, 7), (2, 4, 5, 7)])
    def test_torch_alpha_is_untouched(self, brighten, dtype, shape):
        tensor = torch_noise(shape, dtype)
        result = brighten.enhance(tensor)
        assert_same_tensor(result[..., 3:, :, :], tensor[..., 3:, :, :])
        assert (result[..., :3, :, :].double() != tensor[..., :3, :, :].double()).any()

    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_pil_alpha_is_untouched(self, brighten, mode):
        given_picture = picture(mode)
        result = brighten.enhance(given_picture)
        assert result.mode == mode
        before, after = np.asarray(given_picture), np.asarray(result)
        np.testing.assert_array_equal(after[..., -1], before[..., -1])
        assert (after[..., :-1] > before[..., :-1]).mean() > 0.9

    @pytest.mark.parametrize("mode", ["L", "I;16", "F"])
    def test_grey_pil_stays_grey(self, brighten, mode):
        result = brighten.enhance(picture(mode))
        assert result.mode == mode
        full = {"L": 255, "I;16": 65535, "F": 1.0}[mode]
        wanted = (np.asarray(picture(mode)).astype(np.float64) / full) ** 0.5 * full
        step = 1e-6 if mode == "F" else 0.51
        np.testing.assert_allclose(np.asarray(result, np.float64), wanted, atol=step)

    @pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
    def test_grey_numpy_is_brightened_in_its_own_layout(self, brighten, shape):
        array = noise(shape, "uint8")
        result = brighten.enhance(array)
        assert result.shape == shape
        np.testing.assert_allclose(result, np.sqrt(array / 255) * 255, atol=0.51)

    def test_grey_torch_is_brightened_in_its_own_layout(self, brighten):
        tensor = torch.rand(2, 1, 5, 7)
        torch.testing.assert_close(brighten.enhance(tensor), tensor.sqrt())

    def test_grey_is_luma_of_a_coloured_result(self):
        opened = open_image(np.zeros((1, 1), np.float32))
        for channel, weight in enumerate((0.299, 0.587, 0.114)):
            pure = torch.zeros(1, 3, 1, 1)
            pure[:, channel] = 1
            assert closed(opened, pure)[0, 0] == pytest.approx(weight, abs=1e-6)


class TestEnlarged:
    @pytest.mark.parametrize("dtype", NUMPY_DTYPES)
    @pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (1, 1, 3), (2, 1)], ids=str)
    def test_numpy(self, double, dtype, shape):
        array = noise(shape, dtype)
        before = array.copy()
        assert_same_array(double.enhance(array), repeated(before))
        assert_same_array(array, before)

    @pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [(1, 5, 7), (3, 5, 7), (2, 3, 5, 7), (3, 1, 2, 1)], ids=str)
    def test_torch(self, double, dtype, shape):
        tensor = torch_noise(shape, dtype)
        wanted = repeated(tensor.double().numpy(), rows=-2 + len(shape))
        result = double.enhance(tensor)
        assert_same_tensor(result, torch.from_numpy(wanted).to(dtype))
        assert result.is_contiguous()

    @pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F"])
    def test_pil(self, double, mode):
        result = double.enhance(picture(mode))
        assert result.mode == mode
        assert result.size == (14, 10)
        np.testing.assert_array_equal(np.asarray(result), repeated(np.asarray(picture(mode))))

    @pytest.mark.parametrize("dtype", NUMPY_DTYPES)
    @pytest.mark.parametrize("size", [(5, 7), (1, 4), (1, 1)], ids=str)
    def test_numpy_alpha_is_interpolated(self, double, dtype, size):
        array = noise((*size, 4), dtype)
        result = double.enhance(array)
        assert result.dtype == array.dtype
        np.testing.assert_array_equal(result[..., :3], repeated(array[..., :3]))
        wanted = between(array[..., 3])
        if dtype in WHOLE:
            np.testing.assert_array_equal(result[..., 3], wanted.round())
        else:
            atol = 1e-3 if dtype == "float16" else 1e-6
            np.testing.assert_allclose(result[..., 3], wanted, rtol=0, atol=atol)

    @pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [(4, 5, 7), (2, 4, 5, 7), (1, 4, 1, 1)], ids=str)
    def test_torch_alpha_is_interpolated(self, double, dtype, shape):
        tensor = torch_noise(shape, dtype)
        given_array = tensor.double().numpy()
        result = double.enhance(tensor)
        assert result.dtype == dtype
        assert result.shape == (*shape[:-2], 2 * shape[-2], 2 * shape[-1])
        found, rows = result.double().numpy(), len(shape) - 2
        np.testing.assert_array_equal(
            found[..., :3, :, :], repeated(given_array[..., :3, :, :], rows)
        )
        wanted = between(given_array[..., 3:, :, :], rows)
        if dtype in (torch.uint8, torch.uint16):
            np.testing.assert_array_equal(found[..., 3:, :, :], wanted.round())
        else:
            atol = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-6)
            np.testing.assert_allclose(found[..., 3:, :, :], wanted, rtol=0, atol=atol)

    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_pil_alpha_is_interpolated(self, double, mode):
        before = np.asarray(picture(mode))
        result = double.enhance(picture(mode))
        assert result.mode == mode
        after = np.asarray(result)
        np.testing.assert_array_equal(after[..., :-1], repeated(before[..., :-1]))
        np.testing.assert_array_equal(after[..., -1], between(before[..., -1]).round())

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    @pytest.mark.parametrize("value", [0, 1])
    def test_a_flat_alpha_stays_flat(self, double, dtype, value):
        array = noise((6, 5, 4), dtype)
        array[..., 3] = WHOLE[dtype] * value
        assert (double.enhance(array)[..., 3] == WHOLE[dtype] * value).all()

    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_alpha_in_parts_is_that_of_the_whole(self, double, dtype):
        array = noise((23, 31, 4), dtype)
        opened = open_image(array)
        canvas = opened.canvas(2)
        for rows in (slice(0, 10), slice(10, 32), slice(32, 46)):
            for columns in (slice(0, 2), slice(2, 44), slice(44, 62)):
                size = rows.stop - rows.start, columns.stop - columns.start
                canvas.write(rows, columns, torch.zeros(1, 3, *size))
        wanted = between(array[..., 3])
        found = canvas.close()[..., 3]
        wanted = wanted.round() if dtype == "uint8" else wanted
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)

    def test_a_transparent_palette(self, double):
        palette = picture("RGB", (9, 8)).quantize(16)
        palette.info["transparency"] = 3
        result = double.enhance(palette)
        assert (result.mode, result.size) == ("RGBA", (18, 16))

    def test_files_keep_format_profile_and_resolution(self, double, tmp_path):
        path = tmp_path / "a.png"
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        picture("RGBA").save(path, icc_profile=profile, dpi=(300, 300))
        result = double.enhance(path)
        assert (result.size, result.format) == ((14, 10), "PNG")
        assert result.info["icc_profile"] == profile
        assert result.info["dpi"] == pytest.approx((300, 300), abs=0.1)

    def test_spline_x2_takes_every_kind(self):
        spline = enhancekit.load("spline-x2")
        for mode in MODES:
            result = spline.enhance(picture(mode))
            assert (result.mode, result.size) == (mode, (14, 10))
        batch = spline.enhance(torch_noise((2, 4, 5, 7), torch.uint8))
        assert (batch.dtype, tuple(batch.shape)) == (torch.uint8, (2, 4, 10, 14))


class TestStrength:
    @pytest.mark.parametrize("name", ["gamma", "clahe", "equalize", "identity"])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float64"])
    def test_zero_is_the_picture_itself(self, name, dtype):
        array = noise((24, 20, 4), dtype)
        assert_same_array(enhancekit.load(name).enhance(array, strength=0), array)

    def test_zero_is_the_picture_itself_for_a_network(self):
        network = enhancekit.load("mfnn-lite", pretrained=False, width=4, counts=(1, 1))
        array = noise((9, 7, 3), "float64")
        assert_same_array(network.enhance(array, strength=0.0), array)

    @pytest.mark.parametrize("strength", [0.25, 0.5, 0.75])
    def test_between(self, brighten, strength):
        array = np.random.default_rng(1).random((5, 7, 3), np.float32)
        wanted = (1 - strength) * array + strength * np.sqrt(array)
        np.testing.assert_allclose(brighten.enhance(array, strength=strength), wanted, atol=1e-6)

    def test_half_in_whole_numbers(self, brighten):
        array = np.arange(256, dtype=np.uint8).reshape(16, 16)
        wanted = (array + np.sqrt(array / 255) * 255) / 2
        np.testing.assert_allclose(brighten.enhance(array, strength=0.5), wanted, atol=0.501)


class TestRange:
    @pytest.mark.parametrize("value", [-1.0, -0.05, 1.05, 2.0])
    def test_a_little_outside_is_accepted_as_it_is(self, identity, value):
        array = np.full((3, 4, 3), 0.5, np.float32)
        array[1, 2, 0] = value
        assert_same_array(identity.enhance(array), array)
        tensor = torch.from_numpy(array).permute(2, 0, 1)
        assert_same_tensor(identity.enhance(tensor), tensor)

    @pytest.mark.parametrize("value", [-1.5, 2.5, 255.0, 65535.0])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_far_outside_is_refused_with_the_hint(self, identity, value, dtype):
        array = np.full((3, 4, 3), 0.5, dtype)
        array[1, 2, 0] = value
        for image in (array, torch.from_numpy(array).permute(2, 0, 1)):
            with pytest.raises(ImageError, match=r"looks like 0\.\.255.*divide") as caught:
                identity.enhance(image)
            assert f"{value:g}" in str(caught.value)

    def test_a_sparse_tensor_is_refused(self, identity):
        with pytest.raises(ImageError, match=r"torch.sparse_coo is not supported; use to_dense"):
            identity.enhance(torch.zeros(3, 4, 4).to_sparse())

    def test_the_hint_also_comes_at_strength_zero(self, identity):
        with pytest.raises(ImageError, match=r"0\.\.255"):
            identity.enhance(np.full((2, 2), 255.0), strength=0)

    @pytest.mark.parametrize("value", [1e300, -1e300])
    def test_beyond_32_bits_is_refused_too(self, identity, value):
        with pytest.raises(ImageError, match=r"0\.\.255|infinity"):
            identity.enhance(np.full((2, 2), value))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("kind", ["numpy", "torch", "pil"])
    def test_not_finite_is_refused(self, identity, value, kind):
        array = np.full((3, 4), 0.5, np.float32)
        array[1, 2] = value
        image = {
            "numpy": array,
            "torch": torch.from_numpy(array)[None],
            "pil": Image.fromarray(array),
        }[kind]
        with pytest.raises(ImageError, match="NaN or infinity"):
            identity.enhance(image)

    def test_whole_numbers_are_rounded_and_limited(self):
        opened = open_image(np.zeros((1, 4, 3), np.uint8))
        values = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 1.5]).expand(1, 3, 1, 4)
        assert closed(opened, values)[0, :, 0].tolist() == [0, 0, 1, 255]


class TestRefused:
    @pytest.mark.parametrize("shape", [(0, 5), (5, 0, 3), (0, 0, 4)])
    def test_empty_numpy(self, identity, shape):
        with pytest.raises(ImageError, match="no pixels"):
            identity.enhance(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize("shape", [(3, 0, 5), (0, 3, 5, 5), (1, 4, 0)])
    def test_empty_torch(self, identity, shape):
        with pytest.raises(ImageError, match="no pixels"):
            identity.enhance(torch.zeros(shape))

    @pytest.mark.parametrize("shape", [(), (5,), (5, 6, 5), (2, 5, 6, 3), (5, 6, 0)])
    def test_numpy_of_another_shape(self, identity, shape):
        with pytest.raises(ImageError, match="supported are") as caught:
            identity.enhance(np.zeros(shape, np.float32))
        assert str(shape) in str(caught.value)

    def test_numpy_of_two_channels(self, identity):
        with pytest.raises(ImageError, match="supported are"):
            identity.enhance(np.zeros((5, 6, 2), np.uint8))

    @pytest.mark.parametrize("shape", [(), (5,), (5, 6), (2, 5, 6), (1, 1, 3, 5, 6)])
    def test_torch_of_another_shape(self, identity, shape):
        with pytest.raises(ImageError, match="supported are") as caught:
            identity.enhance(torch.zeros(shape))
        assert str(shape) in str(caught.value)

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_channels_first_in_numpy(self, identity, channels):
        with pytest.raises(ImageError, match="channels come last in numpy"):
            identity.enhance(np.zeros((channels, 20, 30), np.uint8))

    @pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30, 4), (20, 30, 1), (2, 20, 30, 3)])
    def test_channels_last_in_torch(self, identity, shape):
        with pytest.raises(ImageError, match="channels come first in torch"):
            identity.enhance(torch.zeros(shape))

    @pytest.mark.parametrize("dtype", ["int32", "int8", "bool", "uint32", "complex64", "O"])
    def test_numpy_of_another_dtype(self, identity, dtype):
        with pytest.raises(ImageError, match=r"not supported.*uint8, uint16 or float") as caught:
            identity.enhance(np.zeros((4, 5, 3), dtype))
        assert str(np.dtype(dtype)) in str(caught.value)

    @pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.int64, torch.complex64])
    def test_torch_of_another_dtype(self, identity, dtype):
        with pytest.raises(ImageError, match=r"not supported.*uint8, uint16 or float") as caught:
            identity.enhance(torch.zeros(3, 4, 5, dtype=dtype))
        assert str(dtype) in str(caught.value)

    @pytest.mark.parametrize("thing", [None, 5, [[0.25]], object(), bytearray(b"abc"), {}])
    def test_no_picture_at_all(self, identity, thing):
        with pytest.raises(ImageError, match=f"a {type(thing).__name__} is no picture.*a path"):
            identity.enhance(thing)


class TestNotWhatTheySeem:
    @pytest.mark.parametrize(
        ("mode", "said"),
        [
            ("I", "its range is not known; give a numpy array of uint16"),
            ("La", r"image.convert\('LA'\)"),
            ("RGBa", r"image.convert\('RGBA'\)"),
            ("LAB", r"image.convert\('RGB'\)"),
        ],
    )
    def test_the_advice_loses_nothing(self, identity, mode, said):
        with pytest.raises(ImageError, match=said):
            identity.enhance(Image.new(mode, (4, 3)))

    def test_a_palette_with_alpha(self, identity):
        clear = Image.new("RGBA", (4, 3), (200, 100, 50, 128)).quantize(4)
        assert (clear.mode, "transparency" in clear.info) == ("P", False)
        result = identity.enhance(clear)
        assert (result.mode, result.getpixel((0, 0))) == (
            "RGBA",
            clear.convert("RGBA").getpixel((0, 0)),
        )

    def test_masked_arrays(self, identity):
        with pytest.raises(ImageError, match="masked array is no picture; fill it first"):
            identity.enhance(np.ma.masked_less(np.ones((2, 2, 3), np.float32), 0.5))

    def test_tensors_without_values(self, identity):
        with pytest.raises(ImageError, match="on the device meta has no pixels"):
            identity.enhance(torch.rand(3, 4, 4, device="meta"))


class TestMemoryLayouts:
    def test_negative_strides(self, brighten):
        array = noise((6, 8, 3), "uint8")
        assert_same_array(
            brighten.enhance(array[::-1, ::-1, ::-1]), brighten.enhance(array)[::-1, ::-1, ::-1]
        )

    def test_strided_numpy(self, brighten):
        array = noise((12, 16, 3), "uint16")
        assert_same_array(brighten.enhance(array[::2, 1::3]), brighten.enhance(array)[::2, 1::3])

    @pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3), (6, 8, 4)])
    def test_fortran_order(self, identity, shape):
        array = np.asfortranarray(noise(shape, "float32"))
        assert_same_array(identity.enhance(array), np.ascontiguousarray(array))

    def test_read_only(self, brighten):
        array = noise((6, 8, 4), "uint8")
        wanted = brighten.enhance(array)
        array.flags.writeable = False
        result = brighten.enhance(array)
        assert_same_array(result, wanted)
        assert result.flags.writeable

    def test_broadcast_numpy(self, identity):
        array = np.broadcast_to(np.float32(0.5), (4, 5, 3))
        assert_same_array(identity.enhance(array), array.copy())

    def test_strided_torch(self, brighten):
        tensor = torch.rand(3, 12, 16)
        assert_same_tensor(
            brighten.enhance(tensor[:, ::2, 1::3]), brighten.enhance(tensor)[:, ::2, 1::3]
        )

    def test_permuted_torch(self, identity):
        tensor = torch.rand(6, 8, 3).permute(2, 0, 1)
        assert_same_tensor(identity.enhance(tensor), tensor)

    def test_expanded_torch(self, identity):
        tensor = torch.tensor(0.5).expand(3, 4, 5)
        assert_same_tensor(identity.enhance(tensor), tensor)

    def test_channels_last_torch(self, identity):
        tensor = torch.rand(2, 3, 6, 8).contiguous(memory_format=torch.channels_last)
        assert_same_tensor(identity.enhance(tensor), tensor)

    @pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
    def test_requiring_grad(self, brighten, strength):
        tensor = torch.rand(3, 4, 5)
        wanted = brighten.enhance(tensor, strength=strength)
        tensor.requires_grad_()
        result = brighten.enhance(tensor, strength=strength)
        assert_same_tensor(result, wanted)
        assert not result.requires_grad
        assert tensor.requires_grad
        assert tensor.grad is None

    def test_a_batch_is_enhanced_picture_by_picture(self):
        equalize = enhancekit.load("equalize")
        batch = torch.rand(3, 3, 12, 10) * torch.tensor([0.2, 0.5, 1.0]).view(3, 1, 1, 1)
        single = torch.stack([equalize.enhance(one) for one in batch])
        assert_same_tensor(equalize.enhance(batch), single)
