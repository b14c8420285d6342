"""The QR codes of the launch page, read as a camera would: they lead where the page says, and that works."""

from __future__ import annotations

import html
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
import zxingcpp

from tests.support import Nats, eventually
from tests.system.gateway import served
from tests.system.showing import Showing
from tests.system.test_gateway_access import AWAY, launch_page, without_a_key

PIXELS = 6
"""A module's width in the picture that is read."""


def drawn(svg: str) -> np.ndarray:
    """The picture of a code: its path, whose strokes are one module high, on the white paper below it."""
    size = re.search(r'viewBox="0 0 (\d+) \1"', svg)
    scale = re.search(r'transform="scale\((\d+)\)"', svg)
    path = re.search(r' d="([^"]+)"', svg)
    assert size is not None
    assert scale is not None
    assert path is not None
    modules = int(size[1]) // int(scale[1])
    dark = np.zeros((modules, modules), bool)
    x = y = 0.0
    for command, numbers in re.findall(r"([Mmh])([-\d. ]+)", path[1]):
        values = [float(number) for number in numbers.split()]
        if command == "h":
            dark[int(y), int(x) : int(x + values[0])] = True
            x += values[0]
        else:
            x, y = (values[0], values[1]) if command == "M" else (x + values[0], y + values[1])
    return np.kron(np.where(dark, 0, 255), np.ones((PIXELS, PIXELS))).astype(np.uint8)


def read(svg: str) -> str:
    """What a camera makes of a code."""
    (found,) = zxingcpp.read_barcodes(drawn(svg))
    assert found.format == zxingcpp.BarcodeFormat.QRCode
    return found.text


@pytest.mark.parametrize("is_begun", [False, True])
async def test_a_camera_reads_what_the_page_says(server: Nats, tmp_path: Path, is_begun: bool) -> None:
    async with served(server, tmp_path, host="0.0.0.0") as gateway:
        showing = Showing(gateway.context, "J1")
        await showing.begin()
        if is_begun:
            await showing.convert(0)

        async def page() -> str:
            found = await launch_page(gateway, "J1")
            return found if found.count('class="way"') == 1 + is_begun else ""

        shown = await eventually(page, what="all ways")
        ways = re.findall(r'<section class="way">(.*?)</section>', shown, re.DOTALL)
        for way in ways:
            address = html.unescape(re.findall(r'<p class="hash"><a href="([^"]+)"', way)[0])
            assert httpx.URL(address).netloc.decode() == AWAY
            assert read(way[way.index("<svg") : way.index("</svg>")]) == address
            await without_a_key(gateway, httpx.URL(address).raw_path.decode())
