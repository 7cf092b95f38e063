// SPDX-License-Identifier: Apache-2.0
#include <cublas_v2.h>

#include <stdexcept>
#include <string>

#include "model/cuda/device.h"

namespace rollcall::cuda {
namespace {

// What cuBLAS may use beside its operands; without memory of its own it could not be recorded.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

void check(cudaError_t code, const char* call) {
  if (code != cudaSuccess)
    throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(code));
}

void check(cublasStatus_t code, const char* call) {
  if (code != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string(call) + ": " + cublasGetStatusString(code));
}

}  // namespace

void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

struct Device::Impl {
  int ordinal = 0, multiprocessors = 0;
  cudaStream_t stream = nullptr;
  cublasHandle_t blas = nullptr;
  void* workspace = nullptr;

  ~Impl() {
    if (blas != nullptr) cublasDestroy(blas);
    if (workspace != nullptr) cudaFree(workspace);
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
};

struct Device::Recording {
  cudaGraphExec_t graph = nullptr;

  ~Recording() {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
};

int Device::count() {
  int devices = 0;
  check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  return devices;
}

Device::Device(int ordinal) : impl_(std::make_unique<Impl>()) {
  impl_->ordinal = ordinal;
  check(cudaSetDevice(ordinal), "cudaSetDevice");
  check(cudaDeviceGetAttribute(&impl_->multiprocessors, cudaDevAttrMultiProcessorCount, ordinal),
        "cudaDeviceGetAttribute");
  check(cudaStreamCreateWithFlags(&impl_->stream, cudaStreamNonBlocking), "cudaStreamCreate");
  check(cublasCreate(&impl_->blas), "cublasCreate");
  check(cudaMalloc(&impl_->workspace, kWorkspaceBytes), "cudaMalloc");
  check(cublasSetStream(impl_->blas, impl_->stream), "cublasSetStream");
  check(cublasSetWorkspace(impl_->blas, impl_->workspace, kWorkspaceBytes), "cublasSetWorkspace");
}
Device::~Device() = default;

Stream Device::stream() const { return impl_->stream; }
int Device::multiprocessors() const { return impl_->multiprocessors; }

std::size_t Device::free_bytes() const {
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free;
}

void* Device::allocate(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes), "cudaMalloc");
  check(cudaMemsetAsync(memory, 0, bytes, impl_->stream), "cudaMemset");
  return memory;
}

void Device::release(void* memory) {
  cudaStreamSynchronize(impl_->stream);
  cudaFree(memory);
}

void* Device::allocate_pinned(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMallocHost(&memory, bytes), "cudaMallocHost");
  return memory;
}

void Device::release_pinned(void* memory) {
  cudaStreamSynchronize(impl_->stream);
  cudaFreeHost(memory);
}

void Device::upload(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, impl_->stream), "cudaMemcpyAsync");
}

void Device::download(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, impl_->stream), "cudaMemcpyAsync");
}

void Device::copy(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, impl_->stream),
        "cudaMemcpyAsync");
}

void Device::wait() { check(cudaStreamSynchronize(impl_->stream), "cudaStreamSynchronize"); }

// cuBLAS counts by columns: there y is [out, rows] = w [out, in] x [in, rows], w being stored
// transposed.
void Device::multiply(std::int64_t rows, std::int64_t out, std::int64_t in, const void* x,
                      const void* w, bool bfloat16, float* y) {
  const float one = 1, zero = 0;
  const cudaDataType_t number = bfloat16 ? CUDA_R_16BF : CUDA_R_32F;
  const auto m = static_cast<int>(out), n = static_cast<int>(rows), k = static_cast<int>(in);
  check(cublasGemmEx(impl_->blas, CUBLAS_OP_T, CUBLAS_OP_N, m, n, k, &one, w, number, k, x, number,
                     k, &zero, y, CUDA_R_32F, m, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}

void Device::begin_recording() {
  check(cudaStreamBeginCapture(impl_->stream, cudaStreamCaptureModeThreadLocal),
        "cudaStreamBeginCapture");
}

std::shared_ptr<Device::Recording> Device::end_recording() {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(impl_->stream, &graph), "cudaStreamEndCapture");
  auto recording = std::make_shared<Recording>();
  const cudaError_t made = cudaGraphInstantiate(&recording->graph, graph, 0);
  cudaGraphDestroy(graph);
  check(made, "cudaGraphInstantiate");
  return recording;
}

void Device::abandon_recording() {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(impl_->stream, &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
}

void Device::replay(const Recording& recording) {
  check(cudaGraphLaunch(recording.graph, impl_->stream), "cudaGraphLaunch");
}

}  // namespace rollcall::cuda
