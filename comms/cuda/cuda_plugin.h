// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

// The boundary of librollcall_cuda.so: plain C types, device pointers and a stream, no exceptions,
// no ATen. All calls of a process come from one thread.

struct RollcallNcclId {
  char bytes[128];  // ncclUniqueId
};

struct RollcallNccl;     // a communicator
struct RollcallDecoder;  // weights and caches on a GPU

inline constexpr int64_t kRollcallPagePositions = 32;

struct RollcallDecoderOptions {
  int64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary;
  float rms_norm_eps, attention_scale;
  int bfloat16;  // type of matrices but the head, caches and inputs of products; else float32
  int tied;      // the head is the embedding
  const int64_t* windows;  // [layers], 0: none
  const uint8_t* rotates;  // [layers]
  int64_t max_context;     // positions of a sequence
  int64_t max_rows;        // tokens of a batch
  int64_t max_draws;       // sampled tokens of a batch
  int64_t cache_bytes;     // for keys and values; 0: nine tenths of what is free
};

// [rows, columns] of each in the parentheses; those of a layer carry its number.
enum RollcallParameterKind {
  kRollcallEmbedding,   // (vocabulary, hidden)
  kRollcallHead,        // (vocabulary, hidden), float32; none where tied and all is float32
  kRollcallFinalNorm,   // (hidden, 1)
  kRollcallCosine,      // (max_context, head_dim / 2)
  kRollcallSine,        // (max_context, head_dim / 2)
  kRollcallInputNorm,   // (hidden, 1)
  kRollcallQkv,         // (heads + 2 kv_heads, each head_dim rows; hidden): queries, keys, values
  kRollcallQkvBias,     // (heads + 2 kv_heads, each head_dim rows; 1)
  kRollcallQNorm,       // (head_dim, 1)
  kRollcallKNorm,       // (head_dim, 1)
  kRollcallOutput,      // (hidden, heads * head_dim)
  kRollcallOutputBias,  // (hidden, 1)
  kRollcallPostAttentionNorm,  // (hidden, 1)
  kRollcallGateUp,             // (2 intermediate, hidden): gate, then up
  kRollcallGateUpBias,         // (2 intermediate, 1)
  kRollcallDown,               // (hidden, intermediate)
  kRollcallDownBias,           // (hidden, 1)
  kRollcallParameterKinds
};

struct RollcallParameter {
  RollcallParameterKind kind;
  int64_t layer;  // 0 for those that are of no layer
  int64_t first_row, rows;
  const void* values;  // rows in order, on the host
};

// Consecutive tokens of one sequence, appended to `cache`; they also see all of `prefix` (-1:
// none), which does not change meanwhile.
struct RollcallStretch {
  int64_t cache, prefix;
  int64_t first_row, rows;  // of the batch; stretches follow each other
};

struct RollcallBatch {
  int64_t rows;
  const int32_t* tokens;  // [rows]
  int64_t stretches;
  const RollcallStretch* stretch;
  int64_t keeps;
  const int32_t* keep_rows;    // [keeps] whose last state stays with a cache
  const int64_t* keep_caches;  // [keeps]
  int64_t draws;
  const int32_t* draw_rows;    // [draws] behind which row; -1: behind what a cache keeps
  const int64_t* draw_caches;  // [draws] which, where the row is -1
  const int32_t* valid_ids;    // [draws] ids from here on are never drawn
  const float* uniforms;       // [draws] in [0, 1)
};

// Functions that return `int` return 0, or another number with an explanation in last_error().
struct RollcallCudaPlugin {
  int abi_version;  // kRollcallCudaAbi of the build

  // Of this thread's last failed call; valid until the next failure.
  const char* (*last_error)();

  // Fills in the id that all members of a communicator share. Called on one of them.
  int (*nccl_make_id)(RollcallNcclId* id);
  // Collective: all members. Waits at most `timeout_ms` here and in every later call on it.
  // Null on failure.
  RollcallNccl* (*nccl_create)(const RollcallNcclId* id, int rank, int size, int device,
                               int64_t timeout_ms);
  void (*nccl_destroy)(RollcallNccl* communicator);
  // On device memory, in place; each waits for earlier work on the device and then for its own end.
  int (*nccl_all_sum)(RollcallNccl* communicator, float* values, size_t count);
  // `shard` values a member; member r's sum ends in values[r * shard].
  int (*nccl_reduce_scatter_sum)(RollcallNccl* communicator, float* values, size_t shard);
  // Member r contributes values[r * shard].
  int (*nccl_all_gather)(RollcallNccl* communicator, float* values, size_t shard);

  // GPUs that this process sees; -1 on failure.
  int (*device_count)();

  // A decoder that samples (model/cuda/gpu_decoder.h). Null on failure.
  RollcallDecoder* (*decoder_create)(const RollcallDecoderOptions* options, int device);
  void (*decoder_destroy)(RollcallDecoder* decoder);
  // Copies `rows` rows of a parameter, from `first_row` on. Matrices are of the decoder's type,
  // all else is float32. A bias or norm that was never set is left out of the arithmetic.
  int (*decoder_set)(RollcallDecoder* decoder, const RollcallParameter* parameter);
  // Keys and values of consecutive positions, growing at the end, in pages of
  // kRollcallPagePositions. A number from 0 on, or -1.
  int64_t (*decoder_open_cache)(RollcallDecoder* decoder);
  int (*decoder_close_cache)(RollcallDecoder* decoder, int64_t cache);
  int64_t (*decoder_pages_free)(const RollcallDecoder* decoder);
  // Appends the batch's tokens to their caches and draws `draws` tokens: ids and logprobs (nats)
  // [draws]. Waits for them. The pages that the batch needs must be free.
  int (*decoder_step)(RollcallDecoder* decoder, const RollcallBatch* batch, int32_t* ids,
                      float* logprobs);
};

inline constexpr int kRollcallCudaAbi = 2;
inline constexpr char kRollcallCudaEntry[] = "rollcall_cuda_plugin";

extern "C" const RollcallCudaPlugin* rollcall_cuda_plugin();
