// SPDX-License-Identifier: Apache-2.0
#include "comms/machine_memory.h"

#include <gtest/gtest.h>

#include <fstream>

#include "temp_folder.h"

namespace rollcall {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

// A machine of 1,000 MiB, of which 600 are available.
class MachineMemoryTest : public testing::Test {
 protected:
  MachineMemoryTest() {
    put("proc/meminfo", "MemTotal:  1024000 kB\nMemFree: 100 kB\nMemAvailable:  614400 kB\n");
  }

  void put(const std::string& file, const std::string& text) const {
    const auto path = folder_.path() / file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  std::int64_t mib() const { return available_memory(folder_.path()) / kMiB; }

  TempFolder folder_;
};

TEST_F(MachineMemoryTest, IsWhatTheSystemSays) { EXPECT_EQ(mib(), 600); }

TEST_F(MachineMemoryTest, IsLessWhereAJobMayTakeLess) {
  put("proc/self/cgroup", "0::/slurm/job_7/step_0\n");
  put("sys/fs/cgroup/slurm/job_7/step_0/memory.max", "max\n");
  put("sys/fs/cgroup/slurm/job_7/step_0/memory.current", "1\n");
  EXPECT_EQ(mib(), 600);
  put("sys/fs/cgroup/slurm/job_7/memory.max", std::to_string(500 * kMiB));
  put("sys/fs/cgroup/slurm/job_7/memory.current", std::to_string(300 * kMiB));
  EXPECT_EQ(mib(), 200);
  put("sys/fs/cgroup/slurm/job_7/memory.stat",
      "anon 5\ninactive_file " + std::to_string(100 * kMiB) + "\n");
  EXPECT_EQ(mib(), 300);
  put("sys/fs/cgroup/slurm/job_7/memory.current", std::to_string(700 * kMiB));
  EXPECT_EQ(mib(), 0) << "above its limit";
}

TEST_F(MachineMemoryTest, KnowsTheFirstVersionOfControlGroups) {
  put("proc/self/cgroup", "5:cpu:/other\n4:memory:/on/the/host\n0::/\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(400 * kMiB));
  put("sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(150 * kMiB));
  EXPECT_EQ(mib(), 250);
}

TEST_F(MachineMemoryTest, DoesWithoutWhatItCannotRead) {
  put("proc/self/cgroup", "nonsense\n0::\n::\n4:memory\n");
  put("sys/fs/cgroup/memory.max", "nonsense");
  EXPECT_EQ(mib(), 600);
  put("proc/meminfo", "");
  EXPECT_EQ(available_memory(folder_.path()), -1);
}

TEST_F(MachineMemoryTest, CountsNodes) {
  EXPECT_EQ(memory_nodes(folder_.path()), 1) << "no list";
  const std::pair<const char*, int> lists[] = {
      {"0", 1},     {"0-1", 2},  {"0,2-3", 3},        {"0-3,8-11", 8}, {"", 1},
      {"nodes", 1}, {"0,1x", 1}, {"0-", 1},           {"3-1", 1},      {"-2", 1},
      {"0,,1", 1},  {"0;1", 1},  {"0-99999999999", 1}};
  for (const auto& [list, nodes] : lists) {
    put("proc/self/status", std::string("Mems_allowed:\t3\nMems_allowed_list:\t") + list + "\n");
    EXPECT_EQ(memory_nodes(folder_.path()), nodes) << list;
  }
}

}  // namespace
}  // namespace rollcall
