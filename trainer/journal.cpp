// SPDX-License-Identifier: Apache-2.0
#include "trainer/journal.h"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "comms/error.h"
#include "comms/fault_injection.h"
#include "comms/file_lock.h"
#include "comms/log.h"
#include "trainer/journal_columns.h"
#include "trainer/journal_file.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;
using Rows = std::vector<std::shared_ptr<const Trajectory>>;

JournalFile open_for_writing(const std::filesystem::path& path, const std::string& about) {
  if (!std::filesystem::exists(path)) JournalFile::create(path, about);
  return {path, Hdf5Access::kWrite};
}

UpdateUse use_of(const UseRecord& record) {
  return {.row = record.row,
          .step = record.step,
          .reward = record.reward,
          .advantage = record.advantage,
          .in_loss = record.in_loss != 0};
}

UseRecord record_of(const UpdateUse& use) {
  return {.row = use.row,
          .step = use.step,
          .reward = use.reward,
          .advantage = use.advantage,
          .in_loss = use.in_loss ? 1 : 0};
}

}  // namespace

struct Journal::Impl {
  Impl(const std::filesystem::path& path, const std::string& about, const JournalOptions& wanted)
      : options(wanted),
        lock(path.string() + ".lock", "journal " + path.string()),
        file(open_for_writing(path, about)),
        appended(file.counts().rows),
        writer([this] { write_until_stopped(); }) {}

  ~Impl() {
    {
      const std::lock_guard hold(mutex);
      stopping = true;
    }
    work.notify_one();
  }

  bool due() const {
    return stopping || commits_done < commits_asked ||
           static_cast<std::int64_t>(rows.size()) >= options.flush_rows;
  }

  void write_until_stopped() {
    std::unique_lock hold(mutex);
    while (!stopping || commits_done < commits_asked) {
      wait_for_work(hold);
      write_batch(hold);
    }
  }

  // Until a flush is due: enough rows, old enough rows, a commit, or the end.
  void wait_for_work(std::unique_lock<std::mutex>& hold) {
    work.wait(hold, [this] { return due() || !rows.empty() || !uses.empty(); });
    work.wait_until(hold, Clock::now() + options.flush_every, [this] { return due(); });
  }

  // Writes what is queued without holding the lock, then tells those who wait.
  void write_batch(std::unique_lock<std::mutex>& hold) {
    const Rows batch = std::exchange(rows, {});
    const std::vector<UseRecord> batch_uses = std::exchange(uses, {});
    const std::int64_t asked = commits_asked;
    const bool commit = commits_done < asked;
    if (!failure) {
      hold.unlock();
      std::exception_ptr caught = try_write(batch, batch_uses, commit);
      hold.lock();
      failure = caught;
    }
    commits_done = asked;
    done.notify_all();
  }

  std::exception_ptr try_write(const Rows& batch, const std::vector<UseRecord>& batch_uses,
                               bool commit) {
    try {
      if (fault_point("journal") == Fault::kFail)
        throw Error("journal: injected failure", "start again without ROLLCALL_FAULTS");
      JournalColumns columns;
      for (const auto& trajectory : batch) append_row(columns, *trajectory);
      if (!batch.empty() || !batch_uses.empty()) file.append(columns, batch_uses);
      if (commit) file.commit();
      return nullptr;
    } catch (const Error& error) {
      return std::make_exception_ptr(StorageError(error.what(), error.what_to_do()));
    } catch (...) {
      return std::current_exception();
    }
  }

  // Waits for room in the queue. Throws what the writing thread met.
  void wait_for_room(std::unique_lock<std::mutex>& hold) {
    const auto limit = static_cast<std::size_t>(4 * std::max<std::int64_t>(options.flush_rows, 1));
    done.wait(hold, [&] { return failure || rows.size() < limit; });
    if (failure) std::rethrow_exception(failure);
  }

  const JournalOptions options;
  const FileLock lock;  // HDF5's own does not serve: a SWMR writer gives it up for its readers
  JournalFile file;     // the writing thread's; the caller's while nothing is queued
  std::int64_t appended = 0;  // the caller's

  std::mutex mutex;
  std::condition_variable work, done;
  // Guarded by mutex:
  Rows rows;
  std::vector<UseRecord> uses;
  std::int64_t commits_asked = 0, commits_done = 0;
  bool stopping = false;
  std::exception_ptr failure;  // sticky: a journal that failed once accepts nothing more

  std::jthread writer;  // last: joined before the rest goes
};

Journal::Journal(const std::filesystem::path& file, const std::string& about,
                 const JournalOptions& options)
    : impl_(std::make_unique<Impl>(file, about, options)) {}

Journal::~Journal() {
  try {
    commit();
  } catch (const std::exception& error) {
    log_error(error.what());
  }
}

std::int64_t Journal::append(std::shared_ptr<const Trajectory> trajectory) {
  check_storable(*trajectory);
  {
    std::unique_lock hold(impl_->mutex);
    impl_->wait_for_room(hold);
    impl_->rows.push_back(std::move(trajectory));
  }
  impl_->work.notify_one();
  return impl_->appended++;
}

std::int64_t Journal::append(Trajectory trajectory) {
  return append(std::make_shared<const Trajectory>(std::move(trajectory)));
}

void Journal::append_uses(std::span<const UpdateUse> uses) {
  {
    std::unique_lock hold(impl_->mutex);
    impl_->wait_for_room(hold);
    for (const UpdateUse& use : uses) impl_->uses.push_back(record_of(use));
  }
  impl_->work.notify_one();
}

std::int64_t Journal::commit() {
  std::unique_lock hold(impl_->mutex);
  const std::int64_t mine = ++impl_->commits_asked;
  impl_->work.notify_one();
  impl_->done.wait(hold, [&] { return impl_->commits_done >= mine; });
  if (impl_->failure) std::rethrow_exception(impl_->failure);
  return impl_->file.counts().committed_rows;
}

std::int64_t Journal::rows() const { return impl_->appended; }

void Journal::truncate(std::int64_t rows, std::int64_t first_step_dropped) {
  commit();
  if (rows < 0 || rows > impl_->appended) {
    throw Error("journal: cannot be cut to " + std::to_string(rows) + " rows, it has " +
                    std::to_string(impl_->appended),
                "the checkpoint is newer than the journal: use the journal of the same run");
  }
  const std::lock_guard hold(impl_->mutex);
  const std::vector<UseRecord> uses = impl_->file.uses();
  // Uses come in order of their steps, so what goes is a tail.
  const auto first = std::find_if(uses.begin(), uses.end(), [&](const UseRecord& use) {
    return use.step >= first_step_dropped || use.row >= rows;
  });
  impl_->file.truncate(rows, first - uses.begin());
  impl_->appended = rows;
}

struct JournalReader::Impl {
  explicit Impl(const std::filesystem::path& path) : file(path, Hdf5Access::kRead) {}

  // What cannot be read is told by its row.
  Trajectory read(std::int64_t row, bool tokens) const {
    file.check_row(row);
    try {
      return trajectory_of(file.read(row, tokens));
    } catch (const Error& error) {
      throw Error("row " + std::to_string(row) + " of " + std::to_string(file.counts().rows) +
                      " is damaged: " + error.what(),
                  kDamagedJournal);
    }
  }

  JournalFile file;
};

JournalReader::JournalReader(const std::filesystem::path& file)
    : impl_(std::make_unique<Impl>(file)) {}
JournalReader::~JournalReader() = default;

std::int64_t JournalReader::rows() const {
  impl_->file.refresh();
  return impl_->file.counts().rows;
}

std::int64_t JournalReader::committed_rows() const {
  impl_->file.refresh();
  return impl_->file.counts().committed_rows;
}

Trajectory JournalReader::read(std::int64_t row) const { return impl_->read(row, true); }

Trajectory JournalReader::read_texts(std::int64_t row) const { return impl_->read(row, false); }

Trajectory JournalReader::read_row(std::int64_t row) const {
  return trajectory_of(impl_->file.row(row));
}

std::int64_t JournalReader::token_count(std::int64_t row) const {
  return impl_->file.token_count(row);
}

std::vector<UpdateUse> JournalReader::uses() const {
  impl_->file.refresh();
  std::vector<UpdateUse> uses;
  for (const UseRecord& record : impl_->file.uses()) uses.push_back(use_of(record));
  return uses;
}

std::string JournalReader::about() const { return impl_->file.about(); }

}  // namespace rollcall
