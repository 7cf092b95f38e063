// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "comms/trajectory.h"

namespace rollcall {

// Little-endian, versioned, length-prefixed records; the form in which assignments and trajectories
// travel between ranks. decode_* throws Error on anything cut short, too long or out of range.
std::string encode(const Assignment&);
std::string encode(const Trajectory&);
Assignment decode_assignment(std::string_view bytes);
Trajectory decode_trajectory(std::string_view bytes);

}  // namespace rollcall
