// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/redact.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace rollcall {
namespace {

bool never_secret(std::string name) {
  static constexpr std::array<std::string_view, 6> kPublic = {"accept",          "accept-encoding",
                                                              "accept-language", "cache-control",
                                                              "content-type",    "user-agent"};
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::find(kPublic.begin(), kPublic.end(), name) != kPublic.end();
}

}  // namespace

void Redactor::add_secret(std::string secret) {
  if (secret.size() < 4) return;
  const auto longer = [](const std::string& a, const std::string& b) {
    return a.size() > b.size();
  };
  secrets_.insert(std::upper_bound(secrets_.begin(), secrets_.end(), secret, longer),
                  std::move(secret));
}

void Redactor::add(const HeaderList& headers) {
  for (const auto& [name, value] : headers) {
    if (never_secret(name)) continue;
    add_secret(value);
    const auto space = value.rfind(' ');
    if (space != std::string::npos) add_secret(value.substr(space + 1));
  }
}

void Redactor::add_url(const std::string& url) {
  const auto begin = url.find("://");
  if (begin == std::string::npos) return;
  const auto authority = url.substr(begin + 3, url.find_first_of("/?#", begin + 3) - (begin + 3));
  const auto at = authority.rfind('@');
  if (at == std::string::npos) return;
  const std::string user = authority.substr(0, at);
  add_secret(user);
  const auto colon = user.find(':');
  if (colon != std::string::npos) add_secret(user.substr(colon + 1));
}

std::string Redactor::operator()(std::string text) const {
  static constexpr std::string_view kMark = "[redacted]";
  for (const auto& secret : secrets_) {
    for (auto at = text.find(secret); at != std::string::npos;
         at = text.find(secret, at + kMark.size()))
      text.replace(at, secret.size(), kMark);
  }
  return text;
}

}  // namespace rollcall
