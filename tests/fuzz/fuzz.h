// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "comms/error.h"

// What the fuzz targets share. Each target is one LLVMFuzzerTestOneInput; anything but a
// rollcall::Error that leaves it, and anything that a sanitizer sees, is a find.
namespace rollcall {

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Calls `read`, which may refuse its input, but in no other way.
template <class Read>
void may_refuse(const Read& read) {
  try {
    read();
  } catch (const Error& error) {
    if (*error.what() == '\0') __builtin_trap();  // a refusal says why
  }
}

// A temporary folder for readers that take paths; a process that ends in order removes it.
class InputFolder {
 public:
  InputFolder()
      : path_(std::filesystem::temp_directory_path() /
              ("rollcall-fuzz-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~InputFolder() { std::filesystem::remove_all(path_); }
  InputFolder(const InputFolder&) = delete;
  InputFolder& operator=(const InputFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline const std::filesystem::path& input_folder() {
  static const InputFolder folder;
  return folder.path();
}

inline void write_input(const std::filesystem::path& file, std::string_view bytes) {
  std::ofstream(file, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// As std::filesystem::copy_file, which gives up when libFuzzer's alarm interrupts it.
inline void copy_input(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::ifstream source(from, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(source), {}};
  write_input(to, bytes);
}

}  // namespace rollcall
