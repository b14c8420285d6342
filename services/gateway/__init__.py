"""The HTTP side: uploads, jobs, playback while converting, pages. Stateless but for its index, which is rebuilt.

guard      who may ask at all: Host, Origin, Sec-Fetch-Site; security headers, request ids, metrics
problems   errors of the catalogue as RFC 9457 problems
index      the read model: a SQLite index and live progress, fed by tails of the buckets
resources  a job as JSON: what the API, the event streams and the pages all show
uploads    bodies streamed to storage;  ranges: objects streamed from it;  outputs: films by their names
tus        resumable uploads;  direct: uploads straight to S3;  both over services.intake
playback   playlists, fragments and films under a path token
api        /api/v1;  roots: the routes that clients of older pipelines call;  events: SSE;  pages: HTML
description  the OpenAPI of it
app        all of it as one Litestar application
"""
