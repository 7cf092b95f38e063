// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "comms/mailbox.h"

namespace rollcall {

class World;

// Between the ranks of an MPI program; at most a few messages a peer are handed to MPI at a time.
class MpiMailbox final : public Mailbox {
 public:
  explicit MpiMailbox(World&);
  // Requests still open stay with MPI, their memory is never freed: a late peer may still touch it.
  ~MpiMailbox() override;

  void send(int to, MessageKind kind, std::string bytes) override;
  void send_view(int to, MessageKind kind, std::span<const std::byte> memory) override;
  bool sends_from(std::span<const std::byte> memory) const override;
  std::optional<Message> receive() override;
  void push() override;
  bool sending() const override;
  bool sending_to(int peer) const override;
  void forget(int peer) override;
  bool lent_memory() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rollcall
