// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace rollcall {

struct ContainerOptions {            // container:
  std::string image;                 // Apptainer image; empty: none
  std::vector<std::string> binds;    // HOST or HOST:INSIDE
  std::string program = "rollcall";  // inside the image
};

// What a cluster wants to be told of every job: the site file. Texts that end up in #SBATCH lines
// hold no blanks, quotes or control characters, lines of `extra` and `setup` no line breaks.
struct SiteOptions {
  std::string partition, account, qos;                    // empty: the cluster's default
  std::chrono::milliseconds time{std::chrono::hours{4}};  // limit of one job
  std::int64_t nodes = 1;
  std::int64_t cpus_per_rank = 1;
  std::int64_t gpus_per_learner = 0;
  std::int64_t memory_per_rank = 0;  // bytes; 0: the cluster's default
  bool requeue = true;
  std::vector<std::string> modules, setup, extra;
  std::vector<std::pair<std::string, std::string>> environment;
  ContainerOptions container;
};

}  // namespace rollcall
