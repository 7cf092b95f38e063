// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/scripted_workers.h"

#include <pthread.h>

#include <ctime>
#include <utility>

#include "comms/wire.h"

namespace rollcall {
namespace {

constexpr std::int64_t kTokens = 1500;
constexpr std::int64_t kPrompt = 350;
constexpr std::int64_t kTurn = 200;        // tokens the policy samples in a turn
constexpr std::int64_t kToolOutput = 100;  // tokens
constexpr int kToolCalls = 3;
constexpr std::size_t kAnswersAtOnce = 64;

void add_tokens(Trajectory& t, std::int64_t count, bool sampled) {
  for (std::int64_t i = 0; i < count; ++i) {
    const auto n = static_cast<std::int64_t>(t.tokens.size());
    t.tokens.push_back(static_cast<std::int32_t>(n * 7919 % 49152));
    t.is_action.push_back(sampled ? 1 : 0);
    t.behavior_logprobs.push_back(sampled ? -0.001F * static_cast<float>(n % 997) : 0.0F);
    t.token_version.push_back(sampled ? static_cast<std::int32_t>(t.assignment.version) : -1);
  }
}

void add_tool_call(Trajectory& t, int turn) {
  const auto begin = static_cast<std::int64_t>(t.tokens.size());
  add_tokens(t, kToolOutput, false);
  t.tool_events.push_back({.turn = turn,
                           .call_id = "call_0123456789abcdef",
                           .name = "look_up",
                           .arguments = std::string(80, 'a'),
                           .output = std::string(400, 'o'),
                           .status = 200,
                           .latency_s = 0.1,
                           .span_begin = begin,
                           .span_end = static_cast<std::int64_t>(t.tokens.size())});
}

}  // namespace

Trajectory scripted_trajectory(const Assignment& assignment, int worker) {
  Trajectory t;
  t.assignment = assignment;
  t.worker = worker;
  t.trace_id = "trace_00000000-0000-4000-8000-000000000000";
  t.prompt_length = kPrompt;
  t.turns = kToolCalls + 1;
  add_tokens(t, kPrompt, false);
  for (int turn = 0; turn < kToolCalls; ++turn) {
    add_tokens(t, kTurn, true);
    add_tool_call(t, turn);
  }
  add_tokens(t, kTokens - static_cast<std::int64_t>(t.tokens.size()), true);
  t.end = EndReason::kFinished;
  t.final_text = std::string(800, 'f');
  t.grade.score = t.grade.reward = assignment.member % 2;
  t.grade.passed = t.grade.reward > 0;
  t.grade.sub_rewards = {{"right", t.grade.reward}, {"brief", 0.5}};
  t.grade.explanation = std::string(120, 'e');
  t.wall_time_s = 20;
  t.generate_time_s = 15;
  return t;
}

std::vector<EndpointStatus> scripted_endpoints() {
  std::vector<EndpointStatus> all;
  for (const char* name : {"tool look_up", "tool book", "grader"})
    all.push_back({.name = name, .address = "http://endpoint.example:8080/path", .error = {}});
  return all;
}

ScriptedWorkers::ScriptedWorkers(MemoryPost& post, int workers,
                                 std::chrono::milliseconds heartbeat_every)
    : post_(post), workers_(workers), heartbeat_every_(heartbeat_every) {
  std::vector<Message> hellos;
  for (int rank = 1; rank <= workers; ++rank)
    hellos.push_back({rank, MessageKind::kHello, encode(Hello{"host of a worker", rank})});
  post_.deliver(std::move(hellos));
  thread_ = std::thread([this] { play(); });
}

ScriptedWorkers::~ScriptedWorkers() {
  stop_ = true;
  thread_.join();
}

double ScriptedWorkers::cpu_seconds() {
  clockid_t clock{};
  timespec time{};
  ::pthread_getcpuclockid(thread_.native_handle(), &clock);
  ::clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

void ScriptedWorkers::play() {
  while (!stop_) {
    const std::vector<Letter> letters = post_.take();
    answer(letters);
    beat();
    if (letters.empty()) std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
}

void ScriptedWorkers::answer(const std::vector<Letter>& letters) {
  std::vector<Message> answers;
  for (const Letter& letter : letters) {
    if (letter.kind == MessageKind::kLeave)
      answers.push_back({letter.to, MessageKind::kFarewell, {}});
    if (letter.kind != MessageKind::kAssignment) continue;
    const Trajectory t = scripted_trajectory(decode_assignment(letter.bytes), letter.to);
    answers.push_back({letter.to, MessageKind::kDelivery, encode(t)});
    const auto pause = pause_.load();
    if (answers.size() < kAnswersAtOnce && pause.count() == 0) continue;
    post_.deliver(std::exchange(answers, {}));
    if (pause.count() > 0) std::this_thread::sleep_for(pause);
  }
  post_.deliver(std::move(answers));
}

void ScriptedWorkers::beat() {
  if (heartbeat_every_.count() == 0) return;
  const std::chrono::duration<double> lived = std::chrono::steady_clock::now() - begin_;
  const auto due =
      static_cast<std::int64_t>(lived / std::chrono::duration<double>(heartbeat_every_) * workers_);
  std::vector<Message> beats;
  for (; beats_ < due; ++beats_) {
    beats.push_back({static_cast<int>(1 + beats_ % workers_), MessageKind::kHeartbeat,
                     encode(scripted_endpoints())});
  }
  post_.deliver(std::move(beats));
}

}  // namespace rollcall
