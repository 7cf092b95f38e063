// SPDX-License-Identifier: Apache-2.0
#include "trainer/export_files.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/log.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

// A key of a JSON object and where its value stands in the text.
struct Member {
  std::string key;
  std::size_t value_begin;
  std::size_t value_end;
};

constexpr std::string_view kSpace = " \t\r\n";

// The functions below walk a text that a JSON parser has accepted.
std::size_t end_of_string(std::string_view text, std::size_t quote) {
  auto at = quote + 1;
  while (text[at] != '"') at += text[at] == '\\' ? 2 : 1;
  return at + 1;
}

std::size_t end_of_value(std::string_view text, std::size_t begin) {
  if (text[begin] == '"') return end_of_string(text, begin);
  int depth = 0;
  for (auto at = begin; at < text.size();) {
    const char c = text[at];
    const bool closes = c == '}' || c == ']';
    if (depth == 0 && (closes || c == ',' || kSpace.find(c) != kSpace.npos)) return at;
    depth += (c == '{' || c == '[') ? 1 : closes ? -1 : 0;
    at = c == '"' ? end_of_string(text, at) : at + 1;
    if (depth == 0 && closes) return at;
  }
  return text.size();
}

std::vector<Member> members_of(std::string_view text) {
  std::vector<Member> members;
  auto at = text.find('{') + 1;
  for (;;) {
    at = text.find_first_not_of(kSpace, at);
    if (text[at] == '}') return members;
    if (text[at] == ',') at = text.find('"', at);
    const auto key_end = end_of_string(text, at);
    const auto value = text.find_first_not_of(kSpace, text.find(':', key_end) + 1);
    const auto value_end = end_of_value(text, value);
    members.push_back({nlohmann::json::parse(text.substr(at, key_end - at)), value, value_end});
    at = value_end;
  }
}

std::string with_new_member(const std::string& config, const std::vector<Member>& members,
                            const std::string& member) {
  const auto inside = config.find('{') + 1;
  if (members.empty()) return std::string(config).insert(inside, member);
  const auto indent = config.substr(inside, config.find('"', inside) - inside);
  return std::string(config).insert(members.back().value_end, "," + indent + member);
}

void copy_folder(const fs::path& source, const fs::path& target, bool top);

void copy_item(const fs::directory_entry& item, const fs::path& target, bool top) {
  const auto name = item.path().filename().string();
  if (item.is_directory()) {
    if (name.starts_with('.')) return;
    if (item.is_symlink())  // it may lead back here
      return log_warning("not exported, because it is a link to a folder: " + item.path().string());
    copy_folder(item.path(), target / name, false);
  } else if (!item.is_regular_file()) {
    log_warning("not exported, because it is no regular file: " + item.path().string());
  } else if (!is_weight_file(name) && !(top && name == "config.json")) {
    fs::create_directories(target);
    copy_durably(item.path(), target / name);
  }
}

void copy_folder(const fs::path& source, const fs::path& target, bool top) {
  for (const auto& item : fs::directory_iterator(source)) copy_item(item, target, top);
}

}  // namespace

bool is_weight_file(const std::string& name) {
  constexpr auto kSuffixes =
      std::to_array<std::string_view>({".safetensors", ".safetensors.index.json", ".bin.index.json",
                                       ".pth", ".gguf", ".msgpack", ".onnx"});
  constexpr auto kBinaries = std::to_array<std::string_view>({"pytorch_model", "adapter_model"});
  const auto is_binary = [&](auto stem) {
    return name.starts_with(stem) && name.ends_with(".bin");
  };
  return name == "tf_model.h5" || std::ranges::any_of(kBinaries, is_binary) ||
         std::ranges::any_of(kSuffixes, [&](auto suffix) { return name.ends_with(suffix); });
}

std::string with_dtype(const std::string& config, const std::string& dtype) {
  const auto document = nlohmann::json::parse(config, nullptr, false);
  if (!document.is_object()) throw input_error("config.json is no JSON object");
  const auto value = '"' + dtype + '"';
  auto members = members_of(config);
  auto edited = config;
  bool found = false;
  for (auto member = members.rbegin(); member != members.rend(); ++member) {
    if (member->key != "torch_dtype" && member->key != "dtype") continue;
    edited.replace(member->value_begin, member->value_end - member->value_begin, value);
    found = true;
  }
  return found ? edited : with_new_member(config, members, "\"torch_dtype\": " + value);
}

void copy_other_files(const fs::path& source, const fs::path& target) {
  copy_folder(source, target, true);
}

}  // namespace rollcall
