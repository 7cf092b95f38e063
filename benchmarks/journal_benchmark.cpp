// SPDX-License-Identifier: Apache-2.0
// Rows of different lengths in HDF5: flat arrays with offsets, as in the journal, beside HDF5's own
// variable-length types, both with the token arrays alone; and the journal, which holds all of a
// trajectory and writes in a thread of its own. The same trajectories, turn by turn, until they are
// on disk.
// journal_benchmark [TRAJECTORIES [ROUNDS]]
#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "benchmarks/benchmark.h"
#include "benchmarks/scripted_workers.h"
#include "comms/scratch_folder.h"
#include "trainer/journal.h"
#include "trainer/journal_hdf5.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

constexpr hsize_t kRowsAtOnce = 128;          // as the journal writes them
constexpr hsize_t kChunkNumbers = 64 * 1024;  // of a flat array

template <class Id>
Id checked(Id id) {
  if (id < 0) throw std::runtime_error("HDF5 failed");
  return id;
}

// The arrays of a trajectory, one number a token.
constexpr std::size_t kArrays = 4;
const std::array<hid_t, kArrays>& number_types() {
  static const std::array<hid_t, kArrays> types{H5T_NATIVE_INT32, H5T_NATIVE_UINT8,
                                                H5T_NATIVE_FLOAT, H5T_NATIVE_INT32};
  return types;
}
struct Array {
  const void* data;
  std::size_t size, bytes;
};
std::array<Array, kArrays> arrays_of(const Trajectory& t) {
  const auto array = [](const auto& values) {
    return Array{values.data(), values.size(), values.size() * sizeof values[0]};
  };
  return {array(t.tokens), array(t.is_action), array(t.behavior_logprobs), array(t.token_version)};
}

// A column that grows at its end.
class Column {
 public:
  Column(hid_t file, const std::string& name, hid_t type, hsize_t chunk) : type_(type) {
    const hsize_t none = 0, most = H5S_UNLIMITED;
    const Hdf5Id space(checked(H5Screate_simple(1, &none, &most)));
    const Hdf5Id chunked(checked(H5Pcreate(H5P_DATASET_CREATE)));
    checked(H5Pset_chunk(chunked.get(), 1, &chunk));
    dataset_ = Hdf5Id(checked(H5Dcreate2(file, name.c_str(), type, space.get(), H5P_DEFAULT,
                                         chunked.get(), H5P_DEFAULT)));
  }

  hsize_t size() const { return size_; }
  void append(hsize_t count, const void* elements) {
    const hsize_t end = size_ + count;
    checked(H5Dset_extent(dataset_.get(), &end));
    const Hdf5Id memory(checked(H5Screate_simple(1, &count, nullptr)));
    const Hdf5Id place(checked(H5Dget_space(dataset_.get())));
    checked(H5Sselect_hyperslab(place.get(), H5S_SELECT_SET, &size_, nullptr, &count, nullptr));
    checked(H5Dwrite(dataset_.get(), type_, memory.get(), place.get(), H5P_DEFAULT, elements));
    size_ = end;
  }

 private:
  hid_t type_;  // borrowed
  Hdf5Id dataset_;
  hsize_t size_ = 0;
};

class File {
 public:
  explicit File(const fs::path& path)
      : path_(path),
        id_(checked(H5Fcreate(path.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT))) {}

  hid_t id() const { return id_.get(); }
  void commit() const {
    checked(H5Fflush(id_.get(), H5F_SCOPE_LOCAL));
    const int descriptor = checked(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    checked(::fsync(descriptor));
    ::close(descriptor);
  }

 private:
  fs::path path_;
  Hdf5Id id_;
};

class VariableLength {
 public:
  explicit VariableLength(hid_t file) {
    for (std::size_t i = 0; i < kArrays; ++i) {
      types_[i] = Hdf5Id(checked(H5Tvlen_create(number_types()[i])));
      columns_.emplace_back(file, std::to_string(i), types_[i].get(), kRowsAtOnce);
    }
  }

  void append(std::span<const Trajectory> rows) {
    for (std::size_t i = 0; i < kArrays; ++i) {
      std::vector<hvl_t> cells;
      for (const Trajectory& row : rows) {
        const Array array = arrays_of(row)[i];
        cells.push_back({array.size, const_cast<void*>(array.data)});  // HDF5 only reads it
      }
      columns_[i].append(cells.size(), cells.data());
    }
  }

 private:
  std::array<Hdf5Id, kArrays> types_;
  std::vector<Column> columns_;
};

class Flat {
 public:
  explicit Flat(hid_t file) : offsets_(file, "offsets", H5T_NATIVE_INT64, kChunkNumbers) {
    for (std::size_t i = 0; i < kArrays; ++i)
      columns_.emplace_back(file, std::to_string(i), number_types()[i], kChunkNumbers);
  }

  void append(std::span<const Trajectory> rows) {
    std::vector<std::int64_t> ends;
    auto end = static_cast<std::int64_t>(columns_[0].size());
    for (const Trajectory& row : rows) ends.push_back(end += std::ssize(row.tokens));
    for (std::size_t i = 0; i < kArrays; ++i) {
      std::string all;
      for (const Trajectory& row : rows) {
        const Array array = arrays_of(row)[i];
        all.append(static_cast<const char*>(array.data), array.bytes);
      }
      columns_[i].append(static_cast<hsize_t>(end) - columns_[i].size(), all.data());
    }
    offsets_.append(ends.size(), ends.data());
  }

 private:
  std::vector<Column> columns_;
  Column offsets_;
};

template <class Layout>
double layout_seconds(const fs::path& path, std::span<const Trajectory> rows) {
  const File file(path);
  Layout layout(file.id());
  return seconds_of([&] {
    for (std::size_t i = 0; i < rows.size(); i += kRowsAtOnce)
      layout.append(rows.subspan(i, std::min<std::size_t>(kRowsAtOnce, rows.size() - i)));
    file.commit();
  });
}

double journal_seconds(const fs::path& folder, std::span<const Trajectory> rows) {
  std::vector<std::shared_ptr<const Trajectory>> shared;  // as a run has them
  for (const Trajectory& row : rows) shared.push_back(std::make_shared<const Trajectory>(row));
  Journal journal(folder / "journal.h5", "{}");
  return seconds_of([&] {
    for (const auto& row : shared) journal.append(row);
    journal.commit();
  });
}

int run(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 4096,
            rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  std::vector<Trajectory> rows;
  for (int i = 0; i < count; ++i)
    rows.push_back(scripted_trajectory({.group = i / 8, .member = i % 8}, 1));
  std::vector<double> flat, variable, journal, ratios;
  for (int round = 0; round <= rounds; ++round) {
    const ScratchFolder folder(fs::current_path());
    const double of_flat = layout_seconds<Flat>(folder.path() / "flat.h5", rows);
    const double of_variable = layout_seconds<VariableLength>(folder.path() / "variable.h5", rows);
    const double of_journal = journal_seconds(folder.path(), rows);
    if (round == 0) continue;  // warms up
    flat.push_back(count / of_flat);
    variable.push_back(count / of_variable);
    journal.push_back(count / of_journal);
    ratios.push_back(of_variable / of_flat);
  }
  const nlohmann::ordered_json line{{"bench", "journal_layout"},
                                    {"trajectories", count},
                                    {"flat_per_s", listed(spread(flat))},
                                    {"variable_per_s", listed(spread(variable))},
                                    {"journal_per_s", listed(spread(journal))},
                                    {"ratio", listed(spread(ratios))}};
  print_line(line.dump());
  return 0;
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::main_of(rollcall::run, argc, argv); }
