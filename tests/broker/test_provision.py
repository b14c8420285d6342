"""The JSON files against a real server: accepted as they are, compared, updated, refused."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from stereospot import broker, embedded, errors, subjects
from stereospot.bus import Bus
from stereospot.settings import Settings
from streams_config import provision as provisioner

FILES = sorted(provisioner.FOLDER.glob("*/*.json"))


def test_every_stream_bucket_and_consumer_of_the_code_has_a_file() -> None:
    configuration = provisioner.load()
    streams = {getattr(subjects, name) for name in ("WORK", "CONVERT", "LIVE", "DONE", "EVENT", "DEAD", "ADVISORY")}
    names = ("JOBS", "STATE", "WORKERS", "KEYS", "IDEMPOTENCY", "TRIES")
    buckets = {subjects.kv_stream(getattr(subjects, name)) for name in names}
    unused = {"KV_sessions"}  # for live sessions, which no code opens yet
    assert set(configuration.streams) == streams | buckets | unused
    for kind in get_args(subjects.WorkKind):
        assert configuration.consumers["WORK", f"work-{kind}"]["filter_subject"] == f"stereospot.work.{kind}.>"
    for lane in subjects.LANES:
        consumer = configuration.consumers["CONVERT", subjects.convert_consumer("cpu", lane)]
        assert consumer["filter_subject"] == subjects.convert_filter("cpu", lane)
    assert all(stream in configuration.streams for stream, _ in configuration.consumers)


def test_the_streams_fit_into_the_embedded_store() -> None:
    assert sum(stream["max_bytes"] for stream in provisioner.load().streams.values()) < embedded.MAX_FILE_STORE


async def test_files_go_to_the_api_as_they_are_and_come_back_the_same(bare: Bus) -> None:
    """What the server answers holds every field that a file states: none is unknown, none is bent."""
    ordered = sorted(FILES, key=lambda path: path.parent.name == "consumers")
    for path in ordered:
        stated: dict[str, Any] = json.loads(path.read_text())
        if path.parent.name == "consumers":
            name = stated["config"]["name"]
            assert path.stem == f"{stated['stream_name']}.{name}"
            answer = await bare.api(f"CONSUMER.CREATE.{stated['stream_name']}.{name}", stated)
            stated = stated["config"]
        else:
            answer = await bare.api(f"STREAM.CREATE.{stated['name']}", stated)
        missing = {key: value for key, value in stated.items() if answer["config"].get(key) != value}
        assert not missing, path.name


async def test_twice_is_once(bare: Bus, settings: Settings) -> None:
    first = await broker.provision(bare, settings)
    assert len(first.created) == len(FILES)
    again = await broker.provision(bare, settings)
    assert not again.changed
    assert len(again.unchanged) == len(FILES)


async def test_what_may_change_is_updated_and_what_operators_tuned_stays(bus: Bus, settings: Settings) -> None:
    config = (await bus.stream_info(subjects.EVENT))["config"]
    tuned = {**config, "max_age": 3_600_000_000_000, "compression": "s2"}
    await bus.api(f"STREAM.UPDATE.{subjects.EVENT}", tuned)
    await bus.publish("stereospot.event.job.a.created", b"{}")
    dry = await broker.provision(bus, settings, dry_run=True)
    report = await broker.provision(bus, settings)
    assert dry.updated == report.updated == [subjects.EVENT]
    assert [difference.field for difference in report.differences] == ["max_age"]
    info = await bus.stream_info(subjects.EVENT)
    assert info["config"]["max_age"] == config["max_age"]
    assert info["config"]["compression"] == "s2"
    assert info["state"]["messages"] == 1


@pytest.mark.parametrize(("theirs", "kept"), [(10**9, True), (-1, True), (10**6, False)])
async def test_whoever_has_more_room_than_we_ask_for_keeps_it(
    bus: Bus, settings: Settings, theirs: int, kept: bool
) -> None:
    ours = provisioner.load().streams["KV_jobs"]["max_bytes"]
    config = (await bus.stream_info("KV_jobs"))["config"]
    await bus.api("STREAM.UPDATE.KV_jobs", {**config, "max_bytes": theirs})
    report = await broker.provision(bus, settings)
    assert report.changed is not kept
    # Nor does an update for the sake of something else take it.
    config = (await bus.stream_info("KV_jobs"))["config"]
    await bus.api("STREAM.UPDATE.KV_jobs", {**config, "description": "tuned"})
    assert (await broker.provision(bus, settings)).updated == ["KV_jobs"]
    assert (await bus.stream_info("KV_jobs"))["config"]["max_bytes"] == (theirs if kept else ours)


async def test_a_bucket_that_refused_what_is_new_drops_what_is_old(bus: Bus, settings: Settings) -> None:
    """As servers have it that were set up before."""
    stream = subjects.kv_stream(subjects.TRIES)
    config = (await bus.stream_info(stream))["config"]
    await bus.api(f"STREAM.UPDATE.{stream}", {**config, "discard": "new"})
    await bus.bucket(subjects.TRIES).create("WORK.1", b"1")
    assert (await broker.provision(bus, settings)).updated == [stream]
    info = await bus.stream_info(stream)
    assert info["config"]["discard"] == "old"
    assert info["state"]["messages"] == 1


async def test_settings_reach_the_consumers(bus: Bus, settings: Settings) -> None:
    wanted = settings.model_copy(update={"ack_wait_seconds": 5.0, "max_attempts": 9, "pool": "lab"})
    report = await broker.provision(bus, wanted)
    assert set(report.created) == {"CONVERT/convert-lab-now", "CONVERT/convert-lab-normal"}
    consumer = (await bus.consumer_info(subjects.CONVERT, "convert-lab-now"))["config"]
    assert consumer["filter_subject"] == subjects.convert_filter("lab", "now")
    assert consumer["ack_wait"] == 5_000_000_000
    assert consumer["max_deliver"] == 1009
    collector = (await bus.consumer_info(subjects.DONE, "collector"))["config"]
    assert (collector["ack_wait"], collector["max_deliver"]) == (30_000_000_000, -1)
    assert not (await broker.provision(bus, wanted)).changed


@pytest.mark.parametrize(
    ("stream", "field", "value"), [("WORK", "retention", "limits"), ("ADVISORY", "storage", "memory")]
)
async def test_what_cannot_change_is_refused_before_anything_is_changed(
    bus: Bus, settings: Settings, stream: str, field: str, value: str
) -> None:
    config = (await bus.stream_info(stream))["config"]
    await bus.api(f"STREAM.DELETE.{stream}")
    await bus.api(f"STREAM.CREATE.{stream}", {**config, field: value})
    await bus.api("STREAM.DELETE.LIVE")
    with pytest.raises(errors.Misconfigured) as raised:
        await broker.provision(bus, settings)
    assert raised.value.code == "BROKER_CONFLICT"
    said = str(raised.value)
    assert all(word in said for word in (stream, field, json.dumps(value), json.dumps(config[field]), "in place"))
    names = (await bus.api("STREAM.NAMES"))["streams"]
    assert "LIVE" not in names


async def test_a_consumer_that_cannot_change_is_refused(bus: Bus, settings: Settings) -> None:
    config = (await bus.consumer_info(subjects.DONE, "collector"))["config"]
    await bus.api("CONSUMER.DELETE.DONE.collector")
    await bus.api("CONSUMER.CREATE.DONE.collector", {"stream_name": "DONE", "config": {**config, "max_waiting": 7}})
    with pytest.raises(errors.Misconfigured, match=r"DONE/collector: max_waiting is 7, not 512"):
        await broker.provision(bus, settings)


async def test_what_the_server_itself_refuses_is_said_in_its_words(bare: Bus, settings: Settings) -> None:
    with pytest.raises(errors.Misconfigured, match="replicas"):
        await broker.provision(bare, settings.model_copy(update={"replicas": 3}))


def test_differences_of_defaults_are_none() -> None:
    assert provisioner.compare("stream", "S", {"max_age": 0, "sealed": False}, {}) == []
    (difference,) = provisioner.compare("stream", "S", {"allow_msg_ttl": False}, {"allow_msg_ttl": True})
    assert difference.fixed
    (difference,) = provisioner.compare("stream", "S", {"allow_msg_ttl": True}, {})
    assert not difference.fixed
