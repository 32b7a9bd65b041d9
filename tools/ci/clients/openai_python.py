"""OpenAI's own client for Python."""

import asyncio
import typing

import openai
import pydantic

import common
from common import BASE, HAIKU, KEY

client = openai.OpenAI(base_url=f"{BASE}/v1", api_key=KEY, max_retries=0)
MODEL = client.models.list().data[0].id


def chat(**more):
    return client.chat.completions.create(model=MODEL, messages=HAIKU, **{"max_tokens": 24, "seed": 5, **more})


def joined(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_models_are_listed_and_found():
    assert client.models.retrieve(MODEL).id == MODEL
    assert [model.id for model in client.models.list()] == [MODEL]


def test_a_stream_says_what_the_whole_answer_says():
    whole = chat()
    choice = whole.choices[0]
    assert choice.message.role == "assistant" and choice.message.content, whole
    assert choice.finish_reason in ("stop", "length")
    usage = whole.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert joined(chunks) == choice.message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage == usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == choice.finish_reason
    assert chunks[0].system_fingerprint == whole.system_fingerprint


def test_choices_differ_and_the_first_is_that_of_its_seed():
    alone = chat(temperature=1.5).choices[0].message.content
    several = chat(temperature=1.5, n=3)
    texts = [choice.message.content for choice in several.choices]
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert texts[0] == alone and len(set(texts)) == 3, texts
    parts = ["", "", ""]
    for chunk in chat(temperature=1.5, n=3, stream=True):
        for choice in chunk.choices:
            parts[choice.index] += choice.delta.content or ""
    assert parts == texts


def test_logprobs_are_those_of_the_tokens():
    choice = chat(logprobs=True, top_logprobs=3, temperature=0).choices[0]
    tokens = choice.logprobs.content
    # A token may be a part of a character.
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == choice.message.content
    for token in tokens:
        likely = [other.logprob for other in token.top_logprobs]
        assert len(likely) == 3 and likely == sorted(likely, reverse=True)
        assert token.logprob == likely[0] <= 0 and bytes(token.bytes).decode(errors="replace") == token.token
    plain = chat(logprobs=True, temperature=0).choices[0]
    assert [token.top_logprobs for token in plain.logprobs.content] == [[]] * len(tokens)
    streamed, ends = [], []
    for chunk in chat(logprobs=True, temperature=0, stream=True):
        logprobs = chunk.choices[0].logprobs
        streamed += logprobs.content if logprobs else []
        ends.append(chunk.choices[0].finish_reason)
    assert streamed == plain.logprobs.content
    assert ends[-1] == choice.finish_reason


def test_completions_take_texts_and_tokens():
    create = lambda **more: client.completions.create(model=MODEL, max_tokens=6, temperature=0, **more)
    one = create(prompt="the rain")
    several = create(prompt=["the rain", "the sea"], logprobs=0)
    assert [choice.index for choice in several.choices] == [0, 1]
    assert several.choices[0].text == one.choices[0].text
    logprobs = several.choices[0].logprobs
    assert "".join(logprobs.tokens) == one.choices[0].text and len(logprobs.token_logprobs) == len(logprobs.tokens)
    streamed = "".join(chunk.choices[0].text for chunk in create(prompt="the rain", stream=True))
    assert streamed == one.choices[0].text
    for name in ("echo", "suffix", "best_of"):
        error = refused(lambda: create(prompt="x", **{name: {"echo": True, "suffix": "y", "best_of": 3}[name]}))
        assert error.param == name and name in error.message


def test_stop_sequences_end_the_text():
    text = chat(temperature=0).choices[0].message.content
    word = text.split()[1]
    choice = chat(temperature=0, stop=word).choices[0]
    assert choice.message.content == text[: text.index(word)] and choice.finish_reason == "stop"


def test_errors_are_of_the_client_s_own_kinds():
    error = refused(lambda: client.chat.completions.create(model="another", messages=HAIKU), openai.NotFoundError)
    assert error.code == "model_not_found" and error.param == "model"
    assert refused(lambda: chat(temperature=9)).param == "temperature"
    assert refused(lambda: chat(n=17)).param == "n"
    long = [{"role": "user", "content": "rain and " * 3000}]
    error = refused(lambda: client.chat.completions.create(model=MODEL, messages=long))
    assert error.code == "context_length_exceeded"
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    error = refused(lambda: client.chat.completions.create(model=MODEL, messages=picture))
    assert error.param == "messages[0].content[0].type"
    stranger = client.with_options(api_key="wrong")
    refused(lambda: stranger.models.list(), openai.AuthenticationError)


def test_responses_are_the_same_text_in_items():
    ask = dict(model=MODEL, input=HAIKU[0]["content"], max_output_tokens=24, extra_body={"seed": 5})
    whole = client.responses.create(**ask)
    assert whole.output_text == chat().choices[0].message.content
    assert whole.status in ("completed", "incomplete") and whole.usage.output_tokens > 0
    again = client.responses.create(**{**ask, "input": HAIKU})
    assert again.output_text == whole.output_text
    text, last = "", None
    for number, event in enumerate(client.responses.create(stream=True, **ask)):
        assert event.sequence_number == number
        text += event.delta if event.type == "response.output_text.delta" else ""
        last = event
    assert text == whole.output_text
    assert last.type == f"response.{whole.status}" and last.response.output_text == text
    said = [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]
    error = refused(lambda: client.responses.create(**{**ask, "input": said}, instructions="Be brief."))
    assert error.param == "input[1].role", error
    error = refused(lambda: client.responses.create(**{**ask, "input": "rain and " * 3000}))
    assert (error.code, error.param) == ("context_length_exceeded", "input"), error
    error = refused(lambda: client.responses.create(**ask, previous_response_id="resp_1"))
    assert error.param == "previous_response_id"


def refused(call, kind=openai.BadRequestError):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("it was not refused")


def test_contents_may_be_parts():
    parts = [{"role": "user", "content": [{"type": "text", "text": HAIKU[0]["content"]}]}]
    whole = client.chat.completions.create(model=MODEL, messages=parts, max_tokens=24, seed=5)
    assert whole.choices[0].message.content == chat().choices[0].message.content


def endless(**more):
    """A stream that goes on until it is left."""
    return chat(stream=True, max_tokens=100_000, extra_body={"ignore_eos": True}, **more)


def test_a_stream_that_is_closed_is_cancelled():
    stream = endless()
    next(iter(stream))
    stream.close()
    common.wait_until("the job is gone", common.nothing_runs)


def test_a_client_that_waits_no_longer_is_cancelled():
    impatient = client.with_options(timeout=0.2)
    refused(
        lambda: impatient.chat.completions.create(
            model=MODEL, messages=HAIKU, n=8, extra_body={"ignore_eos": True}
        ),
        openai.APITimeoutError,
    )
    common.wait_until("the job is gone", common.nothing_runs)


def test_a_killed_worker_changes_no_character():
    ask = {"max_tokens": 160, "temperature": 1.0, "extra_body": {"ignore_eos": True}}
    expected = chat(**ask).choices[0].message.content
    chunks = []
    for count, chunk in enumerate(chat(stream=True, **ask)):
        chunks.append(chunk)
        if count == 5:
            common.kill_worker()
    assert joined(chunks) == expected


def test_a_schema_gives_what_it_describes():
    ask = {"model": MODEL, "messages": HAIKU, "response_format": common.Verse, "seed": 5, "max_tokens": 900}
    whole = client.chat.completions.parse(**ask).choices[0]
    assert whole.finish_reason == "stop"
    verse = whole.message.parsed
    assert isinstance(verse, common.Verse) and all(5 <= line.beats <= 7 for line in verse.lines)
    with client.chat.completions.stream(**ask) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.parsed == verse
    parsed = client.responses.parse(
        model=MODEL, input=HAIKU, text_format=common.Verse, max_output_tokens=900, extra_body={"seed": 5}
    )
    assert isinstance(parsed.output_parsed, common.Verse)
    bad = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nothing"}}}
    refused(lambda: chat(response_format=bad), openai.BadRequestError)


def test_tools_reach_the_model_and_the_answer_is_a_message():
    tool = {"type": "function", "function": {
        "name": "tides", "description": "When the sea is high",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    }}
    answer = chat(tools=[tool], tool_choice="auto").choices[0]
    assert answer.message.content or answer.message.tool_calls, answer
    assert chat(tools=[tool], tool_choice="none").choices[0].message.content
    refused(lambda: chat(tool_choice="required"), openai.BadRequestError)


class Tides(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    sea: typing.Literal["north", "baltic"]
    days: typing.Annotated[int, pydantic.Field(ge=1, le=7)]


def test_a_forced_call_has_arguments_that_fit():
    ask = {"tools": [openai.pydantic_function_tool(Tides)], "seed": 3, "max_tokens": 900}
    for choice in ("required", {"type": "function", "function": {"name": "Tides"}}):
        parsed = client.chat.completions.parse(model=MODEL, messages=HAIKU, tool_choice=choice, **ask)
        (call,) = parsed.choices[0].message.tool_calls
        assert parsed.choices[0].finish_reason == "tool_calls"
        assert isinstance(call.function.parsed_arguments, Tides)
        with client.chat.completions.stream(model=MODEL, messages=HAIKU, tool_choice=choice, **ask) as stream:
            stream.until_done()
            (streamed,) = stream.get_final_completion().choices[0].message.tool_calls
        assert streamed.function.arguments == call.function.arguments
    flat = {"type": "function", "name": "Tides", "parameters": Tides.model_json_schema(), "strict": True}
    response = client.responses.create(
        model=MODEL, input=HAIKU, tools=[flat], tool_choice="required", max_output_tokens=900, extra_body={"seed": 3}
    )
    (item,) = response.output
    assert item.type == "function_call" and Tides.model_validate_json(item.arguments), item


def test_biases_and_penalties_change_what_is_said():
    plain = chat(temperature=0, logprobs=True).choices[0]
    first = client.post("/../tokenize", cast_to=object, body={"prompt": plain.logprobs.content[0].token})
    token = str(first["tokens"][0])
    other = chat(temperature=0, logit_bias={token: -100}).choices[0].message.content
    assert other and other != plain.message.content
    assert chat(temperature=0, frequency_penalty=2, presence_penalty=2).choices[0].message.content


def test_many_at_once():
    async def all_of_them():
        several = openai.AsyncOpenAI(base_url=f"{BASE}/v1", api_key=KEY)
        ask = lambda seed: several.chat.completions.create(
            model=MODEL, messages=HAIKU, max_tokens=16, seed=seed
        )
        answers = await asyncio.gather(*(ask(seed) for seed in range(12)))
        return [answer.choices[0].message.content for answer in answers]

    together = asyncio.run(all_of_them())
    assert together[7] == chat(seed=7, max_tokens=16).choices[0].message.content


common.run(globals())
