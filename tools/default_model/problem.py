"""What a problem is, and the small pieces its writers share."""

from dataclasses import dataclass

from arith import join
from words import p


@dataclass
class Problem:
    lang: str
    kind: str  # expression, word, remainder, other
    question: str
    thinking: str
    answer: str
    key: str  # empty where there is no calculation
    value: int = 0


def number(rng, weights=(25, 40, 30, 5)):
    width = rng.choices((1, 2, 3, 4), weights)[0]
    return rng.randint(1 if width == 1 else 10 ** (width - 1), 10**width - 1)


def few(rng, hi=99):
    return rng.randint(2, 9 if rng.random() < 0.35 else hi)


def fill_ko(text, **numbers):
    for name, n in numbers.items():
        text = text.replace(f"{{{name}}}", str(n))
        for particle in ("은", "이", "을", "과", "로"):
            text = text.replace(f"{{{name}{particle}}}", p(n, particle))
    return text


def answer(lang, value):
    return f"The answer is {value}." if lang == "en" else f"답은 {value}입니다."


def key_of(tokens):
    """The bare expression; a+b and b+a are the same problem, and a*b and b*a."""
    if len(tokens) == 3 and tokens[1] in "+*" and tokens[0] > tokens[2]:
        tokens = tokens[::-1]
    return join(tokens)
