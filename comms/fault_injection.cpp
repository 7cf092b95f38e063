// SPDX-License-Identifier: Apache-2.0
#include "comms/fault_injection.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "comms/error.h"
#include "comms/log.h"
#include "comms/split.h"

namespace rollcall {
namespace {

std::optional<std::int64_t> number(std::string_view text) {
  std::int64_t value = 0;
  const auto* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  return parsed.ec == std::errc() && parsed.ptr == end && value >= 0 ? std::optional(value)
                                                                     : std::nullopt;
}

Fault fault_named(std::string_view name) {
  if (name == "kill") return Fault::kKill;
  if (name == "hang") return Fault::kHang;
  if (name == "fail") return Fault::kFail;
  if (name == "corrupt") return Fault::kCorrupt;
  return Fault::kNone;
}

PlannedFault parse_fault(std::string_view entry) {
  const auto parts = split(entry, ':');
  if (parts.size() >= 4) {
    const auto rank = number(parts[0]), visit = number(parts[2]);
    const Fault fault = fault_named(parts[3]);
    const bool hangs = fault == Fault::kHang;
    const auto hang_ms =
        hangs && parts.size() == 5 ? number(parts[4]) : std::optional<std::int64_t>(0);
    if (rank && visit && *visit > 0 && !parts[1].empty() && fault != Fault::kNone && hang_ms &&
        parts.size() == (hangs ? 5U : 4U))
      return {static_cast<int>(*rank), std::string(parts[1]), *visit, fault, *hang_ms};
  }
  throw input_error("ROLLCALL_FAULTS: '" + std::string(entry) + "' is no fault",
                    "write RANK:PLACE:N:kill, :fail, :corrupt or :hang:MS, or unset the variable: "
                    "it is for tests");
}

// The plan of this process and how often it was where.
class Plan {
 public:
  static Plan& of_this_process() {
    static Plan plan;
    return plan;
  }

  bool empty() const { return faults_.empty(); }

  Fault visit(std::string_view place) {
    PlannedFault due;
    {
      const std::lock_guard lock(mutex_);
      const auto count = ++visits_[std::string(place)];
      const auto found = std::ranges::find_if(faults_, [&](const PlannedFault& planned) {
        return planned.place == place && planned.visit == count;
      });
      if (found == faults_.end()) return Fault::kNone;
      due = *found;
    }
    return act(due);
  }

 private:
  Plan() {
    const char* text = std::getenv("ROLLCALL_FAULTS");
    const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
    if (text == nullptr || rank == nullptr) return;
    faults_ = parse_faults(text);
    std::erase_if(faults_, [&](const PlannedFault& f) { return std::to_string(f.rank) != rank; });
  }

  static Fault act(const PlannedFault& due) {
    log_warning("injected fault at " + due.place + " " + std::to_string(due.visit));
    log_flush();
    if (due.fault == Fault::kKill) ::kill(::getpid(), SIGKILL);
    if (due.fault != Fault::kHang) return due.fault;
    std::this_thread::sleep_for(std::chrono::milliseconds(due.hang_ms));
    return Fault::kNone;
  }

  std::vector<PlannedFault> faults_;
  std::mutex mutex_;
  std::map<std::string, std::int64_t, std::less<>> visits_;
};

}  // namespace

std::vector<PlannedFault> parse_faults(std::string_view text) {
  std::vector<PlannedFault> faults;
  if (text.empty()) return faults;
  for (const auto entry : split(text, ',')) faults.push_back(parse_fault(entry));
  return faults;
}

Fault fault_point(std::string_view place) {
  static const bool none = Plan::of_this_process().empty();
  return none ? Fault::kNone : Plan::of_this_process().visit(place);
}

}  // namespace rollcall
