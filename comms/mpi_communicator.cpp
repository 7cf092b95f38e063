// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <numeric>
#include <optional>
#include <set>

#include "comms/backoff.h"
#include "comms/communicator.h"
#include "comms/error.h"
#include "comms/link_messages.h"
#include "comms/mpi_check.h"
#include "comms/process_watch.h"
#include "comms/silence_clock.h"
#include "comms/world.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTag = 0;  // messages of a pair arrive in the order of the calls
constexpr std::size_t kBlockFloats = std::size_t{1} << 18;
constexpr std::size_t kBlockBytes = std::size_t{64} << 20;
constexpr int kProbesBeforeSleep = 2000;
// What a process sent before its end may still be on the way through MPI.
constexpr std::chrono::milliseconds kLastWordsPatience{200};
// All members may be stopped together for a while: a longer pause of ours counts as one of these.
constexpr std::chrono::milliseconds kLongestPause{1000};

struct Range {
  std::size_t begin = 0;
  std::size_t size = 0;
};

// The sub-communicator of the learners. It is not freed: MPI_Comm_free is collective and would wait
// for members that may be dead.
MPI_Comm create_learner_communicator(int members) {
  std::vector<int> ranks(members);
  std::iota(ranks.begin(), ranks.end(), 0);
  MPI_Group world = MPI_GROUP_NULL;
  MPI_Group learners = MPI_GROUP_NULL;
  MPI_Comm created = MPI_COMM_NULL;
  check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
  check_mpi(MPI_Group_incl(world, members, ranks.data(), &learners), "MPI_Group_incl");
  check_mpi(MPI_Comm_create_group(MPI_COMM_WORLD, learners, kTag, &created),
            "MPI_Comm_create_group");
  MPI_Group_free(&learners);
  MPI_Group_free(&world);
  check_mpi(MPI_Comm_set_errhandler(created, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return created;
}

// Own algorithms over point-to-point messages: MPI's reductions choose their order by size and
// transport, and a wait inside them could not be ended when a member dies.
class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(const World& world, int members, std::chrono::milliseconds timeout)
      : rank_(world.rank()),
        size_(members),
        timeout_(timeout),
        communicator_(create_learner_communicator(members)) {
    watch_members(system_identity(world.host()));
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int size_here() const override { return size_here_; }

  void barrier() override {
    std::byte nothing{};
    for (int other = 0; other < size_; ++other) {
      if (other == rank_) continue;
      receive(other, &nothing, 0);
      send(other, &nothing, 0);
    }
    wait("barrier");
  }

  void all_sum(std::span<float> values) override {
    begin_sum(values);
    finish();
    gather_from_owners(values);
  }

  void reduce_scatter_sum(std::span<float> values) override {
    begin_reduce_scatter_sum(values);
    finish();
  }

  void begin_reduce_scatter_sum(std::span<float> values) override {
    check_shards(values);
    begin_sum(values);
  }

  void progress() override {
    while (!sums_.empty() && arrived()) finish_block();
  }

  void finish() override {
    while (!sums_.empty()) {
      wait("sum");
      finish_block();
    }
  }

  void all_gather(std::span<float> values) override {
    check_shards(values);
    gather_from_owners(values);
  }

  void all_sum_host(std::span<double> values) override {
    std::vector<double> all(values.size() * size_);
    const auto part = [&](int member) { return all.data() + member * values.size(); };
    std::ranges::copy(values, part(rank_));
    for (int other = 0; other < size_; ++other) {
      if (other == rank_) continue;
      receive(other, part(other), values.size_bytes());
      send(other, values.data(), values.size_bytes());
    }
    wait("sum of host values");
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = part(0)[i];
      for (int member = 1; member < size_; ++member) values[i] += part(member)[i];
    }
  }

  void broadcast(std::string& bytes) override {
    std::uint64_t length = bytes.size();
    broadcast_block(&length, sizeof length);
    bytes.resize(length);
    for (std::size_t done = 0; done < bytes.size(); done += kBlockBytes) {
      broadcast_block(bytes.data() + done, std::min(kBlockBytes, bytes.size() - done));
    }
  }

 private:
  void check_shards(std::span<const float> values) const {
    if (values.size() % size_ == 0) return;
    throw Error(std::to_string(values.size()) + " values do not split into " +
                std::to_string(size_) + " equal shards");
  }

  // Shards differ by at most one value; equal ones when the count divides.
  Range shard(std::size_t values, int member) const {
    const std::size_t begin = values * member / size_;
    return {begin, values * (member + 1) / size_ - begin};
  }

  // Part `block` of a member's shard; all members walk the blocks together.
  std::span<float> block_of(std::span<float> values, int member, std::size_t block) const {
    const Range range = shard(values.size(), member);
    const std::size_t begin = std::min(block * kBlockFloats, range.size);
    return values.subspan(range.begin + begin, std::min(kBlockFloats, range.size - begin));
  }

  std::size_t block_count(std::size_t values) const {
    const std::size_t longest = (values + size_ - 1) / size_;
    return (longest + kBlockFloats - 1) / kBlockFloats;
  }

  // Of `values` all members have a block on the way at a time.
  struct BlockSum {
    std::span<float> values;
    std::size_t block = 0;
  };

  void begin_sum(std::span<float> values) {
    if (size_ == 1) return;
    const bool idle = sums_.empty();
    for (std::size_t block = 0; block < block_count(values.size()); ++block)
      sums_.push_back({values, block});
    if (idle && !sums_.empty()) begin_block();
  }

  void begin_block() {
    const auto& [values, block] = sums_.front();
    const std::span<float> mine = block_of(values, rank_, block);
    scratch_.resize(mine.size() * size_);
    for (int other = 0; other < size_; ++other) {
      if (other == rank_) continue;
      receive(other, scratch_.data() + other * mine.size(), mine.size_bytes());
      const std::span<float> theirs = block_of(values, other, block);
      send(other, theirs.data(), theirs.size_bytes());
    }
  }

  void finish_block() {
    const std::span<float> mine = block_of(sums_.front().values, rank_, sums_.front().block);
    std::ranges::copy(mine, scratch_.data() + rank_ * mine.size());
    sum_in_rank_order(mine);
    sums_.pop_front();
    if (!sums_.empty()) begin_block();
  }

  void sum_in_rank_order(std::span<float> out) const {
    std::copy_n(scratch_.data(), out.size(), out.data());
    for (int member = 1; member < size_; ++member) {
      const float* addend = scratch_.data() + member * out.size();
      for (std::size_t i = 0; i < out.size(); ++i) out[i] += addend[i];
    }
  }

  void gather_from_owners(std::span<float> values) {
    for (std::size_t block = 0; block < block_count(values.size()); ++block) {
      const std::span<float> mine = block_of(values, rank_, block);
      for (int other = 0; other < size_; ++other) {
        if (other == rank_) continue;
        const std::span<float> theirs = block_of(values, other, block);
        receive(other, theirs.data(), theirs.size_bytes());
        send(other, mine.data(), mine.size_bytes());
      }
      wait("gather");
    }
  }

  void broadcast_block(void* bytes, std::size_t size) {
    if (rank_ == 0) {
      for (int other = 1; other < size_; ++other) send(other, bytes, size);
    } else {
      receive(0, bytes, size);
    }
    wait("broadcast");
  }

  void send(int to, const void* bytes, std::size_t size) {
    peers_.push_back(to);
    requests_.push_back(MPI_REQUEST_NULL);
    check_mpi(MPI_Isend(bytes, static_cast<int>(size), MPI_BYTE, to, kTag, communicator_,
                        &requests_.back()),
              "MPI_Isend");
  }

  void receive(int from, void* bytes, std::size_t size) {
    peers_.push_back(from);
    requests_.push_back(MPI_REQUEST_NULL);
    check_mpi(MPI_Irecv(bytes, static_cast<int>(size), MPI_BYTE, from, kTag, communicator_,
                        &requests_.back()),
              "MPI_Irecv");
  }

  // Learns the process ids of the members on this host.
  void watch_members(const std::string& host) {
    struct Place {
      std::uint64_t host = 0;
      std::int64_t process = 0;
    };
    std::vector<Place> places(size_);
    places[rank_] = {std::hash<std::string>()(host), ::getpid()};
    for (int other = 0; other < size_; ++other) {
      if (other == rank_) continue;
      receive(other, &places[other], sizeof(Place));
      send(other, &places[rank_], sizeof(Place));
    }
    wait("greeting");
    watches_.resize(size_);
    size_here_ = static_cast<int>(std::ranges::count(
        places, places[rank_].host, [](const Place& place) { return place.host; }));
    for (int other = 0; other < size_; ++other) {
      if (other == rank_ || places[other].host != places[rank_].host) continue;
      watches_[other] = ProcessWatch(static_cast<int>(places[other].process));
    }
  }

  std::optional<int> dead_member() const {
    const auto dead = std::ranges::find_if(watches_, &ProcessWatch::ended);
    if (dead == watches_.end()) return std::nullopt;
    return static_cast<int>(dead - watches_.begin());
  }

  // Whether all that is on the way has come, and forgets it then.
  bool arrived() {
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                          MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (done == 0) return false;
    requests_.clear();
    peers_.clear();
    return true;
  }

  void wait(const char* what) {
    SilenceClock silence(std::min(kLongestPause, timeout_ / 4), Clock::now());
    std::optional<int> dead;
    Clock::time_point last_words;
    Backoff backoff;
    for (int probes = 0; !arrived(); ++probes) {
      if (probes < kProbesBeforeSleep) continue;
      const auto now = Clock::now();
      silence.listen(now);
      if (!dead && (dead = dead_member())) last_words = now + kLastWordsPatience;
      if (dead && now > last_words) throw_death(what, *dead);
      if (silence.silent_for(timeout_, now)) throw_timeout(what);
      backoff.wait();
    }
  }

  [[noreturn]] static void throw_death(const char* what, int dead) {
    throw Error(
        "rank " + std::to_string(dead) + ", a learner, died; it was waited for in a " + what,
        "see its log, then start again: the run resumes from its last checkpoint",
        ExitCode::kStopped);
  }

  [[noreturn]] void throw_timeout(const char* what) const {
    const double seconds = std::chrono::duration<double>(timeout_).count();
    throw Error(fmt::format("nothing was heard of rank {}, a learner, for {} s; it was waited for "
                            "in a {}",
                            fmt::join(silent_members(), " and rank "), seconds, what),
                "it hangs, or its host is gone: see its log, then start again: the run resumes. If "
                "it was only slow, raise cluster.learner_timeout",
                ExitCode::kStopped);
  }

  std::set<int> silent_members() const {
    std::set<int> silent;
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      int done = 0;
      MPI_Request_get_status(requests_[i], &done, MPI_STATUS_IGNORE);
      if (done == 0) silent.insert(peers_[i]);
    }
    return silent;
  }

  const int rank_;
  const int size_;
  int size_here_ = 1;
  const std::chrono::milliseconds timeout_;
  const MPI_Comm communicator_;
  std::vector<ProcessWatch> watches_;  // of members on this host; the others' watch nothing
  std::vector<MPI_Request> requests_;
  std::vector<int> peers_;      // of the requests
  std::deque<BlockSum> sums_;   // under way, the first of them on its way between the members
  std::vector<float> scratch_;  // its block from every member
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(World& world, int members,
                                                    std::chrono::milliseconds timeout) {
  if (members < 1 || members > world.size() || world.rank() >= members) {
    throw Error("rank " + std::to_string(world.rank()) + " of " + std::to_string(world.size()) +
                " asked for a communicator of " + std::to_string(members) + " learners");
  }
  return std::make_unique<MpiCommunicator>(world, members, timeout);
}

}  // namespace rollcall
