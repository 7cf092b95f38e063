// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/cookie_jar.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <string_view>
#include <tuple>

#include "rollout_workers/http_date.h"
#include "rollout_workers/url.h"

namespace rollcall {
namespace {

constexpr std::size_t kMaxCookies = 64;
constexpr std::size_t kMaxCookieBytes = 8192;

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// "name=value" split at the first '='; an attribute's name in lower case.
std::pair<std::string, std::string> split_pair(std::string_view text, bool lower) {
  const auto equals = text.find('=');
  std::string name(trim(text.substr(0, equals)));
  if (lower)
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (equals == std::string_view::npos) return {std::move(name), {}};
  return {std::move(name), std::string(trim(text.substr(equals + 1)))};
}

// RFC 6265 5.1.4.
std::string default_path(const std::string& request_path) {
  const auto slash = request_path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : request_path.substr(0, slash);
}

bool path_matches(std::string_view request, std::string_view cookie) {
  if (!request.starts_with(cookie)) return false;
  return request.size() == cookie.size() || cookie.ends_with('/') || request[cookie.size()] == '/';
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

}  // namespace

std::optional<CookieJar::Cookie> CookieJar::parse(const std::string& line, const std::string& url,
                                                  std::chrono::system_clock::time_point now) {
  const UrlParts parts = split_url(url);
  std::string_view rest(line);
  const auto next_part = [&rest] {
    const auto end = std::min(rest.find(';'), rest.size());
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return part;
  };
  Cookie cookie;
  const std::string_view first = next_part();
  if (first.find('=') == std::string_view::npos) return std::nullopt;
  std::tie(cookie.name, cookie.value) = split_pair(first, false);
  if (cookie.name.empty() || has_control(line) || line.size() > kMaxCookieBytes)
    return std::nullopt;
  cookie.host = parts.host;
  cookie.path = default_path(parts.path);
  bool has_max_age = false;  // wins over Expires
  while (!rest.empty()) {
    const auto [name, value] = split_pair(next_part(), true);
    std::int64_t seconds = 0;
    if (name == "path" && value.starts_with('/')) {
      cookie.path = value;
    } else if (name == "secure") {
      cookie.secure = true;
    } else if (name == "max-age" &&
               std::from_chars(value.data(), value.data() + value.size(), seconds).ec ==
                   std::errc{}) {
      has_max_age = true;
      cookie.expires = std::chrono::floor<std::chrono::seconds>(now) +
                       std::chrono::seconds(std::clamp<std::int64_t>(seconds, -1, 1LL << 31));
    } else if (const auto date = parse_http_date(value);
               name == "expires" && date && !has_max_age) {
      cookie.expires = *date;
    }
  }
  return cookie;
}

bool CookieJar::is_over(const Cookie& cookie, std::chrono::system_clock::time_point now) {
  return cookie.expires && *cookie.expires <= std::chrono::floor<std::chrono::seconds>(now);
}

void CookieJar::put(Cookie cookie) {
  const auto same = std::find_if(cookies_.begin(), cookies_.end(), [&](const Cookie& c) {
    return c.name == cookie.name && c.host == cookie.host && c.path == cookie.path;
  });
  if (same != cookies_.end()) {
    *same = std::move(cookie);
  } else if (cookies_.size() < kMaxCookies) {
    cookies_.push_back(std::move(cookie));
  }
}

void CookieJar::store(const std::string& url,
                      const std::vector<std::pair<std::string, std::string>>& reply_headers,
                      std::chrono::system_clock::time_point now) {
  for (const auto& [name, value] : reply_headers) {
    if (name != "set-cookie") continue;
    if (auto cookie = parse(value, url, now)) put(std::move(*cookie));
  }
  std::erase_if(cookies_, [now](const Cookie& c) { return is_over(c, now); });
}

std::string CookieJar::header_for(const std::string& url,
                                  std::chrono::system_clock::time_point now) const {
  const UrlParts parts = split_url(url);
  std::string header;
  for (const auto& c : cookies_) {
    if (c.host != parts.host || !path_matches(parts.path, c.path)) continue;
    if ((c.secure && parts.scheme != "https") || is_over(c, now)) continue;
    header += (header.empty() ? "" : "; ") + c.name + "=" + c.value;
  }
  return header;
}

}  // namespace rollcall
