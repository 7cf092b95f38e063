// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "trainer/journal_columns.h"
#include "trainer/journal_hdf5.h"

namespace rollcall {

inline constexpr std::int64_t kJournalSchema = 3;

// One element of `uses`.
struct UseRecord {
  std::int64_t row = 0, step = 0;
  double reward = 0, advantage = 0;
  std::int64_t in_loss = 0;
};

// The dataset `counts`: how much of the other datasets is valid. Whatever lies beyond is the tail
// of an unfinished write or of a truncation, and is overwritten later.
struct JournalCounts {
  std::int64_t rows = 0, uses = 0;                      // complete and readable
  std::int64_t committed_rows = 0, committed_uses = 0;  // also synced to disk
  std::int64_t committed_bytes = 0;                     // size of the file at that moment
};

// The journal's layout in its file (docs/journal.md), without queue or thread. Single thread.
class JournalFile {
 public:
  // Writes an empty journal aside and renames it: a kill leaves none, or a whole one.
  static void create(const std::filesystem::path& path, const std::string& about);
  // kWrite: what was not committed is dropped. kRead: sees what a live writer has published. Throws
  // Error for a file that is no journal, has a newer schema, or is shorter than its counts say.
  JournalFile(const std::filesystem::path& path, Hdf5Access access);

  const JournalCounts& counts() const { return counts_; }
  std::string about() const { return file_.text("about"); }

  // Appends and publishes: readers may see it, but a power cut may lose it.
  void append(const JournalColumns& columns, const std::vector<UseRecord>& uses);
  void commit();
  // Drops rows and uses from these on, durably. The space is used again by later appends.
  void truncate(std::int64_t rows, std::int64_t uses);

  void refresh();                          // reader: brings counts() up to date
  void check_row(std::int64_t row) const;  // throws an input Error if there is no such row
  RowRecord row(std::int64_t row) const;
  // One row; without `tokens` the four token arrays stay empty, else the checksum is compared.
  JournalColumns read(std::int64_t row, bool tokens) const;
  std::int64_t token_count(std::int64_t row) const;
  std::vector<UseRecord> uses() const;

 private:
  struct Ends {
    std::int64_t tokens = 0, events = 0, texts = 0, event_texts = 0;
  };

  void begin_to_write();
  void check_in_place() const;
  void read_counts();
  void write_counts();
  void check_counts();
  void find_ends();
  void write_ends(Hdf5Array& offsets, std::int64_t at, const std::vector<std::int64_t>& ends,
                  std::int64_t base);
  void refresh_arrays();

  Hdf5File file_;
  Hdf5Array counts_array_;
  Hdf5Array rows_, tokens_, is_action_, behavior_logprobs_, token_version_, offsets_;
  Hdf5Array events_, event_offsets_, texts_, text_offsets_, event_texts_, event_text_offsets_;
  Hdf5Array uses_;
  JournalCounts counts_;
  Ends ends_;               // of the valid part of each array
  bool writing_ = false;    // SWMR has begun
  std::int64_t bytes_ = 0;  // of the file, after the last write
};

}  // namespace rollcall
