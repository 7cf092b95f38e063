// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace rollcall {

class World;

// Collectives among the learners, and only them: a worker is never part of one, so its death cannot
// block a learner. Collective: all members, same order, same sizes. Blocking; throws Error.
// Sums are deterministic for a given number of members.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void barrier() = 0;
  // In place, over memory of this communicator's device (host memory for MPI, device for NCCL).
  virtual void all_sum(std::span<float> values) = 0;
  // `values` has size() equal shards; afterwards shard rank() holds the sum over the members, the
  // other shards are unspecified. values.size() must be a multiple of size().
  virtual void reduce_scatter_sum(std::span<float> values) = 0;
  // Every member contributes shard rank() of `values`; afterwards all shards are filled.
  virtual void all_gather(std::span<float> values) = 0;
  // Host scalars, whatever the device.
  virtual void all_sum_host(std::span<double> values) = 0;
  // Host bytes of member 0 to all; on the others `bytes` is replaced.
  virtual void broadcast(std::string& bytes) = 0;
};

// Over MPI, among world ranks 0..members-1; only those may call it.
std::unique_ptr<Communicator> make_mpi_communicator(World&, int members);

// A learner alone: every operation is the identity.
std::unique_ptr<Communicator> make_single_communicator();

// Over NCCL, bootstrapped by `host`; from the plugin librollcall_cuda.so, opened on first use.
// Throws Error that says which build option or driver is missing.
std::unique_ptr<Communicator> make_nccl_communicator(Communicator& host, int device);

}  // namespace rollcall
