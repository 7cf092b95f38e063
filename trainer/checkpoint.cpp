// SPDX-License-Identifier: Apache-2.0
#include "trainer/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/fault_injection.h"
#include "comms/json_depth.h"
#include "comms/log.h"
#include "model/safetensors.h"
#include "trainer/manifest.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kPartialPrefix = ".partial-step-";
constexpr const char* kStateFile = "state.json";
constexpr const char* kTensorFile = "state.safetensors";
constexpr const char* kPolicy = "";
constexpr const char* kCriticTrunk = "critic.trunk.";
constexpr const char* kCriticHead = "critic.head.";
constexpr int kFormat = 1;

std::string folder_name(std::int64_t step) {
  constexpr std::size_t kDigits = 6;
  const auto digits = std::to_string(step);
  return std::string(kPrefix) + std::string(kDigits - std::min(kDigits, digits.size()), '0') +
         digits;
}

std::optional<std::int64_t> step_of(const fs::path& folder) {
  const auto name = folder.filename().string();
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t step = 0;
  const auto* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (parsed.ec != std::errc{} || parsed.ptr != end || step < 0) return std::nullopt;
  return step;
}

struct Folder {
  std::int64_t step;
  fs::path path;
};

// Everything named like a checkpoint, complete or not, newest first.
std::vector<Folder> step_folders(const fs::path& dir) {
  std::vector<Folder> folders;
  if (!fs::is_directory(dir)) return folders;
  for (const auto& item : fs::directory_iterator(dir)) {
    const auto step = step_of(item.path());
    if (step && item.is_directory()) folders.push_back({*step, item.path()});
  }
  std::ranges::sort(folders, std::greater{}, &Folder::step);
  return folders;
}

void remove_partial_folders(const fs::path& dir) {
  std::vector<fs::path> found;
  for (const auto& item : fs::directory_iterator(dir)) {
    if (item.path().filename().string().starts_with(kPartialPrefix)) found.push_back(item.path());
  }
  for (const auto& path : found) fs::remove_all(path);
}

// Manifest first: a crash half-way leaves a folder that nobody takes for a checkpoint.
void remove_checkpoint(const fs::path& folder) {
  fs::remove(folder / kManifestName);
  sync_directory(folder);
  fs::remove_all(folder);
}

void prune(const fs::path& dir, const fs::path& just_written, int keep) {
  int kept = 0;
  for (const auto& [step, path] : step_folders(dir)) {
    const bool complete = !manifest_problem(path, ManifestCheck::kSizes);
    if (complete && kept < keep) {
      ++kept;
    } else if (path != just_written) {
      remove_checkpoint(path);
    }
  }
}

SafetensorsEntry entry_of(const std::string& name, const SharedFloats& values) {
  return {
      name, "F32", {static_cast<std::int64_t>(values.size())}, std::as_bytes(std::span(values))};
}

void add_entries(const std::string& prefix, const OptimizedWeights& weights,
                 std::vector<SafetensorsEntry>& entries) {
  entries.push_back(entry_of(prefix + "masters", weights.masters));
  entries.push_back(entry_of(prefix + "first_moment", weights.first_moment));
  entries.push_back(entry_of(prefix + "second_moment", weights.second_moment));
}

json to_json(const std::optional<LoraOptions>& lora) {
  if (!lora) return nullptr;
  return {{"rank", lora->rank},
          {"alpha", lora->alpha},
          {"targets", lora->targets},
          {"rslora", lora->rslora}};
}

std::optional<LoraOptions> lora_of(const json& document) {
  if (document.is_null()) return std::nullopt;
  return LoraOptions{document.at("rank"), document.at("alpha"), document.at("targets"),
                     document.at("rslora")};
}

json to_json(const std::optional<CriticState>& critic) {
  if (!critic) return nullptr;
  return {{"trunk_steps", critic->trunk.steps}, {"head_steps", critic->head.steps}};
}

std::optional<CriticState> critic_of(const json& document) {
  if (document.is_null()) return std::nullopt;
  CriticState critic;
  document.at("trunk_steps").get_to(critic.trunk.steps);
  document.at("head_steps").get_to(critic.head.steps);
  return critic;
}

std::string state_text(const TrainState& state) {
  return json{{"format", kFormat},
              {"step", state.step},
              {"version", state.version},
              {"journal_rows", state.journal_rows},
              {"optimizer_steps", state.policy.steps},
              {"sampler", state.sampler},
              {"spec", state.spec},
              {"lora", to_json(state.lora)},
              {"base_xxh3", state.base_xxh3},
              {"critic", to_json(state.critic)}}
             .dump(2) +
         "\n";
}

void write_state(const fs::path& folder, const TrainState& state) {
  std::vector<SafetensorsEntry> entries;
  add_entries(kPolicy, state.policy, entries);
  if (state.critic) {
    add_entries(kCriticTrunk, state.critic->trunk, entries);
    add_entries(kCriticHead, state.critic->head, entries);
  }
  write_safetensors(folder / kTensorFile, entries, {});
  write_durably(folder / kStateFile, state_text(state));
  fault_point("checkpoint");
  write_manifest(folder);
}

[[noreturn]] void refuse(const fs::path& file, const std::string& problem) {
  throw input_error(file.string() + ": " + problem,
                    "remove this folder to go on from the checkpoint before it");
}

TrainState read_scalars(const fs::path& file) try {
  const std::string text = read_file(file);
  if (nests_too_deep(text)) refuse(file, "nests too deep");
  const auto document = json::parse(text);
  if (document.at("format") != kFormat) {
    refuse(file, "format " + document.at("format").dump() + " is not the one this version reads");
  }
  TrainState state;
  document.at("step").get_to(state.step);
  document.at("version").get_to(state.version);
  document.at("journal_rows").get_to(state.journal_rows);
  document.at("optimizer_steps").get_to(state.policy.steps);
  document.at("sampler").get_to(state.sampler);
  document.at("spec").get_to(state.spec);
  state.lora = lora_of(document.value("lora", json()));
  state.base_xxh3 = document.value("base_xxh3", "");
  state.critic = critic_of(document.value("critic", json()));
  return state;
} catch (const json::exception& error) {
  refuse(file, error.what());
}

// What a checkpoint's file says of its floats, which keep it open.
class StoredFloats {
 public:
  explicit StoredFloats(fs::path path)
      : path_(std::move(path)), file_(std::make_shared<const SafetensorsFile>(path_)) {}

  void read(const std::string& prefix, OptimizedWeights& weights) const {
    weights.masters = floats(prefix + "masters");
    weights.first_moment = floats(prefix + "first_moment");
    weights.second_moment = floats(prefix + "second_moment");
  }

 private:
  SharedFloats floats(const std::string& name) const {
    const auto entry = std::ranges::find(file_->entries(), name, &SafetensorsEntry::name);
    if (entry == file_->entries().end() || entry->dtype != "F32" || entry->shape.size() != 1) {
      refuse(path_, "has no float32 vector '" + name + "'");
    }
    const std::span bytes = entry->data;
    const std::size_t count = bytes.size() / sizeof(float);
    if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(float) == 0)
      return SharedFloats({reinterpret_cast<const float*>(bytes.data()), count}, file_);
    std::vector<float> copy(count);
    if (count > 0) std::memcpy(copy.data(), bytes.data(), bytes.size());
    return copy;
  }

  fs::path path_;
  std::shared_ptr<const SafetensorsFile> file_;
};

void check_lengths(const OptimizedWeights& weights, const fs::path& place) {
  const std::size_t count = weights.masters.size();
  if (weights.first_moment.size() == count && weights.second_moment.size() == count) return;
  throw Error(place.string() + ": masters and moments differ in length");
}

void check_lengths(const TrainState& state, const fs::path& place) {
  check_lengths(state.policy, place);
  if (!state.critic) return;
  check_lengths(state.critic->trunk, place);
  check_lengths(state.critic->head, place);
}

}  // namespace

fs::path checkpoint_folder(const fs::path& dir, std::int64_t step) {
  return dir / folder_name(step);
}

fs::path save_checkpoint(const fs::path& dir, const TrainState& state, int keep) try {
  const auto folder = checkpoint_folder(dir, state.step);
  check_lengths(state, folder);
  fs::create_directories(dir);
  sync_directory(dir.parent_path());
  remove_partial_folders(dir);
  const auto partial = dir / (".partial-" + folder_name(state.step));
  fs::create_directory(partial);
  try {
    write_state(partial, state);
    replace_directory(partial, folder);
  } catch (...) {
    std::error_code ignored;  // what cannot be removed now is removed by the next save
    fs::remove_all(partial, ignored);
    throw;
  }
  prune(dir, folder, keep);
  return folder;
} catch (const fs::filesystem_error& error) {
  throw Error(error.what(), "check that the checkpoint folder is writable and has space");
} catch (const json::exception& error) {
  throw Error(dir.string() + ": the sampler's or the model's text is not UTF-8: " + error.what());
}

std::optional<fs::path> newest_checkpoint(const fs::path& dir, std::int64_t last) try {
  for (const auto& [step, path] : step_folders(dir)) {
    if (step > last) continue;
    const auto problem = manifest_problem(path, ManifestCheck::kContents);
    if (!problem) return path;
    log_warning("skipped checkpoint " + path.string() + ": " + *problem);
  }
  return std::nullopt;
} catch (const fs::filesystem_error& error) {
  throw Error(error.what(), "check that the checkpoint folder is readable");
}

TrainState load_checkpoint(const fs::path& folder) {
  if (const auto problem = manifest_problem(folder, ManifestCheck::kContents)) {
    refuse(folder, *problem);
  }
  auto state = read_scalars(folder / kStateFile);
  const auto path = folder / kTensorFile;
  const StoredFloats stored(path);
  stored.read(kPolicy, state.policy);
  if (state.critic) {
    stored.read(kCriticTrunk, state.critic->trunk);
    stored.read(kCriticHead, state.critic->head);
  }
  check_lengths(state, path);
  return state;
}

}  // namespace rollcall
