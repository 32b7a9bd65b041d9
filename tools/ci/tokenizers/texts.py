"""Texts on which tokenizers are compared: made at random, the same ones each time."""

import random

SCRIPTS = [  # first and last code point
    (0x21, 0x7E), (0x41, 0x5A), (0x61, 0x7A), (0xA1, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x620, 0x66F),
    (0x900, 0x97F), (0xE01, 0xE5B), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2150, 0x218B),
    (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFF01, 0xFF5E), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF),
]
WORDS = """the of and The OF And hello HelloWorld camelCase getHTTPResponse naïve Ångström straße größer École Москва привет
Ελλάδα שלום سلام नमस्ते हिन्दी สวัสดี ภาษาไทย 日本語 こんにちは 中文字符 한국어 안녕하세요 e\u0301cole a\u0300 i\u0307 \u1112\u1161\u11ab
def return print(x) self.__init__ /usr/local/bin //comment /* ... */ http://example.org/a?b=c&d=e user@example.org #define
{"key": ["value", null]} <div class="x"> </s> <table> \\n \\t ├── 🦀 👩\u200d👩\u200d👧 🏳️\u200d🌈 €100 1,234.56 ½ ² Ⅷ ٣٤٥ १२३ --- === !!! ?! ...
""".split() + ["*/\n//", "!\r\n/x"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]
SPACES = [" ", " ", " ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\n ", " \n \n", "\u00a0", "\u3000", "\u2028", "\u0085", "\x0b"]


def texts(count, specials, seed):
    """`count` of them, some with names of `specials` in them."""
    rng = random.Random(seed)
    return [text(rng, specials) for _ in range(count)]


def text(rng, specials):
    return "".join(piece(rng, specials) for _ in range(rng.choice((1, 2, 4, 8, 16, 32))))


def piece(rng, specials):
    kind = rng.randrange(20)
    if kind < 6:
        return rng.choice(SPACES) * rng.choice((1, 1, 1, 1, 2, 3, rng.randrange(20)))
    if kind < 11:
        return rng.choice(WORDS)
    if kind < 12:
        contraction = rng.choice(CONTRACTIONS)
        return "".join(rng.choice((c, c.upper())) for c in contraction) + rng.choice(("", "", "x"))
    if kind < 13:
        return "".join(rng.choice("0123456789") for _ in range(rng.randrange(1, 12)))
    if kind < 17:
        first, last = rng.choice(SCRIPTS)
        return "".join(chr(rng.randint(first, last)) for _ in range(rng.randrange(1, 8)))
    if kind < 18:
        return chr(rng.randrange(0x80))
    if kind < 19:
        return character(rng)
    return rng.choice(specials) if specials else "<|" + rng.choice(WORDS) + "|>"


def character(rng):
    """Any one, with those of Unicode that are no text."""
    while True:
        code = rng.choice((rng.randrange(0x10000), rng.randrange(0x20000), rng.randrange(0x110000)))
        if not 0xD800 <= code < 0xE000:
            return chr(code)
