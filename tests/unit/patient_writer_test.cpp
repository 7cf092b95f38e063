// SPDX-License-Identifier: Apache-2.0
#include "comms/patient_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <unistd.h>

#include <array>

#include "temp_folder.h"

namespace rollcall {
namespace {

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) std::abort();
    read_end = ends[0], write_end = ends[1];
    ::fcntl(read_end, F_SETFL, O_NONBLOCK);
  }
  ~Pipe() {
    ::close(read_end);
    ::close(write_end);
  }
  std::string read() const {
    std::string bytes(1 << 20, '\0');
    const ssize_t size = ::read(read_end, bytes.data(), bytes.size());
    return bytes.substr(0, size > 0 ? static_cast<std::size_t>(size) : 0);
  }
  int read_end = -1, write_end = -1;
};

TEST(PatientWriter, WritesAtOnceWhereThereIsRoom) {
  const Pipe pipe;
  PatientWriter writer(pipe.write_end);
  writer.write("one\n");
  EXPECT_TRUE(writer.empty());
  EXPECT_EQ(pipe.read(), "one\n");
}

TEST(PatientWriter, WaitsForNobodyAndLosesTheOldestLinesFirst) {
  const Pipe pipe;
  PatientWriter writer(pipe.write_end, 1000);
  const std::string line(99, 'x');
  for (int i = 0; i < 2000; ++i) writer.write(std::to_string(i) + line + "\n");
  EXPECT_FALSE(writer.empty());
  writer.drain_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(writer.empty());
  std::string read;
  for (std::string part; part = pipe.read(), !part.empty(); writer.drain()) read += part;
  EXPECT_TRUE(writer.empty());
  EXPECT_TRUE(read.starts_with("0x"));
  EXPECT_TRUE(read.find("\n100x") != std::string::npos);
  EXPECT_LT(read.size(), 2000U * 103);
}

TEST(PatientWriter, LeavesTheDescriptorOfOthersAsItIs) {
  const Pipe pipe;
  const PatientWriter writer(pipe.write_end);
  EXPECT_EQ(::fcntl(pipe.write_end, F_GETFL) & O_NONBLOCK, 0);
}

TEST(PatientWriter, WaitsForNoTerminalEither) {
  int outer = -1, inner = -1;
  ASSERT_EQ(::openpty(&outer, &inner, nullptr, nullptr, nullptr), 0);
  PatientWriter writer(inner, 1 << 20);
  for (int i = 0; i < 3000; ++i) writer.write("nobody reads this line\n");
  EXPECT_FALSE(writer.empty());
  ::close(inner);
  ::close(outer);
}

TEST(PatientWriter, AppendsToAFile) {
  const TempFolder folder;
  const std::string path = folder / "log";
  spit(path, "before\n");
  const int file = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  PatientWriter(file).write("after\n");
  ::close(file);
  EXPECT_EQ(slurp(path), "before\nafter\n");
}

TEST(PatientWriter, ForgetsWhatNobodyCanReadAnyMore) {
  ::signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  PatientWriter writer(pipe.write_end);
  ::close(pipe.read_end);
  pipe.read_end = -1;
  writer.write("lost\n");
  EXPECT_TRUE(writer.empty());
}

}  // namespace
}  // namespace rollcall
