// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace rollcall {

// A socket from every rank to the process that a person started. The kernel closes it with its
// rank, however that ends and on whatever host, so a death is noticed at once and at any moment,
// whether or not anyone waits in MPI. A host that falls silent counts as dead after 40 seconds.

// The parent's address, for its ranks.
inline constexpr char kLifelineVariable[] = "ROLLCALL_LIFELINE";

// A rank's end.
class Lifeline {
 public:
  // Connects to where the environment says. Where it says nothing, or nobody answers within
  // seconds, there is no connection and nothing below does anything.
  explicit Lifeline(int rank);
  ~Lifeline();
  Lifeline(const Lifeline&) = delete;
  Lifeline& operator=(const Lifeline&) = delete;

  bool connected() const { return socket_ >= 0; }
  // MPI has started: from now on a worker's death is the lead learner's business.
  void say_ready() const;
  // Last words: this rank ends in order, or it asks that the run end for an error.
  void say_left(int code) const;
  void say_failed(int code, const std::string& message) const;

 private:
  void say(const std::string& line) const;

  int socket_ = -1;
};

// The parent's end. Single thread; never blocks.
class LifelineHub {
 public:
  // Takes connections of this host, or of all. Throws Error if there can be none.
  explicit LifelineHub(bool one_host);
  ~LifelineHub();
  LifelineHub(const LifelineHub&) = delete;
  LifelineHub& operator=(const LifelineHub&) = delete;

  // The value of kLifelineVariable. Knowing it is what admits a rank.
  const std::string& address() const { return address_; }
  // Readable when poll() has something to do.
  int descriptor() const { return epoll_; }

  enum class End { kLeft, kFailed, kDied };
  struct RankEnd {
    int rank = 0;
    End end = End::kDied;
    bool was_ready = false;
    int code = 0;         // but for kDied
    std::string message;  // of kFailed
  };
  // The ends since the last call, in order. Each rank has one.
  std::vector<RankEnd> poll();
  // Whether any rank from `first` on that has said hello is still there.
  bool any_rank(int first = 0) const;

 private:
  struct Connection {
    std::string unread;
    int rank = -1;  // before its greeting
    bool ready = false;
  };

  void watch(int descriptor) const;
  void accept_some();
  // Where descriptors run out, connections without a greeting make room.
  void drop_strangers();
  void hear(int socket, std::vector<RankEnd>& ends);
  // False: the connection has ended.
  bool understand(Connection&, const std::string& line, std::vector<RankEnd>& ends) const;

  int epoll_ = -1;
  int listener_ = -1;
  bool one_host_;
  std::string token_;
  std::string address_;
  std::map<int, Connection> connections_;  // by socket
};

}  // namespace rollcall
