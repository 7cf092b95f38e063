// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "configs/read_context.h"
#include "configs/run_config.h"

namespace rollcall {

// Adds a problem for every pair of values that do not go together, for what `purpose` needs, and
// for what this version cannot do yet.
void cross_check(const RunConfig&, Purpose, ReadContext&);

}  // namespace rollcall
