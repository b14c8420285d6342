"""The ray caster: six primitives, one shadow ray, exact inverse depth.

Place in the flow: `scenes.py` describes a scene as rows of numbers
(`world.py`); `trace` finds what each pixel sees, `shade` gives it light, and
`motion` says where a surface point of one frame lies in the next one. All of
it is compiled by numba and runs on one core; a render process calls it for
each sample.

Conventions: right-handed view, x right, y up, z forward, metres. A pixel's
ray is (x, y, 1) in camera space, so the ray parameter t IS the depth along
the optical axis, and the picture's inverse depth is 1/t (0 for the sky).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from inference.training.textures import LEVELS, SIZE

QUAD, BOX, ELLIPSOID, CYLINDER, CAPSULE, CONE = range(6)

# Columns of an object row: kind, centre, rotation (row major, object to world),
# half sizes, bounding radius, casts a shadow (0 or 1), mean radius for occlusion.
KIND, CENTRE, ROTATION, HALF, BOUND, CASTS, MEAN = 0, 1, 4, 13, 16, 17, 18
OBJECT_COLUMNS = 19
# Columns of a material row: colour, texture index (-1 none), texture scale, texture
# colour share (0 brightness only), contrast, specular, shininess, emission, cut-out
# threshold, texture offset u and v, opacity.
COLOUR, TEXTURE, SCALE, SHARE, CONTRAST, SPECULAR = 0, 3, 4, 5, 6, 7
SHININESS, EMISSION, CUTOUT, OFFSET, OPACITY = 8, 9, 10, 11, 13
MATERIAL_COLUMNS = 14

_jit = numba.njit(fastmath=True, cache=True, inline="never", nogil=True)


class Light(NamedTuple):
    """Everything that lights a scene; all float64 arrays.

    sun: direction [3]; sun_colour, ambient, sky_low, sky_high: [3];
    lamp: position, power, falloff [5] (power 0: the sun shines instead);
    cloud: cover, scale, offset, texture, horizon steepness, white, glow [7];
    fog: density, colour, use own colour instead of the sky's [5].
    """

    sun: NDArray[np.float64]
    sun_colour: NDArray[np.float64]
    ambient: NDArray[np.float64]
    lamp: NDArray[np.float64]
    sky_low: NDArray[np.float64]
    sky_high: NDArray[np.float64]
    cloud: NDArray[np.float64]
    fog: NDArray[np.float64]


class View(NamedTuple):
    """A camera: position [3], rotation [3, 3] camera to world, tangents of half the view [2]."""

    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    tangent: NDArray[np.float64]


@_jit
def _keep(hit, t, x, y, z):
    length = 1.0 / (math.sqrt(x * x + y * y + z * z) + 1e-12)
    hit[0] = t
    hit[1] = x * length
    hit[2] = y * length
    hit[3] = z * length


@_jit
def _slab(ox, oy, oz, dx, dy, dz, hx, hy, hz, hit):
    near, far, axis, sign = -1e30, 1e30, 0, 1.0
    for k in range(3):
        o, d, h = (ox, dx, hx) if k == 0 else ((oy, dy, hy) if k == 1 else (oz, dz, hz))
        if abs(d) < 1e-9:
            if abs(o) > h:
                return False
            continue
        a, b, s = (-h - o) / d, (h - o) / d, -1.0
        if a > b:
            a, b, s = b, a, 1.0
        if a > near:
            near, axis, sign = a, k, s
        far = min(far, b)
    if near > far or near < 1e-3:
        return False
    hit[0] = near
    hit[1] = hit[2] = hit[3] = 0.0
    hit[1 + axis] = sign
    return True


@_jit
def _tube(kind, ox, oy, oz, dx, dy, dz, hx, hy, hz, hit):
    """Cylinder or capsule along y; a capsule is round (hz = hx)."""
    best = 1e30
    a0, a2, b0, b2 = ox / hx, oz / hz, dx / hx, dz / hz
    qa, qb = b0 * b0 + b2 * b2, a0 * b0 + a2 * b2
    disc = qb * qb - qa * (a0 * a0 + a2 * a2 - 1.0)
    if qa > 1e-12:
        if disc < 0.0 and kind == CYLINDER:
            return False
        if disc >= 0.0:
            t = (-qb - math.sqrt(disc)) / qa
            if t > 1e-3 and abs(oy + t * dy) <= hy:
                best = t
                _keep(hit, t, (a0 + t * b0) / hx, 0.0, (a2 + t * b2) / hz)
    for k in range(2):
        s = 2.0 * k - 1.0
        if kind == CYLINDER:
            if abs(dy) > 1e-9:
                t = (s * hy - oy) / dy
                x, z = a0 + t * b0, a2 + t * b2
                if 1e-3 < t < best and x * x + z * z <= 1.0:
                    best = t
                    _keep(hit, t, 0.0, s, 0.0)
        else:
            c1, e1 = (oy - s * hy) / hx, dy / hx
            ra, rb = qa + e1 * e1, qb + c1 * e1
            disc = rb * rb - ra * (a0 * a0 + a2 * a2 + c1 * c1 - 1.0)
            if disc > 0.0:
                t = (-rb - math.sqrt(disc)) / ra
                if 1e-3 < t < best and (oy + t * dy) * s >= hy:
                    best = t
                    _keep(hit, t, a0 + t * b0, c1 + t * e1, a2 + t * b2)
    return best < 1e29


@_jit
def _cone(ox, oy, oz, dx, dy, dz, radius, hy, hit):
    """Apex up, base disc at -hy."""
    k = radius / (2.0 * hy)
    k2, yo = k * k, hy - oy
    qa = dx * dx + dz * dz - k2 * dy * dy
    qb = ox * dx + oz * dz + k2 * yo * dy
    disc = qb * qb - qa * (ox * ox + oz * oz - k2 * yo * yo)
    best = 1e30
    if disc >= 0.0 and abs(qa) > 1e-12:
        root = math.sqrt(disc)
        for j in range(2):
            t = (-qb + (2.0 * j - 1.0) * root) / qa
            if 1e-3 < t < best and abs(oy + t * dy) <= hy:
                best = t
                x, z = ox + t * dx, oz + t * dz
                _keep(hit, t, x, k * math.sqrt(x * x + z * z), z)
    if abs(dy) > 1e-9:
        t = (-hy - oy) / dy
        x, z = ox + t * dx, oz + t * dz
        if 1e-3 < t < best and x * x + z * z <= radius * radius:
            best = t
            _keep(hit, t, 0.0, -1.0, 0.0)
    return best < 1e29


@_jit
def intersect(kind, ox, oy, oz, dx, dy, dz, hx, hy, hz, hit):
    """First hit of a ray with a primitive at the origin; `hit` gets t and the unit normal."""
    if kind == QUAD:
        if abs(dz) < 1e-9:
            return False
        t = -oz / dz
        if t < 1e-3 or abs(ox + t * dx) > hx or abs(oy + t * dy) > hy:
            return False
        _keep(hit, t, 0.0, 0.0, -1.0 if dz > 0 else 1.0)
        return True
    if kind == BOX:
        return _slab(ox, oy, oz, dx, dy, dz, hx, hy, hz, hit)
    if kind == ELLIPSOID:
        a0, a1, a2, b0, b1, b2 = ox / hx, oy / hy, oz / hz, dx / hx, dy / hy, dz / hz
        qa, qb = b0 * b0 + b1 * b1 + b2 * b2, a0 * b0 + a1 * b1 + a2 * b2
        disc = qb * qb - qa * (a0 * a0 + a1 * a1 + a2 * a2 - 1.0)
        if disc < 0.0:
            return False
        t = (-qb - math.sqrt(disc)) / qa
        if t < 1e-3:
            return False
        _keep(hit, t, (a0 + t * b0) / hx, (a1 + t * b1) / hy, (a2 + t * b2) / hz)
        return True
    if kind == CONE:
        return _cone(ox, oy, oz, dx, dy, dz, hx, hy, hit)
    return _tube(kind, ox, oy, oz, dx, dy, dz, hx, hy, hz, hit)


@_jit
def texture_at(texels, index, u, v, level, out):
    """Bilinear sample of one mip level; `out` gets four channels in 0..1."""
    m = min(max(int(level), 0), LEVELS - 1)
    n = SIZE >> m
    left = 0 if m == 0 else SIZE
    top = 0 if m == 0 else SIZE - (SIZE >> (m - 1))
    x, y = (u - math.floor(u)) * n - 0.5, (v - math.floor(v)) * n - 0.5
    fx, fy = math.floor(x), math.floor(y)
    ax, ay = x - fx, y - fy
    x0, y0 = int(fx) & (n - 1), int(fy) & (n - 1)
    x1, y1 = left + ((x0 + 1) & (n - 1)), top + ((y0 + 1) & (n - 1))
    x0, y0 = left + x0, top + y0
    for c in range(4):
        upper = texels[index, y0, x0, c] * (1 - ax) + texels[index, y0, x1, c] * ax
        lower = texels[index, y1, x0, c] * (1 - ax) + texels[index, y1, x1, c] * ax
        out[c] = (upper * (1 - ay) + lower * ay) * (1.0 / 255.0)


@_jit
def texture_position(kind, x, y, z, nx, ny, nz, material, uv):
    """Project the object-space point along the main axis of its normal."""
    ax, ay, az = abs(nx), abs(ny), abs(nz)
    if kind == QUAD or (az >= ax and az >= ay):
        u, v = x, -y
    elif ay >= ax:
        u, v = x, z
    else:
        u, v = z, -y
    uv[0] = u * material[SCALE] + material[OFFSET]
    uv[1] = v * material[SCALE] + material[OFFSET + 1]


@_jit
def trace(objects, materials, texels, view, skip_clear, depth, index, normal):
    """What each pixel sees.

    depth: float32 [h, w], t of the nearest surface (1e30: sky); index: int32
    [h, w], object row or -1; normal: float32 [h, w, 3] in world space.
    `skip_clear` leaves out translucent objects, to see what is behind them.
    """
    height, width = depth.shape
    tx, ty = view.tangent[0], view.tangent[1]
    hit, uv, texel, m = np.zeros(4), np.zeros(2), np.zeros(4), np.zeros((3, 3))
    depth[:] = 1e30
    index[:] = -1
    for i in range(objects.shape[0]):
        if skip_clear and materials[i, OPACITY] < 1.0:
            continue
        kind = int(objects[i, KIND])
        r = objects[i, ROTATION : ROTATION + 9]
        hx, hy, hz = objects[i, HALF], objects[i, HALF + 1], objects[i, HALF + 2]
        o0 = view.position[0] - objects[i, CENTRE]
        o1 = view.position[1] - objects[i, CENTRE + 1]
        o2 = view.position[2] - objects[i, CENTRE + 2]
        lx = r[0] * o0 + r[3] * o1 + r[6] * o2
        ly = r[1] * o0 + r[4] * o1 + r[7] * o2
        lz = r[2] * o0 + r[5] * o1 + r[8] * o2
        for a in range(3):
            for b in range(3):
                m[a, b] = r[a] * view.rotation[0, b] + r[3 + a] * view.rotation[1, b] + r[6 + a] * view.rotation[2, b]
        # Screen box of the eight corners; the whole screen where one is behind the eye.
        ey, ez = hy + (hx if kind == CAPSULE else 0.0), 0.0 if kind == QUAD else hz
        low_x, high_x, low_y, high_y, front, behind = 1e9, -1e9, 1e9, -1e9, 0, 0
        for k in range(8):
            px = (hx if k & 1 else -hx) - lx
            py = (ey if k & 2 else -ey) - ly
            pz = (ez if k & 4 else -ez) - lz
            cz = m[0, 2] * px + m[1, 2] * py + m[2, 2] * pz
            if cz < 0.02:
                behind += 1
                continue
            front += 1
            sx = (m[0, 0] * px + m[1, 0] * py + m[2, 0] * pz) / cz
            sy = (m[0, 1] * px + m[1, 1] * py + m[2, 1] * pz) / cz
            low_x, high_x = min(low_x, sx), max(high_x, sx)
            low_y, high_y = min(low_y, sy), max(high_y, sy)
        if front == 0:
            continue
        x0, x1, y0, y1 = 0, width, 0, height
        if behind == 0:
            x0 = max(0, int((max(low_x / tx, -2.0) + 1) * 0.5 * width) - 1)
            x1 = min(width, int((min(high_x / tx, 2.0) + 1) * 0.5 * width) + 2)
            y0 = max(0, int((1 - min(high_y / ty, 2.0)) * 0.5 * height) - 1)
            y1 = min(height, int((1 - max(low_y / ty, -2.0)) * 0.5 * height) + 2)
        cut, tid = materials[i, CUTOUT], int(materials[i, TEXTURE])
        for y in range(y0, y1):
            cy = (1 - 2 * (y + 0.5) / height) * ty
            for x in range(x0, x1):
                cx = (2 * (x + 0.5) / width - 1) * tx
                dx = m[0, 0] * cx + m[0, 1] * cy + m[0, 2]
                dy = m[1, 0] * cx + m[1, 1] * cy + m[1, 2]
                dz = m[2, 0] * cx + m[2, 1] * cy + m[2, 2]
                if not intersect(kind, lx, ly, lz, dx, dy, dz, hx, hy, hz, hit):
                    continue
                t = hit[0]
                if t >= depth[y, x]:
                    continue
                if cut > 0 and tid >= 0:
                    texture_position(
                        kind, lx + t * dx, ly + t * dy, lz + t * dz,
                        hit[1], hit[2], hit[3], materials[i], uv,
                    )  # fmt: skip
                    texture_at(texels, tid, uv[0], uv[1], 0.0, texel)
                    if texel[3] < cut:
                        continue
                depth[y, x] = t
                index[y, x] = i
                for a in range(3):
                    normal[y, x, a] = r[3 * a] * hit[1] + r[3 * a + 1] * hit[2] + r[3 * a + 2] * hit[3]


@_jit
def motion(objects, next_objects, view, next_view, depth, index, flow):
    """Where each pixel's surface point lies in the next frame.

    flow: float32 [h, w, 3]: x and y in -1..1 across the next picture (y down),
    and the point's depth there. Objects are rigid: a row of `next_objects` is
    the same object, moved. The sky turns with the camera.
    """
    height, width = depth.shape
    rot, nrot = view.rotation, next_view.rotation
    p, q, w = np.zeros(3), np.zeros(3), np.zeros(3)
    for y in range(height):
        cy = (1 - 2 * (y + 0.5) / height) * view.tangent[1]
        for x in range(width):
            cx = (2 * (x + 0.5) / width - 1) * view.tangent[0]
            i = index[y, x]
            t = depth[y, x] if i >= 0 else 1e6
            for a in range(3):
                w[a] = view.position[a] + t * (rot[a, 0] * cx + rot[a, 1] * cy + rot[a, 2])
            if i >= 0:
                for a in range(3):
                    q[a] = w[a] - objects[i, CENTRE + a]
                for a in range(3):  # world to object
                    p[a] = 0.0
                    for b in range(3):
                        p[a] += objects[i, ROTATION + 3 * b + a] * q[b]
                for a in range(3):  # object to the next frame's world
                    w[a] = next_objects[i, CENTRE + a]
                    for b in range(3):
                        w[a] += next_objects[i, ROTATION + 3 * a + b] * p[b]
            for a in range(3):
                q[a] = w[a] - next_view.position[a]
            for a in range(3):
                p[a] = nrot[0, a] * q[0] + nrot[1, a] * q[1] + nrot[2, a] * q[2]
            z = max(p[2], 1e-3)
            flow[y, x, 0] = p[0] / z / next_view.tangent[0]
            flow[y, x, 1] = -p[1] / z / next_view.tangent[1]
            flow[y, x, 2] = z if i >= 0 else 1e30
