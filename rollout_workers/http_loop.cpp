// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/http_loop.h"

#include <curl/curl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>

#include "comms/error.h"
#include "rollout_workers/url.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTransfersPerShard =
    256;  // the cost of a request grows with its multi handle's connections
constexpr int kMaxRedirects = 3;
constexpr std::size_t kMaxHeaderBytes = 256 << 10;

struct EasyDeleter {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct MultiDeleter {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
struct SlistDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {
    if (fd_ < 0)
      throw Error(std::string("HTTP thread: no descriptor: ") + std::strerror(errno),
                  "raise ulimit -n");
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() { ::close(fd_); }
  int get() const { return fd_; }

 private:
  int fd_;
};

// One request on its way.
struct Transfer {
  std::uint64_t id = 0;
  HttpRequest request;
  HttpReply reply;
  std::unique_ptr<curl_slist, SlistDeleter> headers;
  std::unique_ptr<CURL, EasyDeleter> easy;
  std::size_t shard = 0;
  int redirects = 0;
  std::size_t body_sent = 0;
  std::size_t header_bytes = 0;
  Clock::time_point deadline;
  std::array<char, CURL_ERROR_SIZE> error{};
};

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

// There is no way back for the body on purpose: libcurl would send a request again by itself,
// unseen, when a kept connection ends unanswered. Now it only does so if nothing of the body was
// sent.
std::size_t on_upload(char* to, std::size_t size, std::size_t count, void* user) {
  auto& t = *static_cast<Transfer*>(user);
  const std::size_t bytes = std::min(size * count, t.request.body.size() - t.body_sent);
  std::memcpy(to, t.request.body.data() + t.body_sent, bytes);
  t.body_sent += bytes;
  return bytes;
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

void configure(Transfer& t) {
  t.easy.reset(curl_easy_init());
  if (t.easy == nullptr) throw Error("HTTP thread: out of memory");
  set(t, CURLOPT_PRIVATE, static_cast<void*>(&t));
  set(t, CURLOPT_ERRORBUFFER, t.error.data());
  set(t, CURLOPT_URL, t.request.url.c_str());
  set(t, CURLOPT_PROTOCOLS_STR, "http,https");
  set(t, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(t, CURLOPT_NOSIGNAL, 1L);
  set(t, CURLOPT_FOLLOWLOCATION, 0L);
  set(t, CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
  set(t, CURLOPT_USERAGENT, "rollcall");
  set(t, CURLOPT_HTTPHEADER, t.headers.get());
  set(t, CURLOPT_POST, 1L);
  set(t, CURLOPT_READFUNCTION, &on_upload);
  set(t, CURLOPT_READDATA, static_cast<void*>(&t));
  set(t, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(t.request.body.size()));
  set(t, CURLOPT_WRITEFUNCTION, &on_body);
  set(t, CURLOPT_WRITEDATA, static_cast<void*>(&t));
  set(t, CURLOPT_HEADERFUNCTION, &on_header);
  set(t, CURLOPT_HEADERDATA, static_cast<void*>(&t));
  if (!t.request.cookies.empty()) set(t, CURLOPT_COOKIE, t.request.cookies.c_str());
}

// Where a 307/308 within the origin leads; nullopt for any other reply.
std::optional<std::string> redirect_target(const Transfer& t) {
  if ((t.reply.status != 307 && t.reply.status != 308) || t.redirects == kMaxRedirects)
    return std::nullopt;
  char* target = nullptr;
  curl_easy_getinfo(t.easy.get(), CURLINFO_REDIRECT_URL, &target);
  if (target == nullptr || split_url(target).origin() != split_url(t.request.url).origin())
    return std::nullopt;
  return std::string(target);
}

void read_result(Transfer& t, CURLcode code) {
  long status = 0;
  curl_easy_getinfo(t.easy.get(), CURLINFO_RESPONSE_CODE, &status);
  t.reply.status = static_cast<int>(status);
  if (code == CURLE_OK || t.reply.too_large) return;
  t.reply.status = 0;
  t.reply.timed_out = code == CURLE_OPERATION_TIMEDOUT;
  t.reply.error = t.error[0] != '\0' ? t.error.data() : curl_easy_strerror(code);
  if (code == CURLE_SEND_FAIL_REWIND) t.reply.error = "the server closed the connection unanswered";
  if (t.header_bytes > kMaxHeaderBytes) t.reply.error = "the reply's headers are too large";
}

}  // namespace

struct HttpLoop::Impl {
  struct Shard {
    std::size_t index = 0;
    Impl* loop = nullptr;
    int transfers = 0;
    std::optional<Clock::time_point> wake_at;
    std::unique_ptr<CURLM, MultiDeleter> multi;  // last: its end still calls back into the others
  };

  explicit Impl(Done done_in)
      : done(std::move(done_in)),
        epoll(::epoll_create1(EPOLL_CLOEXEC)),
        bell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    watch(bell.get(), EPOLLIN, kBell);
    thread = std::thread([this] { run(); });
  }
  ~Impl() {
    stopping = true;
    ring();
    thread.join();
    for (auto& [id, transfer] : transfers)
      curl_multi_remove_handle(shards[transfer->shard]->multi.get(), transfer->easy.get());
  }

  void ring() {
    const std::uint64_t one = 1;
    (void)!::write(bell.get(), &one, sizeof one);
  }

  void watch(int fd, std::uint32_t events, std::uint64_t shard) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = (shard << 32) | static_cast<std::uint32_t>(fd);
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_MOD, fd, &event) != 0)
      ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event);
  }

  static int on_socket(CURL*, curl_socket_t fd, int what, void* user, void*) {
    auto& shard = *static_cast<Shard*>(user);
    if (what == CURL_POLL_REMOVE) {
      ::epoll_ctl(shard.loop->epoll.get(), EPOLL_CTL_DEL, fd, nullptr);
    } else {
      const std::uint32_t in = (what & CURL_POLL_IN) != 0 ? EPOLLIN : 0U;
      const std::uint32_t out = (what & CURL_POLL_OUT) != 0 ? EPOLLOUT : 0U;
      shard.loop->watch(fd, in | out, shard.index);
    }
    return 0;
  }

  static int on_timer(CURLM*, long wait_ms, void* user) {
    auto& shard = *static_cast<Shard*>(user);
    shard.wake_at.reset();
    if (wait_ms >= 0) shard.wake_at = Clock::now() + std::chrono::milliseconds(wait_ms);
    return 0;
  }

  // The first shard with room: few requests then share one pool of kept connections.
  Shard& shard_with_room() {
    for (auto& shard : shards) {
      if (shard->transfers < kTransfersPerShard) return *shard;
    }
    auto shard = std::make_unique<Shard>();
    shard->multi.reset(curl_multi_init());
    if (shard->multi == nullptr) throw Error("HTTP thread: out of memory");
    shard->index = shards.size();
    shard->loop = this;
    CURLM* multi = shard->multi.get();
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, &on_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, shard.get());
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, &on_timer);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, shard.get());
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, static_cast<long>(kTransfersPerShard));
    shards.push_back(std::move(shard));
    return *shards.back();
  }

  // Puts the transfer on its way, for the first time or to a redirect's target.
  void add(Transfer& t) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(t.deadline - Clock::now());
    set(t, CURLOPT_TIMEOUT_MS, static_cast<long>(std::max<std::int64_t>(left.count(), 1)));
    curl_multi_add_handle(shards[t.shard]->multi.get(), t.easy.get());
  }

  void begin(std::uint64_t id, HttpRequest request) {
    auto t = std::make_unique<Transfer>();
    t->id = id;
    t->deadline = Clock::now() + request.timeout;
    t->request = std::move(request);
    try {
      add_headers(*t);
      configure(*t);
      enter(std::move(t));
    } catch (const Error& error) {
      HttpReply refused;
      refused.error = error.what();
      done(id, std::move(refused));
    }
  }

  void enter(std::unique_ptr<Transfer> t) {
    Shard& shard = shard_with_room();
    t->shard = shard.index;
    ++shard.transfers;
    Transfer& running = *t;
    transfers.emplace(running.id, std::move(t));
    add(running);
  }

  std::unique_ptr<Transfer> take_out(std::uint64_t id) {
    auto node = transfers.extract(id);
    if (node.empty()) return nullptr;
    Shard& shard = *shards[node.mapped()->shard];
    curl_multi_remove_handle(shard.multi.get(), node.mapped()->easy.get());
    --shard.transfers;
    return std::move(node.mapped());
  }

  void finish(Transfer& t, CURLcode code) {
    read_result(t, code);
    if (auto target = code == CURLE_OK ? redirect_target(t) : std::nullopt) {
      curl_multi_remove_handle(shards[t.shard]->multi.get(), t.easy.get());
      ++t.redirects;
      t.request.url = std::move(*target);
      t.reply = {};
      t.header_bytes = 0;
      t.body_sent = 0;
      set(t, CURLOPT_URL, t.request.url.c_str());
      add(t);
      return;
    }
    const auto ended = take_out(t.id);
    done(ended->id, std::move(ended->reply));
  }

  void collect(Shard& shard) {
    int left = 0;
    while (CURLMsg* message = curl_multi_info_read(shard.multi.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      void* transfer = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
      finish(*static_cast<Transfer*>(transfer), code);
    }
  }

  void take_orders() {
    std::vector<std::pair<std::uint64_t, HttpRequest>> to_start;
    std::vector<std::uint64_t> to_cancel;
    {
      const std::lock_guard lock(mutex);
      to_start.swap(starts);
      to_cancel.swap(cancels);
    }
    for (auto& [id, request] : to_start) begin(id, std::move(request));
    for (const std::uint64_t id : to_cancel) take_out(id);
  }

  void drive(Shard& shard, curl_socket_t fd, int events) {
    int running = 0;
    curl_multi_socket_action(shard.multi.get(), fd, events, &running);
    collect(shard);
  }

  void drive_timers() {
    const auto now = Clock::now();
    for (std::size_t i = 0; i < shards.size(); ++i) {
      Shard& shard = *shards[i];
      if (!shard.wake_at || *shard.wake_at > now) continue;
      shard.wake_at.reset();
      drive(shard, CURL_SOCKET_TIMEOUT, 0);
    }
  }

  int wait_ms() const {
    std::optional<Clock::time_point> first;
    for (const auto& shard : shards) {
      if (shard->wake_at && (!first || *shard->wake_at < *first)) first = shard->wake_at;
    }
    if (!first) return -1;
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(*first - Clock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(wait, 0, 60000));
  }

  void run() {
    std::array<epoll_event, 256> ready{};
    while (!stopping) {
      const int count =
          ::epoll_wait(epoll.get(), ready.data(), static_cast<int>(ready.size()), wait_ms());
      for (int i = 0; i < count; ++i) {
        const auto& event = ready[static_cast<std::size_t>(i)];
        const auto fd = static_cast<int>(event.data.u64 & 0xFFFFFFFFU);
        const std::uint64_t shard = event.data.u64 >> 32;
        if (shard == kBell) {
          std::uint64_t rings = 0;
          (void)!::read(bell.get(), &rings, sizeof rings);
          continue;
        }
        const int in = (event.events & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0;
        const int out = (event.events & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0;
        const int bad = (event.events & (EPOLLERR | EPOLLHUP)) != 0 ? CURL_CSELECT_ERR : 0;
        drive(*shards[shard], fd, in | out | bad);
      }
      take_orders();
      drive_timers();
    }
  }

  static constexpr std::uint64_t kBell = 0xFFFFFFFF;  // where a shard's index stands for sockets

  const Done done;
  const FileDescriptor epoll;
  const FileDescriptor bell;
  std::atomic<bool> stopping = false;

  std::mutex mutex;  // guards starts and cancels
  std::vector<std::pair<std::uint64_t, HttpRequest>> starts;
  std::vector<std::uint64_t> cancels;

  // The HTTP thread's own.
  std::vector<std::unique_ptr<Shard>> shards;
  std::unordered_map<std::uint64_t, std::unique_ptr<Transfer>> transfers;
  std::thread thread;
};

HttpLoop::HttpLoop(Done done) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (ready != CURLE_OK) throw Error("libcurl does not start", curl_easy_strerror(ready));
  impl_ = std::make_unique<Impl>(std::move(done));
}

HttpLoop::~HttpLoop() = default;

void HttpLoop::start(std::uint64_t id, HttpRequest request) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->starts.emplace_back(id, std::move(request));
  }
  impl_->ring();
}

void HttpLoop::cancel(std::uint64_t id) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->cancels.push_back(id);
  }
  impl_->ring();
}

}  // namespace rollcall
