"""Gateways of one broker share one secret, whatever their own folders had."""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.gateway import access, tokens
from stereospot.bus import Bus
from stereospot.settings import Settings


async def test_what_one_gateway_gives_out_is_good_at_another(bus: Bus, tmp_path: Path) -> None:
    hosts = [Settings(data_dir=tmp_path / name) for name in ("a", "b", "c")]
    paths = [host.data_dir / "gateway.secret" for host in hosts]
    before = [tokens.load_secret(path) for path in paths[:2]]  # these two ran alone once; the third is new
    assert before[0] != before[1]
    await tokens.agree(bus, paths[0])
    await asyncio.gather(*(tokens.agree(bus, path) for path in paths))
    assert {tokens.load_secret(path) for path in paths} == {before[0]}
    assert len({access.access_key(host) for host in hosts}) == 1
    token = tokens.Tokens(tokens.load_secret(paths[0])).issue("j")
    assert tokens.Tokens(tokens.load_secret(paths[2])).check(token) == "j"
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o600] * 3
    assert [sorted(entry.name for entry in host.data_dir.iterdir()) for host in hosts] == [["gateway.secret"]] * 3


async def test_gateways_that_start_at_once_agree(bus: Bus, tmp_path: Path) -> None:
    paths = [tmp_path / str(number) / "gateway.secret" for number in range(4)]
    await asyncio.gather(*(tokens.agree(bus, path) for path in paths))
    assert len({tokens.load_secret(path) for path in paths}) == 1
