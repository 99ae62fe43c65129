"""Questions that show or spell out a calculation, in English and Korean."""

from arith import Reject, div_line, join, solve
from problem import Problem, answer, fill_ko, key_of, number
from words import p, said_en


def single(rng):
    """One operation."""
    kind = rng.choices(("+", "-", "*", "2x2", "/"), (26, 26, 22, 10, 16))[0]
    if kind == "+":
        return [number(rng), "+", number(rng)]
    if kind == "-":
        a, b = number(rng), number(rng)
        return [a, "-", b] if a >= b or rng.random() < 0.2 else [b, "-", a]
    if kind == "*":
        a, b = number(rng), rng.randint(2, 9) if rng.random() < 0.9 else rng.choice((0, 1, 10, 20, 30))
        return [a, "*", b] if rng.random() < 0.7 else [b, "*", a]
    if kind == "2x2":
        return [rng.randint(10, 99), "*", rng.randint(10, 99)]
    b = rng.randint(2, 9) if rng.random() < 0.8 else rng.choice((1, 10, 11, 12))
    return [b * number(rng, (30, 45, 25, 0)), "/", b]


def tree(rng, n_op):
    """(tokens, value, strength of the outermost operator) of a random expression that comes out whole."""
    if n_op == 0:
        n = number(rng, (40, 48, 12, 0))
        return [n], n, 3
    op = rng.choices("+-*/", (32, 30, 26, 12))[0]
    n_left = n_op - 1 if op == "/" or rng.random() < 0.6 else rng.randint(0, n_op - 1)
    left, a, strength_a = tree(rng, n_left)
    right, b, strength_b = tree(rng, n_op - 1 - n_left)
    if op == "*":
        if b > 12 and a > 12:
            raise Reject
        if n_left == 0 and n_op == 1 and rng.random() < 0.7:
            right, b = [rng.randint(2, 9)], 0
    if op == "/":
        if n_left == 0:
            b = rng.randint(2, 9)
            left = [b * rng.randint(2, 60)]
        else:
            fits = [d for d in range(2, 13) if a % d == 0]
            if not fits or a <= 0:
                raise Reject
            b = rng.choice(fits)
        right = [b]
    strength = 1 if op in "+-" else 2
    if strength_a < strength:
        left = ["(", *left, ")"]
    if strength_b < strength or (strength_b == strength and op in "-/") or (op == "*" and strength_b == 2):
        right = ["(", *right, ")"]
    tokens = [*left, op, *right]
    return tokens, solve(tokens, "en")[1], strength


def expression(rng):
    n_op = rng.choices((1, 2, 3, 4), (46, 32, 16, 6))[0]
    tokens = single(rng) if n_op == 1 else tree(rng, n_op)[0]
    value = solve(tokens, "en")[1]
    if value < 0 and len(tokens) > 3 and rng.random() < 0.6:
        raise Reject
    return tokens


SIGNS = {"*": ("*", "*", "×", "x"), "/": ("/", "/", "÷"), "+": ("+",), "-": ("-",)}


def written(rng, tokens):
    """The expression as people type it: with or without blanks, * or ×."""
    blank = rng.choice(("", " ", " "))
    times, over = rng.choice(SIGNS["*"]), rng.choice(SIGNS["/"])
    out = ""
    for t in tokens:
        t = times if t == "*" else over if t == "/" else t
        out += f"{blank}{t}{blank}" if t in ("+", "-", times, over) else str(t)
    return out


OPS_EN = {"+": ("plus",), "-": ("minus",), "*": ("times", "multiplied by"), "/": ("divided by", "over")}
OPS_KO = {"+": "더하기", "-": "빼기", "*": "곱하기", "/": "나누기"}
ASK_EN = (
    "What is {}?",
    "What is {}?",
    "what is {}",
    "Calculate {}.",
    "Compute {}.",
    "{}",
    "{} = ?",
    "{} =",
    "{}=?",
    "{}?",
    "How much is {}?",
    "Can you work out {}?",
    "Please solve {}.",
    "Evaluate {}.",
    "Find {}.",
    "what's {}?",
    "Solve: {}",
    "I need the value of {}.",
    "Tell me {}.",
    "Could you calculate {} for me?",
    "What do you get for {}?",
    "What is the value of {}?",
    "What is the result of {}?",
    "Work out {}, please.",
)
ASK_KO = (
    "{}의 값은?",
    "{}의 값을 구하세요.",
    "{} 계산해 줘.",
    "{} 계산해줘",
    "{}",
    "{} = ?",
    "{} =",
    "{}=?",
    "{} 얼마야?",
    "다음을 계산하세요: {}",
    "{}의 답을 알려 줘.",
    "{} 값이 뭐야?",
    "계산: {}",
    "{}의 값을 구해 줘.",
)
ASK_KO_PARTICLE = (
    ("은", "?"),
    ("은", " 얼마인가요?"),
    ("은", " 얼마야?"),
    ("은", " 뭐야?"),
    ("을", " 계산해 줘."),
    ("을", " 계산하세요."),
    ("을", " 계산하면?"),
    ("을", " 풀어 줘."),
    ("을", " 구하시오."),
)
PAIR_EN = {
    "+": ("Add {a} and {b}.", "What is the sum of {a} and {b}?", "What do you get if you add {b} to {a}?"),
    "-": (
        "Subtract {b} from {a}.",
        "What is {b} less than {a}?",
        "Take {b} away from {a}.",
        "What is the difference between {a} and {b}?",
    ),
    "*": ("Multiply {a} by {b}.", "What is the product of {a} and {b}?"),
    "/": ("Divide {a} by {b}.", "How many times does {b} go into {a}?", "What is {a} split into {b} equal parts?"),
}
PAIR_KO = {
    "+": ("{a}에 {b을} 더하면?", "{a과} {b}의 합은?", "{a과} {b을} 더하면 얼마인가요?", "{a} 더하기 {b은}?"),
    "-": ("{a}에서 {b을} 빼면?", "{a과} {b}의 차는?", "{a}에서 {b을} 빼면 얼마인가요?", "{a} 빼기 {b은}?"),
    "*": ("{a}에 {b을} 곱하면?", "{a과} {b}의 곱은?", "{a}의 {b}배는 얼마인가요?", "{a} 곱하기 {b은}?"),
    "/": ("{a을} {b로} 나누면?", "{a을} {b로} 나눈 몫은?", "{a} 나누기 {b은}?", "{a을} {b로} 나누면 얼마야?"),
}
THEN_EN = {
    "+": ("add {b}", "plus {b}"),
    "-": ("subtract {b}", "take away {b}"),
    "*": ("multiply by {b}",),
    "/": ("divide by {b}",),
}
THEN_KO = {"+": ("{b을} 더하",), "-": ("{b을} 빼",), "*": ("{b을} 곱하",), "/": ("{b로} 나누",)}


def ask_expression(rng, lang, tokens):
    """A question for the expression; pairs of numbers are also asked in words."""
    pair = len(tokens) == 3 and tokens[0] >= 0
    form = rng.random()
    if pair and form < 0.3:
        a, op, b = tokens
        if lang == "en":
            return rng.choice(PAIR_EN[op]).format(a=said_en(rng, a), b=said_en(rng, b))
        return fill_ko(rng.choice(PAIR_KO[op]), a=a, b=b)
    if form < 0.5:  # operators as words, where there are no brackets
        if lang == "en" and "(" not in tokens:
            body = " ".join(rng.choice(OPS_EN[t]) if isinstance(t, str) else said_en(rng, t) for t in tokens)
            return rng.choice(("What is {}?", "what is {}", "{}", "How much is {}?", "Calculate {}.")).format(body)
        if lang == "ko" and "(" not in tokens:
            body = " ".join(OPS_KO[t] if isinstance(t, str) else str(t) for t in tokens)
            return p(body, "은") + rng.choice(("?", "?", " 얼마야?", " 얼마인가요?", " 뭐야?"))
    body = written(rng, tokens)
    if lang == "en":
        return rng.choice(ASK_EN).format(body)
    if rng.random() < 0.5 and body[-1] != ")":
        particle, rest = rng.choice(ASK_KO_PARTICLE)
        return p(body, particle) + rest
    return rng.choice(ASK_KO).format(body)


def in_steps(rng, lang):
    """'Add 3 and 4, then multiply by 5.': the order of the words is the order of the operations."""
    a = number(rng, (35, 50, 15, 0))
    tokens, words = [a], []
    for i in range(rng.choice((2, 2, 3))):
        op = rng.choice("+-*/")
        b = rng.randint(2, 9) if op in "*/" else number(rng, (40, 50, 10, 0))
        if op in "*/" and i:
            tokens = ["(", *tokens, ")"] if tokens[-2] in "+-" else tokens
        tokens = [*tokens, op, b]
        words.append(fill_ko(rng.choice(THEN_KO[op]), b=b) if lang == "ko" else rng.choice(THEN_EN[op]).format(b=b))
    if solve(tokens, "en")[1] < 0:
        raise Reject
    if lang == "ko":
        head = {"+": f"{a}에 ", "-": f"{a}에서 ", "*": f"{a}에 ", "/": p(a, "을") + " "}[tokens_first_op(tokens)]
        return tokens, head + "고 ".join(words[:-1]) + "고 " + words[-1] + rng.choice(
            ("면?", "면 얼마인가요?", "면 얼마야?")
        )
    return tokens, rng.choice(("Start with {}, {}.", "Take {}, {}.", "Take {} and {}.")).format(
        a, ", then ".join(words)
    )


def tokens_first_op(tokens):
    return next(t for t in tokens if isinstance(t, str) and t in "+-*/")


def expression_problem(rng, lang):
    if rng.random() < 0.1:
        tokens, question = in_steps(rng, lang)
    else:
        tokens = expression(rng)
        question = ask_expression(rng, lang, tokens)
        if "difference" in question or "의 차는" in question:
            if tokens[0] < tokens[2]:
                raise Reject
    lines, value = solve(tokens, lang)
    return Problem(lang, "expression", question, "\n".join(lines), answer(lang, value), key_of(tokens), value)


def remainder_problem(rng, lang):
    a, b = number(rng, (10, 55, 35, 0)), rng.randint(2, 12)
    if a % b == 0 or a < b:
        raise Reject
    question = ask_expression(rng, lang, [a, "/", b])
    if rng.random() < 0.4:
        question = (
            f"What is the remainder when {a} is divided by {b}?"
            if lang == "en"
            else f"{p(a, '을')} {p(b, '로')} 나눈 몫과 나머지는?"
        )
    said = f"The answer is {a // b}, remainder {a % b}." if lang == "en" else f"몫은 {a // b}, 나머지는 {a % b}입니다."
    return Problem(lang, "remainder", question, div_line(a, b, lang, remainder=True), said, f"{a}/{b}", a // b)


FOLLOW_EN = {
    "+": ("Add {b} to that.", "And plus {b}?", "Now add {b}.", "What if I add {b}?"),
    "-": ("Subtract {b} from that.", "Minus {b}?", "Now take away {b}.", "And minus {b}?"),
    "*": ("Multiply that by {b}.", "Times {b}?", "Now multiply it by {b}."),
    "/": ("Divide that by {b}.", "Now divide it by {b}."),
}
FOLLOW_KO = {
    "+": ("거기에 {b을} 더하면?", "그 결과에 {b을} 더해 줘.", "{b을} 더하면?"),
    "-": ("거기서 {b을} 빼면?", "그 결과에서 {b을} 빼 줘.", "{b을} 빼면?"),
    "*": ("거기에 {b을} 곱하면?", "그 결과에 {b을} 곱해 줘.", "{b}배 하면?"),
    "/": ("그 결과를 {b로} 나누면?", "{b로} 나누면?"),
}


def follow_problem(rng, lang, before):
    """A question that goes on from the value of the answer before it."""
    op = rng.choice("++--**/")
    b = rng.randint(2, 9) if op in "*/" else number(rng, (35, 45, 20, 0))
    tokens = [before, op, b]
    lines, value = solve(tokens, lang)
    question = rng.choice(FOLLOW_EN[op]).format(b=b) if lang == "en" else fill_ko(rng.choice(FOLLOW_KO[op]), b=b)
    return Problem(lang, "follow", question, "\n".join(lines), answer(lang, value), key_of(tokens), value)
