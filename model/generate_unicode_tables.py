# SPDX-License-Identifier: Apache-2.0
"""Writes unicode_tables.cpp: python3 model/generate_unicode_tables.py tests/golden/tokenizers/unicode.json > model/unicode_tables.cpp

The JSON file holds what the reference tokenizer library believes: its regex classes (Unicode 16) and the non-starters of
its NFC (Unicode 9). Word characters are built from it and from two categories that have not grown since Unicode 13.
"""
import json
import sys
import unicodedata

CIRCLED_LETTERS = [(0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)]
JOIN_CONTROLS = [(0x200C, 0x200D)]


def points(ranges):
    return {c for a, b in ranges for c in range(a, b + 1)}


def ranges(members):
    out = []
    for c in sorted(members):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def of_category(*names):
    return {c for c in range(0x110000) if unicodedata.category(chr(c)) in names}


def table(name, members):
    rows = [f"{{0x{a:X}, 0x{b:X}}}" for a, b in ranges(members)]
    lines = [", ".join(rows[i:i + 5]) for i in range(0, len(rows), 5)]
    return f"constexpr CodePointRange {name}[] = {{\n    " + ",\n    ".join(lines) + ",\n};\n"


def main():
    source = json.load(open(sys.argv[1], encoding="utf-8"))
    classes = {name: points(r) for name, r in source["classes"].items()}
    # The regex class \w: Alphabetic, M, Nd, Pc, Join_Control.
    word = classes["L"] | classes["M"] | classes["d"] | of_category("Nl", "Pc") | points(CIRCLED_LETTERS + JOIN_CONTROLS)
    print("// SPDX-License-Identifier: Apache-2.0")
    print("// Made by generate_unicode_tables.py; do not edit.")
    print("// clang-format off")
    print('#include "model/unicode_tables.h"\n\nnamespace rollcall {\nnamespace {\n')
    tables = {"kLetter": classes["L"], "kUpperCase": classes["Lu"] | classes["Lt"], "kLowerCase": classes["Ll"], "kMark": classes["M"],
              "kNumber": classes["N"], "kDigitsNumber": classes["Digits"], "kWhiteSpace": classes["s"], "kWord": word,
              "kNfcNonStarter": points(source["nfc_nonstarters"])}
    print("\n".join(table(f"{name}Ranges", members) for name, members in tables.items()))
    print("}  // namespace\n")
    print("std::span<const CodePointRange> ranges_of(UnicodeClass name) {\n  switch (name) {")
    for name in tables:
        print(f"    case UnicodeClass::{name}: return {name}Ranges;")
    print("  }\n  return {};\n}\n\n}  // namespace rollcall")


main()
