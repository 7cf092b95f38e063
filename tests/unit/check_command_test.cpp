// SPDX-License-Identifier: Apache-2.0
#include "rollcall/check_command.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "model/safetensors.h"
#include "temp_folder.h"

namespace rollcall {
namespace {

using nlohmann::json;

struct Answer {
  int exit_code;
  json body;
};

Answer check(const std::filesystem::path& path) {
  std::ostringstream out;
  const int exit_code = run_model_check(path, out);
  EXPECT_EQ(out.str().find('\n'), out.str().size() - 1);  // one line
  return {exit_code, json::parse(out.str())};
}

TEST(ModelCheck, ListsTensorsWithChecksums) {
  const TempFolder dir;
  const std::string bytes = "123456789";
  write_safetensors(dir / "a.safetensors", {{"t", "U8", {9}, std::as_bytes(std::span(bytes))}}, {});
  const auto [exit_code, body] = check(dir / "a.safetensors");
  EXPECT_EQ(exit_code, 0);
  // cbf43926 is the check value of CRC-32.
  EXPECT_EQ(body, json::parse(R"({"ok":true,"metadata":null,"tensors":[
      {"name":"t","dtype":"U8","shape":[9],"crc32":"cbf43926"}]})"));
}

TEST(ModelCheck, ReadsFoldersWithAnIndex) {
  const auto [exit_code, body] = check(ROLLCALL_GOLDEN_DIR "/safetensors/index/ok");
  EXPECT_EQ(exit_code, 0);
  EXPECT_EQ(body.at("tensors").size(), 2u);
  EXPECT_EQ(body.at("metadata").at("format"), "pt");
}

TEST(ModelCheck, RefusesWithKindAndMessage) {
  for (const auto& [path, kind] :
       std::map<std::string, std::string>{{"invalid/overlap.safetensors", "offsets"},
                                          {"invalid/bad-utf8.safetensors", "header_json"},
                                          {"index/parent-path", "bad_shard_name"},
                                          {"not there", "unreadable"},
                                          {"invalid", "missing_file"}}) {
    const auto [exit_code, body] = check(ROLLCALL_GOLDEN_DIR "/safetensors/" + path);
    EXPECT_EQ(exit_code, 2) << path;
    EXPECT_EQ(body.at("ok"), false);
    EXPECT_EQ(body.at("error").at("kind"), kind) << path;
    EXPECT_FALSE(body.at("error").at("message").get<std::string>().empty());
  }
}

}  // namespace
}  // namespace rollcall
