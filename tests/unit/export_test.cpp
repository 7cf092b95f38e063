// SPDX-License-Identifier: Apache-2.0
#include "trainer/export.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>

#include <cstdlib>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "comms/error.h"
#include "comms/file_lock.h"
#include "model/model_spec.h"
#include "temp_folder.h"
#include "trainer/export_files.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

// A model directory with the files that travel along and some that must not.
class Source {
 public:
  explicit Source(const std::string& golden) {
    const auto from = fs::path(ROLLCALL_GOLDEN_DIR) / "models" / golden;
    fs::copy(from, path(), fs::copy_options::recursive);
    spec_ = read_model_spec(path());
    weights_ = make_flat_weights(spec_);
    init_weights(spec_, 3, weights_);
    save_weights(path(), weights_.tensors, "float32", 100'000);
    spit(path() / "tokenizer.json", std::string("{}\0\xff", 4));
    spit(path() / "additional_chat_templates/tools.jinja", "{{ x }}");
    spit(path() / "pytorch_model.bin", "stale");
    spit(path() / "pytorch_model-00001-of-00002.bin", "stale");
    spit(path() / "pytorch_model_card.md", "# The model");
    spit(path() / "calibration.h5", "numbers");
    spit(path() / "original/consolidated.pth", "stale");
    spit(path() / ".git/objects/1", "history");
    fs::create_symlink(path() / "tokenizer.json", path() / "link.json");
  }

  fs::path path() const { return dir_ / "source"; }
  fs::path out() const { return dir_ / "out"; }
  const TempFolder& dir() const { return dir_; }
  const ModelSpec& spec() const { return spec_; }
  NamedTensors& weights() { return weights_.tensors; }
  TensorSource source() const { return source_of(weights_.tensors); }
  NamedShapes shapes() const { return parameter_shapes(spec_); }

 private:
  TempFolder dir_;
  ModelSpec spec_;
  FlatWeights weights_;
};

std::vector<std::string> files_in(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& item : fs::recursive_directory_iterator(dir)) {
    if (!item.is_directory()) names.push_back(fs::relative(item.path(), dir).string());
  }
  return names;
}

FlatWeights read_back(const Source& source) {
  auto weights = make_flat_weights(read_model_spec(source.out()));
  load_weights(source.out(), source.spec(), weights);
  return weights;
}

TEST(ExportAdapter, WritesAPeftFolderOrNothing) {
  const Source source("qwen3-tied");
  LoraAdapter adapter = make_lora_adapter(source.spec(), {});
  init_lora(1, adapter);
  export_adapter(adapter, source.path(), source.out());
  EXPECT_THAT(files_in(source.out()),
              testing::UnorderedElementsAre("adapter_config.json", "adapter_model.safetensors"));
  const LoraAdapter read = read_lora_adapter(source.out(), source.spec());
  EXPECT_EQ(read.options, adapter.options);
  EXPECT_TRUE(at::equal(read.parameters.flat, adapter.parameters.flat));

  const std::string before = slurp(source.out() / "adapter_model.safetensors");
  adapter.parameters.flat[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(export_adapter(adapter, source.path(), source.out()), Error);
  EXPECT_EQ(slurp(source.out() / "adapter_model.safetensors"), before);
  adapter.parameters.flat[3] = 0;
  EXPECT_THROW(export_adapter(adapter, source.path(), source.path()), Error);
  spit(source.dir() / "notes/mine.txt", "");
  EXPECT_THROW(export_adapter(adapter, source.path(), source.dir() / "notes"), Error);
}

TEST(Export, WritesWeightsAndCopiesEveryOtherFile) {
  Source source("qwen3-tied");
  export_model(source.path(), source.source(), "float32", source.out());
  EXPECT_THAT(files_in(source.out()),
              testing::UnorderedElementsAre(
                  "config.json", "generation_config.json", "tokenizer.json",
                  "tokenizer_config.json", "link.json", "pytorch_model_card.md", "calibration.h5",
                  "additional_chat_templates/tools.jinja", "model.safetensors"));
  for (const char* name : {"config.json", "generation_config.json", "tokenizer.json", "link.json",
                           "additional_chat_templates/tools.jinja"}) {
    EXPECT_EQ(slurp(source.out() / name), slurp(source.path() / name)) << name;
  }
  for (const auto& [name, tensor] : read_back(source).tensors) {
    EXPECT_TRUE(at::equal(tensor, source.weights().at(name))) << name;
  }
}

TEST(Export, RoundsToBfloat16AndSaysSo) {
  Source source("qwen3-untied-sharded");
  export_model(source.path(), source.source(), "bfloat16", source.out(), 50'000);
  EXPECT_TRUE(fs::exists(source.out() / "model.safetensors.index.json"));
  const auto config = nlohmann::json::parse(slurp(source.out() / "config.json"));
  EXPECT_EQ(config.at("dtype"), "bfloat16");
  EXPECT_FALSE(config.contains("torch_dtype"));
  for (const auto& [name, tensor] : read_back(source).tensors) {
    EXPECT_TRUE(at::equal(tensor, source.weights().at(name).to(at::kBFloat16).to(at::kFloat)))
        << name;
  }
}

TEST(Export, HoldsOneTensorAtATime) {
  Source source("qwen3-tied");
  c10::weak_intrusive_ptr<c10::StorageImpl> last = at::empty({0}).storage().getWeakStorageImpl();
  const TensorSource one_by_one = [&](const std::string& name) {
    EXPECT_TRUE(last.expired()) << "while " << name << " was asked for";
    const at::Tensor made = source.weights().at(name).clone();
    last = made.storage().getWeakStorageImpl();
    return made;
  };
  for (const char* dtype : {"float32", "bfloat16"})
    export_model(source.path(), one_by_one, dtype, source.out(), 50'000);
}

TEST(Export, ReplacesAnEarlierExportAsAWhole) {
  Source source("qwen3-tied");
  export_model(source.path(), source.source(), "float32", source.out(), 50'000);
  spit(source.out() / "model-00001-of-00002.safetensors", "stale");
  export_model(source.path(), source.source(), "bfloat16", source.out());
  EXPECT_FALSE(fs::exists(source.out() / "model-00001-of-00002.safetensors"));
  EXPECT_FALSE(fs::exists(source.out() / "model.safetensors.index.json"));
  EXPECT_THAT(files_in(source.dir().path()),
              testing::Not(testing::Contains(testing::HasSubstr("partial"))));
}

TEST(Export, WaitsForNobodyWhoWritesThere) {
  Source source("qwen3-tied");
  const FileLock other(source.dir() / ".partial-out.lock", "another export");
  EXPECT_THROW(export_model(source.path(), source.source(), "float32", source.out()), Error);
  EXPECT_FALSE(fs::exists(source.out()));
}

TEST(Export, LeavesTheOldOneWhenItFails) {
  Source source("qwen3-tied");
  export_model(source.path(), source.source(), "float32", source.out());
  const auto before = files_in(source.out());
  source.weights().at("model.norm.weight").fill_(std::numeric_limits<float>::infinity());
  EXPECT_THROW(export_model(source.path(), source.source(), "float32", source.out()), Error);
  source.weights().erase("model.norm.weight");
  EXPECT_THROW(export_model(source.path(), source.source(), "float32", source.out()), Error);
  EXPECT_EQ(files_in(source.out()), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(source.dir().path()), {}), 2);  // source and out
}

TEST(Export, NoticesATensorThatWasNotWrittenRight) {
  Source source("qwen3-tied");
  export_model(source.path(), source.source(), "bfloat16", source.out());
  compare_export(source.out(), source.shapes(), source.source(), "bfloat16");
  EXPECT_THROW(compare_export(source.out(), source.shapes(), source.source(), "float32"), Error);
  auto bytes = slurp(source.out() / "model.safetensors");
  bytes.back() ^= 1;
  spit(source.out() / "model.safetensors", bytes);
  EXPECT_THROW(compare_export(source.out(), source.shapes(), source.source(), "bfloat16"), Error);
  source.weights().erase("model.norm.weight");
  save_weights(source.out(), source.weights(), "bfloat16");
  auto more = source.weights();
  more["model.norm.weight"] = at::full({64}, 1.0F);
  EXPECT_THROW(compare_export(source.out(), source.shapes(), source_of(more), "bfloat16"), Error);
}

TEST(Export, NeverTouchesFoldersThatAreNoExport) {
  Source source("qwen3-tied");
  const auto refused = [&](const fs::path& out) {
    try {
      export_model(source.path(), source.source(), "float32", out);
      return false;
    } catch (const Error& error) {
      return error.exit_code() == ExitCode::kBadInput;
    }
  };
  spit(source.dir() / "thesis/chapter1", "text");
  spit(source.dir() / "file", "text");
  fs::create_directory_symlink(source.path(), source.dir() / "link");
  EXPECT_TRUE(refused(source.dir() / "thesis"));
  EXPECT_TRUE(refused(source.dir() / "file"));
  EXPECT_TRUE(refused(source.path()));
  EXPECT_TRUE(refused(source.dir() / "link"));
  EXPECT_TRUE(refused(source.path() / "export"));
  EXPECT_TRUE(refused(source.dir().path()));
  EXPECT_TRUE(fs::exists(source.dir() / "thesis/chapter1"));
  spit(source.dir() / "mixed/config.json", "{}");
  spit(source.dir() / "mixed/photos/a.jpg", "photo");
  EXPECT_TRUE(refused(source.dir() / "mixed"));
  EXPECT_TRUE(fs::exists(source.dir() / "mixed/photos/a.jpg"));
  fs::create_directory(source.dir() / "empty");
  EXPECT_FALSE(refused(source.dir() / "empty/"));
}

TEST(ConfigText, ChangesOnlyTheDtype) {
  EXPECT_EQ(with_dtype("{\n  \"b\": [1.0, {\"dtype\": 1}],\n  \"torch_dtype\" : \"float16\" ,\n  "
                       "\"a\": \"}\\\"\"\n}\n",
                       "bfloat16"),
            "{\n  \"b\": [1.0, {\"dtype\": 1}],\n  \"torch_dtype\" : \"bfloat16\" ,\n  \"a\": "
            "\"}\\\"\"\n}\n");
  EXPECT_EQ(with_dtype(R"({"x":{"torch_dtype":"a"},"dtype":null,"y":-1e5})", "float32"),
            R"({"x":{"torch_dtype":"a"},"dtype":"float32","y":-1e5})");
  EXPECT_EQ(with_dtype(R"({"dtype":"a","torch_dtype":"b"})", "float32"),
            R"({"dtype":"float32","torch_dtype":"float32"})");
}

TEST(ConfigText, AddsTheDtypeWhereNoneIs) {
  EXPECT_EQ(with_dtype("{\n  \"a\": 1,\n  \"b\": [2]\n}", "float32"),
            "{\n  \"a\": 1,\n  \"b\": [2],\n  \"torch_dtype\": \"float32\"\n}");
  EXPECT_EQ(with_dtype(R"({"a":true})", "float32"), R"({"a":true,"torch_dtype": "float32"})");
  EXPECT_EQ(with_dtype("{ }", "float32"), R"({"torch_dtype": "float32" })");
}

TEST(ConfigText, RefusesWhatIsNoObject) {
  const std::string whole = R"({"a":{"b":[1]},"dtype":"x"})";
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THROW(with_dtype(whole.substr(0, length), "float32"), Error) << length;
  }
  EXPECT_THROW(with_dtype("[]", "float32"), Error);
}

// The reference library itself reads the export: ROLLCALL_HF_PYTHON names a Python that has it.
TEST(Export, IsReadByTheReferenceLibrary) {
  const char* python = std::getenv("ROLLCALL_HF_PYTHON");
  if (python == nullptr) GTEST_SKIP() << "ROLLCALL_HF_PYTHON is not set";
  std::vector<std::unique_ptr<Source>> sources;  // their folders live until the comparison is done
  std::string command = std::string(python) + " " ROLLCALL_PYTHON_DIR "/compare_export.py";
  for (const char* model : {"qwen3-tied", "qwen3-untied-sharded", "llama-tied-bf16",
                            "llama3-scaled-sharded", "llama-bias-v5"}) {
    for (const char* dtype : {"float32", "bfloat16"}) {
      Source& source = *sources.emplace_back(std::make_unique<Source>(model));
      export_model(source.path(), source.source(), dtype, source.out(), 60'000);
      command += " " + source.path().string() + " " + source.out().string() + " " + dtype;
    }
  }
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
}

}  // namespace
}  // namespace rollcall
