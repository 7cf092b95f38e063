// SPDX-License-Identifier: Apache-2.0
// A checkpoint's folder: one byte that says which file is replaced, then that file. The manifest
// says the truth about the others, so that what stands behind it is read too.
#include "comms/log.h"
#include "tests/fuzz/fuzz.h"
#include "trainer/checkpoint.h"
#include "trainer/manifest.h"

// No disk has to keep what is written here.
extern "C" int fsync(int) { return 0; }

namespace rollcall {
namespace {

const std::filesystem::path& saved() {
  static const std::filesystem::path folder = [] {
    log_open(0, "/dev/null", false);
    TrainState state{.step = 1, .sampler = "{}", .spec = "{}"};
    state.lora = LoraOptions{4, 8, {"q_proj"}, false};
    const std::vector<float> floats{1, 2, 3, 4};
    state.policy = {0, floats, floats, floats};
    return save_checkpoint(input_folder() / "checkpoints", state, 1);
  }();
  return folder;
}

void replace(const std::filesystem::path& folder, std::uint8_t which, std::string_view bytes) {
  if (which == 0) return write_input(folder / kManifestName, bytes);
  write_input(folder / (which == 1 ? "state.json" : "state.safetensors"), bytes);
  std::filesystem::remove(folder / kManifestName);
  write_manifest(folder);
}

}  // namespace
}  // namespace rollcall

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  if (size == 0) return 0;
  const auto folder = saved().parent_path() / "step-000002";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directory(folder);
  for (const auto& file : std::filesystem::directory_iterator(saved()))
    copy_input(file.path(), folder / file.path().filename());
  replace(folder, data[0] % 3, text_of(data + 1, size - 1));
  manifest_problem(folder, ManifestCheck::kSizes);  // never throws
  if (!newest_checkpoint(folder.parent_path())) __builtin_trap();
  may_refuse([&] { load_checkpoint(folder); });
  return 0;
}
