// SPDX-License-Identifier: Apache-2.0
#include "trainer/manifest.h"

#include <xxhash.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "comms/durable_file.h"
#include "comms/error.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct HashDeleter {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

std::string hex(std::uint64_t value) {
  std::string digits;
  for (int shift = 60; shift >= 0; shift -= 4) digits += "0123456789abcdef"[(value >> shift) & 0xf];
  return digits;
}

std::string file_hash(const fs::path& path) {
  const std::unique_ptr<XXH3_state_t, HashDeleter> state(XXH3_createState());
  XXH3_64bits_reset(state.get());
  std::ifstream file(path, std::ios::binary);
  std::vector<char> buffer(1 << 20);
  do {
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    XXH3_64bits_update(state.get(), buffer.data(), static_cast<std::size_t>(file.gcount()));
  } while (file);
  if (!file.eof()) throw Error("cannot read " + path.string());
  return hex(XXH3_64bits_digest(state.get()));
}

std::optional<std::string> file_problem(const fs::path& path, const json& expected,
                                        ManifestCheck check) {
  const auto name = path.filename().string();
  if (!fs::is_regular_file(path)) return name + " is missing";
  const auto size = fs::file_size(path);
  if (size != expected.at("size").get<std::uint64_t>()) {
    return name + " has " + std::to_string(size) + " bytes instead of " +
           expected.at("size").dump();
  }
  if (check == ManifestCheck::kContents &&
      file_hash(path) != expected.at("xxh3").get<std::string>()) {
    return name + " is damaged: its hash differs from the manifest's";
  }
  return std::nullopt;
}

std::optional<std::string> folder_problem(const fs::path& folder, ManifestCheck check) {
  const auto manifest = json::parse(read_file(folder / kManifestName));
  for (const auto& [name, expected] : manifest.at("files").items()) {
    if (name.find('/') != std::string::npos) return kManifestName + std::string(" names ") + name;
    if (auto problem = file_problem(folder / name, expected, check)) return problem;
  }
  return std::nullopt;
}

}  // namespace

void write_manifest(const fs::path& folder) {
  json files = json::object();
  for (const auto& item : fs::directory_iterator(folder)) {
    files[item.path().filename().string()] = {{"size", item.file_size()},
                                              {"xxh3", file_hash(item.path())}};
  }
  // No newline at the end: then no cut leaves a valid manifest.
  write_durably(folder / kManifestName, json{{"files", files}}.dump(2));
}

std::optional<std::string> manifest_problem(const fs::path& folder, ManifestCheck check) try {
  if (!fs::is_regular_file(folder / kManifestName))
    return kManifestName + std::string(" is missing");
  return folder_problem(folder, check);
} catch (const json::exception& error) {
  return kManifestName + std::string(" cannot be read: ") + error.what();
} catch (const Error& error) {
  return error.what();
} catch (const fs::filesystem_error& error) {
  return error.what();
}

}  // namespace rollcall
