// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace rollcall {

// How flat parameters are dealt to the members that train them (ZeRO-1): in buckets, each of which
// is summed and gathered by itself, in an equal piece for each member. A member's shard is its
// pieces, one behind the other.
class ShardLayout {
 public:
  ShardLayout(std::int64_t parameters, int members);

  struct Range {
    std::int64_t begin = 0, size = 0;
    std::int64_t end() const { return begin + size; }
  };

  std::int64_t floats() const { return floats_; }  // of all buckets: the parameters, and padding
  std::int64_t shard_floats() const { return floats_ / members_; }
  std::int64_t buckets() const { return (floats_ + bucket_floats_ - 1) / bucket_floats_; }
  Range bucket(std::int64_t index) const;
  Range piece(std::int64_t bucket, int member) const;
  Range buckets_of(Range) const;  // begin and size of the buckets that hold these floats

  // Of `all` [floats], the shard of that member.
  template <class Value>
  std::vector<Value> shard_of(std::span<const Value> all, int member) const {
    std::vector<Value> shard;
    shard.reserve(static_cast<std::size_t>(shard_floats()));
    for (std::int64_t b = 0; b < buckets(); ++b) {
      const auto from = all.begin() + piece(b, member).begin;
      shard.insert(shard.end(), from, from + piece(b, member).size);
    }
    return shard;
  }

  // Puts that member's shard where it belongs in `all` [floats].
  void put_shard(std::span<const float> shard, int member, std::span<float> all) const;

 private:
  int members_;
  std::int64_t bucket_floats_, floats_;
};

}  // namespace rollcall
