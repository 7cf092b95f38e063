// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "comms/link_messages.h"

namespace rollcall {

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
  Mailbox() = default;
  virtual ~Mailbox() = default;
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // Queues a message.
  virtual void send(int to, MessageKind kind, std::string bytes) = 0;
  // The same without a copy: `memory` must stay unchanged while sends_from(memory).
  virtual void send_view(int to, MessageKind kind, std::span<const std::byte> memory) = 0;
  virtual bool sends_from(std::span<const std::byte> memory) const = 0;

  // Moves data both ways, then returns the next complete message, if any.
  virtual std::optional<Message> receive() = 0;
  // Sends what can be sent without taking in anything.
  virtual void push() = 0;

  virtual bool sending() const = 0;  // something waits to be sent, or is being sent
  virtual bool sending_to(int peer) const = 0;
  // Gives up everything that is under way with a peer. It may be spoken to again.
  virtual void forget(int peer) = 0;
  // True once a forgotten peer may still read memory handed to send_view().
  virtual bool lent_memory() const = 0;
};

}  // namespace rollcall
