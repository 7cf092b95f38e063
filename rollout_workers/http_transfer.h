// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rollout_workers/http_client.h"

struct curl_slist;

namespace rollcall {

// One request on its way, as the HTTP thread drives it. Stays where it is: libcurl points into it.
struct Transfer {
  Transfer(std::uint64_t id, HttpRequest request);  // throws Error if it cannot be sent as it is
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // The easy handle (a CURL*) for a try that ends at `deadline`.
  void* prepare();
  // Takes over what libcurl says about the end of the try (a CURLcode). True if the reply was a
  // redirect to follow: then the next try goes there.
  bool finish(int code);

  struct EasyDeleter {
    void operator()(void* easy) const;
  };
  struct SlistDeleter {
    void operator()(curl_slist* list) const;
  };

  const std::uint64_t id;
  HttpRequest request;
  HttpReply reply;
  const std::chrono::steady_clock::time_point deadline;
  std::size_t shard = 0;
  int redirects = 0;
  bool begun = false;     // sent, if the connection held
  bool repeated = false;  // libcurl wanted to send it again
  std::size_t header_bytes = 0;
  std::vector<char> error;
  std::unique_ptr<curl_slist, SlistDeleter> headers;
  std::unique_ptr<void, EasyDeleter> easy;
};

}  // namespace rollcall
