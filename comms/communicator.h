// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace rollcall {

class World;

// Collectives among the learners, and only them: a worker is never part of one, so its death cannot
// block a learner. Collective: all members, same order, same sizes. Throws Error. Blocking, but for
// what says otherwise.
// Sums are deterministic for a given number of members.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual int size_here() const { return 1; }  // members on this host, this one among them
  virtual void barrier() = 0;
  // In place, over memory of this communicator's device (host memory for MPI, device for NCCL).
  virtual void all_sum(std::span<float> values) = 0;
  // `values` has size() equal shards; afterwards shard rank() holds the sum over the members, the
  // other shards are unspecified. values.size() must be a multiple of size().
  virtual void reduce_scatter_sum(std::span<float> values) = 0;
  // The same, to be done while the caller computes: `values` belong to the communicator until
  // finish(), and no other collective may come before that. Several may be under way; members begin
  // them in the same order. progress() does what can be done without waiting, for nothing moves
  // between calls; finish() waits for all of them.
  virtual void begin_reduce_scatter_sum(std::span<float> values) { reduce_scatter_sum(values); }
  virtual void progress() {}
  virtual void finish() {}
  // Every member contributes shard rank() of `values`; afterwards all shards are filled.
  virtual void all_gather(std::span<float> values) = 0;
  // Host scalars, whatever the device.
  virtual void all_sum_host(std::span<double> values) = 0;
  // Host bytes of member 0 to all; on the others `bytes` is replaced.
  virtual void broadcast(std::string& bytes) = 0;
};

constexpr std::chrono::milliseconds kCollectiveTimeout{600000};

// A learner alone: every operation is the identity.
std::unique_ptr<Communicator> make_single_communicator();

// Over MPI, among world ranks 0..members-1; only those may call it. A member of this host
// that died, and one that does not take part within `timeout`, end the wait of the others with an
// Error (kStopped) that names its rank; nothing may be called after. An element's sum is formed in
// the order of the ranks, so all members get the same bits every time.
std::unique_ptr<Communicator> make_mpi_communicator(
    World&, int members, std::chrono::milliseconds timeout = kCollectiveTimeout);

// Over NCCL, bootstrapped by `host`, which must outlive it and serves the host operations; from the
// plugin librollcall_cuda.so. Waits for all work on the device before it touches memory. Throws
// Error that says which build option or driver is missing.
std::unique_ptr<Communicator> make_nccl_communicator(
    Communicator& host, int device, std::chrono::milliseconds timeout = kCollectiveTimeout);

}  // namespace rollcall
