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
#include <functional>
#include <limits>

#include "comms/error.h"
#include "temp_folder.h"
#include "trainer/manifest.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

TrainState state_at(std::int64_t step, std::size_t parameters = 50) {
  TrainState state{.step = step,
                   .version = step + 1,
                   .journal_rows = 11 * step,
                   .optimizer_steps = step - 1,
                   .sampler = R"({"order":[3,1],"note":"ü"})",
                   .spec = "{\n \"model_type\": \"llama\"}\n",
                   .lora = LoraOptions{8, 1.0 / 3, {"q_proj"}, true},
                   .base_xxh3 = "0123456789abcdef",
                   .masters = {},
                   .first_moment = {},
                   .second_moment = {},
                   .critic = std::nullopt};
  for (std::size_t i = 0; i < parameters; ++i) {
    const auto x = static_cast<float>(i + static_cast<std::size_t>(step));
    state.masters.push_back(std::sin(x));
    state.first_moment.push_back(-1e-38F * x);  // subnormals too
    state.second_moment.push_back(std::exp(-x));
  }
  return state;
}

CriticState critic_of(const TrainState& state) {
  CriticState critic;
  critic.trunk = {5, state.second_moment, state.masters, state.first_moment};
  critic.head = {7, {1.5F, -0.0F}, {0, 1}, {2, 3}};
  return critic;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::ranges::equal(a, b, {}, std::bit_cast<std::uint32_t, float>,
                            std::bit_cast<std::uint32_t, float>);
}

void expect_same(const TrainState& a, const TrainState& b) {
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.version, b.version);
  EXPECT_EQ(a.journal_rows, b.journal_rows);
  EXPECT_EQ(a.optimizer_steps, b.optimizer_steps);
  EXPECT_EQ(a.sampler, b.sampler);
  EXPECT_EQ(a.spec, b.spec);
  EXPECT_EQ(a.lora, b.lora);
  EXPECT_EQ(a.base_xxh3, b.base_xxh3);
  EXPECT_TRUE(same_bits(a.masters, b.masters));
  EXPECT_TRUE(same_bits(a.first_moment, b.first_moment));
  EXPECT_TRUE(same_bits(a.second_moment, b.second_moment));
  ASSERT_EQ(a.critic.has_value(), b.critic.has_value());
  if (!a.critic) return;
  for (const auto part : {&CriticState::trunk, &CriticState::head}) {
    const OptimizedWeights &of_a = (*a.critic).*part, &of_b = (*b.critic).*part;
    EXPECT_EQ(of_a.steps, of_b.steps);
    EXPECT_TRUE(same_bits(of_a.masters, of_b.masters));
    EXPECT_TRUE(same_bits(of_a.first_moment, of_b.first_moment));
    EXPECT_TRUE(same_bits(of_a.second_moment, of_b.second_moment));
  }
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
  state.critic->head.first_moment.pop_back();
  EXPECT_THROW(save_checkpoint(dir.path(), state, 1), Error);
}

TEST(Checkpoint, RoundTripsBitForBit) {
  const TempFolder dir;
  auto state = state_at(120);
  state.masters[3] = -0.0F;
  state.masters[4] = std::numeric_limits<float>::quiet_NaN();
  const auto folder = save_checkpoint(dir.path(), state, 3);
  EXPECT_EQ(folder, dir / "step-000120");
  EXPECT_THAT(names_in(folder),
              UnorderedElementsAre("MANIFEST.json", "state.json", "state.safetensors"));
  expect_same(load_checkpoint(folder), state);
  EXPECT_EQ(newest_checkpoint(dir.path()), folder);
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
  EXPECT_EQ(load_checkpoint(dir / "step-000008").masters.size(), 20u);
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
  state.second_moment.pop_back();
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
