"""Short word problems in Korean.

A story returns (tokens, question, answer with {} for the value, noun whose singular or plural {} needs or None).
"""

from arith import Reject
from problem import few
from words import BOXES_KO, FOODS_KO, noun_ko, p, person_ko, said_ko


def chain_ko(rng):
    food = rng.random() < 0.3
    noun, unit = noun_ko(rng, FOODS_KO) if food else noun_ko(rng)
    name = person_ko(rng)
    other = person_ko(rng, (name,))
    n = few(rng, 99 if rng.random() < 0.8 else 400)
    have = rng.choice(("가지고 있습니다", "가지고 있었습니다", "갖고 있어요"))
    text = rng.choice(
        (
            f"{p(name, '은')} {p(noun, '을')} {said_ko(rng, n, unit)} {have}.",
            f"{p(name, '은')} {noun} {p(said_ko(rng, n, unit), '을')} {have}.",
            f"{name}에게 {p(noun, '이')} {said_ko(rng, n, unit)} 있습니다.",
        )
    )
    tokens = [n]
    for i in range(rng.choice((1, 1, 2, 2, 3))):
        m = few(rng, 60)
        gain = rng.random() < 0.5
        amount = said_ko(rng, m, unit)
        verb = rng.choice(
            (
                f"{amount} 더 샀습니다",
                f"{other}에게서 {p(amount, '을')} 받았습니다",
                f"{p(amount, '을')} 더 얻었습니다",
                f"{other}에게 {amount}를 받았어요" if final_vowel(amount) else f"{other}에게 {amount}을 받았어요",
                f"{p(amount, '을')} 더 모았습니다",
            )
            if gain
            else (
                f"{other}에게 {p(amount, '을')} 주었습니다",
                f"{p(amount, '을')} 잃어버렸습니다",
                f"{p(amount, '을')} 팔았습니다",
                f"{p(amount, '을')} 나누어 주었습니다",
                f"{other}에게 {p(amount, '을')} 줬어요",
            )
            + ((f"{p(amount, '을')} 먹었습니다", f"{p(amount, '을')} 먹었어요") * 2 if food else ())
        )
        text += (
            rng.choice(
                (" ", " 그리고 ", " 그다음 ", " 그 뒤 ")
                if i
                else (" ", " ", f" {p(name, '은')} ", " 그중 " if not gain else " ")
            )
            + verb
            + "."
        )
        tokens += ["+" if gain else "-", m]
    ask, answer = rng.choice(
        (
            (f"지금 {p(noun, '은')} 몇 {unit}입니까?", f"{p(noun, '은')} {{}}{unit}입니다."),
            (
                f"{p(name, '이')} 가진 {p(noun, '은')} 몇 {unit}인가요?",
                f"{p(name, '이')} 가진 {p(noun, '은')} {{}}{unit}입니다.",
            ),
            (f"{p(noun, '은')} 모두 몇 {unit}인가요?", f"{p(noun, '은')} 모두 {{}}{unit}입니다."),
        )
    )
    if tokens[-2] == "-":
        ask, answer = rng.choice(
            (
                (f"남은 {p(noun, '은')} 몇 {unit}인가요?", f"남은 {p(noun, '은')} {{}}{unit}입니다."),
                (f"{p(noun, '은')} 몇 {p(unit, '이')} 남았나요?", f"{p(noun, '은')} {{}}{p(unit, '이')} 남았습니다."),
            )
        )
    return tokens, f"{text} {ask}", answer, None


def final_vowel(word):
    return p(word, "을").endswith("를")


def boxes_ko(rng):
    (noun, unit), box = noun_ko(rng), rng.choice(BOXES_KO)
    name = person_ko(rng)
    n, m = rng.randint(2, 12 if rng.random() < 0.6 else 40), rng.randint(2, 9 if rng.random() < 0.7 else 30)
    form = rng.randrange(3)
    a, b = said_ko(rng, n, "개"), said_ko(rng, m, unit)
    text = (
        f"한 {box}에 {p(noun, '이')} {b}씩 {a}의 {box}에 들어 있습니다.",
        f"{p(noun, '이')} {b}씩 든 {p(box, '이')} {a} 있습니다.",
        f"{p(name, '은')} {p(noun, '이')} {b}씩 들어 있는 {p(box, '을')} {a} 샀습니다.",
    )[form]
    tokens = [m, "*", n]
    ask, answer = f"{p(noun, '은')} 모두 몇 {unit}인가요?", f"{p(noun, '은')} 모두 {{}}{unit}입니다."
    if rng.random() < 0.3:
        ask = f"{p(noun, '은')} 전부 몇 {unit}입니까?"
    change = rng.random()
    if change < 0.3:
        k = few(rng)
        text += rng.choice(
            (
                f" {said_ko(rng, k, unit)} 더 받았습니다.",
                f" 그리고 {p(said_ko(rng, k, unit), '이')} 더 있습니다.",
                f" 여기에 {p(said_ko(rng, k, unit), '을')} 더 넣었습니다.",
            )
        )
        tokens += ["+", k]
    elif change < 0.6:
        k = few(rng)
        text += rng.choice(
            (
                f" 그중 {p(said_ko(rng, k, unit), '을')} 썼습니다.",
                f" {p(said_ko(rng, k, unit), '을')} 친구에게 주었습니다.",
                f" 그중 {p(said_ko(rng, k, unit), '을')} 팔았습니다.",
            )
        )
        ask, answer = f"남은 {p(noun, '은')} 몇 {unit}인가요?", f"남은 {p(noun, '은')} {{}}{unit}입니다."
        tokens += ["-", k]
    return tokens, f"{text} {ask}", answer, None


def share_ko(rng):
    noun, unit = noun_ko(rng)
    name = person_ko(rng)
    n, each = rng.randint(2, 12), few(rng, 40)
    total = n * each
    form = rng.randrange(3)
    who = rng.choice(("친구", "학생", "아이", "사람"))
    if form == 0:
        text, tokens = rng.choice(
            (
                f"{noun} {total}{p(unit, '이')} 있습니다.",
                f"{p(name, '은')} {noun} {total}{p(unit, '을')} 가지고 있습니다.",
            )
        ), [total, "/", n]
    elif form == 1:
        b = rng.randint(1, total - 1)
        text = f"{p(name, '은')} {noun} {total - b}{p(unit, '을')} 가지고 있고 {b}{p(unit, '을')} 더 받았습니다."
        tokens = ["(", total - b, "+", b, ")", "/", n]
    else:
        b = few(rng, 40)
        text = f"{p(name, '은')} {noun} {total + b}{unit} 중에서 {b}{p(unit, '을')} " + rng.choice(
            ("썼습니다.", "잃어버렸습니다.", "동생에게 주었습니다.")
        )
        tokens = ["(", total + b, "-", b, ")", "/", n]
    if rng.random() < 0.3:
        box = rng.choice(BOXES_KO)
        return (
            tokens,
            text
            + f" {'남은 것을' if form == 2 else '이것을'} {box} {n}개에 똑같이 나누어 담으면 한 {box}에 몇 {unit}인가요?",
            f"한 {box}에 {{}}{unit}입니다.",
            None,
        )
    text += rng.choice(
        (
            f" {'나머지를' if form == 2 else '이것을'} {who} {n}명이 똑같이 나누면 한 명은 몇 {p(unit, '을')} 갖나요?",
            f" {'남은 것을' if form == 2 else '모두'} {n}명의 {who}에게 똑같이 나누어 주면 한 명이 몇 {p(unit, '을')} 받나요?",
        )
    )
    return tokens, text, f"한 명이 {{}}{p(unit, '을')} " + ("갖습니다." if "갖나요" in text else "받습니다."), None


def compare_ko(rng):
    noun, unit = noun_ko(rng)
    name = person_ko(rng)
    other = person_ko(rng, (name,))
    a, form = few(rng), rng.randrange(5)
    text = rng.choice(
        (
            f"{p(name, '은')} {p(noun, '을')} {said_ko(rng, a, unit)} 가지고 있습니다.",
            f"{p(name, '은')} {noun} {p(said_ko(rng, a, unit), '을')} 가지고 있습니다.",
        )
    )
    if form == 0:
        b = few(rng)
        text += f" {p(other, '은')} {name}보다 {said_ko(rng, b, unit)} 더 많이 가지고 있습니다."
        one, both = [a, "+", b], [a, "+", "(", a, "+", b, ")"]
    elif form == 1:
        b = few(rng)
        if b >= a:
            raise Reject
        text += f" {p(other, '은')} {name}보다 {said_ko(rng, b, unit)} 더 적게 가지고 있습니다."
        one, both = [a, "-", b], [a, "+", "(", a, "-", b, ")"]
    elif form == 2:
        b = rng.randint(2, 9)
        text += f" {p(other, '은')} {name}의 {b}배를 가지고 있습니다."
        one, both = [a, "*", b], [a, "+", a, "*", b]
    else:
        b = few(rng)
        text = f"{p(name, '은')} {p(noun, '을')} {said_ko(rng, a, unit)}, {p(other, '은')} {said_ko(rng, b, unit)} 가지고 있습니다."
        if form == 3 and a != b:
            hi, lo, who, than = (a, b, name, other) if a > b else (b, a, other, name)
            return (
                [hi, "-", lo],
                text + f" {p(who, '은')} {than}보다 몇 {unit} 더 많이 가지고 있나요?",
                f"{p(who, '은')} {{}}{unit} 더 많이 가지고 있습니다.",
                None,
            )
        one, both = None, [a, "+", b]
    if one is None or rng.random() < 0.4:
        return (
            both,
            text
            + rng.choice((f" 두 사람이 가진 {p(noun, '은')} 모두 몇 {unit}인가요?", f" 둘이 합하면 몇 {unit}인가요?")),
            f"모두 {{}}{unit}입니다.",
            None,
        )
    return (
        one,
        text
        + rng.choice(
            (
                f" {p(other, '이')} 가진 {p(noun, '은')} 몇 {unit}인가요?",
                f" {p(other, '은')} 몇 {p(unit, '을')} 가지고 있나요?",
            )
        ),
        f"{p(other, '은')} {{}}{p(unit, '을')} 가지고 있습니다.",
        None,
    )


def money_ko(rng):
    (noun, unit), (noun2, unit2) = noun_ko(rng), noun_ko(rng)
    name = person_ko(rng)
    price, n = rng.randint(1, 19) * rng.choice((10, 50, 100)), rng.randint(2, 9)
    form = rng.randrange(4)
    cost = rng.choice(
        (
            f"{noun} 한 {p(unit, '이')} {price}원입니다.",
            f"한 {unit}에 {price}원인 {p(noun, '이')} 있습니다.",
            f"{p(noun, '은')} 한 {unit}에 {price}원입니다.",
        )
    )
    if form == 0:
        return [price, "*", n], cost + f" {n}{p(unit, '을')} 사면 모두 얼마인가요?", "모두 {}원입니다.", None
    if form == 1:
        paid = rng.choice([x for x in (500, 1000, 2000, 5000, 9000) if x > price * n] or [price * n + 50])
        return (
            [paid, "-", price, "*", n],
            cost
            + rng.choice(
                (
                    f" {p(name, '이')} {n}{p(unit, '을')} 사고 {paid}원을 냈습니다. 거스름돈은 얼마인가요?",
                    f" {p(name, '은')} {paid}원을 내고 {n}{p(unit, '을')} 샀습니다. 거스름돈은 얼마입니까?",
                )
            ),
            "거스름돈은 {}원입니다.",
            None,
        )
    if form == 2:
        price2, m = rng.randint(1, 9) * rng.choice((10, 50, 100)), rng.randint(2, 9)
        if noun == noun2:
            raise Reject
        return (
            [price, "*", n, "+", price2, "*", m],
            f"{p(name, '은')} {price}원짜리 {noun} {n}{p(unit, '과')} {price2}원짜리 {noun2} {m}{p(unit2, '을')} 샀습니다. 모두 얼마인가요?",
            "모두 {}원입니다.",
            None,
        )
    have, spend, earn = rng.randint(10, 90) * 100, rng.randint(1, 60) * 50, rng.randint(1, 30) * 50
    if have < spend:
        raise Reject
    if rng.random() < 0.5:
        return (
            [have, "-", spend],
            f"{p(name, '은')} {have}원을 가지고 있었는데 {spend}원을 썼습니다. 남은 돈은 얼마인가요?",
            "남은 돈은 {}원입니다.",
            None,
        )
    return (
        [have, "-", spend, "+", earn],
        f"{p(name, '은')} {have}원 중에서 {spend}원을 쓰고 {earn}원을 받았습니다. 지금 가진 돈은 얼마인가요?",
        "지금 가진 돈은 {}원입니다.",
        None,
    )


def rates_ko(rng):
    name = person_ko(rng)
    other = person_ko(rng, (name,))
    a, b, c = few(rng, 60), rng.randint(2, 9), few(rng, 60)
    form = rng.randrange(9)
    if form == 0:
        return (
            [a, "*", b],
            rng.choice(
                (
                    f"자동차가 한 시간에 {a}km를 갑니다. {b}시간 동안 몇 km를 가나요?",
                    f"기차가 시속 {a}km로 {b}시간 달리면 몇 km를 가나요?",
                )
            ),
            "{}km를 갑니다.",
            None,
        )
    if form == 1:
        total = a * b + c
        return (
            [total, "-", a, "*", b],
            f"책이 {total}쪽 있습니다. {p(name, '이')} 하루에 {a}쪽씩 {b}일 동안 읽으면 몇 쪽이 남나요?",
            "{}쪽이 남습니다.",
            None,
        )
    if form == 2:
        return (
            [a, "*", b],
            f"{p(name, '은')} 하루에 책을 {a}쪽씩 읽습니다. {b}일 동안 모두 몇 쪽을 읽나요?",
            "모두 {}쪽을 읽습니다.",
            None,
        )
    if form == 3:
        return (
            [a, "*", b, "-", c],
            f"한 줄에 의자가 {a}개씩 {b}줄 있습니다. {c}개를 쓰면 남은 의자는 몇 개인가요?",
            "남은 의자는 {}개입니다.",
            None,
        )
    if form == 4:
        return (
            [a, "+", b, "+", c],
            f"{p(name, '은')} {a}살이고 {p(other, '은')} {name}보다 {b}살 많습니다. {c}년 뒤 {p(other, '은')} 몇 살인가요?",
            f"{p(other, '은')} {{}}살입니다.",
            None,
        )
    if form == 5:
        if b >= a:
            raise Reject
        return (
            [a, "-", b],
            f"{p(name, '은')} {a}살입니다. {p(other, '은')} {name}보다 {b}살 어립니다. {p(other, '은')} 몇 살인가요?",
            f"{p(other, '은')} {{}}살입니다.",
            None,
        )
    if form == 6:
        if b > a:
            raise Reject
        stop = rng.choice(("버스", "기차", "전철"))
        return (
            [a, "-", b, "+", c],
            f"{stop}에 {a}명이 타고 있습니다. {b}명이 내리고 {c}명이 탔습니다. 지금 몇 명이 타고 있나요?",
            "지금 {}명이 타고 있습니다.",
            None,
        )
    if form == 7:
        low = rng.randint(0, 20)
        return (
            [low, "-", b],
            f"기온이 {low}도였는데 {b}도 내려갔습니다. 지금 기온은 몇 도인가요?",
            "지금 기온은 {}도입니다.",
            None,
        )
    total = b * a
    return (
        [total, "/", b],
        f"{p(name, '은')} 책 {total}쪽을 {b}일 동안 매일 똑같이 읽었습니다. 하루에 몇 쪽씩 읽었나요?",
        "하루에 {}쪽씩 읽었습니다.",
        None,
    )


STORIES_KO = (chain_ko, chain_ko, chain_ko, boxes_ko, boxes_ko, share_ko)
STORIES_KO += (compare_ko, compare_ko, money_ko, money_ko, rates_ko, rates_ko)
