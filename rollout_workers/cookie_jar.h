// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace rollcall {

// The cookies of one trace (RFC 6265, but every cookie stays with the host that set it: a Domain
// attribute is ignored). Dies with the trace. Single thread.
class CookieJar {
 public:
  // Takes the set-cookie headers of a reply from `url`.
  void store(const std::string& url,
             const std::vector<std::pair<std::string, std::string>>& reply_headers,
             std::chrono::system_clock::time_point now);
  // The Cookie header for a request to `url`; empty if there is none to send.
  std::string header_for(const std::string& url, std::chrono::system_clock::time_point now) const;

 private:
  struct Cookie {
    std::string name, value, host, path;
    bool secure = false;
    std::optional<std::chrono::sys_seconds> expires;  // in ns the year 9999 would overflow
  };
  static bool is_over(const Cookie&, std::chrono::system_clock::time_point now);
  void put(Cookie);
  static std::optional<Cookie> parse(const std::string& line, const std::string& url,
                                     std::chrono::system_clock::time_point now);

  std::vector<Cookie> cookies_;  // in the order they were first set
};

}  // namespace rollcall
