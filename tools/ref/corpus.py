"""Text that the tiny tokenizers are trained on: written for dure, mixed Korean, English, Chinese,
Japanese and code, and put together from small lists so that there is enough of it to learn merges."""

import itertools

KOREAN = [
    "두레는 마을 사람들이 함께 모내기를 하던 오래된 풍습이다.",
    "혼자서는 열흘 걸릴 일을 여럿이 나누어 하루에 끝냈다.",
    "모델을 내려받아 한 줄의 명령으로 실행해 보자.",
    "어제 심은 모가 벌써 손바닥만큼 자랐다고 할머니가 말씀하셨다.",
    "철수는 사과 열두 개를 세 바구니에 똑같이 나누어 담았다.",
    "메모리가 모자라면 전문가의 가중치를 디스크에서 읽어 온다.",
    "질문이 있으면 먼저 생각하고, 그다음에 대답한다.",
    "비가 그치자 논둑에 사람들이 다시 모여들었다.",
]
ENGLISH = [
    "The village shares its oxen, its ploughs and its long afternoons.",
    "A small model should answer the same question in the same way every time.",
    "She carried twelve buckets of water, and then she carried twelve more.",
    "We've measured it twice, they'll measure it again, and I'm sure it isn't wrong.",
    "Every token that the router sends to an expert comes back with a weight.",
    "If the file is truncated, say so; name the place and the reason.",
    "The latent vector is short, but the heads that read from it are many.",
    "Think first, then write the answer below the line.",
]
CHINESE = [
    "村里的人一起插秧,一天就做完了十天的活。",
    "模型先思考,然后给出答案。",
    "小明有三十六个苹果,平均分给四个朋友。",
    "内存不够的时候,专家的权重从磁盘读取。",
]
JAPANESE = [
    "みんなで田植えをすれば、あっという間に終わる。",
    "モデルはまず考え、それから答えを書きます。",
    "カタカナとひらがなと漢字がまざった文です。",
]
CODE = [
    "for (int64_t i = 0; i < n; i++) {\n    sum += x[i] * w[i];\n}\n",
    "def area(width, height):\n    return width * height\n",
    "if (err != DU_OK) {\n\tgoto out;\n}\n",
    "SELECT name, count(*) FROM fields WHERE year >= 2023 GROUP BY name;\n",
    "let total = rows.map((r) => r.price).reduce((a, b) => a + b, 0);\n",
    '{"role": "user", "content": "1 + 2 = ?"}\n',
]
NUMBERS = ["3 + 4 = 7", "12 * 12 = 144", "1,024 and 65536", "3.14159", "2024-05-17 08:30"]


def lines():
    """Every line of the corpus, in a fixed order."""
    prose = KOREAN + ENGLISH + CHINESE + JAPANESE
    for a, b in itertools.product(prose, prose[::3]):
        yield a + " " + b
    for code, note in itertools.product(CODE, ENGLISH + KOREAN):
        yield "// " + note + "\n" + code
    for number, text in itertools.product(NUMBERS, ENGLISH[:4] + KOREAN[:4]):
        yield text + "\n\n" + number
