// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/scratch_folder.h"
#include "rollcall/doctor/bounded.h"
#include "rollcall/doctor/checks.h"
#include "trainer/journal_hdf5.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kDataset = "numbers";
constexpr std::int64_t kRows = 1000;

constexpr const char* kNfs =
    "a reader on another node sees the journal late; locks need NFS version 4 or a lock daemon; "
    "one run must not be started on two nodes at once";
constexpr const char* kLustre =
    "locks hold between nodes only where it is mounted with the option flock (lfs and mount say); "
    "one run must not be started on two nodes at once";
constexpr const char* kMemory = "it is in memory: a run is gone when the machine stops";
constexpr const char* kLayer =
    "the layer of a container: a run is gone with the container. Bind a folder of the host";

struct KnownFileSystem {
  std::int64_t type;
  const char* name;
  const char* advice;
};

// The numbers of statfs(2).
constexpr std::array kKnown = {
    KnownFileSystem{0xEF53, "ext4", ""},
    KnownFileSystem{0x58465342, "xfs", ""},
    KnownFileSystem{0x9123683E, "btrfs", ""},
    KnownFileSystem{0x2FC12FC1, "zfs", ""},
    KnownFileSystem{0x01021994, "tmpfs", kMemory},
    KnownFileSystem{0x858458F6, "ramfs", kMemory},
    KnownFileSystem{0x794C7630, "overlay", kLayer},
    KnownFileSystem{0x6969, "NFS", kNfs},
    KnownFileSystem{0xFF534D42, "CIFS", kNfs},
    KnownFileSystem{0xFE534D42, "SMB", kNfs},
    KnownFileSystem{0x0BD00BD0, "Lustre", kLustre},
    KnownFileSystem{0x47504653, "GPFS", ""},
    KnownFileSystem{0x19830326, "BeeGFS", kLustre},
    KnownFileSystem{0x00C36400, "Ceph", ""},
    KnownFileSystem{0x01021997, "9p", ""},
    KnownFileSystem{0x65735546, "FUSE", "what it can do depends on the program behind it"},
};

class Opened {
 public:
  explicit Opened(const fs::path& path)
      : descriptor_(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)) {
    if (descriptor_ < 0)
      throw Error(path.string() + ": " + std::strerror(errno), "choose another run.dir");
  }
  ~Opened() { ::close(descriptor_); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  bool lock() const { return ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0; }

 private:
  int descriptor_;
};

// As the lock of a run is taken; a second one must be refused.
Finding check_locks(const fs::path& folder) {
  const std::string what = "file locks";
  const Opened first(folder / "lock"), second(folder / "lock");
  if (!first.lock())
    return {what, Health::kWarning, std::string("flock: ") + std::strerror(errno),
            "take care yourself that no run is started twice, or mount with locks (Lustre: option "
            "flock; NFS: version 4)"};
  if (second.lock())
    return {what, Health::kWarning, "a file that is locked can be locked again",
            "take care yourself that no run is started twice"};
  return {what, Health::kOk, "work between processes of this node"};
}

Finding judge_reader(const BoundedEnd& reader, double sync_ms) {
  const std::string what = "HDF5 journal";
  if (reader.code == 0 && reader.text == std::to_string(kRows) + "\n")
    return {what, sync_ms > 1000 ? Health::kWarning : Health::kOk,
            fmt::format("a second process reads while it is written (SWMR); fsync took {:.1f} ms",
                        sync_ms),
            "each commit waits for the disk: a faster run.dir helps"};
  return {what, Health::kWarning,
          "a second process cannot read while it is written: " + reader.text,
          "the run itself works; rollcall inspect may have to wait for its end. A local disk or "
          "another run.dir helps"};
}

Finding check_swmr(const fs::path& folder, const std::string& program) {
  const fs::path path = folder / "journal.h5";
  Hdf5File file = Hdf5File::create(path);
  Hdf5Array::create(file, kDataset, int64_element(), 0, kRows);
  file.start_swmr();
  Hdf5Array numbers(file, kDataset, int64_element());
  std::vector<std::int64_t> values(kRows);
  std::iota(values.begin(), values.end(), 0);
  numbers.write(0, values.data(), kRows);
  numbers.flush();
  file.flush();
  const auto begin = Clock::now();
  file.sync();
  const double sync_ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  return judge_reader(
      run_program(std::chrono::seconds(15), {program, "doctor", "--read", path.string()}), sync_ms);
}

Finding check_replacing(const fs::path& folder) {
  const fs::path file = folder / "whole";
  for (const char* text : {"before", "after"}) write_durably(file, text);
  if (read_file(file) == "after")
    return {"rename, fsync", Health::kOk, "files are replaced whole, and reach the disk"};
  return {"rename, fsync", Health::kFailed, "a file that was replaced still has its old contents",
          "choose a run.dir on another file system"};
}

Finding describe(const fs::path& folder) {
  struct statfs status {};
  if (::statfs(folder.c_str(), &status) != 0)
    return {"run folder", Health::kFailed, folder.string() + ": " + std::strerror(errno),
            "choose another run.dir"};
  const FileSystem system = file_system_of(static_cast<std::int64_t>(status.f_type));
  return {"run folder", system.advice.empty() ? Health::kOk : Health::kWarning,
          folder.string() + " on " + system.name, system.advice};
}

}  // namespace

FileSystem file_system_of(std::int64_t type) {
  const std::int64_t number = type & 0xFFFFFFFF;
  for (const KnownFileSystem& known : kKnown)
    if (known.type == number) return {known.name, known.advice};
  return {fmt::format("a file system of type {:#x}", number), ""};
}

int read_probe_journal(const fs::path& path) {
  const Hdf5File file(path, Hdf5Access::kRead);
  const Hdf5Array numbers(file, kDataset, int64_element());
  const std::vector<std::int64_t> values = numbers.read<std::int64_t>(0, numbers.length());
  std::printf("%zu\n", values.empty() || values.back() != kRows - 1 ? 0 : values.size());
  return 0;
}

std::vector<Finding> check_journal_folder(const Patient& patient) {
  std::vector<Finding> findings{describe(patient.folder)};
  if (findings.front().health == Health::kFailed) return findings;
  const ScratchFolder scratch(patient.folder);
  if (scratch.path().empty())
    return {{"run folder", Health::kFailed,
             "cannot write to " + patient.folder.string() + ": " + std::strerror(errno),
             "choose a run.dir that you may write to, on a file system that all nodes see"}};
  findings.push_back(check_locks(scratch.path()));
  findings.push_back(check_replacing(scratch.path()));
  findings.push_back(check_swmr(scratch.path(), patient.program));
  return findings;
}

std::int64_t disk_needed(const RunConfig& config, std::int64_t parameters) {
  // Of a checkpoint: float32 weights and two moments. Of an adapter they are negligible.
  const std::int64_t checkpoint = config.model.train == "lora" ? 0 : 12 * parameters;
  return (config.checkpoint.keep + 1) * checkpoint + 4 * parameters;
}

std::vector<Finding> check_disk_space(const Patient& patient) {
  struct statvfs status {};
  if (::statvfs(patient.folder.c_str(), &status) != 0) return {};
  const auto free =
      static_cast<std::int64_t>(status.f_bavail) * static_cast<std::int64_t>(status.f_frsize);
  constexpr std::int64_t kJournal = 1'000'000'000;
  const std::int64_t needed =
      kJournal + (patient.config ? disk_needed(*patient.config, patient.parameters) : 0);
  const std::string detail =
      fmt::format("{} free; checkpoints, export and a journal of 1 GB take about {}",
                  size_text(free), size_text(needed));
  if (free >= needed) return {{"disk space", Health::kOk, detail}};
  const bool no_checkpoint = patient.config && free < 12 * patient.parameters;
  return {{"disk space", no_checkpoint ? Health::kFailed : Health::kWarning, detail,
           "free some, choose another run.dir, or lower checkpoint.keep; the quota counts too "
           "(quota -s)"}};
}

}  // namespace rollcall
