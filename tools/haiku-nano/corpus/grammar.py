"""The bracket grammar of the word lists: "[a|b] c" stands for "a c" and "b c"."""

import re
from itertools import product

_CHOICE = re.compile(r"\[([^\]]*)\]")
_ARTICLE = re.compile(r"\b([aA]) (?=[aeio](?!ne\b)|um|un(?!i))")


def mend_articles(text):
    """ "an" where a choice has put a vowel behind "a"."""
    return _ARTICLE.sub(r"\1n ", text)


def expand(pattern):
    """Every text a pattern stands for."""
    parts = _CHOICE.split(pattern)
    choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    texts = (re.sub(r"\s+", " ", "".join(words)).strip() for words in product(*choices))
    return [mend_articles(text) for text in texts]


def pick(pattern, rng):
    """One of the texts a pattern stands for."""
    text = _CHOICE.sub(lambda found: rng.choice(found.group(1).split("|")), pattern)
    return mend_articles(re.sub(r"  +", " ", text).strip())
