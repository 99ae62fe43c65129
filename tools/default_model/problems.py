"""Questions with their reasoning and answer, in English and Korean.

Every writer takes a random generator and returns a Problem, or raises Reject when the numbers drawn do not fit;
make() tries again.  A problem's key is its bare expression: problems with the same key are the same calculation in
other words, and training and held-out problems never share one.
"""

from arith import Reject, join, solve
from expressions import expression_problem, remainder_problem
from problem import Problem, key_of
from smalltalk import other_problem
from stories_en import STORIES_EN
from stories_ko import STORIES_KO
from words import count_en


def word_problem(rng, lang):
    tokens, question, answer, noun = rng.choice(STORIES_EN if lang == "en" else STORIES_KO)(rng)
    lines, value = solve(tokens, lang, first_line=False)
    if value < 0 and "degrees" not in answer and "도입니다" not in answer:
        raise Reject
    first = f"We need {join(tokens)}." if lang == "en" else f"식은 {join(tokens)}."
    said = answer.format(count_en(value, noun) if noun else value)
    if value == 1:
        said = said.replace("There are", "There is").replace("1 degrees", "1 degree").replace("1 dollars", "1 dollar")
    return Problem(lang, "word", question, "\n".join([first, *lines]), said, key_of(tokens), value)


MAKERS = {
    "expression": expression_problem,
    "word": word_problem,
    "remainder": remainder_problem,
    "other": other_problem,
}


def make(rng, lang, kind):
    while True:
        try:
            return MAKERS[kind](rng, lang)
        except Reject:
            continue
