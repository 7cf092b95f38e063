// SPDX-License-Identifier: Apache-2.0
#include "rollcall/canaries.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "trainer/journal.h"

namespace rollcall {
namespace {

constexpr std::int64_t kFirstGroup = std::int64_t{1} << 42;  // beyond those of any rollout

bool graded(const Trajectory& t) { return t.fault == FaultReason::kNone; }

// The text of the user's last message; a dataset was checked to end with one.
std::string last_message(const Task& task) {
  const auto content =
      nlohmann::json::parse(task.messages).back().value("content", nlohmann::json());
  if (content.is_string()) return content.get<std::string>();
  std::string text;
  for (const auto& part : content) text += part.value("text", std::string());
  return text;
}

std::vector<std::int64_t> rows_of(std::span<const Collected> sampled, std::int64_t most) {
  std::vector<std::int64_t> rows;
  std::set<std::int64_t> seen;
  for (const Collected& c : sampled) {
    const std::int64_t row = c.trajectory->assignment.task_row;
    if (static_cast<std::int64_t>(rows.size()) < most && seen.insert(row).second)
      rows.push_back(row);
  }
  return rows;
}

// Graded rollouts, those that passed first; of each task in turn.
std::vector<const Collected*> best_first(std::span<const Collected> sampled) {
  std::vector<const Collected*> all;
  for (const Collected& c : sampled)
    if (graded(*c.trajectory)) all.push_back(&c);
  std::ranges::stable_sort(all, {}, [](const Collected* c) {
    return std::pair(!c->trajectory->grade.passed, c->trajectory->assignment.member);
  });
  return all;
}

Trajectory answer(const std::string& text) {
  Trajectory t;
  t.final_text = text;
  t.turns = text.empty() ? 0 : 1;
  t.end = EndReason::kFinished;
  return t;
}

// Probes of one kind and where they are counted.
class CanaryBook {
 public:
  void add(const std::string& name, Trajectory t, const Task& task) {
    t.assignment = {.group = kFirstGroup + static_cast<std::int64_t>(probes_.size()),
                    .task_row = task.row};
    probes_.push_back({std::move(t), &task, 0});
    names_.push_back(name);
  }

  std::vector<Canary> ask(const GradeProbeSetup& setup) const {
    const std::vector<GradeOutcome> outcomes = grade_probes(setup, probes_);
    std::vector<Canary> canaries;
    for (std::size_t i = 0; i < outcomes.size(); ++i) count(canaries, names_[i], outcomes[i]);
    return canaries;
  }

 private:
  static void count(std::vector<Canary>& canaries, const std::string& name,
                    const GradeOutcome& outcome) {
    auto canary = std::ranges::find(canaries, name, &Canary::name);
    if (canary == canaries.end()) canary = canaries.insert(canary, Canary{.name = name});
    if (!outcome.fault.empty()) {
      ++canary->faults;
      return;
    }
    ++canary->graded;
    canary->passed += outcome.grade.passed && !outcome.masked ? 1 : 0;
  }

  std::vector<GradeProbe> probes_;
  std::vector<std::string> names_;
};

}  // namespace

std::vector<Canary> try_canaries(const GradeProbeSetup& setup, std::span<const Task> tasks,
                                 std::span<const Collected> sampled,
                                 const std::filesystem::path& journal,
                                 const GraderTrialSizes& sizes) {
  const JournalReader reader(journal);
  const std::vector<const Collected*> answers = best_first(sampled);
  CanaryBook book;
  std::size_t next = 0;
  for (const std::int64_t row : rows_of(sampled, sizes.canary_tasks)) {
    const Task& task = tasks[static_cast<std::size_t>(row)];
    book.add("empty", answer(""), task);
    book.add("constant", answer("I don't know."), task);
    book.add("prompt", answer(last_message(task)), task);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const Collected& other = *answers[(next + i) % answers.size()];
      if (other.trajectory->assignment.task_row == row) continue;
      book.add("shuffled", reader.read(other.row), task);
      next += i + 1;
      break;
    }
  }
  return book.ask(setup);
}

RepeatedGrading try_regrading(const GradeProbeSetup& setup, std::span<const Task> tasks,
                              std::span<const Collected> sampled,
                              const std::filesystem::path& journal, const GraderTrialSizes& sizes) {
  const JournalReader reader(journal);
  std::vector<const Collected*> chosen = best_first(sampled);
  chosen.resize(std::min(chosen.size(), static_cast<std::size_t>(sizes.transcripts)));
  std::vector<GradeProbe> probes;
  for (const Collected* c : chosen) {
    const Trajectory t = reader.read(c->row);
    for (int i = 1; i <= sizes.times; ++i)
      probes.push_back({t, &tasks[static_cast<std::size_t>(t.assignment.task_row)], i});
  }
  const std::vector<GradeOutcome> outcomes = grade_probes(setup, probes);
  std::vector<Regrade> regrades(chosen.size());
  std::int64_t faults = 0;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const auto times = static_cast<std::size_t>(sizes.times);
    Regrade& regrade = regrades[i / times];
    regrade.first = chosen[i / times]->trajectory->grade.score;
    if (!outcomes[i].fault.empty()) {
      ++faults;
      continue;
    }
    regrade.scores.push_back(outcomes[i].grade.score);
    regrade.passed.push_back(outcomes[i].grade.passed && !outcomes[i].masked);
  }
  return compare_gradings(regrades, sizes.times, faults);
}

}  // namespace rollcall
