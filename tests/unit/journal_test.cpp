// SPDX-License-Identifier: Apache-2.0
#include "trainer/journal.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <optional>
#include <thread>

#include "comms/error.h"
#include "tests/unit/journal_samples.h"
#include "trainer/journal_file.h"

namespace rollcall {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kAbout = R"({"run":"ledger"})";

void append_rows(Journal& journal, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) journal.append(sample_trajectory(row));
}

void expect_rows(const std::filesystem::path& file, std::int64_t rows) {
  const JournalReader reader(file);
  ASSERT_EQ(reader.rows(), rows);
  for (std::int64_t row = 0; row < rows; ++row) {
    ASSERT_EQ(difference(reader.read(row), sample_trajectory(row)), "") << "row " << row;
  }
}

std::string bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_bytes(const std::filesystem::path& file, std::string_view bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

// Reads everything a reader can ask for; returns the message of the Error, or "" if all was
// readable.
std::string read_all(const std::filesystem::path& file) {
  try {
    const JournalReader reader(file);
    for (std::int64_t row = 0; row < reader.rows(); ++row) {
      const std::string wrong = difference(reader.read(row), sample_trajectory(row));
      EXPECT_EQ(wrong, "") << "row " << row << " was read, but wrong";
    }
    reader.uses();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

std::string open_for_writing(const std::filesystem::path& file) {
  try {
    Journal journal(file, kAbout);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

class JournalTest : public ::testing::Test {
 protected:
  const std::filesystem::path& folder() const { return folder_.path(); }
  std::filesystem::path file() const { return folder() / "journal" / "learner-0.h5"; }

 private:
  TempFolder folder_;
};

TEST_F(JournalTest, GivesBackEveryFieldOfEveryTrajectory) {
  {
    Journal journal(file(), kAbout);
    append_rows(journal, 0, 300);
    EXPECT_EQ(journal.commit(), 300);
  }
  expect_rows(file(), 300);
  EXPECT_EQ(JournalReader(file()).about(), kAbout);
}

TEST_F(JournalTest, KeepsEmptyArraysAndTextsWithNulBytes) {
  const Trajectory empty;
  Trajectory zeros;
  zeros.final_text = std::string("\0a\0", 3);
  zeros.tool_events.resize(1);
  zeros.tool_events[0].name = std::string("\0", 1);
  zeros.tool_events[0].output = std::string(5, '\0');
  {
    Journal journal(file(), kAbout);
    EXPECT_EQ(journal.append(empty), 0);
    EXPECT_EQ(journal.append(zeros), 1);
  }
  const JournalReader reader(file());
  EXPECT_EQ(difference(reader.read(0), empty), "");
  EXPECT_EQ(difference(reader.read(1), zeros), "");
}

TEST_F(JournalTest, KeepsSpecialNumbersBitForBit) {
  Trajectory t;
  t.assignment.seed = ~std::uint64_t{0};
  t.grade.sub_rewards = {{"tiny", 5e-324}, {"third", 1.0 / 3}, {"zero", -0.0}};
  t.tokens = {1};
  t.is_action = {1};
  t.behavior_logprobs = {-std::numeric_limits<float>::infinity()};
  t.token_version = {0};
  { Journal(file(), kAbout).append(t); }
  const Trajectory read = JournalReader(file()).read(0);
  EXPECT_EQ(difference(read, t), "");
  EXPECT_TRUE(std::signbit(read.grade.sub_rewards[2].second));
}

TEST_F(JournalTest, ReadsScalarsAndTextsWithoutTokens) {
  {
    Journal journal(file(), kAbout);
    append_rows(journal, 0, 10);
  }
  const JournalReader reader(file());
  const Trajectory whole = sample_trajectory(7);
  EXPECT_EQ(reader.read_row(7).grade.score, whole.grade.score);
  EXPECT_THAT(reader.read_row(7).tool_events, IsEmpty());
  EXPECT_EQ(reader.read_texts(7).final_text, whole.final_text);
  EXPECT_THAT(reader.read_texts(7).tokens, IsEmpty());
  EXPECT_EQ(reader.token_count(7), static_cast<std::int64_t>(whole.tokens.size()));
  EXPECT_THROW(reader.read(10), Error);
  EXPECT_THROW(reader.read_row(-1), Error);
}

TEST_F(JournalTest, KeepsUsesInOrder) {
  const UpdateUse used{.row = 1, .step = 4, .reward = 0.5, .advantage = -0.25, .in_loss = true};
  const UpdateUse dropped{.row = 0, .step = 4, .reward = 1, .advantage = 0, .in_loss = false};
  {
    Journal journal(file(), kAbout);
    append_rows(journal, 0, 2);
    journal.append_uses(std::vector{used, dropped});
  }
  const std::vector<UpdateUse> uses = JournalReader(file()).uses();
  ASSERT_EQ(uses.size(), 2);
  EXPECT_EQ(uses[0].row, 1);
  EXPECT_EQ(uses[0].step, 4);
  EXPECT_EQ(uses[0].reward, 0.5);
  EXPECT_EQ(uses[0].advantage, -0.25);
  EXPECT_TRUE(uses[0].in_loss);
  EXPECT_FALSE(uses[1].in_loss);
}

TEST_F(JournalTest, GoesOnAfterReopening) {
  for (std::int64_t part = 0; part < 4; ++part) {
    Journal journal(file(), kAbout);
    EXPECT_EQ(journal.rows(), part * 50);
    append_rows(journal, part * 50, part * 50 + 50);
  }
  expect_rows(file(), 200);
}

TEST_F(JournalTest, TruncatesRowsAndUsesAndOverwritesThem) {
  const auto use = [](std::int64_t row) { return UpdateUse{.row = row, .step = row / 10}; };
  {
    Journal journal(file(), kAbout);
    for (std::int64_t row = 0; row < 100; ++row) {
      journal.append(sample_trajectory(row + 1000));
      journal.append_uses(std::vector{use(row)});
    }
    journal.truncate(0, 3);
    append_rows(journal, 0, 60);
    for (std::int64_t row = 0; row < 60; ++row) journal.append_uses(std::vector{use(row)});
    journal.truncate(40, 3);
    EXPECT_EQ(journal.rows(), 40);
  }
  expect_rows(file(), 40);
  EXPECT_EQ(JournalReader(file()).uses().size(), 30);
  {
    Journal journal(file(), kAbout);
    EXPECT_EQ(journal.rows(), 40);
    EXPECT_THROW(journal.truncate(41, 0), Error);
    append_rows(journal, 40, 90);
  }
  expect_rows(file(), 90);
}

TEST_F(JournalTest, ShowsRowsToAReaderWhileItWrites) {
  Journal journal(file(), kAbout, {.flush_rows = 8});
  std::atomic<bool> finished = false;
  std::int64_t seen = 0, growths = 0;
  std::jthread reading([&] {
    const JournalReader reader(file());
    while (true) {
      const bool last = finished;
      const std::int64_t rows = reader.rows();
      growths += rows > seen ? 1 : 0;
      for (; seen < rows; ++seen) {
        ASSERT_EQ(difference(reader.read(seen), sample_trajectory(seen)), "") << "row " << seen;
      }
      if (last) return;
    }
  });
  append_rows(journal, 0, 2000);
  journal.commit();
  finished = true;
  reading.join();
  EXPECT_EQ(seen, 2000);
  EXPECT_GT(growths, 2);
}

TEST_F(JournalTest, FlushesAfterAWhileWithoutACommit) {
  Journal journal(file(), kAbout, {.flush_every = std::chrono::milliseconds(5)});
  journal.append(sample_trajectory(0));
  const JournalReader reader(file());
  while (reader.rows() == 0) std::this_thread::yield();
  EXPECT_EQ(difference(reader.read(0), sample_trajectory(0)), "");
  EXPECT_EQ(reader.committed_rows(), 0);
}

TEST_F(JournalTest, SharesARowUntilItIsWritten) {
  Journal journal(file(), kAbout, {.flush_every = std::chrono::hours(1)});
  const auto row = std::make_shared<const Trajectory>(sample_trajectory(0));
  journal.append(row);
  EXPECT_EQ(row.use_count(), 2);
  journal.commit();
  EXPECT_EQ(row.use_count(), 1);
  EXPECT_EQ(difference(JournalReader(file()).read(0), *row), "");
}

TEST_F(JournalTest, OpensForWritingWhileSomebodyReads) {
  { Journal(file(), kAbout).append(sample_trajectory(0)); }
  const int lock = ::open(file().c_str(), O_RDONLY | O_CLOEXEC);  // as h5py locks what it reads
  ASSERT_EQ(::flock(lock, LOCK_SH), 0);
  EXPECT_EQ(open_for_writing(file()), "");
  ::close(lock);
}

TEST_F(JournalTest, RefusesASecondWriter) {
  const Journal journal(file(), kAbout);
  EXPECT_THAT(open_for_writing(file()), HasSubstr("another process is writing it"));
}

TEST_F(JournalTest, RefusesWhatCannotBeStored) {
  Journal journal(file(), kAbout);
  Trajectory uneven = sample_trajectory(0);
  uneven.is_action.push_back(1);
  EXPECT_THROW(journal.append(uneven), Error);
  Trajectory long_id;
  long_id.trace_id = std::string(49, 'x');
  EXPECT_THROW(journal.append(long_id), Error);
  journal.append(sample_trajectory(0));
  EXPECT_EQ(journal.commit(), 1);
}

TEST_F(JournalTest, KeepsALongAbout) {
  const std::string about = "{\"config\":\"" + std::string(300000, 'x') + "\"}";
  { Journal(file(), about).append(sample_trajectory(0)); }
  EXPECT_EQ(JournalReader(file()).about(), about);
}

TEST_F(JournalTest, RefusesFilesThatAreNoJournal) {
  const std::filesystem::path other = folder() / "other.h5";
  EXPECT_NE(read_all(other), "");
  write_bytes(other, "not HDF5 at all");
  EXPECT_THAT(read_all(other), HasSubstr(other.string()));
  EXPECT_NE(open_for_writing(other), "");
  EXPECT_EQ(bytes_of(other), "not HDF5 at all");
  write_bytes(other, "");
  EXPECT_NE(read_all(other), "");
  Hdf5File::create(other);
  EXPECT_THAT(read_all(other), HasSubstr("format"));
}

TEST_F(JournalTest, RefusesANewerSchema) {
  const std::filesystem::path newer = folder() / "newer.h5";
  {
    Hdf5File future = Hdf5File::create(newer);
    future.set_text("format", "rollcall journal");
    future.set_integer("schema", kJournalSchema + 1);
  }
  EXPECT_THAT(read_all(newer), HasSubstr("schema 4; this version reads 3 only"));
  EXPECT_THAT(open_for_writing(newer), HasSubstr("schema 4; this version reads 3 only"));
}

TEST_F(JournalTest, RefusesAFileCutShortAnywhere) {
  {
    Journal journal(file(), kAbout);
    append_rows(journal, 0, 40);
    journal.append_uses(std::vector{UpdateUse{.row = 1}});
  }
  const std::string whole = bytes_of(file());
  const std::filesystem::path cut = folder() / "cut.h5";
  std::mt19937_64 random(5);
  for (std::size_t i = 0; i < 150; ++i) {
    const std::size_t length = i < 60   ? i
                               : i < 70 ? whole.size() - (i - 59)
                                        : random() % whole.size();
    write_bytes(cut, std::string_view(whole).substr(0, length));
    EXPECT_NE(read_all(cut), "") << "cut to " << length << " of " << whole.size();
    EXPECT_NE(open_for_writing(cut), "") << "cut to " << length << " of " << whole.size();
  }
}

TEST_F(JournalTest, NoticesADamagedRow) {
  {
    Journal journal(file(), kAbout);
    append_rows(journal, 0, 5);
  }
  std::string bytes = bytes_of(file());
  const std::size_t place = bytes.find("row 3");
  ASSERT_NE(place, std::string::npos);
  bytes[place] ^= 1;
  write_bytes(file(), bytes);
  const JournalReader reader(file());
  EXPECT_EQ(difference(reader.read(2), sample_trajectory(2)), "");
  EXPECT_THAT(read_all(file()), HasSubstr("row 3 of 5 is damaged"));
  try {
    reader.read(3);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what_to_do(), HasSubstr("rollcall inspect"));
    EXPECT_THAT(error.what_to_do(), testing::Not(HasSubstr("safe")));
  }
}

// Changed at places all over what the file holds: every row is refused, or read as it was written.
TEST_F(JournalTest, ReadsNoRowWrongInAFileChangedAnywhere) {
  {
    Journal journal(file(), kAbout);
    append_rows(journal, 0, 4);
    journal.append_uses(std::vector{UpdateUse{.row = 1}});
  }
  const std::string whole = bytes_of(file());
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < whole.size(); ++i)
    if (whole[i] != 0) places.push_back(i);
  const std::filesystem::path changed = folder() / "changed.h5";
  std::mt19937_64 random(5);
  for (int round = 0; round < 200; ++round) {
    std::string bytes = whole;
    const std::size_t place = places[random() % places.size()];
    bytes[place] ^= static_cast<char>(1 + random() % 255);
    if (round % 4 == 0) bytes.replace(place, 8, 8, static_cast<char>(random()));
    bytes.resize(whole.size());
    write_bytes(changed, bytes);
    read_all(changed);
    open_for_writing(changed);
  }
}

// A table changed as no writer would do it, checksums of HDF5's own intact.
class DamagedTable : public JournalTest {
 protected:
  DamagedTable() {
    Journal journal(file(), kAbout);
    append_rows(journal, 0, 3);
  }
  void write(const char* table, const Hdf5Element& element, std::int64_t at, const void* value) {
    const Hdf5File raw(file(), Hdf5Access::kWrite);
    Hdf5Array(raw, table, element).write(at, value, 1);
  }
};

TEST_F(DamagedTable, OfOffsetsIsRefused) {
  for (const char* table : {"offsets", "tool_event_offsets", "text_offsets", "tool_text_offsets"}) {
    for (const std::int64_t value :
         {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max(),
          std::int64_t{-1}, std::int64_t{1} << 40}) {
      std::int64_t before = 0;
      {
        const Hdf5File raw(file(), Hdf5Access::kRead);
        Hdf5Array(raw, table, int64_element()).read(2, &before, 1);
      }
      write(table, int64_element(), 2, &value);
      EXPECT_NE(read_all(file()), "") << table << " " << value;
      open_for_writing(file());
      write(table, int64_element(), 2, &before);
    }
  }
  EXPECT_EQ(read_all(file()), "");
}

TEST_F(DamagedTable, OfCountsIsRefused) {
  for (std::int64_t at = 0; at < 5; ++at) {
    const std::int64_t huge = std::int64_t{1} << 60;
    std::int64_t before = 0;
    {
      const Hdf5File raw(file(), Hdf5Access::kRead);
      Hdf5Array(raw, "counts", int64_element()).read(at, &before, 1);
    }
    write("counts", int64_element(), at, &huge);
    EXPECT_NE(read_all(file()), "") << at;
    EXPECT_NE(open_for_writing(file()), "") << at;
    write("counts", int64_element(), at, &before);
  }
}

TEST_F(DamagedTable, OfRowsIsRefusedWhereItNamesNoFault) {
  RowRecord row;
  row.fault = 200;
  write("rows", row_element(), 1, &row);
  const JournalReader reader(file());
  EXPECT_THROW(reader.read_row(1), Error);
  EXPECT_EQ(difference(reader.read(2), sample_trajectory(2)), "");
}

// A length of 2^40 elements is no reason to allocate them.
TEST_F(DamagedTable, ThatIsLongerThanItsFileIsRefused) {
  const std::int64_t end = std::int64_t{1} << 40;
  {
    const Hdf5File raw(file(), Hdf5Access::kWrite);
    const std::uint8_t byte = 0;
    Hdf5Array(raw, "texts", uint8_element()).write(end - 1, &byte, 1);
  }
  write("text_offsets", int64_element(), 12, &end);
  EXPECT_THAT(read_all(file()), HasSubstr("row 1 of 3 is damaged"));
}

}  // namespace
}  // namespace rollcall
