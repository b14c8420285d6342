"""The pages: HTML made here, kept up to date by one event stream; every one of them reads without scripts.

A page and the API share their routes where the older web UI had them: `Accept` decides (HTML only where it is named).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

from litestar import MediaType, Request, Response, get
from litestar.params import FromPath, FromQuery

from services.gateway import (
    formats,
    handoff,
    letters,
    outputs,
    qr,
    replies,
    requests,
    resources,
    samples,
    service,
    storyboard,
)
from services.gateway.guard import page_uploads
from services.gateway.origins import is_trustworthy_address
from services.gateway.render import render, wants_html
from services.gateway.state import Gateway, Given
from services.gateway.table import VISIBLE, Kind, Row, decode_cursor
from stereospot import errors
from stereospot.jobs import ACTIVE, Phase
from stereospot.options import Layout

FILTERS = (
    ("all", "All"),
    ("active", "Working"),
    ("completed", "Done"),
    ("failed", "Failed"),
    ("cancelled", "Cancelled"),
)

STAGES = (
    ((Phase.CREATED, Phase.INGESTING), "Waiting"),
    ((Phase.PLANNING,), "Reading"),
    ((Phase.CONVERTING,), "Converting"),
    ((Phase.ASSEMBLING,), "Assembling"),
    ((Phase.COMPLETED,), "Done"),
)
"""What a film goes through, as its page tells it."""

SAMPLES = "samples"
"""A filter of its own, shown while there are any."""

UNSEEN_ENGINES = frozenset({"flat", "identity", "user"})
"""Two that make no depth, for measuring, and one that needs a film of depth beside the other."""

LATELY_SECONDS = 24 * 3600
"""For so long the home page shows what failed; the list of films shows it longer."""

LAYOUTS = (
    (Layout.HALF_SBS, "Headsets, 3D TVs, most players"),
    (Layout.FULL_SBS, "Full width for each eye"),
    (Layout.HALF_TB, "3D TVs, some headsets"),
    (Layout.FULL_TB, "Full height for each eye"),
    (Layout.ANAGLYPH, "Red and cyan glasses on any screen"),
)
"""What the form offers, and whom it is for."""


def page(gateway: Gateway, template: str, **values: Any) -> Response[str]:
    limit = gateway.context.settings.max_upload_bytes
    body = render(template, layouts=LAYOUTS, max_upload_bytes=limit, **values)
    return Response(body, media_type=MediaType.HTML, headers={"Cache-Control": "no-cache", "Vary": "Accept"})


# ---- pages -----------------------------------------------------------------------------------------------
@get("/", include_in_schema=False)
async def home(gateway: Given) -> Response[str]:
    lately = time.time() - LATELY_SECONDS
    active, recent, failed, counts = await asyncio.gather(
        # Whoever left the page of samples finds back while they are made.
        gateway.index.page(tuple(ACTIVE), kind="all", limit=12),
        gateway.index.page((Phase.COMPLETED,), limit=6),
        gateway.index.page((Phase.FAILED,), kind="all", limit=6),
        gateway.index.counts(),
    )
    return page(
        gateway,
        "home.html",
        kinds=_kinds(gateway),
        straight=page_uploads(gateway.context.settings),
        here="home",
        active=[resources.resource(gateway, row) for row in active.rows],
        recent=[resources.resource(gateway, row) for row in recent.rows],
        failed=[resources.resource(gateway, row) for row in failed.rows if row.job.updated_at > lately],
        stays=_stays(gateway),
        total=sum(counts.values()),
        phases=resources.phases_of("active"),
    )


@get("/jobs", include_in_schema=False)
async def jobs(
    request: Request[Any, Any, Any],
    gateway: Given,
    status: FromQuery[str | None] = None,
    q: FromQuery[str] = "",
    cursor: FromQuery[str | None] = None,
    limit: FromQuery[int] = 50,
    removed: FromQuery[int] = 0,
) -> Response[Any]:
    """The list of jobs, as a page or as JSON."""
    kind: Kind = "samples" if status == SAMPLES else "films"
    phases = resources.phases_of(None if kind == "samples" else status)
    after = decode_cursor(cursor) if cursor else None
    if cursor and after is None:
        raise errors.error("INVALID_REQUEST", "This cursor did not come from an earlier answer.")
    found, counts, samples_made = await asyncio.gather(
        gateway.index.page(phases, kind=kind, text=q[:200], after=after, limit=max(1, min(limit, 200))),
        gateway.index.counts(),
        gateway.index.counts("samples"),
    )
    items = [resources.resource(gateway, row) for row in found.rows]
    public = resources.public_counts(counts)
    settings = gateway.context.settings
    if not wants_html(request.headers.get("accept", "")):
        return Response({"jobs": items, "next": found.next_cursor, "counts": public, "total": sum(public.values())})
    numbers = {name: sum(counts.get(phase, 0) for phase in resources.phases_of(name)) for name, _ in FILTERS}
    numbers[SAMPLES] = sum(samples_made.get(phase, 0) for phase in VISIBLE)
    filters = (*FILTERS, (SAMPLES, "Samples")) if numbers[SAMPLES] or kind == "samples" else FILTERS
    return page(
        gateway, "jobs.html", here="jobs", jobs=items, next=found.next_cursor, numbers=numbers, filters=filters,
        status=status or "all", phases=phases, kind=kind, q=q, removed=bool(removed),
        sample_days=settings.keep_fragments_days,
    )  # fmt: skip


@get("/jobs/{job_id:str}", include_in_schema=False)
async def job(request: Request[Any, Any, Any], gateway: Given, job_id: FromPath[str]) -> Response[Any]:
    """A job, as a page or as JSON."""
    row = await gateway.index.fresh(job_id)
    if not wants_html(request.headers.get("accept", "")):
        return replies.job_answer(gateway, row)
    values = await _about(gateway, row)
    return page(gateway, "job.html", here="jobs", strip=_strip(gateway, row), stages=STAGES, **values)


@get("/jobs/{job_id:str}/card", include_in_schema=False)
async def card(gateway: Given, job_id: FromPath[str]) -> Response[str]:
    """One job's card, which lists put in place when a job is new or changes its phase."""
    return page(gateway, "_card.html", job=resources.resource(gateway, await gateway.index.fresh(job_id)))


@get("/jobs/{job_id:str}/about", include_in_schema=False)
async def about(gateway: Given, job_id: FromPath[str]) -> Response[str]:
    """What a job's page shows below the player, made anew when the job changes its phase."""
    row = await gateway.index.fresh(job_id)
    return page(gateway, "_about.html", **await _about(gateway, row))


async def _about(gateway: Gateway, row: Row) -> dict[str, Any]:
    """What `_about.html` shows."""
    return {
        "job": resources.resource(gateway, row),
        "files": await outputs.listed(gateway, row.job),
        "curl": requests.as_curl(row.job, gateway.context.settings),
    }


@get("/watch/{job_id:str}", include_in_schema=False)
async def watch(gateway: Given, job_id: FromPath[str]) -> Response[str]:
    """The player alone."""
    row = await gateway.index.fresh(job_id)
    return page(gateway, "watch.html", here="watch", job=resources.resource(gateway, row), strip=_strip(gateway, row))


@get("/try/{job_id:str}", include_in_schema=False)
async def try_out(gateway: Given, job_id: FromPath[str]) -> Response[str]:
    """Samples of a job's film with two settings, side by side; `job_id` is any job of that film."""
    row = await gateway.index.fresh(job_id)
    return page(gateway, "try.html", here="jobs", job=resources.resource(gateway, row))


@get(["/launch", "/launch/{job_id:str}"], include_in_schema=False)
async def launch(request: Request[Any, Any, Any], gateway: Given) -> Response[str]:
    """How to open the film in a headset, or in a player of one's own."""
    job_id = request.path_params.get("job_id")
    row = await gateway.index.fresh(job_id) if job_id else None
    item = resources.resource(gateway, row) if row is not None else None
    base = handoff.base_url(request, gateway)
    ways = [] if row is None else _ways(gateway, row, base)
    return page(
        gateway,
        "launch.html",
        here="jobs",
        job=item,
        playlist=handoff.playlist_path(gateway, row),
        base=base,
        ways=ways,
        reachable=qr.reaches_others(base),
        port=urlsplit(base).port,
        has_vr=is_trustworthy_address(base),
    )


def _ways(gateway: Gateway, row: Row, base: str) -> list[dict[str, Any]]:
    """Addresses to open elsewhere, each with its QR code."""
    watch = base + handoff.watch_path(gateway, row)
    then = (
        "“Enter VR” puts the screen in front of you."
        if is_trustworthy_address(base)
        else "It plays in the browser's window."
    )
    found: list[dict[str, Any]] = [
        {"name": "In the headset's browser", "address": watch, "code": qr.code(watch), "links": [],
         "text": f"Point the headset's camera here, or type the address. {then}"}
    ]  # fmt: skip
    if (path := handoff.path_of(gateway, row)) is not None:
        address = base + path
        text = (
            "Most players read the layout from the file's name and need nothing more."
            if row.job.film is not None
            else "The stream as far as it is converted; it goes on while you watch."
        )
        links = qr.app_links(address)
        found.append(
            {"name": "In a player", "address": address, "code": qr.code(address), "links": links, "text": text}
        )
    return found


@get("/workers", include_in_schema=False)
async def workers(gateway: Given) -> Response[str]:
    return page(gateway, "workers.html", here="workers", workers=await service.crew(gateway))


@get("/dead-letters", include_in_schema=False)
async def given_up(gateway: Given, cursor: FromQuery[str | None] = None) -> Response[str]:
    found, more = await letters.listed(gateway, cursor, 50)
    shown = await letters.resources_of(gateway, found)
    return page(gateway, "letters.html", here="letters", letters=shown, next=more)


def _kinds(gateway: Gateway) -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    """(option, its name, its default in words, [(value, words)]): of everything only what can be made here now."""
    there = service.abilities(gateway.context.settings, gateway.index.workers())
    engines = [(name, formats.engine(name)) for name in there["engines_present"] if name not in UNSEEN_ENGINES]
    # Of codecs everything is known to the server; those of a GPU need a converter that has one.
    has_gpu = any("cuda" in item.device for item in gateway.index.workers())
    codecs = [(name, formats.codec(name)) for name in there["codecs"] if has_gpu or not name.startswith("nvenc")]
    containers = [(name, name) for name in there["containers"] if name != "mp4"]
    return [
        ("engine", "Engine", "The default", engines),
        ("codec", "Codec", formats.DEFAULT_CODEC, codecs),
        ("container", "Container", "mp4", containers),
    ]


def _stays(gateway: Gateway) -> bool:
    """Whether films stay on this machine: nobody else has the broker or the storage, no segment is sent elsewhere."""
    settings = gateway.context.settings
    remote = settings.inference_url or settings.sagemaker_endpoint
    return gateway.context.alone and settings.storage == "local" and not remote


def _strip(gateway: Gateway, row: Row) -> dict[str, Any] | None:
    live = gateway.index.live(row.job.job_id, row.job.generation)
    return resources.snapshot(row, live, gateway.token(row)).get("strip")


HANDLERS = (
    home, jobs, job, card, about, watch, try_out, launch, workers, given_up, *samples.HANDLERS, *storyboard.HANDLERS,
)  # fmt: skip
