"""Short word problems in English.

A story returns (tokens, question, answer with {} for the value, noun whose singular or plural {} needs or None).
"""

from arith import Reject
from problem import few
from words import BOXES_EN, FOODS_EN, noun_en, person_en, said_en


def chain_en(rng):
    """Things come and go."""
    food = rng.random() < 0.3
    noun = noun_en(rng, FOODS_EN) if food else noun_en(rng)
    name, she = person_en(rng)
    other, _ = person_en(rng, (name,))
    n = few(rng, 99 if rng.random() < 0.8 else 400)
    tokens, text = [n], rng.choice(("{} has {}.", "{} had {}.", "{} has {} at first.", "{} starts with {}.")).format(
        name, f"{said_en(rng, n)} {noun[1]}"
    )
    past = " had " in text
    for i in range(rng.choice((1, 1, 2, 2, 3))):
        m = few(rng, 60)
        gain = rng.random() < 0.5
        now, then = rng.choice(
            (
                ("buys {} more", "bought {} more"),
                ("finds {} more", "found {} more"),
                ("gets {} from " + other, "got {} from " + other),
                ("gets {} more", "got {} more"),
                ("collects {} more", "collected {} more"),
            )
            if gain
            else (
                ("gives {} to " + other, "gave {} to " + other),
                ("loses {}", "lost {}"),
                ("sells {}", "sold {}"),
                ("gives away {}", "gave away {}"),
                ("uses {}", "used {}"),
            )
            + ((("eats {}", "ate {}"),) * 3 if food else ())
        )
        who = rng.choice((she.capitalize(), name))
        link = rng.choice((f" {who} ", f" Then {she if she != name else name} ", f" {who} "))
        text += link + (then if past else now).format(said_en(rng, m)) + "."
        tokens += ["+" if gain else "-", m]
    ask, answer = rng.choice(
        (
            (f"How many {noun[1]} does {name} have now?", f"{name} has {{}} now."),
            (f"How many {noun[1]} does {name} have in the end?", f"{name} has {{}} in the end."),
            (f"How many {noun[1]} are there now?", "There are {} now."),
            (f"How many does {name} have?", f"{name} has {{}}."),
        )
    )
    if tokens[-2] == "-" and rng.random() < 0.5:
        ask, answer = rng.choice(
            (
                (f"How many {noun[1]} are left?", "{} left."),
                (f"How many {noun[1]} does {name} have left?", f"{name} has {{}} left."),
            )
        )
        answer = answer if name in answer else "There are {} left."
    return tokens, f"{text} {ask}", answer, noun


def boxes_en(rng):
    """Equal groups, perhaps with some more or some taken away."""
    noun, box = noun_en(rng), rng.choice(BOXES_EN)
    name, _ = person_en(rng)
    n, m = rng.randint(2, 12 if rng.random() < 0.6 else 40), rng.randint(2, 9 if rng.random() < 0.7 else 30)
    a, b = said_en(rng, n), said_en(rng, m)
    text = rng.choice(
        (
            f"There are {a} {box[1]} with {b} {noun[1]} in each.",
            f"{name} has {a} {box[1]} of {b} {noun[1]} each.",
            f"Each {box[0]} holds {b} {noun[1]}. {name} has {a} {box[1]}.",
            f"{name} buys {a} {box[1]} with {b} {noun[1]} in each {box[0]}.",
            f"There are {b} {noun[1]} in every {box[0]} and there are {a} {box[1]}.",
        )
    )
    tokens = [m, "*", n] if "Each" in text or "every" in text else [n, "*", m]
    ask = rng.choice(
        (
            f"How many {noun[1]} are there in all?",
            f"How many {noun[1]} are there altogether?",
            f"How many {noun[1]} is that in total?",
        )
    )
    answer = "There are {} in all."
    change = rng.random()
    if change < 0.3:
        k = few(rng)
        text += rng.choice(
            (f" {name} gets {k} more.", f" Then {k} more are added.", f" There are also {k} loose {noun[1]}.")
        )
        tokens += ["+", k]
    elif change < 0.6:
        k = few(rng)
        text += rng.choice(
            (
                f" {k} of them are lost.",
                f" {name} gives away {k} of them.",
                f" {name} uses {k}.",
                f" Then {k} are sold.",
            )
        )
        ask, answer = f"How many {noun[1]} are left?", "There are {} left."
        tokens += ["-", k]
    return tokens, f"{text} {ask}", answer, noun


def share_en(rng):
    """Shared out evenly, perhaps after something was added or taken."""
    noun = noun_en(rng)
    name, she = person_en(rng)
    n, each = rng.randint(2, 12), few(rng, 40)
    total = n * each
    form = rng.randrange(3)
    people = rng.choice(("friends", "children", "students", "people", "boxes", "bags", "plates"))
    if form == 0:
        text, tokens = f"{name} has {total} {noun[1]}.", [total, "/", n]
    elif form == 1:
        b = rng.randint(1, total - 1)
        text = rng.choice(
            (
                f"{name} has {total - b} {noun[1]} and gets {b} more.",
                f"{name} has {total - b} {noun[1]}. Then {she} buys {b} more.",
            )
        )
        tokens = ["(", total - b, "+", b, ")", "/", n]
    else:
        b = few(rng, 40)
        text = rng.choice(
            (
                f"{name} has {total + b} {noun[1]} and loses {b} of them.",
                f"{name} has {total + b} {noun[1]}. {she.capitalize()} keeps {b}.",
                f"{name} has {total + b} {noun[1]} and eats {b}.",
            )
        )
        tokens = ["(", total + b, "-", b, ")", "/", n]
    rest = " the rest" if form == 2 else " them"
    if people in ("boxes", "bags", "plates"):
        text += f" {name} puts{rest} into {said_en(rng, n)} {people} evenly. How many {noun[1]} are in each?"
        return tokens, text, "There are {} in each.", noun
    text += rng.choice(
        (
            f" {name} shares{rest} equally among {said_en(rng, n)} {people}. How many does each get?",
            f" {said_en(rng, n).capitalize()} {people} share{rest} equally. How many {noun[1]} does each one get?",
        )
    )
    return tokens, text, "Each gets {}.", noun


def compare_en(rng):
    """More, fewer, times as many; together."""
    noun = noun_en(rng)
    name, _ = person_en(rng)
    other, _ = person_en(rng, (name,))
    a, form = few(rng), rng.randrange(6)
    text = f"{name} has {said_en(rng, a)} {noun[1]}."
    if form == 0:
        b = few(rng)
        text += f" {other} has {said_en(rng, b)} more {noun[1] + ' ' if rng.random() < 0.4 else ''}than {name}."
        one, both = [a, "+", b], [a, "+", "(", a, "+", b, ")"]
    elif form == 1:
        b = few(rng)
        if b >= a:
            raise Reject
        text += f" {other} has {said_en(rng, b)} fewer {noun[1] + ' ' if rng.random() < 0.4 else ''}than {name}."
        one, both = [a, "-", b], [a, "+", "(", a, "-", b, ")"]
    elif form == 2:
        b = rng.randint(2, 9)
        text += rng.choice(
            (
                f" {other} has {said_en(rng, b)} times as many.",
                f" {other} has {said_en(rng, b)} times as many {noun[1]} as {name}.",
            )
        )
        if b == 2 and rng.random() < 0.5:
            text = f"{name} has {a} {noun[1]}. {other} has twice as many."
        one, both = [a, "*", b], [a, "+", a, "*", b]
    else:
        b = few(rng)
        text = rng.choice(
            (
                f"{name} has {said_en(rng, a)} {noun[1]} and {other} has {said_en(rng, b)}.",
                f"{name} has {said_en(rng, a)} {noun[1]}. {other} has {said_en(rng, b)} {noun[1]}.",
            )
        )
        if form == 3 and a > b:
            return (
                [a, "-", b],
                text
                + rng.choice(
                    (f" How many more {noun[1]} does {name} have than {other}?", f" How many more does {name} have?")
                ),
                f"{name} has {{}} more.",
                None,
            )
        if form == 4 and a < b:
            return (
                [b, "-", a],
                text + f" How many fewer {noun[1]} does {name} have than {other}?",
                f"{name} has {{}} fewer.",
                None,
            )
        one, both = None, [a, "+", b]
    if one is None or rng.random() < 0.4:
        return (
            both,
            text
            + rng.choice(
                (
                    " How many do they have together?",
                    f" How many {noun[1]} do they have in all?",
                    f" How many {noun[1]} do they have altogether?",
                )
            ),
            "Together they have {}.",
            noun,
        )
    return one, text + f" How many {noun[1]} does {other} have?", f"{other} has {{}}.", noun


def money_en(rng):
    noun, noun2 = noun_en(rng), noun_en(rng)
    name, she = person_en(rng)
    price, n = few(rng, 60), rng.randint(2, 9)
    form = rng.randrange(4)
    cost = rng.choice(
        (
            f"A {noun[0]} costs {price} dollars.",
            f"One {noun[0]} costs {price} dollars.",
            f"Each {noun[0]} costs ${price}.",
        )
    )
    buys = f" {name} buys {said_en(rng, n)} {noun[1]}"
    if form == 0:
        return (
            [price, "*", n],
            cost
            + buys
            + rng.choice(
                (". How much does it cost in total?", f". How much does {she} pay?", ". How many dollars is that?")
            ),
            "It costs {} dollars.",
            None,
        )
    if form == 1:
        paid = rng.choice([x for x in (20, 50, 100, 200, 500, 1000) if x > price * n] or [price * n + few(rng)])
        return (
            [paid, "-", price, "*", n],
            cost
            + buys
            + rng.choice(
                (
                    f" and pays with {paid} dollars. How much change does {she} get?",
                    f" with a {paid} dollar bill. How much change is due?",
                )
            ),
            "The change is {} dollars.",
            None,
        )
    if form == 2:
        price2, m = few(rng, 40), rng.randint(2, 9)
        if noun == noun2:
            raise Reject
        return (
            [n, "*", price, "+", m, "*", price2],
            f"{name} buys {n} {noun[1]} at {price} dollars each and {m} {noun2[1]} at {price2} dollars each. How much does {she} pay in all?",
            "The total is {} dollars.",
            None,
        )
    have, spend = rng.randint(20, 500), few(rng)
    earn = few(rng)
    if have < spend:
        raise Reject
    if rng.random() < 0.5:
        return (
            [have, "-", spend],
            f"{name} has {have} dollars and spends {spend}. How much money is left?",
            "There are {} dollars left.",
            None,
        )
    return (
        [have, "-", spend, "+", earn],
        f"{name} has {have} dollars. {she.capitalize()} spends {spend} dollars and then earns {earn}. How much money does {name} have now?",
        f"{name} has {{}} dollars now.",
        None,
    )


def rates_en(rng):
    """Rates, rows, ages, people coming and going, temperatures."""
    name, she = person_en(rng)
    other, _ = person_en(rng, (name,))
    a, b, c = few(rng, 60), rng.randint(2, 9), few(rng, 60)
    form = rng.randrange(9)
    if form == 0:
        return (
            [a, "*", b],
            rng.choice(
                (
                    f"A car drives {a} km per hour. How far does it go in {said_en(rng, b)} hours?",
                    f"A train travels {a} km every hour. How many km does it travel in {said_en(rng, b)} hours?",
                )
            ),
            "It goes {} km.",
            None,
        )
    if form == 1:
        total = a * b + c
        return (
            [total, "-", a, "*", b],
            f"A book has {total} pages. {name} reads {a} pages a day for {said_en(rng, b)} days. How many pages are left?",
            "There are {} pages left.",
            None,
        )
    if form == 2:
        return (
            [a, "*", b],
            f"{name} reads {a} pages a day. How many pages does {she} read in {said_en(rng, b)} days?",
            f"{name} reads {{}} pages.",
            None,
        )
    if form == 3:
        return (
            [a, "*", b, "-", c],
            f"There are {a} rows of {b} seats. {c} seats are taken. How many seats are free?",
            "There are {} free seats.",
            None,
        )
    if form == 4:
        return (
            [a, "+", b, "+", c],
            f"{name} is {a} years old. {other} is {said_en(rng, b)} years older. How old will {other} be in {c} years?",
            f"{other} will be {{}} years old.",
            None,
        )
    if form == 5:
        if b >= a:
            raise Reject
        return (
            [a, "-", b],
            f"{name} is {a} years old. {other} is {said_en(rng, b)} years younger. How old is {other}?",
            f"{other} is {{}} years old.",
            None,
        )
    if form == 6:
        if b > a:
            raise Reject
        stop = rng.choice(("bus", "train", "tram"))
        return (
            [a, "-", b, "+", c],
            rng.choice(
                (
                    f"There are {a} people on a {stop}. {b} get off and {c} get on. How many people are on the {stop} now?",
                    f"A {stop} carries {a} people. At a stop {b} people leave and {c} people enter. How many people are on it now?",
                )
            ),
            "There are {} people now.",
            None,
        )
    if form == 7:
        low = rng.randint(0, 20)
        return (
            [low, "-", b],
            f"The temperature is {low} degrees. It falls by {said_en(rng, b)} degrees. What is the temperature now?",
            "It is {} degrees now.",
            None,
        )
    total = b * a
    return (
        [total, "/", b],
        f"{name} reads {total} pages in {said_en(rng, b)} days, the same number every day. How many pages does {she} read each day?",
        f"{name} reads {{}} pages each day.",
        None,
    )


STORIES_EN = (chain_en, chain_en, chain_en, boxes_en, boxes_en, share_en)
STORIES_EN += (compare_en, compare_en, money_en, money_en, rates_en, rates_en)
