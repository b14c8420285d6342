"""Sound while converting: every segment has a chunk of every track, at the source's own time."""

from __future__ import annotations

import io
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stereospot import errors
from stereospot.media import audio, boxes
from stereospot.media.audio import AudioChunk
from stereospot.media.model import Segment
from stereospot.media.source import FileSource
from tests.media import films, sources
from tests.media.edits import with_edits

LAGS = range(-1024, 1025)


def segments(job: films.Job, frames: int = 24) -> list[Segment]:
    starts = [*range(0, len(job.pts), frames)]
    ends = [*(job.pts[at] for at in starts[1:]), job.total.end_pts]
    return [
        Segment(index=n, start=job.pts[at], end=None, frames=1, last=job.pts[at], duration=end - job.pts[at])
        for n, (at, end) in enumerate(zip(starts, ends, strict=True))
    ]


def cut(job: films.Job, wanted: list[Segment], *, part: int = 2, **more: Any) -> list[AudioChunk]:
    """The chunks of segments that become known `part` at a time."""
    source = FileSource(job.path)
    try:
        return list(audio.cut(source, job.plan.source, job.plan, films.parts(wanted, part), **more))
    finally:
        source.close()


def played(chunks: list[AudioChunk], track: int = 0) -> tuple[Any, int, Fraction]:
    """([channels, samples], rate, start in seconds) of a track as a player hears it."""
    data = b"".join(chunk.data for chunk in chunks if chunk.track == track)
    with av.open(io.BytesIO(data), "r") as container:
        frames = list(container.decode(container.streams.audio[0]))
    assert frames[0].pts is not None
    assert frames[0].time_base is not None
    start = frames[0].pts * frames[0].time_base
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1), frames[0].sample_rate, start


@pytest.mark.parametrize("kind", ["h264_mp4", "mpeg4_avi"])
def test_chunks_do_not_depend_on_when_their_segments_are_known(kind: str) -> None:
    job = films.job(sources.path_of(kind))
    wanted = segments(job)
    assert len(wanted) > 3
    assert cut(job, wanted, part=1) == cut(job, wanted, part=len(wanted))


KINDS = ["h264_mp4", "h264_open_gop_mkv", "h264_ts", "mpeg4_avi", "delayed_mp4", "prores_mov", "mpeg2_ts", "h264_flv"]


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_follow_the_segments(kind: str) -> None:
    job = films.job(sources.path_of(kind))
    wanted = segments(job)
    chunks = cut(job, wanted)
    time_base = job.plan.encode.time_base
    for track in range(len(job.plan.source.audio)):
        mine = [chunk for chunk in chunks if chunk.track == track]
        assert [chunk.index for chunk in mine] == [None, *range(len(wanted))]
        rate = boxes.timescale(mine[0].data)
        assert boxes.codec_string(mine[0].data) == "mp4a.40.2"
        following: int | None = None
        for chunk, segment in zip(mine[1:], wanted, strict=True):
            samples = boxes.read_fragment(chunk.data)
            error = Fraction(samples[0].time, rate) - segment.start * time_base
            assert abs(error) < Fraction(1024, rate)
            assert following in (None, samples[0].time)
            assert all(sample.duration == 1024 and sample.key for sample in samples)
            following = samples[-1].time + 1024
        end = wanted[-1].start + wanted[-1].duration
        assert following is not None
        assert abs(Fraction(following, rate) - end * time_base) < Fraction(1024, rate)


@pytest.mark.parametrize("kind", ["h264_open_gop_mkv", "mpeg4_avi", "prores_mov", "mpeg2_ts", "h264_mp4", "h264_ts"])
def test_the_sound_is_where_it_was(kind: str) -> None:
    """Not a sample early or late, whether it was passed on or encoded anew."""
    job = films.job(sources.path_of(kind))
    (heard, rate, start), source = played(cut(job, segments(job))), films.sounds(job.path)[0]
    scale = {"int16": 1 << 15, "int32": 1 << 31}.get(source.pcm.dtype.name, 1)
    wanted = source.pcm.astype(np.float64) / scale
    offset = round((float(start) - source.start) * rate)
    wanted = wanted[:, max(0, offset) :]
    assert offset >= -1024
    heard = heard[:, max(0, -offset) :]
    window = slice(6000, 20000)
    errors_by_lag = {
        lag: float(np.abs(wanted[0, window] - heard[0, window.start + lag : window.stop + lag]).mean())
        for lag in (-1024, -64, -1, 0, 1, 64, 1024)
    }
    assert min(errors_by_lag, key=errors_by_lag.__getitem__) == 0
    assert errors_by_lag[0] < 0.02


def test_aac_is_passed_on() -> None:
    job = films.job(sources.path_of("h264_mp4"))
    chunks = cut(job, segments(job))
    for track in range(2):
        with av.open(str(job.path), "r") as container:
            stream = container.streams.audio[track]
            original = [bytes(packet) for packet in container.demux(stream) if packet.size and (packet.pts or 0) >= 0]
        found: list[bytes] = []
        for chunk in chunks:
            if chunk.track == track and chunk.index is not None:
                for sample in boxes.read_fragment(chunk.data):
                    found.append(chunk.data[sample.position : sample.position + sample.size])
        assert found == original[: len(found)]


def holed(path: Path, codec: str, suffix: str) -> Path:
    """Sound from 0.5 s to 1.5 s and from 3 s to 3.5 s of a film of four seconds."""
    with av.open(str(path.with_suffix(suffix)), "w") as output:
        video: Any = output.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = output.add_stream(codec, rate=48000)
        output.start_encoding()
        packets: list[Any] = []
        for number in range(96):
            frame = sources.frame(number, 64, 48)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            packets += video.encode(frame)
        packets += video.encode(None)
        resampler = av.AudioResampler(format=sound.codec_context.format.name, layout="stereo", rate=48000)
        size = sound.codec_context.frame_size or 1024
        for first, last in ((24000, 72000), (144000, 168000)):
            for start in range(first, last - size, size):
                made = av.AudioFrame.from_ndarray(sources.tone(start, size, 48000), format="fltp", layout="stereo")
                made.sample_rate, made.pts, made.time_base = 48000, start, Fraction(1, 48000)
                for part in resampler.resample(made):
                    packets += sound.encode(part)
        packets += sound.encode(None)
        packets.sort(key=lambda packet: float(packet.dts * packet.time_base))
        output.mux(packets)
    return path.with_suffix(suffix)


def begins_with_priming(path: Path) -> Path:
    """Matroska as FFmpeg writes it: the first frame at -21 ms."""
    sources.write(sources.Film(suffix=".mkv", frames=96, audio=(sources.Audio("aac"),)), path.with_suffix(".mkv"))
    return path.with_suffix(".mkv")


@pytest.mark.parametrize("late", [False, True])
def test_a_first_frame_that_begins_before_the_film(late: bool, tmp_path: Path) -> None:
    """One run of frames without a gap or an overlap, in players as in the source: the init takes back what is later."""
    path = holed(tmp_path / "source", "aac", ".mkv") if late else begins_with_priming(tmp_path / "source")
    job = films.job(path)
    chunks = cut(job, segments(job))
    samples = [sample for chunk in chunks[1:] for sample in boxes.read_fragment(chunk.data)]
    assert [sample.time for sample in samples] == [1024 * number for number in range(len(samples))]
    assert not any(sample.offset for sample in samples)
    with av.open(str(path), "r") as source:
        (first, *_) = [packet for packet in source.demux(source.streams.audio[0]) if packet.size]
        assert first.pts is not None
        wanted = round(first.pts * first.time_base * 48000)
    with av.open(io.BytesIO(b"".join(chunk.data for chunk in chunks)), "r") as played_back:
        times = [packet.pts for packet in played_back.demux(played_back.streams.audio[0]) if packet.size]
    assert -1024 < (times[0] or 0) < 0
    assert times == [(times[0] or 0) + 1024 * number for number in range(len(times))]
    assert wanted in times
    (heard, rate, start), source_sound = played(chunks), films.sounds(path)[0]
    if not late:
        assert (rate, start, source_sound.start) == (48_000, 0, 0)
        for place in (2000, 40_000, 48_100, 150_000):  # in the first chunk, about its end, in the last
            there, here = source_sound.pcm[:, place : place + 9000], heard[:, place + 16 : place + 9016]
            assert np.abs(there - here).max() < 1e-4, "16 samples: the source rounds to milliseconds"


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".mkv"), ("ac3", ".mkv"), ("aac", ".ts")])
def test_holes_are_silent_and_nothing_moves(codec: str, suffix: str, tmp_path: Path) -> None:
    job = films.job(holed(tmp_path / "source", codec, suffix))
    wanted = segments(job)
    chunks = cut(job, wanted)
    assert [chunk.index for chunk in chunks] == [None, 0, 1, 2, 3]
    heard, rate, start = played(chunks)
    zero = wanted[0].start * job.plan.encode.time_base

    def loudness(first: float, last: float) -> float:
        at = slice(round((first + float(zero - start)) * rate), round((last + float(zero - start)) * rate))
        return float(np.abs(heard[0, at]).mean())

    assert heard.shape[1] / rate == pytest.approx(4.0, abs=0.05)
    assert loudness(0.6, 1.4) > 0.1
    assert loudness(3.1, 3.4) > 0.1
    assert loudness(0.05, 0.4) < 0.01
    assert loudness(1.7, 2.8) < 0.01
    assert loudness(3.7, 3.95) < 0.01


def test_what_an_edit_list_took_out_stays_out(tmp_path: Path) -> None:
    """A clip that was cut without encoding it anew: the sound behind the cut is not late."""
    path = with_edits(sources.path("h264_mp4"), tmp_path / "cut.mp4", (2000, 1024), (1000, 1024 + 3 * 48_000))
    job = films.job(path)
    (heard, rate, start), whole = played(cut(job, segments(job))), films.sounds(sources.path("h264_mp4"))[0].pcm
    assert (rate, start) == (48_000, 0)
    for second, place in ((0.5, 0.5), (1.5, 1.5), (2.2, 3.2)):
        here, there = round(second * rate), round(place * rate)
        # Packets are kept or left out whole: the cut is in its place to one of them.
        lags = [np.abs(whole[0, there + lag : there + lag + 9000] - heard[0, here : here + 9000]).max() for lag in LAGS]
        assert min(lags) < 0.02, second


@pytest.mark.parametrize(("codec", "layout"), [("pcm_s16le", "9 channels"), ("pcm_f32le", "11 channels")])
def test_many_channels_without_names_are_heard_and_silence_no_other_track(
    codec: str, layout: str, tmp_path: Path
) -> None:
    """swresample has no stereo of such: the first two are taken."""
    path = tmp_path / "source.mkv"
    with av.open(str(sources.path_of("h264_mp4")), "r") as source, av.open(str(path), "w") as output:
        kept: dict[int, Any] = {
            stream.index: output.add_stream_from_template(stream, opaque=True)
            for stream in (source.streams.video[0], source.streams.audio[0])
        }
        many: Any = output.add_stream(codec, rate=48000, layout=layout)
        output.start_encoding()
        packets: list[Any] = [packet for packet in source.demux() if packet.size and packet.stream_index in kept]
        for packet in packets:
            packet.stream = kept[packet.stream_index]
        for start in range(0, 4 * 48000, 4800):
            samples = np.zeros((4800, many.codec_context.channels), np.float32)
            samples[:, :2] = sources.tone(start, 4800, 48000).T
            made = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
            made.sample_rate, made.pts, made.time_base = 48000, start, Fraction(1, 48000)
            for frame in av.AudioResampler(format=many.codec_context.format.name, layout=layout).resample(made):
                packets += many.encode(frame)
        packets.sort(key=lambda packet: float(packet.dts * packet.time_base))
        output.mux(packets)
    job = films.job(path)
    wanted = segments(job)
    chunks = cut(job, wanted)
    for track in range(2):
        assert [chunk.index for chunk in chunks if chunk.track == track] == [None, *range(len(wanted))]
        heard, rate, _ = played(chunks, track)
        assert min(np.abs(heard[:, at * rate : (at + 1) * rate]).mean() for at in range(3)) > 0.1


def test_a_film_of_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "source.mp4"
    sources.write(sources.Film(".mp4", frames=1, rate=Fraction(60), audio=(sources.Audio(),)), path)
    job = films.job(path)
    chunks = cut(job, segments(job))
    assert [chunk.index for chunk in chunks] == [None, 0]
    assert boxes.read_fragment(chunks[1].data)


def test_samples_are_cut_where_they_are() -> None:
    job = films.job(sources.path_of("h264_mp4"))
    some = [segments(job)[1], segments(job)[3]]
    chunks = cut(job, some)
    times = [boxes.read_fragment(chunk.data)[0].time / 48000 for chunk in chunks if chunk.track == 0 and chunk.index]
    assert times == pytest.approx([1.0, 3.0], abs=0.022)
    assert [chunk.index for chunk in chunks if chunk.track == 0] == [None, 1, 3]


def test_no_sound_no_chunk() -> None:
    job = films.job(sources.path_of("vfr_mkv"))
    assert cut(job, segments(job)) == []


def test_cancel() -> None:
    job = films.job(sources.path_of("h264_mp4"))
    stop = threading.Event()
    stop.set()
    with pytest.raises(errors.Permanent) as caught:
        cut(job, segments(job), stop=stop)
    assert caught.value.code == "CANCELLED"
