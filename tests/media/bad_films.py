"""Films that are none, or are damaged: what a job is to be refused for, or to make the best of."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.stream
import numpy as np

from stereospot.media import boxes
from tests.media import shelf
from tests.media.writing import HEIGHT, RATE, WIDTH, Audio, Film, film, frame, sound, write


def _cut(origin: str, keep: float) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        data = shelf.path(origin).read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])

    return make


def _bytes(content: Callable[[], bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(content())

    return make


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        output.start_encoding()
        for packet in sound(stream, Audio(), 1.0):
            output.mux(packet)


def _cover_only(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        cover: Any = output.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        output.start_encoding()
        output.mux(cover.encode(frame(0, 64, 64, "yuvj420p")))
        for packet in sound(stream, Audio(), 1.0):
            output.mux(packet)


def _encrypted(path: Path) -> None:
    """Common encryption by the muxer itself: the sample entry says encv."""
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    write(Film(".mp4", frames=24, container_options=key), path)


def _encrypted_mkv(path: Path) -> None:
    """A Matroska whose video track carries ContentEncodings with encryption (type 1)."""
    encodings = _ebml(0x6D80, _ebml(0x6240, _ebml(0x5033, b"\x01") + _ebml(0x5035, _ebml(0x47E1, b"\x05"))))
    _extended_mkv(path, encodings)


def _dolby(profile: int, compatibility: int) -> bytes:
    """A Dolby Vision configuration record: version 1.0, level 1, metadata and a base layer, no enhancement layer."""
    return bytes([1, 0, profile << 1, 1 << 3 | 0b101, compatibility << 4]) + bytes(19)


def dolby_mp4(path: Path, profile: int, compatibility: int) -> None:
    """An mp4 that says it is Dolby Vision; no decoder of ours looks at its metadata."""
    data = shelf.path("one_frame_mp4").read_bytes()
    path.write_bytes(boxes.extend_sample_entry(data, boxes.box(b"dvcC", _dolby(profile, compatibility))))


def dolby_mkv(path: Path, profile: int, compatibility: int) -> None:
    kind = _ebml(0x41E7, b"dvcC")
    _extended_mkv(path, _ebml(0x41E4, kind + _ebml(0x41ED, _dolby(profile, compatibility))))


def _extended_mkv(path: Path, element: bytes) -> None:
    """A Matroska with one element more in its video track, put in by hand."""
    data = bytearray(shelf.path("one_frame_mkv").read_bytes())
    # Sizes of the parents change, so the elements are rewritten from Tracks on with sizes of eight bytes.
    tracks = data.rindex(b"\x16\x54\xae\x6b")  # the first one is the seek head's
    tracks_size, tracks_body = _ebml_size(data, tracks + 4)
    start = tracks_body + 6 if data[tracks_body] == 0xBF else tracks_body  # the entry, behind a checksum
    assert data[start] == 0xAE
    entry_size, entry_body = _ebml_size(data, start + 1)
    entry = _ebml(0xAE, bytes(data[entry_body : entry_body + entry_size]) + element)
    inner = bytes(data[tracks_body:start]) + entry + bytes(data[entry_body + entry_size : tracks_body + tracks_size])
    rebuilt = bytes(data[:tracks]) + _ebml(0x1654AE6B, inner) + bytes(data[tracks_body + tracks_size :])
    segment = rebuilt.index(b"\x18\x53\x80\x67")
    _, body = _ebml_size(bytearray(rebuilt), segment + 4)
    path.write_bytes(rebuilt[: segment + 4] + b"\x01\xff\xff\xff\xff\xff\xff\xff" + rebuilt[body:])


def _ebml(identifier: int, body: bytes) -> bytes:
    name = identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
    return name + (len(body) | 1 << 56).to_bytes(8, "big") + body


def _ebml_size(data: bytearray, at: int) -> tuple[int, int]:
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & ((1 << (7 * length)) - 1)
    return value, at + length


def _no_frames(path: Path) -> None:
    """A track with a header and not one picture."""
    with av.open(str(path), "w", options={"movflags": "empty_moov"}) as output:
        stream: Any = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        output.start_encoding()


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")


def _concat(path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile sibling.mp4\n")


def _noise_file(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(1_000_000))


def _damaged_middle(path: Path) -> None:
    """A TS with a hole of noise in its middle third: decodes around it."""
    data = bytearray(shelf.path("h264_ts").read_bytes())
    third = len(data) // 3
    data[third : third + 20_000] = np.random.default_rng(2).bytes(20_000)
    path.write_bytes(data)


def _sound_mp3(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libmp3lame", rate=44100)
        output.start_encoding()
        for packet in sound(stream, Audio(rate=44100), 1.0):
            output.mux(packet)


def _picture(path: Path) -> None:
    """A JPEG, whatever its name says."""
    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 64, 64, "yuvj420p", Fraction(1, 25)
    path.write_bytes(b"".join(bytes(packet) for packet in context.encode(frame(0, 64, 64, "yuvj420p"))))


def _payload_missing(path: Path) -> None:
    """A whole index, and not one byte of the pictures it promises."""
    data = shelf.path("h264_faststart_mp4").read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])


def _open_start(path: Path) -> None:
    """An mp4 cut out of a film with open GOPs at a keyframe: its first pictures refer to what was cut away."""
    with av.open(str(shelf.path("h264_open_gop_mkv"))) as source, av.open(str(path), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream, opaque=True)
        keys = 0
        for packet in source.demux(stream):
            keys += bool(packet.size) and packet.is_keyframe
            if packet.size and keys >= 2:
                packet.stream = copy
                output.mux(packet)


def _mid_gop_mp4(path: Path) -> None:
    """An mp4 that begins in the middle of a GOP, at a picture that is marked as a keyframe and is none."""
    with av.open(str(shelf.path("h264_mp4_silent"))) as source, av.open(str(path), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream, opaque=True)
        for number, packet in enumerate(source.demux(stream)):
            if packet.size and number >= 20:
                packet.is_keyframe = packet.is_keyframe or number == 20
                packet.stream = copy
                output.mux(packet)


def _mid_gop(path: Path) -> None:
    """A recording that starts in the middle of a GOP: the first pictures have no reference."""
    with av.open(str(shelf.path("h264_ts"))) as source:
        keys = [packet.pos for packet in source.demux(video=0) if packet.is_keyframe and packet.pos is not None]
    data = shelf.path("h264_ts").read_bytes()
    start = data.index(b"\x47", keys[0] + (keys[1] - keys[0]) // 2)
    start = next(at for at in range(start, start + 188) if data[at] == data[at + 188] == data[at + 376] == 0x47)
    path.write_bytes(data[: 3 * 188] + data[start:])


BAD = shelf.shelved({
    "empty": (".mp4", _bytes(lambda: b"")),
    "text_named_mp4": (".mp4", _bytes(lambda: b"This is no film.\n" * 100)),
    "playlist_m3u8": (".m3u8", _playlist),
    "playlist_named_mp4": (".mp4", _playlist),
    "concat_named_mp4": (".mp4", _concat),
    "noise": (".mp4", _noise_file),
    "audio_only": (".mp4", _audio_only),
    "cover_only": (".mp4", _cover_only),
    "encrypted": (".mp4", _encrypted),
    "encrypted_mkv": (".mkv", _encrypted_mkv),
    "dolby_vision_5_mp4": (".mp4", lambda target: dolby_mp4(target, 5, 0)),
    "dolby_vision_5_mkv": (".mkv", lambda target: dolby_mkv(target, 5, 0)),
    "moov_missing": (".mp4", _cut("h264_mp4", 0.7)),
    "moov_cut": (".mp4", _cut("h264_faststart_mp4", 0.01)),
    "header_cut_mkv": (".mkv", _bytes(lambda: shelf.path("vfr_mkv").read_bytes()[:100])),
    "tail_cut_mp4": (".mp4", _cut("h264_faststart_mp4", 0.6)),
    "tail_cut_mkv": (".mkv", _cut("vfr_mkv", 0.6)),
    "tail_cut_ts": (".ts", _cut("h264_ts", 0.6)),
    "open_start_mp4": (".mp4", _open_start),
    "mid_gop_mp4": (".mp4", _mid_gop_mp4),
    "mid_gop_ts": (".ts", _mid_gop),
    "tail_cut_avi": (".avi", _cut("mpeg4_avi", 0.6)),
    "header_cut_avi": (".avi", _bytes(lambda: shelf.path("mpeg4_avi").read_bytes()[:200])),
    "payload_missing_mp4": (".mp4", _payload_missing),
    "sound_mp3": (".mp3", _sound_mp3),
    "picture_named_mp4": (".mp4", _picture),
    "no_frames": (".mp4", _no_frames),
    "forbidden_codec": (".avi", film(suffix=".avi", codec="utvideo", options={}, frames=4)),
    "damaged_middle_ts": (".ts", _damaged_middle),
})  # fmt: skip
