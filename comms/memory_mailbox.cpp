// SPDX-License-Identifier: Apache-2.0
#include "comms/memory_mailbox.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <utility>

namespace rollcall {

class MemoryMailbox final : public Mailbox {
 public:
  explicit MemoryMailbox(MemoryPost& post) : post_(post) {}

  void send(int to, MessageKind kind, std::string bytes) override {
    const std::lock_guard hold(post_.mutex_);
    post_.sent_.push_back({to, kind, std::move(bytes)});
  }
  void send_view(int to, MessageKind kind, std::span<const std::byte> memory) override {
    send(to, kind, {reinterpret_cast<const char*>(memory.data()), memory.size()});
  }
  std::optional<Message> receive() override {
    if (arrived_.empty()) fetch();
    if (arrived_.empty()) return std::nullopt;
    std::optional<Message> next(std::move(arrived_.front()));
    arrived_.pop_front();
    return next;
  }

  // What was sent has arrived, and nobody reads the sender's memory.
  void push() override {}
  bool sends_from(std::span<const std::byte>) const override { return false; }
  bool sending() const override { return false; }
  bool sending_to(int) const override { return false; }
  void forget(int) override {}
  bool lent_memory() const override { return false; }

 private:
  void fetch() {
    std::vector<Message> fetched;
    {
      const std::lock_guard hold(post_.mutex_);
      fetched = std::exchange(post_.delivered_, {});
    }
    std::ranges::move(fetched, std::back_inserter(arrived_));
  }

  MemoryPost& post_;
  std::deque<Message> arrived_;
};

std::unique_ptr<Mailbox> MemoryPost::mailbox() { return std::make_unique<MemoryMailbox>(*this); }

std::vector<Letter> MemoryPost::take() {
  const std::lock_guard hold(mutex_);
  return std::exchange(sent_, {});
}

void MemoryPost::deliver(std::vector<Message> messages) {
  const std::lock_guard hold(mutex_);
  std::ranges::move(messages, std::back_inserter(delivered_));
}

}  // namespace rollcall
