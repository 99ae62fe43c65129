"""The strings that every tokenizer is asked to encode: written by hand for the corners of the
pre-tokenizer rules, then seeded mixtures of short pieces whose neighbours matter."""

import random
import unicodedata

BY_HAND = [
    # plain prose
    "", " ", "a", "가", "中", "Hello world", " Hello world", "Hello world ", "  Hello  world  ",
    "The quick brown fox jumps over the lazy dog.",
    "It costs $12.50 (or 17,000원) a month, doesn't it?",
    "안녕하세요. 두레는 마을 사람들이 함께 일하던 풍습입니다.",
    "나는 어제 친구와 함께 도서관에서 책을 세 권 빌렸다.",
    "밥은 먹었니? 응, 먹었어! 그럼 산책하러 가자…",
    "가격은 12,300원이고, 할인하면 9,900원이에요.",
    "서울특별시 강남구 테헤란로 123번길 45-6, 7층",
    "ㄱㄴㄷㄹ ㅏㅑㅓㅕ ㅋㅋㅋㅋ ㅠㅠ ㅎㅎ",
    "값싼 앉은뱅이책상과 닭볶음탕, 훑어보다, 읊조리다.",
    "我们一起插秧,一天就完成了。", "他说:“先想一想,再回答。”", "第3章 第１２节:模型与数据。",
    "中文字符，全角标点！（括号）《书名》、顿号；分号：冒号？",
    "龥龦鿿㐀䶵𠀀𠮷野家", "みんなで田植えをしましょう。", "カタカナとﾊﾝｶｸとひらがな、そして漢字。",
    "東京タワーは333メートルです！", "ー〜々〆ヶゝヾ", "ヿ゠ㇰㇿ", "한국어와 日本語 and English 混合 text",
    "漢字かなカナ한글ABC123", "Привет, мир! Как дела?", "Γειά σου Κόσμε", "ΐΰώ Ώ ΑΒΓαβγ",
    "مرحبا بالعالم، كيف حالك؟", "שלום עולם! מה שלומך?", "هذا ١٢٣ رقم", "नमस्ते दुनिया १२३",
    "สวัสดีชาวโลก", "Tiếng Việt có dấu: ắ ằ ẳ ẵ ặ", "Ĉu vi parolas Esperanton?",
    "Straße GROẞE ﬁnden ﬂöße", "İstanbul ıssız ĳ Ĳ ǅ ǈ ǲ", "naïve café résumé coöperate",
    "ÀÉÎÕÜ àéîõü ÿ Ÿ Æ æ Ø ø Þ þ ð Ð", "ꙀꙁꚀꭰꮿ Ⴀ ა Ა 𐐀𐐨 𞤀𞤢", "ⅠⅡⅢ ⅰⅱ ① ② ⑳ ㊀ ½ ¾ ² ³ ₁",
    # contractions, both cases
    "I'm you're he's she'd we'll they've don't", "I'M YOU'RE HE'S SHE'D WE'LL THEY'VE DON'T",
    "I'm'm 's 't 're 've 'm 'll 'd", "'S 'T 'RE 'VE 'M 'LL 'D", "'Re 'rE 'Ve 'vE 'Ll 'lL",
    "it’s ‘quoted’ “double”", "rock 'n' roll, O'Neil's d'Artagnan", "''''s''t", "x's'y", "가's 中'll",
    "'sample 'table 'red 'very 'many 'llama 'day", "it'ſ 'ſ", "IT'Something 'TWAS",
    # spaces
    "  ", "   ", "    x", "x    ", "x    y", "\t", "\t\t", "\tx", "x\ty", " \t x", "\t \tx  \t",
    "\n", "\n\n", "\n\n\n", " \n", "\n ", " \n ", "\n \n", "x\ny", "x\n\ny", "x \n y", "x  \n\n  y",
    "\r\n", "\r\n\r\n", "x\r\ny", "x \r\n y", "\r", "x\ry", "\n\r\n\r", "\r\r\n", "x\n\t\ty\n\t\tz\n",
    "line one\r\nline two\r\n\r\nline four\r\n", "trailing spaces   \nnext", "   \n   \n   x",
    "a\u00a0b", "a\u3000b", "\u3000가", "a\u2003b\u2009c\u200ad", "a\u2028b\u2029c", "a\u0085b", "a\x0bb\x0cc",
    "a\u200bb\u200cc\u200dd\ufeffe", "\ufeffstart", "a\u180eb", "a\u1680b\u202fc\u205fd",
    "x\u00a0\u00a0y", "  \u3000 x", "\x1c\x1d\x1e\x1f", "a\x00b", "\x01\x02\x7f\x80\x9f",
    "x \u00a0", "x\u3000", "end with newline\n", "end with spaces   ", "tab end\t", "\n가 \n나 \n 다",
    # numbers
    "0", "12", "123", "1234", "12345", "123456", "1234567890", "3.14159", "1,000,000", "-42", "+7", "1e-5",
    "0x1F", "0b1010", "2024-05-17", "08:30:59", "192.168.0.1", "v1.2.3-rc4", "a1b2c3", "1a2b3c", "12ab34",
    "x12 y345 z6789", " 1 12 123 1234", "12 345", "5개 10명 2024년", "第１２３４章", "１２３４５６７", "٠١٢٣٤٥٦٧٨٩",
    "०१२३४५", "൧൨൩", "𝟏𝟐𝟑𝟒", "²³¹⁰⁴", "½¾⅛", "Ⅷ Ⅸ Ⅹ", "㉈㊿", "10²", "1½", "100%", "$100", "€99", "₩5,000",
    "1\n2\n3", "1 \n2", "12\t34", "1️⃣2️⃣", "六十四", "零〇一二三",
    # punctuation and symbols
    "!", "!!!", "?!?!", "...", "…", "—", "--", "---", " - ", "a-b-c", "a--b", "(x)", "( x )", "[x]{y}", "<a>",
    "a.b.c", "a,b,c", "a;b:c", "\"quoted\"", "`code`", "```c\nint x;\n```", "~tilde~", "^caret^", "|pipe|",
    "a|b||c", "a&b&&c", "x=y==z", "x!=y", "<=>", "a<b>c", "->", "=>", "::", "//", "/* c */", "\\", "\\n", "\\\\",
    "#include", "# heading", "@user", "50%", "*bold* _it_", "___", "$x$", "+-*/=", "x+y-z", "§¶†‡•", "©®™", "«x»",
    "¡hola! ¿qué?", "、。「」『』【】", "！？（）：；，．", "～￥＄％", "‘’‚‛“”„‟", "､｡", "･ー", "₩¥€£", "±×÷≤≥≠≈", "∀x∈S: ∃y",
    "←→↑↓⇒", "░▒▓█", "♠♥♦♣", "a\u0336b", "!a", "!abc def", ".net", "_private", "-flag", "--long-flag=1",
    ".가", "!中", "'가", " .", " !x", " 'x", "\t.", "\n.", ".\n", "!\n\n", "!\r\n", "?! \n", "}\n\n}", ");\n\n\treturn",
    # code
    "int main(void)\n{\n    return 0;\n}\n", "for (i = 0; i < n; ++i)\n\tsum += a[i];\n",
    "def f(x):\n    if x > 10:\n        return x ** 2\n    return None\n",
    "#define DU_MAX(a, b) ((a) > (b) ? (a) : (b))", "printf(\"%d\\n\", x);", "std::vector<std::string> v{\"a\"};",
    "const x = `hi ${name}`;", "SELECT * FROM t WHERE a='b' AND c>=10;", "<div class=\"x\">가나다</div>",
    "{\"key\": [1, 2.5, null, true], \"한글\": \"값\"}", "import os\nimport sys\n\n\n\nclass A:\n    pass",
    "if(a&&b||!c){x=-1;}", "camelCase PascalCase snake_case SCREAMING_CASE kebab-case",
    "HTTPServer2Response XMLHttpRequest iPhone eBay", "ABCdef ABCdefGHI aBCD", "한글변수 = 10  # 주석",
    "        eight spaces", "\t\ttwo tabs", "a  =  b", "https://example.com/path?q=1&r=%20#top",
    "user.name+tag@example.co.kr", "C:\\Users\\name\\file.txt", "~/.config/dure", "rm -rf ./build && make -j2",
    # emoji, joiners, marks
    "😀", "😀😃😄", " 😀", "a😀b", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇰🇷🇯🇵", "❤️", "❤", "☺︎", "1️⃣", "🤷‍♂️ 몰라",
    "좋아요👍👍", "🎉🎉 축하!", "x🙂y🙃z", "⌚⏰⏳", "🧑🏿‍🚀", "e\u0301", "cafe\u0301", "n\u0303o\u0302", "a\u0300\u0301\u0302",
    "\u0301", " \u0301", "\u0301a", "x\u0301\u0301y", "ก็ ที่ นี้", "क्षत्रिय", "வணக்கம்", "\u20e3", "a\u20e3", "한\u0301",
    unicodedata.normalize("NFD", "한국어"), unicodedata.normalize("NFD", "안녕하세요 두레 값싼 닭"),
    unicodedata.normalize("NFD", "résumé naïve Ångström"), "\u1112\u1161\u11ab \u1100\u1161", "\u1112\u1161",
    "Å \u212b \u2126 \u212a", "\uf900\ufa0e\ufa10", "ｱｲｳ ＡＢＣ ａｂｃ", "ﷺ", "ﬀﬁﬂﬃ", "\u0958\u0929", "\u0344\u0374\u037e\u0387",
    # code points without a character, private use, ends of planes
    "\u0378\u0379", "a\u0378b", "\ufdd0\ufffe\uffff", "\U0001fffe", "\ue000\uf8ff", "\U000f0000", "\U0010ffff", "\ufffd",
    "\ufffdx\ufffd", "\U000e0001", "\ufe0f", "\u061c\u200e\u200f\u202a\u202c",
    # right to left mixed
    "abc שלום def", "12 مرحبا 34", "(שלום)", "\u202babc\u202c",
    # long
    "a" * 120, "가" * 60, "中" * 60, "1" * 50, " " * 70, "\n" * 30, "!" * 60, "ab" * 60, "é" * 50,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "supercalifragilisticexpialidocious" * 2, "ㅋ" * 40, "😀" * 20, "x " * 40, " x" * 40, "'s" * 20, "1a" * 30,
    # special tokens of every family, in text
    "<｜begin▁of▁sentence｜>Hello<｜end▁of▁sentence｜>", "<｜User｜>안녕<｜Assistant｜>네", "<｜User｜> x <｜Assistant｜> y",
    "<think>\n생각\n</think>\n답", "<think></think>", "<<think>>", "<think", "think>", "</think>\n\n42", "a<think>b",
    "<｜fim▁begin｜>a<｜fim▁hole｜>b<｜fim▁end｜>", "<｜tool▁calls▁begin｜><｜tool▁sep｜>", "<|EOT|>", "<|User|>x<|Assistant|>",
    "<|im_start|>user\nHi<|im_end|>\n", "<|im_start|><|im_start|>", "<|endoftext|>", "a<|endoftext|>b <|endoftext|> c",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "<|eom_id|><|python_tag|>",
    "<tool_call>\n{}\n</tool_call>", "[gMASK]<sop><|user|>\n你好<|assistant|>", "[BOS]<|im_user|>user<|im_middle|>hi<|im_end|>[EOS]",
    "<s>Hello</s>", "<unk>", " <s> x </s> ", "</s>가<s>", "<s", "<repo_name>x<file_sep>", "/nothink hello", "<|fim_prefix|>",
    "<|im_start", "|im_end|>", "<｜", "｜>", "<｜User", "▁", "a▁b", "▁▁x", "<0x41>", "<0xEA>", "Ġ", "ĠHello", "Ċ", "<|IM_START|>",
    # words that are tokens without a way of merging to them
    "orchard", " orchard", "orchards", " unmergeable", "unmergeable", " 두레마을", "두레마을", "두레마을에", "zqxj", " zqxj ",
]

PIECES = [
    "the", "The", "THE", "village", "x", "A", "ab", "두레", "가", "마을에", "ㅋ", "模型", "中", "か", "カナ", "漢字", "é", "ß", "Ω", "Ж",
    "1", "23", "456", "7890", "١", "½", "'s", "'S", "'ll", "'re", "'", "\"", ".", ",", "!", "?!", "(", ")", "-", "_", "/", "\\", "=",
    "+", "<", ">", "|", "~", "$", "`", "^", "。", "、", "「", "…", "😀", "👍🏽", "\u0301", "\u200d", " ", " ", " ", "  ", "   ", "\t", "\n", "\n",
    "\n\n", "\r\n", "\u3000", "\u00a0",
]

BYTES = [
    "80", "ff", "c3", "c328", "e28228", "f0288cbc", "f09f98", "eab0", "edb080", "c080", "f4908080", "fe", "fffe00",
    "48656c6c6fff20776f726c64", "eab080ff", "ffeab080", "20ff20", "0aff0a", "31ff32", "e18480e185a1ff", "c3a9c3", "00ff00",
]


def mixtures(n):
    rng = random.Random(20240517)  # Random.choice's stream is stable across Python versions
    return ["".join(rng.choice(PIECES + ["<think>"]) for _ in range(rng.randrange(3, 22))) for _ in range(n)]


def all_texts():
    """Dicts as they stand in texts.jsonl: {"text": ...}, or {"hex": ...} for what is not UTF-8."""
    texts = list(dict.fromkeys(BY_HAND)) + mixtures(90)
    return [{"text": t} for t in texts] + [{"hex": h} for h in BYTES]
