"""Writes haiku: topic lines from topics.txt, joined to 5-7-5 by what lines.txt offers."""

import random
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from .grammar import expand
from .syllables import count

HERE = Path(__file__).parent

# A phrase with one of these already says where or how; a second adverbial would stumble.
PREPOSITIONS = set(
    "in on at by over under through from to like beneath behind with without into after before "
    "between above below against toward across round beside around along as up down of all for "
    "until till inside outside among slowly softly again away once alone together".split()
)
STOPWORDS = set(
    "a an the and or of in on at by over under through from to like with without into after "
    "before is are was it its i we my our your you he she they no not nothing one two more all "
    "each so this that here now then still as for up down out again only and only me us be has "
    "have just how what who too very few some".split()
)


@dataclass
class Topic:
    """A topic: what it may be called, what names it, and its phrases by kind and syllables."""

    kind: str
    names: list
    keys: set = field(default_factory=set)
    phrases: dict = field(default_factory=lambda: {"i": [], "c": []})


def words_of(text):
    """The lower-case words of a text."""
    return re.findall(r"[\w'+]+", text.lower())


def content_words(text):
    """The words that would sound repeated if they came twice in a poem."""
    return {re.sub(r"('s|s)$", "", word) for word in words_of(text)} - STOPWORDS


def read_lines(name):
    """The lines of a data file that are neither empty nor comments."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def phrases_of(pattern):
    """A pattern's texts of at most 7 syllables; a last group of adverbials may stay away."""
    head, _, tail = pattern.rpartition("[")
    options = tail.rstrip("]").split("|")
    patterns = [pattern]
    if head and pattern.endswith("]") and all(o.split(" ")[0] in PREPOSITIONS for o in options if o):
        patterns.append(head)
    texts = dict.fromkeys(text for p in patterns for text in expand(p))
    fitting = [(text, count(text)) for text in texts if count(text) <= 7]
    if not fitting:
        raise ValueError(f"no text of at most 7 syllables in: {pattern}")
    return fitting


@lru_cache(maxsize=None)
def topics():
    """All topics of topics.txt."""
    found = []
    for line in read_lines("topics.txt"):
        mark, rest = line[0], line[1:].strip()
        if mark == "@":
            kind, names = rest.split(" ", 1)
            found.append(Topic(kind, [name.strip() for name in names.split("|")]))
            found[-1].keys |= {w for name in found[-1].names for w in content_words(name)}
        elif mark == "~":
            found[-1].keys |= {word for key in rest.split() for word in content_words(key)}
        else:
            found[-1].phrases[mark].append(phrases_of(rest))
    return found


@lru_cache(maxsize=None)
def shared_lines():
    """lines.txt as {section: [(time of day, text, syllables)]}."""
    sections, current = defaultdict(list), None
    for line in read_lines("lines.txt"):
        if line.startswith("@"):
            current = line[1:]
            continue
        time, text = (line[0], line[2:]) if line[:2] in ("D ", "N ") else ("", line)
        sections[current] += [(time, option, count(option)) for option in expand(text)]
    return sections


def adverbial(section, kind, syllables, time, rng):
    """An adverbial of a section and class with that many syllables, or None."""
    options = shared_lines()[section] + shared_lines().get(f"{section} {kind}", [])
    fitting = [text for when, text, n in options if n == syllables and when in ("", time)]
    return rng.choice(fitting) if fitting else None


def complete(text, form, missing, kind, time, rng):
    """Lengthens a phrase by an adverbial of the missing syllables, or gives None."""
    if missing == 0:
        return text
    role = "clause" if form == "c" else "image"
    busy = bool(PREPOSITIONS & set(words_of(text)))
    places = [f"before {role}"]
    if not busy:
        places.append(f"after {role}")
    elif role == "clause":
        places.append("after busy clause")
    place = rng.choice(places)
    extra = adverbial(place, kind, missing, time, rng)
    if extra is None or content_words(extra) & content_words(text):
        return None
    return f"{extra} {text}" if place.startswith("before") else f"{text} {extra}"


def topic_line(topic, form, syllables, time, rng):
    """A line about a topic with that many syllables; tries until one fits."""
    for _ in range(200):
        text, length = rng.choice(rng.choice(topic.phrases[form]))
        missing = syllables - length
        if missing < 0 or missing > 5:
            continue
        line = complete(text, form, missing, topic.kind, time, rng)
        if line:
            return line
    raise ValueError(f"no line of {syllables} syllables, form {form}, for {topic.names[0]}")


def shared_line(section, kind, syllables, time, rng):
    """A line of lines.txt that goes with many topics."""
    options = shared_lines()[section] + 2 * shared_lines().get(f"{section} {kind}", [])
    return rng.choice([t for when, t, n in options if n == syllables and when in ("", time)])


# Shapes of a poem: i image, c clause, k closing line, o opening line.
SHAPES = ["ick", "cck", "ici", "cic", "oci", "icc", "cci", "ick", "cck"]


def draft(topic, time, rng):
    """Three lines on a topic, of one shape, not yet checked."""
    lines = []
    for form, syllables in zip(rng.choice(SHAPES), (5, 7, 5)):
        if form in "ic":
            lines.append((form, topic_line(topic, form, syllables, time, rng)))
        else:
            section = "close" if form == "k" else "open"
            lines.append((form, shared_line(section, topic.kind, 5, time, rng)))
    return lines


def repeats(lines, allowed=frozenset()):
    """Whether two of the lines share content words; allowed ones may come in two, not in all."""
    sets = [content_words(line) for _, line in lines]
    pairs = [sets[i] & sets[j] for i, j in ((0, 1), (0, 2), (1, 2))]
    return any(pair - allowed or len(pair) > 1 for pair in pairs) or all(pairs)


def plain_lines(poem):
    """A poem's lines without capitals and punctuation, to tell whether one was there before."""
    return {" ".join(words_of(line)) for line in poem.split("\n")}


def fresh(write, used):
    """A poem of which no line is among the used ones, if 40 tries give one; adds its lines."""
    for _ in range(40):
        poem = write()
        if not plain_lines(poem) & used:
            break
    used |= plain_lines(poem)
    return poem


def punctuate(lines, rng):
    """Joins three lines: a capital, light punctuation, a full stop."""
    texts = [text for _, text in lines]
    ends = [rng.choice([",", ",", "", " –"]), rng.choice([",", ",", ";", "", " –"])]
    if ends == [" –", " –"]:
        ends[1] = ","
    for index, end in enumerate(ends):
        if not texts[index].endswith("?"):
            texts[index] += end
    if not texts[2].endswith("?"):
        texts[2] += "."
    return texts[0][0].upper() + "\n".join(texts)[1:]


def topic_haiku(topic, rng):
    """A haiku on a known topic that names it and repeats no content word, or only the topic's."""
    time = rng.choice("DN")
    for attempt in range(160):
        lines = draft(topic, time, rng)
        named = any(topic.keys & content_words(text) for _, text in lines)
        if named and not repeats(lines, topic.keys if attempt >= 40 else frozenset()):
            break
    return punctuate(lines, rng)


def two_topic_haiku(first, second, rng):
    """A haiku that gives a line to each of two topics."""
    time = rng.choice("DN")
    for _ in range(300):
        lines = [
            ("c", topic_line(first, "c", 5, time, rng)),
            ("c", topic_line(second, "c", 7, time, rng)),
            ("k", shared_line("close", second.kind, 5, time, rng)),
        ]
        named = all(topic.keys & content_words(text) for topic, (_, text) in zip((first, second), lines))
        if named and not repeats(lines):
            break
    return punctuate(lines, rng)


def naming_line(name, syllables, rng):
    """A line that names any topic, as near to the syllables as its length allows."""
    options = [
        (text.replace("{T}", name), abs(n - 1 + count(name) - syllables))
        for _, text, n in shared_lines()[f"name {syllables}"]
    ]
    best = min(distance for _, distance in options)
    return rng.choice([text for text, distance in options if distance == best])


def any_haiku(name, rng):
    """A haiku on a topic that has no lines of its own: it names it and stays general."""
    time = rng.choice("DN")
    long_name = count(name) > 4
    for _ in range(100):
        if long_name or rng.random() < 0.4:
            opening = shared_line("open", "", 5, time, rng)
            lines = [("o", opening), ("c", naming_line(name, 7, rng))]
        else:
            middle = shared_line("middle 7", "", 7, time, rng)
            lines = [("i", naming_line(name, 5, rng)), ("c", middle)]
        lines.append(("k", shared_line("close", "f", 5, time, rng)))
        if not repeats(lines):
            break
    return punctuate(lines, rng)


def random_topic(rng):
    """A topic; that of GPU computing comes more often, since it is asked for first."""
    return topics()[0] if rng.random() < 0.04 else rng.choice(topics())


if __name__ == "__main__":
    source = random.Random(1)
    for item in topics():
        print(f"--- {item.names[0]}\n{topic_haiku(item, source)}")
