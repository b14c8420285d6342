"""Options: whoever asks for one that there is not is told so; a record keeps one of a newer version."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, ValidationError

from inference.invocation import Invocation
from services.gateway.requests import NewJob, as_curl, options_of
from services.gateway.samples import NewSamples, WholeFilm
from stereospot.jobs import Job
from stereospot.messages import SourceRef, SubmitWork
from stereospot.options import Options, known
from stereospot.settings import Settings


def of_a_newer_version() -> Job:
    job = Job(job_id="J1", created_at=1.0, updated_at=1.0, source=SourceRef(key="input/J1/source.mp4"))
    body = json.loads(job.body())
    body["options"]["sharpness"] = 0.5
    return Job.model_validate_json(json.dumps(body))


def test_a_record_keeps_what_a_newer_version_asks_for() -> None:
    job = of_a_newer_version()
    again = job.model_copy(update={"title": "Film"}).body()
    assert json.loads(again)["options"]["sharpness"] == 0.5
    assert Job.model_validate_json(again).options == job.options
    assert job.options.fingerprint() != Options().fingerprint(), "it makes another film"
    assert job.options.model_copy(update={"crf": 1}).model_extra == {"sharpness": 0.5}


@pytest.mark.parametrize("model", [SubmitWork, NewJob, NewSamples, WholeFilm, Invocation])
def test_an_unknown_option_is_refused_where_somebody_asks(model: type[BaseModel]) -> None:
    rest = {"input_uri": "a", "output_uri": "b"} if model is Invocation else {}
    given = {"options": {"crf": 3, "sharpnes": 1}, **rest}
    with pytest.raises(ValidationError) as raised:
        model.model_validate(given)
    found = [(item["type"], item["loc"], item["msg"]) for item in raised.value.errors()]
    assert found == [("extra_forbidden", ("options", "sharpnes"), "Extra inputs are not permitted")]
    assert model.model_validate({"options": {"crf": 3}, **rest}).model_dump()["options"]["crf"] == 3


def test_an_unknown_option_in_a_form_is_refused() -> None:
    with pytest.raises(ValidationError, match="sharpnes"):
        options_of({"options": '{"sharpnes": 1}'})
    assert options_of({"options": '{"crf": 3}'}) == known(Options(crf=3))


def test_the_command_for_a_newer_job_asks_for_all_of_it() -> None:
    assert '"sharpness":0.5' in as_curl(of_a_newer_version(), Settings())
