// SPDX-License-Identifier: Apache-2.0
#include "model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <system_error>
#include <tuple>
#include <utility>

#include "model/safetensors_header.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

struct Dtype {
  std::string_view name;
  std::uint64_t bits;
};

constexpr std::array kDtypes = std::to_array<Dtype>({
    {"F64", 64},    {"I64", 64},    {"U64", 64},        {"C64", 64},        {"F32", 32},
    {"I32", 32},    {"U32", 32},    {"F16", 16},        {"BF16", 16},       {"I16", 16},
    {"U16", 16},    {"BOOL", 8},    {"U8", 8},          {"I8", 8},          {"F8_E5M2", 8},
    {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6},
    {"F6_E3M2", 6}, {"F4", 4},
});

std::uint64_t dtype_bits(const std::string& name) {
  const auto* found = std::ranges::find(kDtypes, name, &Dtype::name);
  if (found == kDtypes.end()) throw SafetensorsError("dtype", "unknown dtype '" + name + "'");
  return found->bits;
}

std::uint64_t product(std::uint64_t a, std::uint64_t b) {
  std::uint64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) {
    throw SafetensorsError("overflow", "a shape's size in bits is past 2^64");
  }
  return result;
}

std::uint64_t header_length(std::span<const std::byte> file) {
  if (file.size() < kLengthBytes) {
    throw SafetensorsError("header_too_small", "the file is shorter than its 8-byte header length");
  }
  constexpr std::string_view kPointer = "version https://git-lfs";
  const auto* text = reinterpret_cast<const char*>(file.data());
  if (std::string_view(text, file.size()).starts_with(kPointer)) {
    throw SafetensorsError(
        "header_too_large",
        "this is a Git LFS pointer, not the weights: `git lfs pull` fetches them");
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  }
  if (length > kMaxHeaderBytes) {
    throw SafetensorsError("header_too_large",
                           "header length " + std::to_string(length) + " is over 100000000 bytes");
  }
  if (length > file.size() - kLengthBytes) {
    throw SafetensorsError("header_length", "header length " + std::to_string(length) +
                                                " reaches past the end of the file");
  }
  return length;
}

std::string quoted(const std::string& name) { return "tensor '" + name + "'"; }

std::vector<std::int64_t> signed_shape(const SafetensorsHeaderEntry& entry) {
  constexpr std::uint64_t kLargest = std::numeric_limits<std::int64_t>::max();
  if (std::ranges::any_of(entry.shape, [](std::uint64_t n) { return n > kLargest; })) {
    throw SafetensorsError("overflow", quoted(entry.name) + ": a dimension is past 2^63");
  }
  return {entry.shape.begin(), entry.shape.end()};
}

// Entries must follow each other without holes or overlaps and fill the data to its last byte.
void check_layout(const std::vector<SafetensorsHeaderEntry>& sorted, std::uint64_t data_bytes) {
  std::uint64_t position = 0;
  for (const auto& entry : sorted) {
    if (entry.begin != position || entry.end < entry.begin) {
      throw SafetensorsError(
          "offsets", quoted(entry.name) + ": data_offsets [" + std::to_string(entry.begin) + ", " +
                         std::to_string(entry.end) + "] instead of a range from " +
                         std::to_string(position));
    }
    const auto bytes = safetensors_bytes(entry.dtype, entry.shape);
    if (bytes != entry.end - entry.begin) {
      throw SafetensorsError("tensor_size", quoted(entry.name) + ": shape and dtype need " +
                                                std::to_string(bytes) +
                                                " bytes, data_offsets give " +
                                                std::to_string(entry.end - entry.begin));
    }
    position = entry.end;
  }
  if (position != data_bytes) {
    throw SafetensorsError("data_size", "the tensors take " + std::to_string(position) +
                                            " bytes, the file holds " + std::to_string(data_bytes));
  }
}

// A read-only mapping of a whole file until released.
struct Mapping {
  explicit Mapping(const fs::path& path);
  ~Mapping() { unmap(address, size); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  static void unmap(void* address, std::size_t size) {
    if (address != nullptr) ::munmap(address, size);
  }

  void* address = nullptr;
  std::size_t size = 0;
};

[[noreturn]] void unreadable(const std::string& why) { throw SafetensorsError("unreadable", why); }

void map_descriptor(int descriptor, Mapping& mapping) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) unreadable(std::generic_category().message(errno));
  if (!S_ISREG(status.st_mode)) unreadable("not a regular file");
  mapping.size = static_cast<std::size_t>(status.st_size);
  if (mapping.size == 0) return;  // cannot be mapped; refused as too small
  void* address = ::mmap(nullptr, mapping.size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (address == MAP_FAILED) unreadable(std::generic_category().message(errno));
  mapping.address = address;
}

Mapping::Mapping(const fs::path& path) {
  // Nonblocking, so that a pipe in the place of a file cannot hang us.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // NOLINT
  if (descriptor < 0) unreadable(std::generic_category().message(errno));
  try {
    map_descriptor(descriptor, *this);
  } catch (...) {
    ::close(descriptor);
    throw;
  }
  ::close(descriptor);
}

const char* advice(const std::string& kind) {
  if (kind == "missing_file")
    return "put the missing weights there, or name a folder that has them";
  if (kind == "unreadable") return "check that it is there, is a file and may be read";
  return "the file is damaged or incomplete: fetch or write it again";
}

}  // namespace

SafetensorsError::SafetensorsError(std::string kind, const std::string& message)
    : Error(message, advice(kind), ExitCode::kBadInput), kind_(std::move(kind)) {}

std::uint64_t safetensors_bytes(const std::string& dtype, std::span<const std::uint64_t> shape) {
  std::uint64_t elements = 1;
  for (const auto size : shape) elements = product(elements, size);
  const auto bits = product(elements, dtype_bits(dtype));
  if (bits % 8 != 0) {
    throw SafetensorsError("tensor_size", "a tensor of dtype " + dtype + " ends inside a byte");
  }
  return bits / 8;
}

std::vector<SafetensorsEntry> parse_safetensors(
    std::span<const std::byte> file, std::optional<std::map<std::string, std::string>>* metadata) {
  const auto length = header_length(file);
  const auto text = file.subspan(kLengthBytes, length);
  const auto data = file.subspan(kLengthBytes + length);
  auto header = read_safetensors_header({reinterpret_cast<const char*>(text.data()), text.size()});
  std::ranges::sort(header.entries, {}, [](const SafetensorsHeaderEntry& entry) {
    return std::tie(entry.begin, entry.end, entry.name);
  });
  check_layout(header.entries, data.size());
  std::vector<SafetensorsEntry> entries;
  entries.reserve(header.entries.size());
  for (auto& entry : header.entries) {
    auto shape = signed_shape(entry);
    entries.push_back({std::move(entry.name), std::move(entry.dtype), std::move(shape),
                       data.subspan(entry.begin, entry.end - entry.begin)});
  }
  if (metadata != nullptr) *metadata = std::move(header.metadata);
  return entries;
}

SafetensorsFile::SafetensorsFile(const fs::path& path) try {
  Mapping mapping(path);
  entries_ =
      parse_safetensors({static_cast<const std::byte*>(mapping.address), mapping.size}, &metadata_);
  map_ = std::exchange(mapping.address, nullptr);
  size_ = mapping.size;
} catch (const SafetensorsError& error) {
  throw SafetensorsError(error.kind(), path.string() + ": " + error.what());
}

void SafetensorsFile::release(const SafetensorsEntry& entry) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(entry.data.data()) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(entry.data.data() + entry.data.size());
  // Only advice: an error changes nothing but the memory in use.
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);  // NOLINT
}

SafetensorsFile::~SafetensorsFile() { Mapping::unmap(map_, size_); }

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : map_(std::exchange(other.map_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      entries_(std::exchange(other.entries_, {})),
      metadata_(std::exchange(other.metadata_, std::nullopt)) {}

SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&& other) noexcept {
  auto moved = std::move(other);
  std::swap(map_, moved.map_);
  std::swap(size_, moved.size_);
  std::swap(entries_, moved.entries_);
  std::swap(metadata_, moved.metadata_);
  return *this;
}

}  // namespace rollcall
