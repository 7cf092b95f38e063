// SPDX-License-Identifier: Apache-2.0
#include "comms/cuda_plugin.h"

#include <dlfcn.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "comms/communicator.h"
#include "comms/error.h"

namespace rollcall {
namespace {

constexpr char kFileName[] = "librollcall_cuda.so";

std::vector<std::string> candidates() {
  std::vector<std::string> paths;
  std::error_code unreadable;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", unreadable);
  if (!unreadable) {
    const auto folder = self.parent_path();
    for (const auto& place : {folder, folder / "../lib", folder / "../comms"}) {
      const auto path = place / kFileName;
      if (std::filesystem::exists(path, unreadable)) paths.push_back(path.string());
    }
  }
  paths.emplace_back(kFileName);
  return paths;
}

}  // namespace

// Closed in the reverse order of opening.
struct CudaPlugin::Libraries {
  std::vector<void*> handles;

  ~Libraries() {
    for (; !handles.empty(); handles.pop_back()) ::dlclose(handles.back());
  }
  void* open(const std::string& path, int visibility) {
    void* handle = ::dlopen(path.c_str(), RTLD_NOW | visibility);
    if (handle != nullptr) handles.push_back(handle);
    return handle;
  }
  void* open_plugin() {
    std::string why;
    for (const std::string& path : candidates()) {
      if (void* handle = open(path, RTLD_LOCAL)) return handle;
      why += std::string("\n  ") + ::dlerror();
    }
    throw Error("cannot open the CUDA plugin:" + why,
                "build it with -DROLLCALL_CUDA=ON (needs nvcc and NCCL) and keep " +
                    std::string(kFileName) + " beside the rollcall binary");
  }
};

CudaPlugin::CudaPlugin() : libraries_(std::make_unique<Libraries>()) {
  if (libraries_->open("libcuda.so.1", RTLD_LOCAL) == nullptr) {
    throw Error(std::string("no NVIDIA driver: ") + ::dlerror(),
                "run on a node with a GPU and its driver, or train on CPUs");
  }
  // libtorch_cuda brings its own libnccl and libcudart, which then serve the plugin as well.
  // Without it the plugin finds those it was linked with.
  libraries_->open("libtorch_cuda.so", RTLD_GLOBAL);
  const auto entry = reinterpret_cast<decltype(&rollcall_cuda_plugin)>(
      ::dlsym(libraries_->open_plugin(), kRollcallCudaEntry));
  functions_ = entry == nullptr ? nullptr : entry();
  if (functions_ == nullptr || functions_->abi_version != kRollcallCudaAbi) {
    throw Error(std::string(kFileName) + " belongs to another build of rollcall",
                "build and install both together");
  }
}

CudaPlugin::~CudaPlugin() = default;

void CudaPlugin::check(int code) const {
  if (code == 0) return;
  throw Error(std::string("CUDA plugin: ") + functions_->last_error(),
              "see the other learners' logs for the first error", ExitCode::kStopped);
}

namespace {

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(Communicator& host, int device, std::chrono::milliseconds timeout)
      : host_(host) {
    std::string id(sizeof(RollcallNcclId), '\0');
    auto* raw = reinterpret_cast<RollcallNcclId*>(id.data());
    if (host.rank() == 0) plugin_.check(plugin_.functions().nccl_make_id(raw));
    host.broadcast(id);
    link_ = {plugin_.functions().nccl_create(reinterpret_cast<RollcallNcclId*>(id.data()),
                                             host.rank(), host.size(), device, timeout.count()),
             plugin_.functions().nccl_destroy};
    plugin_.check(link_ == nullptr ? 1 : 0);
  }

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  int size_here() const override { return host_.size_here(); }
  void barrier() override { host_.barrier(); }
  void all_sum(std::span<float> values) override {
    plugin_.check(plugin_.functions().nccl_all_sum(link_.get(), values.data(), values.size()));
  }
  void reduce_scatter_sum(std::span<float> values) override {
    plugin_.check(
        plugin_.functions().nccl_reduce_scatter_sum(link_.get(), values.data(), shard(values)));
  }
  void all_gather(std::span<float> values) override {
    plugin_.check(plugin_.functions().nccl_all_gather(link_.get(), values.data(), shard(values)));
  }
  void all_sum_host(std::span<double> values) override { host_.all_sum_host(values); }
  void broadcast(std::string& bytes) override { host_.broadcast(bytes); }

 private:
  std::size_t shard(std::span<const float> values) const {
    if (values.size() % size() == 0) return values.size() / size();
    throw Error(std::to_string(values.size()) + " values do not split into " +
                std::to_string(size()) + " equal shards");
  }

  Communicator& host_;
  CudaPlugin plugin_;
  std::unique_ptr<RollcallNccl, void (*)(RollcallNccl*)> link_{nullptr, nullptr};
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(Communicator& host, int device,
                                                     std::chrono::milliseconds timeout) {
  return std::make_unique<NcclCommunicator>(host, device, timeout);
}

}  // namespace rollcall
