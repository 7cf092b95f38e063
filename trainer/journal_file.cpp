// SPDX-License-Identifier: Apache-2.0
#include "trainer/journal_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "comms/error.h"

namespace rollcall {
namespace {

constexpr const char* kFormat = "rollcall journal";

// Chunks of 256 KiB for what grows fast (feasibility measurements: no gain beyond), 64 KiB
// elsewhere.
constexpr std::int64_t kTokenChunk = 65536;
constexpr std::int64_t kByteChunk = 262144;
constexpr std::int64_t kOffsetChunk = 8192;
constexpr std::int64_t kRecordChunk = 512;

constexpr std::int64_t kCountFields = sizeof(JournalCounts) / sizeof(std::int64_t);

std::string named(const std::filesystem::path& path) { return "journal " + path.string(); }

void create_offsets(const Hdf5File& file, const std::string& name) {
  Hdf5Array::create(file, name, int64_element(), 1, kOffsetChunk);  // the leading 0
}

void create_arrays(const Hdf5File& file) {
  Hdf5Array::create(file, "counts", int64_element(), kCountFields, 0);
  Hdf5Array::create(file, "rows", row_element(), 0, kRecordChunk);
  Hdf5Array::create(file, "tokens", int32_element(), 0, kTokenChunk);
  Hdf5Array::create(file, "is_action", uint8_element(), 0, kTokenChunk);
  Hdf5Array::create(file, "behavior_logprobs", float_element(), 0, kTokenChunk);
  Hdf5Array::create(file, "token_version", int32_element(), 0, kTokenChunk);
  create_offsets(file, "offsets");
  Hdf5Array::create(file, "tool_events", event_element(), 0, kRecordChunk);
  create_offsets(file, "tool_event_offsets");
  Hdf5Array::create(file, "texts", uint8_element(), 0, kByteChunk);
  create_offsets(file, "text_offsets");
  Hdf5Array::create(file, "tool_texts", uint8_element(), 0, kByteChunk);
  create_offsets(file, "tool_text_offsets");
  Hdf5Array::create(file, "uses", use_element(), 0, kRecordChunk);
}

// The ends of `pieces` consecutive ranges, counted from `begin`, where the first one starts.
struct Ranges {
  std::int64_t begin = 0;
  std::vector<std::int64_t> ends;
};
Ranges ranges_of(const Hdf5Array& offsets, std::int64_t at, std::int64_t pieces) {
  Ranges found{0, offsets.read<std::int64_t>(at, pieces + 1)};
  found.begin = found.ends.front();
  if (found.begin < 0 || !std::ranges::is_sorted(found.ends))
    throw Error("journal: the offsets of a row are damaged", kDamagedJournal);
  found.ends.erase(found.ends.begin());
  for (std::int64_t& end : found.ends) end -= found.begin;
  return found;
}

// Makes a rename in `folder` survive a power cut. Not every file system allows it: no error.
void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

// Opens and refuses what is no journal of ours before any dataset is touched.
Hdf5File open_checked(const std::filesystem::path& path, Hdf5Access access) {
  Hdf5File file(path, access);
  if (file.text("format") != kFormat)
    throw Error(named(path) + ": not a Rollcall journal", kDamagedJournal);
  const std::int64_t schema = file.integer("schema");
  if (schema != kJournalSchema) {
    throw Error(named(path) + ": schema " + std::to_string(schema) + "; this version reads " +
                    std::to_string(kJournalSchema) + " only",
                "use the version of Rollcall that wrote it");
  }
  return file;
}

}  // namespace

void JournalFile::create(const std::filesystem::path& path, const std::string& about) {
  const std::filesystem::path aside = path.string() + ".new";
  {
    Hdf5File file = Hdf5File::create(aside);
    file.set_text("format", kFormat);
    file.set_integer("schema", kJournalSchema);
    file.set_text("about", about);
    create_arrays(file);
    file.flush();
    file.sync();
  }
  std::error_code failed;
  std::filesystem::rename(aside, path, failed);
  if (failed) throw Error(named(path) + ": cannot create: " + failed.message());
  sync_folder(path.parent_path());
}

JournalFile::JournalFile(const std::filesystem::path& path, Hdf5Access access)
    : file_(open_checked(path, access)),
      counts_array_(file_, "counts", int64_element()),
      rows_(file_, "rows", row_element()),
      tokens_(file_, "tokens", int32_element()),
      is_action_(file_, "is_action", uint8_element()),
      behavior_logprobs_(file_, "behavior_logprobs", float_element()),
      token_version_(file_, "token_version", int32_element()),
      offsets_(file_, "offsets", int64_element()),
      events_(file_, "tool_events", event_element()),
      event_offsets_(file_, "tool_event_offsets", int64_element()),
      texts_(file_, "texts", uint8_element()),
      text_offsets_(file_, "text_offsets", int64_element()),
      event_texts_(file_, "tool_texts", uint8_element()),
      event_text_offsets_(file_, "tool_text_offsets", int64_element()),
      uses_(file_, "uses", use_element()) {
  read_counts();
  check_counts();
  if (access == Hdf5Access::kRead) return;
  counts_.rows = counts_.committed_rows;
  counts_.uses = counts_.committed_uses;
  find_ends();
  if (counts_.rows == 0 && counts_.uses == 0) begin_to_write();
}

// From here on HDF5 tries to read a damaged piece a hundred times, for hours: what an earlier life
// left has to be read before.
void JournalFile::begin_to_write() {
  if (std::exchange(writing_, true)) return;
  file_.start_swmr();
  write_counts();
  bytes_ = file_.size_bytes();
}

// HDF5 notices nothing: it would go on into a file that nobody can open any more.
void JournalFile::check_in_place() const {
  const char* what = !file_.is_at_its_path()       ? "was moved, replaced or deleted"
                     : file_.size_bytes() < bytes_ ? "was cut short"
                                                   : nullptr;
  if (what != nullptr)
    throw Error(named(file_.path()) + ": " + what + " while the run wrote to it",
                "put it back if it was moved; what it held is lost otherwise: move the run's "
                "folder away to start over, or set model.path to what rollcall export makes of "
                "its last checkpoint");
}

void JournalFile::read_counts() { counts_array_.read(0, &counts_, kCountFields); }

void JournalFile::write_counts() {
  counts_array_.write(0, &counts_, kCountFields);
  counts_array_.flush();
}

void JournalFile::check_counts() {
  if (file_.size_bytes() < counts_.committed_bytes) {
    throw Error(named(file_.path()) + ": cut short: it has " + std::to_string(file_.size_bytes()) +
                    " bytes of at least " + std::to_string(counts_.committed_bytes),
                kDamagedJournal);
  }
  const auto bytes_a_row = static_cast<std::int64_t>(sizeof(RowRecord));
  if (counts_.rows < 0 || counts_.uses < 0 || counts_.rows > rows_.length() ||
      counts_.uses > uses_.length() || counts_.rows > file_.size_bytes() / bytes_a_row ||
      counts_.committed_rows < 0 || counts_.committed_rows > rows_.length() ||
      counts_.committed_uses < 0 || counts_.committed_uses > uses_.length()) {
    throw Error(named(file_.path()) + ": its counts do not fit its tables", kDamagedJournal);
  }
}

void JournalFile::find_ends() {
  const std::int64_t rows = counts_.rows;
  // Where the valid part of `array` ends: what is appended there must neither tear a hole nor stand
  // before the beginning.
  const auto end_of = [this](const Hdf5Array& offsets, std::int64_t at, const Hdf5Array& array) {
    const std::int64_t end = offsets.read<std::int64_t>(at, 1)[0];
    if (end >= 0 && end <= array.length()) return end;
    throw Error(named(file_.path()) + ": its offsets do not fit its arrays", kDamagedJournal);
  };
  ends_.tokens = end_of(offsets_, rows, tokens_);
  ends_.events = end_of(event_offsets_, rows, events_);
  ends_.texts = end_of(text_offsets_, rows * kTextsPerRow, texts_);
  ends_.event_texts = end_of(event_text_offsets_, ends_.events * kTextsPerEvent, event_texts_);
  if (rows > 0) read(rows - 1, true);
}

void JournalFile::write_ends(Hdf5Array& offsets, std::int64_t at,
                             const std::vector<std::int64_t>& ends, std::int64_t base) {
  std::vector<std::int64_t> absolute(ends);
  for (std::int64_t& end : absolute) end += base;
  offsets.write(at + 1, absolute.data(), static_cast<std::int64_t>(absolute.size()));
}

void JournalFile::append(const JournalColumns& columns, const std::vector<UseRecord>& uses) {
  begin_to_write();
  check_in_place();
  const auto write = [](Hdf5Array& array, std::int64_t at, const auto& values) {
    array.write(at, values.data(), static_cast<std::int64_t>(values.size()));
    return at + static_cast<std::int64_t>(values.size());
  };
  Ends ends;
  ends.tokens = write(tokens_, ends_.tokens, columns.tokens);
  write(is_action_, ends_.tokens, columns.is_action);
  write(behavior_logprobs_, ends_.tokens, columns.behavior_logprobs);
  write(token_version_, ends_.tokens, columns.token_version);
  ends.events = write(events_, ends_.events, columns.events);
  ends.texts = write(texts_, ends_.texts, columns.texts);
  ends.event_texts = write(event_texts_, ends_.event_texts, columns.event_texts);
  write_ends(offsets_, counts_.rows, columns.token_ends, ends_.tokens);
  write_ends(event_offsets_, counts_.rows, columns.event_ends, ends_.events);
  write_ends(text_offsets_, counts_.rows * kTextsPerRow, columns.text_ends, ends_.texts);
  write_ends(event_text_offsets_, ends_.events * kTextsPerEvent, columns.event_text_ends,
             ends_.event_texts);
  JournalCounts counts = counts_;
  counts.rows = write(rows_, counts_.rows, columns.rows);
  counts.uses = write(uses_, counts_.uses, uses);
  file_.flush();
  counts_ = counts;
  ends_ = ends;
  write_counts();
  bytes_ = file_.size_bytes();
}

void JournalFile::commit() {
  check_in_place();
  file_.sync();
  counts_.committed_rows = counts_.rows;
  counts_.committed_uses = counts_.uses;
  counts_.committed_bytes = file_.size_bytes();
  write_counts();
  file_.sync();
  bytes_ = file_.size_bytes();
}

void JournalFile::truncate(std::int64_t rows, std::int64_t uses) {
  counts_.rows = rows;
  counts_.uses = uses;
  find_ends();
  begin_to_write();
  commit();
}

void JournalFile::refresh() {
  counts_array_.refresh();
  const JournalCounts seen = counts_;
  read_counts();
  if (counts_.rows == seen.rows && counts_.uses == seen.uses) return;
  refresh_arrays();
  check_counts();
}

void JournalFile::refresh_arrays() {
  for (Hdf5Array* array :
       {&rows_, &tokens_, &is_action_, &behavior_logprobs_, &token_version_, &offsets_, &events_,
        &event_offsets_, &texts_, &text_offsets_, &event_texts_, &event_text_offsets_, &uses_}) {
    array->refresh();
  }
}

void JournalFile::check_row(std::int64_t row) const {
  if (row >= 0 && row < counts_.rows) return;
  throw input_error(named(file_.path()) + ": there is no row " + std::to_string(row),
                    "rows are 0 to " + std::to_string(counts_.rows - 1));
}

RowRecord JournalFile::row(std::int64_t row) const {
  check_row(row);
  RowRecord record;
  rows_.read(row, &record, 1);
  return record;
}

std::int64_t JournalFile::token_count(std::int64_t row) const {
  check_row(row);
  return ranges_of(offsets_, row, 1).ends[0];
}

JournalColumns JournalFile::read(std::int64_t row, bool tokens) const {
  JournalColumns out;
  out.rows.push_back(this->row(row));
  const auto ends_of = [](const Hdf5Array& offsets, std::int64_t at, std::int64_t pieces,
                          std::vector<std::int64_t>& ends) {
    Ranges found = ranges_of(offsets, at, pieces);
    ends = std::move(found.ends);
    return found.begin;
  };
  const auto text = [](const Hdf5Array& bytes, std::int64_t begin, std::int64_t size) {
    const auto read = bytes.read<char>(begin, size);
    return std::string(read.begin(), read.end());
  };
  const std::int64_t first_event = ends_of(event_offsets_, row, 1, out.event_ends);
  out.events = events_.read<EventRecord>(first_event, out.event_ends.back());
  const std::int64_t texts =
      ends_of(text_offsets_, row * kTextsPerRow, kTextsPerRow, out.text_ends);
  out.texts = text(texts_, texts, out.text_ends.back());
  if (!out.events.empty()) {
    const auto pieces = static_cast<std::int64_t>(out.events.size()) * kTextsPerEvent;
    const std::int64_t begin =
        ends_of(event_text_offsets_, first_event * kTextsPerEvent, pieces, out.event_text_ends);
    out.event_texts = text(event_texts_, begin, out.event_text_ends.back());
  }
  if (!tokens) return out;
  const std::int64_t first = ends_of(offsets_, row, 1, out.token_ends);
  const std::int64_t count = out.token_ends.back();
  out.tokens = tokens_.read<std::int32_t>(first, count);
  out.is_action = is_action_.read<std::uint8_t>(first, count);
  out.behavior_logprobs = behavior_logprobs_.read<float>(first, count);
  out.token_version = token_version_.read<std::int32_t>(first, count);
  if (checksum_of(out) != out.rows[0].checksum) {
    throw Error(
        named(file_.path()) + ": the checksum of row " + std::to_string(row) + " does not fit it",
        kDamagedJournal);
  }
  return out;
}

std::vector<UseRecord> JournalFile::uses() const { return uses_.read<UseRecord>(0, counts_.uses); }

}  // namespace rollcall
