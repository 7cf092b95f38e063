// SPDX-License-Identifier: Apache-2.0
#include "comms/durable_file.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "comms/error.h"
#include "temp_folder.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

TEST(DurableFile, AppearsOnCommitAndReplacesTheOldOne) {
  const TempFolder dir;
  spit(dir / "a", "old");
  DurableFile file(dir / "a");
  file.write("ne");
  file.write("w");
  EXPECT_EQ(slurp(dir / "a"), "old");
  file.commit();
  EXPECT_EQ(slurp(dir / "a"), "new");
}

TEST(DurableFile, LeavesNothingBehindWithoutCommit) {
  const TempFolder dir;
  { DurableFile(dir / "a").write("half"); }
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(DurableFile, NamesTheFileThatCannotBeWritten) {
  const TempFolder dir;
  try {
    write_durably(dir / "missing/a", "text");
    FAIL() << "wrote into a folder that is not there";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("missing/a"));
    EXPECT_EQ(error.what_to_do(), "check the path");
  }
}

TEST(DurableFile, CopiesEveryByte) {
  const TempFolder dir;
  std::string bytes(3'000'000, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + i / 1000);
  spit(dir / "a", bytes);
  copy_durably(dir / "a", dir / "b");
  EXPECT_EQ(slurp(dir / "b"), bytes);
}

TEST(DurableFile, RefusesToReadWhatIsNoRegularFile) {
  const TempFolder dir;
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(read_file(dir / "pipe"), Error);
  EXPECT_THROW(read_file("/dev/zero"), Error);
  EXPECT_THROW(read_file(dir.path()), Error);
}

TEST(DurableFile, ReplacesAFolderAsAWhole) {
  const TempFolder dir;
  spit(dir / "old/a", "1");
  spit(dir / "old/b", "2");
  spit(dir / "new/a", "3");
  replace_directory(dir / "new", dir / "old");
  EXPECT_EQ(slurp(dir / "old/a"), "3");
  EXPECT_FALSE(fs::exists(dir / "old/b"));
  EXPECT_FALSE(fs::exists(dir / "new"));
}

}  // namespace
}  // namespace rollcall
