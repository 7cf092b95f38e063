// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace rollcall {

// The parts of an http(s) URL that routing looks at; lower-case scheme and host, default port
// filled in.
struct UrlParts {
  std::string scheme;
  std::string host;
  std::string port;
  std::string path;  // "/" if there is none, no query

  std::string origin() const { return scheme + "://" + host + ":" + port; }
};

// Of a text that is no URL the parts are empty.
UrlParts split_url(std::string_view url);

}  // namespace rollcall
