"""The torch kernel against the definition, on every device there is, and that it never makes a device wait."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmark.data import kernels_torch, keys, randaugment
from benchmark.data import kernels_torch_color as color
from benchmark.data import views as column
from benchmark.data.by_torchvision import apply_row, normal
from benchmark.data.views import Program, parameters, patch_program, program
from methods.views import RECIPES, ViewConfig, composition

COUNT = 48
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
TOLERANCE = 1e-5  # float32 against float32 on values in [0, 1]; a grey level is 4e-3
# What jumps at a threshold turns rounding of the last bit into another value: a pixel that lies on the threshold itself, or
# a histogram that a pixel on the edge of a grey level shifts by one. So few pixels may differ.
JUMPS = {"solarize", "randaugment", "posterize", "solarize add", "randaugment solarize", "equalize"}
FEW = 1e-3
SOME = 80

PLAIN = ViewConfig(flip_prob=0)
OPERATIONS = {
    "crop": PLAIN,
    "bicubic crop": replace(PLAIN, interpolation="bicubic"),
    "crop and flip": ViewConfig(flip_prob=0.5),
    "bicubic crop and flip": ViewConfig(flip_prob=0.5, interpolation="bicubic"),
    "flip later": ViewConfig(flip_prob=0.5, grayscale_prob=0.5, order=("crop", "grayscale", "flip")),
    "no crop": ViewConfig(flip_prob=0.5, order=("flip",)),
    "second crop": composition("rotate", "crop")[0],
    "shared crop": composition("crop", "crop")[1],
    "right angles": replace(PLAIN, rotate_prob=1),
    "rotation": replace(PLAIN, rotate_prob=0.8, rotate_degrees=180),
    "brightness": replace(PLAIN, jitter_prob=1, brightness=0.8),
    "contrast": replace(PLAIN, jitter_prob=1, contrast=0.8),
    "saturation": replace(PLAIN, jitter_prob=1, saturation=0.8),
    "hue": replace(PLAIN, jitter_prob=1, hue=0.5),
    "jitter": replace(PLAIN, jitter_prob=0.9, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
    "grayscale": replace(PLAIN, grayscale_prob=0.5),
    "blur": replace(PLAIN, blur_prob=0.7),
    "wide blur": replace(PLAIN, blur_prob=1, blur_kernel=1.5),
    "Pillow's blur": replace(PLAIN, blur_prob=1, blur_kernel=0),
    "solarize": replace(PLAIN, solarize_prob=0.5),
    "sobel": replace(PLAIN, sobel_prob=0.5),
    "cutout": replace(PLAIN, cutout_prob=0.7),
    "noise": replace(PLAIN, noise_prob=0.7),
    "randaugment": replace(PLAIN, randaugment_n=4),
    "lab": replace(PLAIN, channels="lab"),
    "gradients": replace(PLAIN, channels="sobel"),
}
RANDAUGMENT = {
    "autocontrast": (randaugment.AUTOCONTRAST, 0),
    "equalize": (randaugment.EQUALIZE, 0),
    "invert": (randaugment.INVERT, 0),
    "rotate": (randaugment.ROTATE, 27.3),
    "rotate by a right angle": (randaugment.ROTATE, -90),
    "posterize": (randaugment.POSTERIZE, 3),
    "posterize to nothing": (randaugment.POSTERIZE, 0),
    "randaugment solarize": (randaugment.SOLARIZE, 100 / 255),
    "solarize nothing": (randaugment.SOLARIZE, 256 / 255),
    "solarize add": (randaugment.SOLARIZE_ADD, 110 / 255),
    "saturation": (randaugment.SATURATION, 1.7),
    "contrast": (randaugment.CONTRAST, 0.2),
    "brightness": (randaugment.BRIGHTNESS, 1.9),
    "sharpness": (randaugment.SHARPNESS, 1.8),
    "shear x": (randaugment.SHEAR_X, 0.27),
    "shear y": (randaugment.SHEAR_Y, -0.3),
    "translate x": (randaugment.TRANSLATE_X, -0.41),
    "translate y": (randaugment.TRANSLATE_Y, 0.45),
}


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return torch.device(request.param)


def images(height, width=None, count=COUNT):
    """Noise, smooth gradients and exact greys (where hue is undefined): u1 (count, height, width, 3)."""
    width = width or height
    generator = np.random.default_rng(height)
    out = generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    down, across = np.linspace(0, 255, height), np.linspace(0, 255, width)
    out[::4] = (down[:, None, None] * [0.2, 0.5, 1.0] + across[None, :, None] * [0.8, 0.5, 0.0]).astype(np.uint8)
    out[1::4] = out[1::4, :, :, :1]
    return out


def table_of(cfg, pixels, size, seed=1):
    heights, widths = (np.array([image.shape[axis] for image in pixels]) for axis in (0, 1))
    return parameters(seed, 2, np.arange(len(pixels)), 0, cfg, heights, widths, size)


def defined(pixels, table, made, mean=ZERO, std=ONE):
    return torch.stack([apply_row(image, row, made, mean, std) for image, row in zip(pixels, table, strict=True)])


def check(found, expected, name=""):
    assert found.shape == expected.shape and found.dtype == torch.float32
    difference = (found.cpu() - expected).abs()
    if name in JUMPS:
        assert (difference > TOLERANCE).float().mean() < FEW
    else:
        assert difference.max() <= TOLERANCE


@pytest.mark.parametrize(("stored", "size"), [((32, 32), 32), ((48, 40), 32), ((20, 20), 33), ((100, 70), 48)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_the_definitions(name, stored, size, device):
    cfg, pixels = OPERATIONS[name], images(*stored)
    table, made = table_of(cfg, pixels, size), program(cfg, size)
    found = kernels_torch.apply(torch.from_numpy(pixels).to(device), table, made, ZERO, ONE)
    assert found.device.type == device.type
    check(found, defined(pixels, table, made), name)


@pytest.mark.parametrize("name", RANDAUGMENT)
def test_each_operation_of_randaugment_is_the_definitions(name, device):
    pixels, cfg = images(40), replace(PLAIN, randaugment_n=1)
    table, made = table_of(cfg, pixels, 32), program(cfg, 32)
    table[:, column.RANDAUGMENT : column.RANDAUGMENT + 2] = RANDAUGMENT[name]
    found = kernels_torch.apply(torch.from_numpy(pixels).to(device), table, made, MEAN, ONE)
    check(found, defined(pixels, table, made, MEAN, ONE), name)


@pytest.mark.parametrize("name", ["crop", "bicubic crop and flip", "shared crop"])
def test_matrices_and_torchs_interpolation_mean_the_same(name, device, monkeypatch):
    """Large images take the one or the other, according to the device."""
    cfg, pixels = OPERATIONS[name], images(120)
    table, made = table_of(cfg, pixels, 56), program(cfg, 56)
    for limit in (0, 1000):
        monkeypatch.setitem(kernels_torch._MATRICES_UP_TO, device.type, limit)
        check(kernels_torch.apply(torch.from_numpy(pixels).to(device), table, made, ZERO, ONE), defined(pixels, table, made))


def views_of_recipes():
    return [(name, number) for name, recipe in RECIPES.items() for number, cfg in enumerate(recipe) if not cfg.patch_grid]


@pytest.mark.parametrize(("recipe", "view"), views_of_recipes())
def test_the_whole_chain_is_the_definitions(recipe, view, device):
    cfg, pixels = RECIPES[recipe][view], images(36)
    table, made = table_of(cfg, pixels, 32, seed=view), program(cfg, 32)
    found = kernels_torch.apply(torch.from_numpy(pixels).to(device), table, made, MEAN, STD)
    expected = defined(pixels, table, made, MEAN, STD)
    jumps = "randaugment" if cfg.randaugment_n or cfg.solarize_prob else ""
    check(found * min(STD), expected * min(STD), jumps)  # in units of pixels


def test_photographs_of_many_sizes(device):
    cfg, sizes = RECIPES["simclr"][0], [(50, 70), (31, 32), (90, 64), (32, 32), (41, 33)]
    pixels = [images(*size, count=3)[i % 3] for i, size in enumerate(sizes * 3)]
    table, made = table_of(cfg, pixels, 32), program(cfg, 32)
    sent = [torch.from_numpy(image).to(device) for image in pixels]
    check(kernels_torch.apply(sent, table, made, ZERO, ONE), defined(pixels, table, made))


def test_patches_are_changed_in_place_of_nothing_read(device):
    """A program without a crop starts from float images, and leaves the caller's as they are."""
    cfg = replace(RECIPES["cpcv2"][0], patch_order=("jitter", "grayscale", "flip", "blur"), blur_prob=0.5, patch_size=24)
    made, size = patch_program(cfg), 24
    patches = torch.from_numpy(images(size)).permute(0, 3, 1, 2) / 255
    table = parameters(0, 0, np.arange(COUNT), 0, replace(cfg, order=cfg.patch_order), size, size, size)
    given = patches.to(device)
    found = kernels_torch.apply(given, table, made, MEAN, ONE)
    check(found, defined(patches, table, made, MEAN, ONE))
    assert torch.equal(given.cpu(), patches)


def test_whole_image_is_exact(device):
    pixels = images(32)
    made = program(RECIPES["identity"][0], 32)
    found = kernels_torch.apply(torch.from_numpy(pixels).to(device), column.centre(*np.full((2, COUNT), 32)), made, ZERO, ONE)
    np.testing.assert_allclose(found.cpu(), pixels.transpose(0, 3, 1, 2) / np.float32(255), rtol=0, atol=6e-8)


@pytest.mark.parametrize("at_once", [1, 5, 47])
def test_samples_do_not_depend_on_how_many_are_worked_on(at_once, device, monkeypatch):
    cfg, pixels = RECIPES["infomin"][0], torch.from_numpy(images(32)).to(device)
    table, made = table_of(cfg, pixels, 32), program(cfg, 32)
    together = kernels_torch.apply(pixels, table, made, ZERO, ONE)
    monkeypatch.setitem(kernels_torch._CHUNK_BYTES, device.type, at_once * 12 * 32 * 32)
    check(kernels_torch.apply(pixels, table, made, ZERO, ONE), together.cpu(), "randaugment")


def test_no_samples_and_too_few():
    cfg = RECIPES["deepcluster"][0]
    made, nothing = program(cfg, 8), torch.empty((0, 16, 16, 3), dtype=torch.uint8)
    table = np.empty((0, column.COLUMNS), np.float32)
    assert kernels_torch.apply(nothing, table, made, ZERO, ONE).shape == (0, 2, 8, 8)
    assert kernels_torch.apply([], table, made, ZERO, ONE).shape == (0, 2, 8, 8)
    with pytest.raises(ValueError, match="0 images do not go with a table of 1 rows"):
        kernels_torch.apply(nothing, np.zeros((1, column.COLUMNS), np.float32), made, ZERO, ONE)


def test_random_bits_are_those_of_keys(device):
    numbers = np.random.default_rng(0).integers(0, 1 << 64, 10_000, dtype=np.uint64)
    numbers[:4] = [0, 1, 1 << 63, (1 << 64) - 1]
    found = color.mix(torch.from_numpy(numbers.view(np.int64)).to(device))
    assert np.array_equal(found.cpu().numpy().view(np.uint64), keys.mix_array(numbers.copy()))
    parts = np.random.default_rng(1).integers(0, 1 << 24, (50, 2))
    first, second = torch.from_numpy(parts).to(device).unbind(1)
    found = color.stream(keys.stream(keys.NOISE), first, second).cpu().numpy().view(np.uint64)
    assert found.tolist() == [keys.stream(keys.NOISE, *pair) for pair in parts.tolist()]


def test_noise_is_the_definitions(device):
    cfg = replace(PLAIN, noise_prob=1, noise_std=(1, 1))
    row = parameters(0, 0, np.arange(1), 0, cfg, 64, 64, 64)
    sent = torch.from_numpy(row[:, [column.NOISE, column.NOISE_KEY, column.NOISE_KEY + 1]]).to(device)
    sent[:, 0] = 0.01
    found = (color.noisy(torch.full((1, 3, 64, 64), 0.5, device=device), sent) - 0.5) * 100
    expected = normal(row[0], (3, 64, 64))
    inside = expected.abs() < 49  # the rest is cut off; there is none
    assert inside.all() and (found[0].cpu() - expected).abs().max() < 1e-5
    assert abs(float(found.mean())) < 0.03 and abs(float(found.std()) - 1) < 0.03


def test_random_numbers_of_the_training_are_left_alone(device):
    cfg, pixels = OPERATIONS["noise"], torch.from_numpy(images(16)).to(device)
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
    kernels_torch.apply(pixels, table_of(cfg, pixels, 16), program(cfg, 16), MEAN, STD)
    after = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
    assert all(torch.equal(*pair) for pair in zip(states, after, strict=True))


def test_reduced_precision_of_the_training_is_not_for_images(device):
    cfg, pixels = replace(RECIPES["simclr"][0], rotate_prob=1, rotate_degrees=45), torch.from_numpy(images(36)).to(device)
    table, made = table_of(cfg, pixels, 32), program(cfg, 32)
    expected = kernels_torch.apply(pixels, table, made, MEAN, STD)
    torch.set_float32_matmul_precision("medium")
    try:
        before = torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision
        with torch.autocast(device.type, torch.bfloat16), ThreadPoolExecutor(3) as threads:
            runs = [threads.submit(kernels_torch.apply, pixels, table, made, MEAN, STD) for _ in range(6)]
            assert torch.equal(kernels_torch.apply(pixels, table, made, MEAN, STD), expected)
            assert all(torch.equal(run.result(), expected) for run in runs)
        with pytest.raises(IndexError):
            kernels_torch.apply(pixels, table[:, :3], made, MEAN, STD)
        assert (torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision) == before
        assert torch.get_float32_matmul_precision() == "medium" and torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def everything():
    """Views in which every operation happens to somebody, and which start in either way."""
    cfg = ViewConfig(
        jitter_prob=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale_prob=0.3, blur_prob=0.5,
        solarize_prob=0.3, rotate_prob=0.5, rotate_degrees=30, sobel_prob=0.3, cutout_prob=0.5, noise_prob=0.5, randaugment_n=4,
    )  # fmt: skip
    yield cfg
    yield replace(cfg, rotate_degrees=0, interpolation="bicubic", channels="lab")
    yield replace(cfg, shared_crop=True, channels="sobel")


def sent_to(device, kind):
    if kind == "photographs":
        return [torch.zeros((30 + i % 3, 40, 3), dtype=torch.uint8, device=device) for i in range(SOME)]
    if kind == "patches":
        return torch.zeros((SOME, 3, 24, 24), device=device)
    return torch.zeros((SOME, 40, 40, 3), dtype=torch.uint8, device=device)


def run_everything(device):
    for kind in ("raw", "photographs", "patches"):
        for cfg in everything():
            table = parameters(0, 0, np.arange(SOME), 0, cfg, 30, 40, 24)
            happens = set(table[:, column.RANDAUGMENT :: 2].ravel()) - {randaugment.IDENTITY}
            assert happens == set(randaugment.SETS["all"]) - {randaugment.IDENTITY}
            made = program(cfg, 24)
            if kind == "patches":
                made = Program(24, made.operations[1:], taps=made.taps, channels=made.channels, in_place=True)
            view = kernels_torch.apply(sent_to(device, kind), table, made, MEAN, STD)
            assert view.device == torch.device(device, 0) and view.shape == (SOME, made.channel_count, 24, 24)


def test_a_gpu_never_waits_and_nothing_runs_elsewhere():
    """On simulated tensors, which need no GPU: they refuse operations across devices, and any that must know a value."""
    with FakeTensorMode():
        with pytest.raises(RuntimeError, match="on the same device"):
            torch.zeros(2, device="cuda") + torch.zeros(2)
        with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
            torch.zeros(2, device="cuda")[0].item()
        run_everything("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_real_gpu_never_waits():
    run_everything("cuda")  # libraries load, memory is reserved
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run_everything("cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
