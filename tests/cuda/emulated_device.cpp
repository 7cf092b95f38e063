// SPDX-License-Identifier: Apache-2.0
// The GPU as the tests have it: memory of the host, products in plain loops, and launches on the
// emulated grid. What is recorded is kept as calls.
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "model/cuda/device.h"
#include "model/cuda/number.h"

namespace rollcall::cuda {

struct Device::Impl {};
struct Device::Recording {
  std::vector<std::function<void()>> calls;
};

namespace {

void queue(std::function<void()> call) {
  if (emulated::recording == nullptr)
    call();
  else
    emulated::recording->push_back(std::move(call));
}

template <class Number>
void multiply_rows(std::int64_t rows, std::int64_t out, std::int64_t in, const Number* x,
                   const Number* w, float* y) {
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t o = 0; o < out; ++o) {
      float sum = 0;
      for (std::int64_t i = 0; i < in; ++i)
        sum += to_float(x[r * in + i]) * to_float(w[o * in + i]);
      y[r * out + o] = sum;
    }
}

}  // namespace

int Device::count() { return 1; }
Device::Device(int) {}
Device::~Device() = default;
Stream Device::stream() const { return 0; }
int Device::multiprocessors() const { return 4; }
std::size_t Device::free_bytes() const { return std::size_t{64} << 20; }

void* Device::allocate(std::size_t bytes) { return std::calloc(bytes, 1); }
void Device::release(void* memory) { std::free(memory); }
void* Device::allocate_pinned(std::size_t bytes) { return std::malloc(bytes); }
void Device::release_pinned(void* memory) { std::free(memory); }
void Device::upload(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
void Device::download(void* to, const void* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
}
void Device::copy(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
void Device::wait() {}

void Device::multiply(std::int64_t rows, std::int64_t out, std::int64_t in, const void* x,
                      const void* w, bool bfloat16, float* y) {
  queue([=] {
    if (bfloat16)
      multiply_rows(rows, out, in, static_cast<const BFloat16*>(x), static_cast<const BFloat16*>(w),
                    y);
    else
      multiply_rows(rows, out, in, static_cast<const float*>(x), static_cast<const float*>(w), y);
  });
}

namespace {
std::vector<std::function<void()>> g_calls;
}

void Device::begin_recording() {
  g_calls.clear();
  emulated::recording = &g_calls;
}

std::shared_ptr<Device::Recording> Device::end_recording() {
  emulated::recording = nullptr;
  return std::make_shared<Recording>(Recording{g_calls});
}

void Device::abandon_recording() { emulated::recording = nullptr; }

void Device::replay(const Recording& recording) {
  for (const auto& call : recording.calls) call();
}

}  // namespace rollcall::cuda
