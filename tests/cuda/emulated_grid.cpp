// SPDX-License-Identifier: Apache-2.0
#include "emulated_grid.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

namespace emulated {
namespace {

constexpr std::size_t kStackBytes = std::size_t{64} << 10;
constexpr unsigned kLanes = 32;

// Waits until all that are alive have come; a thread that has returned waits for nobody.
struct Barrier {
  unsigned alive = 0, arrived = 0;
  std::uint64_t generation = 0;

  bool complete() const { return alive > 0 && arrived == alive; }
  void open() {
    arrived = 0;
    ++generation;
  }
};

struct Fiber {
  ucontext_t context{};  // to start with; later switches take jumps, which leave the signals alone
  jmp_buf place{};
  bool started = false;
  std::unique_ptr<char[]> stack;
  bool done = false;
  Barrier* waits_for = nullptr;
  std::uint64_t waits_since = 0;

  bool ready() const {
    return !done && (waits_for == nullptr || waits_for->generation != waits_since);
  }
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Barrier> warps;
  Barrier all;
  std::vector<std::uint64_t> slots;  // of exchanges
  jmp_buf scheduler{};
  unsigned current = 0;
  const std::function<void()>* body = nullptr;
  std::vector<unsigned char> memory;
};

Block g_block;

void wait_at(Barrier& barrier) {
  Fiber& fiber = g_block.fibers[g_block.current];
  ++barrier.arrived;
  if (barrier.complete()) {
    barrier.open();
    return;
  }
  fiber.waits_for = &barrier;
  fiber.waits_since = barrier.generation;
  if (_setjmp(fiber.place) == 0) _longjmp(g_block.scheduler, 1);
  fiber.waits_for = nullptr;
}

void leave(Barrier& barrier) {
  --barrier.alive;
  if (barrier.complete()) barrier.open();
}

void fiber_main() {
  (*g_block.body)();
  Fiber& fiber = g_block.fibers[g_block.current];
  fiber.done = true;
  leave(g_block.warps[g_block.current / kLanes]);
  leave(g_block.all);
  _longjmp(g_block.scheduler, 1);
}

void resume(Fiber& fiber) {
  if (_setjmp(g_block.scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.place, 1);
  fiber.started = true;
  setcontext(&fiber.context);
}

void start(Fiber& fiber) {
  if (fiber.stack == nullptr) fiber.stack = std::make_unique<char[]>(kStackBytes);
  fiber.done = fiber.started = false;
  fiber.waits_for = nullptr;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
}

void run_block() {
  const auto count = static_cast<unsigned>(g_block.fibers.size());
  g_block.all = {count, 0, 0};
  g_block.warps.assign((count + kLanes - 1) / kLanes, {});
  for (unsigned i = 0; i < count; ++i) {
    ++g_block.warps[i / kLanes].alive;
    start(g_block.fibers[i]);
  }
  for (unsigned left = count; left > 0;) {
    bool moved = false;
    for (unsigned i = 0; i < count; ++i) {
      if (!g_block.fibers[i].ready()) continue;
      g_block.current = i;
      thread = {i, 0, 0};
      resume(g_block.fibers[i]);
      moved = true;
      left -= g_block.fibers[i].done ? 1 : 0;
    }
    if (!moved) throw std::logic_error("the threads of a block wait for each other for ever");
  }
}

}  // namespace

void run(dim3 grid_in, unsigned threads_in, std::size_t shared_bytes,
         const std::function<void()>& body) {
  grid = grid_in;
  threads = dim3(threads_in);
  g_block.body = &body;
  g_block.fibers.resize(threads_in);
  g_block.slots.assign(threads_in, 0);
  g_block.memory.resize(shared_bytes);
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        block = {x, y, z};
        std::memset(g_block.memory.data(), 0xff, shared_bytes);  // NaN: nothing is there yet
        run_block();
      }
}

unsigned char* block_memory() { return g_block.memory.data(); }

void block_barrier() { wait_at(g_block.all); }

std::uint64_t exchange(std::uint64_t mine, int from) {
  const unsigned me = g_block.current, warp = me / kLanes;
  g_block.slots[me] = mine;
  wait_at(g_block.warps[warp]);
  const std::uint64_t got = g_block.slots[warp * kLanes + static_cast<unsigned>(from)];
  wait_at(g_block.warps[warp]);
  return got;
}

}  // namespace emulated
