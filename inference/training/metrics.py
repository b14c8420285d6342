"""How good a relief map is, against rendered truth.

Place in the flow: `trainer.py` prints them while it trains, `bench/relief.py`
tabulates them. numpy only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Score(NamedTuple):
    """Mean absolute error, AbsRel, delta1 (of inverse depth after a fit) and pair order."""

    error: float
    abs_rel: float
    delta1: float
    order: float


def score(relief: NDArray[np.float32], inverse: NDArray, rng: np.random.Generator) -> Score:
    """Compare relief [h, w] with inverse depth [h, w] (-1: no picture).

    A scale and a shift are fitted per picture in inverse depth (least squares; a negative
    scale counts as no relief at all). AbsRel and delta1 (share of pixels whose depth is
    within a factor 1.25) leave out what is farther than about 33 times the nearest. Pair
    order: of 2,000 random pairs that differ by more than 10 %, the share in the right order.
    NaN where the truth has too few such pairs (a flat picture).
    """
    inverse = np.asarray(inverse, np.float32)
    valid = inverse >= 0
    design = np.stack([relief[valid], np.ones(int(valid.sum()))], 1)
    (scale, shift), *_ = np.linalg.lstsq(design, inverse[valid], rcond=None)
    fitted = scale * relief + shift
    if scale < 0:
        fitted = np.full_like(relief, inverse[valid].mean())
    error = float(np.abs(fitted - inverse)[valid].mean())
    use = valid & (inverse > 0.03)
    ratio = inverse[use] / np.clip(fitted[use], 0.03, 2)
    abs_rel = float(np.abs(ratio - 1).mean())
    delta1 = float((np.maximum(ratio, 1 / ratio) < 1.25).mean())
    places = np.flatnonzero(valid)
    a, b = rng.choice(places, 2000), rng.choice(places, 2000)
    d, r = inverse.ravel(), relief.ravel()
    apart = np.abs(d[a] - d[b]) > 0.1 * np.maximum(d[a], d[b]).clip(0.05)
    order = float(((d[a] > d[b]) == (r[a] > r[b]))[apart].mean()) if apart.sum() > 20 else float("nan")
    return Score(error, abs_rel, delta1, order)


def mean(scores: list[Score]) -> Score:
    return Score(*(float(v) for v in np.nanmean(np.array(scores), 0)))
