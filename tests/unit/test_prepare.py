"""The small pictures: their resampling is the weighted sum that it says it is, for any number of rows."""

from __future__ import annotations

import numpy as np
import pytest

from inference import prepare


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 112])
def test_resampling_is_the_sum_of_its_weights(rows: int) -> None:
    rng = np.random.default_rng(rows)
    picture = rng.integers(0, 256, (40, 31), np.uint8)
    y_taps, x_taps, columns = 3, 5, 11
    y_first = rng.integers(0, 40 - y_taps + 1, rows).astype(np.int32)
    x_first = rng.integers(0, 31 - x_taps + 1, columns).astype(np.int32)
    y_weights, x_weights = (rng.random(size, np.float32) for size in ((rows, y_taps), (columns, x_taps)))
    y_weights[0, 0] = 0
    out = np.full((rows, columns), -1, np.float32)
    prepare.resample(picture, y_first, y_weights, x_first, x_weights, out)
    taken = picture[y_first[:, None] + np.arange(y_taps)].astype(np.float64)  # rows, taps, source
    lines = (taken * y_weights[..., None]).sum(1)
    wanted = (lines[:, x_first[:, None] + np.arange(x_taps)] * x_weights).sum(-1)
    assert np.allclose(out, wanted, rtol=1e-5)
