# SPDX-License-Identifier: Apache-2.0
"""Random text of many kinds for tokenizer tests. Deterministic for a given random.Random."""
import random
import unicodedata

WORDS = (
    "the of model tool call reward token don't it's we'll I'm they've HTTP JSON über naïve Größe señor façade "
    "привет мир κόσμος שלום مرحبا नमस्ते こんにちは 世界 模型 東京 한국어 ไทย tiếng Việt İstanbul ĳ ﬁ Ǆ ß ẞ "
    "snake_case camelCase PascalCase SCREAMING x1 v2.0 3.14 1e-5 0xFF 42nd 10,000 a+b=c foo->bar ::std ../etc #include"
).split()
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", "\u00a0", "\u2009", "\u3000", "\u200b", "\u2028",
          "\u2029", "\u0085", "\u180e", "\ufeff", "\x0b", "\x0c", "\x1c", "\x1f", "\u1680", "\u202f", "\u205f"]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "🇺🇦🇯🇵", "❤️", "☺", "🧑🏿‍🚀", "1️⃣", "🫨", "🪿", "🐦‍🔥", "⌚︎", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
MARKS = [chr(c) for c in list(range(0x300, 0x370)) + list(range(0x591, 0x5BE)) + list(range(0x64B, 0x660))
         + [0x93C, 0x94D, 0x9BC, 0xE31, 0xE34, 0xE38, 0xF71, 0xF72, 0x1DC0, 0x20D0, 0x302A, 0x3099, 0x309A, 0xFE20]]
NEW_MARKS = [chr(c) for c in (0x08D3, 0x0C3C, 0x0EBA, 0x1ABF, 0x1DFA, 0x11070, 0x10EFD, 0x1E4EC, 0x1E5EE, 0x10D69)]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'LL", "'D", "\u2019s", "'\u017f", "'x"]
PUNCT = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "--", "=>", "//", "/*", "*/", "```", "…", "«", "»", "、", "。", "¿"]
HANGUL = [chr(c) for c in list(range(0x1100, 0x1113)) + list(range(0x1161, 0x1176)) + list(range(0x11A8, 0x11C3))]
COMPAT = ["e\u0301", "é", "A\u030a", "Å", "Å", "Ω", "Ω", "ﬁ", "①", "ｱ", "か\u3099", "が", "각", "각", "q\u0307\u0323",
          "q\u0323\u0307", "ḍ\u0307", "ḋ\u0323", "क\u093c", "क़", "שּׁ", "Ǆ", "½", "²", "豈", "\U0002F800"]
BLOCKS = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0xE00, 0xF00), (0x1000, 0x1200),
          (0x13A0, 0x1400), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x2400), (0x2400, 0x2800), (0x3000, 0x3100),
          (0x3400, 0xA000), (0xA000, 0xA800), (0xAC00, 0xD7A4), (0xF900, 0x10000), (0x10000, 0x10800),
          (0x1D400, 0x1D800), (0x1F000, 0x1FB00), (0x20000, 0x20400), (0xE0000, 0xE0200), (0x30000, 0x31350)]


def char(rng: random.Random) -> str:
    """A random assigned-or-not scalar value; surrogates excluded."""
    if rng.random() < 0.75:
        lo, hi = rng.choice(BLOCKS)
        c = rng.randrange(lo, hi)
    else:
        c = rng.randrange(0x110000)
    return chr(c) if not 0xD800 <= c < 0xE000 else "\ufffd"


def piece(rng: random.Random, added: list) -> str:
    k = rng.randrange(17)
    if k == 0:
        return char(rng)
    if k == 1:
        return rng.choice(SPACES) * rng.randint(1, 4)
    if k == 2:
        return rng.choice(EMOJI)
    if k == 3:
        return rng.choice("aAoeunkßıİ한かक") + "".join(rng.choices(MARKS, k=rng.randint(1, 3)))
    if k == 4:
        return rng.choice(WORDS) + rng.choice(CONTRACTIONS)
    if k == 5:
        return "".join(rng.choices("0123456789", k=rng.randint(1, 9)))
    if k == 6:
        return "".join(rng.choices(PUNCT, k=rng.randint(1, 4)))
    if k == 7:
        return "".join(rng.choices(HANGUL, k=rng.randint(1, 5)))
    if k == 8:
        return rng.choice(COMPAT)
    if k == 9:
        return rng.choice(added)
    if k == 10:
        t = rng.choice(added)
        i = rng.randrange(1, len(t))
        return t[:i] + rng.choice(["", " ", "\n", "|"]) + t[i:]
    if k == 11:
        return bytes(rng.randrange(256) for _ in range(rng.randint(1, 6))).decode("utf-8", "replace")
    if k == 12:
        return rng.choice(["a", " ", "\n", "=", "0", "あ", "\t", "-"]) * rng.randint(2, 24)
    if k == 13:
        return rng.choice(WORDS).upper() if rng.random() < 0.5 else rng.choice(WORDS).title()
    return rng.choice(WORDS)


def one(rng: random.Random, added: list) -> str:
    mode = rng.randrange(6)
    n = rng.randint(1, 7)
    if mode == 0:  # raw characters
        return "".join(char(rng) for _ in range(rng.randint(1, 12)))
    if mode == 1:  # words and white space
        return "".join(rng.choice(WORDS) + rng.choice(SPACES) for _ in range(n))
    if mode == 2:  # normalisation: base + marks, in random order, sometimes with marks newer than Unicode 9
        out = []
        for _ in range(n):
            m = rng.choices(MARKS, k=rng.randint(1, 4))
            if rng.random() < 0.08:
                m.append(rng.choice(NEW_MARKS))
            rng.shuffle(m)
            out.append(rng.choice("aeiouAEIOUyszSZ") + "".join(m))
        s = "".join(out)
        return unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKC", "NFKD"]), s) if rng.random() < 0.3 else s
    if mode == 3:  # contractions against every kind of neighbour
        return "".join(rng.choice(["", " ", "a", "Z", "é", "1", "世", "'", "\n"]) + rng.choice(CONTRACTIONS) for _ in range(n))
    return "".join(piece(rng, added) for _ in range(n))


def strings(rng: random.Random, count: int, added: list):
    seen, out = set(), []
    while len(out) < count:
        s = one(rng, added)
        if s and s not in seen:
            seen.add(s)
            out.append(s)
    return out
