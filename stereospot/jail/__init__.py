"""The jail: untrusted bytes are only ever parsed in a child that can do nothing else.

    with Jail("stereospot.media.probe:child", {"…": 1}, sources=[source]) as jail:
        for message in jail.messages():      # JSON body and bytes; every number is still the child's word
            ...

A forkserver with PyAV and numpy preloaded is started once, clean: an environment of its own without credentials, no
inherited descriptor, no file system and no network where the kernel can take them away (`layers`). Each task is a fork
of it (about 10 ms) that gets one socket for messages, one socket a source for ranged reads that the parent serves, and
optionally output descriptors that it cannot name and a shared-memory ring for frames. A task that dies, hangs or lies
fails its own work: the parent turns death into DECODER_CRASHED, silence into DECODE_STALLED, and re-checks each answer.
"""

from __future__ import annotations

from stereospot.jail.cell import Cell, SourceFile
from stereospot.jail.forkserver import Forkserver, warm
from stereospot.jail.jail import Jail, JailLimits
from stereospot.jail.wire import Message

__all__ = ["Cell", "Forkserver", "Jail", "JailLimits", "Message", "SourceFile", "warm"]
