// SPDX-License-Identifier: Apache-2.0
#include "trainer/export.h"

#include <ATen/ops/equal.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <utility>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/file_lock.h"
#include "model/model_spec.h"
#include "model/weight_files.h"
#include "trainer/export_files.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "config.json";
constexpr std::string_view kModelFiles[] = {kConfig};
constexpr std::string_view kAdapterFiles[] = {"adapter_config.json"};

bool is_within(const fs::path& inner, const fs::path& outer) {
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

fs::path resolved(const fs::path& path) {
  const auto absolute = fs::weakly_canonical(fs::absolute(path));
  return absolute.has_filename() ? absolute : absolute.parent_path();
}

// A file in `folder` that is neither weights nor called as one in `source` or in `own`: somebody
// else's. None: an empty path.
fs::path foreign_file(const fs::path& folder, const fs::path& source,
                      std::span<const std::string_view> own) {
  for (const auto& item : fs::recursive_directory_iterator(folder)) {
    const auto name = fs::relative(item.path(), folder);
    if (item.is_directory() || is_weight_file(name.filename().string())) continue;
    if (std::ranges::find(own, name.string()) == own.end() && !fs::exists(source / name))
      return item.path();
  }
  return {};
}

// A folder that is there is replaced if nothing would be lost that an export cannot write again.
// The first of `own`, the files that are written besides the source's, shows that it holds a
// `what`.
void check_target(const fs::path& source, const fs::path& target,
                  std::span<const std::string_view> own, const std::string& what) {
  if (is_within(source, target) || is_within(target, source)) {
    throw input_error("cannot export to " + target.string() + ": it and " + source.string() +
                          " lie in one another",
                      "choose a folder beside it");
  }
  if (fs::exists(target) &&
      !(fs::is_directory(target) && (fs::is_empty(target) || fs::exists(target / own.front())))) {
    throw input_error("cannot export to " + target.string() + ": it is there and holds no " + what,
                      "choose another folder, or remove it first");
  }
  if (!fs::exists(target)) return;
  if (const auto foreign = foreign_file(target, source, own); !foreign.empty()) {
    throw input_error("cannot export to " + target.string() + ": it is replaced as a whole, and " +
                          foreign.string() + " is no file of an export",
                      "choose another folder, or move that file");
  }
}

// Lets `write` fill a folder that nobody else sees, then puts it where `target` is.
void replace_with(const fs::path& target, const std::function<void(const fs::path&)>& write) {
  const auto partial = target.parent_path() / (".partial-" + target.filename().string());
  const fs::path lock_file = partial.string() + ".lock";
  const FileLock lock(lock_file, "export to " + target.string());
  try {
    fs::remove_all(partial);
    fs::create_directories(partial);
    write(partial);
    sync_directory(partial);
    replace_directory(partial, target);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    fs::remove(lock_file, ignored);
    throw;
  }
  fs::remove(lock_file);
}

bool same_tensor(const SafetensorsEntry& entry, const at::Tensor& stored) {
  return stored.sizes() == c10::IntArrayRef(entry.shape) && stored.nbytes() == entry.data.size() &&
         std::memcmp(stored.const_data_ptr(), entry.data.data(), entry.data.size()) == 0;
}

void write_model(const fs::path& source, const TensorSource& weights, const std::string& dtype,
                 const fs::path& folder, std::int64_t max_shard_bytes) {
  const auto shapes = parameter_shapes(read_model_spec(source));
  copy_other_files(source, folder);
  write_durably(folder / kConfig, with_dtype(read_file(source / kConfig), dtype));
  save_weights(folder, shapes, weights, dtype, max_shard_bytes);
  compare_export(folder, shapes, weights, dtype);
}

void write_adapter(const LoraAdapter& adapter, const fs::path& base, const fs::path& folder) {
  save_lora_adapter(folder, adapter, base.string());
  const LoraAdapter written = read_lora_adapter(folder, read_model_spec(base));
  if (written.options != adapter.options ||
      !at::equal(written.parameters.flat, adapter.parameters.flat))
    throw Error(folder.string() + ": the adapter was not written right", "check the disk");
}

}  // namespace

void compare_export(const fs::path& folder, const NamedShapes& shapes, const TensorSource& weights,
                    const std::string& dtype) {
  std::size_t compared = 0;
  for (const auto& file : open_weight_files(folder)) {
    for (const auto& entry : file.contents.entries()) {
      const at::Tensor wanted = weights(entry.name);
      if (!wanted.defined() || !same_tensor(entry, stored_tensor(wanted, dtype))) {
        throw Error(file.path.string() + ": tensor '" + entry.name + "' was not written right",
                    "check the disk");
      }
      SafetensorsFile::release(entry);
      ++compared;
    }
  }
  if (compared != shapes.size()) throw Error(folder.string() + ": tensors are missing");
}

void export_model(const fs::path& source, const TensorSource& weights, const std::string& dtype,
                  const fs::path& out, std::int64_t max_shard_bytes) try {
  const auto target = resolved(out);
  check_target(resolved(source), target, kModelFiles, "model");
  replace_with(target, [&](const fs::path& folder) {
    write_model(source, weights, dtype, folder, max_shard_bytes);
  });
} catch (const fs::filesystem_error& error) {
  throw Error(error.what(), "check that the folder to export to is writable and has space");
}

void export_adapter(const LoraAdapter& adapter, const fs::path& base, const fs::path& out) try {
  const auto target = resolved(out);
  check_target(resolved(base), target, kAdapterFiles, "adapter");
  replace_with(target, [&](const fs::path& folder) { write_adapter(adapter, base, folder); });
} catch (const fs::filesystem_error& error) {
  throw Error(error.what(), "check that the folder to export to is writable and has space");
}

}  // namespace rollcall
