// SPDX-License-Identifier: Apache-2.0
#include "model/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "comms/error.h"
#include "model/pre_tokenizer.h"
#include "model/tokenizer_json.h"
#include "model/unicode.h"
#include "tests/unit/temp_folder.h"
#include "tests/unit/text_golden.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

class GoldenTokenizer : public testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path file(const char* name) const {
    return golden_path("tokenizers") / GetParam() / name;
  }
  Tokenizer tokenizer_{file("tokenizer.json")};
};

std::map<std::string, std::string> shared_texts() {
  std::map<std::string, std::string> texts;
  for (const auto& row : read_jsonl(golden_path("tokenizers/texts.jsonl"))) {
    texts[row["id"]] = row["text"];
  }
  return texts;
}

TEST_P(GoldenTokenizer, EncodesAsTheReference) {
  const auto texts = shared_texts();
  for (const auto& row : read_jsonl(file("encode.jsonl"))) {
    const std::string text = row.contains("text") ? row["text"].get<std::string>()
                                                  : texts.at(row["id"].get<std::string>());
    const Ids ids = row["ids"];
    ASSERT_EQ(tokenizer_.encode(text, true), ids) << row["id"];
    ASSERT_EQ(tokenizer_.encode(text, false), row.value("ids_plain", ids)) << row["id"];
    ASSERT_EQ(tokenizer_.decode(ids), row.value("decoded", text)) << row["id"];
  }
}

TEST_P(GoldenTokenizer, DecodesAsTheReference) {
  for (const auto& row : read_jsonl(file("decode.jsonl"))) {
    const Ids ids = row["ids"];
    const std::string text = row["text"];
    ASSERT_EQ(tokenizer_.decode(ids), text) << row["id"];
    std::string streamed;
    TextStream stream(tokenizer_);
    for (const std::int32_t id : ids) streamed += stream.add(Ids{id});
    ASSERT_EQ(streamed + stream.finish(), text) << row["id"];
    ASSERT_EQ(tokenizer_.decode(ids, true), row.value("text_skip_special", text)) << row["id"];
  }
}

TEST_P(GoldenTokenizer, EncodesVeryLongRuns) {
  for (const auto& row : read_jsonl(file("long.jsonl"))) {
    std::string text = row["prefix"];
    for (int i = 0; i < row["count"].get<int>(); ++i) text += row["unit"].get<std::string>();
    Ids expected;
    for (const auto& [id, count] : row["runs"].get<std::vector<std::pair<int, int>>>()) {
      expected.insert(expected.end(), static_cast<std::size_t>(count), id);
    }
    EXPECT_TRUE(tokenizer_.encode(text + row["suffix"].get<std::string>(), true) == expected)
        << row["id"];
  }
}

TEST_P(GoldenTokenizer, GivesEveryTokenBackAlone) {
  for (std::int32_t id = 0; id < tokenizer_.size(); ++id) {
    const std::string text = tokenizer_.decode(Ids{id});
    if (text.find("\uFFFD") != std::string::npos) continue;  // a part of a character
    EXPECT_EQ(tokenizer_.decode(tokenizer_.encode(text, true)), text);
  }
  EXPECT_EQ(tokenizer_.decode(Ids{-1, tokenizer_.size(), 1 << 30}), "");
}

INSTANTIATE_TEST_SUITE_P(Tiny, GoldenTokenizer,
                         testing::Values("tiny-llama3", "tiny-qwen2_5", "tiny-qwen3",
                                         "tiny-smollm2", "tiny-tekken"));

// A tokenizer.json with the alphabet, the merges h+e and he+y, and GPT-2's words.
ordered_json small_tokenizer() {
  const auto tiny =
      ordered_json::parse(read_text(golden_path("tokenizers/tiny-qwen3/tokenizer.json")));
  ordered_json vocabulary;
  for (const auto& [token, id] : tiny["model"]["vocab"].items()) {
    if (id < 256) vocabulary[token] = id;
  }
  vocabulary["he"] = 256;
  vocabulary["hey"] = 257;
  return {{"added_tokens", ordered_json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", {"h e", "he y"}}}}};
}

ordered_json added(int id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

class SmallTokenizer : public testing::Test {
 protected:
  Tokenizer load(const ordered_json& definition) {
    write_text(folder_ / "tokenizer.json", definition.dump());
    return Tokenizer(folder_ / "tokenizer.json");
  }

  std::string error_of(const ordered_json& definition) {
    try {
      load(definition);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }

  TempFolder folder_;
};

TEST_F(SmallTokenizer, MergesInOrderOfRank) {
  const Tokenizer tokenizer = load(small_tokenizer());
  EXPECT_EQ(tokenizer.encode("hey", true), Ids{257});
  EXPECT_EQ(tokenizer.encode("hehey", true), (Ids{256, 257}));
  EXPECT_EQ(tokenizer.token_id("hey"), 257);
  EXPECT_EQ(tokenizer.token_id("absent"), std::nullopt);
  EXPECT_EQ(tokenizer.size(), 258);
}

TEST_F(SmallTokenizer, ReadsMergesAsPairsToo) {
  auto definition = small_tokenizer();
  definition["model"]["merges"] = ordered_json::parse(R"([["h", "e"], ["he", "y"]])");
  EXPECT_EQ(load(definition).encode("hey", true), Ids{257});
}

TEST_F(SmallTokenizer, PrefersTheLongestAddedToken) {
  auto definition = small_tokenizer();
  definition["added_tokens"] = {added(258, "<x"), added(259, "<x>y")};
  const Tokenizer tokenizer = load(definition);
  EXPECT_EQ(tokenizer.encode("<x>y<x>", true), (Ids{259, 258, *tokenizer.token_id(">")}));
}

TEST_F(SmallTokenizer, StripsSpacesAroundAddedTokensThatAskForIt) {
  auto definition = small_tokenizer();
  definition["added_tokens"] = {added(258, "<l>"), added(259, "<r>")};
  definition["added_tokens"][0]["lstrip"] = true;
  definition["added_tokens"][1]["rstrip"] = true;
  const Tokenizer tokenizer = load(definition);
  EXPECT_EQ(tokenizer.encode("hey \u00A0 <l><r> \nhey", true), (Ids{257, 258, 259, 257}));
}

TEST_F(SmallTokenizer, MatchesSingleWordsOnlyAlone) {
  auto definition = small_tokenizer();
  definition["added_tokens"] = {added(258, "<x>")};
  definition["added_tokens"][0]["single_word"] = true;
  const Tokenizer tokenizer = load(definition);
  EXPECT_EQ(tokenizer.encode("<x>", true), Ids{258});
  EXPECT_EQ(tokenizer.encode("<x>.", true).front(), 258);
  for (const char* text : {"a<x>", "<x>_", "<x>\u0301", "\u200D<x>"}) {
    EXPECT_EQ(tokenizer.encode(text, true), tokenizer.encode(text, false)) << text;
  }
}

TEST_F(SmallTokenizer, LooksForNormalizedTokensInNormalizedText) {
  auto definition = small_tokenizer();
  definition["normalizer"] = {{"type", "NFC"}};
  definition["added_tokens"] = {added(258, "e\u0301"), added(259, "o\u0301")};
  definition["added_tokens"][0]["normalized"] = true;
  const Tokenizer tokenizer = load(definition);
  EXPECT_EQ(tokenizer.encode("\u00E9", true), Ids{258});
  EXPECT_EQ(tokenizer.encode("e\u0301o\u0301", true), (Ids{258, 259}));
}

TEST_F(SmallTokenizer, TakesControlTokensFromTrustedPiecesOnly) {
  auto definition = small_tokenizer();
  definition["added_tokens"] = {added(258, "<x>")};
  const Tokenizer tokenizer = load(definition);
  const Ids plain = tokenizer.encode("<x>he", false);
  Ids expected{258};
  expected.insert(expected.end(), plain.begin(), plain.end() - 1);
  expected.push_back(257);  // "he" + "y" is one run
  const std::vector<TextPiece> pieces{{"<", true}, {"x>", true}, {"<x>he", false}, {"y", true}};
  EXPECT_EQ(tokenizer.encode(pieces), expected);
}

// A word that is spelled as a control token is text, whatever lets whole words be tokens.
TEST_F(SmallTokenizer, FindsWholeWordsInTheVocabularyOnly) {
  auto definition = small_tokenizer();
  definition["model"]["ignore_merges"] = true;
  definition["model"]["vocab"]["END"] = 258;
  definition["added_tokens"] = {added(259, "ENDTURN"), added(260, "STOP")};
  const Tokenizer tokenizer = load(definition);
  EXPECT_EQ(tokenizer.encode("END", false), Ids{258});
  EXPECT_EQ(tokenizer.encode("ENDTURN", true), Ids{259});
  EXPECT_EQ(tokenizer.encode("ENDTURN", false).size(), 7U);
  EXPECT_EQ(tokenizer.token_id("ENDTURN"), 259);
}

TEST_F(SmallTokenizer, RefusesUnknownPartsByName) {
  const auto with = [&](const char* pointer, ordered_json value) {
    auto definition = small_tokenizer();
    definition[ordered_json::json_pointer(pointer)] = std::move(value);
    return error_of(definition);
  };
  EXPECT_THAT(with("/normalizer", {{"type", "Lowercase"}}), HasSubstr("Lowercase"));
  EXPECT_THAT(with("/pre_tokenizer/type", "Metaspace"), HasSubstr("Metaspace"));
  EXPECT_THAT(with("/pre_tokenizer/add_prefix_space", true), HasSubstr("add_prefix_space"));
  EXPECT_THAT(with("/decoder/type", "WordPiece"), HasSubstr("WordPiece"));
  EXPECT_THAT(with("/model/type", "Unigram"), HasSubstr("Unigram"));
  EXPECT_THAT(with("/model/dropout", 0.1), HasSubstr("dropout"));
  EXPECT_THAT(with("/model/byte_fallback", true), HasSubstr("byte_fallback"));
  const ordered_json split{{"type", "Split"}, {"pattern", {{"Regex", "\\w+"}}}};
  const ordered_json byte_level{{"type", "ByteLevel"}};
  EXPECT_THAT(
      with("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}}),
      HasSubstr("\\w+"));
}

TEST_F(SmallTokenizer, RefusesInconsistentFiles) {
  auto definition = small_tokenizer();
  definition["added_tokens"] = {added(300, "<x>")};
  EXPECT_THAT(error_of(definition), HasSubstr("must be 258"));
  definition["added_tokens"] = {added(259, "<y>"), added(258, "<x>")};  // ids follow the order
  EXPECT_THAT(error_of(definition), HasSubstr("must be 258"));
  definition = small_tokenizer();
  definition["model"]["merges"].push_back("he he");
  EXPECT_THAT(error_of(definition), HasSubstr("'hehe'"));
  definition = small_tokenizer();
  definition["model"]["vocab"]["he"] = 5;
  EXPECT_THAT(error_of(definition), HasSubstr("another token has too"));
  EXPECT_THROW(Tokenizer(folder_ / "absent.json"), Error);
}

TEST_F(SmallTokenizer, StreamsACharacterWhenItsLastByteHasCome) {
  const Tokenizer tokenizer = load(small_tokenizer());
  TextStream stream(tokenizer);
  std::vector<std::string> parts;
  for (const std::int32_t id : tokenizer.encode("a\u00e9\U0001F642", false))
    parts.push_back(stream.add(Ids{id}));
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "", "\u00e9", "", "", "", "\U0001F642"}));
  EXPECT_EQ(stream.finish(), "");
  stream.add(Ids{tokenizer.encode("\u00e9", false)[0]});
  EXPECT_EQ(stream.finish(), "\uFFFD");
}

TEST_F(SmallTokenizer, HoldsItsConfigAgainstItsTokens) {
  auto definition = small_tokenizer();
  definition["added_tokens"] = {added(258, "<x>")};
  const auto config = folder_ / "tokenizer_config.json";
  write_text(config, R"({"added_tokens_decoder": {"258": {"content": "<x>"}}})");
  EXPECT_EQ(error_of(definition), "no error");
  write_text(config, R"({"added_tokens_decoder": {"259": {"content": "<pad>"}}})");
  testing::internal::CaptureStderr();
  EXPECT_EQ(error_of(definition), "no error");
  EXPECT_THAT(
      testing::internal::GetCapturedStderr(),
      HasSubstr("tokens that tokenizer.json does not know, and that are text here: '<pad>'"));
  write_text(config, R"({"added_tokens_decoder": {"7": {"content": "<x>"}}})");
  EXPECT_THAT(error_of(definition), HasSubstr("gives it id 258"));
  for (const char* odd : {"[]", "7", R"({"added_tokens_decoder": [7]})"}) {
    write_text(config, odd);
    EXPECT_EQ(error_of(definition), "no error");
  }
  write_text(config, "{");
  EXPECT_THAT(error_of(definition), HasSubstr("tokenizer_config.json"));
}

TEST_F(SmallTokenizer, RefusesTextThatIsNotUtf8) {
  const Tokenizer tokenizer = load(small_tokenizer());
  EXPECT_THROW(tokenizer.encode("a\xFF", true), Error);
  EXPECT_THROW(tokenizer.encode("a\xFF", false), Error);
  const std::vector<TextPiece> pieces{{"\xC3", false}};
  EXPECT_THROW(tokenizer.encode(pieces), Error);
}

TEST_F(SmallTokenizer, RefusesAFileCutShortAnywhere) {
  const std::string whole = small_tokenizer().dump();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    ASSERT_THROW(parse_tokenizer_json(whole.substr(0, size)), Error) << size;
  }
}

TEST_F(SmallTokenizer, SurvivesRandomDamage) {
  std::mt19937 random(7);
  const std::string whole = read_text(golden_path("tokenizers/tiny-smollm2/tokenizer.json"));
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = whole;
    for (int i = 0; i < 3; ++i) {
      damaged[random() % damaged.size()] =
          static_cast<char>(round % 2 ? random() : 32 + random() % 95);
    }
    try {
      parse_tokenizer_json(damaged);  // most damage ends here, without a file
      write_text(folder_ / "damaged.json", damaged);
      const Tokenizer tokenizer(folder_ / "damaged.json");
      tokenizer.decode(tokenizer.encode("The <|im_end|> 12\n\u00E9", true));
    } catch (const Error&) {
    }
  }
}

// Puts a value of another type in the place of each member of the file.
TEST_F(SmallTokenizer, SurvivesMembersOfTheWrongType) {
  auto definition = small_tokenizer();
  definition["added_tokens"] = {added(258, "<x>")};
  const auto flat = definition.flatten();
  const std::vector<ordered_json> values{nullptr, true,  -1,  1e300,
                                         "",      "NFC", {1}, {{"type", "BPE"}}};
  for (const auto& [path, old] : flat.items()) {
    if (path.starts_with("/model/vocab/")) continue;
    for (auto pointer = ordered_json::json_pointer(path); !pointer.empty(); pointer.pop_back()) {
      for (const auto& value : values) {
        auto damaged = definition;
        damaged[pointer] = value;
        try {
          parse_tokenizer_json(damaged.dump());
        } catch (const Error&) {
        }
      }
    }
  }
}

TEST_F(SmallTokenizer, RoundTripsRandomText) {
  std::mt19937 random(11);
  const Tokenizer tokenizer(golden_path("tokenizers/tiny-qwen3/tokenizer.json"));
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    const auto length = random() % 24;
    for (unsigned i = 0; i < length; ++i) {
      const char32_t limit = random() % 2 ? 0x80 : random() % 2 ? 0x3000 : 0x30000;
      const char32_t c = random() % limit;
      if (c < 0xD800 || c > 0xDFFF) append_utf8(bytes, c);
    }
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(bytes, false)), nfc(bytes));
  }
}

TEST(PreTokenizer, CutsTekkenWordsAsTheReference) {
  for (const auto& row : read_jsonl(golden_path("tokenizers/tiny-tekken/words.jsonl"))) {
    const auto expected = row.get<std::vector<std::string>>();
    std::string text;
    for (const auto& word : expected) text += word;
    const auto words = words_of(PreTokenizer::kTekken, text);
    ASSERT_EQ(std::vector<std::string>(words.begin(), words.end()), expected) << row;
  }
}

TEST(PreTokenizer, CutsAsItsExpressionSays) {
  using Words = std::vector<std::string_view>;
  EXPECT_EQ(words_of(PreTokenizer::kQwen, "I'LL pay 12 euros!\n\n  x"),
            (Words{"I", "'LL", " pay", " ", "1", "2", " euros", "!\n\n", " ", " x"}));
  EXPECT_EQ(words_of(PreTokenizer::kQwen, "a'\u017Fx"), (Words{"a", "'\u017F", "x"}));
  EXPECT_EQ(words_of(PreTokenizer::kLlama3, "12345 a"), (Words{"123", "45", " a"}));
  EXPECT_EQ(words_of(PreTokenizer::kGpt2, "I'LL've 12\n  x "),
            (Words{"I", "'", "LL", "'ve", " 12", "\n ", " x", " "}));
  EXPECT_EQ(words_of(PreTokenizer::kDigitsGpt2, "a  12 b"), (Words{"a", "  ", "1", "2", " b"}));
}

}  // namespace
}  // namespace rollcall
