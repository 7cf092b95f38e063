// SPDX-License-Identifier: Apache-2.0
#include <mpi.h>
#include <signal.h>

#include <bit>
#include <random>
#include <vector>

#include "comms/communicator.h"
#include "tests/mpi/mpi_test.h"

namespace rollcall {
namespace {

// Values of wildly different sizes, so that another order of additions gives other bits.
std::vector<float> contribution(int member, std::size_t count) {
  std::mt19937 random(member + 1);
  std::vector<float> values(count);
  for (float& value : values) {
    value = std::ldexp(static_cast<float>(random()) / 4e9F - 0.5F, static_cast<int>(random() % 40));
  }
  return values;
}

std::vector<float> sum_in_rank_order(int members, std::size_t count) {
  std::vector<float> sum = contribution(0, count);
  for (int member = 1; member < members; ++member) {
    const std::vector<float> next = contribution(member, count);
    for (std::size_t i = 0; i < count; ++i) sum[i] += next[i];
  }
  return sum;
}

void check_all_sum(World& world, Communicator& learners) {
  // Around the shards' and blocks' borders, and none at all.
  for (const std::size_t count : {0, 1, 3, 4, 1000, (1 << 20) + 5, 3'000'001}) {
    const std::vector<float> expected = sum_in_rank_order(learners.size(), count);
    for (int repeat = 0; repeat < 2; ++repeat) {
      std::vector<float> values = contribution(learners.rank(), count);
      learners.all_sum(values);
      require(world, values == expected, "all_sum of " + std::to_string(count));
    }
  }
}

void check_shards(World& world, Communicator& learners) {
  const std::size_t shard = 300'001;
  const std::size_t count = shard * learners.size();
  const std::vector<float> expected = sum_in_rank_order(learners.size(), count);
  std::vector<float> values = contribution(learners.rank(), count);
  learners.reduce_scatter_sum(values);
  const std::size_t mine = shard * learners.rank();
  require(world,
          std::equal(values.begin() + mine, values.begin() + mine + shard, expected.begin() + mine),
          "reduce_scatter_sum");
  learners.all_gather(values);
  require(world, values == expected, "all_gather");
  if (learners.size() == 1) return;
  bool refused = false;
  try {
    std::vector<float> uneven(learners.size() + 1);
    learners.all_gather(uneven);
  } catch (const Error&) {
    refused = true;
  }
  require(world, refused, "uneven shards are refused");
}

// Sums that are under way together, of other sizes than their blocks.
void check_overlapped_sums(World& world, Communicator& learners) {
  const std::size_t members = learners.size();
  std::vector<std::vector<float>> values;
  for (const std::size_t shard : {1, 300'001, 0, 1 << 18, 5})
    values.push_back(contribution(learners.rank(), shard * members));
  for (std::vector<float>& of : values) {
    learners.begin_reduce_scatter_sum(of);
    learners.progress();
  }
  learners.finish();
  learners.finish();  // of nothing
  for (const std::vector<float>& of : values) {
    const std::vector<float> expected = sum_in_rank_order(learners.size(), of.size());
    const auto mine = static_cast<std::ptrdiff_t>(of.size() / members * learners.rank());
    require(world,
            std::equal(expected.begin() + mine,
                       expected.begin() + mine + static_cast<std::ptrdiff_t>(of.size() / members),
                       of.begin() + mine),
            "sums under way together: " + std::to_string(of.size()));
  }
}

void check_host_values(World& world, Communicator& learners) {
  std::vector<double> values{0.1 * (learners.rank() + 1), 1, 1e300};
  learners.all_sum_host(values);
  double tenths = 0.1;
  for (int member = 1; member < learners.size(); ++member) tenths += 0.1 * (member + 1);
  require(world, values[0] == tenths && values[1] == learners.size(), "all_sum_host");
}

void check_broadcast(World& world, Communicator& learners) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{5}, (std::size_t{64} << 20) + 1}) {
    const std::string expected(size, 'w');
    std::string bytes = learners.rank() == 0 ? expected : "something else";
    learners.broadcast(bytes);
    require(world, bytes == expected, "broadcast of " + std::to_string(size));
  }
}

// Everybody but the last rank is a learner where there are several ranks: others take no part.
void check_everything(World& world) {
  const int members = std::max(1, world.size() - 1);
  if (world.rank() < members) {
    const auto learners = make_mpi_communicator(world, members);
    require(world, learners->size() == members && learners->rank() == world.rank(), "ranks");
    require(world, learners->size_here() == members, "all ranks are on this host");
    learners->barrier();
    check_all_sum(world, *learners);
    check_shards(world, *learners);
    check_overlapped_sums(world, *learners);
    check_host_values(world, *learners);
    check_broadcast(world, *learners);
    learners->barrier();
    if (world.rank() == 0) std::cout << "PASSED" << std::endl;
  }
}

// All ranks below `members` wait for each other, with no help of what is under test.
void meet(int members) {
  std::vector<MPI_Request> requests;
  std::byte nothing{};
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  for (int other = 0; other < members; ++other) {
    if (other == rank) continue;
    MPI_Irecv(&nothing, 0, MPI_BYTE, other, 0, MPI_COMM_WORLD, &requests.emplace_back());
    MPI_Isend(&nothing, 0, MPI_BYTE, other, 0, MPI_COMM_WORLD, &requests.emplace_back());
  }
  MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
}

// A dead member is noticed at once, one that hangs after a while.
void outlive_a_member(World& world, int signal_number, std::chrono::milliseconds timeout,
                      const std::string& says) {
  const auto learners = make_mpi_communicator(world, world.size(), timeout);
  learners->barrier();
  const int last = world.size() - 1;
  if (world.rank() == last) {
    ::raise(signal_number);
    return;  // stopped, and woken when the others were done
  }
  std::vector<float> values(1'000'000, 1.0F);
  try {
    learners->all_sum(values);
    require(world, false, "a sum without a member must not succeed");
  } catch (const Error& error) {
    require(world, error.exit_code() == ExitCode::kStopped, "the error asks for a resume");
    require(world, std::string(error.what()).find(says) != std::string::npos, error.what());
  }
  meet(last);  // or the slower of the survivors sees the faster one's end first
  if (world.rank() == 0) std::cout << "PASSED" << std::endl;
}

void test(World& world, const std::string& mode) {
  const std::string last = "rank " + std::to_string(world.size() - 1);
  if (mode == "lost") {
    outlive_a_member(world, SIGKILL, kCollectiveTimeout, last + ", a learner, died");
  } else if (mode == "hung") {
    outlive_a_member(world, SIGSTOP, std::chrono::milliseconds(700),
                     "heard of " + last + ", a learner, for 0.7 s");
  } else {
    check_everything(world);
  }
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::run_mpi_test(argc, argv, rollcall::test); }
