// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace rollcall {

// A shared or private memory mapping, whole pages: any alignment that a vector asks for. Move-only.
class Mapping {
 public:
  Mapping() = default;
  // Maps `size` bytes of `descriptor` from `offset`; private anonymous memory when it is negative.
  Mapping(int descriptor, std::size_t offset, std::size_t size, bool writable);
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();
  std::byte* data() const { return data_; }
  // Leaves the memory mapped until the process ends.
  void keep_forever() { data_ = nullptr; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Where a process of the same host finds a store, and how it knows that it found the right one.
struct StoreAddress {
  std::string path;
  std::uint64_t nonce = 0;
};

struct StoreHeader;

// Writes a version's bytes, all of them.
using FillWeights = std::function<void(std::span<std::byte>)>;
// What became of weights that were handed over: they were copied, or are read where they lie from
// now on.
enum class WeightsUse { kCopied, kInPlace };
// Takes up a version, or takes one up again that has come to lie elsewhere. Bytes that it uses in
// place stay as they are until it was called again and has returned; others only during the call.
using UseWeights = std::function<WeightsUse(std::int64_t version, std::span<const std::byte>)>;

// Two slots of published weights; the writer's side. Readers attach by path. The memory has no name
// in any file system (memfd) where the kernel allows, so nothing is left behind however the
// processes end. Nothing checks the bytes: readers map the slots read-only, so that the writer
// alone can change them, and the version of a slot says whether they are whole. Single thread;
// readers may be other processes.
class WeightStore {
 public:
  enum class Backing {
    kAnonymousFile,  // memfd, found by readers through /proc/PID/fd
    kNamedFile,      // POSIX shared memory; unlink() it as soon as all readers are attached
    kPrivate,        // this process only: no reader can attach
  };

  // Prefers `backing`; falls back from kAnonymousFile to kNamedFile. `readers` bounds the indices
  // that WeightReader may use. Throws Error when memory is short.
  WeightStore(std::size_t parameter_bytes, int readers, Backing backing);
  ~WeightStore();
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;

  StoreAddress address() const;
  // Removes the name, if there is one; attached readers keep their memory.
  void unlink();

  // Closes the older slot to new readers, asks those that hold it to let go, and returns its
  // memory. The caller then waits until held_by() is false for every reader that is alive, and
  // calls write().
  std::span<const std::byte> open_slot();
  bool held_by(int reader) const;
  // Fills the slot of the last open_slot() and makes it the newest.
  void write(std::int64_t version, const FillWeights& fill);

  std::int64_t newest_version() const;  // -1: none yet
  std::span<const std::byte> newest_weights() const;

  // For when requests on the slots may outlive this object.
  void keep_mapped() { slots_.keep_forever(); }

 private:
  std::span<std::byte> slot(int index) const;
  int create_file(Backing backing);

  std::size_t parameter_bytes_;
  int descriptor_ = -1;
  std::uint64_t nonce_ = 0;
  std::string name_;  // of the named file, until unlink()
  Mapping head_;
  Mapping slots_;
  int open_slot_ = 0;
};

// A reader's side. It holds the slot whose weights are used in place until it takes the next
// version, or the writer wants the slot: the writer waits for no longer than the reader takes to
// come to give_way() and to copy the weights. Single thread.
class WeightReader {
 public:
  // `kPrivate`: weights that are used in place are copied once taken, and lie in memory of this
  // reader. For machines on which the writer's memory may be far from the reader's processors.
  enum class Place { kShared, kPrivate };

  // Throws Error when the store cannot be opened or is not the one meant.
  WeightReader(const StoreAddress&, std::size_t parameter_bytes, int readers, int reader,
               Place = Place::kShared);
  ~WeightReader();  // lets go
  WeightReader(const WeightReader&) = delete;
  WeightReader& operator=(const WeightReader&) = delete;

  std::int64_t newest_version() const;
  // Gives the newest version to `use` and returns it. Should the writer, having given this reader
  // up, overwrite it meanwhile, `use` gets a newer one: what it made of the first is void. Throws
  // Error when there is none.
  std::int64_t load(const UseWeights& use);
  // To be called often, and before what was computed since is used. If the writer wants the slot
  // that is held, gives its weights to `use` in memory of this reader and lets go. False if the
  // writer has given this reader up and has overwritten them: what was computed is void.
  bool give_way(const UseWeights& use);
  // Whether it would say so, for who takes the next version instead.
  bool overwritten() const { return hold() == Hold::kOverwritten; }

 private:
  enum class Hold { kNone, kKept, kWanted, kOverwritten };

  StoreHeader& header() const;
  std::span<const std::byte> slot(std::int32_t index) const;
  std::int64_t try_load(const UseWeights& use);
  bool move_out(const UseWeights& use);
  Hold hold() const;
  void let_go();

  std::size_t parameter_bytes_;
  int reader_;
  Place place_;
  Mapping head_;
  Mapping slots_;
  Mapping copy_;  // of a version; mapped while it may be used, or will be again
  std::int32_t held_slot_ = -1;
  std::int64_t held_version_ = -1;
};

std::uint64_t weights_checksum(std::span<const std::byte> bytes);  // XXH3

}  // namespace rollcall
