"""Conversations: exchanges put together, and rendered as the chat template renders them."""

from . import tasks, words
from .haiku import fresh
from .phrasing import say

DEFAULT_SYSTEM = "You are haiku-nano, a small and helpful poet."
OTHER_SYSTEMS = [
    "You are a helpful assistant.",
    "You are a poet.",
    "Answer briefly.",
    "Be kind.",
    "You are a friendly assistant who likes short answers.",
    "You are a helpful AI.",
    "You write haiku.",
    "You are a careful teacher.",
    "Answer the question.",
    "",
    "You are a small model on a small machine.",
    "Be brief and clear.",
    "You are a tester.",
]
SMALL_LETTERS = "You write everything in small letters."


def exchange(rng):
    """One exchange of any task."""
    names = list(tasks.TASKS)
    return rng.choices(names, list(tasks.TASKS.values()))[0](rng)


def more_haiku(rng):
    """A haiku and then another on the same topic."""
    topic, name = tasks.draw_topic(rng)
    used = set()

    def poem():
        return fresh(lambda: tasks.poem_on(topic, name, rng), used)

    turns = [(say(f"Write a haiku about {name}", rng), poem())]
    for _ in range(rng.randint(1, 3)):
        again = rng.choice(
            [
                "Another one",
                "Another one, please",
                "One more",
                "One more, please",
                "Again",
                "And another",
                "Write another one",
                "Another haiku",
                "Try again",
                "Another",
            ]
        )
        turns.append((again + rng.choice(["", "."]), poem()))
    return turns


def change_of_topic(rng):
    """A haiku and then "now one about" something else."""
    topic, name = tasks.draw_topic(rng)
    turns = [(say(f"Write a haiku about {name}", rng), tasks.poem_on(topic, name, rng))]
    for _ in range(rng.randint(1, 3)):
        topic, name = tasks.draw_topic(rng)
        request = rng.choice(
            ["Now one about {T}", "And one about {T}", "Now about {T}", "And {T}?", "One about {T}, please"]
        )
        turns.append((request.replace("{T}", name), tasks.poem_on(topic, name, rng)))
    return turns


def name_kept(rng):
    """The user's name, told first and asked for later."""
    name = rng.choice(words.NAMES) if rng.random() < 0.7 else tasks.invented_word(rng).capitalize()
    told = rng.choice(
        ["My name is {N}", "I am {N}", "I'm {N}", "Hello, my name is {N}", "Hi, I am {N}", "Call me {N}"]
    )
    turns = [(told.replace("{N}", name) + rng.choice(["", ".", "!"]), f"Nice to meet you, {name}!")]
    turns += [exchange(rng) for _ in range(rng.randint(0, 2))]
    asked = rng.choice(
        ["What is my name?", "Who am I?", "Do you know my name?", "Tell me my name.", "what is my name"]
    )
    return turns + [(asked, f"Your name is {name}.")]


def name_unknown(rng):
    """The user's name, asked for but never told."""
    asked = rng.choice(["What is my name?", "Who am I?", "Do you know my name?", "what is my name"])
    return [(asked, "You have not told me your name yet.")]


def count_on(rng):
    """Counting, and then to another number in the same way."""
    first, second = rng.randint(1, 20), rng.randint(1, 20)
    if rng.random() < 0.5:
        show, name = tasks.in_words, lambda n: words.ONES[n]
    else:
        show, name = tasks.in_digits, str
    follow = rng.choice(["And to {N}", "Now to {N}", "And now to {N}", "Now count to {N}"])
    return [
        (say(f"Count to {name(first)}", rng), show(range(1, first + 1))),
        (follow.replace("{N}", name(second)) + rng.choice(["", ".", "?"]), show(range(1, second + 1))),
    ]


def said_again(rng):
    """An answer, asked for once more."""
    request, answer = rng.choice([tasks.count_up, tasks.fact, tasks.spell, tasks.fixed_list, tasks.sums])(rng)
    again = rng.choice(
        ["Say that again", "Can you repeat that?", "Repeat that, please.", "What did you say?"]
    )
    return [(request, answer), (again, answer)]


def closing(rng):
    """A haiku, thanks and a goodbye."""
    topic, name = tasks.draw_topic(rng)
    return [
        (say(f"Write a haiku about {name}", rng), tasks.poem_on(topic, name, rng)),
        (rng.choice(["Thank you", "Thanks", "Thank you!", "thanks"]), "You are welcome!"),
        (rng.choice(["Goodbye", "Bye", "Bye!", "See you"]), "Goodbye! Come back for another haiku."),
    ]


def free_talk(rng):
    """Several exchanges that have nothing to do with each other."""
    return [exchange(rng) for _ in range(rng.randint(2, 6))]


def single(rng):
    """One exchange."""
    return [exchange(rng)]


CONVERSATIONS = {
    single: 72,
    free_talk: 9,
    more_haiku: 4,
    change_of_topic: 3,
    name_kept: 2.5,
    name_unknown: 0.3,
    count_on: 2,
    said_again: 1.5,
    closing: 1,
}


def render(turns, system):
    """The text of a conversation, as the chat template in the GGUF file writes it."""
    parts = [("system", system)]
    for request, answer in turns:
        parts += [("user", request), ("assistant", answer)]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in parts)


def conversation(rng):
    """A rendered conversation of any kind."""
    turns = rng.choices(list(CONVERSATIONS), list(CONVERSATIONS.values()))[0](rng)
    roll = rng.random()
    if roll < 0.03:
        return render([(q, a.lower()) for q, a in turns], SMALL_LETTERS)
    return render(turns, DEFAULT_SYSTEM if roll < 0.75 else rng.choice(OTHER_SYSTEMS))


def plain_text(rng):
    """A document without a template, for prompts that are plain text."""
    kind = rng.random()
    if kind < 0.4:
        topic, name = tasks.draw_topic(rng)
        title = rng.choice(["A haiku about {T}:\n\n", "Haiku: {T}\n\n", "{T}\n\n", ""]).replace("{T}", name)
        return title[:1].upper() + title[1:] + tasks.poem_on(topic, name, rng)
    if kind < 0.6:
        return tasks.story_text(rng.choice(tasks.ANIMALS), rng)
    if kind < 0.75:
        return rng.choice(["", "", "Counting: "]) + tasks.in_digits(range(1, rng.randint(5, 120)))
    request, answer = rng.choice([tasks.fact, tasks.fixed_list, tasks.small_talk])(rng)
    return f"Question: {request}\nAnswer: {answer}" if rng.random() < 0.5 else answer


def document(rng):
    """One document of the corpus."""
    return plain_text(rng) if rng.random() < 0.06 else conversation(rng)
