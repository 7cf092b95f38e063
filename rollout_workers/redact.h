// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "rollout_workers/rollout_options.h"

namespace rollcall {

// A shorter secret is let through: it would tear ordinary text apart.
inline constexpr std::size_t kShortestSecret = 6;  // bytes

// Replaces the secrets it knows by "[redacted]", also where a server wrote them for a URL, in JSON
// or in base64. Immutable once filled; thread-safe.
class Redactor {
 public:
  // Learns the values, the token of "Bearer x", the values of "a=x; b=y", and what stands in
  // "user:password" in base64.
  void add(const SecretList&);

  std::string operator()(std::string text) const;
  // The text without secrets on one line of at most `limit` bytes. Cut only then: of a secret that
  // is cut in two, half would be left.
  std::string line(std::string text, std::size_t limit) const;

 private:
  void add_forms(const std::string& secret);
  void add_secret(std::string secret);

  std::vector<std::string> secrets_;  // longest first
};

// The variables whose values stay unredacted because they are too short, each once.
std::vector<std::string> variables_too_short(const SecretList&);

}  // namespace rollcall
