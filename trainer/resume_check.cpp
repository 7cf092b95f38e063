// SPDX-License-Identifier: Apache-2.0
#include "trainer/resume_check.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/log.h"
#include "trainer/journal.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Settings = std::map<std::string, std::string>;  // "tools.0.name" -> value

constexpr const char* kFormerConfig = "config-to-step-";

// Never: seeds, the order of tasks, the policy's arithmetic, what a critic has learnt and when a
// step is planned follow from them.
constexpr std::array<std::string_view, 6> kFixed{
    "run.seed", "model.dtype", "model.train", "model.lora", "algorithm.critic", "policy.max_lag"};
// Not while the journal holds rollouts of a step that no checkpoint has: they were planned, ended
// or rewarded by these.
constexpr std::array<std::string_view, 19> kFixedInStep{"model.chat",
                                                        "batch",
                                                        "rollout.max_turns",
                                                        "rollout.max_tool_calls",
                                                        "rollout.max_new_tokens",
                                                        "rollout.context",
                                                        "rollout.on_limit",
                                                        "rollout.on_void_turn",
                                                        "rollout.on_infra_exhausted",
                                                        "rollout.tool_budget",
                                                        "rollout.latency_budget",
                                                        "rollout.length_budget",
                                                        "grader.gates",
                                                        "grader.parts",
                                                        "grader.reward",
                                                        "grader.confirm",
                                                        "grader.gate_value",
                                                        "grader.flags",
                                                        "grader.pass_threshold"};

template <std::size_t N>
bool is_among(const std::array<std::string_view, N>& keys, const std::string& key) {
  return std::any_of(keys.begin(), keys.end(), [&](std::string_view fixed) {
    return key == fixed || (key.starts_with(fixed) && key[fixed.size()] == '.');
  });
}

bool is_fixed_in_step(const std::string& key) {
  return is_among(kFixedInStep, key) || (key.starts_with("tools.") && key.ends_with(".name"));
}

void flatten(const YAML::Node& node, const std::string& key, Settings& settings) {
  const std::string prefix = key.empty() ? "" : key + ".";
  if (node.IsMap()) {
    for (const auto& entry : node)
      flatten(entry.second, prefix + entry.first.as<std::string>(), settings);
  } else if (node.IsSequence()) {
    for (std::size_t i = 0; i < node.size(); ++i)
      flatten(node[i], prefix + std::to_string(i), settings);
  } else if (!key.empty()) {
    settings[key] = node.IsNull() ? "" : node.as<std::string>();
  }
}

// What is no configuration has no settings: a run goes on without its config.yaml.
Settings settings_of(const std::string& yaml) try {
  Settings settings;
  flatten(YAML::Load(yaml), "", settings);
  return settings;
} catch (const YAML::Exception&) {
  return {};
}

// Keys that a run file may have or not; every other key is in all configurations of one version.
bool is_optional(const std::string& key) {
  return key.starts_with("tools.") || key.starts_with("grader.flags.") ||
         key.starts_with("grader.gates.") || key.starts_with("grader.parts.");
}

// key -> "key: old -> new"
std::map<std::string, std::string> differences(const Settings& before, const Settings& after) {
  std::map<std::string, std::string> found;
  if (before.empty()) return found;  // nothing is known of it
  const auto note = [&](const std::string& key) {
    const auto a = before.find(key), b = after.find(key);
    if ((a == before.end() || b == after.end()) && !is_optional(key)) return;
    const auto text = [](auto at, auto end) {
      return at == end ? "none" : at->second.empty() ? "empty" : at->second;
    };
    const std::string was = text(a, before.end()), is = text(b, after.end());
    if (was != is) found[key] = key + ": " + was + " -> " + is;
  };
  for (const auto& [key, value] : before) note(key);
  for (const auto& [key, value] : after) note(key);
  return found;
}

json about_of(const std::string& text) {
  json about = json::parse(text, nullptr, false);
  return about.is_object() ? about : json::object();
}

// A critic is part of every checkpoint or of none.
bool has_critic(const Settings& settings) {
  const auto advantage = settings.find("algorithm.advantage");
  return advantage != settings.end() && advantage->second == "gae";
}

// Datasets and the model, by what is in them.
Settings inputs_of(const json& about) {
  Settings inputs = about.value("inputs", Settings{});
  const std::string weights = about.value("initial_weights_xxh3", "");
  if (!weights.empty()) inputs["model.path, its weights"] = "xxh3 " + weights;
  return inputs;
}

std::string list_of(const std::vector<std::string>& changes, const char* separator) {
  std::string text;
  for (const std::string& change : changes) text += (text.empty() ? "" : separator) + change;
  return text;
}

void check_journal(const ResumePoint& at) {
  const bool there = fs::exists(at.journal);
  const std::int64_t rows = there ? JournalReader(at.journal).committed_rows() : 0;
  if (rows >= at.checkpoint_rows) return;
  throw Error(
      "checkpoint " + at.checkpoint->string() + " counts " + std::to_string(at.checkpoint_rows) +
          " rows in " + at.journal.string() + ", which " +
          (there ? "has " + std::to_string(rows) + ": it is older than the checkpoint"
                 : "is not there"),
      "put the journal of this run back; or move the run's folder away to start over; or give the "
      "run another run.name and set model.path to what rollcall export makes of this one",
      ExitCode::kStopped);
}

}  // namespace

RunChanges run_changes(const std::string& began, const std::string& now,
                       const std::optional<std::string>& last_config, bool open_rows) {
  const json first = about_of(began), current = about_of(now);
  const Settings settings = settings_of(current.value("config", ""));
  RunChanges changes;
  for (const auto& [key, text] : differences(inputs_of(first), inputs_of(current)))
    changes.refused.push_back(text);
  const Settings began_as = settings_of(first.value("config", ""));
  for (const auto& [key, text] : differences(began_as, settings)) {
    const bool fixed = is_among(kFixed, key) || (key == "algorithm.advantage" &&
                                                 has_critic(began_as) != has_critic(settings));
    (fixed ? changes.refused : changes.accepted).push_back(text);
  }
  if (!open_rows) return changes;
  Settings sampled_under = settings_of(last_config.value_or(""));
  if (sampled_under.empty()) sampled_under = began_as;
  for (const auto& [key, text] : differences(sampled_under, settings)) {
    changes.other_updates |=
        key.starts_with("algorithm.") && key != "algorithm.activation_checkpointing";  // same bits
    if (is_fixed_in_step(key))
      changes.refused.push_back(text + " (the journal holds rollouts of a step that is open)");
  }
  return changes;
}

bool check_resume(const ResumePoint& at, const std::string& about) try {
  check_journal(at);
  if (!fs::exists(at.journal)) return false;
  const JournalReader journal(at.journal);
  std::optional<std::string> last_config;
  if (fs::exists(at.config)) last_config = read_file(at.config);
  const bool open_rows = journal.committed_rows() > at.checkpoint_rows;
  const RunChanges changes = run_changes(journal.about(), about, last_config, open_rows);
  if (!changes.refused.empty())
    throw input_error("the run in " + at.config.parent_path().string() + " began otherwise:\n  " +
                          list_of(changes.refused, "\n  "),
                      "undo this to go on with that run, or give this one another run.name");
  if (!changes.accepted.empty())
    log_info("changed since the run began: " + list_of(changes.accepted, "; "));
  return changes.other_updates;
} catch (const json::exception& error) {
  throw input_error(
      at.journal.string() + ": what it says about its run cannot be read: " + json_reason(error),
      "put a whole copy of the journal back, or move the run's folder away to start over");
}

std::int64_t end_of_step(const JournalReader& journal, std::int64_t first_row, std::int64_t step) {
  const std::int64_t rows = journal.committed_rows();
  std::int64_t end = first_row;
  for (std::int64_t row = first_row; row < rows; ++row)
    if (journal.read_row(row).assignment.step <= step) end = row + 1;
  return end;
}

std::map<std::int64_t, fs::path> former_configs(const fs::path& run_dir) {
  const std::string prefix = kFormerConfig;
  std::map<std::int64_t, fs::path> found;
  for (const auto& entry : fs::directory_iterator(run_dir)) {
    const std::string stem = entry.path().stem().string();
    if (!stem.starts_with(prefix) || entry.path().extension() != ".yaml") continue;
    std::int64_t step = 0;
    const char* end = stem.data() + stem.size();
    if (std::from_chars(stem.data() + prefix.size(), end, step).ptr == end)
      found.emplace(step, entry.path());
  }
  return found;
}

void write_config(const fs::path& run_dir, std::int64_t step, const std::string& text) {
  const fs::path file = run_dir / "config.yaml";
  const auto kept = former_configs(run_dir);
  if (step > 0 && fs::exists(file) && !kept.contains(step)) {
    // Of steps that are made again the oldest configuration behind `step` is that of the steps
    // before.
    const auto behind = kept.upper_bound(step);
    const std::string before = read_file(behind == kept.end() ? file : behind->second);
    if (before != text)
      write_durably(run_dir / fmt::format("{}{:06}.yaml", kFormerConfig, step), before);
  }
  for (auto behind = kept.upper_bound(step); behind != kept.end(); ++behind)
    fs::remove(behind->second);
  write_durably(file, text);
}

}  // namespace rollcall
