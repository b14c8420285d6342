"""What becomes of each sound of the source on its way into an mp4 or mov.

    copied    packets as they are (`copied`)
    lossless  decoded and packed as FLAC in mp4, as PCM in mov, where the container cannot hold the codec, or not its
              form (`forms`, `lossless`)

Nothing is ever encoded with loss for the film.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from stereospot.media.carried import Carried, name_of
from stereospot.media.copied import Copied
from stereospot.media.forms import Form
from stereospot.media.lossless import Lossless

MP4_AUDIO = frozenset(("aac", "mp3", "ac3", "eac3", "dts", "opus", "flac", "alac", "vorbis"))
"""Audio that mp4 holds as it is. Integer PCM is left out: players take FLAC in mp4, hardly any takes `ipcm`. MP2 has no
object type of its own there and reads back as MP3."""

MOV_AUDIO = frozenset(("aac", "mp3", "ac3", "eac3", "alac"))
"""What QuickTime files hold beside PCM; libavformat refuses Opus, FLAC and Vorbis in them."""

_PCM_BYTES = {
    "pcm_s16le": 2, "pcm_s16be": 2, "pcm_s24le": 3, "pcm_s24be": 3, "pcm_s32le": 4, "pcm_s32be": 4,
    "pcm_f32le": 4, "pcm_f32be": 4, "pcm_f64le": 8, "pcm_f64be": 8, "pcm_alaw": 1, "pcm_mulaw": 1,
}  # fmt: skip
_FLOAT_PCM = frozenset(("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be"))


def carry_audio(stream: Any, container: str, origin: Fraction, *, form: Form | None = None) -> Carried:
    """How an audio stream goes into an mp4 or mov; form: of one that `forms` found, which is decoded."""
    if form is not None:
        return Lossless(stream, origin, pcm=container == "mov", form=form)
    name = name_of(stream)
    if name in _FLOAT_PCM or (container == "mov" and name in _PCM_BYTES):
        return Copied(stream, origin, block=_PCM_BYTES[name] * stream.codec_context.channels)
    if name in (MOV_AUDIO if container == "mov" else MP4_AUDIO):
        return Copied(stream, origin)
    return Lossless(stream, origin, pcm=container == "mov")
