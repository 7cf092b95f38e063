// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "comms/error.h"
#include "configs/run_config.h"

// Run files for the tests of what reads them.
namespace rollcall {

inline const std::filesystem::path kRepository =
    std::filesystem::path(ROLLCALL_GOLDEN_DIR) / "../..";

inline std::string text_of(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

inline std::optional<std::string> variable(const std::string& name) {
  if (name == "TOOL_KEY") return "s3cret";
  if (name == "MODELS") return "/shelf";
  if (name == "BROKEN") return "a\r\nx: y";
  return std::nullopt;
}

using Overrides = std::vector<std::string>;

inline RunConfig parse(const std::string& text, const Overrides& overrides = {},
                       Purpose purpose = Purpose::kTrain) {
  return parse_run_config(text, "/place/run.yaml", overrides, variable, purpose);
}

// A valid file with `more` behind it.
inline std::string with(const std::string& more) {
  return "run: {name: r}\n"
         "model: {path: m}\n"
         "data: {train: t.jsonl}\n"
         "grader: {url: \"http://g/\"}\n" +
         more;  // line 5
}

// A valid file with `more` in its grader.
inline std::string graded(const std::string& more) {
  return "run: {name: r}\nmodel: {path: m}\ndata: {train: t.jsonl}\n"
         "grader: {url: 'http://g/', " +
         more + "}\n";
}

// The report on a bad file, the path of the file cut off; "" if it was accepted.
inline std::string report(const std::string& text, const Overrides& overrides = {},
                          Purpose purpose = Purpose::kTrain) {
  try {
    parse(text, overrides, purpose);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
    std::string what = error.what();
    for (std::size_t at; (at = what.find("/place/run.yaml")) != std::string::npos;) {
      what.erase(at, std::string("/place/run.yaml").size());
    }
    return what;
  }
}

}  // namespace rollcall
