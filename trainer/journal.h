// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comms/trajectory.h"

namespace rollcall {

// What an update did with one journalled trajectory: the second table of the journal.
struct UpdateUse {
  std::int64_t row = 0;   // journal row of the trajectory
  std::int64_t step = 0;  // optimizer step that used it
  double reward = 0;
  double advantage = 0;  // 0 where in_loss is false
  bool in_loss = false;  // false: dropped (zero-variance group, fault, mask)
};

struct JournalOptions {
  std::int64_t flush_rows = 128;                // readers see rows after this many ...
  std::chrono::milliseconds flush_every{1000};  // ... or this long
};

// The durable record of every rollout: one HDF5 file, flat arrays with offsets (CSR), written in
// SWMR mode by a thread of its own; schema in docs/journal.md. One writer per file, held by a lock
// beside it. The public functions are for one thread; errors of the writing thread (disk full)
// surface as Error in the next call and in all calls after it.
class Journal {
 public:
  // Creates the file, or opens an existing one and repairs what a kill left behind: uncommitted
  // tails are cut off. `about` (JSON text: config, revision, versions) goes into the root
  // attributes of a new file.
  Journal(const std::filesystem::path& file, const std::string& about, const JournalOptions& = {});
  ~Journal();  // commits what it can; logs instead of throwing
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Queues one trajectory and returns its row. Blocks only when the queue is full. Not durable
  // until commit(). It is shared, not copied, until it is written: nobody may change it.
  std::int64_t append(std::shared_ptr<const Trajectory>);
  std::int64_t append(Trajectory);
  void append_uses(std::span<const UpdateUse>);
  // Blocks until everything appended is on disk (flush + fsync, offsets last). Returns rows
  // committed.
  std::int64_t commit();

  std::int64_t rows() const;  // appended so far, committed or not
  // Drops rows [rows, end) and the uses of steps >= `first_step_dropped`: a resume discards what
  // came after its checkpoint.
  void truncate(std::int64_t rows, std::int64_t first_step_dropped);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Reads a journal, also while a run writes it (SWMR). Throws Error for a file that is no journal,
// is of a newer schema, or is damaged. Single thread.
class JournalReader {
 public:
  explicit JournalReader(const std::filesystem::path& file);
  ~JournalReader();
  JournalReader(const JournalReader&) = delete;
  JournalReader& operator=(const JournalReader&) = delete;

  std::int64_t rows() const;                      // readable now; looks for new ones
  std::int64_t committed_rows() const;            // of them, those that survive a power cut
  Trajectory read(std::int64_t row) const;        // everything, checksum compared
  Trajectory read_texts(std::int64_t row) const;  // without the token arrays
  Trajectory read_row(std::int64_t row) const;    // without tokens, texts and tool events
  std::int64_t token_count(std::int64_t row) const;
  std::vector<UpdateUse> uses() const;
  std::string about() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rollcall
