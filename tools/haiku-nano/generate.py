"""Generation with the reference model: rendering a chat, greedy and seeded continuation."""

import jinja2
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment


def render(template, messages):
    """A chat as the file's template writes it, ready for the answer."""
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True)


@torch.no_grad()
def logits_of(model, ids):
    """The logits at every position, (tokens, vocabulary) float32."""
    return model(torch.tensor([ids]), use_cache=False).logits[0].float()


@torch.no_grad()
def continuation(loaded, ids, limit, temperature=0.0, seed=0):
    """The ids that follow, up to the limit or the end token, which is kept."""
    generator = torch.Generator().manual_seed(seed)
    output, cache, inputs = [], None, torch.tensor([ids])
    while len(output) < limit:
        result = loaded.model(inputs, past_key_values=cache, use_cache=True)
        cache, logits = result.past_key_values, result.logits[0, -1].float()
        if temperature > 0:
            chances = torch.softmax(logits / temperature, -1)
            token = torch.multinomial(chances, 1, generator=generator).item()
        else:
            token = logits.argmax().item()
        output.append(token)
        if token == loaded.end:
            break
        inputs = torch.tensor([[token]])
    return output


def answer(loaded, messages, limit=256, temperature=0.0, seed=0):
    """(text of an answer, whether it ended by itself)."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    prompt = loaded.tokenizer.encode(render(loaded.template, messages)).ids
    ids = continuation(loaded, prompt, limit, temperature, seed)
    ended = ids[-1] == loaded.end
    return loaded.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False), ended
