// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/http_transfer.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "comms/error.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMaxRedirects = 3;
constexpr long kConnectMilliseconds = 10000;  // a host that drops packets is noticed this soon
constexpr std::size_t kMaxHeaderBytes = 256 << 10;

// Of the request line and the headers at least.
long sent_bytes(const Transfer& t) {
  long bytes = 1;
  curl_easy_getinfo(t.easy.get(), CURLINFO_REQUEST_SIZE, &bytes);
  return bytes;
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// libcurl sends a request again by itself, unseen, when a kept connection ends unanswered. That is
// refused, but where nothing of the request had been sent.
int before_sending(void* user, char*, char*, int, int) {
  auto& t = *static_cast<Transfer*>(user);
  t.repeated = t.begun && sent_bytes(t) > 0;
  t.begun = true;
  return t.repeated ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

std::size_t on_body(char* data, std::size_t, std::size_t count, void* user) {
  auto& t = *static_cast<Transfer*>(user);
  const auto room = static_cast<std::size_t>(t.request.max_reply_bytes) - t.reply.body.size();
  t.reply.body.append(data, std::min(room, count));
  if (count <= room) return count;
  t.reply.too_large = true;
  return 0;
}

std::size_t on_header(char* data, std::size_t, std::size_t count, void* user) {
  auto& t = *static_cast<Transfer*>(user);
  t.header_bytes += count;
  if (t.header_bytes > kMaxHeaderBytes) return 0;
  const std::string_view line(data, count);
  const auto colon = line.find(':');
  if (line.starts_with("HTTP/")) {
    t.reply.headers.clear();  // of an interim reply or a redirect
  } else if (colon != std::string_view::npos) {
    t.reply.headers.emplace_back(lower(trim(line.substr(0, colon))), trim(line.substr(colon + 1)));
  }
  return count;
}

// Null, or what is wrong with the header: a line break would smuggle in another one.
const char* header_problem(const std::string& name, const std::string& value) {
  const auto breaks = [](char c) { return c == '\r' || c == '\n' || c == '\0'; };
  if (name.empty() || name.find_first_of(": ") != std::string::npos) return "has no valid name";
  if (std::any_of(name.begin(), name.end(), breaks) ||
      std::any_of(value.begin(), value.end(), breaks))
    return "holds a line break";
  return nullptr;
}

void add_header(Transfer& t, const std::string& line) {
  curl_slist* longer = curl_slist_append(t.headers.get(), line.c_str());
  if (longer == nullptr) throw Error("HTTP thread: out of memory");
  (void)t.headers.release();
  t.headers.reset(longer);
}

// Throws Error if the request cannot be sent as it is.
void add_headers(Transfer& t) {
  bool has_type = false, has_accept = false;
  for (const auto& [name, value] : t.request.headers) {
    if (const char* problem = header_problem(name, value))
      throw Error("header '" + lower(name) + "' " + problem);
    has_type = has_type || lower(name) == "content-type";
    has_accept = has_accept || lower(name) == "accept";
    add_header(t, value.empty() ? name + ";" : name + ": " + value);
  }
  if (!has_type) add_header(t, "Content-Type: application/json");
  if (!has_accept) add_header(t, "Accept: application/json");
  add_header(t, "Expect:");  // no 100-continue round trip
}

template <class Value>
void set(const Transfer& t, CURLoption option, Value value) {
  if (curl_easy_setopt(t.easy.get(), option, value) != CURLE_OK)
    throw Error("HTTP thread: libcurl refuses option " + std::to_string(option));
}

// libcurl obeys http_proxy and its kin, also for this host itself.
const std::string& hosts_without_proxy() {
  static const std::string hosts = [] {
    const char* given = std::getenv("no_proxy");
    if (given == nullptr) given = std::getenv("NO_PROXY");
    const std::string own = "localhost,127.0.0.1,::1";
    if (given == nullptr || *given == '\0') return own;
    return std::string_view(given) == "*" ? std::string(given) : given + ("," + own);
  }();
  return hosts;
}

void configure(Transfer& t) {
  set(t, CURLOPT_PRIVATE, static_cast<void*>(&t));
  set(t, CURLOPT_ERRORBUFFER, t.error.data());
  set(t, CURLOPT_URL, t.request.url.c_str());
  set(t, CURLOPT_NOPROXY, hosts_without_proxy().c_str());
  set(t, CURLOPT_PROTOCOLS_STR, "http,https");
  set(t, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(t, CURLOPT_NOSIGNAL, 1L);
  set(t, CURLOPT_CONNECTTIMEOUT_MS, kConnectMilliseconds);
  set(t, CURLOPT_FOLLOWLOCATION, 0L);
  set(t, CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
  set(t, CURLOPT_USERAGENT, "rollcall");
  set(t, CURLOPT_HTTPHEADER, t.headers.get());
  set(t, CURLOPT_POST, 1L);
  set(t, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(t.request.body.size()));
  set(t, CURLOPT_POSTFIELDS, t.request.body.c_str());
  set(t, CURLOPT_PREREQFUNCTION, &before_sending);
  set(t, CURLOPT_PREREQDATA, static_cast<void*>(&t));
  set(t, CURLOPT_WRITEFUNCTION, &on_body);
  set(t, CURLOPT_WRITEDATA, static_cast<void*>(&t));
  set(t, CURLOPT_HEADERFUNCTION, &on_header);
  set(t, CURLOPT_HEADERDATA, static_cast<void*>(&t));
  if (!t.request.cookies.empty()) set(t, CURLOPT_COOKIE, t.request.cookies.c_str());
}

struct UrlDeleter {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};

std::string part_of(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) return {};
  const std::unique_ptr<char, decltype(&curl_free)> owner(text, &curl_free);
  return lower(text);
}

// Scheme, host and port as libcurl reads them, since it is libcurl that will go there: of
// "http://a\@b" others see the host a, libcurl b. Empty of what is no URL.
std::string origin_for_curl(const char* text) {
  const std::unique_ptr<CURLU, UrlDeleter> url(curl_url());
  if (url == nullptr || curl_url_set(url.get(), CURLUPART_URL, text, 0) != CURLUE_OK) return {};
  return part_of(url.get(), CURLUPART_SCHEME) + "://" + part_of(url.get(), CURLUPART_HOST) + ":" +
         part_of(url.get(), CURLUPART_PORT);
}

// Where a 307/308 within the origin leads; nullopt for any other reply.
std::optional<std::string> redirect_target(const Transfer& t) {
  if ((t.reply.status != 307 && t.reply.status != 308) || t.redirects == kMaxRedirects)
    return std::nullopt;
  char* target = nullptr;
  curl_easy_getinfo(t.easy.get(), CURLINFO_REDIRECT_URL, &target);
  if (target == nullptr) return std::nullopt;
  const std::string origin = origin_for_curl(target);
  if (origin.empty() || origin != origin_for_curl(t.request.url.c_str())) return std::nullopt;
  return std::string(target);
}

bool unsent(const Transfer& t, CURLcode code) {
  return sent_bytes(t) == 0 &&
         (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST ||
          code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_OPERATION_TIMEDOUT);
}

void read_result(Transfer& t, CURLcode code) {
  long status = 0;
  curl_easy_getinfo(t.easy.get(), CURLINFO_RESPONSE_CODE, &status);
  t.reply.status = static_cast<int>(status);
  if (status == 0 && (code == CURLE_OK || t.reply.too_large)) {
    t.reply.error = "the reply has no status";  // libcurl lets "HTTP/200 OK" pass
    return;
  }
  if (code == CURLE_OK || t.reply.too_large) return;
  t.reply.status = 0;
  t.reply.timed_out = code == CURLE_OPERATION_TIMEDOUT;
  t.reply.unsent = unsent(t, code);
  t.reply.error = t.error[0] != '\0' ? t.error.data() : curl_easy_strerror(code);
  if (t.repeated) t.reply.error = "the server closed the connection unanswered";
  if (t.header_bytes > kMaxHeaderBytes) t.reply.error = "the reply's headers are too large";
}

}  // namespace

void Transfer::EasyDeleter::operator()(void* handle) const { curl_easy_cleanup(handle); }
void Transfer::SlistDeleter::operator()(curl_slist* list) const { curl_slist_free_all(list); }

Transfer::Transfer(std::uint64_t id_in, HttpRequest request_in)
    : id(id_in),
      request(std::move(request_in)),
      deadline(Clock::now() + request.timeout),
      error(CURL_ERROR_SIZE),
      easy(curl_easy_init()) {
  if (easy == nullptr) throw Error("HTTP thread: out of memory");
  add_headers(*this);
  configure(*this);
}

void* Transfer::prepare() {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
  set(*this, CURLOPT_TIMEOUT_MS, static_cast<long>(std::max<std::int64_t>(left.count(), 1)));
  return easy.get();
}

bool Transfer::finish(int code) {
  read_result(*this, static_cast<CURLcode>(code));
  const auto target = code == CURLE_OK ? redirect_target(*this) : std::nullopt;
  if (!target) return false;
  ++redirects;
  request.url = *target;
  reply = {};
  header_bytes = 0;
  begun = false;
  set(*this, CURLOPT_URL, request.url.c_str());
  return true;
}

}  // namespace rollcall
