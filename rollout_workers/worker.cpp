// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/worker.h"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <chrono>
#include <deque>
#include <exception>
#include <memory>
#include <utility>

#include "comms/error.h"
#include "comms/fault_injection.h"
#include "comms/log.h"
#include "comms/rollout_link.h"
#include "model/chat_format.h"
#include "model/engine.h"
#include "model/lora.h"
#include "model/published_weights.h"
#include "model/stored_weights.h"
#include "model/tokenizer.h"
#include "rollout_workers/engine_policy.h"
#include "rollout_workers/http_client.h"
#include "rollout_workers/lead_policy.h"
#include "rollout_workers/rollout.h"

namespace rollcall {
namespace {

using NewerWeights = WorkerSetup::NewerWeights;

constexpr auto kIdlePoll = std::chrono::microseconds(500);

// A policy that is sampled here.
struct OwnPolicy {
  OwnPolicy(const ModelSpec& spec, const EngineOptions& options)
      : engine(spec, options), policy(engine) {}

  Engine engine;
  EnginePolicy policy;
};

class Worker {
 public:
  Worker(const WorkerSetup& setup, RolloutClient& client)
      : setup_(setup),
        client_(client),
        spec_(read_model_spec(setup.model_dir)),
        tokenizer_(setup.model_dir / "tokenizer.json"),
        format_(make_chat_format(setup.model_dir, tokenizer_, setup.chat)),
        own_(setup.lead_samples ? nullptr : std::make_unique<OwnPolicy>(spec_, setup.engine)),
        lead_policy_(client),
        http_(loop_.get_executor()),
        environment_(http_, setup.tools, setup.grader, setup.job_id) {
    client_.report([this] { return environment_.endpoints(); });
  }
  ~Worker() { client_.report({}); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void run() {
    for (;;) {
      poll_link();
      if (!leaving_ && own_) take_up_weights();
      if (leaving_) return;
      start_waiting();
      loop_.restart();
      const auto handled = loop_.poll();
      const bool sampled = own_ && own_->policy.pump();
      if (failure_) std::rethrow_exception(failure_);
      if (handled == 0 && !sampled) loop_.run_one_for(kIdlePoll);
    }
  }

 private:
  void poll_link() {
    auto inbox = client_.poll();
    leaving_ = leaving_ || inbox.leave;
    waiting_.insert(waiting_.end(), inbox.assignments.begin(), inbox.assignments.end());
    for (TurnReply& turn : inbox.turns) lead_policy_.take(std::move(turn));
  }

  // The newest where nothing that runs or waits is bound to another: even idle, for a worker that
  // stayed behind would have to copy its weights once their memory is wanted. Before results
  // computed with them are used.
  void take_up_weights() {
    if (is_outdated() && may_take_newest() && !client_.given_up()) load_weights();
    if (!client_.give_way(use_published_)) leaving_ = true;
  }

  bool is_outdated() const { return own_->engine.version() < client_.newest_version(); }
  bool may_take_newest() const {
    switch (setup_.newer_weights) {
      case NewerWeights::kInFlight:
        return true;
      case NewerWeights::kDrained:
        return running_ == 0;
      case NewerWeights::kNever:
        break;
    }
    return running_ == 0 && waiting_.empty();
  }

  // While an endpoint cannot take more, one rollout at a time: it may not even need that one.
  void start_waiting() {
    while (!waiting_.empty() && (running_ == 0 || !environment_.congested())) {
      const Fit fit = policy_for(waiting_.front());
      if (fit == Fit::kLater) return;
      fit == Fit::kNow ? start(waiting_.front()) : give_back(waiting_.front());
      waiting_.pop_front();
    }
  }

  // Whether an assignment may run with the policy at hand: its own version, which is loaded once
  // nothing runs on the one before, or where newer ones will do, which run() loads, from its own
  // on.
  enum class Fit { kNow, kLater, kGone };
  Fit policy_for(const Assignment& next) {
    if (!own_) return Fit::kNow;  // the lead learner has taken up what it assigns
    const Engine& engine = own_->engine;
    if (setup_.newer_weights != NewerWeights::kNever) {
      const bool drains = setup_.newer_weights == NewerWeights::kDrained && is_outdated();
      return drains || engine.version() < next.version ? Fit::kLater : Fit::kNow;
    }
    if (next.version == engine.version()) return Fit::kNow;
    if (running_ > 0 || client_.newest_version() < next.version) return Fit::kLater;
    if (client_.newest_version() == next.version) load_weights();
    return next.version == engine.version() ? Fit::kNow : Fit::kGone;
  }

  Policy& policy() {
    if (own_) return own_->policy;
    return lead_policy_;
  }

  // Its policy is no longer published: the learner has given this worker up for silent meanwhile.
  void give_back(const Assignment& assignment) {
    Trajectory cancelled;
    cancelled.assignment = assignment;
    cancelled.fault = FaultReason::kCancelled;
    cancelled.fault_detail = "policy version " + std::to_string(assignment.version) +
                             " was replaced before the rollout started";
    cancelled.worker = setup_.rank;
    client_.deliver(cancelled);
  }

  void load_weights() {
    fault_point("weights");
    setup_.loads_model ? load_model() : void(client_.load_weights(use_published_));
    log_debug("policy version " + std::to_string(own_->engine.version()) + " loaded");
  }

  // Files may be slow: the link is kept alive between tensors.
  void load_model() {
    StoredWeights stored(setup_.model_dir, spec_, setup_.engine.dtype);
    const auto nothing = [](std::int64_t, std::span<const std::byte>) {
      return WeightsUse::kCopied;
    };
    const auto version = client_.load_weights(nothing);
    TensorSource source = stored.source();
    if (!setup_.adapter.empty())
      source = with_lora(read_lora_adapter(setup_.adapter, spec_), source);
    own_->engine.load(version, [&](const std::string& name) {
      poll_link();
      return source(name);
    });
  }

  void start(const Assignment& assignment) {
    const auto& tasks = setup_.tasks(assignment.split);
    const auto row = static_cast<std::size_t>(assignment.task_row);
    if (row >= tasks.size())
      throw input_error("worker: task row " + std::to_string(row) + " of split " +
                            to_string(assignment.split) + " is not in its dataset of " +
                            std::to_string(tasks.size()) + " rows",
                        "every node must see the same dataset files");
    ++running_;
    fault_point("rollout");
    asio::co_spawn(loop_, run_rollout(assignment, tasks[row], context_),
                   [this](std::exception_ptr failure, Trajectory trajectory) {
                     --running_;
                     if (failure) {
                       failure_ = failure;
                       return;
                     }
                     trajectory.worker = setup_.rank;
                     client_.deliver(trajectory);
                   });
  }

  const WorkerSetup& setup_;
  RolloutClient& client_;
  ModelSpec spec_;
  Tokenizer tokenizer_;
  std::unique_ptr<ChatFormat> format_;
  std::unique_ptr<OwnPolicy> own_;  // null: the lead learner samples
  const UseWeights use_published_ = [this](std::int64_t version, std::span<const std::byte> bytes) {
    return own_->engine.load(version, PublishedWeights(spec_, setup_.engine.dtype, bytes));
  };
  LeadPolicy lead_policy_;
  asio::io_context loop_;
  HttpClient http_;
  Environment environment_;
  RolloutContext context_{policy(), environment_, *format_, tokenizer_, setup_.rollout};
  std::deque<Assignment> waiting_;
  std::int64_t running_ = 0;
  bool leaving_ = false;
  std::exception_ptr failure_;
};

}  // namespace

void run_worker(const WorkerSetup& setup, RolloutClient& client) { Worker(setup, client).run(); }

}  // namespace rollcall
