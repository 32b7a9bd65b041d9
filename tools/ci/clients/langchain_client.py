"""LangChain's model for servers of OpenAI's kind."""

import typing

import langchain_openai

import common
from common import BASE, HAIKU, KEY


def model(**more):
    ask = {"max_tokens": 24, "seed": 5, "temperature": 1.0, "max_retries": 0, **more}
    return langchain_openai.ChatOpenAI(model="haiku", base_url=f"{BASE}/v1", api_key=KEY, **ask)


def test_a_stream_says_what_the_whole_answer_says():
    question = HAIKU[0]["content"]
    whole = model().invoke(question)
    assert whole.content and whole.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in model().stream(question)) == whole.content
    assert [answer.content for answer in model().batch([question, question])] == [whole.content] * 2


def test_a_schema_gives_what_it_describes():
    structured = model(max_tokens=900).with_structured_output(common.Verse, method="json_schema")
    verse = structured.invoke(HAIKU[0]["content"])
    assert isinstance(verse, common.Verse) and 1 <= len(verse.lines) <= 3


def test_tools_are_bound_and_the_answer_is_a_message():
    def tides(place: str) -> str:
        """When the sea is high."""

    answer = model().bind_tools([tides]).invoke(HAIKU[0]["content"])
    assert answer.content or answer.tool_calls, answer


def test_a_forced_call_has_arguments_that_fit():
    def tides(sea: typing.Literal["north", "baltic"]) -> str:
        """When the sea is high."""

    forced = model(max_tokens=900).bind_tools([tides], tool_choice="tides", strict=True)
    (call,) = forced.invoke(HAIKU[0]["content"]).tool_calls
    assert call["name"] == "tides" and call["args"]["sea"] in ("north", "baltic"), call


common.run(globals())
