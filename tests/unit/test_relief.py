"""The relief engine: its file, its determinism, what it makes of simple pictures."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import numpy as np
import pytest
from numpy.typing import NDArray

from inference import depth
from inference.depth import canvas, relief
from stereospot.errors import StereoSpotError

HEIGHT, WIDTH = 112, 192
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def engine() -> depth.DepthEngine:
    return depth.load("relief")


def land(box: tuple[int, int, int, int] | None = None) -> Picture:
    """A sky, a ground that gets coarser towards the camera, and maybe a thing (top, bottom, left, right) on it."""
    rng = np.random.default_rng(3)
    picture = np.empty((HEIGHT, WIDTH, 3), np.float64)
    picture[:48] = np.linspace((110, 150, 210), (190, 205, 225), 48)[:, None]
    grain = rng.normal(0, 1, (HEIGHT - 48, WIDTH, 1)) * np.linspace(4, 26, HEIGHT - 48)[:, None, None]
    picture[48:] = np.array((98, 104, 62)) + grain
    if box:
        top, bottom, left, right = box
        picture[top:bottom, left:right] = np.array((150, 42, 36)) + np.linspace(20, -20, right - left)[None, :, None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def caption(seed: int) -> Picture:
    """Rows of white blocks the size of letters on black."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for line in range(int(rng.integers(1, 4))):
        top = 40 + 14 * line
        for x in range(30 + int(rng.integers(0, 20)), 160, 7):
            picture[top : top + 8, x : x + int(rng.integers(2, 6))] = 235
    return picture


def noise(count: int) -> Picture:
    return np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)


def test_the_card_describes_the_file() -> None:
    folder = resources.files("inference.depth")
    data = folder.joinpath("relief.onnx").read_bytes()
    card = json.loads(folder.joinpath("relief.json").read_text())
    assert hashlib.sha256(data).hexdigest() == card["sha256"]
    assert len(data) == card["bytes"] < 3_000_000
    assert card["parameters"] <= 1_200_000
    assert b"site-packages" not in data
    assert b".py" not in data


def test_a_canvas_holds_the_picture_and_where_it_is() -> None:
    frame, size = noise(1)[0], (1, HEIGHT // 2 + 1, WIDTH // 2 + 1, 20)
    sheet = canvas.blank(HEIGHT, WIDTH)
    canvas.paint(255 - frame, sheet)  # what was there before leaves no trace
    canvas.paint(frame, sheet)
    assert sheet.shape == size
    whole = sheet.reshape(*size[1:3], 2, 2, 5).transpose(0, 2, 1, 3, 4).reshape(HEIGHT + 2, WIDTH + 2, 5)
    assert np.array_equal(whole[1:-1, 1:-1, :3], frame)
    assert np.array_equal(whole[1:-1, 1, 3:], [[0, round(255 * y / (HEIGHT - 1))] for y in range(HEIGHT)])
    assert np.array_equal(whole[1, 1:-1, 3:], [[round(255 * x / (WIDTH - 1)), 0] for x in range(WIDTH)])
    for border in (whole[0], whole[-1], whole[:, 0], whole[:, -1]):
        assert np.array_equal(border, np.tile([0, 0, 0, 128, 128], (len(border), 1)))


def test_a_frame_of_another_size_is_refused(engine: depth.DepthEngine) -> None:
    for height, width in ((HEIGHT // 2, WIDTH // 2), (2 * HEIGHT, 2 * WIDTH), (HEIGHT, WIDTH + 1)):
        with pytest.raises(ValueError, match="canvas"):
            engine.infer(np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8))


def test_what_is_not_trusted_is_flat_and_the_rest_is_untouched() -> None:
    lanes = np.random.default_rng(1).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 16), np.uint8)
    trust = np.ones((14, 24), np.float32)
    whole = canvas.finish(lanes, trust)
    for lane in range(16):
        assert np.array_equal(whole[lane // 4 :: 4, lane % 4 :: 4], lanes[..., lane] * np.float32(1 / 255))
    trust[3, 5] = 0  # its centre lies between the fourth and the fifth pixel of 8
    faded = canvas.finish(lanes, trust)
    assert np.allclose(faded[40:], whole[40:], atol=1e-6)
    share = (faded - 0.5)[27, 36:53] / (whole - 0.5)[27, 36:53]
    wanted = 1 - (15 / 16) * np.clip(1 - np.abs(np.arange(36, 53) - 43.5) / 8, 0, None)
    assert np.allclose(share, wanted, atol=1e-4)
    assert np.allclose(canvas.finish(lanes, np.ones_like(trust), 0.25), 0.5 + 0.25 * (whole - 0.5), atol=1e-6)
    assert np.ptp(canvas.finish(lanes, np.zeros_like(trust))) == 0


def test_what_the_engine_says_of_itself(engine: depth.DepthEngine) -> None:
    info = engine.info
    assert (info.name, info.width, info.height) == ("relief", WIDTH, HEIGHT)
    assert info.model_sha256 is not None
    assert not info.needs_curve


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def hexdigest(self) -> str:
            return "0" * 64

    def other(_data: bytes) -> Other:
        return Other()

    monkeypatch.setattr(relief.hashlib, "sha256", other)
    with pytest.raises(StereoSpotError, match="SHA-256"):
        relief.load()


def test_each_frame_alone_is_the_same_bit_for_bit(engine: depth.DepthEngine) -> None:
    frames = noise(5)
    together = engine.infer(frames)
    assert together.shape == (5, HEIGHT, WIDTH)
    assert together.dtype == np.float32
    assert 0 <= together.min() <= together.max() <= 1
    for index in range(5):
        assert np.array_equal(engine.infer(frames[index : index + 1])[0], together[index])
    assert np.array_equal(engine.infer(frames[::-1])[::-1], together)


def test_parallel_equals_serial(engine: depth.DepthEngine) -> None:
    frames = noise(8)
    expected = engine.infer(frames)

    def alone(index: int) -> NDArray[np.float32]:
        own = depth.load("relief")
        try:
            return own.infer(frames[index : index + 1])[0]
        finally:
            own.close()

    with ThreadPoolExecutor(4) as pool:
        assert np.array_equal(np.stack(list(pool.map(alone, range(8)))), expected)


def test_the_ground_comes_nearer_and_the_sky_is_far(engine: depth.DepthEngine) -> None:
    relief_map = engine.infer(land()[None])[0]
    sky, horizon, feet = relief_map[4:30].mean(), relief_map[56:64].mean(), relief_map[102:].mean()
    assert sky < 0.25
    assert horizon + 0.2 < feet


def test_captions_and_blank_frames_are_flat(engine: depth.DepthEngine) -> None:
    cards = [caption(seed) for seed in range(4)]
    cards += [np.full((HEIGHT, WIDTH, 3), grey, np.uint8) for grey in (0, 255)]
    for card, found in zip(cards, engine.infer(np.stack(cards)), strict=True):
        low, high = np.percentile(found, (2, 98))
        assert high - low <= 0.1, f"range {high - low:.3f}, mean level {card.mean():.0f}"


@pytest.mark.parametrize("tone", [(47, 60, 72), (200, 120, 40)])
def test_a_small_sign_on_one_colour_is_flat_and_things_before_it_are_not(
    engine: depth.DepthEngine, tone: tuple[int, int, int]
) -> None:
    empty = np.full((HEIGHT, WIDTH, 3), tone, np.uint8)
    sign, thing = empty.copy(), empty.copy()
    sign[40:55, 90:98] = 255  # 0.6 % of it
    thing[50:90, 80:110] = 20  # 5.6 %
    assert np.ptp(engine.infer(np.stack([empty, sign]))) == 0
    assert relief.plain(thing) == 0
    shares = [relief.plain(np.where(np.arange(WIDTH)[:, None] < n, np.uint8(0), empty)) for n in range(10)]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (1, 0)
    assert max(-np.diff(shares)) < 0.5, "it goes by degrees"


def test_title_cards_on_colours_and_patterns_are_mostly_flat(engine: depth.DepthEngine) -> None:
    """Those that only the network's own look for letters can tell from scenes."""
    pytest.importorskip("PIL", reason="the scene renderer draws with Pillow")
    from inference.training import render
    from inference.training.textures import make_atlas

    rng, atlas = np.random.default_rng(5), make_atlas(1, 32)
    cards = [render.still(rng, atlas, "title_card").rgb for _ in range(24)]
    coloured = np.stack([card for card in cards if relief.plain(card) == 0])
    assert len(coloured) > 20
    low, high = np.percentile(engine.infer(coloured), (2, 98), axis=(1, 2))
    assert np.mean(high - low <= 0.1) > 0.8
    scenes = [render.still(rng, atlas, kind).rgb for kind in ("room", "wall", "forest", "table_top") * 3]
    seen = [scene for scene in scenes if relief.plain(scene) < 1]  # a leaf before the lens is no forest
    assert len(seen) > 10
    low, high = np.percentile(engine.infer(np.stack(seen)), (2, 98), axis=(1, 2))
    assert np.mean(high - low > 0.2) > 0.9, "a room in plain colours may be taken for one"


def test_the_ground_stays_when_something_enters(engine: depth.DepthEngine) -> None:
    empty, with_box = engine.infer(np.stack([land(), land((50, 86, 84, 112))]))
    assert with_box[55:84, 88:108].mean() > with_box[55:84, 40:70].mean() + 0.03
    beside = np.ones((HEIGHT, WIDTH), bool)
    beside[40:100, 74:122] = False
    assert np.abs(with_box - empty)[beside].mean() < 0.1


def test_no_cpu_comes_to_the_limit_of_16_bits() -> None:
    """A byte times a weight and the next one's product, which CPUs without VNNI add in 16 bits."""
    onnx = pytest.importorskip("onnx", reason="the file is read with onnx")

    model = onnx.load_from_string(resources.files("inference.depth").joinpath("relief.onnx").read_bytes())
    found = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    dense = [v.astype(int) for v in found.values() if v.dtype == np.int8 and v.ndim == 4 and v.shape[1] > 1]
    assert len(dense) > 30
    for values in dense:
        assert 255 * np.abs(values[:, 0::2] + values[:, 1::2]).max() <= 2**15
