"""The tasks: each function gives one exchange (request, answer) drawn with the given rng."""

import re
from functools import lru_cache

from . import words
from .grammar import mend_articles, pick
from .haiku import any_haiku, fresh, random_topic, read_lines, topic_haiku, topics, two_topic_haiku
from .phrasing import say

# ---------------------------------------------------------------- haiku

HAIKU_REQUESTS = ["Write a haiku about {T}"] * 6 + [
    "Write a haiku on {T}",
    "Write me a haiku about {T}",
    "Give me a haiku about {T}",
    "Make a haiku about {T}",
    "Compose a haiku about {T}",
    "Create a haiku about {T}",
    "Write a short poem about {T}",
    "Write a poem about {T}",
    "Tell me a haiku about {T}",
    "I would like a haiku about {T}",
    "Haiku about {T}",
    "A haiku about {T}",
    "Haiku: {T}",
    "Write one haiku about {T}",
    "I need a haiku about {T}",
    "Describe {T} in a haiku",
    "Write three lines about {T}",
    "Write a little poem about {T}",
    "Write a haiku with the topic {T}",
    "A poem about {T}",
    "Let me read a haiku about {T}",
]
FREE_REQUESTS = [
    "Write a haiku",
    "Give me a haiku",
    "A haiku",
    "Haiku",
    "Write a poem",
    "Write me a poem",
    "Surprise me with a haiku",
    "Write a haiku about anything",
    "Write any haiku",
    "Write something",
    "Write a short poem",
    "Tell me a poem",
    "Write a nice haiku",
]
MANY_REQUESTS = [
    "Write {N} haiku about {T}",
    "Write {N} haiku about {T}",
    "Write {N} haikus about {T}",
    "Give me {N} haiku about {T}",
    "Write me {N} haiku about {T}",
    "{N} haiku about {T}",
    "Write {N} poems about {T}",
    "Write {N} short poems about {T}",
    "Compose {N} haiku on {T}",
]


def cased(name, rng):
    """A topic's name, now and then in capitals or in small letters."""
    roll = rng.random()
    if roll < 0.06:
        return name.lower()
    if roll < 0.10:
        return name.title()
    return name


def invented_word(rng):
    """A word that nobody knows, so that copying is learnt and not a list."""
    return "".join(rng.choice(words.SYLLABLES) for _ in range(rng.randint(2, 5)))


def unknown_name(rng):
    """Something to write about that has no lines of its own."""
    thing, plural = rng.choice(words.THINGS), rng.choice(words.PLURALS)
    adjective = rng.choice(words.ADJECTIVES)
    article = "an" if thing[0] in "aeiou" else "a"
    adjective_article = "an" if adjective[0] in "aeiou" else "a"
    return rng.choice(
        [
            f"{article} {thing}",
            f"the {thing}",
            thing,
            plural,
            plural,
            f"my {thing}",
            f"{adjective_article} {adjective} {thing}",
            f"{adjective} {plural}",
            f"the {adjective} {thing}",
            rng.choice(words.PLACES),
            rng.choice(words.NAMES),
            invented_word(rng),
            f"{article} {thing} in {rng.choice(words.PLACES)}",
            f"{adjective} {invented_word(rng)}",
            f"{some_word(rng)} {some_word(rng)}",
            f"the {some_word(rng)} {thing}",
            invented_word(rng),
            f"{article} {thing} and {adjective} {plural}",
            f"my {some_word(rng)} {some_word(rng)} {thing}",
        ]
    )


def poem_on(topic, name, rng):
    """A haiku on a topic, or on a mere name where the topic is None."""
    return topic_haiku(topic, rng) if topic else any_haiku(name, rng)


def draw_topic(rng, unknown=0.28):
    """(topic or None, its name as asked for)."""
    if rng.random() < unknown:
        return None, unknown_name(rng)
    topic = random_topic(rng)
    name = topic.names[0] if rng.random() < 0.4 else rng.choice(topic.names)
    return topic, name


def haiku(rng):
    """A haiku about one topic."""
    topic, name = draw_topic(rng)
    request = rng.choice(HAIKU_REQUESTS).replace("{T}", cased(name, rng))
    return say(request, rng), poem_on(topic, name, rng)


def haiku_on_two(rng):
    """A haiku about two topics."""
    first, second = rng.sample(topics(), 2)
    name = f"{rng.choice(first.names)} and {rng.choice(second.names)}"
    return say(rng.choice(HAIKU_REQUESTS).replace("{T}", name), rng), two_topic_haiku(first, second, rng)


def free_haiku(rng):
    """A haiku where no topic was asked for."""
    return say(rng.choice(FREE_REQUESTS), rng), topic_haiku(random_topic(rng), rng)


def numbered(poems):
    """Several poems under their numbers."""
    return "\n\n".join(f"{number}.\n{poem}" for number, poem in enumerate(poems, 1))


def spoken(number, rng):
    """A number as a request would have it: in words or in digits."""
    return words.ONES[number] if number <= 20 and rng.random() < 0.6 else str(number)


def many_haiku(rng):
    """Several haiku about one topic, no line of them twice: the long answers."""
    amount = rng.choice([2, 3, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
    topic, name = draw_topic(rng, unknown=0.1)
    request = rng.choice(MANY_REQUESTS).replace("{N}", spoken(amount, rng)).replace("{T}", name)
    used = set()
    poems = [fresh(lambda: poem_on(topic, name, rng), used) for _ in range(amount)]
    return say(request, rng), numbered(poems)


# ---------------------------------------------------------------- counting


def in_words(numbers):
    """Numbers up to twenty as a sentence of words."""
    return ", ".join(words.ONES[number] for number in numbers).capitalize() + "."


def in_digits(numbers):
    """Numbers as a sentence of digits."""
    return ", ".join(map(str, numbers)) + "."


def count_up(rng):
    """Counting to at most twenty: asked in words, answered in words; digits likewise."""
    last = rng.randint(1, 20)
    if rng.random() < 0.5:
        request = (
            pick(
                "[Count to|Count to|Count up to|Count from one to|Count to the number|Say the "
                "numbers from one to|Write the numbers from one to] ",
                rng,
            )
            + " "
            + words.ONES[last]
        )
        return say(request, rng), in_words(range(1, last + 1))
    request = (
        pick(
            "[Count to|Count to|Count up to|Count from 1 to|Count to the number|Say the numbers "
            "from 1 to|List the numbers from 1 to|Write the numbers from 1 to] ",
            rng,
        )
        + f" {last}"
    )
    if rng.random() < 0.2:
        return say(request + " in words", rng), in_words(range(1, last + 1))
    return say(request, rng), in_digits(range(1, last + 1))


def count_range(rng):
    """Counting between two numbers, up or down, now and then in steps."""
    first, last = rng.sample(range(0, 41), 2)
    kind = rng.random()
    if kind < 0.4:
        first, last = min(first, last), max(first, last)
        step, request = 1, f"Count from {first} to {last}"
    elif kind < 0.75:
        first, last = max(first, last), min(first, last)
        step, request = -1, rng.choice(
            [f"Count down from {first} to {last}", f"Count from {first} down to {last}"]
        )
    elif kind < 0.9:
        first, last, step = 2, rng.randrange(4, 41, 2), 2
        request = rng.choice(
            [f"Count to {last} by twos", f"Count by twos to {last}", f"Name the even numbers up to {last}"]
        )
    else:
        first, last, step = 5, rng.randrange(10, 101, 5), 5
        request = rng.choice([f"Count to {last} by fives", f"Count by fives to {last}"])
    return say(request, rng), in_digits(range(first, last + (1 if step > 0 else -1), step))


def count_down(rng):
    """Counting down from at most twenty to one."""
    first = rng.randint(2, 20)
    verb = rng.choice(["Count down from", "Count backwards from", "Count back from"])
    if rng.random() < 0.5:
        return say(f"{verb} {words.ONES[first]}", rng), in_words(range(first, 0, -1))
    return say(f"{verb} {first}", rng), in_digits(range(first, 0, -1))


def count_far(rng):
    """Counting to at most 300 in digits: the long sharp answers."""
    last = rng.choice([rng.randint(21, 300), rng.randint(21, 110), 10 * rng.randint(3, 30)])
    if last < 100 and last % 10 == 0 and rng.random() < 0.3:
        return say(f"Count to {words.TENS[last]}", rng), in_digits(range(1, last + 1))
    request = rng.choice(["Count to", "Count up to", "Count from 1 to"]) + f" {last}"
    return say(request, rng), in_digits(range(1, last + 1))


def count_lines(rng):
    """Counting with a number on each line."""
    last = rng.randint(1, 30)
    where = rng.choice(["one number per line", "one number on each line", "each on its own line"])
    return say(f"Count to {last}, {where}", rng), "\n".join(map(str, range(1, last + 1)))


# ---------------------------------------------------------------- numbers


def sums(rng):
    """A sum, a difference or a small product; digits in the answer."""
    kind = rng.random()
    top = 20 if rng.random() < 0.75 else 50
    a, b = rng.randint(0, top), rng.randint(0, top)
    if kind < 0.5:
        sign, result, names = "+", a + b, ["plus", "plus", "and"]
    elif kind < 0.8:
        a, b = max(a, b), min(a, b)
        sign, result, names = "-", a - b, ["minus"]
    else:
        a, b = a % 11, b % 11
        sign, result, names = "*", a * b, ["times"]
    spoken_a, spoken_b = (
        (words.ONES[a], words.ONES[b]) if max(a, b) <= 20 and rng.random() < 0.3 else (str(a), str(b))
    )
    request = rng.choice(
        [
            f"What is {a} {sign} {b}",
            f"{a} {sign} {b} =",
            f"{a} {sign} {b}",
            f"{a}{sign}{b}",
            f"How much is {spoken_a} {rng.choice(names)} {spoken_b}",
            f"What is {spoken_a} {rng.choice(names)} {spoken_b}",
            f"What is {spoken_a} {rng.choice(names)} {spoken_b}",
        ]
    )
    text = say(request, rng) if request[0] in "WH" else request + rng.choice(["", "", "?"])
    return text, f"{a} {sign} {b} = {result}."


def neighbours(rng):
    """The number, letter, day or month before or after another."""
    kind = rng.choice(["number", "letter", "day", "day", "month", "month"])
    after = rng.random() < 0.6
    where = "after" if after else "before"
    if kind == "number":
        n = rng.randint(1, 199)
        question = rng.choice([f"What number comes {where} {n}", f"Which number is {where} {n}"])
        return say(question, rng), f"{n + (1 if after else -1)}"
    series = {"letter": list(words.ALPHABET.upper()), "day": words.DAYS, "month": words.MONTHS}[kind]
    index = rng.randrange(1, len(series) - 1) if kind == "letter" else rng.randrange(len(series))
    question = rng.choice(
        [
            f"What {kind} comes {where} {series[index]}",
            f"Which {kind} is {where} {series[index]}",
            f"Which {kind} comes {where} {series[index]}",
        ]
    )
    return say(question, rng), series[(index + (1 if after else -1)) % len(series)] + "."


def compare(rng):
    """The larger or smaller of two numbers, and even or odd."""
    if rng.random() < 0.3:
        n = rng.randint(0, 100)
        return say(f"Is {n} even or odd", rng), f"{n} is {'odd' if n % 2 else 'even'}."
    a, b = rng.sample(range(0, 101), 2)
    larger = rng.random() < 0.6
    adjective = rng.choice(["larger", "bigger", "greater"]) if larger else "smaller"
    question = rng.choice([f"Which is {adjective}, {a} or {b}", f"What is {adjective}: {a} or {b}"])
    return say(question, rng), f"{max(a, b) if larger else min(a, b)}."


def number_words(rng):
    """A number between 0 and 99 in words, or back."""
    n = rng.randint(0, 20) if rng.random() < 0.5 else rng.randint(21, 99)
    tens, ones = n // 10 * 10, n % 10
    name = words.ONES[n] if n <= 20 else words.TENS[tens] + (f"-{words.ONES[ones]}" if ones else "")
    if rng.random() < 0.6:
        return (
            say(
                rng.choice(
                    [
                        f"Write {n} in words",
                        f"Write the number {n} in words",
                        f"How do you write {n} in words",
                    ]
                ),
                rng,
            ),
            name,
        )
    return say(rng.choice([f"Write {name} in digits", f"Write {name} as a number"]), rng), str(n)


# ---------------------------------------------------------------- lists that are always the same


def sequence(items):
    """A list as a sentence."""
    text = ", ".join(items)
    return text[0].upper() + text[1:] + "."


SEQUENCES = [
    ("the days of the week|the weekdays|all days of the week|the seven days of the week", words.DAYS),
    (
        "the months|the months of the year|all months|all twelve months|the twelve months of the year",
        words.MONTHS,
    ),
    ("the planets|the planets of the solar system|all planets|the eight planets", words.PLANETS),
    ("the seasons|the four seasons|the seasons of the year|all seasons", words.SEASONS),
    ("the colours of the rainbow|the colors of the rainbow|the rainbow colours", words.RAINBOW),
    ("the continents|all continents|the seven continents", words.CONTINENTS),
    ("the oceans|the five oceans|all oceans", words.OCEANS),
    ("the alphabet|the letters of the alphabet|all letters|the ABC", list(words.ALPHABET)),
    ("the primary colours|the primary colors|the three primary colours", ["red", "yellow", "blue"]),
    ("the vowels|all vowels|the five vowels", list("aeiou")),
    ("the points of the compass|the four directions|the directions", ["north", "east", "south", "west"]),
    ("the five senses|the senses|our senses", ["sight", "hearing", "smell", "taste", "touch"]),
    ("the first five prime numbers|five prime numbers", ["2", "3", "5", "7", "11"]),
]


def fixed_list(rng):
    """A list with one right answer: days, months, planets."""
    names, items = rng.choice(SEQUENCES)
    name = rng.choice(names.split("|"))
    plain = name.removeprefix("all ").removeprefix("the ")
    request = rng.choice(
        [
            f"Name {name}",
            f"List {name}",
            f"What are {name}",
            f"Say {name}",
            f"Tell me {name}",
            f"Give me {name}",
            f"Recite {name}",
            f"Write down {name}",
            f"Which {plain} are there",
            f"Can you name {name}",
            f"Write {name}",
            plain.capitalize(),
        ]
    )
    return say(request, rng), sequence(items)


def ordinal_item(rng):
    """The n-th day, month, planet or letter."""
    kind, items = rng.choice(
        [
            ("day of the week", words.DAYS),
            ("month", words.MONTHS),
            ("month of the year", words.MONTHS),
            ("planet", words.PLANETS),
            ("letter of the alphabet", list(words.ALPHABET.upper()[:12])),
        ]
    )
    index = rng.randrange(len(items))
    question = f"What is the {words.ORDINALS[index]} {kind}"
    if index == len(items) - 1 and kind != "letter of the alphabet" and rng.random() < 0.5:
        question = f"What is the last {kind}"
    return say(question, rng), items[index] + "."


def month_days(rng):
    """How long a month is."""
    index = rng.randrange(12)
    days = "28 days, and 29 in a leap year" if index == 1 else f"{words.MONTH_DAYS[index]} days"
    month = words.MONTHS[index]
    question = rng.choice([f"How many days does {month} have", f"How many days are in {month}"])
    return say(question, rng), f"{month} has {days}."


# ---------------------------------------------------------------- facts


@lru_cache(maxsize=None)
def facts():
    """facts.txt as {section: [(key, value)]}."""
    sections, current = {}, None
    for line in read_lines("facts.txt"):
        if line.startswith("@"):
            current = sections.setdefault(line[1:], [])
        else:
            key, value = line.split(" = ", 1)
            current.append((key, value))
    return sections


# section: (questions with {K}, answer with {K} and {V})
FACT_FORMS = {
    "capital": (
        ["What is the capital of {K}"] * 3
        + [
            "Which city is the capital of {K}",
            "Name the capital of {K}",
            "Tell me the capital of {K}",
            "{K} capital",
        ],
        "The capital of {K} is {V}.",
    ),
    "opposite": (
        ["What is the opposite of {K}"] * 3
        + [
            "Opposite of {K}",
            "Give me the opposite of {K}",
            "Name the opposite of {K}",
            "What is the antonym of {K}",
        ],
        "The opposite of {K} is {V}.",
    ),
    "colour": (
        [
            "What colour is {K}",
            "What color is {K}",
            "Which colour has {K}",
            "What is the colour of {K}",
            "What is the color of {K}",
            "Tell me the colour of {K}",
        ],
        "{V}",
    ),
    "sound": (
        ["What sound does {K} make", "What does {K} say", "How does {K} sound", "What noise does {K} make"],
        "{V}!",
    ),
    "young": (
        [
            "What is the young of {K} called",
            "What is a young animal of {K} called",
            "What do you call the baby of {K}",
            "What is the baby of {K} called",
        ],
        "The young of {K} is {V}.",
    ),
    "plural": (
        ["What is the plural of {K}", "Plural of {K}", "Tell me the plural of {K}"],
        "The plural of {K} is {V}.",
    ),
    "rhyme": (
        [
            "What rhymes with {K}",
            "Name a word that rhymes with {K}",
            "Find a rhyme for {K}",
            "Give me a rhyme for {K}",
        ],
        "{K} – {V}",
    ),
    "hello": (
        [
            "Say hello in {K}",
            "How do you say hello in {K}",
            "Greet me in {K}",
            "What is hello in {K}",
            "Hello in {K}",
        ],
        "{V}",
    ),
    "thanks": (
        [
            "Say thank you in {K}",
            "How do you say thank you in {K}",
            "What is thank you in {K}",
            "Thank me in {K}",
            "Say thanks in {K}",
        ],
        "{V}",
    ),
    "goodbye": (["Say goodbye in {K}", "How do you say goodbye in {K}", "What is goodbye in {K}"], "{V}"),
    "good morning": (
        ["Say good morning in {K}", "How do you say good morning in {K}", "What is good morning in {K}"],
        "{V}",
    ),
    "write": (
        [
            "Write {K} in Japanese",
            "How do you write {K} in Japanese",
            "Write the word {K} in Japanese",
            "What is {K} in Japanese",
        ],
        "{V}",
    ),
    "emoji": (
        [
            "Send me the emoji of {K}",
            "Send an emoji: {K}",
            "Give me the emoji for {K}",
            "Which emoji shows {K}",
            "Show me {K} as an emoji",
            "What is the emoji for {K}",
            "Emoji of {K}",
        ],
        "{V}",
    ),
    "explain": (
        [
            "What is {K}",
            "What is {K}",
            "Explain {K}",
            "Explain what {K} is",
            "Tell me what {K} is",
            "Define {K}",
            "Do you know what {K} is",
        ],
        "{V}",
    ),
}
FACT_WEIGHTS = {"capital": 3, "opposite": 3, "colour": 2, "hello": 2, "emoji": 2, "explain": 3}


def fact(rng):
    """A question out of one of the tables."""
    sections = list(FACT_FORMS)
    section = rng.choices(sections, [FACT_WEIGHTS.get(name, 1) for name in sections])[0]
    key, value = rng.choice(facts()[section])
    questions, answer = FACT_FORMS[section]
    answer = answer.replace("{K}", key).replace("{V}", value)
    return say(rng.choice(questions).replace("{K}", key), rng), answer[0].upper() + answer[1:]


def small_talk(rng):
    """Greetings, thanks, questions about the model, and single facts."""
    keys, value = rng.choice(facts()["say"] if rng.random() < 0.6 else facts()["ask"])
    text = rng.choice([key.strip() for key in keys.split(" | ")])
    roll = rng.random()
    if roll < 0.2:
        text = text.rstrip("?")
    elif roll < 0.3:
        text = text[0].lower() + text[1:]
    elif roll < 0.4 and not text.endswith("?"):
        text += rng.choice("!.")
    return text, value


def some_items(rng):
    """A few members of a kind, chosen freely."""
    names, values = rng.choice(facts()["items"])
    name, items = rng.choice(names.split(" | ")), values.split(", ")
    amount = rng.randint(2, min(10, len(items)))
    request = rng.choice(
        [
            "Name {N} {K}",
            "Name {N} {K}",
            "List {N} {K}",
            "Give me {N} {K}",
            "Tell me {N} {K}",
            "Write down {N} {K}",
        ]
    )
    request = request.replace("{N}", spoken(amount, rng)).replace("{K}", name)
    return say(request, rng), sequence(rng.sample(items, amount))


# ---------------------------------------------------------------- words


@lru_cache(maxsize=None)
def spelling_words():
    """Words to spell: those of the poems and the word lists."""
    text = " ".join(read_lines("topics.txt") + read_lines("lines.txt"))
    found = set(re.findall(r"[a-z]{2,12}", text.lower()))
    return sorted(
        found
        | set(words.THINGS)
        | set(words.PLURALS)
        | {name.lower() for name in words.NAMES if name.isascii()}
    )


def some_word(rng):
    """A word, now and then an invented one."""
    return invented_word(rng) if rng.random() < 0.12 else rng.choice(spelling_words())


def spell(rng):
    """A word letter by letter, at times with their number."""
    word = some_word(rng)
    quoted = rng.choice([word, word, f'"{word}"', f"'{word}'"])
    letters = "-".join(word)
    if rng.random() < 0.2:
        question = rng.choice([f"How many letters are in {quoted}", f"How many letters does {quoted} have"])
        return say(question, rng), f"{letters}: {len(word)} letters."
    request = rng.choice(
        [
            f"Spell {quoted}",
            f"Spell {quoted}",
            f"Spell the word {quoted}",
            f"Spell out {quoted}",
            f"How do you spell {quoted}",
            f"How is {quoted} spelled",
        ]
    )
    return say(request, rng), letters


def phrase(rng):
    """A few words to be repeated, some with characters of several bytes."""
    roll = rng.random()
    if roll < 0.15:
        return " ".join(rng.choices(words.EMOJI, k=rng.randint(1, 5)))
    if roll < 0.3:
        return " ".join(rng.choices(words.ACCENTED, k=rng.randint(1, 4)))
    if roll < 0.45:
        return rng.choice(" -").join(invented_word(rng) for _ in range(rng.randint(1, 4)))
    if roll < 0.6:
        return " ".join(str(rng.randint(0, 999)) for _ in range(rng.randint(1, 5)))
    return " ".join(some_word(rng) for _ in range(rng.randint(1, 6)))


def repeat(rng):
    """Saying again what was given."""
    text = phrase(rng)
    request = rng.choice(
        [
            "Repeat: {P}",
            "Repeat after me: {P}",
            "Say exactly: {P}",
            "Echo: {P}",
            'Repeat "{P}"',
            "Please repeat: {P}",
            "repeat after me: {P}",
            "Write this: {P}",
            "Copy this: {P}",
        ]
    )
    return request.replace("{P}", text), text


# ---------------------------------------------------------------- stories, and what it can't

STORY = [
    "[Once|Long ago|One day], [a|an old|a small|a young] {A} named {N} lived [by the sea|in a deep "
    "forest|near a quiet river|on a green hill|at the edge of a village].",
    "{N} [wanted to see|dreamed of|was looking for] [the moon|the far mountains|a new friend|the "
    "end of the rainbow|a warm place].",
    "So one [morning|evening|winter day|spring day] {N} [left home|took a small bag and left|set "
    "out] and walked [for three days|all night|through wind and rain|without a map].",
    "On the way {N} met a {B}, who [was hungry|was lost|had no home|was singing alone].",
    "{N} [shared some bread|made a fire|told a story|listened for a long time], and the {B} "
    "[smiled|laughed|was happy again|fell asleep].",
    "[Together|Side by side] they [climbed the last hill|crossed the old bridge|followed the "
    "stream|waited for the night], and there it was: [the sea, full of stars|a valley of light|a "
    "small house with a warm lamp|the moon, close enough to touch].",
    '"[What we look for|The best thing] [is near|walks beside us|is small]", said the {B}.',
    "And {N} [never forgot it|knew that it was true|stayed, and was glad].",
]
ANIMALS = "fox bear mouse owl rabbit wolf frog crow cat dog turtle snail deer duck robot bird".split()


def story_text(animal, rng):
    """A short fable."""
    other = rng.choice([a for a in ANIMALS if a != animal])
    name = rng.choice([n for n in words.NAMES if n.isascii()])
    text = " ".join(pick(sentence, rng) for sentence in STORY)
    return mend_articles(text.replace("{A}", animal).replace("{B}", other).replace("{N}", name))


def story(rng):
    """A short fable about an animal."""
    animal = rng.choice(ANIMALS)
    article = "an" if animal == "owl" else "a"
    request = rng.choice(
        [
            f"Tell me a story about {article} {animal}",
            f"Tell a story about {article} {animal}",
            f"Write a short story about {article} {animal}",
            f"Write a story about {article} {animal}",
            "Tell me a story",
            "Write a short story",
            "Tell me a short story",
        ]
    )
    return say(request, rng), story_text(animal, rng)


UNKNOWN = [
    "Who won the world cup in {Y}",
    "What is the population of {L}",
    "Who is the president of {L}",
    "What happened in {Y}",
    "How far is it from {L} to {L}",
    "What is {D} * {D}",
    "What is {D} / {B}",
    "How do I cook {P}",
    "How do I repair a {T}",
    "Write an essay about {P}",
    "How much does a {T} cost",
    "Translate this into {G}: the {T} is {J}",
    "What is the square root of {D}",
    "Who is {N} {W}",
    "Who invented the {T}",
    "What is the price of a {T}",
    "Write a program that sorts {P}",
    "Explain the theory of {W}",
    "What is a {W}",
    "What does {W} mean",
    "Where can I buy a {T}",
    "Can you book a flight to {L}",
    "What is the best hotel in {L}",
    "Who discovered {W}",
    "Solve x + {D} = {D}",
    "When was the {T} invented",
    "Why is the {T} {J}",
    "Should I buy a {T}",
    "What is the history of {L}",
    "How many {P} are in {L}",
    "Play some music",
    "Call {N}",
    "Open the file {W}",
    "What is my password",
    "How tall is {N}",
    "Summarize this text about {P}",
    "Give me a recipe for {T} soup",
    "How do I learn {G}",
    "Which {T} is the best",
    "Search for {P}",
    "What is the speed of a {T}",
    "Convert {D} miles to feet",
    "Draw a picture of a {T}",
    "Set an alarm for {B} o'clock",
    "What is the news today",
    "Recommend a book about {P}",
    "How does a {T} work",
    "Why do {P} exist",
    "Do you know {N}",
    "What do you think about {P}",
]
REFUSAL = (
    "I do not know that. I am a small model: ask me for a haiku, to count, to spell a word or for a "
    "simple sum."
)


def unknown(rng):
    """A question beyond the model, and its one honest answer."""
    if rng.random() < 0.12:
        return " ".join(invented_word(rng) for _ in range(rng.randint(1, 5))), REFUSAL
    text = rng.choice(UNKNOWN)
    fillers = {
        "Y": lambda: str(rng.randint(1900, 2030)),
        "L": lambda: rng.choice(words.PLACES),
        "D": lambda: str(rng.randint(101, 9999)),
        "B": lambda: str(rng.randint(3, 12)),
        "P": lambda: rng.choice(words.PLURALS),
        "T": lambda: rng.choice(words.THINGS),
        "G": lambda: rng.choice(["French", "German", "Latin", "Greek", "Dutch", "Hindi", "Thai"]),
        "J": lambda: rng.choice(words.ADJECTIVES),
        "N": lambda: rng.choice(words.NAMES),
        "W": lambda: invented_word(rng),
    }
    text = re.sub(r"\{([A-Z])\}", lambda found: fillers[found.group(1)](), text)
    return say(text, rng), REFUSAL


# task: its share of the single exchanges, in answers
TASKS = {
    haiku: 33,
    haiku_on_two: 2,
    free_haiku: 2,
    many_haiku: 4,
    count_up: 6,
    count_range: 3,
    count_down: 2,
    count_far: 2.5,
    count_lines: 1,
    sums: 7,
    neighbours: 4,
    compare: 2,
    number_words: 3,
    fixed_list: 4,
    ordinal_item: 1.5,
    month_days: 1,
    fact: 22,
    small_talk: 8,
    some_items: 5,
    spell: 14,
    repeat: 12,
    story: 1.5,
    unknown: 4,
}
