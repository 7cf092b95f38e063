// SPDX-License-Identifier: Apache-2.0
#include "trainer/journal_hdf5.h"

#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "comms/error.h"
#include "trainer/journal_columns.h"
#include "trainer/journal_file.h"

namespace rollcall {
namespace {

static_assert(sizeof(hid_t) == sizeof(std::int64_t));

constexpr const char* kAdvice =
    "check free space, quota and permissions of that folder; committed rows are safe: start the "
    "run again to resume";

// The innermost entry of HDF5's error stack: it holds the system's reason, if there was one.
std::string innermost_reason() {
  std::string reason;
  const auto keep_first = [](unsigned n, const H5E_error2_t* entry, void* out) -> herr_t {
    if (n == 0 && entry->desc != nullptr) *static_cast<std::string*>(out) = entry->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &reason);
  // For failed system calls: "...\n, filename = ..., errno = 28, error message = 'No space ...',
  // buf ..."
  constexpr std::string_view kQuote = "error message = '";
  if (const std::size_t begin = reason.find(kQuote); begin != std::string::npos) {
    const std::size_t text = begin + kQuote.size();
    return reason.substr(text, reason.find('\'', text) - text);
  }
  return reason.empty() ? "HDF5 gave no reason" : reason;
}

// Returns a non-negative HDF5 result, else throws.
template <class Result>
Result check(Result result, const std::string& what, const char* what_to_do = kAdvice) {
  if (result < 0) throw Error(what + ": " + innermost_reason(), what_to_do);
  return result;
}

// The same of a reading call: what was written does not come back.
template <class Result>
Result check_read(Result result, const std::string& what) {
  return check(result, what, kDamagedJournal);
}

std::string about_file(const std::filesystem::path& path) { return "journal " + path.string(); }

Hdf5Id file_access() {
  Hdf5Id access(check(H5Pcreate(H5P_FILE_ACCESS), "journal"));
  H5Pset_libver_bounds(access.get(), H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  // HDF5's locks would only do harm: a reader that just opens the file would stop a run from
  // starting. The journal has a lock of its own against a second writer.
  H5Pset_file_locking(access.get(), false, true);
  // Without these pools the file is as long at a clean close as at the last commit.
  H5Pset_meta_block_size(access.get(), 0);
  H5Pset_small_data_block_size(access.get(), 0);
  // A reader that meets a half-written piece tries again, after 1, 2, 4 ... ns: 17 ms in all. The
  // default of 100 tries would wait for hours on a damaged file.
  H5Pset_metadata_read_attempts(access.get(), 24);
  return access;
}

// What the HDF Group's h5clear does, by the same (named, unadvertised) properties. A killed writer
// leaves "in use" marks in the superblock: with them no writer may open the file, nor a reader if
// the writer died before SWMR mode began. Nothing public clears them. For a reader they are cleared
// in memory only.
void forgive_killed_writer(const Hdf5Id& access) {
  const hbool_t yes = true;
  check(H5Pset(access.get(), "clear_status_flags", &yes), "journal");
  check(H5Pset(access.get(), "skip_eof_check", &yes), "journal");
}

Hdf5Element plain(std::size_t size, std::int64_t type) {
  return {.size = size, .members = {{.name = "", .offset = 0, .type = type}}};
}

Hdf5Id type_of_member(const Hdf5Member& member) {
  if (member.text == 0) return Hdf5Id(H5Tcopy(member.type));
  Hdf5Id type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.get(), member.text);
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  return type;
}

Hdf5Id memory_type(const Hdf5Element& element) {
  if (element.members.size() == 1) return type_of_member(element.members[0]);
  Hdf5Id compound(H5Tcreate(H5T_COMPOUND, element.size));
  for (const Hdf5Member& member : element.members) {
    const Hdf5Id type = type_of_member(member);
    H5Tinsert(compound.get(), member.name.c_str(), member.offset, type.get());
  }
  return compound;
}

Hdf5Id file_type(const Hdf5Element& element) {
  Hdf5Id type = memory_type(element);
  if (element.members.size() > 1) H5Tpack(type.get());
  return type;
}

Hdf5Id text_type(const std::string& text) {
  Hdf5Id type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.get(), std::max<std::size_t>(text.size(), 1));
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  return type;
}

int descriptor_of(hid_t file, const std::string& what) {
  void* handle = nullptr;
  check(H5Fget_vfd_handle(file, H5P_DEFAULT, &handle), what);
  return *static_cast<int*>(handle);
}

std::int64_t bytes_of(hid_t file, const std::string& what) {
  struct stat status {};
  if (::fstat(descriptor_of(file, what), &status) != 0) {
    throw Error(what + ": " + std::strerror(errno), kAdvice);
  }
  return status.st_size;
}

}  // namespace

Hdf5Id::~Hdf5Id() {
  if (id_ < 0) return;
  const Hdf5Silence silence;
  H5Idec_ref(id_);
}

Hdf5Silence::Hdf5Silence() {
  // Every file is closed by its owner. What HDF5 does by itself at exit can crash after a full
  // disk; it must be told before anything else, and refuses to hear it twice.
  H5dont_atexit();
  H5E_auto2_t function = nullptr;
  H5Eget_auto2(H5E_DEFAULT, &function, &data_);
  function_ = reinterpret_cast<void*>(function);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Hdf5Silence::~Hdf5Silence() {
  H5Eset_auto2(H5E_DEFAULT, reinterpret_cast<H5E_auto2_t>(function_), data_);
}

Hdf5Element int32_element() { return plain(4, H5T_NATIVE_INT32); }
Hdf5Element int64_element() { return plain(8, H5T_NATIVE_INT64); }
Hdf5Element uint8_element() { return plain(1, H5T_NATIVE_UINT8); }
Hdf5Element float_element() { return plain(4, H5T_NATIVE_FLOAT); }

Hdf5Element row_element() {
  const auto i64 = H5T_NATIVE_INT64, i32 = H5T_NATIVE_INT32, f64 = H5T_NATIVE_DOUBLE;
  const auto u64 = H5T_NATIVE_UINT64, u8 = H5T_NATIVE_UINT8;
  using R = RowRecord;
  return {.size = sizeof(R),
          .members = {
              {"step", offsetof(R, step), i64},
              {"group", offsetof(R, group), i64},
              {"member", offsetof(R, member), i32},
              {"attempt", offsetof(R, attempt), i32},
              {"task_row", offsetof(R, task_row), i64},
              {"seed", offsetof(R, seed), u64},
              {"version", offsetof(R, version), i64},
              {"split", offsetof(R, split), u8},
              {"end", offsetof(R, end), u8},
              {"fault", offsetof(R, fault), u8},
              {"passed", offsetof(R, passed), u8},
              {"turns", offsetof(R, turns), i32},
              {"prompt_length", offsetof(R, prompt_length), i64},
              {"prefill_tokens", offsetof(R, prefill_tokens), i64},
              {"score", offsetof(R, score), f64},
              {"reward", offsetof(R, reward), f64},
              {"grade_latency_s", offsetof(R, grade_latency_s), f64},
              {"grade_retries", offsetof(R, grade_retries), i32},
              {"wall_time_s", offsetof(R, wall_time_s), f64},
              {"generate_time_s", offsetof(R, generate_time_s), f64},
              {"worker", offsetof(R, worker), i32},
              {"trace_id", offsetof(R, trace_id), -1, RowRecord{}.trace_id.size()},
              {"checksum", offsetof(R, checksum), u64},
          }};
}

Hdf5Element event_element() {
  const auto i64 = H5T_NATIVE_INT64, i32 = H5T_NATIVE_INT32;
  using E = EventRecord;
  return {.size = sizeof(E),
          .members = {{"turn", offsetof(E, turn), i32},
                      {"status", offsetof(E, status), i32},
                      {"is_error", offsetof(E, is_error), i32},
                      {"retries", offsetof(E, retries), i32},
                      {"latency_s", offsetof(E, latency_s), H5T_NATIVE_DOUBLE},
                      {"span_begin", offsetof(E, span_begin), i64},
                      {"span_end", offsetof(E, span_end), i64}}};
}

Hdf5Element use_element() {
  const auto i64 = H5T_NATIVE_INT64;
  using U = UseRecord;
  return {.size = sizeof(U),
          .members = {{"row", offsetof(U, row), i64},
                      {"step", offsetof(U, step), i64},
                      {"reward", offsetof(U, reward), H5T_NATIVE_DOUBLE},
                      {"advantage", offsetof(U, advantage), H5T_NATIVE_DOUBLE},
                      {"in_loss", offsetof(U, in_loss), i64}}};
}

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  const Hdf5Silence silence;
  const Hdf5Id access = file_access();
  const hid_t id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get());
  return {path, Hdf5Id(check(id, about_file(path) + ": cannot create"))};
}

Hdf5File::Hdf5File(const std::filesystem::path& path, Hdf5Access access) : path_(path) {
  const Hdf5Silence silence;
  const Hdf5Id properties = file_access();
  forgive_killed_writer(properties);
  const unsigned flags =
      access == Hdf5Access::kWrite ? H5F_ACC_RDWR : H5F_ACC_RDONLY | H5F_ACC_SWMR_READ;
  id_ = Hdf5Id(check_read(H5Fopen(path.c_str(), flags, properties.get()),
                          about_file(path) + ": cannot open as an HDF5 file"));
  if (access == Hdf5Access::kWrite) {
    check(H5Fincrement_filesize(id_.get(), 0), about_file(path) + ": cannot repair");
  }
}

void Hdf5File::set_text(const std::string& name, const std::string& text) {
  const Hdf5Silence silence;
  const Hdf5Id type = text_type(text), space(H5Screate(H5S_SCALAR));
  const Hdf5Id attribute(
      check(H5Acreate2(id(), name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
            about_file(path_) + ": cannot create attribute " + name));
  check(H5Awrite(attribute.get(), type.get(), text.c_str()), about_file(path_) + ": cannot write");
}

void Hdf5File::set_integer(const std::string& name, std::int64_t value) {
  const Hdf5Silence silence;
  const Hdf5Id space(H5Screate(H5S_SCALAR));
  const Hdf5Id attribute(
      check(H5Acreate2(id(), name.c_str(), H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT),
            about_file(path_) + ": cannot create attribute " + name));
  check(H5Awrite(attribute.get(), H5T_NATIVE_INT64, &value), about_file(path_) + ": cannot write");
}

std::string Hdf5File::text(const std::string& name) const {
  const Hdf5Silence silence;
  const std::string what = about_file(path_) + ": cannot read attribute " + name;
  const Hdf5Id attribute(check_read(H5Aopen(id(), name.c_str(), H5P_DEFAULT), what));
  const Hdf5Id type(check_read(H5Aget_type(attribute.get()), what));
  if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) != 0) {
    throw Error(what + ": not a text of fixed length", kDamagedJournal);
  }
  const Hdf5Id space(check_read(H5Aget_space(attribute.get()), what));
  const std::size_t size = H5Tget_size(type.get());
  if (H5Sget_simple_extent_npoints(space.get()) != 1 ||
      size > static_cast<std::size_t>(size_bytes())) {
    throw Error(what + ": not one text", kDamagedJournal);
  }
  std::string text(size, '\0');
  check_read(H5Aread(attribute.get(), type.get(), text.data()), what);
  text.erase(std::find(text.begin(), text.end(), '\0'), text.end());
  return text;
}

std::int64_t Hdf5File::integer(const std::string& name) const {
  const Hdf5Silence silence;
  const std::string what = about_file(path_) + ": cannot read attribute " + name;
  const Hdf5Id attribute(check_read(H5Aopen(id(), name.c_str(), H5P_DEFAULT), what));
  const Hdf5Id space(check_read(H5Aget_space(attribute.get()), what));
  if (H5Sget_simple_extent_npoints(space.get()) != 1)
    throw Error(what + ": not one number", kDamagedJournal);
  std::int64_t value = 0;
  check_read(H5Aread(attribute.get(), H5T_NATIVE_INT64, &value), what);
  return value;
}

void Hdf5File::start_swmr() {
  const Hdf5Silence silence;
  check(H5Fstart_swmr_write(id()), about_file(path_) + ": cannot start writing");
}

void Hdf5File::flush() {
  const Hdf5Silence silence;
  check(H5Fflush(id(), H5F_SCOPE_LOCAL), about_file(path_) + ": cannot write");
}

int Hdf5File::descriptor() const { return descriptor_of(id(), about_file(path_)); }

void Hdf5File::sync() {
  const Hdf5Silence silence;
  if (::fsync(descriptor()) != 0) {
    throw Error(about_file(path_) + ": cannot sync to disk: " + std::strerror(errno), kAdvice);
  }
}

std::int64_t Hdf5File::size_bytes() const {
  const Hdf5Silence silence;
  return bytes_of(id(), about_file(path_));
}

bool Hdf5File::is_at_its_path() const {
  struct stat opened {};
  struct stat there {};
  return ::fstat(descriptor(), &opened) == 0 && ::stat(path_.c_str(), &there) == 0 &&
         opened.st_dev == there.st_dev && opened.st_ino == there.st_ino;
}

void Hdf5Array::create(const Hdf5File& file, const std::string& name, const Hdf5Element& element,
                       std::int64_t length, std::int64_t chunk) {
  const Hdf5Silence silence;
  const std::string what = about_file(file.path()) + ": cannot create dataset " + name;
  const hsize_t size = length, chunk_size = chunk, limit = chunk > 0 ? H5S_UNLIMITED : size;
  const Hdf5Id type = file_type(element);
  const Hdf5Id space(check(H5Screate_simple(1, &size, &limit), what));
  const Hdf5Id properties(check(H5Pcreate(H5P_DATASET_CREATE), what));
  if (chunk > 0) check(H5Pset_chunk(properties.get(), 1, &chunk_size), what);
  // A dataset of fixed size must have its place before SWMR starts.
  if (chunk == 0) check(H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY), what);
  H5Pset_obj_track_times(properties.get(), false);
  const Hdf5Id dataset(check(H5Dcreate2(file.id(), name.c_str(), type.get(), space.get(),
                                        H5P_DEFAULT, properties.get(), H5P_DEFAULT),
                             what));
}

Hdf5Array::Hdf5Array(const Hdf5File& file, const std::string& name, const Hdf5Element& element)
    : what_(about_file(file.path()) + ": dataset " + name) {
  const Hdf5Silence silence;
  dataset_ = Hdf5Id(check_read(H5Dopen2(file.id(), name.c_str(), H5P_DEFAULT), what_));
  type_ = memory_type(element);
  const Hdf5Id stored(check_read(H5Dget_type(dataset_.get()), what_));
  const Hdf5Id wanted = file_type(element);
  const Hdf5Id space(check(H5Dget_space(dataset_.get()), what_));
  if (H5Tequal(stored.get(), wanted.get()) <= 0 || H5Sget_simple_extent_ndims(space.get()) != 1) {
    throw Error(what_ + " is not what this version of the journal holds",
                "read it with the version of Rollcall that wrote it");
  }
}

std::int64_t Hdf5Array::length() const {
  const Hdf5Silence silence;
  const Hdf5Id space(check(H5Dget_space(dataset_.get()), what_));
  return check(H5Sget_simple_extent_npoints(space.get()), what_);
}

Hdf5Id Hdf5Array::selection(std::int64_t at, std::int64_t count) const {
  const hsize_t start = at, size = count;
  Hdf5Id space(check(H5Dget_space(dataset_.get()), what_));
  check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &size, nullptr), what_);
  return space;
}

void Hdf5Array::write(std::int64_t at, const void* values, std::int64_t count) {
  if (count == 0) return;
  const Hdf5Silence silence;
  const hsize_t end = at + count, memory_size = count;
  if (at + count > length()) check(H5Dset_extent(dataset_.get(), &end), what_ + ": cannot grow");
  const Hdf5Id memory(check(H5Screate_simple(1, &memory_size, nullptr), what_));
  const Hdf5Id target = selection(at, count);
  check(H5Dwrite(dataset_.get(), type_.get(), memory.get(), target.get(), H5P_DEFAULT, values),
        what_ + ": cannot write");
}

// Nothing is compressed: a damaged length must not make us allocate more than the file can hold.
std::int64_t Hdf5Array::most_elements() const {
  const Hdf5Silence silence;
  const Hdf5Id file(check_read(H5Iget_file_id(dataset_.get()), what_));
  const auto element = static_cast<std::int64_t>(H5Tget_size(type_.get()));
  return bytes_of(file.get(), what_) / std::max<std::int64_t>(element, 1);
}

void Hdf5Array::check_range(std::int64_t at, std::int64_t count) const {
  const std::int64_t size = length();
  if (at < 0 || count < 0 || at > size || count > size - at || count > most_elements()) {
    throw Error(what_ + ": " + std::to_string(count) + " elements from " + std::to_string(at) +
                    " on are not there: the file is damaged",
                kDamagedJournal);
  }
}

void Hdf5Array::read(std::int64_t at, void* values, std::int64_t count) const {
  check_range(at, count);
  if (count == 0) return;
  const Hdf5Silence silence;
  const hsize_t memory_size = count;
  const Hdf5Id memory(check(H5Screate_simple(1, &memory_size, nullptr), what_));
  const Hdf5Id source = selection(at, count);
  check_read(H5Dread(dataset_.get(), type_.get(), memory.get(), source.get(), H5P_DEFAULT, values),
             what_ + ": cannot read");
}

void Hdf5Array::flush() {
  const Hdf5Silence silence;
  check(H5Dflush(dataset_.get()), what_ + ": cannot write");
}

void Hdf5Array::refresh() {
  const Hdf5Silence silence;
  check_read(H5Drefresh(dataset_.get()), what_ + ": cannot refresh");
}

}  // namespace rollcall
