// SPDX-License-Identifier: Apache-2.0
#include <exception>

#include "comms/cuda/plugin_parts.h"
#include "model/cuda/gpu_decoder.h"

struct RollcallDecoder {
  explicit RollcallDecoder(const RollcallDecoderOptions& options, int ordinal)
      : device(ordinal), decoder(rollcall::cuda::make_gpu_decoder(options, device)) {}

  rollcall::cuda::Device device;
  std::unique_ptr<rollcall::cuda::GpuDecoder> decoder;
};

namespace rollcall::cuda {
namespace {

template <class Act>
int guarded(const char* call, const Act& act) {
  try {
    act();
    return 0;
  } catch (const std::exception& error) {
    return fail(call, error.what());
  }
}

int device_count() {
  int count = -1;
  guarded("device_count", [&] { count = Device::count(); });
  return count;
}

RollcallDecoder* decoder_create(const RollcallDecoderOptions* options, int device) {
  RollcallDecoder* made = nullptr;
  guarded("decoder_create", [&] { made = new RollcallDecoder(*options, device); });
  return made;
}

void decoder_destroy(RollcallDecoder* decoder) { delete decoder; }

int decoder_set(RollcallDecoder* decoder, const RollcallParameter* parameter) {
  return guarded("decoder_set", [&] { decoder->decoder->set(*parameter); });
}

std::int64_t decoder_open_cache(RollcallDecoder* decoder) {
  std::int64_t cache = -1;
  guarded("decoder_open_cache", [&] { cache = decoder->decoder->open_cache(); });
  return cache;
}

int decoder_close_cache(RollcallDecoder* decoder, std::int64_t cache) {
  return guarded("decoder_close_cache", [&] { decoder->decoder->close_cache(cache); });
}

std::int64_t decoder_pages_free(const RollcallDecoder* decoder) {
  return decoder->decoder->pages_free();
}

int decoder_step(RollcallDecoder* decoder, const RollcallBatch* batch, std::int32_t* ids,
                 float* logprobs) {
  return guarded("decoder_step", [&] { decoder->decoder->step(*batch, ids, logprobs); });
}

}  // namespace

void add_decoder(RollcallCudaPlugin& plugin) {
  plugin.device_count = device_count;
  plugin.decoder_create = decoder_create;
  plugin.decoder_destroy = decoder_destroy;
  plugin.decoder_set = decoder_set;
  plugin.decoder_open_cache = decoder_open_cache;
  plugin.decoder_close_cache = decoder_close_cache;
  plugin.decoder_pages_free = decoder_pages_free;
  plugin.decoder_step = decoder_step;
}

}  // namespace rollcall::cuda
