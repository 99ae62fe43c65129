"""Greetings, other topics, arithmetic the model was not taught: short honest answers."""

from expressions import ASK_EN, ASK_KO
from problem import Problem
from words import noun_en, noun_ko, p, person_en, person_ko

CAN_EN = "I can solve integer arithmetic and short word problems, in English and Korean."
CAN_KO = "저는 정수 계산과 짧은 문장제를 한국어와 영어로 풀 수 있습니다."
TRY_EN = ("Try: What is 17 + 25 * 3?", "Try: What is 348 + 276?", "Try: 12 times 8?")
TRY_KO = ("예: 17 + 25 * 3은?", "예: 348 더하기 276은?", "예: 12 곱하기 8은?")
HELLO_EN = (
    "Hi",
    "Hello",
    "hello!",
    "Hi there",
    "Hey",
    "Good morning",
    "Good evening!",
    "hi, how are you?",
    "How are you?",
    "Hello, nice to meet you.",
)
HELLO_KO = (
    "안녕",
    "안녕하세요",
    "안녕하세요?",
    "안녕!",
    "반가워",
    "반갑습니다.",
    "좋은 아침이에요.",
    "잘 지내?",
    "하이",
    "안녕하십니까",
)
WHO_EN = (
    "Who are you?",
    "What are you?",
    "What can you do?",
    "what's your name?",
    "Help",
    "help me",
    "Who made you?",
    "What is this?",
    "Tell me about yourself.",
)
WHO_KO = (
    "너는 누구야?",
    "누구세요?",
    "무엇을 할 수 있어?",
    "뭘 할 수 있어?",
    "이름이 뭐야?",
    "도와줘",
    "도움말",
    "누가 만들었어?",
    "자기소개 해 줘.",
    "넌 뭐니?",
)
THANKS_EN = (
    "Thanks",
    "Thank you!",
    "thanks a lot",
    "Great, thank you.",
    "Bye",
    "Goodbye",
    "See you",
    "OK",
    "Good job!",
)
THANKS_KO = ("고마워", "감사합니다", "고맙습니다.", "잘 가", "안녕히 계세요", "좋아", "잘했어!", "수고했어요", "알겠어")
TOPICS_EN = (
    (
        "France Paris Korea cats dogs music history love the moon the sea football physics chess cooking art money "
        "school Mars poetry coffee computers trees winter dreams robots"
    )
    .replace("the ", "the_")
    .split()
)
TOPICS_KO = "프랑스 서울 한국 고양이 강아지 음악 역사 사랑 달 바다 축구 물리학 바둑 요리 미술 학교 화성 시 커피 컴퓨터 나무 겨울 꿈 로봇 날씨".split()
OFF_EN = (
    "What is the capital of {}?",
    "Tell me about {}.",
    "Write a poem about {}.",
    "Who invented {}?",
    "What is {}?",
    "Why do people like {}?",
    "Translate {} into French.",
    "What is the weather in {}?",
    "Do you like {}?",
    "Tell me a joke about {}.",
    "Write code about {}.",
    "How does {} work?",
    "When was {} founded?",
    "Where is {}?",
    "Give me a recipe for {}.",
    "Explain {} to me.",
    "Can you sing about {}?",
)
OFF_KO = (
    "{}의 수도는 어디야?",
    "{}에 대해 알려 줘.",
    "{}에 대한 시를 써 줘.",
    "{은} 누가 만들었어?",
    "{이} 뭐야?",
    "{을} 왜 좋아해?",
    "{을} 영어로 번역해 줘.",
    "{} 날씨 어때?",
    "{을} 좋아해?",
    "{에} 대한 농담 해 줘.",
    "{} 코드를 짜 줘.",
    "{은} 어떻게 작동해?",
    "{은} 어디에 있어?",
    "{은} 무엇인가요?",
    "{을} 설명해 줘.",
)


def beyond(rng):
    """A calculation the model was not taught, and what to call it."""
    a, b = rng.randint(2, 999), rng.randint(2, 99)
    return rng.choice(
        (
            (f"{a}.{rng.randint(1, 9)} + {b}.{rng.randint(1, 9)}", "frac"),
            (f"{a}.{rng.randint(1, 99)} * {b}", "frac"),
            (f"{a}^{rng.randint(2, 9)}", "op"),
            (f"{a}**{rng.randint(2, 9)}", "op"),
            (f"sqrt({a})", "op"),
            (f"{b}% of {a}", "op"),
            (f"{b}!", "op"),
            (f"sin({b})", "op"),
            (f"x + {a} = {a + b}", "op"),
            (f"log({a})", "op"),
            (f"{rng.randint(100, 999)} * {rng.randint(11, 999)}", "big"),
            (f"{rng.randint(10000, 9999999)} + {rng.randint(1, 999999)}", "big"),
            (f"{rng.randint(10000, 9999999)} - {rng.randint(1, 9999)}", "big"),
            (f"{rng.randint(1, 999)} * {rng.randint(10000, 999999)}", "big"),
            (f"{rng.randint(1000, 9999)} * {rng.randint(12, 99)}", "big"),
            (f"{a} / 0", "zero"),
        )
    )


def other_problem(rng, lang):
    """Greetings, questions about the model, other topics, arithmetic it was not taught: a short honest answer."""
    en = lang == "en"
    can, hint = (CAN_EN, rng.choice(TRY_EN)) if en else (CAN_KO, rng.choice(TRY_KO))
    kind = rng.choices(("hello", "who", "thanks", "off", "beyond"), (15, 12, 8, 45, 20))[0]
    if kind == "hello":
        question, think = rng.choice(HELLO_EN if en else HELLO_KO), "A greeting." if en else "인사입니다."
        answer = f"Hello! {can} {hint}" if en else f"안녕하세요! {can} {hint}"
    elif kind == "who":
        question, think = rng.choice(WHO_EN if en else WHO_KO), (
            "A question about me." if en else "저에 대한 질문입니다."
        )
        answer = (
            f"I am a very small model that comes with dure. {can} {hint}"
            if en
            else f"저는 dure에 들어 있는 아주 작은 모델입니다. {can} {hint}"
        )
    elif kind == "thanks":
        question, think = rng.choice(THANKS_EN if en else THANKS_KO), (
            "No problem to solve." if en else "풀 문제가 없습니다."
        )
        answer = (
            "You are welcome! Give me another problem any time." if en else "천만에요! 다른 문제도 언제든지 물어보세요."
        )
    elif kind == "off":
        topic = rng.choice(TOPICS_EN if en else TOPICS_KO).replace("_", " ")
        if rng.random() < 0.4:
            topic = person_en(rng)[0] if en else person_ko(rng)
        if rng.random() < 0.3:
            topic = noun_en(rng)[1] if en else noun_ko(rng)[0]
        question = rng.choice(OFF_EN if en else OFF_KO)
        question = (
            question.format(topic)
            if en
            else question.replace("{에}", "{}에")
            .replace("{}", topic)
            .replace("{은}", p(topic, "은"))
            .replace("{이}", p(topic, "이"))
            .replace("{을}", p(topic, "을"))
        )
        think = "This is not arithmetic." if en else "계산 문제가 아닙니다."
        answer = f"I do not know that. {can} {hint}" if en else f"그것은 모릅니다. {can} {hint}"
    else:
        body, why = beyond(rng)
        question = rng.choice(ASK_EN).format(body) if en else rng.choice(ASK_KO).format(body)
        think, answer = (
            {
                "frac": ("A number here is not an integer.", "I only work with integers."),
                "op": ("I know only + - * / and brackets.", "I know only + - * / and brackets."),
                "big": ("These numbers are too large for me.", "These numbers are too large for me."),
                "zero": ("The divisor is 0.", "Division by zero is not defined."),
            }[why]
            if en
            else {
                "frac": ("정수가 아닌 수가 있습니다.", "저는 정수만 계산합니다."),
                "op": ("저는 + - * / 와 괄호만 압니다.", "저는 + - * / 와 괄호만 압니다."),
                "big": ("저에게는 너무 큰 수입니다.", "저에게는 너무 큰 수입니다."),
                "zero": ("나누는 수가 0입니다.", "0으로 나눌 수 없습니다."),
            }[why]
        )
    return Problem(lang, "other", question, think, answer, "")
