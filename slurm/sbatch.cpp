// SPDX-License-Identifier: Apache-2.0
#include "slurm/sbatch.h"

#include <algorithm>
#include <cstring>

#include "comms/error.h"
#include "comms/program_output.h"

namespace rollcall {
namespace {

// "123" or "123;cluster" at the start of a line, as --parsable prints it; warnings may stand
// before.
std::string job_id_in(const std::string& text) {
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    const std::size_t digits = std::min(line.find_first_not_of("0123456789"), line.size());
    if (digits > 0 && (digits == line.size() || line[digits] == ';')) return line.substr(0, digits);
    begin = end + 1;
  }
  return {};
}

}  // namespace

std::string submit_to_slurm(const std::filesystem::path& script) {
  const ProgramOutput answer = program_output({"sbatch", "--parsable", script.string()});
  if (answer.start_error != 0)
    throw Error(std::string("cannot start sbatch: ") + std::strerror(answer.start_error),
                "submit where Slurm is installed, usually on a login node; --dry-run shows the "
                "file anywhere");
  const std::string id = job_id_in(answer.text);
  if (answer.code == 0 && !id.empty()) return id;
  std::string said = answer.text;
  while (!said.empty() && said.back() == '\n') said.pop_back();
  throw Error("sbatch refused " + script.string() + " (exit code " + std::to_string(answer.code) +
                  "): " + said,
              "what a cluster asks for (account, partition, limits) belongs in the site file");
}

}  // namespace rollcall
