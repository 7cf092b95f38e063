# SPDX-License-Identifier: Apache-2.0
"""Hand-written tokenizer texts: (category, text)."""

CODE_PY = '''def rollout(env, policy, *, max_turns: int = 8) -> "Trajectory":
    """Run one episode.\t(tabs inside)"""
    obs = env.reset()
    for t in range(max_turns):
\tx = policy(obs)  # mixed indent
        if x is None: break


    return {"ids": [1,2,3], 'ok': True, "f": 1e-05}
'''
CODE_CPP = '''#include <vector>\r\ntemplate <class T>\r\nstd::vector<T> take(std::vector<T>&& v, size_t n) {\r\n  v.resize(std::min(n, v.size()));\r\n  return std::move(v);\r\n}\r\n'''
CODE_SH = "for f in $(ls -1 *.txt | sed 's/ /\\\\ /g'); do echo \"${f%%.txt}\" >> out.log 2>&1; done"
JSON_CALL = '{"name": "search", "arguments": {"query": "a \\"quoted\\" string\\nnew line", "n": 10, "x": [1, 2.5, null, true]}}'


def cases(added):
    out = []

    def add(cat, *texts):
        out.extend((cat, t) for t in texts)

    add("empty", "")
    add("plain", "Hello world", " Hello world", "Hello  world ", "The quick brown fox jumps over the lazy dog.", "a", " ", ".", "Hello, y'all! How are you 😁 ?")
    add("code", CODE_PY, CODE_CPP, CODE_SH, JSON_CALL, "if(x>=10&&y!=0){z|=1<<3;}", "SELECT * FROM t WHERE a='b' -- c\n;", "\t\t\treturn;\n\t\t}\n\t}\n}\n")
    add("whitespace", "\n", "\n\n", "\n\n\n", "\t", "\t\t", " \t", "\r", "\r\n", "\r\n\r\n", "\r\r\n", " \n", "  \n", "\n ", "\n  ", "\n\x0b  ", "a \n b", "a  \n\n  b", "a\t\tb", " a", "  a", "   a", "    a",
        "a ", "a  ", "a   ", "a\n", "a\r", "x\u00a0y", "\u00a0\u00a0y", "\u00a0\x00", "a\u2028b", "a\u2029 b", "a\u0085b", "a\u180eb", " \u180e ", "\ufeffbom", "a\ufeff b", "a\u200bb", "a\u3000b", "\u3000\u3000a", "a\u2009\u2009b",
        "a\x0bb", "a\x0cb", "a\x1cb\x1db\x1eb\x1fb", " " * 8 + "x" + " " * 9 + "y" + " " * 33, "\n" * 17 + "x", "\t" * 9 + "x", " \n \n \n x", "x \r\n  \r\n y")
    add("digits", *["1234567890"[:n] for n in range(1, 11)], "3.14159", "1,234,567.89", "v1.2.3-rc4", "0xDEADBEEF", "１２３", "٣٤٥", "Ⅷ", "x²³", "½ cup", "①②③", "1st 2nd 3rd", "a1b22c333d4444", "  123  456", "2024-06-30T12:00:00Z", "²²²²", "12３4", "a\U00011de0\U00011de1b", "x \U00016ff4\U00016ff5y", "\U0001d7d812\U0001fbf5", "〇九٤४")
    add("contractions", "I'm you're he's we'll they've I'd can't", "I'M YOU'RE HE'S WE'LL THEY'VE I'D CAN'T", "'s 't 're 've 'm 'll 'd", "''s'''t", "'ſ 'ſs", "it'ſ", "o'clock rock'n'roll 'tis", "l’été d’or", "'Sam'S'sam", "x'LL'Ll'lL", "'re're're", "'rex 'vex 'mx 'dx")
    add("apostrophe-pairs", " ".join("'" + chr(c) for c in range(0x21, 0x7F)), "".join("'" + chr(c) for c in range(0x21, 0x7F)))
    add("latin-nfc", "café", "cafe\u0301", "Ångström", "A\u030angstro\u0308m", "Å", "ﬁne", "naïve", "nai\u0308ve", "q\u0307\u0323 q\u0323\u0307", "ḍ\u0307 ḋ\u0323", "s\u0323\u0307", "\u0301", "\u0301a", "a" + "\u0300\u0301\u0302\u0303\u0304\u0305", "a" + "\u0316\u0300\u0317\u0301", "Ω Ω", "\u212b", "\u2126\u0301", "\u0344", "\u0958\u0929", "\u2adc", "\ufb1d\ufb2a", "\U0001d15e\U0001d1bb")
    add("hangul", "한국어 처리", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "\u1100\u1161\u11a8\u11a8", "가\u11a8", "각\u11a8", "\u1161\u11a8", "ㅎㅏㄴ")
    add("new-marks", "a\u08d3\u0301", "a\u0301\u08d3", "x\u0323\u1abf", "x\u1abf\u0323", "b\U00010efd\u0301", "c\u0301\U0001e4ec", "d\u1dfa\u0316\u0301")
    add("cjk", "今天天气不错，我们去公园吧。", "日本語とEnglishのmixed文", "漢字かな交じり文。「引用」", "中文ABC中文123中文", "𠮷野家", "龥豈更車", "ｶﾀｶﾅ", "か\u3099", "全角　スペース")
    add("scripts", "Привет, как дела?", "Γειά σου Κόσμε", "שלום עולם", "שָׁלוֹם", "مرحبا بالعالم", "مَرْحَبًا", "नमस्ते दुनिया", "সম্পূর্ণ", "தமிழ்", "สวัสดีชาวโลก", "ສະບາຍດີ", "မြန်မာ", "ក្រមុំ", "Tiếng Việt: Cửa Việt", "Türkçe İıIi", "ქართული", "አማርኛ", "ᏣᎳᎩ", "Ꭶꭶ", "ⴰⵎⴰⵣⵉⵖ", "한글english한글", "latинскийmix", "ǅǈ", "ʰʷ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢")
    add("emoji", "😀", "😀😀😀", " 😀 😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽👍🏿", "🇩🇪🇫🇷", "❤️ ❤", "1️⃣2️⃣", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "text😀text", "🫨🪿🫎", "\U0001fae8", "☺️☺︎", "⌛", "🤷🏼‍♀️")
    add("unicode-15-16", "\U00011f02", "\U0001e4d0", "\U00010ec2", "\U0001df25", "\U00031350", "\U00010d4a", "\U000105c0", "\ua7cb\ua7da", "\U00016d40", "\u1c89")
    add("controls", "a\x00b", "\x00", "\x01\x02\x03", "\x04=\x06", "=\x04=", "a\x13\x14b", "\x1b[31mred\x1b[0m", "\x7f", "\u0080\u0081", "\u200d", "\u200e\u202e\u2066", "\ufffe\uffff", "\ufdd0", "\U0010ffff", "\U0001fffe")
    add("replacement", "\ufffd", "a\ufffdb", "\ufffd\ufffd\ufffd", "ok\ufffd\ufffd ok", b"\xc3\x28\xa0\xa1".decode("utf-8", "replace"), b"\xf0\x9f\x98 cut".decode("utf-8", "replace"))
    add("private", "\ue000", "\uf8ff", "\U000f0000", "\U00100000", "\U000e0100x\ufe0f", "\U00050000", "\U00040000", "\U000c0000")
    add("punct", "...", "....", "…", "!!!???", "---", "===", "=====", "```python\n", "<>[]{}()", " ...", " !", "!\n", "!\r\n\n", " !!\n\n\nx", "¿Qué?", "«Да»", "„so“", "a—b–c", "http://user:pw@ex.org:80/p?q=1&r=%20#f", "a@b.co", "C:\\dir\\new\\table", "$x^2_{i}$", "§±×÷", "x\u2019s", "`'\"", "({[<", ">]})", "\"\"\"", "-1", "--x", "+-*/", "&&||", "#!/bin/sh\n")
    add("long", "a" * 1000, "ab" * 700, " " * 1000, "\n" * 600, "=" * 777, "0" * 333, "あ" * 300, "é" * 257, "e\u0301" * 257, "😀" * 100, "word " * 300, "x" * 511 + " " * 511 + "y", "\t" * 300, "\u0301" * 130, "<" * 200)
    add("special-like", "<|im_end|", "|im_end|>", "<|im_end|>", "a<|im_end|>b", "<|im_start|>user\nhi<|im_end|>\n", "<|im_end|><|im_end|>", " <|im_end|> ", "<|IM_END|>", "< |im_end|>", "<<|im_end|>>", "<|im_end|>\n\n", "x <|endoftext|> y",
        "<think>\n\n</think>\n\n", "<think", "</think>x", "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>", "<tool_response>\nok\n</tool_response>", "<tool_call><tool_call>", "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n", "<|begin_of_text|>", "[INST]", "<s></s><unk><pad>", "<｜tool▁calls▁begin｜>",
        "<|fim_prefix|>x<|fim_suffix|>y<|fim_middle|>", "<|repo_name|>a<|file_sep|>b", "<repo_name><file_sep><empty_output>", "<|reserved_special_token_0|>", "<|python_tag|>", "<|vision_pad|><|image_pad|>", "cafe\u0301<|im_end|>cafe\u0301", "<\u200b|im_end|>", "e\u0301<think>\u0301")
    for t in added:
        add("added-token", t, f" {t} ", f"a{t}b", f"{t}{t}", f"\n{t}\n")
    return out
