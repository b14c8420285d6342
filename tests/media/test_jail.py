"""The jail: real forks, real signals, real sockets; what goes in, what comes out, and what cannot."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stereospot.errors import StereoSpotError, Transient, error
from stereospot.jail import Forkserver, Jail, JailLimits
from stereospot.media.source import FileSource
from tests.support import wait_until

TASKS = "tests.media.jail_tasks:"
PRELOAD = ("av", "numpy", "tests.media.jail_tasks")


@pytest.fixture(scope="module")
def server() -> Iterator[Forkserver]:
    found = Forkserver("auto", PRELOAD)
    yield found
    found.close()


@pytest.fixture
def noise(tmp_path: Path) -> Iterator[FileSource]:
    path = tmp_path / "noise.bin"
    path.write_bytes(os.urandom(3 * 2**20 + 12345))
    source = FileSource(path)
    yield source
    source.close()


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie that only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def failure_of(jail: Jail) -> StereoSpotError:
    with pytest.raises(StereoSpotError) as caught, jail:
        list(jail.messages())
    return caught.value


def test_messages_travel_both_ways_with_bytes(server: Forkserver) -> None:
    with Jail(TASKS + "echo", {"a": 1}, server=server) as jail:
        for number in range(3):
            jail.send({"n": number}, bytes(range(200)))
            message = jail.receive()
            assert message is not None
            assert message.body == {"request": {"a": 1}, "body": {"n": number}}
            assert message.blob == bytes(range(200))[::-1]
        jail.send({"go": False})
        assert jail.receive() is None
        assert jail.receive() is None


def test_a_source_is_read_whole_and_each_block_once(server: Forkserver, noise: FileSource) -> None:
    with Jail(TASKS + "digest", {}, sources=[noise], server=server) as jail:
        (message,) = jail.messages()
        assert message.body["sha256"] == hashlib.sha256(noise.read_at(0, noise.size)).hexdigest()
        assert jail.bytes_read == noise.size


def test_ranges_across_blocks_and_past_the_end(server: Forkserver, noise: FileSource) -> None:
    ranges = [(0, 10), (2**20 - 5, 10), (2**20 - 5, 2 * 2**20), (noise.size - 7, 100), (noise.size + 5, 3)]
    with Jail(TASKS + "read_at", {"ranges": ranges}, sources=[noise], server=server) as jail:
        for (offset, length), message in zip(ranges, jail.messages(), strict=True):
            assert message.blob == noise.read_at(offset, length)


def test_read_ahead_gives_the_same_bytes(server: Forkserver, noise: FileSource) -> None:
    noise.read_ahead = 3
    with Jail(TASKS + "digest", {}, sources=[noise], server=server) as jail:
        (message,) = jail.messages()
    assert message.body["sha256"] == hashlib.sha256(noise.read_at(0, noise.size)).hexdigest()


def test_an_output_is_written_through_a_descriptor_without_a_name(server: Forkserver, noise: FileSource) -> None:
    limits = JailLimits(file_bytes=2**30)
    with tempfile.TemporaryFile() as file:
        with Jail(TASKS + "write", {}, sources=[noise], outputs=[file.fileno()], limits=limits, server=server) as jail:
            assert list(jail.messages()) == []
        file.seek(0)
        assert file.read() == noise.read_at(0, noise.size)


def test_shared_memory_is_seen_and_outlives_the_jail(server: Forkserver) -> None:
    with Jail(TASKS + "fill_ring", {}, ring_bytes=2**20, server=server) as jail:
        (message,) = jail.messages()
        assert message.body == {"size": 2**20}
        assert jail.ring is not None
        view = memoryview(jail.ring)
    assert bytes(view[256:512]) == bytes(range(256))
    view.release()


@pytest.mark.parametrize("how", ["SIGKILL", "SIGABRT", "segv"])
def test_death_by_a_signal_is_named(server: Forkserver, how: str) -> None:
    failure = failure_of(Jail(TASKS + "die", {"how": how}, server=server))
    assert failure.code == "DECODER_CRASHED"
    assert failure.details["signal"] == {"segv": "SIGSEGV"}.get(how, how)
    assert how != "segv" or "Segmentation fault" in failure.details["stderr"]


@pytest.mark.parametrize("how", ["exit", "nonsense"])
def test_a_child_that_vanishes_or_lies_has_crashed(server: Forkserver, how: str) -> None:
    assert failure_of(Jail(TASKS + "die", {"how": how}, server=server)).code == "DECODER_CRASHED"


def test_the_next_task_works_after_a_crash(server: Forkserver, noise: FileSource) -> None:
    failure_of(Jail(TASKS + "die", {"how": "SIGKILL"}, server=server))
    with Jail(TASKS + "digest", {}, sources=[noise], server=server) as jail:
        assert len(list(jail.messages())) == 1


def test_errors_keep_their_code_and_lose_control_characters(server: Forkserver) -> None:
    failure = failure_of(Jail(TASKS + "fail", {"how": "ours"}, server=server))
    assert (failure.code, failure.detail, failure.details) == ("ENCRYPTED_INPUT", "locked [31m", {"frames": 3})
    assert failure_of(Jail(TASKS + "fail", {"how": "other"}, server=server)).code == "INTERNAL"


def test_memory_is_limited(server: Forkserver) -> None:
    limits = JailLimits(memory_bytes=2**30)
    failure = failure_of(Jail(TASKS + "fail", {"how": "memory", "bytes": 2 * 2**30}, limits=limits, server=server))
    assert failure.code == "OUT_OF_MEMORY"


def test_cpu_time_is_limited(server: Forkserver) -> None:
    failure = failure_of(Jail(TASKS + "spin", {}, limits=JailLimits(cpu_seconds=1), server=server))
    assert (failure.code, failure.detail) == ("DECODE_STALLED", "The limit of CPU time was reached.")


def test_silence_is_a_stall_and_the_whole_group_dies(server: Forkserver) -> None:
    limits = JailLimits(no_progress_seconds=0.3, stall_code="PROBE_TIMEOUT")
    with Jail(TASKS + "sleep", {}, limits=limits, server=server) as jail:
        pids = next(jail.messages()).body
        assert alive(pids["pid"])
        assert alive(pids["grandchild"])
        with pytest.raises(StereoSpotError) as caught:
            jail.receive()
    assert caught.value.code == "PROBE_TIMEOUT"
    wait_until(lambda: not alive(pids["pid"]) and not alive(pids["grandchild"]), what="the group is dead")


def test_a_stop_event_kills_and_cancels(server: Forkserver) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.1, stop.set)
    with Jail(TASKS + "sleep", {}, stop=stop, server=server) as jail:
        pids = next(jail.messages()).body
        timer.start()
        begun = time.monotonic()
        with pytest.raises(StereoSpotError) as caught:
            jail.receive()
    timer.join()
    assert caught.value.code == "CANCELLED"
    assert time.monotonic() - begun < 2
    assert not alive(pids["pid"])


class Broken:
    """A source whose storage is away, or merely slow."""

    size = 5 * 2**20
    name = "broken"
    read_ahead = 0

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def read_at(self, offset: int, length: int) -> bytes:
        if self.seconds:
            time.sleep(self.seconds)
            return bytes(length)
        raise error("STORAGE_UNAVAILABLE", "the disk is away")

    def close(self) -> None: ...


def test_a_source_that_fails_is_the_storages_failure(server: Forkserver) -> None:
    failure = failure_of(Jail(TASKS + "digest", {}, sources=[Broken()], server=server))
    assert isinstance(failure, Transient)
    assert failure.detail == "the disk is away"


def test_slow_storage_is_no_stall(server: Forkserver) -> None:
    limits = JailLimits(no_progress_seconds=0.2)
    with Jail(TASKS + "digest", {}, sources=[Broken(0.3)], limits=limits, server=server) as jail:
        assert len(list(jail.messages())) == 1


def test_slow_storage_uses_up_no_wall_time(server: Forkserver) -> None:
    limits = JailLimits(wall_seconds=1.5)
    with Jail(TASKS + "digest", {}, sources=[Broken(0.5)], limits=limits, server=server) as jail:
        assert len(list(jail.messages())) == 1


def test_a_child_that_reads_for_ever_ends_all_the_same(server: Forkserver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stereospot.jail.jail.READING_SHARE", 1)
    limits = JailLimits(wall_seconds=0.3, stall_code="PROBE_TIMEOUT")
    failure = failure_of(Jail(TASKS + "digest", {}, sources=[Broken(0.4)], limits=limits, server=server))
    assert failure.code == "PROBE_TIMEOUT"


def test_many_threads_at_once(server: Forkserver, noise: FileSource) -> None:
    expected = hashlib.sha256(noise.read_at(0, noise.size)).hexdigest()

    def one(number: int) -> str:
        with Jail(TASKS + "digest", {"n": number}, sources=[noise], server=server) as jail:
            (message,) = jail.messages()
        return message.body["sha256"]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(24))) == {expected}


def test_a_task_starts_in_milliseconds(server: Forkserver) -> None:
    server.start()
    times: list[float] = []
    for _ in range(5):
        begun = time.monotonic()
        with Jail(TASKS + "echo", {}, server=server) as jail:
            jail.send({})
            assert jail.receive() is not None
            times.append(time.monotonic() - begun)
    assert min(times) < 0.1, times


def test_nothing_of_the_surroundings_is_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("STEREOSPOT_NATS_TOKEN", "secret")
    canary = tmp_path / "canary"
    canary.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as listener, Forkserver_fresh() as fresh:
        request = {"path": str(canary), "port": listener.getsockname()[1], "pid": os.getpid(), "listing": False}
        with Jail(TASKS + "surroundings", request, server=fresh) as jail:
            (message,) = jail.messages()
    assert "secret" not in message.body["environment"].values()
    attempts: dict[str, Any] = message.body["attempts"]
    refused = {name for name, outcome in attempts.items() if outcome is not None}
    assert not (tmp_path / "canary.new").exists()
    assert refused >= expected_refusals(), attempts


def test_off_leaves_the_kernel_layers_out(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("open")
    with socket.create_server(("127.0.0.1", 0)) as listener, Forkserver_fresh("off") as fresh:
        request = {"path": str(canary), "port": listener.getsockname()[1], "pid": os.getpid(), "listing": True}
        with Jail(TASKS + "surroundings", request, limits=JailLimits(sandbox="off"), server=fresh) as jail:
            (message,) = jail.messages()
    assert message.body["attempts"]["open"] is None
    assert message.body["attempts"]["connect"] is None
    assert message.body["descriptors"] <= 6  # the three, the control socket, and the listing itself


class Forkserver_fresh(Forkserver):
    """A server that starts in the environment of the test and ends with it."""

    def __init__(self, sandbox: Any = "auto") -> None:
        super().__init__(sandbox, PRELOAD)

    def __enter__(self) -> Forkserver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def expected_refusals() -> set[str]:
    """What this kernel can refuse: asked of the layers themselves, in a process of their own."""
    script = textwrap.dedent("""
        from stereospot.jail import layers
        print("|".join(layers.put_on(layers.SERVER_LAYERS, "auto") + layers.put_on(layers.CHILD_LAYERS, "auto")))
    """)
    refused = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    wanted: set[str] = set()
    if "file system" not in refused:
        wanted |= {"open", "create", "execute", "connect"}
    if "network" not in refused:
        wanted |= {"connect", "datagram"}
    return wanted


def test_nothing_is_left_when_the_parent_is_killed() -> None:
    script = textwrap.dedent("""
        import sys
        from stereospot.jail import Forkserver, Jail
        server = Forkserver("auto", ("tests.media.jail_tasks",))
        with Jail("tests.media.jail_tasks:sleep", {}, server=server) as jail:
            pids = next(jail.messages()).body
            print(server.pid, pids["pid"], pids["grandchild"], flush=True)
            jail.receive()
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3
        assert all(alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
    # The grandchild is outside PDEATHSIG: the server kills every group before it goes.
    wait_until(lambda: not any(alive(pid) for pid in pids), what="every process is gone")


@pytest.mark.parametrize("said", [b"", b"x"])
def test_a_server_whose_parent_ended_meanwhile_ends_without_a_word(said: bytes) -> None:
    """Before it could say that it is there, or before that was read; `said` is unread, too."""
    script = textwrap.dedent("""
        import sys
        from stereospot.jail import server
        server.main([], "off", int(sys.argv[1]))
    """)
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            theirs.sendall(said)  # makes its end a reset
        done = subprocess.run(
            [sys.executable, "-c", script, str(theirs.fileno())],
            pass_fds=[theirs.fileno()], capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_that_still_starts_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "endless.py").write_text("import signal; signal.pause()")
    monkeypatch.syspath_prepend(tmp_path)
    fresh = Forkserver("off", ("endless",))
    refused: list[StereoSpotError] = []

    def start() -> None:
        try:
            fresh.start()
        except StereoSpotError as failure:
            refused.append(failure)

    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: fresh.pid is not None, what="there is a process")
    begun = time.monotonic()
    fresh.close()
    thread.join()
    assert time.monotonic() - begun < 30  # a start may take 60
    assert [failure.code for failure in refused] == ["INTERNAL"]


def test_a_killed_server_is_replaced(server: Forkserver, noise: FileSource) -> None:
    server.start()
    first = server.pid
    assert first is not None
    with Jail(TASKS + "echo", {}, server=server) as jail:
        jail.send({})
        assert jail.receive() is not None
        os.kill(first, signal.SIGKILL)
        with pytest.raises(StereoSpotError) as caught:
            jail.receive()
    assert caught.value.code == "WORKER_LOST"
    wait_until(lambda: not alive(first), what="the server is dead")
    with Jail(TASKS + "digest", {}, sources=[noise], server=server) as jail:
        assert len(list(jail.messages())) == 1
    assert server.pid != first
