// SPDX-License-Identifier: Apache-2.0
#include "comms/mpi_mailbox.h"

#include <mpi.h>
#include <xxhash.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "comms/fault_injection.h"
#include "comms/mpi_check.h"
#include "comms/world.h"

namespace rollcall {
namespace {

// Enough to keep a link busy; few enough that a flood of messages cannot hold the receiver in MPI.
constexpr std::size_t kSendsInFlight = 4;
constexpr int kMatchesPerCall = 64;

struct Send {
  MessageKind kind{};
  std::string owned;
  std::span<const std::byte> view;  // of `owned` or of the caller's memory
  bool lent = false;
  MPI_Request request = MPI_REQUEST_NULL;
};

struct Receive {
  Message message;
  MPI_Request request = MPI_REQUEST_NULL;
  bool done = false;
};

// Addresses must not move while MPI knows them, hence the pointers.
struct Outbox {
  std::deque<std::unique_ptr<Send>> waiting;
  std::deque<std::unique_ptr<Send>> in_flight;
};
using Inbox = std::deque<std::unique_ptr<Receive>>;

bool finished(MPI_Request& request) {
  int done = 0;
  check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
  return done != 0;
}

bool overlaps(std::span<const std::byte> a, std::span<const std::byte> b) {
  const std::less<const std::byte*> before;
  return before(a.data(), b.data() + b.size()) && before(b.data(), a.data() + a.size());
}

constexpr std::size_t kChecksumBytes = sizeof(XXH64_hash_t);

XXH64_hash_t checksum(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

// Chunks of weights are large, lent, and have a checksum of the whole.
bool is_sealed(MessageKind kind) { return kind != MessageKind::kWeightsChunk; }

void seal(std::string& bytes) {
  const auto sum = checksum(bytes);
  bytes.append(reinterpret_cast<const char*>(&sum), kChecksumBytes);
}

// Takes the checksum off. False if it is not that of the bytes.
bool unseal(std::string& bytes) {
  if (bytes.size() < kChecksumBytes) return false;
  XXH64_hash_t sum = 0;
  std::memcpy(&sum, bytes.data() + bytes.size() - kChecksumBytes, kChecksumBytes);
  bytes.resize(bytes.size() - kChecksumBytes);
  return checksum(bytes) == sum;
}

// MPI keeps the request and its memory for as long as the process lives.
template <typename T>
void leave_to_mpi(std::deque<std::unique_ptr<T>>& operations) {
  for (auto& operation : operations) {
    if (operation->request != MPI_REQUEST_NULL) operation.release();
  }
  operations.clear();
}

}  // namespace

struct MpiMailbox::Impl {
  std::map<int, Outbox> outboxes;  // by peer; only of peers that something is under way with
  std::map<int, Inbox> inboxes;    // likewise, in the order of matching
  std::deque<Message> arrived;
  bool lent_memory = false;

  void push(int peer, Outbox& box) {
    std::erase_if(box.in_flight, [](const auto& send) { return finished(send->request); });
    while (!box.waiting.empty() && box.in_flight.size() < kSendsInFlight) {
      Send& next = *box.waiting.front();
      check_mpi(MPI_Isend(next.view.data(), static_cast<int>(next.view.size()), MPI_BYTE, peer,
                          static_cast<int>(next.kind), MPI_COMM_WORLD, &next.request),
                "MPI_Isend");
      box.in_flight.push_back(std::move(box.waiting.front()));
      box.waiting.pop_front();
    }
  }

  bool match_one() {
    int found = 0;
    MPI_Message matched = MPI_MESSAGE_NULL;
    MPI_Status status;
    check_mpi(MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &found, &matched, &status),
              "MPI_Improbe");
    if (found == 0) return false;
    int size = 0;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &size), "MPI_Get_count");
    auto receive = std::make_unique<Receive>();
    receive->message.from = status.MPI_SOURCE;
    receive->message.kind = static_cast<MessageKind>(status.MPI_TAG);
    receive->message.bytes.resize(size);
    check_mpi(
        MPI_Imrecv(receive->message.bytes.data(), size, MPI_BYTE, &matched, &receive->request),
        "MPI_Imrecv");
    inboxes[status.MPI_SOURCE].push_back(std::move(receive));
    return true;
  }

  // A later message may be complete before an earlier one of the same peer: it waits.
  void collect(Inbox& box) {
    for (auto& receive : box) receive->done = receive->done || finished(receive->request);
    while (!box.empty() && box.front()->done) {
      Message& message = box.front()->message;
      message.damaged = is_sealed(message.kind) && !unseal(message.bytes);
      arrived.push_back(std::move(message));
      box.pop_front();
    }
  }
};

MpiMailbox::MpiMailbox(World&) : impl_(std::make_unique<Impl>()) {}

MpiMailbox::~MpiMailbox() {
  for (auto& [peer, box] : impl_->outboxes) leave_to_mpi(box.in_flight);
  for (auto& [peer, box] : impl_->inboxes) leave_to_mpi(box);
}

void MpiMailbox::send(int to, MessageKind kind, std::string bytes) {
  if (bytes.size() > INT_MAX - kChecksumBytes) {
    throw Error("a message of " + std::to_string(bytes.size()) + " bytes is too long for MPI",
                "lower rollout.context or the size of tool outputs");
  }
  seal(bytes);
  if (fault_point("message") == Fault::kCorrupt) bytes[bytes.size() / 2] ^= 1;
  auto send = std::make_unique<Send>();
  send->kind = kind;
  send->owned = std::move(bytes);
  send->view = std::as_bytes(std::span(send->owned));
  impl_->outboxes[to].waiting.push_back(std::move(send));
}

void MpiMailbox::send_view(int to, MessageKind kind, std::span<const std::byte> memory) {
  auto send = std::make_unique<Send>();
  send->kind = kind;
  send->view = memory;
  send->lent = true;
  impl_->outboxes[to].waiting.push_back(std::move(send));
}

bool MpiMailbox::sends_from(std::span<const std::byte> memory) const {
  const auto uses = [&](const auto& send) { return send->lent && overlaps(send->view, memory); };
  return std::ranges::any_of(impl_->outboxes, [&](const auto& entry) {
    return std::ranges::any_of(entry.second.in_flight, uses) ||
           std::ranges::any_of(entry.second.waiting, uses);
  });
}

std::optional<Message> MpiMailbox::receive() {
  if (impl_->arrived.empty()) {
    push();
    for (int i = 0; i < kMatchesPerCall && impl_->match_one(); ++i) {
    }
    for (auto& [peer, box] : impl_->inboxes) impl_->collect(box);
    std::erase_if(impl_->inboxes, [](const auto& entry) { return entry.second.empty(); });
  }
  if (impl_->arrived.empty()) return std::nullopt;
  std::optional<Message> next(std::move(impl_->arrived.front()));
  impl_->arrived.pop_front();
  return next;
}

void MpiMailbox::push() {
  for (auto& [peer, box] : impl_->outboxes) impl_->push(peer, box);
  std::erase_if(impl_->outboxes, [](const auto& entry) {
    return entry.second.waiting.empty() && entry.second.in_flight.empty();
  });
}

bool MpiMailbox::sending() const {
  return std::ranges::any_of(impl_->outboxes,
                             [&](const auto& entry) { return sending_to(entry.first); });
}

bool MpiMailbox::sending_to(int peer) const {
  const auto box = impl_->outboxes.find(peer);
  return box != impl_->outboxes.end() &&
         !(box->second.waiting.empty() && box->second.in_flight.empty());
}

void MpiMailbox::forget(int peer) {
  Outbox& out = impl_->outboxes[peer];
  impl_->lent_memory =
      impl_->lent_memory ||
      std::ranges::any_of(out.in_flight, [](const auto& send) { return send->lent; });
  out.waiting.clear();
  leave_to_mpi(out.in_flight);
  leave_to_mpi(impl_->inboxes[peer]);
}

bool MpiMailbox::lent_memory() const {
  const auto lent = [](const auto& send) { return send->lent; };
  return impl_->lent_memory || std::ranges::any_of(impl_->outboxes, [&](const auto& entry) {
           return std::ranges::any_of(entry.second.in_flight, lent);
         });
}

}  // namespace rollcall
