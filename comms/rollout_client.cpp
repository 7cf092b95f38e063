// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <optional>
#include <span>
#include <utility>

#include "comms/backoff.h"
#include "comms/error.h"
#include "comms/fault_injection.h"
#include "comms/log.h"
#include "comms/machine_memory.h"
#include "comms/message_weights.h"
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

constexpr int kLead = 0;
constexpr int kMessagesPerPump = 64;
constexpr std::chrono::seconds kFarewellPatience{1};
constexpr std::chrono::milliseconds kStatusInterval{50};  // at least, between deliveries

// For a while.
void flush(Mailbox& mailbox) {
  mailbox.push();
  const auto until = Clock::now() + kFarewellPatience;
  Backoff backoff;
  while (mailbox.sending() && Clock::now() < until) {
    mailbox.push();
    backoff.wait();
  }
}

}  // namespace

struct RolloutClient::Impl {
  Impl(World& world, const ClusterOptions& cluster, std::size_t bytes)
      : options(cluster),
        parameter_bytes(bytes),
        mailbox(world),
        messages(bytes),
        lead_clock(cluster.heartbeat_every, Clock::now()) {
    send(MessageKind::kHello, encode(Hello{system_identity(world.host()), ::getpid()}));
    mailbox.push();
  }

  void send(MessageKind kind, std::string bytes = {}) {
    mailbox.send(kLead, kind, std::move(bytes));
    last_sent = Clock::now();
  }

  bool attach(const Welcome& welcome) {
    if (!welcome.shared_memory) return false;
    try {
      shared.emplace(welcome.address, parameter_bytes, welcome.readers, welcome.reader, place);
    } catch (const Error& error) {
      log_info(std::string("weights will come by messages: ") + error.what());
    }
    return shared.has_value();
  }

  void on_welcome(const Welcome& welcome) {
    if (welcome.parameter_bytes != parameter_bytes) {
      throw Error("the learner publishes " + std::to_string(welcome.parameter_bytes) +
                      " bytes of weights, this worker expects " + std::to_string(parameter_bytes),
                  "all ranks must load the same model with the same dtype");
    }
    const bool attached = attach(welcome);
    if (attached) lead = ProcessWatch(welcome.process);
    if (welcome.shared_memory) send(MessageKind::kAttached, attached ? "1" : "0");
  }

  void on_leave() {
    if (std::exchange(leaving, true)) return;
    said_farewell = true;
    send(MessageKind::kFarewell);
  }

  void handle(const Message& message, Inbox& inbox) {
    if (message.damaged)
      throw Error("a message of the lead learner was damaged on its way",
                  "see that the network of this host is sound");
    switch (message.kind) {
      case MessageKind::kWelcome:
        return on_welcome(decode_welcome(message.bytes));
      case MessageKind::kAssignment:
        inbox.assignments.push_back(decode_assignment(message.bytes));
        return;
      case MessageKind::kWeightsBegin:
        return messages.begin(decode_weights_begin(message.bytes));
      case MessageKind::kWeightsChunk:
        return messages.chunk(message.bytes);
      case MessageKind::kSampled:
        inbox.turns.push_back(decode_turn_reply(message.bytes));
        return;
      case MessageKind::kLeave:
        return on_leave();
      default:
        return;
    }
  }

  void watch_lead(Clock::time_point now) {
    lead_clock.listen(now);
    if (leaving) return;
    const bool ended = lead.ended();
    // The learners come first: they know better which of them hangs.
    if (!ended && !lead_clock.silent_for(options.learner_timeout * 3 / 2, now)) return;
    log_warning(ended ? "the lead learner's process ended: leaving"
                      : "the lead learner has been silent too long: leaving");
    leaving = true;
    lost_lead = true;
    said_farewell = true;  // nobody is there to hear it
    mailbox.forget(kLead);
  }

  // A worker that has something to tell is never silent for long, but its news may be old.
  void beat(Clock::time_point now) {
    const bool silent = now - last_sent >= options.heartbeat_every;
    if ((!silent && now - last_beat < options.heartbeat_every) || mailbox.sending()) return;
    if (!tell_status(now) && silent) send(MessageKind::kHeartbeat);
  }

  // False if there is nothing to tell.
  bool tell_status(Clock::time_point now) {
    last_beat = now;
    const auto endpoints = status ? status() : std::vector<EndpointStatus>();
    if (endpoints.empty()) return false;
    send(MessageKind::kHeartbeat, encode(endpoints));
    return true;
  }

  void pump(Inbox& inbox) {
    for (int i = 0; i < kMessagesPerPump; ++i) {
      const std::optional<Message> message = mailbox.receive();
      if (!message) break;
      lead_clock.heard(Clock::now());
      handle(*message, inbox);
    }
    const auto now = Clock::now();
    watch_lead(now);
    if (!leaving) beat(now);
    mailbox.push();
    inbox.leave = leaving;
  }

  ClusterOptions options;
  std::size_t parameter_bytes;
  // The learner's memory may be on another node, and a decoding step reads all of the weights.
  WeightReader::Place place =
      memory_nodes() > 1 ? WeightReader::Place::kPrivate : WeightReader::Place::kShared;
  MpiMailbox mailbox;
  std::optional<WeightReader> shared;
  MessageWeights messages;
  ProcessWatch lead;
  SilenceClock lead_clock;
  std::function<std::vector<EndpointStatus>()> status;
  Clock::time_point last_sent, last_beat;
  bool leaving = false;
  bool said_farewell = false;
  bool lost_lead = false;
};

RolloutClient::RolloutClient(World& world, const ClusterOptions& options,
                             std::size_t parameter_bytes)
    : impl_(std::make_unique<Impl>(world, options, parameter_bytes)) {}

RolloutClient::~RolloutClient() {
  try {
    flush(impl_->mailbox);
  } catch (const Error& error) {
    log_warning(std::string("no farewell: ") + error.what());
  }
}

void leave_with_failure(World& world, const Error& error) try {
  MpiMailbox mailbox(world);
  mailbox.send(kLead, MessageKind::kFailure,
               encode(Failure{error.exit_code(), error.what(), error.what_to_do()}));
  flush(mailbox);
} catch (const Error& silence) {
  log_warning(std::string("no last words: ") + silence.what());
}

RolloutClient::Inbox RolloutClient::poll() {
  Inbox inbox;
  impl_->pump(inbox);
  return inbox;
}

void RolloutClient::deliver(const Trajectory& trajectory) {
  if (impl_->said_farewell) return;
  fault_point("delivery");
  // A step may end with this one: what it met on the way belongs to the step.
  const auto now = Clock::now();
  if (now - impl_->last_beat >= kStatusInterval) impl_->tell_status(now);
  impl_->send(MessageKind::kDelivery, encode(trajectory));
}

void RolloutClient::request(const TurnRequest& turn) {
  if (!impl_->said_farewell) impl_->send(MessageKind::kTurn, encode(turn));
}

void RolloutClient::close_session(std::int64_t session) {
  if (!impl_->said_farewell) impl_->send(MessageKind::kClose, encode_number(session));
}

void RolloutClient::report(std::function<std::vector<EndpointStatus>()> status) {
  impl_->status = std::move(status);
}

bool RolloutClient::lost_lead() const { return impl_->lost_lead; }

bool RolloutClient::idle() const { return !impl_->mailbox.sending(); }

std::int64_t RolloutClient::newest_version() const {
  return impl_->shared ? impl_->shared->newest_version() : impl_->messages.version();
}

bool RolloutClient::given_up() const { return impl_->shared && impl_->shared->overwritten(); }

bool RolloutClient::give_way(const UseWeights& use) {
  if (!impl_->shared || impl_->shared->give_way(use)) return true;
  log_warning("the lead learner has given this worker up and has overwritten its weights: leaving");
  impl_->leaving = true;
  impl_->said_farewell = true;  // nobody listens any more
  return false;
}

std::int64_t RolloutClient::load_weights(const UseWeights& use) {
  if (newest_version() < 0) throw Error("no weights were published yet");
  const auto begin = Clock::now();
  const std::int64_t version = impl_->shared ? impl_->shared->load(use) : impl_->messages.load(use);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  impl_->send(MessageKind::kLoaded, encode(WeightsLoaded{version, seconds}));
  return version;
}

}  // namespace rollcall
