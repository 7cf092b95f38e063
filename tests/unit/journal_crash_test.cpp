// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include "comms/error.h"
#include "tests/unit/journal_samples.h"
#include "trainer/journal.h"

namespace rollcall {
namespace {

constexpr std::size_t kTokens = 3000;  // enough for several chunks of every array

// A forked process that runs `work` and tells its parent numbers through a pipe.
class Child {
 public:
  explicit Child(const std::function<void(int report)>& work) {
    int ends[2];
    if (::pipe(ends) != 0) throw Error("pipe");
    process_ = ::fork();
    if (process_ == 0) {
      ::close(ends[0]);
      work(ends[1]);
      ::_exit(0);
    }
    ::close(ends[1]);
    reports_ = ends[0];
  }
  ~Child() { ::close(reports_); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void kill() const { ::kill(process_, SIGKILL); }
  int wait() const {
    int status = 0;
    ::waitpid(process_, &status, 0);
    return status;
  }
  // After the end of the child: the last number it told, or `none`.
  std::int64_t last_report(std::int64_t none) const {
    std::int64_t value = none;
    while (::read(reports_, &value, sizeof value) == sizeof value) {
    }
    return value;
  }
  bool read_one(std::int64_t& value) const {
    return ::read(reports_, &value, sizeof value) == sizeof value;
  }

 private:
  pid_t process_ = -1;
  int reports_ = -1;
};

void tell(int report, std::int64_t value) {
  if (::write(report, &value, sizeof value) != sizeof value) ::_exit(9);
}

// Appends and commits in small parts until somebody ends it.
void write_without_end(const std::filesystem::path& file, int report) {
  Journal journal(file, "{}", {.flush_rows = 4, .flush_every = std::chrono::milliseconds(1)});
  tell(report, journal.rows());
  std::mt19937_64 random(static_cast<std::uint64_t>(::getpid()));
  while (true) {
    for (std::size_t i = random() % 20; i > 0; --i) {
      journal.append(sample_trajectory(journal.rows(), kTokens));
    }
    journal.append_uses(std::vector{UpdateUse{.row = 0, .step = journal.rows()}});
    if (random() % 3 == 0) tell(report, journal.commit());
  }
}

void expect_rows_from(const std::filesystem::path& file, std::int64_t at_least) {
  const JournalReader reader(file);
  const std::int64_t rows = reader.rows();
  ASSERT_GE(rows, at_least);
  for (std::int64_t row = 0; row < rows; ++row) {
    ASSERT_EQ(difference(reader.read(row), sample_trajectory(row, kTokens)), "") << "row " << row;
  }
  for (const UpdateUse& use : reader.uses()) ASSERT_LE(use.step, rows);
}

TEST(JournalCrash, KeepsCommittedRowsWhenKilledAnywhere) {
  std::mt19937_64 random(11);
  for (int seed = 0; seed < 4; ++seed) {
    const TempFolder folder;
    const std::filesystem::path file = folder.path() / "j.h5";
    std::int64_t committed = 0;
    for (int life = 0; life < 3; ++life) {  // killed, reopened, killed again ...
      const Child child([&](int report) { write_without_end(file, report); });
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 25000));
      child.kill();
      child.wait();
      committed = child.last_report(committed);
      if (!std::filesystem::exists(file)) continue;  // killed before the first rename
      ASSERT_NO_FATAL_FAILURE(expect_rows_from(file, committed)) << "seed " << seed;
    }
    {
      Journal journal(file, "{}");
      ASSERT_GE(journal.rows(), committed);
      for (int i = 0; i < 5; ++i) journal.append(sample_trajectory(journal.rows(), kTokens));
      committed = journal.commit();
    }
    ASSERT_NO_FATAL_FAILURE(expect_rows_from(file, committed)) << "seed " << seed;
  }
}

TEST(JournalCrash, ShowsWholeRowsToAnotherProcess) {
  const TempFolder folder;
  const std::filesystem::path file = folder.path() / "j.h5";
  const Child child([&](int report) { write_without_end(file, report); });
  std::int64_t rows = 0;
  ASSERT_TRUE(child.read_one(rows));
  {
    const JournalReader reader(file);
    for (std::int64_t seen = 0; seen < 100;) {
      rows = reader.rows();
      for (; seen < rows; ++seen) {
        ASSERT_EQ(difference(reader.read(seen), sample_trajectory(seen, kTokens)), "")
            << "row " << seen;
      }
    }
  }
  child.kill();
  child.wait();
}

// Fills the "disk" of a child that may write `limit` bytes; it tells its committed rows and exits
// with 0 if an Error with advice came, in commit and in the calls after it.
void write_until_full(const std::filesystem::path& file, rlim_t limit, int report) {
  ::signal(SIGXFSZ, SIG_IGN);
  const rlimit size{limit, limit};
  ::setrlimit(RLIMIT_FSIZE, &size);
  int errors = 0;
  {
    Journal journal(file, "{}", {.flush_rows = 4});
    while (errors < 2) {
      try {
        journal.append(sample_trajectory(journal.rows(), kTokens));
        if (journal.rows() % 8 == 0) tell(report, journal.commit());
      } catch (const Error& error) {
        if (error.what_to_do().find("free space") == std::string::npos) ::_exit(3);
        ++errors;
      }
    }
  }
  std::exit(0);  // with HDF5's own closing
}

TEST(JournalCrash, KeepsCommittedRowsWhenTheDiskIsFull) {
  std::mt19937_64 random(7);
  for (int seed = 0; seed < 2; ++seed) {
    const TempFolder folder;
    const std::filesystem::path file = folder.path() / "j.h5";
    const rlim_t limit = 2500000 + random() % 3000000;
    const Child child([&](int report) { write_until_full(file, limit, report); });
    const int status = child.wait();
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "seed " << seed << " " << status;
    const std::int64_t committed = child.last_report(-1);
    ASSERT_GT(committed, 0);
    ASSERT_NO_FATAL_FAILURE(expect_rows_from(file, committed)) << "seed " << seed;
    {
      Journal journal(file, "{}");
      ASSERT_EQ(journal.rows(), committed);
      journal.append(sample_trajectory(committed, kTokens));
    }
    ASSERT_NO_FATAL_FAILURE(expect_rows_from(file, committed + 1)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace rollcall
