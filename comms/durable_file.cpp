// SPDX-License-Identifier: Apache-2.0
#include "comms/durable_file.h"

#include <fcntl.h>
#include <stdio.h>  // renameat2
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include "comms/error.h"
#include "comms/fault_injection.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

std::string advice(int code) {
  switch (code) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return "free space there, or raise the quota or file size limit, and start again; everything "
             "written completely before is intact";
    case EACCES:
    case EPERM:
    case EROFS:
      return "make the folder writable for this user, or choose another one";
    case ENOENT:
      return "check the path";
    default:
      return "see that the file system is sound, and start again; everything written completely "
             "before is intact";
  }
}

[[noreturn]] void fail(const char* verb, const fs::path& path, int code) {
  throw StorageError(std::string("cannot ") + verb + " " + path.string() + ": " +
                         std::generic_category().message(code),
                     advice(code));
}

class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags)
      : value_(::open(path.c_str(), flags | O_CLOEXEC)) {  // NOLINT: open is variadic
    if (value_ < 0) fail("open", path, errno);
  }
  ~Descriptor() { ::close(value_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }

 private:
  int value_;
};

// Opens a regular file without blocking on a pipe or device.
void check_regular(int descriptor, const fs::path& path) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) fail("read", path, errno);
  if (!S_ISREG(status.st_mode)) throw input_error(path.string() + " is not a regular file");
}

std::size_t read_some(int descriptor, std::span<char> buffer, const fs::path& path) {
  for (;;) {
    const auto got = ::read(descriptor, buffer.data(), buffer.size());
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno != EINTR) fail("read", path, errno);
  }
}

constexpr std::size_t kBufferBytes = 1 << 20;

template <typename Sink>
void read_in_pieces(const fs::path& path, Sink&& sink) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  check_regular(file.value(), path);
  std::vector<char> buffer(kBufferBytes);
  while (const auto got = read_some(file.value(), buffer, path)) {
    sink(std::string_view(buffer.data(), got));
  }
}

void exchange(const fs::path& fresh, const fs::path& target) {
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) fail("replace", target, errno);
  // Some network file systems cannot swap: for a moment `target` is absent, never incomplete.
  auto old = fresh;
  old += ".old";
  fs::remove_all(old);
  fs::rename(target, old);
  fs::rename(fresh, target);
  fs::rename(old, fresh);
}

}  // namespace

DurableFile::DurableFile(fs::path target) : target_(std::move(target)), partial_(target_) {
  partial_ += ".partial";
  constexpr mode_t kEverybodyMinusUmask = 0666;
  descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,  // NOLINT
                       kEverybodyMinusUmask);
  if (descriptor_ < 0) fail("create", partial_, errno);
}

DurableFile::~DurableFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(partial_.c_str());
}

void DurableFile::write(std::span<const std::byte> bytes) {
  if (fault_point("write") == Fault::kFail) fail("write", target_, ENOSPC);
  while (!bytes.empty()) {
    const auto written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write", target_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void DurableFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void DurableFile::commit() {
  if (::fsync(descriptor_) != 0) fail("write", target_, errno);
  if (::rename(partial_.c_str(), target_.c_str()) != 0) fail("write", target_, errno);
  ::close(std::exchange(descriptor_, -1));
  sync_directory(target_.parent_path());
}

void write_durably(const fs::path& target, std::string_view text) {
  DurableFile file(target);
  file.write(text);
  file.commit();
}

void copy_durably(const fs::path& source, const fs::path& target) {
  DurableFile file(target);
  read_in_pieces(source, [&](std::string_view piece) { file.write(piece); });
  file.commit();
}

void sync_directory(const fs::path& directory) {
  const auto& path = directory.empty() ? fs::path(".") : directory;
  const Descriptor folder(path, O_RDONLY | O_DIRECTORY);
  // EINVAL: a file system that has nothing to sync for folders.
  if (::fsync(folder.value()) != 0 && errno != EINVAL) fail("write", path, errno);
}

void replace_directory(const fs::path& fresh, const fs::path& target) {
  try {
    if (fs::exists(fs::symlink_status(target))) {
      exchange(fresh, target);
      fs::remove_all(fresh);
    } else {
      fs::rename(fresh, target);
    }
  } catch (const fs::filesystem_error& error) {
    fail("replace", target, error.code().value());
  }
  sync_directory(target.parent_path());
}

std::string read_file(const fs::path& path) {
  std::string text;
  read_in_pieces(path, [&](std::string_view piece) { text += piece; });
  return text;
}

}  // namespace rollcall
