// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace rollcall {

// An HDF5 identifier, closed when it goes. Move-only.
class Hdf5Id {
 public:
  Hdf5Id() = default;
  explicit Hdf5Id(std::int64_t id) : id_(id) {}
  ~Hdf5Id();
  Hdf5Id(Hdf5Id&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Hdf5Id& operator=(Hdf5Id&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  std::int64_t get() const { return id_; }

 private:
  std::int64_t id_ = -1;
};

// While it lives, HDF5 prints nothing to standard error on this thread: errors become Error
// instead.
class Hdf5Silence {
 public:
  Hdf5Silence();
  ~Hdf5Silence();
  Hdf5Silence(const Hdf5Silence&) = delete;
  Hdf5Silence& operator=(const Hdf5Silence&) = delete;

 private:
  void* function_ = nullptr;
  void* data_ = nullptr;
};

// What a person can do about a journal that is damaged where it was whole before.
inline constexpr const char* kDamagedJournal =
    "check that the file may be read. If it is damaged, rollcall inspect RUN --row N shows what is "
    "left of it; put a whole copy back, or move the run's folder away and start over: rollcall "
    "export RUN saves the policy of the newest checkpoint";

enum class Hdf5Access { kRead, kWrite };

// What an element of a dataset is made of: one number, or named members of a struct.
struct Hdf5Member {
  std::string name;
  std::size_t offset = 0;
  std::int64_t type = -1;  // a predefined HDF5 type, borrowed
  std::size_t text = 0;    // > 0: zero-padded text of this many bytes instead
};
struct Hdf5Element {
  std::size_t size = 0;
  std::vector<Hdf5Member> members;  // a single one without name: a plain number
};
Hdf5Element int32_element();
Hdf5Element int64_element();
Hdf5Element uint8_element();
Hdf5Element float_element();
Hdf5Element row_element();    // RowRecord
Hdf5Element event_element();  // EventRecord
Hdf5Element use_element();    // UseRecord, in journal_file.h

// A file of one writer and many readers (SWMR). All functions throw Error naming the file and the
// system's reason. Calls from several threads must not overlap.
class Hdf5File {
 public:
  // Makes a new file that may be filled with datasets and attributes, and is no SWMR file yet.
  static Hdf5File create(const std::filesystem::path& path);
  // Opens for reading in SWMR mode, or for writing, also after a writer was killed. For writing,
  // the allocated size is raised to the file's: the superblock may lag behind.
  Hdf5File(const std::filesystem::path& path, Hdf5Access access);

  void set_text(const std::string& name, const std::string& text);
  void set_integer(const std::string& name, std::int64_t value);
  std::string text(const std::string& name) const;
  std::int64_t integer(const std::string& name) const;

  void start_swmr();
  void flush();  // everything, to the operating system
  void sync();   // the operating system's buffers, to the disk
  std::int64_t size_bytes() const;
  bool is_at_its_path() const;  // and not moved, replaced or deleted since it was opened

  std::int64_t id() const { return id_.get(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  Hdf5File(const std::filesystem::path& path, Hdf5Id id) : path_(path), id_(std::move(id)) {}
  int descriptor() const;

  std::filesystem::path path_;
  Hdf5Id id_;
};

// A one-dimensional dataset. Single thread; uses the file's path in errors only.
class Hdf5Array {
 public:
  // chunk 0: of fixed size `length`; else extensible, starting with `length` elements.
  static void create(const Hdf5File&, const std::string& name, const Hdf5Element&,
                     std::int64_t length, std::int64_t chunk);
  // Throws Error if the dataset is missing or has other members than `element`.
  Hdf5Array(const Hdf5File&, const std::string& name, const Hdf5Element& element);

  std::int64_t length() const;
  // Grows the dataset if it must.
  void write(std::int64_t at, const void* values, std::int64_t count);
  // Throws Error if the range is not inside the dataset.
  void read(std::int64_t at, void* values, std::int64_t count) const;
  void flush();
  void refresh();  // sees what the writer has flushed since

  template <class T>
  std::vector<T> read(std::int64_t at, std::int64_t count) const {
    check_range(at, count);
    std::vector<T> values(static_cast<std::size_t>(count));
    read(at, values.data(), count);
    return values;
  }

 private:
  std::int64_t most_elements() const;
  void check_range(std::int64_t at, std::int64_t count) const;
  Hdf5Id selection(std::int64_t at, std::int64_t count) const;

  std::string what_;  // "journal FILE: dataset NAME"
  Hdf5Id dataset_;
  Hdf5Id type_;
};

}  // namespace rollcall
