// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <thread>

#include "comms/cuda/plugin_parts.h"

struct RollcallNccl {
  ncclComm_t communicator = nullptr;
  cudaStream_t stream = nullptr;
  int rank = 0;
  int device = 0;
  std::chrono::milliseconds timeout{};
  bool aborted = false;

  ~RollcallNccl() {
    if (communicator != nullptr && !aborted) ncclCommDestroy(communicator);
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
};

namespace rollcall::cuda {
namespace {

using Clock = std::chrono::steady_clock;

static_assert(sizeof(RollcallNcclId) == sizeof(ncclUniqueId));

constexpr std::chrono::microseconds kProbePause{20};

int check(cudaError_t code, const char* call) {
  return code == cudaSuccess ? 0 : fail(call, cudaGetErrorString(code));
}

int check(ncclResult_t code, const char* call) {
  return code == ncclSuccess || code == ncclInProgress ? 0 : fail(call, ncclGetErrorString(code));
}

// NCCL's own waits never end when a member is dead; ncclCommAbort frees the device from them.
int give_up(RollcallNccl& link, const char* call, const char* why) {
  ncclCommAbort(link.communicator);
  link.aborted = true;
  return fail(call, why);
}

// Waits until `finished` says so (1), fails (-1), NCCL reports an error, or time is up.
int wait(RollcallNccl& link, const char* call, const std::function<int()>& finished) {
  const auto until = Clock::now() + link.timeout;
  for (;;) {
    ncclResult_t state = ncclSuccess;
    ncclCommGetAsyncError(link.communicator, &state);
    if (state != ncclSuccess && state != ncclInProgress) {
      return give_up(link, call, ncclGetErrorString(state));
    }
    const int progress = finished();
    if (progress < 0) return 1;
    if (state == ncclSuccess && progress > 0) return 0;
    if (Clock::now() > until)
      return give_up(link, call, "timed out waiting for the other learners");
    std::this_thread::sleep_for(kProbePause);
  }
}

int stream_progress(cudaStream_t stream) {
  const cudaError_t state = cudaStreamQuery(stream);
  if (state == cudaErrorNotReady) return 0;
  return check(state, "cudaStreamQuery") == 0 ? 1 : -1;
}

int run(RollcallNccl* link, const char* call, const std::function<ncclResult_t()>& collective) {
  if (link->aborted) return fail(call, "the communicator was given up before");
  if (check(cudaSetDevice(link->device), "cudaSetDevice") != 0) return 1;
  if (check(cudaDeviceSynchronize(), "cudaDeviceSynchronize") != 0) return 1;
  if (check(collective(), call) != 0) return 1;
  return wait(*link, call, [&] { return stream_progress(link->stream); });
}

int open(RollcallNccl& link, const RollcallNcclId& id, int size) {
  if (check(cudaSetDevice(link.device), "cudaSetDevice") != 0) return 1;
  if (check(cudaStreamCreateWithFlags(&link.stream, cudaStreamNonBlocking), "cudaStreamCreate") !=
      0) {
    return 1;
  }
  ncclUniqueId unique;
  std::memcpy(&unique, &id, sizeof unique);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t started =
      ncclCommInitRankConfig(&link.communicator, size, unique, link.rank, &config);
  if (check(started, "ncclCommInitRankConfig") != 0) return 1;
  return wait(link, "ncclCommInitRankConfig", [] { return 1; });
}

}  // namespace

int nccl_make_id(RollcallNcclId* id) {
  ncclUniqueId unique;
  if (check(ncclGetUniqueId(&unique), "ncclGetUniqueId") != 0) return 1;
  std::memcpy(id, &unique, sizeof unique);
  return 0;
}

RollcallNccl* nccl_create(const RollcallNcclId* id, int rank, int size, int device,
                          std::int64_t timeout_ms) {
  std::unique_ptr<RollcallNccl> link(new (std::nothrow) RollcallNccl);
  if (!link) {
    fail("nccl_create", "out of memory");
    return nullptr;
  }
  link->rank = rank;
  link->device = device;
  link->timeout = std::chrono::milliseconds(timeout_ms);
  return open(*link, *id, size) == 0 ? link.release() : nullptr;
}

void nccl_destroy(RollcallNccl* communicator) { delete communicator; }

int nccl_all_sum(RollcallNccl* link, float* values, std::size_t count) {
  return run(link, "ncclAllReduce", [&] {
    return ncclAllReduce(values, values, count, ncclFloat32, ncclSum, link->communicator,
                         link->stream);
  });
}

int nccl_reduce_scatter_sum(RollcallNccl* link, float* values, std::size_t shard) {
  return run(link, "ncclReduceScatter", [&] {
    return ncclReduceScatter(values, values + link->rank * shard, shard, ncclFloat32, ncclSum,
                             link->communicator, link->stream);
  });
}

int nccl_all_gather(RollcallNccl* link, float* values, std::size_t shard) {
  return run(link, "ncclAllGather", [&] {
    return ncclAllGather(values + link->rank * shard, values, shard, ncclFloat32,
                         link->communicator, link->stream);
  });
}

}  // namespace rollcall::cuda
