// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "comms/backoff.h"
#include "comms/dispatcher.h"
#include "comms/error.h"
#include "comms/log.h"
#include "comms/mpi_mailbox.h"
#include "comms/process_watch.h"
#include "comms/rollout_link.h"
#include "comms/silence_clock.h"
#include "comms/weight_store.h"
#include "comms/wire.h"
#include "comms/world.h"

namespace rollcall {
namespace {

using Clock = SilenceClock::Clock;
using std::chrono::milliseconds;

constexpr std::size_t kChunkBytes = std::size_t{8} << 20;
constexpr int kMessagesPerPump = 1024;
constexpr int kLastProbes = 32;
constexpr int kWatchesPerHeartbeat = 16;
// A worker may load a model before it says hello.
constexpr int kStartupTimeouts = 20;

enum class LinkState {
  kStarting,   // has not said hello
  kAttaching,  // was told where the shared memory is
  kOpen,       // may be given assignments
  kLeft,       // said goodbye
  kLost,       // died, fell silent, or sent nonsense
};

struct Worker {
  int rank = 0;
  LinkState state = LinkState::kStarting;
  SilenceClock clock;
  Clock::time_point last_sent;
  ProcessWatch process;
  int process_id = 0;
  bool shares_memory = false;
  bool told_to_leave = false;
  WeightsLoaded weights{.version = -1};
  std::vector<EndpointStatus> endpoints{};

  bool waits() const { return std::ranges::any_of(endpoints, &EndpointStatus::waiting); }
  bool alive() const { return state != LinkState::kLeft && state != LinkState::kLost; }
};

WeightStore::Backing backing_for(const std::string& weights_via) {
  if (weights_via == "auto" || weights_via == "shm") return WeightStore::Backing::kAnonymousFile;
  if (weights_via == "mpi") return WeightStore::Backing::kPrivate;
  throw input_error("cluster.weights_via is '" + weights_via + "'", "use auto, shm or mpi");
}

int checked_workers(int ranks, const ClusterOptions& options) {
  const int workers = ranks - options.learners;
  if (workers >= 1) return workers;
  throw Error("a world of " + std::to_string(ranks) + " ranks with " +
                  std::to_string(options.learners) + " learners has no rollout worker",
              "start learners + workers ranks", ExitCode::kBadInput);
}

}  // namespace

struct RolloutServer::Impl {
  Impl(std::unique_ptr<Mailbox> box, int ranks, const std::string& host,
       const ClusterOptions& cluster, std::size_t bytes)
      : options(cluster),
        parameter_bytes(bytes),
        identity(system_identity(host)),
        mailbox(std::move(box)),
        dispatcher(cluster.rollouts_per_worker, kMaxWorkerLosses),
        store(bytes, checked_workers(ranks, cluster), backing_for(cluster.weights_via)) {
    const auto now = Clock::now();
    for (int rank = cluster.learners; rank < ranks; ++rank) {
      workers.push_back({.rank = rank,
                         .clock = SilenceClock(cluster.heartbeat_every, now),
                         .last_sent = now,
                         .process = {}});
    }
  }
  ~Impl() {
    if (mailbox->lent_memory()) store.keep_mapped();
  }

  int index(const Worker& worker) const { return worker.rank - options.learners; }

  void send(Worker& worker, MessageKind kind, std::string bytes = {}) {
    mailbox->send(worker.rank, kind, std::move(bytes));
    worker.last_sent = Clock::now();
  }

  // Of what goes by messages alone, once a version.
  std::uint64_t newest_checksum() {
    if (!checksum) checksum = weights_checksum(store.newest_weights());
    return *checksum;
  }

  void send_newest_weights(Worker& worker) {
    if (worker.shares_memory || store.newest_version() < 0) return;
    send(worker, MessageKind::kWeightsBegin,
         encode(WeightsBegin{store.newest_version(), newest_checksum()}));
    std::span<const std::byte> rest = store.newest_weights();
    while (!rest.empty()) {
      const std::size_t size = std::min(kChunkBytes, rest.size());
      mailbox->send_view(worker.rank, MessageKind::kWeightsChunk, rest.first(size));
      rest = rest.subspan(size);
    }
  }

  void open(Worker& worker) {
    worker.state = LinkState::kOpen;
    log_debug("worker " + std::to_string(worker.rank) + " joined, process " +
              std::to_string(worker.process_id) + ", weights by " +
              (worker.shares_memory ? "shared memory" : "messages"));
    send_newest_weights(worker);
    dispatcher.open(worker.rank);
  }

  void require_shared_memory(const Worker& worker, bool possible) const {
    if (possible || options.weights_via != "shm") return;
    throw Error("worker " + std::to_string(worker.rank) +
                    " cannot reach the lead learner's shared memory, which "
                    "cluster.weights_via = shm demands",
                "set cluster.weights_via to auto", ExitCode::kBadInput);
  }

  void on_hello(Worker& worker, const Hello& hello) {
    const bool same_system = hello.host == identity && options.weights_via != "mpi";
    require_shared_memory(worker, same_system);
    worker.process_id = hello.process;
    const Welcome welcome{
        .parameter_bytes = parameter_bytes,
        .reader = index(worker),
        .readers = static_cast<std::int32_t>(workers.size()),
        .process = ::getpid(),
        .shared_memory = same_system,
        .address = same_system ? store.address() : StoreAddress{},
    };
    send(worker, MessageKind::kWelcome, encode(welcome));
    worker.state = LinkState::kAttaching;
    if (!same_system) open(worker);
  }

  void on_attached(Worker& worker, bool attached) {
    require_shared_memory(worker, attached);
    worker.shares_memory = attached;
    // Having found the memory by our process id, the worker's own id means the same process here.
    if (attached) worker.process = ProcessWatch(worker.process_id);
    open(worker);
  }

  void on_delivery(const Worker& worker, std::string_view bytes) {
    Trajectory trajectory = decode_trajectory(bytes);
    if (!dispatcher.accept(worker.rank, trajectory.assignment)) {
      log_warning("dropped a stale delivery of worker " + std::to_string(worker.rank));
      return;
    }
    delivered.push_back(std::move(trajectory));
  }

  void on_farewell(Worker& worker) {
    log_debug("worker " + std::to_string(worker.rank) + " left");
    worker.state = LinkState::kLeft;
    give_up(worker);
  }

  void on_failure(Worker& worker, const Failure& failure) {
    const std::string who = "worker " + std::to_string(worker.rank) + ": ";
    if (failure.code == ExitCode::kBadInput)
      throw input_error(who + failure.what, failure.what_to_do);
    const bool everywhere = std::ranges::none_of(workers, [&](const Worker& other) {
      return &other != &worker && other.alive() && !other.waits();
    });
    if (failure.code == ExitCode::kNoEndpoint && everywhere)
      throw Error(failure.what, failure.what_to_do, failure.code);
    last_failure = "; the last that failed was " + who + failure.what;
    lose(worker, "it failed: " + failure.what);
  }

  void handle_alive(Worker& worker, const Message& message) {
    switch (message.kind) {
      case MessageKind::kHello:
        return on_hello(worker, decode_hello(message.bytes));
      case MessageKind::kAttached:
        return on_attached(worker, message.bytes == "1");
      case MessageKind::kLoaded:
        worker.weights = decode_weights_loaded(message.bytes);
        return;
      case MessageKind::kDelivery:
        return on_delivery(worker, message.bytes);
      case MessageKind::kHeartbeat:
        if (!message.bytes.empty()) worker.endpoints = decode_endpoints(message.bytes);
        return;
      case MessageKind::kTurn:
        if (turns != nullptr) turns->request(worker.rank, decode_turn_request(message.bytes));
        return;
      case MessageKind::kClose:
        if (turns != nullptr) turns->close(worker.rank, decode_number(message.bytes));
        return;
      case MessageKind::kFarewell:
        return on_farewell(worker);
      case MessageKind::kFailure:
        return on_failure(worker, decode_failure(message.bytes));
      default:
        return;
    }
  }

  // A lost worker that speaks again has no credit and no work here any more.
  void handle_lost(Worker& worker) {
    if (worker.told_to_leave) return;
    worker.told_to_leave = true;
    send(worker, MessageKind::kLeave);
    log_warning("worker " + std::to_string(worker.rank) + " is back too late; told it to leave");
  }

  // Null for a rank that is no worker.
  Worker* worker_of(int rank) {
    const int place = rank - options.learners;
    return place >= 0 && place < std::ssize(workers) ? &workers[place] : nullptr;
  }

  void handle(const Message& message) {
    Worker* const worker = worker_of(message.from);
    if (worker == nullptr) return;
    worker->clock.heard(Clock::now());
    if (worker->state == LinkState::kLost) return handle_lost(*worker);
    if (!worker->alive()) return;
    if (message.damaged) return lose(*worker, "a message of it was damaged on its way");
    std::optional<std::string> nonsense;
    try {
      handle_alive(*worker, message);
    } catch (const Error& error) {
      if (error.exit_code() == ExitCode::kBadInput || error.exit_code() == ExitCode::kNoEndpoint)
        throw;
      nonsense = error.what();
    }
    if (nonsense) lose(*worker, *nonsense);
  }

  void give_up(Worker& worker) {
    mailbox->forget(worker.rank);
    if (turns != nullptr) turns->close_all(worker.rank);
    std::ranges::move(dispatcher.close(worker.rank), std::back_inserter(delivered));
  }

  void lose(Worker& worker, const std::string& why) {
    log_warning("lost worker " + std::to_string(worker.rank) + " (" + why + ") with " +
                std::to_string(dispatcher.in_flight(worker.rank)) + " rollouts in flight");
    worker.state = LinkState::kLost;
    give_up(worker);
  }

  void watch(Worker& worker, Clock::time_point now) {
    worker.clock.listen(now);
    if (!worker.alive()) return;
    const bool starting = worker.state == LinkState::kStarting;
    const auto timeout = options.worker_timeout * (starting ? kStartupTimeouts : 1);
    if (worker.process.ended()) {
      hear_last_words(worker);
      if (worker.alive()) lose(worker, "its process ended");
      return;
    }
    if (worker.clock.silent_for(timeout, now)) {
      return lose(worker,
                  "silent for " + std::to_string(worker.clock.silence(now).count()) + " ms");
    }
    if (now - worker.last_sent >= options.heartbeat_every && !mailbox->sending_to(worker.rank)) {
      send(worker, MessageKind::kHeartbeat);
    }
  }

  // What a process sent before its end may still be on the way through MPI, a farewell included.
  void hear_last_words(const Worker& worker) {
    for (int i = 0; i < kLastProbes && worker.alive(); ++i) take_in_messages();
  }

  void take_in_messages() {
    for (int i = 0; i < kMessagesPerPump; ++i) {
      const std::optional<Message> message = mailbox->receive();
      if (!message) return;
      handle(*message);
    }
  }

  // Looks at every worker, so not in each of a thousand polls a second.
  void watch_all(Clock::time_point now) {
    if (now - last_watch < options.heartbeat_every / kWatchesPerHeartbeat) return;
    last_watch = now;
    for (Worker& worker : workers) watch(worker, now);
    const auto attaching = [](const Worker& worker) {
      return worker.state == LinkState::kStarting || worker.state == LinkState::kAttaching;
    };
    if (std::ranges::none_of(workers, attaching)) store.unlink();
  }

  void pump() {
    take_in_messages();
    watch_all(Clock::now());
    while (const auto next = dispatcher.next()) {
      send(*worker_of(next->first), MessageKind::kAssignment, encode(next->second));
    }
    mailbox->push();
  }

  // One step for all of them; false if nobody waits for a turn.
  bool sample_turns() {
    if (turns == nullptr || !turns->has_work()) return false;
    for (const auto& [worker, reply] : turns->step())
      send(*worker_of(worker), MessageKind::kSampled, encode(reply));
    return true;
  }

  // A worker may hold weights before its message that it has attached is here.
  bool in_use(std::span<const std::byte> slot) const {
    return mailbox->sends_from(slot) || std::ranges::any_of(workers, [&](const Worker& worker) {
             return worker.alive() && store.held_by(index(worker));
           });
  }

  ClusterOptions options;
  std::size_t parameter_bytes;
  std::string identity;
  std::unique_ptr<Mailbox> mailbox;
  Dispatcher dispatcher;
  WeightStore store;
  std::optional<std::uint64_t> checksum;  // of the newest weights, once asked for
  std::vector<Worker> workers;            // by rank
  TurnSampler* turns = nullptr;           // samples for them; null: they do
  Clock::time_point last_watch;
  std::vector<Trajectory> delivered;
  std::string last_failure;  // a clause for messages
};

RolloutServer::RolloutServer(World& world, const ClusterOptions& options,
                             std::size_t parameter_bytes)
    : RolloutServer(std::make_unique<MpiMailbox>(world), world.size(), world.host(), options,
                    parameter_bytes) {}

RolloutServer::RolloutServer(std::unique_ptr<Mailbox> mailbox, int ranks, const std::string& host,
                             const ClusterOptions& options, std::size_t parameter_bytes)
    : impl_(std::make_unique<Impl>(std::move(mailbox), ranks, host, options, parameter_bytes)) {}

RolloutServer::~RolloutServer() = default;

void RolloutServer::submit(const Assignment& assignment) { impl_->dispatcher.submit(assignment); }

std::vector<Trajectory> RolloutServer::poll() {
  impl_->pump();
  if (impl_->delivered.empty() && std::ranges::none_of(impl_->workers, &Worker::alive)) {
    throw Error("no rollout worker is left" + impl_->last_failure,
                "see the workers' logs; the run resumes from its last checkpoint",
                ExitCode::kStopped);
  }
  return std::exchange(impl_->delivered, {});
}

std::vector<Trajectory> RolloutServer::poll_for(milliseconds wait) {
  const auto until = Clock::now() + wait;
  Backoff backoff;
  for (;;) {
    std::vector<Trajectory> delivered = poll();
    if (!delivered.empty()) return delivered;
    const bool sampled = impl_->sample_turns();
    if (Clock::now() >= until) return delivered;
    if (sampled)
      backoff.reset();
    else
      backoff.wait();
  }
}

void RolloutServer::sample_with(TurnSampler* turns) { impl_->turns = turns; }

void RolloutServer::withdraw() { impl_->dispatcher.cancel_all(); }

void RolloutServer::publish(std::int64_t version, const FillWeights& fill) {
  WeightStore& store = impl_->store;
  if (version <= store.newest_version()) {
    throw Error("weights of version " + std::to_string(version) + " published after version " +
                std::to_string(store.newest_version()));
  }
  const std::span<const std::byte> slot = store.open_slot();
  Backoff backoff;
  while (impl_->in_use(slot)) {
    impl_->pump();
    backoff.wait();
  }
  store.write(version, fill);
  impl_->checksum.reset();
  for (Worker& worker : impl_->workers) {
    if (worker.state == LinkState::kOpen) impl_->send_newest_weights(worker);
  }
  impl_->mailbox->push();
}

int RolloutServer::shut_down(milliseconds wait) {
  impl_->dispatcher.cancel_all();
  std::vector<Worker*> asked;
  for (Worker& worker : impl_->workers) {
    if (!worker.alive()) continue;
    impl_->send(worker, MessageKind::kLeave);
    asked.push_back(&worker);
  }
  const auto until = Clock::now() + wait;
  Backoff backoff;
  while (std::ranges::any_of(asked, &Worker::alive) && Clock::now() < until) {
    impl_->pump();
    backoff.wait();
  }
  return static_cast<int>(std::ranges::count(asked, LinkState::kLeft, &Worker::state));
}

int RolloutServer::queued() const { return impl_->dispatcher.queued(); }

int RolloutServer::in_flight() const { return impl_->dispatcher.in_flight(); }

std::vector<WorkerStatus> RolloutServer::workers() const {
  std::vector<WorkerStatus> statuses;
  const auto now = Clock::now();
  for (const Worker& worker : impl_->workers) {
    statuses.push_back({.rank = worker.rank,
                        .alive = worker.alive(),
                        .in_flight = impl_->dispatcher.in_flight(worker.rank),
                        .weights_version = worker.weights.version,
                        .weights_seconds = worker.weights.seconds,
                        .silence = worker.clock.silence(now),
                        .endpoints = worker.endpoints});
  }
  return statuses;
}

}  // namespace rollcall
