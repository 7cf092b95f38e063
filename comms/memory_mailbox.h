// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "comms/mailbox.h"

namespace rollcall {

struct Letter {
  int to = 0;
  MessageKind kind{};
  std::string bytes;
};

// Stands for MPI and the other ranks: rank 0's mailbox, and one plays all others. For tests and for
// simulations of more ranks than a machine bears. Bytes are handed over, not copied; only views
// are. The other side may be another thread.
class MemoryPost {
 public:
  // Rank 0's end. The post must outlive it.
  std::unique_ptr<Mailbox> mailbox();

  // What rank 0 sent since the last call, in order.
  std::vector<Letter> take();
  // Messages to rank 0, appended in the order given.
  void deliver(std::vector<Message> messages);

 private:
  friend class MemoryMailbox;
  std::mutex mutex_;
  std::vector<Letter> sent_;        // guarded by mutex_
  std::vector<Message> delivered_;  // likewise
};

}  // namespace rollcall
