// SPDX-License-Identifier: Apache-2.0
// What tool servers and graders say: one byte that names the reader, then what it reads.
#include <cmath>
#include <nlohmann/json.hpp>

#include "rollout_workers/cookie_jar.h"
#include "rollout_workers/grade_reply.h"
#include "rollout_workers/http_date.h"
#include "rollout_workers/redact.h"
#include "rollout_workers/retry_delay.h"
#include "rollout_workers/tool_reply.h"
#include "rollout_workers/transcript.h"
#include "rollout_workers/url.h"
#include "rollout_workers/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace rollcall {
namespace {

const auto kNow = std::chrono::sys_days(std::chrono::year(2024) / 6 / 7) + std::chrono::hours(12);

void claim(bool truth) {
  if (!truth) __builtin_trap();
}

void tool(std::string_view body) {
  const auto reply = read_tool_reply(body, "call_1");
  if (!reply) return;
  claim(to_valid_utf8(reply->output, reply->output.size()) == reply->output);
  for (const auto& [name, value] : reply->metrics) claim(std::isfinite(value));
}

void grade(std::string_view body) {
  GradeReply reply = read_grade_reply(body);
  if (!reply.error.empty()) return;
  claim(std::isfinite(reply.grade.score));
  apply_grade_rules({}, reply.grade);
  claim(std::isfinite(reply.grade.reward));
}

// A header a line, the first for the jar, all of them stored twice.
void cookies(std::string_view text) {
  CookieJar jar;
  std::vector<std::pair<std::string, std::string>> headers;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    headers.emplace_back("set-cookie", text.substr(at, end - at));
    at = end + 1;
  }
  jar.store("http://host/a/b", headers, kNow);
  jar.store("https://host/a/b", headers, kNow);
  for (const char* url : {"http://host/a/b", "https://host/", "http://other/"}) {
    const std::string header = jar.header_for(url, kNow);
    claim(header.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos);
    claim(header.empty() || !std::string_view(url).starts_with("http://other"));
  }
}

void wait(std::string_view text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  HttpReply reply;
  reply.headers = {{"retry-after", std::string(text.substr(0, end))},
                   {"date", std::string(text.substr(std::min(end + 1, text.size())))}};
  if (const auto asked = retry_after(reply, kNow))
    claim(asked->count() >= 0 && *asked <= std::chrono::hours(24));
}

void words(std::string_view text) {
  Redactor redact;
  redact.add({{"KEY", "Basic dXNlcjpodW50ZXIyMg=="}, {"TOKEN", "tok_12345"}});
  claim(redact(std::string(text)).find("tok_12345") == std::string::npos);
  const std::string line = redact.line(std::string(text), 80);
  claim(line.size() <= 3 * 80 && line.find('\n') == std::string::npos);
}

// The policy's text, as it is put before a grader.
void sample(std::string_view text) {
  Trajectory t;
  t.final_text = text;
  Task task;
  task.item = "{}";
  claim(nlohmann::json::accept(grade_request_body(t, {}, task)));
}

}  // namespace
}  // namespace rollcall

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  if (size == 0) return 0;
  const std::string_view text = text_of(data + 1, size - 1);
  switch (data[0] % 8) {
    case 0:
      tool(text);
      break;
    case 1:
      grade(text);
      break;
    case 2:
      cookies(text);
      break;
    case 3:
      wait(text);
      break;
    case 4:
      words(text);
      break;
    case 5:
      sample(text);
      break;
    case 6:
      parse_http_date(std::string(text));
      break;
    default:
      claim(split_url(text).path.empty() || split_url(text).path.front() == '/');
  }
  return 0;
}
