// SPDX-License-Identifier: Apache-2.0
#include "model/safetensors_header.h"

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "model/safetensors.h"

namespace rollcall {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

[[noreturn]] void bad_json(std::string message) {
  constexpr std::size_t kEnough = 200;  // a parser's message may quote the whole header
  if (message.size() > kEnough) message = message.substr(0, kEnough) + "...";
  throw SafetensorsError("header_json", "header: " + message);
}

// Event by event, since a document tree would silently keep one of two equal keys. Throws at the
// first event that the format does not allow, so nesting and size are bounded by the header.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(std::size_t) override {
    switch (place_) {
      case Place::kDocument:
        return go(Place::kTop);
      case Place::kMetadataValue:
        header_.metadata.emplace();
        return go(Place::kMetadata);
      case Place::kEntryValue:
        return go(Place::kEntry);
      default:
        bad_json("an object" + here());
    }
  }

  bool end_object() override {
    if (place_ == Place::kEntry && members_.size() != 3) {
      bad_json("tensor '" + name_ + "' lacks dtype, shape or data_offsets");
    }
    return go(Place::kTop);
  }

  bool key(string_t& key) override {
    if (place_ == Place::kMetadata) return metadata_key(key);
    if (place_ == Place::kEntry) return member_key(key);
    if (!names_.insert(key).second) duplicate(key);
    name_ = key;
    if (key == kMetadataKey) return go(Place::kMetadataValue);
    header_.entries.emplace_back().name = key;
    members_.clear();
    return go(Place::kEntryValue);
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadataItem) {
      (*header_.metadata)[metadata_key_] = std::move(value);
      return go(Place::kMetadata);
    }
    if (place_ != Place::kDtype) bad_json("a string" + here());
    header_.entries.back().dtype = std::move(value);
    return go(Place::kEntry);
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::kShapeValue) return go(Place::kShape);
    if (place_ == Place::kOffsetsValue) return go(Place::kOffsets);
    bad_json("an array" + here());
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      header_.entries.back().shape.push_back(value);
    } else if (place_ == Place::kOffsets && offsets_ < 2) {
      (offsets_ == 0 ? header_.entries.back().begin : header_.entries.back().end) = value;
      ++offsets_;
    } else {
      bad_json("a number" + here());
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && std::exchange(offsets_, 0) != 2) {
      bad_json("data_offsets of tensor '" + name_ + "' must be two numbers");
    }
    return go(Place::kEntry);
  }

  bool null() override {
    if (place_ != Place::kMetadataValue) bad_json("null" + here());
    return go(Place::kTop);
  }

  bool boolean(bool) override { bad_json("a truth value" + here()); }
  bool number_integer(number_integer_t) override { bad_json("a negative number" + here()); }
  bool number_float(number_float_t, const string_t&) override {
    bad_json("a number that is no 64-bit whole number" + here());
  }
  bool binary(binary_t&) override { bad_json("binary data" + here()); }
  bool parse_error(std::size_t, const std::string&,
                   const nlohmann::detail::exception& error) override {
    bad_json(json_reason(error));
  }

 private:
  // Where the reader stands: inside an object or array, or before the value of a key.
  enum class Place {
    kDocument,
    kTop,
    kMetadataValue,
    kMetadata,
    kMetadataItem,
    kEntryValue,
    kEntry,
    kDtype,
    kShapeValue,
    kShape,
    kOffsetsValue,
    kOffsets,
  };

  bool go(Place place) {
    place_ = place;
    return true;
  }

  bool metadata_key(const std::string& key) {
    if (header_.metadata->contains(key)) duplicate(key);
    metadata_key_ = key;
    return go(Place::kMetadataItem);
  }

  bool member_key(const std::string& key) {
    if (!members_.insert(key).second) duplicate(key);
    if (key == "dtype") return go(Place::kDtype);
    if (key == "shape") return go(Place::kShapeValue);
    if (key == "data_offsets") return go(Place::kOffsetsValue);
    bad_json("tensor '" + name_ + "' has the unknown member '" + key + "'");
  }

  std::string here() const {
    return name_.empty() ? " where the format has none"
                         : " in '" + name_ + "' where the format has none";
  }

  [[noreturn]] void duplicate(const std::string& key) const {
    throw SafetensorsError("duplicate_key", "header: key '" + key + "' is there twice");
  }

  SafetensorsHeader header_;
  Place place_ = Place::kDocument;
  std::unordered_set<std::string> names_;    // keys of the top object
  std::unordered_set<std::string> members_;  // keys of the entry being read
  std::string name_;
  std::string metadata_key_;
  int offsets_ = 0;
};

}  // namespace

SafetensorsHeader read_safetensors_header(std::string_view json) {
  // The parser would skip a byte order mark and take NUL for the end of its input.
  if (json.starts_with("\xef\xbb\xbf")) bad_json("it begins with a byte order mark");
  if (json.find('\0') != std::string_view::npos) bad_json("it holds a NUL byte");
  HeaderReader reader;
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  return reader.take();
}

}  // namespace rollcall
