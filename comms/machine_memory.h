// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>

namespace rollcall {

// Bytes that this process can still take: what the system says is available (/proc/meminfo), or
// less where a control group above it, as of a batch job or a container, leaves less; -1: unknown.
// `root` is where /proc and /sys lie.
std::int64_t available_memory(const std::filesystem::path& root = "/");

// Nodes of memory (NUMA) that this process may take memory from, as Linux lists them ("0-1,4"); 1
// where it does not say.
int memory_nodes(const std::filesystem::path& root = "/");

}  // namespace rollcall
