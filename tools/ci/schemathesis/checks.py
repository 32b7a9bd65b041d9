"""Checks of ours beside those of schemathesis: what the document says in words."""

import itertools
import json
import re

import schemathesis

# The rules of faults that no schema can state, as `constraint` in the errors' details names them.
BEYOND_SCHEMAS = {
    "1-100 bytes": "a schema counts characters",
    "at least one token": "it depends on the model's vocabulary",
    "fits the model's chat template": "the template decides",
    "can be compiled": "a schema can't say what is a regular expression, a grammar, or a schema that is supported",
    "false with a format": "it is about two fields",
    "cancel without a stream": "it is about two fields",
    "at most 64 levels": "a schema has no depth",
    "1-262144 bytes": "a schema counts characters",
    "1-256 bytes": "a schema counts characters",
    "only with the cache": "it is about two fields",
    "given with resume": "it is about two fields",
    "with resume only in a stream": "it is about two fields",
    "1-128 bytes": "a schema counts characters",
    "as the first stream began with: RFC 3339, whole seconds, an offset such as +00:00": "a pattern has no calendar",
}
NUMBERS = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Jobs of a sequence have names: what follows one asks for it by the name that the client gave."""
    if case.meta is None or case.meta.phase.name != "stateful" or case.operation.path != "/execute":
        return
    if isinstance(case.body, dict) and case.body.get("job_id") is None:
        case.body["job_id"] = f"sequence-{next(NUMBERS)}"


def is_of_an_event_to_come(detail):
    """Which events a job has had, no schema can say."""
    return detail["field"] == "Last-Event-ID" and re.fullmatch(r"less than [0-9]+", detail["constraint"]) is not None


def is_openai(case):
    """Answers and errors have OpenAI's form."""
    return case.operation.path.startswith("/v1/")


@schemathesis.check
def a_valid_request_is_refused_for_a_reason(ctx, response, case):
    """What fits its schema is INVALID_REQUEST only for a rule of BEYOND_SCHEMAS."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return
    error = response.json()["error"]
    if error["code"] in ("CONTEXT_LENGTH_EXCEEDED", "context_length_exceeded"):
        return
    if is_openai(case):
        # It names one field and no rule; the routes of OpenAI share their checks with /execute.
        assert error["param"], f"refused without a field: {error}"
        return
    ahead = [detail for detail in error["details"] if is_of_an_event_to_come(detail)]
    rules = {detail["constraint"] for detail in error["details"] if detail not in ahead}
    if ahead and not rules:
        return
    assert rules and rules <= BEYOND_SCHEMAS.keys(), f"refused though it fits the document: {error}"


@schemathesis.check
def only_a_deadline_that_is_past_is_504(ctx, response, case):
    if response.status_code == 504:
        headers = {name.lower() for name in case.headers or {}}
        assert "x-deadline" in headers and "X-Deadline" in response.json()["error"]["message"], response.text


@schemathesis.check
def an_error_has_the_request_s_id(ctx, response, case):
    """The body repeats X-Correlation-Id, and Retry-After is there where it helps to come again."""
    if response.status_code < 400 or not response.content:
        return
    body = response.json()
    if "error" not in body:
        return  # /health and /health/ready answer 503 with their own bodies
    if is_openai(case):
        assert set(body["error"]) == {"message", "type", "param", "code"}, body
    else:
        assert response.headers["x-correlation-id"] == [body["error"]["correlation_id"]]
    if response.status_code == 503:
        assert int(response.headers["retry-after"][0]) >= 1


@schemathesis.check
def a_stream_is_whole_and_in_order(ctx, response, case):
    """started, tokens without a gap, one last event; ids from 0."""
    if response.status_code != 200 or "text/event-stream" not in response.headers["content-type"][0]:
        return
    if is_openai(case):
        assert response.content.decode().endswith("data: [DONE]\n\n"), response.content[-200:]
        return
    blocks = [block for block in response.content.decode().split("\n\n") if block and not block.startswith(":")]
    events = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    data = [json.loads(event["data"]) for event in events]
    kinds = [event["event"] for event in events]
    assert kinds == [item["type"] for item in data], kinds
    first = int(events[0]["id"])
    assert [int(event["id"]) for event in events] == list(range(first, first + len(events)))
    last_seen = {name.lower(): value for name, value in (case.headers or {}).items()}.get("last-event-id")
    if not last_seen:
        assert first == 0 and (kinds[0] == "started" or kinds == ["error"]), kinds
    assert kinds[-1] in ("end", "error") and not {"end", "error"} & set(kinds[:-1]), kinds
    tokens = [item["i"] for item in data if item["type"] == "token"]
    count = data[-1]["tokens_out"]
    assert tokens == list(range(count - len(tokens), count)), tokens
