// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/http_date.h"

#include <cstdio>
#include <cstring>

namespace rollcall {

std::optional<std::chrono::sys_seconds> parse_http_date(const std::string& text) {
  int day = 0, year = 0, hour = 0, minute = 0, second = 0;
  char month[4] = {};
  if (std::sscanf(text.c_str(), "%*[A-Za-z], %2d%*1[ -]%3[A-Za-z]%*1[ -]%4d %2d:%2d:%2d GMT", &day,
                  month, &year, &hour, &minute, &second) != 6)
    return std::nullopt;
  static constexpr char kMonths[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  const char* found = std::strlen(month) == 3 ? std::strstr(kMonths, month) : nullptr;
  if (found == nullptr || (found - kMonths) % 3 != 0) return std::nullopt;
  const std::chrono::year_month_day date{
      std::chrono::year{year}, std::chrono::month{static_cast<unsigned>((found - kMonths) / 3 + 1)},
      std::chrono::day{static_cast<unsigned>(day)}};
  if (!date.ok() || hour > 23 || minute > 59 || second > 60 || hour < 0 || minute < 0 || second < 0)
    return std::nullopt;
  return std::chrono::sys_days{date} + std::chrono::hours{hour} + std::chrono::minutes{minute} +
         std::chrono::seconds{second};
}

}  // namespace rollcall
