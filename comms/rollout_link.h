// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comms/cluster_options.h"
#include "comms/endpoint_status.h"
#include "comms/trajectory.h"
#include "comms/turn.h"
#include "comms/weight_store.h"

namespace rollcall {

class Error;
class Mailbox;
class World;

// A worker's state as the lead learner sees it.
struct WorkerStatus {
  int rank = 0;
  bool alive = true;
  int in_flight = 0;                        // assignments it holds
  std::int64_t weights_version = -1;        // last version it confirmed
  double weights_seconds = 0;               // that it stood still to take it up
  std::chrono::milliseconds silence{0};     // since its last message
  std::vector<EndpointStatus> endpoints{};  // as its last heartbeat told
};

// Samples the turns of workers that hold no policy. A session is known by its worker and the
// worker's number of it. Single thread.
class TurnSampler {
 public:
  virtual ~TurnSampler() = default;
  // Throws Error of what no worker should ask for; the link is then given up.
  virtual void request(int worker, const TurnRequest&) = 0;
  virtual void close(int worker, std::int64_t session) = 0;  // of one that is not open: nothing
  virtual void close_all(int worker) = 0;

  struct Sampled {
    int worker = 0;
    TurnReply reply;
  };
  virtual bool has_work() const = 0;
  virtual std::vector<Sampled> step() = 0;  // the turns that ended in it
};

// The lead learner's end of all worker links: point-to-point, nonblocking, credit-limited (a worker
// never holds more than rollouts_per_worker assignments; a delivery returns the credit), watched by
// heartbeats. Single thread. Also publishes weights: a publication is ordered before the
// assignments submitted after it.
class RolloutServer {
 public:
  // Workers are world ranks learners..size-1. `parameter_bytes` is the size of a published version.
  RolloutServer(World&, const ClusterOptions&, std::size_t parameter_bytes);
  // The same over any mailbox of rank 0 in a world of `ranks`; `host` is where this process runs.
  RolloutServer(std::unique_ptr<Mailbox>, int ranks, const std::string& host, const ClusterOptions&,
                std::size_t parameter_bytes);
  ~RolloutServer();
  RolloutServer(const RolloutServer&) = delete;
  RolloutServer& operator=(const RolloutServer&) = delete;

  // Queues an assignment. Members of a group go to one worker where credit allows (its prompt is
  // then prefilled once). Never blocks.
  void submit(const Assignment&);

  // Moves messages both ways and returns what was delivered, in arrival order (the caller sorts).
  // Never blocks. An assignment of a worker that died or fell silent is queued again with
  // attempt+1; after `kMaxWorkerLosses` such losses a Trajectory with FaultReason::kWorkerLost is
  // returned. Duplicate or stale deliveries are dropped. Throws Error (kStopped) when no worker is
  // left, a worker's error of bad input (kBadInput), which every worker would have, and of an
  // endpoint that it gave up (kNoEndpoint) if every other worker waits for one too.
  std::vector<Trajectory> poll();
  // As poll(), but waits up to `wait` for something to arrive: samples turns meanwhile, a step at
  // least, or sleeps between probes.
  std::vector<Trajectory> poll_for(std::chrono::milliseconds wait);

  // What answers the turn requests of workers from now on; null: nothing does.
  void sample_with(TurnSampler*);

  // Drops what is queued. What workers hold may still be delivered, but is not queued again.
  void withdraw();

  // Lets `fill` write a version's parameter_bytes into what the workers read: shared memory on this
  // host, MPI to others. Blocks until no live worker uses the slot to be overwritten, for which
  // they give way within an engine step and the time of a copy; version must grow.
  void publish(std::int64_t version, const FillWeights& fill);

  // Tells all live workers to leave, waits up to `wait` for their farewell, returns how many left.
  int shut_down(std::chrono::milliseconds wait);

  int queued() const;
  int in_flight() const;
  std::vector<WorkerStatus> workers() const;

  static constexpr int kMaxWorkerLosses = 3;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A worker's end. Single thread; never blocks. Sends heartbeats from poll(), so poll() must be
// called more often than heartbeat_every.
class RolloutClient {
 public:
  RolloutClient(World&, const ClusterOptions&, std::size_t parameter_bytes);
  ~RolloutClient();
  RolloutClient(const RolloutClient&) = delete;
  RolloutClient& operator=(const RolloutClient&) = delete;

  struct Inbox {
    std::vector<Assignment> assignments;  // to start now; their version is loadable
    std::vector<TurnReply> turns;         // of requests, in any order
    bool leave = false;                   // the learner said goodbye, or has been silent too long
  };
  Inbox poll();
  void deliver(const Trajectory&);   // queued; progress in poll()
  void request(const TurnRequest&);  // of the lead learner, likewise; comes back in an Inbox
  void close_session(std::int64_t);  // abandons its turn, if one was asked for
  bool idle() const;                 // nothing waits to be sent
  bool lost_lead() const;            // it leaves because the lead learner ended or is silent
  // From now on heartbeats tell what `status` returns.
  void report(std::function<std::vector<EndpointStatus>()> status);

  // The newest published version (-1: none yet).
  std::int64_t newest_version() const;
  // Gives the newest version to `use`, confirms and returns it. `use` may be called again with a
  // newer version, or with the same elsewhere; only what it made last counts. What it uses in place
  // stays as it is until the next load_weights() or give_way() has returned.
  std::int64_t load_weights(const UseWeights& use);
  // To be called between any two steps that compute with weights in place: the learner may wait for
  // their memory. If it does, gives the weights to `use` in memory of this process. False if the
  // learner has given this worker up and overwritten them: the step before was void, and the worker
  // has to leave.
  bool give_way(const UseWeights& use);
  // Whether that has happened, to be asked before load_weights() takes the place of give_way().
  bool given_up() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A worker's last words, with or without a RolloutClient: it ends because of an error. Waits a
// second at most.
void leave_with_failure(World&, const Error&);

}  // namespace rollcall
