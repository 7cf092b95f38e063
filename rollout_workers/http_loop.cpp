// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/http_loop.h"

#include <curl/curl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "comms/error.h"
#include "rollout_workers/http_transfer.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;

// The cost of a request grows with the connections of its multi handle.
constexpr int kTransfersPerShard = 64;

struct MultiDeleter {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
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

  // The first order of those that wait for the thread wakes it for all.
  template <class Write>
  void order(const Write& write) {
    bool first = false;
    {
      const std::lock_guard lock(mutex);
      first = starts.empty() && cancels.empty();
      write();
    }
    if (first) ring();
  }

  void watch(int fd, std::uint32_t events, std::uint64_t shard) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = (shard << 32) | static_cast<std::uint32_t>(fd);
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_MOD, fd, &event) != 0)
      ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event);
  }

  // A kept connection stays in the epoll between its requests, which spares two system calls a
  // request; on_event() takes it out should anything happen to it meanwhile.
  static int on_socket(CURL*, curl_socket_t fd, int what, void* user, void*) {
    auto& shard = *static_cast<Shard*>(user);
    shard.loop->set_wanted(fd, what != CURL_POLL_REMOVE);
    if (what != CURL_POLL_REMOVE) {
      const std::uint32_t in = (what & CURL_POLL_IN) != 0 ? EPOLLIN : 0U;
      const std::uint32_t out = (what & CURL_POLL_OUT) != 0 ? EPOLLOUT : 0U;
      shard.loop->watch(fd, in | out, shard.index);
    }
    return 0;
  }

  void set_wanted(int fd, bool value) {
    const auto index = static_cast<std::size_t>(fd);
    if (index >= wanted.size()) wanted.resize(index + 1);
    wanted[index] = value;
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

  void begin(std::uint64_t id, HttpRequest request) {
    try {
      enter(std::make_unique<Transfer>(id, std::move(request)));
    } catch (const Error& error) {
      HttpReply refused;
      refused.error = error.what();
      ended.push_back({id, std::move(refused)});
    }
  }

  void enter(std::unique_ptr<Transfer> t) {
    Shard& shard = shard_with_room();
    t->shard = shard.index;
    ++shard.transfers;
    Transfer& running = *t;
    transfers.emplace(running.id, std::move(t));
    curl_multi_add_handle(shard.multi.get(), running.prepare());
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
    CURLM* multi = shards[t.shard]->multi.get();
    if (t.finish(code)) {
      curl_multi_remove_handle(multi, t.easy.get());
      curl_multi_add_handle(multi, t.prepare());
      return;
    }
    const auto transfer = take_out(t.id);
    ended.push_back({transfer->id, std::move(transfer->reply)});
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

  void on_event(Shard& shard, int fd, std::uint32_t events) {
    // Of a kept connection: the server has closed it, as a rule.
    if (!wanted[static_cast<std::size_t>(fd)]) {
      ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, fd, nullptr);
      return;
    }
    const int in = (events & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0;
    const int out = (events & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0;
    const int bad = (events & (EPOLLERR | EPOLLHUP)) != 0 ? CURL_CSELECT_ERR : 0;
    drive(shard, fd, in | out | bad);
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
        } else {
          on_event(*shards[shard], fd, event.events);
        }
      }
      take_orders();
      drive_timers();
      if (!ended.empty()) done(std::exchange(ended, {}));
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
  std::vector<bool> wanted;  // by descriptor: libcurl waits for it
  std::vector<std::unique_ptr<Shard>> shards;
  std::unordered_map<std::uint64_t, std::unique_ptr<Transfer>> transfers;
  std::vector<Ended> ended;  // of this round of run()
  std::thread thread;
};

HttpLoop::HttpLoop(Done done) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (ready != CURLE_OK) throw Error("libcurl does not start", curl_easy_strerror(ready));
  impl_ = std::make_unique<Impl>(std::move(done));
}

HttpLoop::~HttpLoop() = default;

void HttpLoop::start(std::uint64_t id, HttpRequest request) {
  impl_->order([&] { impl_->starts.emplace_back(id, std::move(request)); });
}

void HttpLoop::cancel(std::uint64_t id) {
  impl_->order([&] { impl_->cancels.push_back(id); });
}

}  // namespace rollcall
