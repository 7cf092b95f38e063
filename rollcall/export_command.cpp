// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "comms/error.h"
#include "rollcall/commands.h"
#include "trainer/export.h"

namespace rollcall {

int export_command(const std::filesystem::path& source, const std::filesystem::path& out, const std::string& dtype) {
  const ModelSpec spec = read_model_spec(source);
  FlatWeights weights = make_flat_weights(spec);
  load_weights(source, spec, weights);
  export_model(source, weights.tensors, dtype, out);
  std::fprintf(stderr, "wrote %s\n", out.c_str());
  return 0;
}

}  // namespace rollcall
