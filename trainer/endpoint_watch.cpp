// SPDX-License-Identifier: Apache-2.0
#include "trainer/endpoint_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "trainer/metric_names.h"

namespace rollcall {

std::vector<std::string> EndpointWatch::look(std::span<const WorkerStatus> workers) {
  const auto before = std::exchange(now_, {});
  for (const WorkerStatus& worker : workers) {
    for (const EndpointStatus& e : worker.endpoints) {
      Total& total = now_[e.name];
      total.waited_s += e.waited_s;
      total.openings += e.openings;
      total.retries += e.retries;
      if (!e.waiting || !worker.alive) continue;
      ++total.workers;
      total.held += e.held;
      if (e.down_s < total.down_s) continue;
      total.down_s = e.down_s;
      total.address = e.address;
      total.error = e.error;
    }
  }
  std::vector<std::string> news;
  for (const auto& [name, total] : now_) {
    const auto old = before.find(name);
    const bool waited = old != before.end() && old->second.workers > 0;
    if (total.workers > 0 && !waited)
      news.push_back(fmt::format("{} at {} does not answer ({}): waiting for it", name,
                                 total.address, total.error));
    if (total.workers == 0 && waited)
      news.push_back(fmt::format("{} answers again after {:.0f} s", name, old->second.down_s));
  }
  return news;
}

std::string EndpointWatch::waiting() const {
  const auto worst = std::max_element(now_.begin(), now_.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.workers > 0, a.second.down_s) <
           std::pair(b.second.workers > 0, b.second.down_s);
  });
  if (worst == now_.end() || worst->second.workers == 0) return {};
  const Total& t = worst->second;
  return fmt::format("waiting for {} at {} ({}) since {:.0f} s; {} worker{}, {} calls held",
                     worst->first, t.address, t.error, t.down_s, t.workers,
                     t.workers == 1 ? "" : "s", t.held);
}

MetricList EndpointWatch::take_metrics() {
  MetricList metrics;
  for (const auto& [name, total] : now_) {
    const Total& old = taken_[name];
    const auto add = [&, &of = name](const char* metric, double grown) {
      std::string key = std::string(metric) + "." + of;
      std::ranges::replace(key, ' ', '.');
      if (grown > 0) metrics.emplace_back(std::move(key), grown);
    };
    add(metric::kEndpointSecondsWaited, total.waited_s - old.waited_s);
    add(metric::kEndpointOpenings, static_cast<double>(total.openings - old.openings));
    add(metric::kEndpointRetries, static_cast<double>(total.retries - old.retries));
  }
  taken_ = now_;
  return metrics;
}

}  // namespace rollcall
