// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/worker.h"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <chrono>
#include <deque>
#include <exception>

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
#include "rollout_workers/rollout.h"

namespace rollcall {
namespace {

constexpr auto kIdlePoll = std::chrono::microseconds(500);

class Worker {
 public:
  Worker(const WorkerSetup& setup, RolloutClient& client)
      : setup_(setup),
        client_(client),
        spec_(read_model_spec(setup.model_dir)),
        tokenizer_(setup.model_dir / "tokenizer.json"),
        format_(make_chat_format(setup.model_dir, tokenizer_, setup.chat)),
        engine_(spec_, {setup.rollout.context, setup.max_batch, setup.dtype}),
        policy_(engine_),
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
      if (leaving_) return;
      if (setup_.newest_policy && engine_.version() < client_.newest_version()) load_weights();
      start_waiting();
      loop_.restart();
      const auto handled = loop_.poll();
      const bool sampled = policy_.pump();
      if (failure_) std::rethrow_exception(failure_);
      if (handled == 0 && !sampled) loop_.run_one_for(kIdlePoll);
    }
  }

 private:
  void poll_link() {
    const auto inbox = client_.poll();
    leaving_ = leaving_ || inbox.leave;
    waiting_.insert(waiting_.end(), inbox.assignments.begin(), inbox.assignments.end());
  }

  // Starts what may run with the policy at hand. A newer one is loaded once nothing runs on the
  // old; with `newest_policy` run() has loaded it. While an endpoint cannot take more, one rollout
  // at a time: it may not even need that one.
  void start_waiting() {
    while (!waiting_.empty() && (running_ == 0 || !environment_.congested())) {
      const Assignment next = waiting_.front();
      if (setup_.newest_policy) {
        if (engine_.version() < next.version) return;
        start(next);
      } else {
        if (next.version != engine_.version()) {
          if (running_ > 0 || client_.newest_version() < next.version) return;
          if (client_.newest_version() == next.version) load_weights();
        }
        next.version == engine_.version() ? start(next) : give_back(next);
      }
      waiting_.pop_front();
    }
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

  // From published memory straight into the engine: there is no copy between.
  void load_weights() {
    fault_point("weights");
    if (setup_.loads_model) {
      load_model();
    } else {
      client_.load_weights([this](std::int64_t version, std::span<const std::byte> published) {
        engine_.load(version, published_source(spec_, setup_.dtype, published));
      });
    }
    log_debug("policy version " + std::to_string(engine_.version()) + " loaded");
  }

  // Files may be slow: the link is kept alive between tensors.
  void load_model() {
    StoredWeights stored(setup_.model_dir, spec_, setup_.dtype);
    const auto version = client_.load_weights([](std::int64_t, std::span<const std::byte>) {});
    TensorSource source = stored.source();
    if (!setup_.adapter.empty())
      source = with_lora(read_lora_adapter(setup_.adapter, spec_), source);
    engine_.load(version, [&](const std::string& name) {
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
  Engine engine_;
  EnginePolicy policy_;
  asio::io_context loop_;
  HttpClient http_;
  Environment environment_;
  RolloutContext context_{policy_, environment_, *format_, tokenizer_, setup_.rollout};
  std::deque<Assignment> waiting_;
  std::int64_t running_ = 0;
  bool leaving_ = false;
  std::exception_ptr failure_;
};

}  // namespace

void run_worker(const WorkerSetup& setup, RolloutClient& client) { Worker(setup, client).run(); }

}  // namespace rollcall
