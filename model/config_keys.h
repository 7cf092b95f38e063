// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace rollcall {

// One object of a JSON file, read key by key; every refusal is an input Error that names file and
// key. A null value counts as a missing key, as for the library that writes these files. Borrows
// the object.
class ConfigKeys {
 public:
  // `where`: file and path of the object, ready to be followed by a key.
  ConfigKeys(std::string where, const nlohmann::json& object)
      : where_(std::move(where)), object_(&object) {}

  [[noreturn]] void fail(const std::string& key, const std::string& problem,
                         const std::string& advice = {}) const;

  bool names(const std::string& key) const;                  // with a null value too
  const nlohmann::json* find(const std::string& key) const;  // null if missing or null
  bool empty() const;

  // The value of a key, or `missing`; without `missing` the key has to be there.
  std::int64_t size(const std::string& key, std::int64_t largest,
                    std::optional<std::int64_t> missing = {}, std::int64_t least = 1) const;
  double positive(const std::string& key, std::optional<double> missing = {}) const;
  bool flag(const std::string& key, bool missing) const;
  std::string text(const std::string& key, const std::string& missing) const;
  std::optional<ConfigKeys> object(const std::string& key) const;

 private:
  std::string where_;
  const nlohmann::json* object_;
};

}  // namespace rollcall
