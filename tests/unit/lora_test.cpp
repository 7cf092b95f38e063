// SPDX-License-Identifier: Apache-2.0
#include "model/lora.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "comms/error.h"
#include "model/decoder.h"
#include "model/safetensors.h"
#include "temp_folder.h"
#include "tiny_model.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;
using testing::HasSubstr;

const fs::path kGolden = ROLLCALL_GOLDEN_DIR;
const fs::path kAdapter = kGolden / "adapters" / "qwen2-lora";
const fs::path kBase = kGolden / "models" / "qwen2-untied";

NamedTensors leaves_of(const FlatWeights& weights) {
  NamedTensors leaves;
  for (const auto& [name, t] : weights.tensors) leaves[name] = t.detach().set_requires_grad(true);
  return leaves;
}

void merge_into(const LoraAdapter& adapter, FlatWeights& weights) {
  const TensorSource merged = with_lora(adapter, source_of(weights.tensors));
  for (auto& [name, tensor] : weights.tensors) tensor.copy_(merged(name));
}

// An adapter whose A and B both matter, on a model with that adapter merged in.
struct Adapted {
  explicit Adapted(const LoraOptions& options) : model(5) {
    adapter = make_lora_adapter(model.spec, options);
    init_lora(7, adapter);
    adapter.parameters.flat.add_(at::arange(adapter.parameters.flat.numel()).sin(), 0.05);
    merge_into(adapter, model.weights);
  }
  TinyModel model;
  LoraAdapter adapter;
};

LoraOptions small(std::int64_t rank = 4) {
  LoraOptions options;
  options.rank = rank;
  options.alpha = 6;
  return options;
}

at::Tensor loss_of(const Decoder& decoder) {
  const at::Tensor ids = at::arange(9) * 7;
  const auto scored =
      token_logprobs(decoder.packed_hidden(ids, {{0, 9, -1}}), decoder.head(), ids.roll(-1), 101);
  return -scored.logprobs.mean();
}

TEST(Lora, ScalesByAlphaAndRank) {
  EXPECT_DOUBLE_EQ(lora_scaling({4, 8, {}, false}), 2.0);
  EXPECT_DOUBLE_EQ(lora_scaling({4, 8, {}, true}), 4.0);
}

TEST(Lora, MergesByHand) {
  LoraAdapter adapter{{1, 2, {}, false}, {"m"}, {}};
  adapter.parameters.tensors = {{lora_a_key("m"), at::tensor({1.0f, 2.0f, 3.0f}).view({1, 3})},
                                {lora_b_key("m"), at::tensor({10.0f, -1.0f}).view({2, 1})}};
  const at::Tensor base = at::tensor({0.5f, 0.5f, 0.5f, 1.0f, 1.0f, 1.0f}).view({2, 3});
  const at::Tensor want = at::tensor({20.5f, 40.5f, 60.5f, -1.0f, -3.0f, -5.0f}).view({2, 3});
  EXPECT_TRUE(at::equal(merge_lora(adapter, "m", base), want));
  EXPECT_TRUE(at::equal(merge_lora(adapter, "m", base.to(at::kBFloat16)), want));
}

TEST(Lora, BeginsWithoutEffectAndBySeed) {
  const ModelSpec spec = tiny_spec();
  LoraAdapter one = make_lora_adapter(spec, small()), same = make_lora_adapter(spec, small()),
              other = make_lora_adapter(spec, small());
  init_lora(1, one);
  init_lora(1, same);
  init_lora(2, other);
  EXPECT_TRUE(at::equal(one.parameters.flat, same.parameters.flat));
  EXPECT_FALSE(at::equal(one.parameters.flat, other.parameters.flat));
  const at::Tensor a = one.parameters.tensors.at(lora_a_key("model.layers.1.mlp.down_proj"));
  EXPECT_LE(a.abs().max().item<double>(), 1 / std::sqrt(56.0));
  EXPECT_GT(a.abs().max().item<double>(), 0.9 / std::sqrt(56.0));
  EXPECT_NEAR(a.mean().item<double>(), 0, 0.02);
  TinyModel model(3);
  const at::Tensor before = model.weights.flat.clone();
  merge_into(one, model.weights);
  EXPECT_TRUE(at::equal(model.weights.flat, before));
}

TEST(Lora, MergesToTheSameBitsOnAnyNumberOfThreads) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Adapted one(small(32));
  at::set_num_threads(3);
  const Adapted three(small(32));
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.model.weights.flat, three.model.weights.flat));
}

TEST(Lora, TakesTargetsByTheEndOfTheirPath) {
  LoraOptions options = small();
  options.targets = {"self_attn.v_proj", "model.layers.1.mlp.up_proj"};
  EXPECT_THAT(
      make_lora_adapter(tiny_spec(), options).modules,
      testing::ElementsAre("model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj",
                           "model.layers.1.mlp.up_proj"));
  for (const char* target : {"proj", "lm_head", "embed_tokens", "model.layers.9.mlp.up_proj"}) {
    options.targets = {"q_proj", target};
    try {
      make_lora_adapter(tiny_spec(), options);
      ADD_FAILURE() << target;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
      EXPECT_THAT(error.what(), HasSubstr(target));
    }
  }
}

// The gradient of W' = W + s B A projected on A and B.
TEST(Lora, ProjectsTheGradientOfTheWholeWeight) {
  Adapted adapted(small());
  const NamedTensors full = leaves_of(adapted.model.weights);
  adapted.model.decoder.bind(full);
  const at::Tensor loss = loss_of(adapted.model.decoder);
  loss.backward();
  const NamedTensors leaves = leaves_of(adapted.adapter.parameters);
  adapted.model.decoder.bind(source_of(adapted.model.weights.tensors),
                             lora_leaves(adapted.adapter, leaves));
  const at::Tensor adapter_loss = loss_of(adapted.model.decoder);
  adapter_loss.backward();
  EXPECT_TRUE(at::equal(adapter_loss, loss));
  const double scaling = lora_scaling(adapted.adapter.options);
  for (const auto& module : adapted.adapter.modules) {
    const at::Tensor dw = full.at(module + ".weight").grad();
    const at::Tensor &a = leaves.at(lora_a_key(module)), &b = leaves.at(lora_b_key(module));
    const at::Tensor da = at::mm(b.detach().t(), dw) * scaling;
    const at::Tensor db = at::mm(dw, a.detach().t()) * scaling;
    EXPECT_TRUE(at::allclose(a.grad(), da, 1e-4, 1e-5 * da.abs().max().item<double>())) << module;
    EXPECT_TRUE(at::allclose(b.grad(), db, 1e-4, 1e-5 * db.abs().max().item<double>())) << module;
  }
}

// In double precision, where a difference quotient is good to eight digits.
TEST(Lora, HasTheGradientOfFiniteDifferences) {
  const auto some = [](std::int64_t rows, std::int64_t columns, double phase) {
    const at::Tensor t = at::arange(rows * columns).to(at::kDouble);
    return (t * 1.7 + phase).sin().view({rows, columns});
  };
  const at::Tensor x = some(3, 5, 0), base = some(4, 5, 1), weighting = some(3, 4, 2);
  const double scaling = 1.5;
  at::Tensor a = some(2, 5, 3), b = some(4, 2, 4);
  const auto objective = [&](const at::Tensor& input, bool with_leaves) {
    LinearWeight w;
    pack(w, base + scaling * at::mm(b, a).detach());
    if (with_leaves) w.lora = {a, b, scaling};
    return (linear(input, w).sin() * weighting).sum();
  };
  const at::Tensor leaf_x = x.clone().set_requires_grad(true);
  a.set_requires_grad(true);
  b.set_requires_grad(true);
  objective(leaf_x, true).backward();
  for (const at::Tensor& leaf : {leaf_x, a, b}) {
    const at::Tensor values = leaf.detach();
    for (std::int64_t i = 0; i < values.numel(); ++i) {
      double& value = values.data_ptr<double>()[i];
      const double kept = value, step = 1e-5;
      value = kept + step;
      const double above = objective(leaf_x.detach(), false).item<double>();
      value = kept - step;
      const double below = objective(leaf_x.detach(), false).item<double>();
      value = kept;
      EXPECT_NEAR(leaf.grad().view({-1})[i].item<double>(), (above - below) / (2 * step), 1e-8);
    }
  }
}

at::Tensor golden(const SafetensorsFile& file, const std::string& name) {
  for (const auto& entry : file.entries()) {
    if (entry.name != name) continue;
    at::Tensor t = at::empty(entry.shape, entry.dtype == "I64" ? at::kLong : at::kFloat);
    std::memcpy(t.mutable_data_ptr(), entry.data.data(), entry.data.size());
    return t;
  }
  throw std::runtime_error("no golden tensor " + name);
}

// What PEFT computes.
TEST(Lora, GivesTheReferenceLogitsWeightsAndGradients) {
  const SafetensorsFile file(kGolden / "adapters" / "qwen2-lora.golden.safetensors");
  const ModelSpec spec = read_model_spec(kBase);
  FlatWeights weights = make_flat_weights(spec);
  load_weights(kBase, spec, weights);
  const LoraAdapter adapter = read_lora_adapter(kAdapter, spec);
  merge_into(adapter, weights);
  const NamedTensors leaves = leaves_of(adapter.parameters);
  Decoder decoder(spec);
  decoder.bind(source_of(weights.tensors), lora_leaves(adapter, leaves));
  int compared = 0;
  for (const auto& entry : file.entries()) {
    const auto dot = entry.name.find('.');
    const std::string kind = entry.name.substr(0, dot), rest = entry.name.substr(dot + 1);
    if (kind != "merged" && kind != "input_ids") continue;
    ++compared;
    if (kind == "merged") {
      EXPECT_TRUE(at::allclose(weights.tensors.at(rest), golden(file, entry.name), 1e-5, 1e-6));
      continue;
    }
    const at::Tensor ids = golden(file, entry.name).view({-1});
    const at::Tensor hidden = decoder.packed_hidden(ids, {{0, ids.numel(), -1}});
    const at::Tensor want = golden(file, "logits_adapter." + rest).view({ids.numel(), -1});
    EXPECT_TRUE(at::allclose(linear(hidden, decoder.head()), want, 2e-4, 2e-4)) << rest;
    if (rest != "0") continue;
    const auto scored = token_logprobs(hidden, decoder.head(), ids.roll(-1), spec.vocab_size);
    (-scored.logprobs.narrow(0, 0, ids.numel() - 1).mean()).backward();
  }
  EXPECT_GE(compared, 3);
  for (const auto& entry : file.entries()) {
    if (!entry.name.starts_with("grad.")) continue;
    const at::Tensor want = golden(file, entry.name);
    const double largest = want.abs().max().item<double>();
    EXPECT_TRUE(at::allclose(leaves.at(entry.name.substr(5)).grad(), want, 1e-3, 1e-4 * largest))
        << entry.name;
  }
}

TEST(LoraFiles, ComeBackByteForByte) {
  const ModelSpec spec = read_model_spec(kBase);
  const TempFolder dir;
  fs::create_directories(dir / "one");
  fs::create_directories(dir / "two");
  const LoraAdapter adapter = read_lora_adapter(kAdapter, spec);
  EXPECT_EQ(adapter.options.rank, 4);
  EXPECT_EQ(adapter.options.alpha, 8);
  save_lora_adapter(dir / "one", adapter, "base");
  save_lora_adapter(dir / "two", read_lora_adapter(dir / "one", spec), "base");
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"})
    EXPECT_EQ(slurp(dir.path() / "two" / name), slurp(dir.path() / "one" / name)) << name;
  EXPECT_EQ(slurp(dir / "one/adapter_model.safetensors"),
            slurp(kAdapter / "adapter_model.safetensors"));
}

// The reference adapter in a folder of its own, to be changed.
class BadAdapter : public testing::Test {
 protected:
  BadAdapter() {
    fs::copy(kAdapter, dir_.path() / "a");
    config_ = ordered_json::parse(slurp(config_file()));
  }
  fs::path config_file() const { return dir_ / "a/adapter_config.json"; }

  // What is said about the folder.
  std::string report() const {
    try {
      read_lora_adapter(dir_ / "a", read_model_spec(kBase));
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
      EXPECT_FALSE(error.what_to_do().empty());
      return error.what();
    }
  }
  std::string report_with(const std::string& key, const ordered_json& value) {
    ordered_json changed = config_;
    changed[key] = value;
    spit(config_file(), changed.dump());
    return report();
  }

  TempFolder dir_;
  ordered_json config_;
};

TEST_F(BadAdapter, IsRefusedByTheNameOfTheKey) {
  const std::pair<const char*, ordered_json> cases[] = {
      {"peft_type", "IA3"},
      {"task_type", "SEQ_CLS"},
      {"use_dora", true},
      {"bias", "all"},
      {"lora_bias", true},
      {"fan_in_fan_out", true},
      {"modules_to_save", {"lm_head"}},
      {"rank_pattern", {{"q_proj", 8}}},
      {"alpha_pattern", {{"q_proj", 8}}},
      {"layers_to_transform", {0}},
      {"target_parameters", {"x"}},
      {"use_qalora", true},
      {"init_lora_weights", "pissa"},
      {"a_key_of_the_future", 1},
      {"target_modules", ".*_proj"},
      {"target_modules", ordered_json::array({7})},
      {"r", 0},
      {"r", 2.5},
      {"r", 1e9},
      {"lora_alpha", 0},
      {"lora_alpha", "8"},
      {"use_rslora", "yes"},
  };
  for (const auto& [key, value] : cases)
    EXPECT_THAT(
        report_with(key, value),
        testing::AllOf(HasSubstr(std::string("adapter_config.json: ") + key),
                       testing::Not(testing::ContainsRegex("config.json: .*config.json: "))))
        << value;
  EXPECT_THAT(report_with("target_modules", {"q_proj", "c_attn"}), HasSubstr("'c_attn'"));
  EXPECT_EQ(report_with("lora_dropout", 0.1), "");
  EXPECT_EQ(report_with("task_type", nullptr), "");
}

TEST_F(BadAdapter, IsRefusedByTheNameOfTheTensor) {
  EXPECT_THAT(report_with("target_modules", {"q_proj", "k_proj"}),
              HasSubstr("tensor 'base_model.model.model.layers.0.mlp.down_proj.lora_A.weight'"));
  EXPECT_THAT(report_with("r", 8), HasSubstr("has shape [4, "));
  spit(config_file(), config_.dump());
  const SafetensorsFile whole(kAdapter / "adapter_model.safetensors");
  auto entries = whole.entries();
  const std::string gone = entries.back().name;
  entries.pop_back();
  write_safetensors(dir_ / "a/adapter_model.safetensors", entries, {});
  EXPECT_THAT(report(), HasSubstr("tensor '" + gone + "' is missing"));
}

TEST_F(BadAdapter, IsRefusedWhereItIsNotWhole) {
  for (const char* text : {"", "{", "[]", "\xff", "{\"r\": 1e999}"}) {
    spit(config_file(), text);
    EXPECT_THAT(report(), HasSubstr("adapter_config.json")) << text;
  }
  spit(config_file(), config_.dump());
  const std::string bytes = slurp(dir_ / "a/adapter_model.safetensors");
  spit(dir_ / "a/adapter_model.safetensors", bytes.substr(0, bytes.size() - 1));
  EXPECT_THAT(report(), HasSubstr("adapter_model.safetensors"));
  spit(dir_ / "a/adapter_model.safetensors",
       bytes.substr(0, bytes.size() - 4) + "\xff\xff\xff\x7f");
  EXPECT_THAT(report(), HasSubstr("holds nan at element"));
  fs::remove(dir_ / "a/adapter_model.safetensors");
  EXPECT_THAT(report(), HasSubstr("is missing"));
}

}  // namespace
}  // namespace rollcall
