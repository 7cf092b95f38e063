// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "model/cuda/grid.h"

namespace rollcall::cuda {

// One GPU, with a stream on which everything queues in order. What fails throws std::runtime_error
// with what CUDA says. Single thread. The tests have a twin that computes on the CPU.
class Device {
 public:
  static int count();  // that this process sees
  explicit Device(int ordinal);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  Stream stream() const;
  int multiprocessors() const;
  std::size_t free_bytes() const;

  void* allocate(std::size_t bytes);  // zeros
  void release(void* memory);
  void* allocate_pinned(std::size_t bytes);  // on the host
  void release_pinned(void* memory);

  // Queued. `from` must be pinned, and stay as it is until the stream has come so far.
  void upload(void* to, const void* from, std::size_t bytes);
  void download(void* to, const void* from, std::size_t bytes);
  void copy(void* to, const void* from, std::size_t bytes);  // on the GPU
  void wait();                                               // until all that was queued is done

  // y [rows, out] float32 = x [rows, in] times w [out, in] transposed, all row by row; x and w are
  // both float32 or both bfloat16, the sums are float32.
  void multiply(std::int64_t rows, std::int64_t out, std::int64_t in, const void* x, const void* w,
                bool bfloat16, float* y);

  // What is queued between the two is recorded and not done; replay() queues it as one. With the
  // addresses and sizes of then, and whatever the memory holds now.
  struct Recording;
  void begin_recording();
  std::shared_ptr<Recording> end_recording();
  void abandon_recording();
  void replay(const Recording&);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Memory on a device, or pinned on its host; freed with its owner.
class Memory {
 public:
  Memory() = default;
  Memory(Device& device, std::size_t bytes, bool pinned = false)
      : device_(&device),
        bytes_(bytes),
        pinned_(pinned),
        data_(pinned ? device.allocate_pinned(bytes) : device.allocate(bytes)) {}
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Memory() {
    if (data_ == nullptr) return;
    if (pinned_)
      device_->release_pinned(data_);
    else
      device_->release(data_);
  }

  template <class Element = void>
  Element* as() const {
    return static_cast<Element*>(data_);
  }
  std::size_t bytes() const { return bytes_; }
  bool empty() const { return data_ == nullptr; }

 private:
  void swap(Memory& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(bytes_, other.bytes_);
    std::swap(pinned_, other.pinned_);
    std::swap(data_, other.data_);
  }

  Device* device_ = nullptr;
  std::size_t bytes_ = 0;
  bool pinned_ = false;
  void* data_ = nullptr;
};

}  // namespace rollcall::cuda
