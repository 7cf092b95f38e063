// SPDX-License-Identifier: Apache-2.0
// What the lead learner's exchange, journal and grouping cost, by number of workers. Scripted
// workers stand behind a mailbox in memory, or are ranks of MPI.
// scale_benchmark [--json FILE] [WORKERS...] | scale_benchmark --mpi WORKERS
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "benchmarks/benchmark.h"
#include "benchmarks/scripted_workers.h"
#include "comms/backoff.h"
#include "comms/error.h"
#include "comms/rollout_link.h"
#include "comms/scratch_folder.h"
#include "comms/wire.h"
#include "comms/world.h"
#include "trainer/arrivals.h"
#include "trainer/collector.h"
#include "trainer/endpoint_watch.h"
#include "trainer/journal.h"
#include "trainer/step_plan.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::int64_t kGroupSize = 8;
constexpr std::int64_t kSmallestStep = 4096;  // rollouts
constexpr int kSteps = 20;                    // measured, after one that warms up
constexpr int kAlone = 2000;                  // rollouts by which one part is timed alone
constexpr double kIdleSeconds = 3;
constexpr int kBeatsPerSecond = 20000;   // of all workers, while the cost of a heartbeat is timed
constexpr std::int64_t kTrickle = 1024;  // rollouts that arrive one by one ...
constexpr std::chrono::microseconds kTricklePause{900};  // ... about a millisecond apart
constexpr double kStepSeconds = 60;  // of the run that the journal's tax is a share of
constexpr double kRolloutsOfStep = 512;

double seconds_of(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}
double wall() { return seconds_of(CLOCK_MONOTONIC); }
double my_cpu() { return seconds_of(CLOCK_THREAD_CPUTIME_ID); }
double process_cpu() { return seconds_of(CLOCK_PROCESS_CPUTIME_ID); }

double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double pages = 0, resident = 0;
  file >> pages >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

// Seconds of a whole step of `rollouts`; CPU is the lead's thread unless said otherwise.
struct StepCost {
  double rollouts = 0;
  double wall = 0;     // dispatch to last arrival
  double collect = 0;  // CPU of that
  double commit = 0;   // wall time that the lead waits for the journal
  double group = 0;    // CPU
  double writer = 0;   // CPU of the journal's own thread
};

struct Alone {
  double decode = 0;  // CPU seconds a trajectory
  double append = 0;
  double bytes = 0;  // of a delivery
};

ClusterOptions options_for(int workers, milliseconds heartbeat_every) {
  ClusterOptions options;
  options.workers = workers;
  options.heartbeat_every = heartbeat_every;
  options.worker_timeout = std::chrono::hours(1);
  return options;
}

// The lead learner without a model: plans, collects, journals and groups as training does.
class Lead {
 public:
  Lead(RolloutServer& server, const std::filesystem::path& journal,
       std::function<double()> workers_cpu)
      : server_(server),
        journal_(journal, "{}"),
        collector_(server, journal_),
        workers_cpu_(std::move(workers_cpu)) {}

  StepCost step(std::int64_t rollouts) {
    const std::vector<std::int64_t> rows(rollouts / kGroupSize);
    const auto plan = plan_groups(1, Split::kTrain, step_, step_, rows, kGroupSize, next_group_);
    StepCost cost{.rollouts = static_cast<double>(plan.size())};
    const double cpu_before = process_cpu() - my_cpu() - workers_cpu_();
    const double began = wall(), collect_began = my_cpu();
    Arrivals arrivals;
    const auto collected = collector_.collect(
        plan, [&](const Trajectory& t) { arrivals.add(t); },
        [&] {
          watch_.look(server_.workers());
          server_.in_flight();
          return Collecting::kOn;
        });
    cost.collect = my_cpu() - collect_began;
    cost.wall = wall() - began;
    const double commit_began = wall();
    const std::int64_t committed = journal_.commit();
    cost.commit = wall() - commit_began;
    cost.writer = process_cpu() - my_cpu() - workers_cpu_() - cpu_before;
    const double group_began = my_cpu();
    const StepBatch batch = make_step_batch(collected, committed, {}, step_);
    cost.group = my_cpu() - group_began;
    journal_.append_uses(batch.uses);
    next_group_ += static_cast<std::int64_t>(rows.size());
    ++step_;
    return cost;
  }

 private:
  RolloutServer& server_;
  Journal journal_;
  Collector collector_;
  EndpointWatch watch_;
  std::function<double()> workers_cpu_;
  std::int64_t step_ = 0, next_group_ = 0;
};

// The share of a core that the lead needs while nothing happens but heartbeats.
double idle_share(RolloutServer& server) {
  const double began = wall(), cpu = my_cpu();
  while (wall() - began < kIdleSeconds) server.poll_for(milliseconds(50));
  return (my_cpu() - cpu) / (wall() - began);
}

Alone time_alone(const std::filesystem::path& folder) {
  const Trajectory t = scripted_trajectory({}, 1);
  const std::string bytes = encode(t);
  Alone alone{.bytes = static_cast<double>(bytes.size())};
  std::size_t tokens = 0;
  double cpu = my_cpu();
  for (int i = 0; i < kAlone; ++i) tokens += decode_trajectory(bytes).tokens.size();
  alone.decode = (my_cpu() - cpu) / kAlone;
  if (tokens != kAlone * t.tokens.size()) throw Error("a trajectory came back with other tokens");
  Journal journal(folder / "alone.h5", "{}");
  const auto shared = std::make_shared<const Trajectory>(t);
  for (int i = 0; i < 2 * kAlone; ++i) {  // the first half gets the memory that is used again
    if (i == kAlone) cpu = my_cpu();
    journal.append(shared);
  }
  alone.append = (my_cpu() - cpu) / kAlone;
  return alone;
}

// CPU seconds of the lead for a trajectory that arrives alone, its waiting for it included.
double trickle(Lead& lead, ScriptedWorkers& scripted) {
  scripted.pace(kTricklePause);
  const double seconds = lead.step(kTrickle).collect / kTrickle;
  scripted.pace({});
  return seconds;
}

StepCost median_step(Lead& lead, int workers) {
  const std::int64_t rollouts = std::max<std::int64_t>(kSmallestStep, workers * kGroupSize / 4);
  lead.step(rollouts);
  std::vector<StepCost> costs;
  for (int i = 0; i < kSteps; ++i) costs.push_back(lead.step(rollouts));
  std::ranges::sort(costs, {}, &StepCost::collect);
  return costs[kSteps / 2];
}

nlohmann::ordered_json row(int workers, const StepCost& cost, const Alone& alone) {
  const double n = cost.rollouts;
  const double lead = cost.collect + cost.group;
  const auto microseconds = [&](double seconds) { return 1e6 * seconds / n; };
  const double journal = (cost.commit + alone.append * n) / n * kRolloutsOfStep;
  return {{"workers", workers},
          {"rollouts_a_step", n},
          {"delivery_bytes", alone.bytes},
          {"trajectories_per_second", n / cost.wall},
          {"messages_per_second", 2 * n / cost.wall},
          {"lead_us", microseconds(lead)},
          {"dispatch_us", microseconds(cost.collect) - 1e6 * (alone.decode + alone.append)},
          {"decode_us", 1e6 * alone.decode},
          {"append_us", 1e6 * alone.append},
          {"group_us", microseconds(cost.group)},
          {"journal_thread_us", microseconds(cost.writer)},
          {"commit_seconds", cost.commit},
          {"journal_tax", journal / kStepSeconds},
          {"journal_core_share", cost.writer / n * kRolloutsOfStep / kStepSeconds}};
}

void write_row(const nlohmann::ordered_json& row, const std::string& json_file) {
  const auto value = [&](const char* key) { return row.at(key).get<double>(); };
  std::printf(
      "%7.0f %9.0f %9.0f %7.1f %8.1f %7.1f %7.1f %7.1f %8.1f %8.1f %7.2f %7.3f %7.2f %7.3f\n",
      value("workers"), value("trajectories_per_second"), value("messages_per_second"),
      value("lead_us"), value("dispatch_us"), value("decode_us"), value("append_us"),
      value("group_us"), value("trickle_us"), value("journal_thread_us"),
      value("idle_kib_per_worker"), 100 * value("journal_tax"), 100 * value("idle_share"),
      100 * value("heartbeat_share"));
  std::fflush(stdout);
  if (!json_file.empty()) std::ofstream(json_file, std::ios::app) << row.dump() << '\n';
}

void print_head() {
  std::printf(
      "        a second             lead's CPU, us a trajectory                    journal   KiB a "
      "journal %% of a core, idle\nworkers  trajects  messages     all dispatch  decode  append   "
      "group one by 1  thr. us  worker   tax %%   whole   beats\n");
  std::fflush(stdout);
}

// Workers in memory, in this process, and their server.
struct Simulation {
  Simulation(int workers, milliseconds heartbeat_every, bool beating)
      : server(post.mailbox(), workers + 1, "lead", options_for(workers, heartbeat_every), 0),
        scripted(post, workers, beating ? heartbeat_every : milliseconds(0)) {}
  MemoryPost post;
  RolloutServer server;
  ScriptedWorkers scripted;
};

double idle_share(int workers, milliseconds heartbeat_every, bool beating) {
  Simulation simulation(workers, heartbeat_every, beating);
  return idle_share(simulation.server);
}

// The share of a core that heartbeats cost each second: from many more of them, for they are few.
double heartbeat_share(int workers, double silent) {
  const milliseconds every(std::max(1, 1000 * workers / kBeatsPerSecond));
  const std::chrono::duration<double> seconds(every);
  return (idle_share(workers, every, true) - silent) * seconds.count();
}

nlohmann::ordered_json simulate(int workers) {
  const ScratchFolder folder(std::filesystem::current_path());
  const Alone alone = time_alone(folder.path());
  const double silent = idle_share(workers, std::chrono::hours(1), false);
  const double beats = heartbeat_share(workers, silent);
  ::malloc_trim(0);
  const double resident = resident_bytes();
  Simulation all(workers, milliseconds(1000), true);
  const double idle = idle_share(all.server);
  const double grown = resident_bytes() - resident;
  Lead lead(all.server, folder.path() / "journal.h5", [&] { return all.scripted.cpu_seconds(); });
  auto result = row(workers, median_step(lead, workers), alone);
  result["trickle_us"] = 1e6 * trickle(lead, all.scripted);
  result["idle_kib_per_worker"] = grown / workers / 1024;
  result["idle_share"] = idle;
  result["heartbeat_share"] = beats;
  result["resident_mib"] = resident_bytes() / (1 << 20);
  all.server.shut_down(milliseconds(1000));
  return result;
}

// In a process of its own, so that its memory is its own.
void simulate_apart(int workers, const std::string& json_file) {
  const pid_t child = ::fork();
  if (child == 0) {
    write_row(simulate(workers), json_file);
    std::_Exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0) std::printf("%7d did not end in order\n", workers);
}

void serve(World& world, milliseconds heartbeat_every) {
  RolloutClient client(world, options_for(world.size() - 1, heartbeat_every), 0);
  if (heartbeat_every < std::chrono::minutes(1)) client.report(scripted_endpoints);
  Backoff backoff;
  for (RolloutClient::Inbox inbox; !inbox.leave; inbox = client.poll()) {
    for (const Assignment& assignment : inbox.assignments)
      client.deliver(scripted_trajectory(assignment, world.rank()));
    inbox.assignments.empty() ? backoff.wait() : backoff.reset();
  }
}

void lead_ranks(World& world, milliseconds heartbeat_every) {
  const int workers = world.size() - 1;
  const ScratchFolder folder(std::filesystem::current_path());
  const Alone alone = time_alone(folder.path());
  RolloutServer server(world, options_for(workers, heartbeat_every), 0);
  Lead lead(server, folder.path() / "journal.h5", [] { return 0.0; });
  auto result = row(workers, median_step(lead, workers), alone);
  result["heartbeat_ms"] = heartbeat_every.count();
  result["idle_share"] = idle_share(server);
  result["resident_mib"] = resident_bytes() / (1 << 20);
  std::printf("%s\n", result.dump().c_str());
  std::fflush(stdout);
  server.shut_down(milliseconds(5000));
}

// One rank of the MPI program.
void take_part(int argc, char** argv) {
  World world(&argc, &argv);
  const milliseconds heartbeat_every(std::atoi(argv[3]));
  world.rank() == 0 ? lead_ranks(world, heartbeat_every) : serve(world, heartbeat_every);
  world.finish(ExitCode::kDone);
}

// Twice: with heartbeats and without.
int run_ranks(char** argv) {
  for (std::string heartbeat : {"1000", "3600000"}) {
    char* arguments[] = {argv[0], argv[1], argv[2], heartbeat.data(), nullptr};
    const JobEnd end = run_under_mpirun(std::atoi(argv[2]) + 1, 1, 4, arguments);
    if (end.code != 0) return end.code;
  }
  return 0;
}

int run(int argc, char** argv) {
  if (under_launcher()) take_part(argc, argv);
  if (argc > 2 && std::string(argv[1]) == "--mpi") return run_ranks(argv);
  std::vector<std::string> arguments(argv + 1, argv + argc);
  std::string json_file;
  if (arguments.size() >= 2 && arguments[0] == "--json") {
    json_file = arguments[1];
    arguments.erase(arguments.begin(), arguments.begin() + 2);
  }
  if (arguments.empty()) arguments = {"8", "64", "256", "1024", "10000"};
  print_head();
  for (const std::string& workers : arguments) simulate_apart(std::stoi(workers), json_file);
  return 0;
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::main_of(rollcall::run, argc, argv); }
