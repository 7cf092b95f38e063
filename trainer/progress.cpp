// SPDX-License-Identifier: Apache-2.0
#include "trainer/progress.h"

#include <cstdio>

namespace rollcall {
namespace {

constexpr auto kLiveInterval = std::chrono::milliseconds(100);
constexpr auto kPlainInterval = std::chrono::seconds(10);
constexpr const char* kClearLine = "\r\033[K";

}  // namespace

void Progress::show(std::string_view line) {
  const auto now = std::chrono::steady_clock::now();
  if (now - shown_ < (live_ ? std::chrono::milliseconds(kLiveInterval)
                            : std::chrono::milliseconds(kPlainInterval)))
    return;
  shown_ = now;
  std::fprintf(stderr, live_ ? "%s%.*s" : "%.0s%.*s\n", kClearLine, static_cast<int>(line.size()),
               line.data());
  std::fflush(stderr);
  open_ = live_;
}

void Progress::keep(std::string_view line) {
  std::fprintf(stderr, "%s%.*s\n", live_ ? kClearLine : "", static_cast<int>(line.size()),
               line.data());
  std::fflush(stderr);
  open_ = false;
  shown_ = std::chrono::steady_clock::now();
}

void Progress::clear() {
  if (!open_) return;
  std::fputs(kClearLine, stderr);
  std::fflush(stderr);
  open_ = false;
  shown_ = {};
}

void Progress::finish() {
  if (open_) std::fputc('\n', stderr);
  open_ = false;
}

}  // namespace rollcall
