// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "rollout_workers/rollout_options.h"

namespace rollcall {

// Replaces the secrets it knows by "[redacted]". Immutable; thread-safe.
class Redactor {
 public:
  Redactor() = default;

  // Learns the header values (and, of "Bearer x" and the like, the x), unless the header is one
  // that never holds a secret. Values under four bytes are let through: they would tear ordinary
  // text apart.
  void add(const HeaderList&);
  // Learns the user information of a URL.
  void add_url(const std::string& url);

  std::string operator()(std::string text) const;

 private:
  void add_secret(std::string secret);

  std::vector<std::string> secrets_;  // longest first
};

}  // namespace rollcall
