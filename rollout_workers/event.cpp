// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/event.h"

#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/error.hpp>
#include <asio/redirect_error.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <exception>
#include <system_error>

namespace rollcall {
namespace {

[[noreturn]] void throw_cancelled() {
  throw std::system_error(asio::error::make_error_code(asio::error::operation_aborted));
}

}  // namespace

Event::Event(const asio::any_io_executor& executor)
    : timer_(executor, asio::steady_timer::time_point::max()) {}

void Event::set() {
  set_ = true;
  timer_.cancel();
}

asio::awaitable<void> Event::wait() {
  if (set_) co_return;
  std::error_code ignored;
  co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  if (!set_) throw_cancelled();
}

asio::awaitable<void> Event::wait_on() {
  while (!set_) {
    std::error_code ignored;
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
}

asio::awaitable<void> sleep_for(std::chrono::milliseconds duration) {
  asio::steady_timer timer(co_await asio::this_coro::executor, duration);
  std::error_code error;
  co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
  if (error) throw_cancelled();
}

asio::awaitable<void> run_all(std::vector<asio::awaitable<void>> work) {
  if (work.empty()) co_return;
  const auto executor = co_await asio::this_coro::executor;
  Event all_ended(executor);
  std::exception_ptr failure;
  std::size_t left = work.size();
  std::vector<asio::cancellation_signal> stops(work.size());
  for (std::size_t i = 0; i < work.size(); ++i) {
    const auto on_end = [&all_ended, &failure, &left](std::exception_ptr thrown) {
      if (thrown && !failure) failure = thrown;
      if (--left == 0) all_ended.set();
    };
    asio::co_spawn(executor, std::move(work[i]),
                   asio::bind_cancellation_slot(stops[i].slot(), on_end));
  }
  bool cancelled = false;
  try {
    co_await all_ended.wait();
  } catch (const std::system_error&) {
    cancelled = true;
  }
  if (cancelled) {
    for (auto& stop : stops) stop.emit(asio::cancellation_type::terminal);
    co_await asio::this_coro::throw_if_cancelled(false);
    co_await all_ended.wait_on();
    co_await asio::this_coro::throw_if_cancelled(true);
    throw_cancelled();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace rollcall
