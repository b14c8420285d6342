"""The warp on a CPU: one thread, fixed point, straight from the source's planes into the output's.

Two steps (definition in `inference.warp`): `invert` finds, for a few output positions of a row, where in the source
they come from; `render` interpolates these displacements and samples both eyes. All arithmetic that reaches a pixel is
in integers, so the torch kernel gives the same bytes.
"""

# pyright: reportMissingParameterType=false
# (kernels are typed by their numba signatures)
from __future__ import annotations

import numpy as np

from inference.jit import I32, I64, VOID, array, compiled, inner, pair_at, per_sample, view


@compiled(VOID(view(I32, 2), I64, I64, I64, I64, I64, array(I32, 3), array(I64, 1)))
def invert(disparity, step, width, knot, share_left, share_right, displacement, tally):
    """Displacement of both eyes at the knots.

    disparity: [rows, columns] int32, 1/65536 source pixel, total parallax, positive in front of the screen
    step: luma pixels of a cell; width: of the source; knot: distance of the knots in pixels
    share_*: the eye's share of the parallax in 1/256, signed (+128 and -128 for symmetric eyes)
    displacement: [2, rows, knots] int32 out, 1/65536 source pixel, to be added to the output position of the knot
    tally: [2] int64, added to: knot intervals stretched to more than twice their length, and knot intervals in all
    """
    rows, columns = disparity.shape
    knots = displacement.shape[2]
    stride = np.int32(knot << 16)
    points = columns + 2
    last = np.int32((width - 1) << 16)
    inside = (width + knot - 2) // knot  # knots 1 … inside - 1 lie between the borders
    place = np.empty(points, np.int32)
    moved = np.empty(points, np.int32)
    found = np.empty(knots, np.int32)
    # Each knot's interval of `moved` and `place`, looked up first: then the division compiles to vector code.
    low = np.empty(knots, np.int32)
    high = np.empty(knots, np.int32)
    base = np.empty(knots, np.int32)
    reach = np.empty(knots, np.int32)
    place[0] = 0
    place[points - 1] = last
    for k in range(columns):
        place[k + 1] = min(max((2 * k * step + step - 1) << 15, 0), last)
    for y in range(rows):
        row = disparity[y]
        for eye in range(2):
            share = np.int64(share_left if eye == 0 else share_right)
            target = displacement[eye, y]
            moved[0] = 0
            moved[points - 1] = last
            shifted = np.int32(0)
            for k in range(columns):
                shift = np.int32(np.int64(row[k]) * share >> 8)
                shifted |= shift
                moved[k + 1] = place[k + 1] + shift
            tally[1] += knots - 1
            if shifted == 0:
                for i in range(knots):
                    target[i] = 0
                continue
            # A position takes the source that comes first from the side on which nearer things lie: from the left
            # for the left eye, whose near things move right; so what is near hides what is far.
            if share > 0:
                k = 0
                at = stride
                for i in range(1, inside):
                    while moved[k + 1] < at:
                        k += 1
                    low[i], high[i], base[i], reach[i] = moved[k], moved[k + 1], place[k], place[k + 1]
                    at = np.int32(at + stride)
            else:
                k = points - 2
                at = np.int32((inside - 1) * stride)
                for i in range(inside - 1, 0, -1):
                    while moved[k] > at:
                        k -= 1
                    low[i], high[i], base[i], reach[i] = moved[k], moved[k + 1], place[k], place[k + 1]
                    at = np.int32(at - stride)
            found[0] = 0
            for i in range(1, inside):
                ratio = np.float64(np.int32(np.int32(i) * stride) - low[i]) / np.float64(high[i] - low[i])
                found[i] = base[i] + np.int32(ratio * np.float64(reach[i] - base[i]))
            # Beyond the borders the nominal position goes on, so that its displacement is that of the border.
            for i in range(inside, knots):
                found[i] = np.int32(i) * stride
            target[0] = 0
            short = 0
            for i in range(1, knots):
                target[i] = found[i] - np.int32(np.int32(i) * stride)
                short += 1 if found[i] - found[i - 1] < (stride >> 1) else 0
            tally[0] += short


@inner
def _between(above, below, weight, down):
    """Displacement between two rows of knots, weight in 1/256, in pixels of a plane subsampled by `down`."""
    return np.int32(np.int32(above + np.int32(np.int32(np.int32(below - above) >> 4) * weight >> 4)) >> down)


@inner
def _positions(line, count, per_knot, spacing, last, position):
    """Source positions of `count` output pixels, 1/65536 pixel of the plane; `per_knot` is 1, 2, 4 or 8.

    The loops are written out for each case, so that they compile to vector code.
    """
    intervals = (count + per_knot - 1) // per_knot
    zero = np.int32(0)
    if per_knot == 8:
        for k in range(intervals):
            base = np.int32(np.int32(k * 8 * spacing) + line[k])
            slope = np.int32(spacing + (np.int32(line[k + 1] - line[k]) >> 3))
            for t in range(8):
                position[k * 8 + t] = min(max(np.int32(base + np.int32(np.int32(t) * slope)), zero), last)
    elif per_knot == 4:
        for k in range(intervals):
            base = np.int32(np.int32(k * 4 * spacing) + line[k])
            slope = np.int32(spacing + (np.int32(line[k + 1] - line[k]) >> 2))
            for t in range(4):
                position[k * 4 + t] = min(max(np.int32(base + np.int32(np.int32(t) * slope)), zero), last)
    elif per_knot == 2:
        for k in range(intervals):
            base = np.int32(np.int32(k * 2 * spacing) + line[k])
            slope = np.int32(spacing + (np.int32(line[k + 1] - line[k]) >> 1))
            position[2 * k] = min(max(base, zero), last)
            position[2 * k + 1] = min(max(np.int32(base + slope), zero), last)
    else:
        for k in range(intervals):
            position[k] = min(max(np.int32(np.int32(k * spacing) + line[k]), zero), last)


@inner
def _filtered(plane, row, width, half_width, half_height, line, sums):
    """One source row, squeezed by the sum of two where asked, its last pixel once more at the end."""
    rows = plane.shape[0]
    if half_height:
        top = plane[min(2 * row, rows - 1)]
        bottom = plane[min(2 * row + 1, rows - 1)]
        for x in range(width):
            line[x] = np.uint16(np.uint16(top[x]) + np.uint16(bottom[x]))
        line[width] = line[width - 1]
        for x in range(width):
            sums[x] = np.uint16(line[x] + line[x + 1]) if half_width else line[x]
    else:
        top = plane[min(row, rows - 1)]
        if half_width:
            for x in range(width - 1):
                sums[x] = np.uint16(np.uint16(top[x]) + np.uint16(top[x + 1]))
            sums[width - 1] = np.uint16(2 * np.uint16(top[width - 1]))
        else:
            for x in range(width):
                sums[x] = np.uint16(top[x])
    sums[width] = sums[width - 1]


@per_sample(
    lambda p: VOID(
        view(p, 2), I64, array(I32, 3), I64, I64, I64, I64, I64, I64, array(p, 2), I64, I64, I64, I64, I64, I64
    )
)
def render(
    plane, width, displacement, step, knot, shift_x, shift_y, half_width, half_height,
    out, eye_width, eye_height, left_x, left_y, right_x, right_y,
):  # fmt: skip
    """Sample both eyes of one plane into the output.

    plane: [>= 1, >= width] source samples; displacement, step, knot: as of `invert`
    shift_*: subsampling of this plane; half_*: 0 or 1, squeeze by two
    out: plane of the output; eye_*: size of an eye there; left_*, right_*: corners, a negative x leaves an eye out
    """
    rows, knots = displacement.shape[1], displacement.shape[2]
    extra = half_width + half_height
    rounding = np.uint32(128 << extra)
    bits = np.uint32(8 + extra)
    spacing = np.int32(65536 << half_width)
    # Chroma of a squeezed eye may have fewer pixels than there are knots: it uses every `pick`-th of them.
    pick = 1
    while (knot * pick) >> (shift_x + half_width) == 0:
        pick *= 2
    per_knot = (knot * pick) >> (shift_x + half_width)
    used = (knots - 1) // pick + 1
    down = np.int32(shift_x)
    last = np.int32((width - 1) << 16)
    line = np.empty(knots, np.int32)
    position = np.empty(eye_width + 16, np.int32)
    pair = np.empty(eye_width, np.uint32)
    sums = np.empty(width + 1, np.uint16)
    rest = np.empty(width + 1, np.uint16)
    for y in range(eye_height):
        _filtered(plane, y, width, half_width, half_height, rest, sums)
        g = (((2 * y + 1) << (shift_y + half_height)) * 128) // step - 128
        g = min(max(g, 0), (rows - 1) * 256)
        g0 = g >> 8
        g1 = min(g0 + 1, rows - 1)
        weight = np.int32(g & 255)
        for eye in range(2):
            x0 = left_x if eye == 0 else right_x
            if x0 < 0:
                continue
            y0 = left_y if eye == 0 else right_y
            above, below = displacement[eye, g0], displacement[eye, g1]
            if pick == 1:
                for k in range(used):
                    line[k] = _between(above[k], below[k], weight, down)
            else:
                for k in range(used):
                    line[k] = _between(above[k * pick], below[k * pick], weight, down)
            _positions(line, eye_width, per_knot, spacing, last, position)
            target = out[y0 + y]
            # The look-up has a loop of its own: then the arithmetic after it compiles to vector code.
            for x in range(eye_width):
                pair[x] = pair_at(sums, np.uint64(np.uint32(position[x]) >> np.uint32(16)))
            for x in range(eye_width):
                v = pair[x]
                f = np.uint32(np.uint32(np.uint32(position[x]) >> np.uint32(8)) & np.uint32(255))
                near = np.uint32(v & np.uint32(0xFFFF))
                step_far = np.uint32(np.uint32(np.uint32(v >> np.uint32(16)) - near) * f)
                target[x0 + x] = np.uint32(np.uint32(np.uint32(near << np.uint32(8)) + step_far) + rounding) >> bits
