// SPDX-License-Identifier: Apache-2.0
#include "model/safetensors.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "model/weight_files.h"
#include "temp_folder.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path kGolden = fs::path(ROLLCALL_GOLDEN_DIR) / "safetensors";

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string image(const std::string& header, const std::string& data) {
  std::string file(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(file.data(), &length, sizeof length);
  return file + header + data;
}

std::string plain_image() {
  return image(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}})",
      "12345678abcdef");
}

std::string kind_of_refusal(const std::string& file) {
  try {
    parse_safetensors(bytes_of(file), nullptr);
    return "accepted";
  } catch (const SafetensorsError& error) {
    return error.kind();
  }
}

std::string hex(std::span<const std::byte> bytes) {
  std::string digits;
  for (const auto byte : bytes) {
    const auto value = std::to_integer<unsigned>(byte);
    digits += "0123456789abcdef"[value >> 4];
    digits += "0123456789abcdef"[value & 15];
  }
  return digits;
}

std::vector<json> golden_cases() {
  std::vector<json> cases;
  std::ifstream lines(kGolden / "cases.jsonl");
  for (std::string line; std::getline(lines, line);) cases.push_back(json::parse(line));
  return cases;
}

void expect_contents(const SafetensorsFile& file, const json& expected) {
  const auto& metadata = file.metadata();
  EXPECT_EQ(metadata ? json(*metadata) : json(nullptr), expected.at("metadata"));
  std::map<std::string, json> tensors;
  for (const auto& entry : file.entries()) {
    tensors[entry.name] = {{"name", entry.name},
                           {"dtype", entry.dtype},
                           {"shape", entry.shape},
                           {"bytes_hex", hex(entry.data)}};
  }
  EXPECT_EQ(tensors.size(), expected.at("tensors").size());
  for (const auto& tensor : expected.at("tensors")) {
    EXPECT_EQ(tensors[tensor.at("name")], tensor);
  }
}

TEST(Safetensors, ReadsAndRefusesTheGoldenFiles) {
  int files = 0;
  for (const auto& row : golden_cases()) {
    if (!row.contains("file")) continue;
    SCOPED_TRACE(row.at("file"));
    ++files;
    const auto path = kGolden / row.at("file").get<std::string>();
    if (row.at("accept").get<bool>()) {
      expect_contents(SafetensorsFile(path), row);
    } else {
      EXPECT_THROW(SafetensorsFile{path}, SafetensorsError);
    }
  }
  EXPECT_EQ(files, 87);
}

TEST(Safetensors, ReadsAndRefusesTheGoldenIndexes) {
  int folders = 0;
  for (const auto& row : golden_cases()) {
    if (!row.contains("dir")) continue;
    SCOPED_TRACE(row.at("dir"));
    ++folders;
    const auto path = kGolden / row.at("dir").get<std::string>();
    try {
      const auto shards = open_weight_files(path);
      EXPECT_TRUE(row.at("accept").get<bool>());
      EXPECT_FALSE(shards.empty());
    } catch (const SafetensorsError& error) {
      EXPECT_EQ(error.kind(), row.value("error", "no error")) << error.what();
      EXPECT_THAT(error.what(), testing::HasSubstr(path.string()));
    }
  }
  EXPECT_EQ(folders, 12);
}

TEST(Safetensors, PrefersTheSingleFileToAnIndex) {
  const TempFolder dir;
  spit(dir / "model.safetensors", plain_image());
  spit(dir / "model.safetensors.index.json", "no json");
  EXPECT_EQ(open_weight_files(dir.path()).size(), 1u);
}

TEST(Safetensors, RefusesAShardTensorThatTheIndexDoesNotList) {
  const TempFolder dir;
  spit(dir / "x.safetensors", plain_image());
  spit(dir / "model.safetensors.index.json", R"({"weight_map":{"a":"x.safetensors"}})");
  EXPECT_THROW(open_weight_files(dir.path()), SafetensorsError);
}

TEST(Safetensors, RefusesAnIndexThatNamesATensorTwice) {
  const TempFolder dir;
  spit(dir / "x.safetensors", plain_image());
  spit(dir / "model.safetensors.index.json",
       R"({"weight_map":{"a":"x.safetensors","b":"x.safetensors","a":"x.safetensors"}})");
  EXPECT_THROW(open_weight_files(dir.path()), SafetensorsError);
}

TEST(Safetensors, RefusesAFileCutShortAtAnyByte) {
  const auto file = plain_image();
  ASSERT_EQ(kind_of_refusal(file), "accepted");
  for (std::size_t length = 0; length < file.size(); ++length) {
    EXPECT_NE(kind_of_refusal(file.substr(0, length)), "accepted") << length;
  }
  EXPECT_EQ(kind_of_refusal(file + "x"), "data_size");
}

// Without its shape the entry would read as a scalar.
TEST(Safetensors, RefusesAnEntryThatLacksAMember) {
  EXPECT_EQ(kind_of_refusal(image(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", "x")),
            "header_json");
  EXPECT_EQ(kind_of_refusal(image(R"({"a":{"dtype":"U8","shape":[0]}})", "")), "header_json");
}

TEST(Safetensors, NamesFileAndRule) {
  const TempFolder dir;
  spit(dir / "cut.safetensors", plain_image().substr(0, 100));
  try {
    const SafetensorsFile file(dir / "cut.safetensors");
    FAIL();
  } catch (const SafetensorsError& error) {
    EXPECT_EQ(error.kind(), "header_length");
    EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
    EXPECT_THAT(error.what(), testing::HasSubstr("cut.safetensors: header length"));
  }
  EXPECT_THROW(SafetensorsFile(dir / "none.safetensors"), SafetensorsError);
  EXPECT_THROW(SafetensorsFile(dir.path()), SafetensorsError);
}

// Whatever a file says, reading it takes memory in proportion to what it is, and never crashes.
TEST(Safetensors, SurvivesMutatedFiles) {
  std::mt19937 random(20);
  const std::string seeds[] = {plain_image(), slurp(kGolden / "valid/metadata.safetensors"),
                               slurp(kGolden / "valid/mixed-dtypes.safetensors"),
                               slurp(kGolden / "valid/escaped-name.safetensors")};
  const std::string alphabet = "{}[]\",:0123456789-eE.\\u \t\n\xff\xc3";
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    auto file = seeds[random() % std::size(seeds)];
    for (auto edits = 1 + random() % 4; edits > 0; --edits) {
      const auto at = random() % file.size();
      switch (random() % 4) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file[at] = alphabet[random() % alphabet.size()];
          break;
        case 2:
          file.erase(at, 1 + random() % 3);
          break;
        default:
          file.insert(at, 1, alphabet[random() % alphabet.size()]);
      }
      if (file.empty()) file = "x";
    }
    accepted += kind_of_refusal(file) == "accepted" ? 1 : 0;
  }
  EXPECT_GT(accepted, 10);  // data bytes are free, so a few mutants stay valid
  EXPECT_LT(accepted, 10000);
}

TEST(Safetensors, DoesNotAllocateWhatAFileOnlyClaims) {
  struct rusage before {
  }, after{};
  ::getrusage(RUSAGE_SELF, &before);
  const auto claim = [](const std::string& shape, const std::string& end) {
    return image(
        R"({"a":{"dtype":"U8","shape":[)" + shape + R"(],"data_offsets":[0,)" + end + "]}}", "");
  };
  EXPECT_EQ(kind_of_refusal(claim("4611686018427387904", "4611686018427387904")), "overflow");
  EXPECT_EQ(kind_of_refusal(claim("1152921504606846976", "1152921504606846976")), "data_size");
  EXPECT_EQ(kind_of_refusal(std::string("\xff\xe0\xf5\x05\0\0\0\0", 8)), "header_length");
  ::getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 10'000);  // KiB
}

TEST(Safetensors, TakesEmptyAndScalarShapes) {
  EXPECT_EQ(safetensors_bytes("F32", {}), 4u);
  EXPECT_EQ(safetensors_bytes("F64", std::vector<std::uint64_t>{3, 0, 5}), 0u);
  EXPECT_EQ(safetensors_bytes("F4", std::vector<std::uint64_t>{3, 2}), 3u);
  EXPECT_THROW(safetensors_bytes("F4", std::vector<std::uint64_t>{3}), SafetensorsError);
}

std::vector<SafetensorsEntry> sample_entries() {
  static const std::string data = "abcdefghijklmnopqrstuvwxyz";
  const auto part = [](std::size_t at, std::size_t size) {
    return bytes_of(data).subspan(at, size);
  };
  return {{"z", "BF16", {2}, part(0, 4)},
          {"m", "F32", {2, 1}, part(4, 8)},
          {"a", "BF16", {0, 3}, {}},
          {"b", "F32", {}, part(12, 4)}};
}

TEST(Safetensors, RoundTripsWhatItWrites) {
  const TempFolder dir;
  write_safetensors(dir / "x", sample_entries(), {{"format", "pt"}, {"note", "ü\n"}});
  const SafetensorsFile file(dir / "x");
  EXPECT_EQ(file.metadata()->at("note"), "ü\n");
  std::vector<std::string> names;
  for (const auto& entry : file.entries()) names.push_back(entry.name);
  EXPECT_THAT(names, testing::ElementsAre("b", "m", "a", "z"));  // alignment, then name
  EXPECT_EQ(hex(file.entries()[1].data), hex(sample_entries()[1].data));
  EXPECT_EQ(file.entries()[1].shape, (std::vector<std::int64_t>{2, 1}));
}

TEST(Safetensors, WritesAHeaderPaddedToEightBytes) {
  const TempFolder dir;
  for (const std::string name : {"a", "ab", "abc", "abcd", "abcde"}) {
    write_safetensors(dir / "x", {{name, "U8", {0}, {}}}, {});
    EXPECT_EQ(slurp(dir / "x").size() % 8, 0u);
    EXPECT_FALSE(SafetensorsFile(dir / "x").metadata());
  }
}

TEST(Safetensors, RefusesToWriteWhatItWouldNotRead) {
  const TempFolder dir;
  const std::string bytes = "1234";
  const auto write = [&](std::vector<SafetensorsEntry> entries) {
    write_safetensors(dir / "x", std::move(entries), {});
  };
  EXPECT_THROW(write({{"a", "F32", {2}, bytes_of(bytes)}}), Error);
  EXPECT_THROW(write({{"a", "F32", {-1}, bytes_of(bytes)}}), Error);
  EXPECT_THROW(write({{"a", "F33", {1}, bytes_of(bytes)}}), Error);
  EXPECT_THROW(write({{"\xff", "F32", {1}, bytes_of(bytes)}}), Error);
  EXPECT_THROW(write({{"__metadata__", "F32", {1}, bytes_of(bytes)}}), Error);
  EXPECT_THROW(write({{"a", "F32", {1}, bytes_of(bytes)}, {"a", "F32", {1}, bytes_of(bytes)}}),
               Error);
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(Safetensors, KeepsItsEntriesWhenMoved) {
  SafetensorsFile first(kGolden / "valid/plain.safetensors");
  SafetensorsFile second(std::move(first));
  first = SafetensorsFile(kGolden / "valid/scalar.safetensors");
  second = std::move(first);
  EXPECT_EQ(second.entries().front().name, "s");
  EXPECT_EQ(second.entries().front().data.size(), 4u);
}

}  // namespace
}  // namespace rollcall
