// SPDX-License-Identifier: Apache-2.0
// Writes a journal of made-up rollouts for journal_h5py_test.py: FILE ROWS.
#include <cstdlib>

#include "tests/unit/journal_samples.h"
#include "trainer/journal.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  rollcall::Journal journal(argv[1], R"({"run":"h5py"})", {.flush_rows = 16});
  const long rows = std::atol(argv[2]);
  for (long row = 0; row < rows; ++row) {
    journal.append(rollcall::sample_trajectory(row, 2000));
    if (row % 100 == 99) {
      journal.append_uses(std::vector{rollcall::UpdateUse{.row = row, .step = row / 100}});
      journal.commit();
    }
  }
}
