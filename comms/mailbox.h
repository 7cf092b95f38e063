// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "comms/link_messages.h"

namespace rollcall {

class World;

struct Message {
  int from = 0;
  MessageKind kind{};
  std::string bytes;
  bool damaged = false;  // its checksum does not match; never of what send_view() sent
};

// Point-to-point messages with any rank. Nothing here blocks, so a dead or hung peer costs only
// what was meant for it. Messages between two ranks arrive whole and in order. Single thread.
class Mailbox {
 public:
  explicit Mailbox(World&);
  // Requests still open stay with MPI, their memory is never freed: a late peer may still touch it.
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // Queues a message; at most a few a peer are handed to MPI at a time.
  void send(int to, MessageKind kind, std::string bytes);
  // The same without a copy: `memory` must stay unchanged while sends_from(memory).
  void send_view(int to, MessageKind kind, std::span<const std::byte> memory);
  bool sends_from(std::span<const std::byte> memory) const;

  // Moves data both ways, then returns the next complete message, if any.
  std::optional<Message> receive();
  // Sends what can be sent without taking in anything.
  void push();

  bool sending() const;  // something waits to be sent, or is being sent
  bool sending_to(int peer) const;
  // Gives up everything that is under way with a peer. It may be spoken to again.
  void forget(int peer);
  // True once a forgotten peer may still read memory handed to send_view().
  bool lent_memory() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rollcall
