"""Endpoints that answer the http backend badly, late, or not at all."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from inference.backends import handover
from stereospot import errors
from stereospot.media.cmaf import FragmentEncoder
from stereospot.media.model import Plan
from stereospot.storage.local import LocalStore
from tests.faults.disk import small_disk
from tests.system import remote
from tests.system.remote import HEIGHT, WIDTH, backend, locally
from tests.unit import clips
from tests.unit.clips import decoded


def answer(pictures: list[tuple[np.ndarray, ...]], plan: Plan, order: list[int]) -> bytes:
    """An answer whose pictures are those of the segment in another order."""
    wanted = locally(pictures, plan, 0, 12)
    shown = decoded(wanted.fragment)
    height, width = plan.encode.height, plan.encode.width
    encoder = FragmentEncoder(plan.encode)
    for place, index in enumerate(order):
        flat = shown[index].reshape(-1)
        y, u = height * width, height * width // 4
        planes = [
            flat[:y].reshape(height, width),
            flat[y : y + u].reshape(height // 2, width // 2),
            flat[y + u :].reshape(height // 2, width // 2),
        ]
        encoder.write(planes, place * clips.TICKS)
    made = encoder.finish(len(order) * clips.TICKS)
    return b'{"status": "ok"}\n' + made.init + made.media


WIRE = handover.WIRE_TYPE


FULL = list(range(12))


@pytest.mark.parametrize(
    ("status", "kind", "body", "code", "words"),
    [
        (200, "text/html", b"<html>", "REMOTE_INVALID", "text/html"),
        (200, WIRE, b"", "REMOTE_INVALID", "empty"),
        (200, WIRE, b"no json\nrubbish", "REMOTE_INVALID", "not JSON"),
        (200, WIRE, b'{"status": "sulking"}\n', "REMOTE_INVALID", "sulking"),
        (200, WIRE, b'{"status": "ok"}\n', "REMOTE_INVALID", "cannot be read"),
        (200, WIRE, b'{"status": "ok"}\n' + b"rubbish" * 999, "REMOTE_INVALID", "cannot be read"),
        (200, WIRE, b'{"status": "ok"}\n' + bytes(64 << 20), "REMOTE_INVALID", "more than"),
        (200, WIRE, FULL[:6], "REMOTE_INVALID", "6 of the segment's 12"),
        (200, WIRE, [*FULL, 11], "REMOTE_INVALID", "more than the segment's 12"),
        (200, WIRE, [*FULL[3:], 0, 1, 2], "REMOTE_INVALID", "out of order"),
        (200, WIRE, [0, *FULL[:11]], "REMOTE_INVALID", "out of order"),
        (500, "application/json", b'{"error": "no GPU", "code": "X"}', "REMOTE_FAILED", "HTTP 500: X no GPU"),
        (400, "application/json", b'{"error": "bad mode"}', "REMOTE_FAILED", "bad mode"),
        (307, "text/plain", b"", "REMOTE_FAILED", "HTTP 307"),
    ],
)
def test_bad_answers(status: int, kind: str, body: bytes | list[int], code: str, words: str) -> None:
    moving = fast(12)
    plan = clips.plan(WIDTH, HEIGHT, engine="flat", divergence=0.0)
    sent = body if isinstance(body, bytes) else answer(moving, plan, body)
    clip = clips.Clip(moving)
    with remote.serving(remote.Parrot(status, sent, kind)) as url, pytest.raises(errors.Transient) as caught:
        backend(url).convert(decoder=clip, plan=plan, segment=clips.segment(0, 0, 12))
    assert caught.value.code == code
    assert words in str(caught.value)
    assert not clip.lent


def test_half_a_film_and_another_film() -> None:
    moving = fast(12)
    plan = clips.plan(WIDTH, HEIGHT, engine="flat", divergence=0.0)
    good = answer(moving, plan, FULL)
    other = answer(clips.pictures(12, WIDTH, HEIGHT, seed=99), plan, FULL)
    wide = clips.plan(2 * WIDTH, HEIGHT, engine="flat", divergence=0.0)
    sized = answer(clips.pictures(12, 2 * WIDTH, HEIGHT), wide, FULL)
    for sent, words in ((good[:-2000], ""), (other, "something else"), (sized, "not 160x90")):
        with remote.serving(remote.Parrot(200, sent, WIRE)) as url, pytest.raises(errors.Transient) as caught:
            backend(url).convert(decoder=clips.Clip(moving), plan=plan, segment=clips.segment(0, 0, 12))
        assert caught.value.code == "REMOTE_INVALID"
        assert words in str(caught.value)
    with remote.serving(remote.Parrot(200, good, WIRE)) as url:
        backend(url).convert(decoder=clips.Clip(moving), plan=plan, segment=clips.segment(0, 0, 12))


def fast(count: int) -> list[tuple[np.ndarray, ...]]:
    """Pictures whose brightness changes from frame to frame, so that their order shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    chroma = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    return [
        (
            np.clip(60 + 90 * (np.sin((x + 14 * i) / 25.0) + 0.3 * np.sin(y / 9.0)), 16, 235).astype(np.uint8),
            chroma,
            chroma,
        )
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (200, b'{"status": "ok", "report": {"fps": 2.5}}', "REMOTE_INVALID", "stored nothing"),
        (500, b'{"error": "no GPU", "code": "X"}', "REMOTE_FAILED", "HTTP 500: X no GPU"),
    ],
)
def test_an_answer_in_two_pieces(
    status: int, body: bytes, code: str, words: str, tmp_path: Path, pictures: list[tuple[np.ndarray, ...]]
) -> None:
    """All of it is read, however it comes: the endpoint's word is understood."""
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    parrot = remote.Parrot(status, body, "application/json", pause=0.2)
    with remote.serving(parrot) as url, pytest.raises(errors.Transient) as caught:
        backend(url, transport="storage", store=LocalStore(tmp_path)).convert(
            decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 5)
        )
    assert caught.value.code == code
    assert words in str(caught.value)


def test_an_endpoint_that_never_answers(pictures: list[tuple[np.ndarray, ...]]) -> None:
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    began = time.monotonic()
    with remote.serving(remote.Parrot(200, b"", WIRE, hang=True)) as url, pytest.raises(errors.Transient) as caught:
        backend(url, timeout_seconds=0.5).convert(
            decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 5)
        )
    assert caught.value.code == "REMOTE_FAILED"
    assert "No answer" in str(caught.value)
    assert time.monotonic() - began < 15


def test_an_endpoint_that_is_not_there(pictures: list[tuple[np.ndarray, ...]]) -> None:
    with remote.serving(remote.Parrot(200, b"", WIRE)) as url:
        pass
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    with pytest.raises(errors.Transient) as caught:
        backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 5))
    assert caught.value.code == "REMOTE_FAILED"


def test_a_broken_connection(pictures: list[tuple[np.ndarray, ...]]) -> None:
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    parrot = remote.Parrot(200, b'{"status": "ok"}\nhalf', WIRE, cut=True)
    with remote.serving(parrot) as url, pytest.raises(errors.Transient) as caught:
        backend(url).convert(decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 5))
    assert caught.value.code == "REMOTE_FAILED"


def test_no_room_for_the_answer_is_no_failure_of_the_endpoint(
    tmp_path: Path, pictures: list[tuple[np.ndarray, ...]]
) -> None:
    plan = clips.plan(WIDTH, HEIGHT, engine="flat")
    parrot = remote.Parrot(200, b'{"status": "ok"}\n' + bytes(1 << 20), WIRE)
    with small_disk(tmp_path, 8) as disk, remote.serving(parrot) as url:
        scratch = disk.folder / "scratch"
        scratch.mkdir()
        disk.fill(leaving=1 << 16)
        with pytest.raises(errors.Transient) as caught:
            backend(url, scratch=scratch).convert(
                decoder=clips.Clip(pictures), plan=plan, segment=clips.segment(0, 0, 5)
            )
        assert caught.value.code == "STORAGE_FULL", caught.value
        assert list(scratch.iterdir()) == []
