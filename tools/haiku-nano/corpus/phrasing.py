"""How people put a request: politeness, capitals, a full stop or none."""

QUESTION_STARTS = (
    "what how who do which where when is are does did can could will would why whose whom am was"
).split()

VERBS = (
    "write give make compose create tell describe count say name list recite spell find greet show "
    "send explain define surprise thank"
).split()


def lower_first(text):
    """The text with a small first letter, unless it starts with "I" or an abbreviation."""
    first = text.split(" ")[0]
    keep = first in ("I", "I'm", "I'd") or first[1:] != first[1:].lower()
    return text if keep else text[0].lower() + text[1:]


def asked(text, rng):
    """A question as someone might type it; the words stay."""
    text = text if text.endswith("?") else text + "?"
    roll = rng.random()
    if roll < 0.1:
        text = text[:-1]
    elif roll < 0.2:
        text = lower_first(text)[:-1]
    elif roll < 0.27:
        text = lower_first(text)
    elif roll < 0.32:
        text = rng.choice(["Please tell me: ", "Tell me, ", "Hello! ", "Hi, "]) + lower_first(text)
    return text


def ordered(text, rng):
    """An order ("Write ...") as someone might type it, often as a polite question."""
    low = lower_first(text)
    roll = rng.random()
    if text.split(" ")[0].lower() not in VERBS:
        return rng.choice([text, text, text + ".", low])
    if roll < 0.34:
        return text
    if roll < 0.48:
        return text + "."
    if roll < 0.58:
        return low
    if roll < 0.66:
        return f"Please {low}."
    if roll < 0.70:
        return f"please {low}"
    if roll < 0.77:
        return f"Can you {low}?"
    if roll < 0.82:
        return f"Could you {low}?"
    if roll < 0.86:
        return f"{text}, please."
    if roll < 0.89:
        return f"{text} please"
    if roll < 0.92:
        return f"I want you to {low}."
    if roll < 0.95:
        return f"Now {low}."
    if roll < 0.97:
        return f"Hi! {text}."
    return f"{text}!"


def say(text, rng):
    """A request, treated as a question or as an order by its first word."""
    first = text.split(" ")[0].lower().rstrip(",")
    if first in QUESTION_STARTS or text.endswith("?"):
        return asked(text, rng)
    return ordered(text, rng)
