// SPDX-License-Identifier: Apache-2.0
#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "model/model_spec.h"
#include "temp_folder.h"
#include "text_golden.h"

namespace rollcall {
namespace {

TEST(Rope, HasTheFrequenciesOfTheReference) {
  const auto cases = read_jsonl(golden_path("rope/cases.jsonl"));
  ASSERT_EQ(cases.size(), 23u);
  for (const auto& c : cases) {
    SCOPED_TRACE(c["config"].dump());
    const TempFolder dir;
    spit(dir / "config.json", c["config"].dump());
    const auto spec = read_model_spec(dir.path());
    EXPECT_NEAR(spec.rope.attention_factor, c["attention_factor"].get<double>(), 1e-12);
    const auto frequencies = rope_inverse_frequencies(spec.rope, spec.head_dim);
    ASSERT_EQ(frequencies.size(), c["frequencies"].size());
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
      // The last bit of the reference's powers is its own.
      const auto want = c["frequencies"][i].get<float>();
      EXPECT_NEAR(frequencies[i], want, 4 * std::numeric_limits<float>::epsilon() * want) << i;
    }
  }
}

TEST(Rope, LinearScalingStretchesEveryPair) {
  RopeSpec spec{.type = RopeType::kLinear, .theta = 100, .factor = 4};
  EXPECT_EQ(rope_inverse_frequencies(spec, 4), (std::vector<float>{0.25F, 0.025F}));
}

}  // namespace
}  // namespace rollcall
