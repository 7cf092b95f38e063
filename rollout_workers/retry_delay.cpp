// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/retry_delay.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "rollout_workers/http_date.h"

namespace rollcall {

RetryDelay::RetryDelay(BackoffOptions options)
    : options_(options), random_(std::random_device{}()) {}

std::chrono::milliseconds RetryDelay::draw(int retry) {
  const std::int64_t doubled = options_.base.count() << std::clamp(retry, 0, 20);
  std::uniform_int_distribution<std::int64_t> jitter(
      0, std::clamp<std::int64_t>(doubled, 0, options_.cap.count()));
  return std::chrono::milliseconds(jitter(random_));
}

std::optional<std::chrono::milliseconds> retry_after(const HttpReply& reply,
                                                     std::chrono::system_clock::time_point now) {
  static constexpr std::int64_t kLongestSeconds = 24 * 3600;
  const std::string* value = find_header(reply, "retry-after");
  if (value == nullptr) return std::nullopt;
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), seconds);
  if (error != std::errc{} || end != value->data() + value->size()) {
    const auto until = parse_http_date(*value);
    if (!until) return std::nullopt;
    const std::string* date = find_header(reply, "date");
    const auto server_now = date == nullptr ? std::nullopt : parse_http_date(*date);
    const auto from = server_now.value_or(std::chrono::floor<std::chrono::seconds>(now));
    seconds = (*until - from).count();
  }
  return std::chrono::seconds(std::clamp<std::int64_t>(seconds, 0, kLongestSeconds));
}

}  // namespace rollcall
