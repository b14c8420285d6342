"""What must not become a film, and what does though it is damaged: a film is whole, or there is none."""

from __future__ import annotations

import hashlib
import struct
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stereospot import errors
from stereospot.options import Container
from tests.media import films, sources, striking


def refused(job: films.Job, out: Path, **changes: Any) -> errors.StereoSpotError:
    with pytest.raises(errors.StereoSpotError) as caught:
        job.assemble(out, **changes)
    assert not out.exists()
    return caught.value


def test_a_missing_frame_is_found(tmp_path: Path) -> None:
    job = films.job(sources.path_of("vfr_mkv"))
    found = refused(job, tmp_path / "film.mp4", fragments=iter(job.fragments[:-1]))
    assert found.code == "VERIFICATION_FAILED"
    assert found.details == {"frames": 72, "planned": 80}


def test_a_repeated_or_swapped_fragment_is_found(tmp_path: Path) -> None:
    job = films.job(sources.path_of("vfr_mkv"))
    first, second, *rest = job.fragments
    for order in ([first, first, second, *rest], [second, first, *rest]):
        assert refused(job, tmp_path / "film.mp4", fragments=iter(order)).code == "VERIFICATION_FAILED"


def test_other_times_than_planned_are_found(tmp_path: Path) -> None:
    job = films.job(sources.path_of("vfr_mkv"))
    job.total = job.total.model_copy(update={"pts_sha256": "0" * 64})
    assert refused(job, tmp_path / "film.mp4").code == "VERIFICATION_FAILED"


def test_what_the_storage_raises_comes_through(tmp_path: Path) -> None:
    job = films.job(sources.path_of("vfr_mkv"))

    def broken() -> Any:
        yield job.fragments[0]
        raise errors.error("STORAGE_UNAVAILABLE", "gone")

    assert refused(job, tmp_path / "film.mp4", fragments=broken()).code == "STORAGE_UNAVAILABLE"


@pytest.mark.parametrize("blow", [striking.kill, striking.kill_server, striking.pause])
@pytest.mark.parametrize("task", ["film_child:write", "film_child:read_back"])
def test_a_child_that_is_lost_is_not_the_films_fault(
    task: str, blow: striking.Blow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = films.job(sources.path_of("vfr_mkv"))
    with monkeypatch.context() as patched:
        if blow is striking.pause:
            patched.setattr("stereospot.media.limits.NO_PROGRESS_SECONDS", 1.0)
        struck = striking.strike(patched, task, blow)
        found = refused(job, tmp_path / "film.mp4")
        assert len(struck) == 1
    assert isinstance(found, errors.Transient)
    assert found.code == "WORKER_LOST"
    job.assemble(tmp_path / "film.mp4")
    films.check_frames(job, tmp_path / "film.mp4")


def test_cancel(tmp_path: Path) -> None:
    job = films.job(sources.path_of("vfr_mkv"))
    stop = threading.Event()

    def stopping() -> Any:
        yield job.fragments[0]
        stop.set()
        yield from job.fragments[1:]

    assert refused(job, tmp_path / "film.mp4", fragments=stopping(), stop=stop).code == "CANCELLED"


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_a_full_disk(container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own limit on the file's size stands for the full disk: the same failing write."""
    monkeypatch.setattr("stereospot.media.assemble._FILE_BYTES", 20_000)
    job = films.job(sources.path_of("h264_mp4"), container)
    assert refused(job, tmp_path / "film").code == "STORAGE_FULL"


def test_a_plan_of_samples(tmp_path: Path) -> None:
    """Ranges with nothing between them: every frame keeps its time."""
    whole = films.job(sources.path_of("h264_mp4"), "mp4")
    job = films.job(sources.path_of("h264_mp4"), "mp4")
    job.fragments = [whole.fragments[0], whole.fragments[2]]
    job.pts = [*whole.pts[:24], *whole.pts[48:72]]
    digest = hashlib.sha256(struct.pack(f"<{len(job.pts)}q", *job.pts)).hexdigest()
    job.total = job.total.model_copy(
        update={"segments": 2, "frames": 48, "pts_sha256": digest, "end_pts": whole.pts[72]}
    )
    for container in films.CONTAINERS:
        job.plan = job.plan.model_copy(update={"container": container})
        job.assemble(tmp_path / "film")
        found = [float(pts * base) for pts, base, _ in films.frames(tmp_path / "film")]
        assert found == pytest.approx([float(pts * job.plan.encode.time_base) for pts in job.pts], abs=0.0005)


@pytest.mark.parametrize("container", films.CONTAINERS)
@pytest.mark.parametrize("kind", ["h264_ts", "h264_mp4", "h264_open_gop_mkv"])
def test_a_damaged_source(kind: str, container: Container, tmp_path: Path) -> None:
    """The pictures are there already: whatever is left of the sound goes with them, and the film is whole."""
    origin = sources.path_of(kind)
    data = bytearray(origin.read_bytes())
    third = len(data) // 3
    data[third : third + 3000] = np.random.default_rng(3).bytes(3000)
    job = films.job(origin, container)
    job.path = tmp_path / f"damaged{origin.suffix}"
    job.path.write_bytes(data)
    job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    for number in range(len(films.sounds(origin))):
        assert len(films.packets(tmp_path / "film", number)) > len(films.packets(origin, number)) // 4


@pytest.mark.parametrize("container", films.CONTAINERS)
def test_bitmap_subtitles_need_matroska(container: Container, tmp_path: Path) -> None:
    path = tmp_path / "source.mkv"
    end = b"\x80\x00\x00"
    drawn = [b"\x16\x00\x09one drawn" + end, b"\x16\x00\x09two drawn" + end]
    with av.open(str(sources.path_of("vfr_mkv")), "r") as source, av.open(str(path), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0], opaque=True)
        drawings = output.add_mux_stream("hdmv_pgs_subtitle")
        drawings.time_base = Fraction(1, 1000)
        for number, data in enumerate(drawn):
            made = av.Packet(data)
            made.pts = made.dts = 500 + number * 1000
            made.duration = 800
            made.time_base = Fraction(1, 1000)
            made.stream = drawings
            output.mux(made)
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = video
                output.mux(packet)
    job = films.job(path, container)
    report = job.assemble(tmp_path / "film")
    films.check_frames(job, tmp_path / "film")
    assert any("bitmap" in text for text in report.warnings) == (container != "mkv")
    with av.open(str(tmp_path / "film"), "r") as film:
        found = [bytes(packet) for packet in film.demux() if packet.size and packet.stream.type == "subtitle"]
    assert found == (drawn if container == "mkv" else [])


def test_a_sound_without_a_decoder_does_not_fail_the_film(tmp_path: Path) -> None:
    """A codec that is on nobody's list: mp4 leaves it out and says so, Matroska keeps what it can hold."""
    path = tmp_path / "source.avi"
    film = sources.Film(".avi", codec="mpeg4", options={"g": "31"}, frames=30, audio=(sources.Audio("adpcm_yamaha"),))
    sources.write(film, path)
    for container in films.CONTAINERS:
        job = films.job(path, container)
        report = job.assemble(tmp_path / "film")
        films.check_frames(job, tmp_path / "film")
        assert films.sounds(tmp_path / "film") == []
        assert any("left out" in text for text in report.warnings)
