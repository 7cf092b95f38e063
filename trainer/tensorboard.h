// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace rollcall {

// One TensorBoard event file (TFRecords of Event protocol buffers), scalars only. Single thread.
class TensorBoardWriter {
 public:
  // Opens a new file in `folder`, its name sorting behind those already there. With `resume_step` >
  // 0 readers forget what older files say about steps >= resume_step.
  TensorBoardWriter(const std::filesystem::path& folder, std::int64_t resume_step);

  void add_scalar(std::int64_t step, double time_unix_s, std::string_view name, double value);
  void flush();  // throws Error if the disk is full

 private:
  void add_record(std::string_view event);

  std::filesystem::path file_;
  std::ofstream out_;
};

// CRC-32C (Castagnoli), as TFRecord and iSCSI (RFC 3720) use it.
std::uint32_t crc32c(std::string_view bytes);

}  // namespace rollcall
