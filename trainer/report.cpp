// SPDX-License-Identifier: Apache-2.0
#include "trainer/report.h"

#include "comms/durable_file.h"
#include "comms/error.h"
#include "trainer/audit.h"
#include "trainer/chart.h"
#include "trainer/report_sections.h"
#include "trainer/report_style.h"
#include "trainer/run_facts.h"

namespace rollcall {
namespace {

std::string config_section(const RunFacts& run) {
  if (run.config.empty()) return "";
  return "<h2>Configuration</h2><details><summary>config.yaml as the run used it</summary><pre>" +
         escape_html(run.config) + "</pre></details>";
}

std::string page_of(const RunFacts& run) {
  const std::vector<StepFacts> steps = steps_of(run);
  const std::vector<EvalFacts> evaluations = evaluations_of(run);
  const std::string title = escape_html(run.name);
  std::string html = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">";
  html += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">";
  html += "<title>" + title + " – Rollcall</title><style>" + kReportStyle + "</style></head><body>";
  html += "<main>" + header_section(run, evaluations) + notices_section(run, steps);
  html += learning_section(run, steps, evaluations) + transcripts_section(run, evaluations);
  html += tools_section(run, steps) + speed_section(run, steps) + faults_section(run);
  html += agreement_section(run) + config_section(run);
  html +=
      "<footer>Made by Rollcall from journal, metrics.jsonl, result.json and config.yaml of this "
      "run; "
      "<code>rollcall report</code> makes it again.</footer></main>";
  return html + "<script>" + kReportScript + "</script></body></html>\n";
}

}  // namespace

void write_report(const std::filesystem::path& run_dir) {
  if (!is_run(run_dir))
    throw input_error(run_dir.string() +
                          " is no run's folder: it has no journal, no result.json "
                          "and no metrics.jsonl",
                      "name a run's folder, such as runs/<name>");
  write_durably(run_dir / "report.html", page_of(read_run(run_dir)));
  write_audit(run_dir);
}

}  // namespace rollcall
