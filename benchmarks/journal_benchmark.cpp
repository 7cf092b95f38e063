// SPDX-License-Identifier: Apache-2.0
// The journal beside the plain way to keep rows of different lengths in HDF5, its variable-length
// types: the same trajectories, turn by turn, until they are on disk.
// journal_benchmark [TRAJECTORIES [ROUNDS]]
#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "benchmarks/benchmark.h"
#include "benchmarks/scripted_workers.h"
#include "comms/scratch_folder.h"
#include "trainer/journal.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

constexpr hsize_t kRowsAtOnce = 128;  // as the journal writes them

template <class Id>
Id checked(Id id) {
  if (id < 0) throw std::runtime_error("HDF5 failed");
  return id;
}

// The four arrays of each trajectory and no more of it, a variable-length dataset for each.
class VariableLengthFile {
 public:
  explicit VariableLengthFile(const fs::path& path)
      : file_(checked(H5Fcreate(path.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT))),
        path_(path) {
    const std::array<std::pair<const char*, hid_t>, kColumns> columns{
        {{"tokens", H5T_NATIVE_INT32},
         {"is_action", H5T_NATIVE_UINT8},
         {"behavior_logprobs", H5T_NATIVE_FLOAT},
         {"token_version", H5T_NATIVE_INT32}}};
    const hsize_t none = 0, most = H5S_UNLIMITED;
    const hid_t space = checked(H5Screate_simple(1, &none, &most));
    const hid_t chunked = checked(H5Pcreate(H5P_DATASET_CREATE));
    checked(H5Pset_chunk(chunked, 1, &kRowsAtOnce));
    for (std::size_t i = 0; i < kColumns; ++i) {
      types_[i] = checked(H5Tvlen_create(columns[i].second));
      datasets_[i] = checked(
          H5Dcreate2(file_, columns[i].first, types_[i], space, H5P_DEFAULT, chunked, H5P_DEFAULT));
    }
    H5Pclose(chunked);
    H5Sclose(space);
  }
  ~VariableLengthFile() {
    for (const hid_t dataset : datasets_) H5Dclose(dataset);
    for (const hid_t type : types_) H5Tclose(type);
    H5Fclose(file_);
  }
  VariableLengthFile(const VariableLengthFile&) = delete;
  VariableLengthFile& operator=(const VariableLengthFile&) = delete;

  void append(std::span<const Trajectory> rows) {
    std::array<std::vector<hvl_t>, kColumns> cells;
    for (const Trajectory& row : rows) {
      cells[0].push_back(cell_of(row.tokens));
      cells[1].push_back(cell_of(row.is_action));
      cells[2].push_back(cell_of(row.behavior_logprobs));
      cells[3].push_back(cell_of(row.token_version));
    }
    const hsize_t count = rows.size(), end = rows_ + count;
    const hid_t memory = checked(H5Screate_simple(1, &count, nullptr));
    for (std::size_t i = 0; i < kColumns; ++i) {
      checked(H5Dset_extent(datasets_[i], &end));
      const hid_t place = checked(H5Dget_space(datasets_[i]));
      checked(H5Sselect_hyperslab(place, H5S_SELECT_SET, &rows_, nullptr, &count, nullptr));
      checked(H5Dwrite(datasets_[i], types_[i], memory, place, H5P_DEFAULT, cells[i].data()));
      H5Sclose(place);
    }
    H5Sclose(memory);
    rows_ = end;
  }
  void commit() {
    checked(H5Fflush(file_, H5F_SCOPE_LOCAL));
    const int descriptor = checked(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    checked(::fsync(descriptor));
    ::close(descriptor);
  }

 private:
  static constexpr std::size_t kColumns = 4;

  template <class T>
  static hvl_t cell_of(const std::vector<T>& values) {
    return {values.size(), const_cast<T*>(values.data())};  // HDF5 only reads it
  }

  hid_t file_;
  fs::path path_;
  std::array<hid_t, kColumns> types_{}, datasets_{};
  hsize_t rows_ = 0;
};

double journal_seconds(const fs::path& folder, std::span<const Trajectory> rows) {
  Journal journal(folder / "journal.h5", "{}");
  return seconds_of([&] {
    for (const Trajectory& row : rows) journal.append(row);
    journal.commit();
  });
}

double variable_length_seconds(const fs::path& folder, std::span<const Trajectory> rows) {
  VariableLengthFile file(folder / "variable.h5");
  return seconds_of([&] {
    for (std::size_t i = 0; i < rows.size(); i += kRowsAtOnce)
      file.append(rows.subspan(i, std::min<std::size_t>(kRowsAtOnce, rows.size() - i)));
    file.commit();
  });
}

int run(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 4096,
            rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  std::vector<Trajectory> rows;
  for (int i = 0; i < count; ++i)
    rows.push_back(scripted_trajectory({.group = i / 8, .member = i % 8}, 1));
  std::vector<double> flat, variable, ratios;
  double mb = 0;
  for (int round = 0; round <= rounds; ++round) {
    const ScratchFolder folder(fs::current_path());
    const double ours = journal_seconds(folder.path(), rows);
    const double plain = variable_length_seconds(folder.path(), rows);
    mb = 1e-6 * static_cast<double>(fs::file_size(folder.path() / "journal.h5"));
    if (round == 0) continue;  // warms up
    flat.push_back(count / ours);
    variable.push_back(count / plain);
    ratios.push_back(plain / ours);
  }
  const nlohmann::ordered_json line{{"bench", "journal_layout"},
                                    {"trajectories", count},
                                    {"mb", mb},
                                    {"flat_per_s", listed(spread(flat))},
                                    {"variable_per_s", listed(spread(variable))},
                                    {"ratio", listed(spread(ratios))}};
  print_line(line.dump());
  return 0;
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::main_of(rollcall::run, argc, argv); }
