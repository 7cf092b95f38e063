// SPDX-License-Identifier: Apache-2.0
#include "trainer/shard_layout.h"

#include <algorithm>

namespace rollcall {
namespace {

// What is left to sum when the last gradient is there: a small part of all, in messages that are
// neither slow to begin with nor slow to sum.
constexpr std::int64_t kPiecesOfShard = 16;
constexpr std::int64_t kLeastPiece = 256, kMostPiece = 1 << 18;  // floats

std::int64_t parts(std::int64_t all, std::int64_t size) { return (all + size - 1) / size; }

}  // namespace

ShardLayout::ShardLayout(std::int64_t parameters, int members)
    : members_(members),
      bucket_floats_(members * std::clamp(parts(parameters, kPiecesOfShard * members), kLeastPiece,
                                          kMostPiece)),
      floats_(parts(parameters, members) * members) {
  if (members == 1) bucket_floats_ = std::max<std::int64_t>(1, parameters);  // nothing to exchange
}

ShardLayout::Range ShardLayout::bucket(std::int64_t index) const {
  const std::int64_t begin = index * bucket_floats_;
  return {begin, std::min(bucket_floats_, floats_ - begin)};
}

ShardLayout::Range ShardLayout::buckets_of(Range range) const {
  const std::int64_t first = range.begin / bucket_floats_;
  return {first, parts(range.end(), bucket_floats_) - first};
}

ShardLayout::Range ShardLayout::piece(std::int64_t index, int member) const {
  const auto [begin, size] = bucket(index);
  return {begin + member * (size / members_), size / members_};
}

void ShardLayout::put_shard(std::span<const float> shard, int member, std::span<float> all) const {
  for (std::int64_t b = 0, taken = 0; b < buckets(); ++b) {
    const auto [begin, size] = piece(b, member);
    std::copy_n(shard.begin() + taken, size, all.begin() + begin);
    taken += size;
  }
}

}  // namespace rollcall
