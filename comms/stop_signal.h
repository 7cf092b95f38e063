// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace rollcall {

// Turns SIGTERM, SIGINT and SIGUSR1 into a request to stop that the main loop polls. A further
// SIGTERM or SIGINT ends the process at once with code 3; signals within a second of the first
// count as the same one, since launchers and batch systems send theirs in pairs. SIGUSR1 only asks,
// as often as it comes. At most one object at a time; the former handlers return with its end.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool stop_requested() const;
  // The signal that asked for it; 0 if none has.
  int signal_number() const;
};

// The signal that asked the StopSignal there is, or was last, to stop; 0 if none has.
int stop_signal_received();

}  // namespace rollcall
