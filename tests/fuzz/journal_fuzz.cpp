// SPDX-License-Identifier: Apache-2.0
// A journal, damaged: one byte of kinds, then changes of five bytes each to the places of the file
// that hold something. HDF5's own structures carry checksums, so what gets past them is ours to
// refuse. A row that is read is the row that was written.
#include <fcntl.h>

#include <cstring>

#include "comms/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/journal_samples.h"
#include "trainer/journal.h"

// No disk has to keep what is written here.
extern "C" int fsync(int) { return 0; }

namespace rollcall {
namespace {

constexpr std::int64_t kRows = 4;
constexpr std::size_t kChangeBytes = 5;  // 3 of place, 1 of kind, 1 of value

struct Base {
  std::string bytes;
  std::vector<std::size_t> places;  // that are not zero, and a few behind each of them
};

const Base& base() {
  static const Base made = [] {
    log_open(0, "/dev/null", false);
    const auto file = input_folder() / "base.h5";
    {
      Journal journal(file, "{}");
      for (std::int64_t row = 0; row < kRows; ++row) journal.append(sample_trajectory(row, 20));
      journal.append_uses(std::vector{UpdateUse{.row = 1, .step = 1}});
    }
    std::ifstream in(file, std::ios::binary);
    Base result{{std::istreambuf_iterator<char>(in), {}}, {}};
    std::size_t last = 0;
    for (std::size_t i = 0; i < result.bytes.size(); ++i) {
      if (result.bytes[i] != 0) last = i + 1;
      if (last > 0 && i < last + 8) result.places.push_back(i);
    }
    return result;
  }();
  return made;
}

std::string damaged(const std::uint8_t* changes, std::size_t size) {
  std::string bytes = base().bytes;
  for (std::size_t at = 0; at + kChangeBytes <= size; at += kChangeBytes) {
    std::uint32_t number = 0;
    std::memcpy(&number, changes + at, 3);
    const std::size_t place = base().places[number % base().places.size()];
    const char value = static_cast<char>(changes[at + 4]);
    // A byte, or a whole 64-bit number: of large ones lengths and offsets are made.
    const std::size_t length =
        changes[at + 3] % 2 == 0 ? 1 : std::min<std::size_t>(8, bytes.size() - place);
    std::memset(bytes.data() + place, value, length);
  }
  return bytes;
}

void read_all(const std::filesystem::path& file) {
  const JournalReader reader(file);
  reader.about();
  const std::int64_t rows = reader.rows();
  for (std::int64_t row = 0; row < std::min(rows, 2 * kRows); ++row) {
    may_refuse([&] {
      if (!difference(reader.read(row), sample_trajectory(row, 20)).empty()) __builtin_trap();
    });
    may_refuse([&] { reader.read_texts(row); });
    may_refuse([&] { reader.read_row(row); });
    may_refuse([&] { reader.token_count(row); });
  }
  reader.uses();
}

void go_on(const std::filesystem::path& file) {
  Journal journal(file, "{}");
  journal.truncate(std::min<std::int64_t>(journal.rows(), 2), 0);
  journal.append(sample_trajectory(2, 20));
  journal.commit();
}

}  // namespace
}  // namespace rollcall

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  if (size < 3) return 0;
  std::string bytes = damaged(data + 3, size - 3);
  if (data[0] % 4 == 0) bytes.resize(bytes.size() * (data[1] + 256U * data[2]) / 65536U);
  const auto file = input_folder() / "journal.h5";
  write_input(file, bytes);
  may_refuse([&] { read_all(file); });
  if (data[0] % 8 > 3) may_refuse([&] { go_on(file); });
  return 0;
}
