// SPDX-License-Identifier: Apache-2.0
#include "trainer/checkpoint.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "comms/error.h"
#include "temp_folder.h"
#include "trainer/manifest.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

TrainState state_at(std::int64_t step, std::size_t parameters = 50) {
  std::vector<float> masters, first_moment, second_moment;
  for (std::size_t i = 0; i < parameters; ++i) {
    const auto x = static_cast<float>(i + static_cast<std::size_t>(step));
    masters.push_back(std::sin(x));
    first_moment.push_back(-1e-38F * x);  // subnormals too
    second_moment.push_back(std::exp(-x));
  }
  return {.step = step,
          .version = step + 1,
          .journal_rows = 11 * step,
          .sampler = R"({"order":[3,1],"note":"ü"})",
          .spec = "{\n \"model_type\": \"llama\"}\n",
          .lora = LoraOptions{8, 1.0 / 3, {"q_proj"}, true},
          .base_xxh3 = "0123456789abcdef",
          .policy = {step - 1, masters, first_moment, second_moment},
          .critic = std::nullopt};
}

std::vector<float> shortened(const SharedFloats& floats) {
  return {floats.begin(), floats.end() - 1};
}

CriticState critic_of(const TrainState& state) {
  CriticState critic;
  critic.trunk = {5, state.policy.second_moment, state.policy.masters, state.policy.first_moment};
  critic.head = {7, {{1.5F, -0.0F}}, {{0, 1}}, {{2, 3}}};
  return critic;
}

bool same_bits(const SharedFloats& a, const SharedFloats& b) {
  return std::ranges::equal(a, b, {}, std::bit_cast<std::uint32_t, float>,
                            std::bit_cast<std::uint32_t, float>);
}

void expect_same(const OptimizedWeights& a, const OptimizedWeights& b) {
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_TRUE(same_bits(a.masters, b.masters));
  EXPECT_TRUE(same_bits(a.first_moment, b.first_moment));
  EXPECT_TRUE(same_bits(a.second_moment, b.second_moment));
}

void expect_same(const TrainState& a, const TrainState& b) {
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.version, b.version);
  EXPECT_EQ(a.journal_rows, b.journal_rows);
  EXPECT_EQ(a.sampler, b.sampler);
  EXPECT_EQ(a.spec, b.spec);
  EXPECT_EQ(a.lora, b.lora);
  EXPECT_EQ(a.base_xxh3, b.base_xxh3);
  expect_same(a.policy, b.policy);
  ASSERT_EQ(a.critic.has_value(), b.critic.has_value());
  if (!a.critic) return;
  expect_same(a.critic->trunk, b.critic->trunk);
  expect_same(a.critic->head, b.critic->head);
}

std::vector<std::string> names_in(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(dir))
    names.push_back(item.path().filename().string());
  return names;
}

using testing::UnorderedElementsAre;

TEST(Checkpoint, HoldsACriticOnATrunkOfItsOwnOrOnThePolicys) {
  const TempFolder dir;
  TrainState state = state_at(3);
  state.critic = critic_of(state);
  expect_same(load_checkpoint(save_checkpoint(dir.path(), state, 1)), state);
  state.critic->trunk = {};
  expect_same(load_checkpoint(save_checkpoint(dir.path(), state, 1)), state);
  state.critic->head.first_moment = shortened(state.critic->head.first_moment);
  EXPECT_THROW(save_checkpoint(dir.path(), state, 1), Error);
}

TEST(Checkpoint, RoundTripsBitForBit) {
  const TempFolder dir;
  auto state = state_at(120);
  std::vector<float> masters(state.policy.masters.begin(), state.policy.masters.end());
  masters[3] = -0.0F;
  masters[4] = std::numeric_limits<float>::quiet_NaN();
  state.policy.masters = masters;
  const auto folder = save_checkpoint(dir.path(), state, 3);
  EXPECT_EQ(folder, dir / "step-000120");
  EXPECT_THAT(names_in(folder),
              UnorderedElementsAre("MANIFEST.json", "state.json", "state.safetensors"));
  expect_same(load_checkpoint(folder), state);
  EXPECT_EQ(newest_checkpoint(dir.path()), folder);
}

TEST(Checkpoint, IsReadInPlaceAndOutlivesItsFolder) {
  const TempFolder dir;
  const auto folder = save_checkpoint(dir.path(), state_at(7), 1);
  const TrainState state = load_checkpoint(folder);
  fs::remove_all(folder);
  expect_same(state, state_at(7));
}

TEST(Checkpoint, ReadsFloatsThatLieAskewInAFileOfOthers) {
  const TempFolder dir;
  const auto folder = save_checkpoint(dir.path(), state_at(7), 1);
  std::string file = slurp(folder / "state.safetensors");
  std::uint64_t header = 0;  // it may end in spaces
  std::memcpy(&header, file.data(), sizeof header);
  file.insert(sizeof header + header, 1, ' ');
  ++header;
  std::memcpy(file.data(), &header, sizeof header);
  spit(folder / "state.safetensors", file);
  fs::remove(folder / "MANIFEST.json");
  write_manifest(folder);
  expect_same(load_checkpoint(folder), state_at(7));
}

TEST(Checkpoint, RoundTripsAnEmptyState) {
  const TempFolder dir;
  const auto folder = save_checkpoint(dir / "not/yet/there", {}, 1);
  expect_same(load_checkpoint(folder), {});
}

TEST(Checkpoint, KeepsTheNewest) {
  const TempFolder dir;
  for (const int step : {5, 20, 1'000'000, 999'999}) save_checkpoint(dir.path(), state_at(step), 2);
  EXPECT_THAT(names_in(dir.path()), UnorderedElementsAre("step-999999", "step-1000000"));
  EXPECT_EQ(newest_checkpoint(dir.path()), dir / "step-1000000");
}

TEST(Checkpoint, NeverDeletesTheOneJustWritten) {
  const TempFolder dir;
  save_checkpoint(dir.path(), state_at(40), 1);
  save_checkpoint(dir.path(), state_at(30), 1);
  EXPECT_TRUE(fs::exists(dir / "step-000030"));
}

TEST(Checkpoint, ReplacesTheSameStep) {
  const TempFolder dir;
  save_checkpoint(dir.path(), state_at(8, 10), 2);
  save_checkpoint(dir.path(), state_at(8, 20), 2);
  EXPECT_THAT(names_in(dir.path()), UnorderedElementsAre("step-000008"));
  EXPECT_EQ(load_checkpoint(dir / "step-000008").policy.masters.size(), 20u);
}

TEST(Checkpoint, FindsNothingWhereNothingIs) {
  const TempFolder dir;
  EXPECT_EQ(newest_checkpoint(dir.path()), std::nullopt);
  EXPECT_EQ(newest_checkpoint(dir / "missing"), std::nullopt);
  fs::create_directory(dir / "step-000001");
  fs::create_directory(dir / "step-x");
  spit(dir / "step-000009", "a file");
  EXPECT_EQ(newest_checkpoint(dir.path()), std::nullopt);
}

// Whatever a crash leaves of the newest folder, the one before it is found instead.
TEST(Checkpoint, SkipsEverySubsetOfMissingAndTruncatedFiles) {
  const TempFolder dir;
  save_checkpoint(dir.path(), state_at(1), 3);
  const auto newest = save_checkpoint(dir.path(), state_at(2), 3);
  const std::vector<std::string> files{"state.json", "state.safetensors", "MANIFEST.json"};
  std::vector<std::string> whole;
  for (const auto& name : files) whole.push_back(slurp(newest / name));
  for (int code = 0; code < 27; ++code) {  // per file: whole, missing, cut
    for (std::size_t i = 0, rest = static_cast<std::size_t>(code); i < 3; ++i, rest /= 3) {
      spit(newest / files[i], rest % 3 == 2 ? whole[i].substr(0, whole[i].size() / 2) : whole[i]);
      if (rest % 3 == 1) fs::remove(newest / files[i]);
    }
    EXPECT_EQ(newest_checkpoint(dir.path()), code == 0 ? newest : dir / "step-000001") << code;
    if (code == 0) continue;
    EXPECT_THROW(load_checkpoint(newest), Error) << code;
  }
}

TEST(Checkpoint, SkipsFilesCutShortOrChangedAtAnyByte) {
  const TempFolder dir;
  const auto folder = save_checkpoint(dir.path(), state_at(2, 4), 3);
  for (const auto& name : names_in(folder)) {
    const auto whole = slurp(folder / name);
    for (std::size_t length = 0; length < whole.size(); ++length) {
      spit(folder / name, whole.substr(0, length));
      EXPECT_THROW(load_checkpoint(folder), Error) << name << " cut at " << length;
    }
    if (name == "MANIFEST.json") continue;  // white space in it may change
    for (std::size_t at = 0; at < whole.size(); ++at) {
      auto changed = whole;
      changed[at] ^= 0x10;
      spit(folder / name, changed);
      EXPECT_THROW(load_checkpoint(folder), Error) << name << " changed at " << at;
    }
    spit(folder / name, whole);
  }
}

// The state's contents may be anybody's where the manifest agrees with them.
TEST(Checkpoint, RefusesAStateThatNestsTooDeep) {
  const TempFolder dir;
  const auto folder = save_checkpoint(dir.path(), state_at(2, 4), 3);
  spit(folder / "state.json",
       "{\"format\":" + std::string(200000, '[') + std::string(200000, ']') + "}");
  fs::remove(folder / "MANIFEST.json");
  write_manifest(folder);
  EXPECT_THROW(load_checkpoint(folder), Error);
}

TEST(Checkpoint, BelievesAManifestChangedAtAnyByteOrRefusesIt) {
  const TempFolder dir;
  const auto folder = save_checkpoint(dir.path(), state_at(2, 4), 3);
  const auto whole = slurp(folder / "MANIFEST.json");
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const char flip : {'\x01', '\x10', '\x80'}) {
      auto changed = whole;
      changed[at] ^= flip;
      spit(folder / "MANIFEST.json", changed);
      if (manifest_problem(folder, ManifestCheck::kContents)) continue;
      expect_same(load_checkpoint(folder), state_at(2, 4));
    }
  }
}

TEST(Checkpoint, NamesTheFileThatIsDamaged) {
  const TempFolder dir;
  const auto folder = save_checkpoint(dir.path(), state_at(2), 3);
  fs::remove(folder / "state.json");
  try {
    load_checkpoint(folder);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("step-000002: state.json is missing"));
    EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
  }
}

TEST(Checkpoint, CleansUpWhatACrashLeft) {
  const TempFolder dir;
  spit(dir / ".partial-step-000004/state.safetensors", "half");
  spit(dir / "step-000003/state.json", "deleting it was cut off behind its manifest");
  spit(dir / "notes.txt", "the user's");
  save_checkpoint(dir.path(), state_at(5), 3);
  EXPECT_THAT(names_in(dir.path()), UnorderedElementsAre("step-000005", "notes.txt"));
}

TEST(Checkpoint, RefusesMomentsOfAnotherLength) {
  const TempFolder dir;
  auto state = state_at(1);
  state.policy.second_moment = shortened(state.policy.second_moment);
  EXPECT_THROW(save_checkpoint(dir.path(), state, 1), Error);
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

// Runs `body` in a process of its own; returns its exit status.
int in_child(const std::function<int()>& body) {
  const auto child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

// A limit on the size of files stands for a disk that fills up in the middle of a write.
int save_on_a_full_disk(const fs::path& dir, rlim_t room) {
  ::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit limit { room, room };
  ::setrlimit(RLIMIT_FSIZE, &limit);
  try {
    save_checkpoint(dir, state_at(3), 1);
    return 1;
  } catch (const Error& error) {
    return error.what_to_do().starts_with("free space there") ? 0 : 2;
  }
}

TEST(Checkpoint, LeavesTheOldOnesIntactWhenTheDiskIsFull) {
  const TempFolder dir;
  const auto old = save_checkpoint(dir.path(), state_at(2), 1);
  for (const rlim_t room : {0, 1, 100, 300, 700}) {
    EXPECT_EQ(in_child([&] { return save_on_a_full_disk(dir.path(), room); }), 0) << room;
    EXPECT_THAT(names_in(dir.path()), UnorderedElementsAre("step-000002"));
    expect_same(load_checkpoint(old), state_at(2));
  }
  EXPECT_EQ(save_checkpoint(dir.path(), state_at(3), 1), dir / "step-000003");
}

TEST(Checkpoint, SurvivesAKillAtAnyMoment) {
  const TempFolder dir;
  save_checkpoint(dir.path(), state_at(1), 2);
  for (int round = 0; round < 20; ++round) {
    const auto child = ::fork();
    if (child == 0) {
      for (std::int64_t step = 2;; ++step) save_checkpoint(dir.path(), state_at(step, 2000), 2);
    }
    ::usleep(static_cast<useconds_t>(500 + 700 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const auto newest = newest_checkpoint(dir.path());
    ASSERT_TRUE(newest);
    EXPECT_GE(load_checkpoint(*newest).step, 1);
  }
}

}  // namespace
}  // namespace rollcall
