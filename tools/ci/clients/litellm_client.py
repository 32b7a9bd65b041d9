"""litellm, as a proxy or a framework calls a server of OpenAI's kind."""

import os

# What it would fetch from elsewhere when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

import common
from common import BASE, HAIKU, KEY

litellm.telemetry = False
litellm.suppress_debug_info = True


def ask(**more):
    return litellm.completion(
        model="openai/haiku", messages=HAIKU, api_base=f"{BASE}/v1",
        **{"api_key": KEY, "max_tokens": 24, "seed": 5, "num_retries": 0, **more},
    )


def test_a_stream_says_what_the_whole_answer_says():
    whole = ask()
    content = whole.choices[0].message.content
    assert content and whole.usage.completion_tokens > 0
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == content


def test_errors_have_their_kinds():
    for more, kind in [
        ({"temperature": 9}, litellm.BadRequestError),
        ({"api_key": "wrong"}, litellm.AuthenticationError),
    ]:
        try:
            ask(**more)
        except kind:
            continue
        raise AssertionError(f"{more} was not refused")


def test_a_schema_gives_what_it_describes():
    answer = ask(response_format=common.Verse, max_tokens=900)
    common.Verse.model_validate_json(answer.choices[0].message.content)


common.run(globals())
