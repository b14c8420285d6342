"""The warp on a device, for a batch of frames: the same integers as `inference.warp.cpu`, so the same bytes.

torch is imported when a function is first called. What the CPU kernel does by walking along a row is done here by a
running maximum and a binary search; every other step is the same fixed-point arithmetic, element by element.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import importlib
from typing import Any

Tensor = Any


def _torch() -> Any:
    return importlib.import_module("torch")


def invert(
    disparity: Tensor, step: int, width: int, knot: int, knots: int, share_left: int, share_right: int
) -> Tensor:
    """Displacements of both eyes: [n, rows, columns] int32 to [n, 2, rows, knots] int32; units as of `cpu.invert`."""
    torch = _torch()
    count, rows, columns = disparity.shape
    device = disparity.device
    last = (width - 1) << 16
    stride = knot << 16
    cells = torch.arange(columns, device=device, dtype=torch.int64)
    centres = ((2 * cells * step + step - 1) << 15).clamp(0, last)
    ends = torch.tensor([0, last], device=device, dtype=torch.int64)
    place = torch.cat([ends[:1], centres, ends[1:]])
    target = torch.arange(knots, device=device, dtype=torch.int64) * stride
    inside = (target > 0) & (target < last)
    out = torch.zeros((count, 2, rows, knots), device=device, dtype=torch.int32)
    for eye, share in enumerate((share_left, share_right)):
        if share == 0:
            continue
        shift = (disparity.to(torch.int64) * share) >> 8
        edge = ends.expand(count, rows, 2)
        moved = torch.cat([edge[..., :1], centres + shift, edge[..., 1:]], dim=-1)
        sought = target.clamp(1, max(last - 1, 1)).expand(count, rows, -1).contiguous()
        if share > 0:
            reached = moved[..., 1:].cummax(-1).values
            first = torch.searchsorted(reached, sought)
        else:
            reached = (last - moved.flip(-1))[..., 1:].cummax(-1).values.contiguous()
            first = columns - torch.searchsorted(reached, last - sought)
        first = first.clamp(0, columns)
        low, high = moved.gather(-1, first), moved.gather(-1, first + 1)
        ratio = (sought - low).to(torch.float64) / (high - low).to(torch.float64)
        span = (place[first + 1] - place[first]).to(torch.float64)
        found = place[first] + (ratio * span).to(torch.int64)
        found = torch.where(inside, found, target.expand_as(found))
        still = (shift == 0).all(-1, keepdim=True)
        out[:, eye] = torch.where(still, torch.zeros_like(found), found - target).to(torch.int32)
    return out


def render(
    plane: Tensor,
    displacement: Tensor,
    step: int,
    knot: int,
    shift_x: int,
    shift_y: int,
    half_width: int,
    half_height: int,
    out: Tensor,
    eye_width: int,
    eye_height: int,
    left: tuple[int, int],
    right: tuple[int, int],
) -> None:
    """Sample both eyes of one plane of a batch into `out`; arguments as of `cpu.render`.

    plane: [n, height, width] uint8, or int16 or int32 codes for more bits; out: [n, rows, columns] of the same type.
    """
    torch = _torch()
    count, height, width = plane.shape
    rows = displacement.shape[2]
    device = plane.device
    extra = half_width + half_height
    spacing = 65536 << half_width
    pick = 1
    while (knot * pick) >> (shift_x + half_width) == 0:
        pick *= 2
    per_knot = (knot * pick) >> (shift_x + half_width)
    last = (width - 1) << 16
    y = torch.arange(eye_height, device=device, dtype=torch.int64)
    if half_height:
        lines = plane[:, (2 * y).clamp(max=height - 1)].to(torch.int32)
        lines = lines + plane[:, (2 * y + 1).clamp(max=height - 1)].to(torch.int32)
    else:
        lines = plane[:, y.clamp(max=height - 1)].to(torch.int32)
    if half_width:
        lines = lines + torch.cat([lines[..., 1:], lines[..., -1:]], dim=-1)
    beside = torch.cat([lines[..., 1:], lines[..., -1:]], dim=-1)
    g = torch.div((((2 * y + 1) << (shift_y + half_height)) * 128), step, rounding_mode="floor") - 128
    g = g.clamp(0, (rows - 1) * 256)
    top = g >> 8
    bottom = (top + 1).clamp(max=rows - 1)
    weight = (g & 255)[:, None]
    intervals = -(-eye_width // per_knot)
    k = torch.arange(intervals, device=device, dtype=torch.int64)
    t = torch.arange(per_knot, device=device, dtype=torch.int64)
    bits = per_knot.bit_length() - 1
    for eye, (x0, y0) in enumerate((left, right)):
        if x0 < 0:
            continue
        moves = displacement[:, eye, :, ::pick].to(torch.int64)
        above, below = moves[:, top], moves[:, bottom]
        line = (above + ((((below - above) >> 4) * weight) >> 4)) >> shift_x
        base = line[..., :intervals] + k * (per_knot * spacing)
        slope = spacing + ((line[..., 1 : intervals + 1] - line[..., :intervals]) >> bits)
        position = (base[..., None] + t * slope[..., None]).reshape(count, eye_height, -1)[..., :eye_width]
        position = position.clamp(0, last)
        index = position >> 16
        fraction = ((position >> 8) & 255).to(torch.int32)
        value = lines.gather(-1, index) * (256 - fraction) + beside.gather(-1, index) * fraction
        value = (value + (128 << extra)) >> (8 + extra)
        out[:, y0 : y0 + eye_height, x0 : x0 + eye_width] = value.to(out.dtype)
