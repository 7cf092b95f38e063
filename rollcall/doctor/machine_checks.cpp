// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "comms/cuda_plugin.h"
#include "comms/error.h"
#include "comms/launcher.h"
#include "comms/machine_memory.h"
#include "comms/scratch_folder.h"
#include "model/cpu_kernels.h"
#include "rollcall/doctor/checks.h"

namespace rollcall {
namespace {

constexpr std::int64_t kSegmentOfRank = 4 << 20;  // Open MPI's btl_vader_segment_size

int ranks_of(const Patient& patient) {
  return patient.config ? patient.config->cluster.learners + patient.config->cluster.workers : 2;
}

// As published: two slots of float32 or bfloat16, but for what panels are padded with.
std::int64_t published_bytes(const Patient& patient) {
  const bool small = patient.config && patient.config->model.dtype == "bfloat16";
  return 2 * patient.parameters * (small ? 2 : 4);
}

bool has_anonymous_files() {
  const int descriptor = ::memfd_create("rollcall-doctor", MFD_CLOEXEC);
  if (descriptor >= 0) ::close(descriptor);
  return descriptor >= 0;
}

Finding check_shm_folder(const Patient& patient) {
  const std::string what = "shared memory";
  const ScratchFolder scratch("/dev/shm");
  struct statvfs status {};
  if (scratch.path().empty() || ::statvfs("/dev/shm", &status) != 0)
    return {what, Health::kFailed, "/dev/shm is not there or not writable",
            "mount it: mount -t tmpfs shm /dev/shm; in a container: --shm-size or --bind /dev/shm"};
  const auto free =
      static_cast<std::int64_t>(status.f_bavail) * static_cast<std::int64_t>(status.f_frsize);
  const bool anonymous = has_anonymous_files();
  const std::int64_t weights = anonymous ? 0 : published_bytes(patient);
  const std::int64_t needed = ranks_of(patient) * kSegmentOfRank + weights;
  const std::string detail = fmt::format("/dev/shm has {} free, {} ranks need {}", size_text(free),
                                         ranks_of(patient), size_text(needed));
  if (free >= needed) return {what, Health::kOk, detail};
  return {what, Health::kFailed, detail,
          fmt::format("make it larger: mount -o remount,size={}M /dev/shm; in a container: "
                      "--shm-size={}m. Or delete what dead processes left there",
                      needed / 1000000 + 64, needed / 1000000 + 64)};
}

std::vector<Finding> check_memory(const Patient& patient) {
  const std::int64_t available = available_memory(), slots = published_bytes(patient);
  if (available < 0 || slots == 0) return {};
  const bool copied = memory_nodes() > 1;
  const std::int64_t weights = copied ? slots + ranks_of(patient) * slots / 2 : slots;
  const std::string detail = fmt::format(
      "{} available; the weights that workers {} take {} of it, the learner several times as much",
      size_text(available), copied ? "copy, to have them near," : "share", size_text(weights));
  if (available > weights) return {{"memory", Health::kOk, detail}};
  return {{"memory", Health::kFailed, detail,
           "take a machine with more memory, model.dtype: bfloat16 or a smaller model"}};
}

Finding check_copies() {
  const std::string what = "process memory";
  if (inspect_launch_site().shared_memory_copies)
    return {what, Health::kOk, "ranks may copy from each other directly (CMA)"};
  return {what, Health::kWarning, "ranks may not read each other's memory: one more copy a message",
          "nothing has to be done. Faster: sysctl kernel.yama.ptrace_scope=0; in a container "
          "--cap-add=SYS_PTRACE"};
}

// The driver's own C functions: there are no headers of it where no GPU is.
struct Driver {
  int version = 0;  // 12040: CUDA 12.4
  int devices = 0;
  int error = 0;  // CUresult; 0: none
};

Driver ask_driver(void* library) {
  const auto call = [&](const char* name, auto... arguments) {
    const auto function = reinterpret_cast<int (*)(decltype(arguments)...)>(::dlsym(library, name));
    return function == nullptr ? -1 : function(arguments...);
  };
  Driver driver;
  driver.error = call("cuInit", 0U);
  call("cuDriverGetVersion", &driver.version);
  if (driver.error == 0) driver.error = call("cuDeviceGetCount", &driver.devices);
  return driver;
}

Finding check_driver(bool wanted) {
  const std::string what = "GPU";
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  const Health absent = wanted ? Health::kWarning : Health::kMissing;
  if (library == nullptr)
    return {what, absent, "no NVIDIA driver; runs use the CPU",
            "on a machine with GPUs install its driver; in a container: --nv or --gpus all"};
  const Driver driver = ask_driver(library);
  const std::string version =
      fmt::format("driver for CUDA {}.{}", driver.version / 1000, driver.version % 1000 / 10);
  if (driver.error != 0 || driver.devices == 0)
    return {what, absent,
            fmt::format("{}, but no device (error {}); runs use the CPU", version, driver.error),
            "see nvidia-smi and CUDA_VISIBLE_DEVICES; in Slurm ask for one: gpus_per_learner"};
  return {what, Health::kOk, fmt::format("{} devices, {}", driver.devices, version)};
}

Finding check_plugin(bool wanted) {
  const std::string what = "NCCL";
  try {
    const CudaPlugin plugin;
    RollcallNcclId id{};
    plugin.check(plugin.functions().nccl_make_id(&id));
    return {what, Health::kOk, "the CUDA plugin loads and NCCL answers"};
  } catch (const Error& error) {
    std::string detail = error.what();
    std::replace(detail.begin(), detail.end(), '\n', ' ');
    return {what, wanted ? Health::kWarning : Health::kMissing, detail, error.what_to_do()};
  }
}

}  // namespace

std::string size_text(std::int64_t bytes) {
  constexpr double kGiga = 1e9;
  const auto value = static_cast<double>(bytes);
  return value >= kGiga ? fmt::format("{:.1f} GB", value / kGiga)
                        : fmt::format("{:.0f} MB", value / 1e6);
}

std::vector<Finding> check_cores(const Patient& patient) {
  const CpuKernels& kernels = cpu_kernels();
  const int cores = static_cast<int>(std::thread::hardware_concurrency()),
            ranks = ranks_of(patient);
  const bool slow = std::string(kernels.isa) == "generic";
  std::vector<Finding> findings{{"CPU kernels", slow ? Health::kWarning : Health::kOk, kernels.isa,
                                 "take a CPU with AVX2 or AVX-512: these kernels are many times "
                                 "faster, and their bits differ "
                                 "from the generic ones'"}};
  const std::string detail = fmt::format("{} for {} ranks", cores, ranks);
  const std::int64_t here = (ranks + patient.site.nodes - 1) / patient.site.nodes;
  findings.push_back(
      {"cores", here > cores ? Health::kWarning : Health::kOk, detail,
       fmt::format("ranks would share cores and wait for each other: lower "
                   "cluster.workers to {} or take more cores",
                   std::max(1, cores - (patient.config ? patient.config->cluster.learners : 1)))});
  return findings;
}

std::vector<Finding> check_shared_memory(const Patient& patient) {
  std::vector<Finding> findings{check_shm_folder(patient), check_copies()};
  for (Finding& finding : check_memory(patient)) findings.push_back(std::move(finding));
  return findings;
}

std::vector<Finding> check_gpu(const Patient& patient) {
  const bool wanted = patient.site.gpus_per_learner > 0;
  return {check_driver(wanted), check_plugin(wanted)};
}

std::int64_t open_files_needed(const RunConfig& config) {
  constexpr std::int64_t kOthers = 128;  // libraries, logs, MPI
  std::int64_t calls = config.grader.max_concurrency;
  if (!config.grader.second.url.empty()) calls += config.grader.second.max_concurrency;
  for (const ToolOptions& tool : config.tools) calls += tool.max_concurrency;
  const std::int64_t most =
      std::int64_t{config.cluster.rollouts_per_worker} *
      std::max(1, config.rollout.max_tool_calls);  // a turn may call several tools at once
  return std::min(calls, most) + kOthers;
}

std::vector<Finding> check_open_files(const Patient& patient) {
  const std::string what = "open files";
  constexpr std::int64_t kUsual = 1024;
  const std::int64_t needed = patient.config ? open_files_needed(*patient.config) : kUsual;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= static_cast<rlim_t>(needed))
    return {
        {what, Health::kOk, fmt::format("limit {}, a worker may need {}", limit.rlim_cur, needed)}};
  const bool allowed = limit.rlim_max >= static_cast<rlim_t>(needed);
  const bool enough_for_one_call_each =
      patient.config &&
      limit.rlim_cur >= 128U + static_cast<rlim_t>(patient.config->cluster.rollouts_per_worker);
  return {{what, enough_for_one_call_each || !patient.config ? Health::kWarning : Health::kFailed,
           fmt::format("limit {}, a worker may need {}", limit.rlim_cur, needed),
           allowed
               ? fmt::format("ulimit -n {}; in a job: setup: [\"ulimit -n {}\"] in the site file",
                             needed, needed)
               : fmt::format("the hard limit is {}: ask for more (limits.conf, LimitNOFILE), or "
                             "lower max_concurrency of tools and cluster.rollouts_per_worker",
                             limit.rlim_max)}};
}

}  // namespace rollcall
