// SPDX-License-Identifier: Apache-2.0
#include "comms/weight_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <utility>

#include "comms/error.h"

namespace rollcall {

// Lives at the start of the mapping, followed by one `held` word a reader: the slot it holds plus
// one, 0 when it holds none. All words are sequentially consistent: a reader announces its slot and
// then looks at the version, the writer clears the version and then looks at the readers, so at
// least one of them sees the other.
struct StoreHeader {
  struct Slot {
    // Negative: not to be taken. ~version: whole, but the next version will lie here, and who holds
    // it has to let go; or kBeingWritten.
    std::atomic<std::int64_t> version;
  };
  std::uint64_t magic;
  std::uint64_t nonce;
  std::uint64_t parameter_bytes;
  std::atomic<std::int32_t> newest_slot;     // -1: nothing published
  std::atomic<std::int64_t> newest_version;  // likewise
  Slot slots[2];

  std::atomic<std::int32_t>& held(int reader) {
    return reinterpret_cast<std::atomic<std::int32_t>*>(this + 1)[reader];
  }
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free &&
              std::atomic<std::int32_t>::is_always_lock_free);

namespace {

constexpr std::uint64_t kMagic = 0x32304c4c4f52;  // marks version 02 of this layout
constexpr std::int64_t kBeingWritten = std::numeric_limits<std::int64_t>::min();
constexpr std::size_t kPage = 4096;
constexpr int kMaxLoadAttempts = 100;

std::size_t whole_pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

std::size_t head_bytes(int readers) {
  return whole_pages(sizeof(StoreHeader) + sizeof(std::atomic<std::int32_t>) * readers);
}

std::size_t slot_stride(std::size_t parameter_bytes) {
  return std::max(whole_pages(parameter_bytes), kPage);
}

std::uint64_t random_nonce() {
  std::random_device source;
  return (std::uint64_t{source()} << 32) | source();
}

Error memory_error(const std::string& what, std::size_t bytes, int code) {
  return Error(what + " of " + std::to_string(bytes >> 20) +
                   " MiB for the weights failed: " + std::strerror(code),
               "free memory on the lead learner's host, or use a smaller model");
}

StoreHeader& header_of(const Mapping& head) {
  return *std::launder(reinterpret_cast<StoreHeader*>(head.data()));
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }

 private:
  int value_;
};

}  // namespace

std::uint64_t weights_checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

Mapping::Mapping(int descriptor, std::size_t offset, std::size_t size, bool writable)
    : size_(size) {
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  const int flags = descriptor < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* mapped = ::mmap(nullptr, size, protection, flags, descriptor, static_cast<off_t>(offset));
  if (mapped == MAP_FAILED) throw memory_error("mapping memory", size, errno);
  data_ = static_cast<std::byte*>(mapped);
  // A wish: an engine reads all of it for each token, by fewer walks of the page table.
  ::madvise(mapped, size, MADV_HUGEPAGE);
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

WeightStore::WeightStore(std::size_t parameter_bytes, int readers, Backing backing)
    : parameter_bytes_(parameter_bytes), nonce_(random_nonce()) {
  const std::size_t head = head_bytes(readers);
  const std::size_t slots = 2 * slot_stride(parameter_bytes);
  Descriptor file(create_file(backing));
  if (file.value() >= 0) {
    // Claims the pages now: running out later would be a SIGBUS in the middle of a write.
    const int code = ::posix_fallocate(file.value(), 0, static_cast<off_t>(head + slots));
    if (code != 0) {
      unlink();
      throw memory_error("allocating shared memory", head + slots, code);
    }
  }
  head_ = Mapping(file.value(), 0, head, true);
  slots_ = Mapping(file.value(), head, slots, true);
  auto* header = new (head_.data()) StoreHeader{};
  header->magic = kMagic;
  header->nonce = nonce_;
  header->parameter_bytes = parameter_bytes;
  header->newest_slot = -1;
  header->newest_version = -1;
  for (auto& slot : header->slots) slot.version = kBeingWritten;
  if (file.value() >= 0) descriptor_ = ::fcntl(file.value(), F_DUPFD_CLOEXEC, 0);
}

int WeightStore::create_file(Backing backing) {
  if (backing == Backing::kPrivate) return -1;
  if (backing == Backing::kAnonymousFile) {
    const int file = ::memfd_create("rollcall-weights", MFD_CLOEXEC);
    if (file >= 0) return file;
  }
  name_ = "/rollcall-" + std::to_string(::geteuid()) + "-" + std::to_string(::getpid()) + "-" +
          std::to_string(nonce_);
  const int file = ::shm_open(name_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0) throw memory_error("creating shared memory", parameter_bytes_, errno);
  return file;
}

WeightStore::~WeightStore() {
  unlink();
  if (descriptor_ >= 0) ::close(descriptor_);
}

StoreAddress WeightStore::address() const {
  if (!name_.empty()) return {"/dev/shm" + name_, nonce_};
  return {"/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(descriptor_), nonce_};
}

void WeightStore::unlink() {
  if (!name_.empty()) ::shm_unlink(name_.c_str());
  name_.clear();
}

std::span<std::byte> WeightStore::slot(int index) const {
  return {slots_.data() + index * slot_stride(parameter_bytes_), parameter_bytes_};
}

std::span<const std::byte> WeightStore::open_slot() {
  open_slot_ = header_of(head_).newest_slot == 0 ? 1 : 0;
  std::atomic<std::int64_t>& version = header_of(head_).slots[open_slot_].version;
  if (version >= 0) version = ~version;
  return slot(open_slot_);
}

bool WeightStore::held_by(int reader) const {
  return header_of(head_).held(reader) == open_slot_ + 1;
}

void WeightStore::write(std::int64_t version, const FillWeights& fill) {
  StoreHeader::Slot& target = header_of(head_).slots[open_slot_];
  target.version = kBeingWritten;
  std::atomic_thread_fence(std::memory_order_seq_cst);  // before the first byte
  fill(slot(open_slot_));
  target.version = version;
  header_of(head_).newest_slot = open_slot_;
  header_of(head_).newest_version = version;
}

std::int64_t WeightStore::newest_version() const { return header_of(head_).newest_version; }

std::span<const std::byte> WeightStore::newest_weights() const {
  return slot(header_of(head_).newest_slot);
}

WeightReader::WeightReader(const StoreAddress& address, std::size_t parameter_bytes, int readers,
                           int reader, Place place)
    : parameter_bytes_(parameter_bytes), reader_(reader), place_(place) {
  const Descriptor file(::open(address.path.c_str(), O_RDWR | O_CLOEXEC));
  const std::size_t head = head_bytes(readers);
  const std::size_t slots = 2 * slot_stride(parameter_bytes);
  struct stat status {};
  const bool opened = file.value() >= 0 && ::fstat(file.value(), &status) == 0 &&
                      S_ISREG(status.st_mode) && status.st_size == static_cast<off_t>(head + slots);
  if (!opened) throw Error("cannot open the shared weights at " + address.path);
  head_ = Mapping(file.value(), 0, head, true);
  slots_ = Mapping(file.value(), head, slots, false);
  if (header().magic != kMagic || header().nonce != address.nonce ||
      header().parameter_bytes != parameter_bytes) {
    throw Error("the memory at " + address.path + " is not this run's weights");
  }
}

WeightReader::~WeightReader() { let_go(); }

StoreHeader& WeightReader::header() const { return header_of(head_); }

std::span<const std::byte> WeightReader::slot(std::int32_t index) const {
  return {slots_.data() + index * slot_stride(parameter_bytes_), parameter_bytes_};
}

std::int64_t WeightReader::newest_version() const { return header().newest_version; }

WeightReader::Hold WeightReader::hold() const {
  if (held_slot_ < 0) return Hold::kNone;
  std::atomic_thread_fence(std::memory_order_seq_cst);  // after the last byte that was read
  const std::int64_t version = header().slots[held_slot_].version;
  if (version == held_version_) return Hold::kKept;
  return version == ~held_version_ ? Hold::kWanted : Hold::kOverwritten;
}

void WeightReader::let_go() {
  held_slot_ = -1;
  header().held(reader_) = 0;
}

// The version, or a negative number if another has to be taken. Letting go of the slot before is
// safe: nothing is computed until `use` has moved on.
std::int64_t WeightReader::try_load(const UseWeights& use) {
  held_slot_ = header().newest_slot;
  header().held(reader_) = held_slot_ + 1;
  held_version_ = header().slots[held_slot_].version;
  if (held_version_ < 0) return held_version_;
  const WeightsUse how = use(held_version_, slot(held_slot_));
  if (hold() != Hold::kKept) return -1;
  if (how == WeightsUse::kCopied) {
    let_go();
  } else if (place_ == Place::kPrivate) {
    if (!move_out(use)) return -1;
  } else {
    copy_ = Mapping();
  }
  return held_version_;
}

std::int64_t WeightReader::load(const UseWeights& use) {
  if (header().newest_slot < 0) throw Error("no weights were published yet");
  for (int attempt = 0; attempt < kMaxLoadAttempts; ++attempt) {
    const std::int64_t version = try_load(use);
    if (version >= 0) return version;
  }
  throw Error("the shared weights are replaced faster than they can be taken up");
}

bool WeightReader::give_way(const UseWeights& use) {
  const Hold now = hold();
  return now == Hold::kWanted ? move_out(use) : now != Hold::kOverwritten;
}

// False if the weights were overwritten before all of them were copied.
bool WeightReader::move_out(const UseWeights& use) {
  if (copy_.data() == nullptr) copy_ = Mapping(-1, 0, slot_stride(parameter_bytes_), true);
  std::memcpy(copy_.data(), slot(held_slot_).data(), parameter_bytes_);
  if (hold() == Hold::kOverwritten) return false;
  use(held_version_, {copy_.data(), parameter_bytes_});
  let_go();
  return true;
}

}  // namespace rollcall
