// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "comms/endpoint_status.h"
#include "comms/error.h"
#include "comms/turn.h"
#include "comms/weight_store.h"

namespace rollcall {

// What travels on a worker link; the MPI tag of a message. Messages between two ranks keep order.
enum class MessageKind : int {
  // worker to learner
  kHello = 1,  // Hello
  kAttached,   // one byte: 1 if the shared memory of Welcome could be opened
  kLoaded,     // WeightsLoaded
  kDelivery,   // an encoded Trajectory
  kFarewell,   // last message: the worker ends
  kFailure,    // Failure; likewise
  kTurn,       // TurnRequest
  kClose,      // the number (int64) of a session that asks for no more turns
  // learner to worker
  kWelcome = 101,  // Welcome
  kAssignment,     // an encoded Assignment
  kWeightsBegin,   // WeightsBegin, then the bytes in kWeightsChunk messages
  kWeightsChunk,
  kLeave,
  kSampled,  // TurnReply
  // both ways
  kHeartbeat = 201,  // a worker's may hold its EndpointStatus list
};

struct Hello {
  std::string host;  // name and boot id: equal only on the same running system
  std::int32_t process = 0;
};

// Answers a Hello.
struct Welcome {
  std::uint64_t parameter_bytes = 0;
  std::int32_t reader = 0;  // index of this worker among `readers`
  std::int32_t readers = 0;
  std::int32_t process = 0;  // the lead learner's
  bool shared_memory = false;
  StoreAddress address;  // only with shared_memory
};

struct WeightsBegin {
  std::int64_t version = 0;
  std::uint64_t checksum = 0;  // XXH3 of all bytes
};

// A worker has taken a version up.
struct WeightsLoaded {
  std::int64_t version = 0;
  double seconds = 0;  // that it did nothing else for it
};

// Why a worker ends.
struct Failure {
  ExitCode code = ExitCode::kFailure;
  std::string what;
  std::string what_to_do;
};

std::string encode(const Hello&);
std::string encode(const Welcome&);
std::string encode(const WeightsBegin&);
std::string encode(const WeightsLoaded&);
std::string encode(const Failure&);
std::string encode(const std::vector<EndpointStatus>&);
std::string encode(const TurnRequest&);
std::string encode(const TurnReply&);
std::string encode_number(std::int64_t);
// Throw Error on anything else than what was encoded.
Hello decode_hello(std::string_view bytes);
Welcome decode_welcome(std::string_view bytes);
WeightsBegin decode_weights_begin(std::string_view bytes);
WeightsLoaded decode_weights_loaded(std::string_view bytes);
Failure decode_failure(std::string_view bytes);
std::vector<EndpointStatus> decode_endpoints(std::string_view bytes);
TurnRequest decode_turn_request(std::string_view bytes);
TurnReply decode_turn_reply(std::string_view bytes);
std::int64_t decode_number(std::string_view bytes);

// This system's identity for Hello::host.
std::string system_identity(const std::string& host_name);

}  // namespace rollcall
