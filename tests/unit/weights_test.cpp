// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "comms/error.h"
#include "model/published_weights.h"
#include "model/safetensors.h"
#include "model/stored_weights.h"
#include "published_copy.h"
#include "temp_folder.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

ModelSpec tiny_spec(bool tied) {
  return {.model_type = "llama",
          .hidden_size = 8,
          .intermediate_size = 12,
          .layers = 2,
          .heads = 2,
          .kv_heads = 1,
          .head_dim = 4,
          .vocab_size = 10,
          .tied = tied,
          .eos_ids = {}};
}

FlatWeights random_weights(const ModelSpec& spec) {
  auto weights = make_flat_weights(spec);
  init_weights(spec, 5, weights);
  return weights;
}

// A folder's tensors, changed by hand before they are written.
class Checkpoint {
 public:
  explicit Checkpoint(const ModelSpec& spec)
      : spec_(spec), tensors_(random_weights(spec).tensors) {}

  at::Tensor& operator[](const std::string& name) { return tensors_[name]; }
  void erase(const std::string& name) { tensors_.erase(name); }

  FlatWeights load() {
    save_weights(dir_.path(), tensors_, "float32");
    auto weights = make_flat_weights(spec_);
    load_weights(dir_.path(), spec_, weights);
    return weights;
  }

  std::string refusal() try {
    load();
    return "accepted";
  } catch (const Error& error) {
    return error.what();
  }

  const TempFolder& dir() const { return dir_; }

 private:
  TempFolder dir_;
  ModelSpec spec_;
  NamedTensors tensors_;
};

void expect_same(const NamedTensors& a, const NamedTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
}

std::string bytes16(std::initializer_list<std::uint16_t> values) {
  std::string bytes;
  for (const auto value : values) bytes.append(reinterpret_cast<const char*>(&value), 2);
  return bytes;
}

TEST(Weights, AreViewsOfOneBufferInParameterOrder) {
  const auto spec = tiny_spec(false);
  auto weights = make_flat_weights(spec);
  EXPECT_EQ(weights.flat.numel(), parameter_count(spec));
  EXPECT_EQ(weights.flat.abs().sum().item<float>(), 0);
  std::int64_t offset = 0;
  for (const auto& [name, shape] : parameter_shapes(spec)) {
    const auto& tensor = weights.tensors.at(name);
    EXPECT_EQ(tensor.const_data_ptr<float>(), weights.flat.const_data_ptr<float>() + offset)
        << name;
    EXPECT_EQ(tensor.sizes(), c10::IntArrayRef(shape));
    offset += tensor.numel();
  }
  EXPECT_EQ(offset, weights.flat.numel());
}

TEST(Weights, RoundTripBitForBit) {
  for (const bool tied : {true, false}) {
    Checkpoint checkpoint(tiny_spec(tied));
    expect_same(checkpoint.load().tensors, random_weights(tiny_spec(tied)).tensors);
  }
}

TEST(Weights, RoundTripThroughShards) {
  const TempFolder dir;
  const auto spec = tiny_spec(false);
  const auto weights = random_weights(spec);
  save_weights(dir.path(), weights.tensors, "float32");
  save_weights(dir.path(), weights.tensors, "float32", 1000);
  EXPECT_FALSE(fs::exists(dir / "model.safetensors"));  // stale, and loaders would prefer it
  EXPECT_TRUE(fs::exists(dir / "model.safetensors.index.json"));
  auto read = make_flat_weights(spec);
  load_weights(dir.path(), spec, read);
  expect_same(read.tensors, weights.tensors);
  for (const auto& item : fs::directory_iterator(dir.path())) {
    if (item.path().extension() == ".json") continue;
    std::size_t bytes = 0;
    const SafetensorsFile file(item.path());
    for (const auto& entry : file.entries()) bytes += entry.data.size();
    EXPECT_LE(bytes, 1000u) << item.path();
  }
  save_weights(dir.path(), weights.tensors, "float32");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1);
}

TEST(Weights, RoundToNearestEvenInBfloat16) {
  const TempFolder dir;
  // 1 + 2^-8 is half-way and goes to even 1; 1 + 3 * 2^-8 to even 1 + 2^-6; a little more goes up.
  const std::vector<float> values{1.00390625F, 1.01171875F, 1.00390637F, -0.0F};
  auto tensor = at::full({4}, 0.0F);
  std::memcpy(tensor.data_ptr<float>(), values.data(), sizeof(float) * values.size());
  save_weights(dir.path(), {{"a", tensor}}, "bfloat16");
  const SafetensorsFile file(dir / "model.safetensors");
  const auto& entry = file.entries().front();
  EXPECT_EQ(entry.dtype, "BF16");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(entry.data.data()), entry.data.size()),
            bytes16({0x3f80, 0x3f82, 0x3f81, 0x8000}));
  EXPECT_EQ(file.metadata()->at("format"), "pt");
}

// One parameter of every shape, so that a single vector can be written by hand.
ModelSpec vector_spec() {
  return {.model_type = "llama",
          .hidden_size = 3,
          .intermediate_size = 1,
          .layers = 0,
          .heads = 1,
          .kv_heads = 1,
          .head_dim = 2,
          .vocab_size = 1,
          .tied = true,
          .eos_ids = {}};
}

FlatWeights load_vector(const std::string& dtype, const std::string& bytes) {
  const TempFolder dir;
  const std::string embedding(12, '\0');
  write_safetensors(
      dir / "model.safetensors",
      {{"model.embed_tokens.weight", "F32", {1, 3}, std::as_bytes(std::span(embedding))},
       {"model.norm.weight", dtype, {3}, std::as_bytes(std::span(bytes))}},
      {});
  auto weights = make_flat_weights(vector_spec());
  load_weights(dir.path(), vector_spec(), weights);
  return weights;
}

std::vector<float> norm_of(const FlatWeights& weights) {
  const auto* data = weights.tensors.at("model.norm.weight").const_data_ptr<float>();
  return {data, data + 3};
}

TEST(Weights, CastHalfPrecisionExactly) {
  EXPECT_THAT(norm_of(load_vector("BF16", bytes16({0x3f80, 0xc049, 0x0001}))),
              testing::ElementsAre(1.0F, -3.140625F, 0x1p-133F));
  EXPECT_THAT(norm_of(load_vector("F16", bytes16({0x3c00, 0xc248, 0x0001}))),
              testing::ElementsAre(1.0F, -3.140625F, 0x1p-24F));
}

// One tensor is in memory at a time, in its stored type.
TEST(StoredWeights, GiveEveryParameterAsItLiesInItsFile) {
  const TempFolder dir;
  const auto spec = tiny_spec(false);
  const auto weights = random_weights(spec);
  save_weights(dir.path(), weights.tensors, "bfloat16", 1000);
  StoredWeights stored(dir.path(), spec, at::kFloat);
  for (const auto& [name, values] : weights.tensors) {
    const auto read = stored.read(name);
    EXPECT_EQ(read.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(at::equal(read, values.to(at::kBFloat16))) << name;
  }
  EXPECT_FALSE(stored.read("lm_head.bias").defined());
}

TEST(StoredWeights, RefuseWhatThePolicysTypeCannotHold) {
  const TempFolder dir;
  auto tensors = random_weights(tiny_spec(true)).tensors;
  tensors["model.norm.weight"].fill_(3.4e38F);  // rounds to infinity in bfloat16
  save_weights(dir.path(), tensors, "float32");
  StoredWeights(dir.path(), tiny_spec(true), at::kFloat).check_values();
  StoredWeights narrow(dir.path(), tiny_spec(true), at::kBFloat16);
  try {
    narrow.check_values();
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("holds 3.4e+38 at element 0"));
    EXPECT_THAT(error.what_to_do(), testing::HasSubstr("float32"));
  }
}

TEST(PublishedWeights, AreRoundedAndLieAsPanelsOnTheirOwnLines) {
  const auto spec = tiny_spec(false);
  const auto weights = random_weights(spec);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const PublishedCopy copy(spec, dtype, source_of(weights.tensors));
    const PublishedWeights published(spec, dtype, copy.bytes());
    std::size_t before = 0;
    for (const auto& [name, shape] : parameter_shapes(spec)) {
      const at::Tensor& values = weights.tensors.at(name);
      EXPECT_TRUE(at::equal(published.rows(name).to(at::kFloat), values.to(dtype).to(at::kFloat)))
          << name;
      if (shape.size() != 2) continue;
      LinearWeight used, packed;
      published.use_matrix(used, name);
      pack(packed, values, dtype);
      EXPECT_EQ(used.packed.scalar_type(), dtype);
      EXPECT_TRUE(at::equal(used.packed, packed.packed)) << name;
      const auto at = static_cast<std::size_t>(
          static_cast<const std::byte*>(used.packed.const_data_ptr()) - copy.bytes().data());
      EXPECT_EQ(at % 64, 0U) << name;
      EXPECT_GE(at, before) << name;
      before = at + used.packed.nbytes();
    }
    EXPECT_LE(before, copy.bytes().size());
    EXPECT_FALSE(published.rows("lm_head.bias").defined());
    EXPECT_THROW(PublishedWeights(spec, dtype, copy.bytes().first(copy.bytes().size() - 1)), Error);
  }
}

TEST(PublishedWeights, AreNotWrittenFromWhatTheModelHasNot) {
  const auto spec = tiny_spec(false);
  auto weights = random_weights(spec);
  std::vector<std::byte> bytes(published_bytes(spec, at::kFloat));
  weights.tensors["lm_head.weight"] = at::full({3, 8}, 1.0F);
  EXPECT_THROW(write_published(spec, at::kFloat, source_of(weights.tensors), bytes), Error);
  weights.tensors.erase("lm_head.weight");
  EXPECT_THROW(write_published(spec, at::kFloat, source_of(weights.tensors), bytes), Error);
}

// The GPU's engine and files read weights after a worker has computed with published ones.
TEST(PublishedWeights, AreNeverWrittenByWhoUsesThem) {
  const auto spec = tiny_spec(true);
  const auto weights = random_weights(spec);
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const at::Tensor other = weights.tensors.at(name) + 1;
  const PublishedCopy copy(spec, at::kFloat, source_of(weights.tensors));
  const std::vector<std::byte> before(copy.bytes().begin(), copy.bytes().end());
  LinearWeight used;
  pack(used, other);
  PublishedWeights(spec, at::kFloat, copy.bytes()).use_matrix(used, name);
  LinearWeight shared = used;
  pack(used, other);
  EXPECT_TRUE(std::ranges::equal(copy.bytes(), before));
  EXPECT_TRUE(at::equal(unpacked(used.packed, used.in, used.out), other));
  const void* own = used.packed.const_data_ptr();
  pack(used, weights.tensors.at(name));
  EXPECT_EQ(used.packed.const_data_ptr(), own) << "its own memory is used again";
  pack(shared, other);
  EXPECT_TRUE(std::ranges::equal(copy.bytes(), before)) << "a copy of it owns nothing either";
}

TEST(Weights, RefuseOtherDtypesByName) {
  try {
    load_vector("F64", std::string(24, '\0'));
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("'model.norm.weight' has dtype F64"));
  }
  EXPECT_THROW(load_vector("U8", "abc"), Error);
}

TEST(Weights, RefuseNotFiniteValuesInEveryDtype) {
  EXPECT_THROW(load_vector("F32", std::string("\0\0\x80\x3f\0\0\x80\x7f\0\0\0\0", 12)), Error);
  EXPECT_THROW(load_vector("BF16", bytes16({0, 0, 0x7f80})), Error);
  EXPECT_THROW(load_vector("BF16", bytes16({0xffc0, 0, 0})), Error);
  EXPECT_THROW(load_vector("F16", bytes16({0, 0x7c00, 0})), Error);
  Checkpoint checkpoint(tiny_spec(true));
  checkpoint.load();
  checkpoint["model.norm.weight"].fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(checkpoint.refusal(),
              testing::HasSubstr("'model.norm.weight' holds nan at element 0"));
}

TEST(Weights, RefuseMissingExtraAndMisshapedTensorsByName) {
  Checkpoint missing(tiny_spec(true));
  missing.erase("model.layers.1.mlp.up_proj.weight");
  EXPECT_THAT(
      missing.refusal(),
      testing::HasSubstr("'model.layers.1.mlp.up_proj.weight' of shape [12, 8] is missing (1 "));
  Checkpoint extra(tiny_spec(true));
  extra["model.layers.2.input_layernorm.weight"] = at::full({8}, 1.0F);
  EXPECT_THAT(extra.refusal(), testing::HasSubstr("model.layers.2.input_layernorm.weight"));
  Checkpoint misshaped(tiny_spec(true));
  misshaped["model.norm.weight"] = at::full({2, 4}, 1.0F);
  EXPECT_THAT(misshaped.refusal(),
              testing::HasSubstr("has shape [2, 4], config.json asks for [8]"));
}

TEST(Weights, IgnoreRotaryBuffers) {
  Checkpoint checkpoint(tiny_spec(true));
  checkpoint["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::full({2}, 1.0F);
  EXPECT_EQ(checkpoint.refusal(), "accepted");
}

TEST(Weights, AcceptARedundantTiedHeadOnlyIfItEqualsTheEmbedding) {
  Checkpoint checkpoint(tiny_spec(true));
  checkpoint["lm_head.weight"] = checkpoint["model.embed_tokens.weight"].clone();
  EXPECT_FALSE(checkpoint.load().tensors.contains("lm_head.weight"));
  checkpoint["lm_head.weight"].view({-1})[7].fill_(9.0F);
  EXPECT_THAT(checkpoint.refusal(), testing::HasSubstr("'lm_head.weight' differs"));
}

TEST(Weights, RefuseToSaveWhatIsNotFiniteInTheStoredDtype) {
  const TempFolder dir;
  const NamedTensors tensors{{"a", at::full({2}, 3.4e38F)}};
  save_weights(dir.path(), tensors, "float32");
  EXPECT_THROW(save_weights(dir.path(), tensors, "bfloat16"), Error);  // rounds to infinity
  EXPECT_THROW(save_weights(dir.path(), tensors, "int8"), Error);
}

TEST(Weights, InitialiseTheSameForTheSameSeed) {
  const auto spec = tiny_spec(false);
  auto other = make_flat_weights(spec);
  init_weights(spec, 5, other);
  EXPECT_TRUE(at::equal(random_weights(spec).flat, other.flat));
  init_weights(spec, 6, other);
  EXPECT_FALSE(at::equal(random_weights(spec).flat, other.flat));
}

double deviation(const FlatWeights& weights, const std::string& name) {
  const auto values = weights.tensors.at(name).to(at::kDouble);
  EXPECT_NEAR(values.mean().item<double>(), 0, 1e-3);
  return std::sqrt(values.square().mean().item<double>());
}

TEST(Weights, InitialiseWithTheDocumentedSpread) {
  auto spec = tiny_spec(false);
  spec.hidden_size = 128;
  spec.intermediate_size = 128;
  spec.vocab_size = 128;
  spec.head_dim = 64;
  const auto weights = random_weights(spec);
  EXPECT_NEAR(deviation(weights, "model.embed_tokens.weight"), 0.02, 5e-4);
  EXPECT_NEAR(deviation(weights, "model.layers.0.mlp.down_proj.weight"), 0.01, 3e-4);  // 2 layers
  EXPECT_EQ(weights.tensors.at("model.norm.weight").sum().item<float>(), 128);
}

TEST(Weights, RefuseMoreParametersThanMemoryHolds) {
  auto spec = tiny_spec(false);
  spec.hidden_size = std::int64_t{1} << 24;
  spec.intermediate_size = std::int64_t{1} << 24;
  EXPECT_THROW(make_flat_weights(spec), Error);
}

}  // namespace
}  // namespace rollcall
