"""Written-out integer arithmetic: the reasoning the model learns to produce.

An expression is a list of tokens: ints and the strings + - * / ( ).  solve() reduces it one operation at a time
and returns the lines a careful pupil would write.  Every operation on numbers of more than one digit is done
digit by digit from the ones, so each step needs only facts about single digits:

    17+25*3
    25*3: ones 5*3=15, tens 2*3+1=7 → 75
    17+75: ones 7+5=12, tens 1+7+1=9 → 92
"""

PLACES = {"en": ["ones", "tens", "hundreds", "thousands"], "ko": ["일", "십", "백", "천"]}


class Reject(Exception):
    """The problem lies outside what the procedures cover."""


def join(tokens):
    return "".join(str(t) for t in tokens)


def digits(n, width):
    """Decimal digits of n from the ones up, filled with zeros to width."""
    return [n // 10**i % 10 for i in range(width)]


def line(head, steps, result, lang):
    if len(steps) > 4:
        raise Reject
    named = ", ".join(f"{place} {step}" for place, step in zip(PLACES[lang], steps))
    return f"{head}: {named} → {result}"


def add_line(a, b, lang):
    if a < 10 and b < 10:
        return f"{a}+{b}={a + b}"
    width = max(len(str(a)), len(str(b)))
    steps, carry = [], 0
    for x, y in zip(digits(a, width), digits(b, width)):
        total = x + y + carry
        steps.append(f"{x}+{y}" + ("+1" if carry else "") + f"={total}")
        carry = total // 10
    return line(f"{a}+{b}", steps, a + b, lang)


def sub_line(a, b, lang):
    """a >= b.  A borrow shows as the 1 before the digit it helps and as -1 one place further up."""
    if a < 10 and b < 10:
        return f"{a}-{b}={a - b}"
    width = len(str(a))
    steps, borrow = [], 0
    for x, y in zip(digits(a, width), digits(b, width)):
        lend = 10 if x - borrow < y else 0
        steps.append(f"{x + lend}" + ("-1" if borrow else "") + f"-{y}={x + lend - borrow - y}")
        borrow = lend // 10
    return line(f"{a}-{b}", steps, a - b, lang)


def mul_line(a, b, lang):
    """a times b, where b is one digit, or one digit followed by a zero."""
    if a < 10 and b < 10:
        return f"{a}*{b}={a * b}"
    factor = b // 10 if b >= 10 else b
    steps, carry = [], 0
    for x in digits(a, len(str(a))):
        total = x * factor + carry
        steps.append(f"{x}*{factor}" + (f"+{carry}" if carry else "") + f"={total}")
        carry = total // 10
    return line(f"{a}*{b}", steps, a * b, lang)


def mul_lines(a, b, lang):
    if len(str(a)) < len(str(b)):
        a, b = b, a
    if b >= 100 or (b >= 10 and a >= 100) or a * b > 9999:
        raise Reject
    if b < 10 or b % 10 == 0:
        return [mul_line(a, b, lang)]
    tens, ones = b // 10 * 10, b % 10
    return [
        f"{a}*{b}={a}*{tens}+{a}*{ones}",
        mul_line(a, tens, lang),
        mul_line(a, ones, lang),
        add_line(a * tens, a * ones, lang),
    ]


def div_line(a, b, lang, remainder=False):
    """Long division from the highest place where the divisor fits at all."""
    if not 1 <= b <= 12:
        raise Reject
    width = len(str(a))
    steps, rest = [], 0
    for place in range(width - 1, -1, -1):
        rest = rest * 10 + a // 10**place % 10
        if rest < b and not steps and place > 0:
            continue
        steps.append(f"{PLACES[lang][place]} {rest}={b}*{rest // b}+{rest % b}")
        rest %= b
    if rest and not remainder:
        raise Reject
    tail = f", {'rest' if lang == 'en' else '나머지'} {rest}" if remainder else ""
    return f"{a}/{b}: {', '.join(steps)} → {a // b}{tail}"


def op_lines(a, op, b, lang):
    """Lines and value of one operation on two non-negative numbers with a non-negative result."""
    if max(a, b) > 9999:
        raise Reject
    if op == "+":
        return [add_line(a, b, lang)], a + b
    if op == "-":
        return [sub_line(a, b, lang)], a - b
    if op == "*":
        return mul_lines(a, b, lang), a * b
    return [div_line(a, b, lang)], a // b


def next_op(tokens):
    """Index of the operator to do next: innermost brackets, then * and /, then from the left."""
    lo, hi = 0, len(tokens)
    if ")" in tokens:
        hi = tokens.index(")")
        lo = max(i for i in range(hi) if tokens[i] == "(")
    inside = range(lo, hi)
    for kinds in ("*/", "+-"):
        for i in inside:
            if isinstance(tokens[i], str) and tokens[i] in kinds:
                return i
    raise Reject


def drop_brackets(tokens, i):
    """Removes brackets that hold nothing but the number at i."""
    while 0 < i < len(tokens) - 1 and tokens[i - 1] == "(" and tokens[i + 1] == ")":
        tokens = tokens[: i - 1] + [tokens[i]] + tokens[i + 2 :]
        i -= 1
    return tokens


def negative_form(a, op, b):
    """(negated, x, op, y): the operation on non-negative numbers that a op b comes down to."""
    if a >= 0:
        return (True, b, "-", a) if op == "-" and a < b else (False, a, op, b)
    if op == "+":
        return (False, b, "-", -a) if b >= -a else (True, -a, "-", b)
    return True, -a, "+" if op == "-" else op, b


def solve(tokens, lang, first_line=True):
    """Returns (lines, value).  first_line: write the expression itself when it has several operations."""
    tokens = list(tokens)
    lines = []
    shown = join(tokens) if not first_line else None
    while len(tokens) > 1:
        i = next_op(tokens)
        a, op, b = tokens[i - 1], tokens[i], tokens[i + 1]
        several = len(tokens) > 3 or a < 0
        if several and join(tokens) != shown:
            lines.append(join(tokens))
        negated, x, op2, y = negative_form(a, op, b)
        if b < 0 or ((negated or a < 0) and i != 1):
            raise Reject
        if negated:
            lines.append(f"-({x}{op2}{y})" + join(tokens[3:]))
        steps, value = op_lines(x, op2, y, lang)
        lines += steps
        value = -value if negated else value
        if abs(value) > 9999:
            raise Reject
        tokens = drop_brackets(tokens[: i - 1] + [value] + tokens[i + 2 :], i - 1)
        if negated and len(tokens) == 1:
            lines.append(str(value))
    return lines, tokens[0]


if __name__ == "__main__":
    for text in (
        [17, "+", 25, "*", 3],
        [278, "-", 523, "+", 900],
        [34, "*", 27],
        [952, "/", 7],
        ["(", 12, "+", 5, ")", "*", 3, "-", 99],
        [5, "-", 8, "*", 2],
    ):
        print(*solve(text, "en")[0], sep="\n", end="\n\n")
