// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/url.h"

#include <algorithm>
#include <cctype>

namespace rollcall {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

}  // namespace

UrlParts split_url(std::string_view url) {
  const auto scheme_end = url.find("://");
  if (scheme_end == std::string_view::npos) return {};
  UrlParts parts;
  parts.scheme = lower(url.substr(0, scheme_end));
  url.remove_prefix(scheme_end + 3);
  const auto authority_end = std::min(url.find_first_of("/?#\\"), url.size());
  std::string_view authority = url.substr(0, authority_end);
  if (const auto at = authority.rfind('@'); at != std::string_view::npos)
    authority.remove_prefix(at + 1);
  const auto bracket = authority.rfind(']');  // of an IPv6 address, whose colons are no port
  const auto colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  parts.host = lower(authority.substr(0, colon));
  if (colon != std::string_view::npos) parts.port = authority.substr(colon + 1);
  if (parts.port.empty()) parts.port = parts.scheme == "https" ? "443" : "80";
  url.remove_prefix(authority_end);
  parts.path = url.substr(0, url.find_first_of("?#"));
  if (!parts.path.starts_with('/')) parts.path.insert(0, "/");
  return parts;
}

}  // namespace rollcall
