// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/redact.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>

#include "rollout_workers/utf8.h"

namespace rollcall {
namespace {

constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// A part of a secret is redacted by itself only where it can hardly be a word.
constexpr std::size_t kShortestPart = 8;

// Without padding, so that it is found in padded text too.
std::string to_base64(std::string_view text) {
  std::string out;
  unsigned bits = 0;
  int count = 0;
  for (const char c : text) {
    bits = (bits << 8) | static_cast<unsigned char>(c);
    for (count += 8; count >= 6; count -= 6) out += kBase64[(bits >> (count - 6)) & 63];
  }
  if (count > 0) out += kBase64[(bits << (6 - count)) & 63];
  return out;
}

std::optional<std::string> from_base64(std::string_view text) {
  std::string out;
  unsigned bits = 0;
  int count = 0;
  for (const char c : text.substr(0, text.find('='))) {
    const auto digit = kBase64.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    bits = (bits << 6) | static_cast<unsigned>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>((bits >> count) & 255);
  }
  return out;
}

std::string percent_encoded(std::string_view text, std::string_view digits, std::string_view kept) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || kept.find(c) != std::string_view::npos) {
      out += c;
    } else {
      out.append({'%', digits[byte >> 4], digits[byte & 15]});
    }
  }
  return out;
}

std::string json_escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

// The last word, and of "a=x; b=y" the values.
std::vector<std::string> parts_of(const std::string& secret) {
  std::vector<std::string> parts{secret.substr(secret.rfind(' ') + 1)};
  for (std::size_t begin = 0; begin < secret.size();) {
    const std::size_t end = std::min(secret.find(';', begin), secret.size());
    const std::string pair = secret.substr(begin, end - begin);
    if (const auto equals = pair.find('='); equals != std::string::npos)
      parts.push_back(pair.substr(equals + 1));
    begin = end + 1;
  }
  for (std::string& part : parts) std::erase(part, '"');
  return parts;
}

// What HTTP's Basic authentication hides in `token`: "user:password" and the password.
std::vector<std::string> basic_credentials(const std::string& token) {
  const auto pair = from_base64(token);
  if (!pair || pair->find(':') == std::string::npos) return {};
  const auto printable = [](unsigned char c) { return c >= 0x20 && c != 0x7f; };
  if (!std::all_of(pair->begin(), pair->end(), printable)) return {};
  return {*pair, pair->substr(pair->find(':') + 1)};
}

}  // namespace

void Redactor::add_secret(std::string secret) {
  const auto longer = [](const std::string& a, const std::string& b) {
    return a.size() > b.size();
  };
  if (std::find(secrets_.begin(), secrets_.end(), secret) != secrets_.end()) return;
  secrets_.insert(std::upper_bound(secrets_.begin(), secrets_.end(), secret, longer),
                  std::move(secret));
}

void Redactor::add_forms(const std::string& secret) {
  add_secret(secret);
  add_secret(json_escaped(secret));
  add_secret(to_base64(secret));
  for (const char* digits : {"0123456789ABCDEF", "0123456789abcdef"}) {
    // RFC 3986 2.3, Python's quote(), JavaScript's encodeURIComponent()
    for (const char* kept : {"-._~", "-._~/", "-._~!*'()"})
      add_secret(percent_encoded(secret, digits, kept));
  }
}

void Redactor::add(const SecretList& secrets) {
  for (const auto& [variable, value] : secrets) {
    if (value.size() < kShortestSecret) continue;
    add_forms(value);
    for (const std::string& part : parts_of(value)) {
      if (part.size() >= kShortestPart) add_forms(part);
      for (const std::string& hidden : basic_credentials(part))
        if (hidden.size() >= kShortestSecret) add_forms(hidden);
    }
  }
}

std::string Redactor::operator()(std::string text) const {
  static constexpr std::string_view kMark = "[redacted]";
  for (const auto& secret : secrets_) {
    std::string rest;  // built anew: a text full of secrets would be moved once for each
    std::size_t from = 0;
    for (auto at = text.find(secret); at != std::string::npos; at = text.find(secret, from)) {
      rest.append(text, from, at - from).append(kMark);
      from = at + secret.size();
    }
    if (from > 0) text = rest.append(text, from);
  }
  return text;
}

std::string Redactor::line(std::string text, std::size_t limit) const {
  return one_line((*this)(std::move(text)), limit);
}

std::vector<std::string> variables_too_short(const SecretList& secrets) {
  std::vector<std::string> names;
  for (const auto& [variable, value] : secrets) {
    if (value.empty() || value.size() >= kShortestSecret) continue;
    if (std::find(names.begin(), names.end(), variable) == names.end()) names.push_back(variable);
  }
  return names;
}

}  // namespace rollcall
