"""Samples for training and evaluation: stills and two-frame clips with exact truth.

Place in the flow: `stream.py` calls `still` and `clip` in the render processes;
the bench calls them for its held-out sets. The same generator state gives the
same sample.

Truth is inverse depth, 1 near and 0 at infinity, on a scale of its own per
clip (`losses.target` turns it into the network's 0..1); -1 marks letterbox bars.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.training import kernel, overlay, scenes, shading
from inference.training.film import Film
from inference.training.kernel import CENTRE, OPACITY, Light, View
from inference.training.people import person
from inference.training.textures import Atlas
from inference.training.world import World, turn_x, turn_y, turn_z

WIDTH, HEIGHT = 192, 112
SUPERSAMPLE = 1.25
BACK = 4
"""Pixels of the picture for one of `Frame.back`."""


@dataclass(frozen=True, slots=True)
class Frame:
    """rgb: uint8 [112, 192, 3]; inverse: float16 [112, 192], -1 where there is no picture.

    back: float16 [28, 48], inverse depth on the same scale without what may come and go (`World.groups`).
    """

    kind: str
    rgb: NDArray[np.uint8]
    inverse: NDArray[np.float16]
    back: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Clip:
    """Two frames of one scene on one inverse-depth scale.

    flow: float16 [112, 192, 2], where a pixel of `first` lies in `second`, x and
    y in -1..1 across the picture; 2 where it cannot be seen there.
    """

    first: Frame
    second: Frame
    flow: NDArray[np.float16]


@dataclass(slots=True)
class _Seen:
    image: NDArray[np.float32]
    inverse: NDArray[np.float32]
    depth: NDArray[np.float32]
    index: NDArray[np.int32]
    back: NDArray[np.float32]


def _without_groups(
    world: World, objects: NDArray, materials: NDArray, atlas: Atlas, view: View
) -> NDArray[np.float32]:
    """Inverse depth [28, 48] of what stays."""
    stays = np.ones(len(objects), bool)
    for rows in world.groups:
        stays[rows] = False
    shape = HEIGHT // BACK, WIDTH // BACK
    depth, index, normal = np.empty(shape, np.float32), np.empty(shape, np.int32), np.zeros((*shape, 3), np.float32)
    kernel.trace(objects[stays], materials[stays], atlas.texels, view, False, depth, index, normal)
    return np.where(index >= 0, 1 / depth, 0).astype(np.float32)


def _see(world: World, objects: NDArray, materials: NDArray, atlas: Atlas, view: View, light: Light) -> _Seen:
    cartoon = world.cartoon
    height, width = int(HEIGHT * SUPERSAMPLE), int(WIDTH * SUPERSAMPLE)
    depth = np.empty((height, width), np.float32)
    index = np.empty((height, width), np.int32)
    normal = np.zeros((height, width, 3), np.float32)
    image = np.zeros((height, width, 3), np.float32)
    style = shading.CARTOON if cartoon else shading.PHOTO
    kernel.trace(objects, materials, atlas.texels, view, False, depth, index, normal)
    shading.shade(objects, materials, atlas.texels, view, light, style, depth, index, normal, image)
    opacity = np.where(index >= 0, materials[:, OPACITY].astype(np.float32)[index], 1.0)
    if (opacity < 1).any():  # see what is behind glass
        behind_depth, behind_index = np.empty_like(depth), np.empty_like(index)
        behind = np.zeros_like(image)
        kernel.trace(objects, materials, atlas.texels, view, True, behind_depth, behind_index, normal)
        shading.shade(
            objects, materials, atlas.texels, view, light, style, behind_depth, behind_index, normal, behind
        )  # fmt: skip
        image = image * opacity[..., None] + behind * (1 - opacity[..., None])
    if cartoon:
        shading.outline(depth, index, 0.85, image)
    inverse = np.where(index >= 0, 1 / depth, 0).astype(np.float32)
    small_image = np.empty((HEIGHT, WIDTH, 3), np.float32)
    small_inverse = np.empty((HEIGHT, WIDTH, 1), np.float32)
    shading.area_resize(image, small_image)
    shading.area_resize(inverse[..., None], small_inverse)
    back = _without_groups(world, objects, materials, atlas, view)
    return _Seen(small_image, small_inverse[..., 0], depth, index, back)


def _worth_seeing(world: World, inverse: NDArray, rng: np.random.Generator) -> bool:
    """Drop most frames that an object right at the lens fills."""
    high = float(np.percentile(inverse, 98))
    if high <= 1e-4:
        return False
    blocked = np.mean(inverse > 0.8 * inverse.max()) > 0.9
    return world.flat_truth or not blocked or rng.random() < 0.2


def _frame(name: str, world: World, film: Film, seed: int, rng: np.random.Generator, seen: _Seen) -> Frame:
    inverse = np.full_like(seen.inverse, 1.0) if world.flat_truth else seen.inverse
    picture = film.expose(rng, seen.image, seen.inverse)
    if world.overlay:  # the same graphics in each frame of a clip
        pen = np.random.default_rng(seed)
        picture, inverse = overlay.draw(pen, world.overlay, picture.astype(np.float32), inverse, flat=world.flat_truth)
    rgb, valid = film.develop(rng, picture)
    back = np.full_like(seen.back, 1.0) if world.flat_truth else seen.back
    back = np.where(valid[BACK // 2 :: BACK, BACK // 2 :: BACK], back, -1)
    return Frame(name, rgb, np.where(valid, inverse, -1).astype(np.float32), back)  # type: ignore[arg-type]


def _scaled(*frames: Frame) -> list[Frame]:
    """Scale by the nearest percent of all frames together; to float16."""
    seen = np.concatenate([f.inverse[f.inverse >= 0] for f in frames])
    scale = max(float(np.percentile(seen, 99)), 1e-9)
    out = []
    for f in frames:
        inverse, back = (
            np.where(x >= 0, np.clip(x / scale, 0, 1.3), -1).astype(np.float16) for x in (f.inverse, f.back)
        )
        out.append(Frame(f.kind, f.rgb, inverse, back))
    return out


def _scene(
    rng: np.random.Generator, atlas: Atlas, kind: str | None, held_out: bool, covered: float = scenes.COVERED
) -> tuple[str, World, Light, _Seen]:
    while True:
        name, world = scenes.build(rng, atlas, kind, held_out=held_out, covered=covered)
        light = world.light()
        seen = _see(world, world.object_rows(), world.material_rows(), atlas, world.view(), light)
        if _worth_seeing(world, seen.inverse, rng):
            return name, world, light, seen


def still(
    rng: np.random.Generator,
    atlas: Atlas,
    kind: str | None = None,
    *,
    held_out: bool = False,
    covered: float = scenes.COVERED,
) -> Frame:
    """One frame of a scene kind (None: drawn by weight); `covered`: the share of scenes with graphics over them."""
    name, world, _, seen = _scene(rng, atlas, kind, held_out, covered)
    film = Film(rng, flat=world.flat_truth, close_up=world.close_up, dark=world.dark > 0)
    return _scaled(_frame(name, world, film, int(rng.integers(1 << 30)), rng, seen))[0]


def _moved(rng: np.random.Generator, world: World, objects: NDArray) -> tuple[NDArray, View]:
    """The next moment: things move, one vanishes or appears, the camera drifts."""
    after = objects.copy()
    view = world.view()
    if world.groups:
        for _ in range(int(rng.integers(0, 3))):
            rows = world.groups[int(rng.integers(len(world.groups)))]
            distance = max(0.3, float(np.abs(after[rows, CENTRE + 2]).mean()))
            after[rows, CENTRE : CENTRE + 3] += rng.normal(0, 0.06, 3) * distance * np.array([1, 0.15, 0.5])
        if rng.random() < 0.6:  # gone in one of the two frames
            rows = world.groups[int(rng.integers(len(world.groups)))]
            after[rows, CENTRE + 1] -= 1e5
    if rng.random() < 0.4:
        size = world.log_uniform(0.003, 0.05)
        position = view.position + rng.normal(0, 1, 3) * size * world.eye[1]
        position[1] = max(position[1], 0.6 * view.position[1])
        rotation = (
            view.rotation
            @ turn_y(rng.normal(0, size))
            @ turn_x(rng.normal(0, size / 2))
            @ turn_z(rng.normal(0, size / 3))
        )
        view = View(position, rotation, view.tangent)
    return after, view


def clip(rng: np.random.Generator, atlas: Atlas, kind: str | None = None, *, held_out: bool = False) -> Clip:
    """Two moments of one scene, in random order, with the flow between them."""
    name, world, light, seen = _scene(rng, atlas, kind, held_out)
    before, materials = world.object_rows(), world.material_rows()
    after, next_view = _moved(rng, world, before)
    then = _see(world, after, materials, atlas, next_view, light)
    view = world.view()
    if rng.random() < 0.5:
        seen, then, before, after, view, next_view = then, seen, after, before, next_view, view
    flow = np.empty((*seen.depth.shape, 3), np.float32)
    kernel.motion(before, after, view, next_view, seen.depth, seen.index, flow)
    height, width = seen.depth.shape
    x = np.clip((flow[..., 0] + 1) * width / 2, 0, width - 1).astype(int)
    y = np.clip((flow[..., 1] + 1) * height / 2, 0, height - 1).astype(int)
    there = then.depth[y, x]
    visible = (np.abs(flow[..., :2]).max(-1) < 1) & (np.abs(there - flow[..., 2]) <= 0.02 * flow[..., 2])
    visible |= (seen.index < 0) & (then.index[y, x] < 0) & (np.abs(flow[..., :2]).max(-1) < 1)
    rows = np.minimum((np.arange(HEIGHT) + 0.5) * SUPERSAMPLE, height - 1).astype(int)
    columns = np.minimum((np.arange(WIDTH) + 0.5) * SUPERSAMPLE, width - 1).astype(int)
    pick = np.ix_(rows, columns)
    # The displacement of the sampled ray is that of the small pixel's centre, a fraction of a pixel beside it.
    shift = np.stack(
        np.meshgrid(
            (np.arange(WIDTH) + 0.5) / WIDTH * 2 - (columns + 0.5) / width * 2,
            (np.arange(HEIGHT) + 0.5) / HEIGHT * 2 - (rows + 0.5) / height * 2,
        ),
        -1,
    )
    small = np.where(visible[pick][..., None], flow[..., :2][pick] + shift, 2.0)
    film, pen = (
        Film(rng, flat=world.flat_truth, close_up=world.close_up, dark=world.dark > 0),
        int(rng.integers(1 << 30)),
    )
    first = _frame(name, world, film, pen, rng, seen)
    second = _frame(name, world, film, pen, rng, then)
    first, second = _scaled(first, second)
    return Clip(first, second, small.astype(np.float16))


def walk(rng: np.random.Generator, atlas: Atlas, kind: str, count: int) -> list[tuple[Frame, NDArray[np.bool_]]]:
    """A fixed camera while someone or something crosses the scene: `count` frames and where the mover is in each.

    The mover is a group of the scene, or a person when it has none; it starts and ends outside the picture. The last
    frame is the scene without it.
    """
    name, world, light, _ = _scene(rng, atlas, kind, False)
    if not world.groups:
        person(world, (0.0, 0.0, rng.uniform(2.0, 5.0)))
    rows = world.groups[int(rng.integers(len(world.groups)))]
    still_rows, materials, view = world.object_rows(), world.material_rows(), world.view()
    middle = still_rows[rows, CENTRE : CENTRE + 3].mean(0)
    depth = max(0.8, float(view.rotation[:, 2] @ (middle - view.position)))
    film, pen = Film(rng, flat=False, dark=world.dark > 0), int(rng.integers(1 << 30))
    film.focus, film.line, film.bars = None, None, (0, 0)
    seen, where = [], []
    for step in range(count):
        now = still_rows.copy()
        across = (-1.5 + 3.0 * step / max(1, count - 2)) * world.half_width * depth
        now[rows, CENTRE : CENTRE + 3] += view.rotation[:, 0] * (
            across - view.rotation[:, 0] @ (middle - view.position)
        )
        if step == count - 1:
            now[rows, CENTRE + 1] -= 1e5
        picture = _see(world, now, materials, atlas, view, light)
        inside = (picture.index >= rows.start) & (picture.index < rows.stop)
        share = np.empty((HEIGHT, WIDTH, 1), np.float32)
        shading.area_resize(inside[..., None].astype(np.float32), share)
        seen.append(picture)
        where.append(share[..., 0] > 0.5)
    frames = [_frame(name, world, film, pen, rng, picture) for picture in seen]
    return list(zip(_scaled(*frames), where, strict=True))
