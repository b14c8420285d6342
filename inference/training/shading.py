"""Light on what the ray caster found.

Place in the flow: after `kernel.trace`. One sun or lamp with one hard shadow
ray, a sky or room ambient with a contact-occlusion term, a specular lobe, fog,
a sky gradient with clouds. `style` 1 draws a cartoon instead: flat colours, a
two-step light, dark outlines where the object or the depth changes.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from inference.training.kernel import (
    BOUND,
    CASTS,
    CENTRE,
    COLOUR,
    CONTRAST,
    CUTOUT,
    EMISSION,
    HALF,
    KIND,
    MEAN,
    ROTATION,
    SCALE,
    SHARE,
    SHININESS,
    SPECULAR,
    TEXTURE,
    _jit,
    intersect,
    texture_at,
    texture_position,
)
from inference.training.textures import SIZE

PHOTO, CARTOON = 0, 1


@_jit
def _sky(light, texels, wx, wy, wz, texel, out):
    """Colour of the sky along a unit direction."""
    cloud, sun = light.cloud, light.sun
    g = max(0.0, min(1.0, (wy + 0.05) * cloud[4]))
    for a in range(3):
        out[a] = light.sky_low[a] * (1 - g) + light.sky_high[a] * g
    if cloud[0] > 0 and wy > 0.01:
        k = cloud[1] / (wy + 0.08)
        texture_at(texels, int(cloud[3]), wx * k + cloud[2], wz * k, 1.0, texel)
        cover = max(0.0, min(1.0, (texel[3] - 0.5) * 3)) * cloud[0] * min(1.0, wy * 8)
        for a in range(3):
            out[a] = out[a] * (1 - cover) + cover * cloud[5]
    glow = cloud[6] * max(0.0, wx * sun[0] + wy * sun[1] + wz * sun[2]) ** 20
    out[0] += glow
    out[1] += glow
    out[2] += 0.8 * glow


@_jit
def _albedo(material, texels, kind, local, local_normal, footprint, uv, texel, out):
    """Surface colour with the texture at the mip level of the pixel's footprint."""
    for a in range(3):
        out[a] = material[COLOUR + a]
    tid = int(material[TEXTURE])
    if tid < 0:
        return
    texture_position(
        kind, local[0], local[1], local[2],
        local_normal[0], local_normal[1], local_normal[2], material, uv,
    )  # fmt: skip
    level = math.log2(max(footprint * material[SCALE] * SIZE, 1.0))
    texture_at(texels, tid, uv[0], uv[1], level, texel)
    contrast = material[CONTRAST] / (1.0 + max(0.0, level - 4.5))
    if material[SHARE] < 0.5:  # the texture only modulates the brightness
        grey = (texel[0] + texel[1] + texel[2]) / 3.0
        gain = 1.0 - contrast + contrast * 2.0 * grey
        for a in range(3):
            out[a] *= gain
    else:
        for a in range(3):
            out[a] = out[a] * (1 - contrast) + contrast * texel[a]


@_jit
def _shadow_and_occlusion(objects, materials, own, p, n, ray, lamp_distance, facing, t, hit, out):
    """out[0]: 1 lit to 0 shadowed; out[1]: ambient left over by near objects."""
    out[0] = out[1] = 1.0
    for j in range(objects.shape[0]):
        if objects[j, CASTS] < 0.5:
            continue
        c0 = objects[j, CENTRE] - p[0]
        c1 = objects[j, CENTRE + 1] - p[1]
        c2 = objects[j, CENTRE + 2] - p[2]
        d2 = c0 * c0 + c1 * c1 + c2 * c2
        bound2 = objects[j, BOUND] * objects[j, BOUND]
        if j != own and 1e-6 < d2 < bound2 * 16:
            towards = (c0 * n[0] + c1 * n[1] + c2 * n[2]) / math.sqrt(d2)
            if towards > 0:
                out[1] *= 1 - 0.7 * min(1.0, towards * objects[j, MEAN] * objects[j, MEAN] / d2)
        if not facing or out[0] <= 0:
            continue
        b = c0 * ray[0] + c1 * ray[1] + c2 * ray[2]
        if d2 - b * b >= bound2 or b <= -objects[j, BOUND] or b - objects[j, BOUND] >= lamp_distance:
            continue
        r = objects[j, ROTATION : ROTATION + 9]
        if intersect(
            int(objects[j, KIND]),
            -(r[0] * c0 + r[3] * c1 + r[6] * c2),
            -(r[1] * c0 + r[4] * c1 + r[7] * c2),
            -(r[2] * c0 + r[5] * c1 + r[8] * c2),
            r[0] * ray[0] + r[3] * ray[1] + r[6] * ray[2],
            r[1] * ray[0] + r[4] * ray[1] + r[7] * ray[2],
            r[2] * ray[0] + r[5] * ray[1] + r[8] * ray[2],
            objects[j, HALF], objects[j, HALF + 1], objects[j, HALF + 2], hit,
        ) and t * 3e-3 < hit[0] < lamp_distance:  # fmt: skip
            out[0] *= 0.0 if materials[j, CUTOUT] <= 0 else 0.4


@_jit
def shade(objects, materials, texels, view, light, style, depth, index, normal, image):
    """Fill `image`, float32 [h, w, 3] linear light, from the buffers of `kernel.trace`."""
    height, width = depth.shape
    tx, ty, rot = view.tangent[0], view.tangent[1], view.rotation
    texel, sky, albedo, out = np.zeros(4), np.zeros(3), np.zeros(3), np.zeros(2)
    hit, uv, w, p, n, ray = (
        np.zeros(4), np.zeros(2), np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    )  # fmt: skip
    q, local, local_normal = np.zeros(3), np.zeros(3), np.zeros(3)
    for y in range(height):
        cy = (1 - 2 * (y + 0.5) / height) * ty
        for x in range(width):
            cx = (2 * (x + 0.5) / width - 1) * tx
            for a in range(3):
                w[a] = rot[a, 0] * cx + rot[a, 1] * cy + rot[a, 2]
            inverse = 1 / math.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
            _sky(light, texels, w[0] * inverse, w[1] * inverse, w[2] * inverse, texel, sky)
            i = index[y, x]
            if i < 0:
                for a in range(3):
                    image[y, x, a] = sky[a]
                continue
            t = depth[y, x]
            r = objects[i, ROTATION : ROTATION + 9]
            for a in range(3):
                n[a] = normal[y, x, a]
                p[a] = view.position[a] + t * w[a]
                q[a] = p[a] - objects[i, CENTRE + a]
            for a in range(3):
                local[a] = r[a] * q[0] + r[3 + a] * q[1] + r[6 + a] * q[2]
                local_normal[a] = r[a] * n[0] + r[3 + a] * n[1] + r[6 + a] * n[2]
            slant = abs(n[0] * w[0] + n[1] * w[1] + n[2] * w[2]) * inverse
            footprint = t * 2 * tx / width / max(slant, 0.06) ** 0.6
            _albedo(
                materials[i], texels, int(objects[i, KIND]), local, local_normal,
                footprint, uv, texel, albedo,
            )  # fmt: skip
            if materials[i, EMISSION] > 0:
                for a in range(3):
                    image[y, x, a] = albedo[a] * materials[i, EMISSION]
            else:
                reach, power = 1e9, 1.0
                if light.lamp[3] > 0:
                    for a in range(3):
                        ray[a] = light.lamp[a] - p[a]
                    reach = math.sqrt(ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2]) + 1e-9
                    for a in range(3):
                        ray[a] /= reach
                    power = light.lamp[3] / (1 + reach * reach * light.lamp[4])
                else:
                    for a in range(3):
                        ray[a] = light.sun[a]
                facing = n[0] * ray[0] + n[1] * ray[1] + n[2] * ray[2]
                for a in range(3):  # leave the surface before looking for what shadows it
                    q[a] = p[a] + n[a] * 2e-3 * t
                _shadow_and_occlusion(objects, materials, i, q, n, ray, reach, facing > 0, t, hit, out)
                direct = max(0.0, facing) * out[0] * power
                if style == CARTOON:
                    direct = (0.8 if direct > 0.25 else 0.0) * power
                    out[1] = 1.0
                ambient = (0.65 + 0.35 * n[1]) * out[1]
                if style == CARTOON:
                    ambient = 0.9
                for a in range(3):
                    image[y, x, a] = albedo[a] * (direct * light.sun_colour[a] + light.ambient[a] * ambient)
                if materials[i, SPECULAR] > 0 and out[0] > 0 and facing > 0:
                    h0, h1, h2 = (
                        ray[0] - w[0] * inverse, ray[1] - w[1] * inverse, ray[2] - w[2] * inverse
                    )  # fmt: skip
                    along = (n[0] * h0 + n[1] * h1 + n[2] * h2) / math.sqrt(h0 * h0 + h1 * h1 + h2 * h2 + 1e-12)
                    shine = materials[i, SPECULAR] * max(0.0, along) ** materials[i, SHININESS]
                    for a in range(3):
                        image[y, x, a] += shine * power
            if light.fog[0] > 0:
                clear = math.exp(-t * light.fog[0])
                for a in range(3):
                    haze = light.fog[1 + a] if light.fog[4] > 0 else sky[a]
                    image[y, x, a] = image[y, x, a] * clear + (1 - clear) * haze


@_jit
def outline(depth, index, strength, image):
    """Cartoon ink: darken pixels where the object or (by 8 %) the depth changes."""
    height, width = depth.shape
    for y in range(height - 1):
        for x in range(width - 1):
            here = depth[y, x]
            for k in range(2):
                v, u = (y, x + 1) if k == 0 else (y + 1, x)
                there = depth[v, u]
                if index[y, x] != index[v, u] and abs(here - there) > 0.02 * min(here, there):
                    for a in range(3):
                        image[y, x, a] *= 1 - strength


@numba.njit(cache=True, nogil=True)
def area_resize(source, target):
    """Exact box filter from [h, w, c] to the smaller [H, W, c]."""
    height, width, channels = target.shape
    sy, sx = source.shape[0] / height, source.shape[1] / width
    for y in range(height):
        top, bottom = y * sy, (y + 1) * sy
        for x in range(width):
            left, right = x * sx, (x + 1) * sx
            for c in range(channels):
                target[y, x, c] = 0.0
            for v in range(int(top), min(math.ceil(bottom - 1e-9), source.shape[0])):
                wy = min(bottom, v + 1.0) - max(top, v * 1.0)
                for u in range(int(left), min(math.ceil(right - 1e-9), source.shape[1])):
                    weight = wy * (min(right, u + 1.0) - max(left, u * 1.0)) / (sy * sx)
                    for c in range(channels):
                        target[y, x, c] += weight * source[v, u, c]
