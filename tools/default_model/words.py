"""Word lists and the small grammar that the question writers need: particles, counts, names."""

NAMES_EN = {
    "she": "Mina Anna Sara Emma Lucy Kate Jane Nora Lily Maya Ella Ruth Alice Grace Yuna Sue Amy Rosa".split(),
    "he": "Tom Ben Jack Sam Leo Max Paul Mark Noah Dan Eric Jin Adam Luke Peter John Hugo Bob".split(),
}
NOUNS_EN = [
    tuple(p.split("/"))
    for p in (
        "apple/apples pear/pears orange/oranges cookie/cookies candy/candies egg/eggs plum/plums cake/cakes "
        "marble/marbles book/books pencil/pencils sticker/stickers card/cards coin/coins stamp/stamps ball/balls "
        "flower/flowers shell/shells toy/toys pen/pens bead/beads stone/stones ticket/tickets photo/photos "
        "balloon/balloons button/buttons cup/cups chair/chairs"
    ).split()
]
FOODS_EN = NOUNS_EN[:8]
BOXES_EN = [
    tuple(p.split("/"))
    for p in ("box/boxes bag/bags basket/baskets jar/jars pack/packs " "crate/crates sack/sacks").split()
]
NUMBERS_EN = "zero one two three four five six seven eight nine ten eleven twelve".split()

NAMES_KO = (
    "철수 영희 민수 지훈 수진 서연 민준 하은 도윤 지우 예준 유나 은지 현우 소라 준호 미나 태영 동현 보람 "
    "세진 가은 재석 나리 승민 다은 윤호 하늘 진우 혜진"
).split()
# noun, counter, what one does with it besides giving it away
NOUNS_KO = [
    tuple(p.split("/"))
    for p in (
        "사과/개 귤/개 사탕/개 빵/개 쿠키/개 딸기/개 달걀/개 초콜릿/개 구슬/개 지우개/개 공/개 단추/개 풍선/개 인형/개 "
        "책/권 공책/권 동화책/권 만화책/권 연필/자루 볼펜/자루 색연필/자루 스티커/장 색종이/장 우표/장 카드/장 사진/장 "
        "꽃/송이 장미/송이 물고기/마리 동전/개"
    ).split()
]
FOODS_KO = NOUNS_KO[:8]
BOXES_KO = "상자 봉지 바구니 통 가방 주머니".split()
NATIVE_KO = ["", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉", "열"]

_PAIRS = {"은": "은는", "이": "이가", "을": "을를", "과": "과와"}
_DIGIT_FINAL = {"0": 1, "1": 8, "2": 0, "3": 1, "4": 0, "5": 0, "6": 1, "7": 8, "8": 8, "9": 0}  # 8: the final is ㄹ
_LETTER_FINAL = {"l": 8, "m": 1, "n": 1}


def final(word):
    """0 when the last sound is a vowel, 8 when it is ㄹ, another number for other final consonants."""
    last = str(word)[-1]
    if last in _DIGIT_FINAL:
        return _DIGIT_FINAL[last]
    if "가" <= last <= "힣":
        return (ord(last) - 0xAC00) % 28
    return _LETTER_FINAL.get(last.lower(), 0)


def p(word, particle):
    """word followed by the right form of 은/는, 이/가, 을/를, 과/와 (named by the first) or (으)로."""
    if particle == "로":
        return f"{word}로" if final(word) in (0, 8) else f"{word}으로"
    with_final, without = _PAIRS[particle]
    return f"{word}{with_final if final(word) else without}"


def made_up_en(rng):
    return "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.choice((2, 2, 3))))


def made_up_ko(rng):
    """A word of syllables drawn from the common beginnings, vowels and endings."""
    return "".join(
        chr(
            0xAC00
            + rng.choice((0, 2, 3, 5, 6, 7, 9, 11, 12, 14, 16, 17, 18)) * 588
            + rng.choice((0, 1, 4, 5, 6, 8, 13, 18, 20)) * 28
            + rng.choice((0, 0, 0, 1, 4, 8, 16, 21))
        )
        for _ in range(rng.choice((2, 2, 3)))
    )


def person_en(rng, taken=()):
    """(name, pronoun)."""
    if rng.random() < 0.12:
        name = made_up_en(rng).capitalize()
        return name, name
    while True:
        pronoun = rng.choice(("she", "he"))
        name = rng.choice(NAMES_EN[pronoun])
        if name not in taken:
            return name, pronoun


def person_ko(rng, taken=()):
    if rng.random() < 0.12:
        return made_up_ko(rng)
    while True:
        name = rng.choice(NAMES_KO)
        if name not in taken:
            return name


def noun_en(rng, nouns=NOUNS_EN):
    if rng.random() < 0.08:
        word = made_up_en(rng)
        return word, word + "s"
    return rng.choice(nouns)


def noun_ko(rng, nouns=NOUNS_KO):
    if rng.random() < 0.08:
        return made_up_ko(rng), "개"
    return rng.choice(nouns)


def count_en(n, noun):
    return f"{n} {noun[0] if n == 1 else noun[1]}"


def said_en(rng, n):
    """A number in a question: now and then a word instead of digits."""
    return NUMBERS_EN[n] if 2 <= n <= 12 and rng.random() < 0.15 else str(n)


def said_ko(rng, n, counter):
    """Number and counter: 사과 '12개', now and then '세 개' or '12 개'."""
    if 1 <= n <= 10 and rng.random() < 0.15:
        return f"{NATIVE_KO[n]} {counter}"
    return f"{n} {counter}" if rng.random() < 0.05 else f"{n}{counter}"
