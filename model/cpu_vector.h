// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Sixteen lanes in as many registers as the instruction set needs for them. GCC keeps a vector type
// that is wider than the registers in memory, at a fiftieth of the speed; these it keeps in
// registers. For cpu_kernels.cpp alone, which is compiled once per instruction set: hence the
// unnamed namespace.
namespace rollcall {
namespace {

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif

typedef float Register __attribute__((vector_size(kRegisterBytes)));
typedef float RegisterUnaligned __attribute__((vector_size(kRegisterBytes), aligned(4)));
typedef std::int32_t IntRegister __attribute__((vector_size(kRegisterBytes)));
typedef std::uint32_t PairRegister __attribute__((vector_size(kRegisterBytes)));
typedef std::uint32_t PairRegisterUnaligned
    __attribute__((vector_size(kRegisterBytes), aligned(4)));

constexpr std::int64_t kLanes = 16;
constexpr int kParts = 64 / kRegisterBytes;
constexpr std::int64_t kPartLanes = kLanes / kParts;

#define ROLLCALL_INLINE inline __attribute__((always_inline))

struct Vec {
  Register part[kParts] = {};
};

// All ones in the lanes that are true.
struct Mask {
  IntRegister part[kParts] = {};
};

// Each part of the result from the parts of the operands.
template <class Result, class Function, class... Operand>
ROLLCALL_INLINE Result by_part(Function function, const Operand&... operand) {
  Result result;
  for (int i = 0; i < kParts; ++i) result.part[i] = function(operand.part[i]...);
  return result;
}

ROLLCALL_INLINE Vec load(const float* p) {
  Vec v;
  for (int i = 0; i < kParts; ++i)
    v.part[i] = *reinterpret_cast<const RegisterUnaligned*>(p + i * kPartLanes);
  return v;
}

ROLLCALL_INLINE void store(float* p, Vec v) {
  for (int i = 0; i < kParts; ++i)
    *reinterpret_cast<RegisterUnaligned*>(p + i * kPartLanes) = v.part[i];
}

ROLLCALL_INLINE Vec splat(float x) {
  return by_part<Vec>([x](Register zero) { return x - zero; }, Vec{});
}

#define ROLLCALL_VEC_OPERATOR(op)                                             \
  ROLLCALL_INLINE Vec operator op(Vec a, Vec b) {                             \
    return by_part<Vec>([](Register x, Register y) { return x op y; }, a, b); \
  }                                                                           \
  ROLLCALL_INLINE Vec operator op(float a, Vec b) { return splat(a) op b; }   \
  ROLLCALL_INLINE Vec operator op(Vec a, float b) { return a op splat(b); }
ROLLCALL_VEC_OPERATOR(+)
ROLLCALL_VEC_OPERATOR(-)
ROLLCALL_VEC_OPERATOR(*)
ROLLCALL_VEC_OPERATOR(/)
#undef ROLLCALL_VEC_OPERATOR

ROLLCALL_INLINE Vec operator-(Vec a) {
  return by_part<Vec>([](Register x) { return -x; }, a);
}
ROLLCALL_INLINE Vec& operator+=(Vec& a, Vec b) { return a = a + b; }

ROLLCALL_INLINE Mask operator>(Vec a, Vec b) {
  return by_part<Mask>([](Register x, Register y) { return x > y; }, a, b);
}

ROLLCALL_INLINE Vec select(Mask mask, Vec a, Vec b) {
  return by_part<Vec>([](IntRegister m, Register x, Register y) { return m ? x : y; }, mask, a, b);
}

ROLLCALL_INLINE Vec max(Vec a, Vec b) { return select(a > b, a, b); }

// The first and the second bfloat16 elements of a register of pairs, widened.
ROLLCALL_INLINE Register even_part_of(const std::uint32_t* pairs) {
  const PairRegister both = *reinterpret_cast<const PairRegisterUnaligned*>(pairs);
  return __builtin_bit_cast(Register, both << 16);
}
ROLLCALL_INLINE Register odd_part_of(const std::uint32_t* pairs) {
  const PairRegister both = *reinterpret_cast<const PairRegisterUnaligned*>(pairs);
  return __builtin_bit_cast(Register, both & 0xffff0000U);
}

template <class PartOf>
ROLLCALL_INLINE Vec widened(const std::uint32_t* pairs, PartOf part_of) {
  Vec v;
  for (int i = 0; i < kParts; ++i) v.part[i] = part_of(pairs + i * kPartLanes);
  return v;
}

// True in the lanes [first, last).
ROLLCALL_INLINE Mask lanes_between(std::int64_t first, std::int64_t last) {
  static constexpr std::int32_t kNumbers[kLanes] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                    8, 9, 10, 11, 12, 13, 14, 15};
  const auto number = [&](int part) {
    return __builtin_bit_cast(
        IntRegister, *reinterpret_cast<const PairRegisterUnaligned*>(kNumbers + part * kPartLanes));
  };
  Mask mask;
  for (int i = 0; i < kParts; ++i)
    mask.part[i] = (number(i) >= IntRegister{} + static_cast<std::int32_t>(first)) &
                   (number(i) < IntRegister{} + static_cast<std::int32_t>(last));
  return mask;
}

// The first n of at most 16 values, then zeros.
inline Vec load_partial(const float* p, std::int64_t n) {
  float lanes[kLanes] = {};
  for (std::int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}

inline void store_partial(float* p, Vec v, std::int64_t n) {
  float lanes[kLanes];
  store(lanes, v);
  for (std::int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

inline float horizontal_sum(Vec v) {
  float lanes[kLanes], half[8];
  store(lanes, v);
  for (int i = 0; i < 8; ++i) half[i] = lanes[i] + lanes[i + 8];
  return ((half[0] + half[4]) + (half[2] + half[6])) + ((half[1] + half[5]) + (half[3] + half[7]));
}

inline float horizontal_max(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  float m = lanes[0];
  for (int i = 1; i < kLanes; ++i) m = lanes[i] > m ? lanes[i] : m;
  return m;
}

// e^x by range reduction to [-ln2/2, ln2/2] and a degree-6 polynomial (Cephes expf); inputs below
// -87 give 0 to within 1e-38, which softmax and silu cannot tell apart.
ROLLCALL_INLINE Register exp_of(Register x) {
  const Register zero{}, low = zero - 87.0f, high = zero + 88.0f;
  x = x < low ? low : x;
  x = x > high ? high : x;
  const Register magic = zero + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Register n = (x * 1.44269504088896341f + magic) - magic;
  Register r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Register p = zero + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const IntRegister power = (__builtin_convertvector(n, IntRegister) + 127) << 23;
  return p * __builtin_bit_cast(Register, power);
}

ROLLCALL_INLINE Vec exp(Vec x) { return by_part<Vec>(exp_of, x); }

}  // namespace
}  // namespace rollcall
