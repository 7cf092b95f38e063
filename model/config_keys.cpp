// SPDX-License-Identifier: Apache-2.0
#include "model/config_keys.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "comms/error.h"

namespace rollcall {

using nlohmann::json;

void ConfigKeys::fail(const std::string& key, const std::string& problem,
                      const std::string& advice) const {
  throw input_error(where_ + key + ": " + problem, advice);
}

bool ConfigKeys::names(const std::string& key) const { return object_->contains(key); }
bool ConfigKeys::empty() const { return object_->empty(); }

const json* ConfigKeys::find(const std::string& key) const {
  const auto at = object_->find(key);
  return at == object_->end() || at->is_null() ? nullptr : &*at;
}

std::int64_t ConfigKeys::size(const std::string& key, std::int64_t largest,
                              std::optional<std::int64_t> missing, std::int64_t least) const {
  const auto* value = find(key);
  if (value == nullptr && missing) return *missing;
  if (value == nullptr) fail(key, "missing");
  if (!value->is_number_integer() || *value < least || *value > largest) {
    fail(key, "must be a whole number from " + std::to_string(least) + " to " +
                  std::to_string(largest) + ", is " +
                  (value->is_number() ? value->dump() : value->type_name()));
  }
  return value->get<std::int64_t>();
}

double ConfigKeys::positive(const std::string& key, std::optional<double> missing) const {
  const auto* value = find(key);
  if (value == nullptr && missing) return *missing;
  if (value == nullptr) fail(key, "missing");
  const double number = value->is_number() ? value->get<double>() : 0;
  if (!(number > 0) || !std::isfinite(number)) fail(key, "must be a number over 0");
  return number;
}

bool ConfigKeys::flag(const std::string& key, bool missing) const {
  const auto* value = find(key);
  if (value == nullptr) return missing;
  if (!value->is_boolean()) fail(key, "must be true or false");
  return value->get<bool>();
}

std::string ConfigKeys::text(const std::string& key, const std::string& missing) const {
  const auto* value = find(key);
  if (value == nullptr) return missing;
  if (!value->is_string()) fail(key, "must be a text");
  return value->get<std::string>();
}

std::optional<ConfigKeys> ConfigKeys::object(const std::string& key) const {
  const auto* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) fail(key, "must be an object");
  return ConfigKeys(where_ + key + ".", *value);
}

}  // namespace rollcall
