// SPDX-License-Identifier: Apache-2.0
// Endpoints that mean harm: each attack ends in the documented event or fault within the timeout,
// costs little memory, and leaves the rollouts beside it alone. Contract: docs/endpoints.md.
#include <gmock/gmock.h>

#include <fstream>
#include <set>

#include "rollout_fixture.h"

namespace rollcall {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using Way = LoopbackReply::Way;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMeasuresMemory = false;  // a sanitizer's own is many times ours
#else
constexpr bool kMeasuresMemory = true;
#endif
constexpr long kMostKb = 48 << 10;

long peak_kb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::atol(line.c_str() + 6);
  return 0;
}

LoopbackReply raw(std::string bytes) { return {.body = std::move(bytes), .way = Way::kRaw}; }
LoopbackReply endless(std::string bytes, std::string again, milliseconds pause = milliseconds(0)) {
  return {.body = std::move(bytes), .way = Way::kRaw, .again = std::move(again), .pause = pause};
}

std::string nested(std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

// 'x', then as long as wanted the 258 bytes before again: 13 bits of a block with fixed codes (RFC
// 1951 3.2.6), so that each byte of it becomes 159.
std::string gzip_bomb(std::size_t bytes) {
  std::string out("\x1f\x8b\x08\0\0\0\0\0\0\x03", 10);
  unsigned pending = 0, count = 0;
  const auto bit = [&](unsigned one) {
    pending |= one << count;
    if (++count < 8) return;
    out += static_cast<char>(pending);
    pending = count = 0;
  };
  const auto code = [&](unsigned value, int length) {
    for (int i = length - 1; i >= 0; --i) bit((value >> i) & 1U);
  };
  code(0b110, 3);       // last block, fixed codes
  code(0x30 + 'x', 8);  // a literal
  while (out.size() < bytes) {
    code(0b11000101, 8);  // a length of 258
    code(0, 5);           // from a distance of 1
  }
  return out;
}

class HostileEndpointTest : public RolloutTest {
 protected:
  HostileEndpointTest() {
    options.max_attempts = 1;
    tools[0].timeout = grading.timeout = milliseconds(700);
    tools[0].max_retries = grading.max_retries = 0;
    tools[0].max_output_bytes = 4096;
    policy.script = {call_text("get", "{}"), "Done."};
    std::ofstream("/proc/self/clear_refs") << "5";  // the peak begins anew
    before_kb_ = peak_kb();
  }
  ~HostileEndpointTest() override {
    if (kMeasuresMemory) {
      EXPECT_LT(peak_kb() - before_kb_, kMostKb);
    }
  }

  using Handler = std::function<LoopbackReply(const LoopbackRequest&)>;
  // Meets the first trace that asks with `attack`, and only that one.
  Handler against_one(Handler attack, Handler usual) {
    return [this, attack = std::move(attack), usual = std::move(usual)](const LoopbackRequest& r) {
      if (victim_.empty()) victim_ = r.header("x-rft-trace-id");
      return r.header("x-rft-trace-id") == victim_ ? attack(r) : usual(r);
    };
  }
  // Four rollouts; returns the one that was attacked. The others are as ever.
  Trajectory run_beside_others() {
    victim_.clear();
    Trajectory attacked;
    int unharmed = 0;
    for (Trajectory& t : run_many(4)) {
      if (t.trace_id == victim_) {
        attacked = std::move(t);
      } else {
        EXPECT_EQ(t.fault, FaultReason::kNone) << t.fault_detail;
        EXPECT_EQ(t.grade.reward, 0.75);
        unharmed += t.tool_events.at(0).output == "result" ? 1 : 0;
      }
    }
    EXPECT_EQ(unharmed, 3);
    return attacked;
  }
  Trajectory attack_by_tool(Handler attack) {
    tool = against_one(std::move(attack),
                       [](const LoopbackRequest& r) { return tool_output(r, "result"); });
    return run_beside_others();
  }
  Trajectory attack_by_tool(const LoopbackReply& reply) {
    return attack_by_tool([reply](const LoopbackRequest&) { return reply; });
  }
  Trajectory attack_by_grader(const LoopbackReply& reply) {
    grader = against_one([reply](const LoopbackRequest&) { return reply; },
                         [](const LoopbackRequest&) { return answer(200, R"({"score":0.75})"); });
    return run_beside_others();
  }

 private:
  std::string victim_;
  long before_kb_ = 0;
};

const std::string kHead = "HTTP/1.1 200 OK\r\n";
const std::string kChunked = kHead + "Transfer-Encoding: chunked\r\n\r\n";

TEST_F(HostileEndpointTest, SlowServersMeetTheTimeout) {
  for (const auto& reply :
       {endless(kHead + "X-A: ", "a", milliseconds(20)),
        endless(kChunked, "1\r\nx\r\n", milliseconds(20)),
        LoopbackReply{.body = kHead + "Content-Length: 9\r\n\r\n{", .way = Way::kRaw, .hold = true},
        LoopbackReply{.body = kHead, .way = Way::kRaw, .hold = true}}) {
    const Trajectory t = attack_by_tool(reply);
    EXPECT_EQ(t.fault, FaultReason::kToolFault);
    EXPECT_THAT(t.fault_detail, HasSubstr("timed out"));
    EXPECT_LT(t.wall_time_s, 3);
  }
}

TEST_F(HostileEndpointTest, TooMuchIsCutOff) {
  const std::string gzip = kHead + "Content-Encoding: gzip\r\n";
  const std::string bomb = gzip_bomb(256 << 10);  // 40 MB
  for (const auto& reply :
       {answer(200, std::string(64 << 10, 'x')),
        endless(kChunked, "400\r\n" + std::string(1024, 'x') + "\r\n"),
        endless(kHead + "\r\n", std::string(1024, 'x')),
        endless(kHead + "Content-Length: 9223372036854775807\r\n\r\n", std::string(1024, 'x')),
        raw(gzip + "Content-Length: " + std::to_string(bomb.size()) + "\r\n\r\n" + bomb)}) {
    const Trajectory t = attack_by_tool(reply);
    EXPECT_EQ(t.fault, FaultReason::kNone) << t.fault_detail;
    EXPECT_TRUE(t.tool_events.at(0).is_error);
    EXPECT_THAT(t.tool_events.at(0).output, HasSubstr("output_too_large"));
  }
}

TEST_F(HostileEndpointTest, FloodsOfHeadersAreFaults) {
  for (const auto& reply :
       {endless(kHead, "X-A: b\r\n"), endless("", "HTTP/1.1 100 Continue\r\n\r\n"),
        endless("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        endless(kChunked + "0\r\n", "X-Trailer: b\r\n"),
        raw(kHead + "X-A: " + std::string(400 << 10, 'a') + "\r\n\r\n")}) {
    const Trajectory t = attack_by_tool(reply);
    EXPECT_EQ(t.fault, FaultReason::kToolFault);
    EXPECT_EQ(t.fault_detail.find("timed out"), std::string::npos) << t.fault_detail;
  }
}

TEST_F(HostileEndpointTest, NonsenseIsAFault) {
  const auto text = [](const std::string& output) {
    return answer(200, R"({"output":)" + output + "}");
  };
  for (const auto& reply :
       {LoopbackReply{.way = Way::kClose}, raw("garbage\r\n\r\n"), raw(std::string(100000, '\0')),
        raw("SSH-2.0-x\r\n"), raw("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nno gzip"),
        answer(200, "{"), answer(200, R"({"call_id":"call_9","output":"x"})"),
        answer(200, R"({"call_id":["call_1"],"output":"x"})"), text("\"\xff\xfe\""),
        text("\"\xed\xa0\x80\""), text(R"("\ud800")"), text("1e400"), text(R"("x","reward":NaN)"),
        text(R"("x","reward":-Infinity)"), text(R"("x","metrics":)" + nested(1000)),
        text(nested(1000))}) {
    const Trajectory t = attack_by_tool(reply);
    EXPECT_EQ(t.fault, FaultReason::kToolFault) << reply.body.substr(0, 80);
    EXPECT_FALSE(t.fault_detail.empty());
    EXPECT_EQ(t.fault_detail.find('\n'), std::string::npos);
  }
}

TEST_F(HostileEndpointTest, RedirectsLeadNowhere) {
  LoopbackServer other([](const LoopbackRequest&) { return LoopbackReply{}; });
  for (const std::string& target :
       {server.url("/call"), other.url("/b"), std::string("file:///etc/passwd"),
        server.url("") + "\\@" + other.url("/b").substr(7), std::string("//[::1"),
        std::string(10000, '/'), std::string()}) {
    const Trajectory t =
        attack_by_tool(LoopbackReply{.status = 307, .headers = {{"Location", target}}});
    EXPECT_EQ(t.fault, FaultReason::kToolFault);
    EXPECT_THAT(t.fault_detail, HasSubstr("redirects")) << target;
  }
  EXPECT_TRUE(other.requests().empty());
}

TEST_F(HostileEndpointTest, ScoresThatAreNoneAreFaults) {
  tools[0].max_output_bytes = 1 << 20;
  for (const std::string& body : std::vector<std::string>{
           R"({"score":1e400})", R"({"score":-1e400})", R"({"score":NaN})", R"({"score":Infinity})",
           R"({"score":"1"})", R"({"score":1,"score":0})", R"({"score":1,"explanation":"\udc00"})",
           "{\"score\":1,\"explanation\":\"\xc0\x80\"}", "{\"error\":" + nested(100000) + "}",
           "{\"score\":1,\"metrics\":" + nested(100000) + "}"}) {
    const Trajectory t = attack_by_grader(answer(200, body));
    EXPECT_EQ(t.fault, FaultReason::kGraderFault) << body.substr(0, 80);
    EXPECT_EQ(t.grade.reward, 0);
    EXPECT_FALSE(t.fault_detail.empty());
  }
}

TEST_F(HostileEndpointTest, AConnectionKeptOpenBehindItsReplyHoldsNobodyUp) {
  tools[0].max_retries = grading.max_retries = 1;  // it may be taken for one that can be used again
  const Trajectory t = attack_by_tool([](const LoopbackRequest& r) {
    const std::string body = tool_output(r, "result").body;
    return LoopbackReply{
        .body = kHead + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body,
        .way = Way::kRaw,
        .hold = true};
  });
  EXPECT_EQ(t.fault, FaultReason::kNone) << t.fault_detail;
  EXPECT_EQ(t.tool_events.at(0).output, "result");
}

// What a server sends back is sent on to it: no more of it than there is room for, and no line that
// it did not have.
TEST_F(HostileEndpointTest, CookiesAreBoundedAndSmuggleNothing) {
  const Trajectory t = attack_by_tool([](const LoopbackRequest& r) {
    LoopbackReply reply = tool_output(r, "result");
    for (int i = 0; i < 9000; ++i)
      reply.headers.emplace_back("Set-Cookie", "c" + std::to_string(i) + "=1");
    for (const char* bad : {"x=a\rX-Evil: 1", "y=a\x01", "z=\x7f"})
      reply.headers.emplace_back("Set-Cookie", bad);
    return reply;
  });
  EXPECT_EQ(t.fault, FaultReason::kNone) << t.fault_detail;
  bool seen = false;
  for (const LoopbackRequest& r : requests_to("/grade")) {
    EXPECT_EQ(r.headers.count("x-evil"), 0U);
    const std::string cookies = r.header("cookie");
    seen = seen || !cookies.empty();
    EXPECT_LE(std::count(cookies.begin(), cookies.end(), '='), 64);
  }
  EXPECT_TRUE(seen);
}

}  // namespace
}  // namespace rollcall
