// SPDX-License-Identifier: Apache-2.0
#include "rollcall/inspect_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <ostream>
#include <span>

#include "comms/error.h"
#include "model/tokenizer.h"
#include "rollcall/run_setup.h"
#include "trainer/batch_replay.h"
#include "trainer/journal.h"
#include "trainer/run_facts.h"

namespace rollcall {
namespace {

// Text from the agent's world for a terminal: control characters could move its cursor.
std::string printable(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    out += control && c != '\n' && c != '\t'
               ? fmt::format("\\x{:02x}", static_cast<unsigned char>(c))
               : std::string(1, c);
  }
  return out;
}

std::string indented(const std::string& text) {
  std::string out = "    ";
  for (const char c : printable(text)) out += c == '\n' ? std::string("\n    ") : std::string(1, c);
  return out + "\n";
}

void print_counts(const RunFacts& run, std::ostream& out) {
  out << fmt::format("run       {}\n", printable(run.name));
  out << fmt::format(
      "rows      {} ({} committed): {} training, {} held-out{}\n", run.rows, run.committed_rows,
      run.train.size(), run.valid.size(),
      run.canaries.empty() ? "" : fmt::format(", {} of canaries", run.canaries.size()));
  const std::vector<StepFacts> steps = steps_of(run);
  if (steps.empty()) return;
  out << fmt::format("steps     {} to {}\n", steps.front().step, steps.back().step);
  for (const StepFacts* step : {&steps.front(), &steps.back()}) {
    out << fmt::format(
        "step {:<4} {}  signal {}/{} groups  {} rollouts, {} faults, {} masked\n", step->step,
        step->groups > 0 ? fmt::format("reward {:.3f}  pass rate {:.1f} %", step->reward_mean,
                                       100 * step->pass_rate)
                         : "no rollout graded",
        step->groups_signal, step->groups, step->rollouts, step->faults, step->masked);
    if (steps.size() == 1) break;
  }
}

void print_evaluations(const RunFacts& run, std::ostream& out) {
  for (const EvalFacts& e : evaluations_of(run)) {
    out << fmt::format("held-out  step {:<5} pass@1 {:.1f} % ({:.1f} to {:.1f} %, {} tasks)\n",
                       e.step, 100 * e.pass_at_1.mean, 100 * e.pass_at_1.low,
                       100 * e.pass_at_1.high, e.pass_at_1.tasks);
  }
}

void print_ends(const RunFacts& run, std::ostream& out) {
  std::map<std::string, std::int64_t> ends, faults;
  for (const auto* rollouts : {&run.train, &run.valid, &run.canaries}) {
    for (const RolloutFacts& rollout : *rollouts) {
      ++(rollout.graded() ? ends[to_string(rollout.end)] : faults[to_string(rollout.fault)]);
    }
  }
  for (const auto& [name, count] : ends) out << fmt::format("end       {:<16} {}\n", name, count);
  for (const auto& [name, count] : faults) out << fmt::format("fault     {:<16} {}\n", name, count);
}

void print_tools(const RunFacts& run, std::ostream& out) {
  struct Tool {
    std::int64_t errors = 0, retries = 0;
    std::vector<double> latencies_s;
  };
  std::map<std::string, Tool> tools;
  for (const CallFacts& call : run.calls) {
    Tool& tool = tools[call.tool];
    tool.errors += call.is_error ? 1 : 0;
    tool.retries += call.retries;
    tool.latencies_s.push_back(call.latency_s);
  }
  for (const auto& [name, tool] : tools) {
    out << fmt::format(
        "tool      {:<16} {} calls, {} errors, {} retries, P50 {:.3f} s, P95 {:.3f} s\n",
        printable(name), tool.latencies_s.size(), tool.errors, tool.retries,
        percentile(tool.latencies_s, 0.5), percentile(tool.latencies_s, 0.95));
  }
}

void print_head(const Trajectory& t, std::int64_t row, std::ostream& out) {
  const Assignment& a = t.assignment;
  out << fmt::format(
      "row {}  {}  {} task row {}  step {}  group {}  member {}  attempt {}  version {}  seed {}\n",
      row, printable(t.trace_id), to_string(a.split), a.task_row, a.step, a.group, a.member,
      a.attempt, a.version, a.seed);
  const auto sampled = sampled_tokens(t);
  out << fmt::format(
      "{} tokens: {} prompt, {} sampled, {} prefilled  {} turns  worker {}  {:.3f} s, {:.3f} s of "
      "it for the model\n",
      t.tokens.size(), t.prompt_length, sampled, t.prefill_tokens, t.turns, t.worker, t.wall_time_s,
      t.generate_time_s);
  out << fmt::format("end {}  fault {}{}{}\n", to_string(t.end), to_string(t.fault),
                     t.fault_detail.empty() ? "" : ": ", printable(t.fault_detail));
}

void print_grade(const Grade& grade, std::ostream& out) {
  out << fmt::format("score {:g}  reward {:g}  {}  graded in {:.3f} s, {} retries\n", grade.score,
                     grade.reward, grade.passed ? "passed" : "not passed", grade.latency_s,
                     grade.retries);
  for (const auto& [name, value] : grade.sub_rewards) {
    out << fmt::format("  sub-reward {} {:g}\n", printable(name), value);
  }
  for (const auto& [name, open] : grade.gates) {
    out << fmt::format("  gate {} {}\n", printable(name), open ? "open" : "closed");
  }
  for (const std::string& flag : grade.flags) out << "  flag " << printable(flag) << "\n";
  if (!grade.explanation.empty()) out << "  explanation\n" << indented(grade.explanation);
}

void print_trajectory(const Trajectory& t, std::int64_t row, std::ostream& out) {
  print_head(t, row, out);
  print_grade(t.grade, out);
  for (const ToolEvent& event : t.tool_events) {
    out << fmt::format("\nturn {}  {}  {}  HTTP {}{}  {:.3f} s, {} retries  tokens {} to {}\n",
                       event.turn, printable(event.name), printable(event.call_id), event.status,
                       event.is_error ? "  error" : "", event.latency_s, event.retries,
                       event.span_begin, event.span_end);
    out << indented(event.arguments) << "  =>\n" << indented(event.output);
  }
  out << "\nfinal answer\n" << indented(t.final_text);
}

// Prompt, sampled turns and what came between them, each under a heading.
void print_text(const Trajectory& t, const Tokenizer& tokenizer, std::ostream& out) {
  const std::span<const std::int32_t> tokens(t.tokens);
  TextStream stream(tokenizer);  // a character may begin in one part and end in the next
  for (std::size_t begin = 0; begin < tokens.size();) {
    const bool prompt = begin < static_cast<std::size_t>(t.prompt_length);
    const auto other =
        std::find(t.is_action.begin() + begin, t.is_action.end(), t.is_action[begin] == 0 ? 1 : 0);
    const std::size_t end =
        prompt ? t.prompt_length : static_cast<std::size_t>(other - t.is_action.begin());
    const std::string part = stream.add(tokens.subspan(begin, end - begin));
    out << fmt::format("\n{}, tokens {} to {}\n",
                       prompt                    ? "prompt"
                       : t.is_action[begin] != 0 ? "sampled"
                                                 : "given",
                       begin, end)
        << indented(end == tokens.size() ? part + stream.finish() : part);
    begin = end;
  }
}

}  // namespace

int run_inspect(const std::filesystem::path& run_dir, std::optional<std::int64_t> row, bool text,
                std::ostream& out) {
  const std::filesystem::path journal = journal_of(run_dir);
  if (row) {
    const Trajectory trajectory = JournalReader(journal).read(*row);
    print_trajectory(trajectory, *row, out);
    if (text) {
      const std::filesystem::path model = config_of_run(run_dir).model.path;
      print_text(trajectory, Tokenizer(model / "tokenizer.json"), out);
    }
    return 0;
  }
  const RunFacts run = read_run(run_dir);
  print_counts(run, out);
  print_evaluations(run, out);
  print_ends(run, out);
  print_tools(run, out);
  return 0;
}

int run_inspect_batch(const std::filesystem::path& run_dir, std::ostream& out) {
  const JournalReader journal(journal_of(run_dir));
  const RunConfigs configs = configs_of_run(run_dir);
  const std::uint64_t seed = configs.back().second.run.seed;  // which a resume cannot change
  for (const BatchDecision& decision :
       replay_batches(journal, periods_of(configs), train_tasks(journal), seed)) {
    for (const auto& round : decision.rounds)
      out << fmt::format("step {:<5} {} tasks x {} rollouts: {}\n", decision.step,
                         round.tasks.size(), round.group_size, round.reason);
    out << fmt::format("           signal {:.3f}, learning rate x {:.3f}\n", decision.signal,
                       decision.step_size);
  }
  return 0;
}

}  // namespace rollcall
