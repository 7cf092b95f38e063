// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "rollout_workers/cookie_jar.h"
#include "rollout_workers/http_date.h"
#include "rollout_workers/ids.h"
#include "rollout_workers/redact.h"
#include "rollout_workers/retry_delay.h"
#include "rollout_workers/tool_reply.h"
#include "rollout_workers/transcript.h"
#include "rollout_workers/url.h"
#include "rollout_workers/utf8.h"

namespace rollcall {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::MatchesRegex;

const auto kNow = std::chrono::system_clock::time_point(seconds(1'000'000'000));

std::vector<std::pair<std::string, std::string>> set_cookie(const std::string& value) {
  return {{"set-cookie", value}};
}

TEST(Ids, TraceIdsAreRandomUuids) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(make_trace_id());
  EXPECT_EQ(seen.size(), 1000U);
  EXPECT_THAT(
      *seen.begin(),
      MatchesRegex("trace_[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
}

TEST(Ids, TraceparentHoldsTheUuidsDigits) {
  EXPECT_THAT(make_traceparent("trace_01234567-89ab-4cde-8123-456789abcdef"),
              MatchesRegex("00-0123456789ab4cde8123456789abcdef-[0-9a-f]{16}-01"));
}

TEST(Ids, RolloutIdIsTheSameForEveryAttempt) {
  Assignment a{.step = 3, .group = 12, .member = 5, .task_row = 7};
  const std::string first = rollout_id(a);
  a.attempt = 1;
  EXPECT_EQ(rollout_id(a), first);
  a.member = 6;
  EXPECT_NE(rollout_id(a), first);
}

TEST(Utf8, KeepsGoodTextAndReplacesBadBytes) {
  EXPECT_EQ(to_valid_utf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", 100),
            "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  EXPECT_EQ(to_valid_utf8("a\xFFz", 100), "a\xEF\xBF\xBDz");
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80", 100),
            "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");                      // a surrogate
  EXPECT_EQ(to_valid_utf8("\xC0\xAF", 100), "\xEF\xBF\xBD\xEF\xBF\xBD");  // overlong
}

TEST(Utf8, CutsBetweenCharactersAtEveryLimit) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  for (std::size_t limit = 0; limit <= text.size(); ++limit) {
    const std::string cut = to_valid_utf8(text, limit);
    EXPECT_LE(cut.size(), limit);
    EXPECT_TRUE(text.starts_with(cut));
    EXPECT_EQ(cut, to_valid_utf8(cut, 100));
  }
}

TEST(Utf8, OneLineHasNoControlCharacters) { EXPECT_EQ(one_line("a\r\nb\tc", 100), "a  b c"); }

// What is left of `text`.
std::string redacted(const SecretList& secrets, const std::string& text) {
  Redactor redact;
  redact.add(secrets);
  return redact(text);
}

TEST(Redactor, ReplacesValuesWhereverTheyStand) {
  const SecretList secrets{{"A", "tok_12345"}, {"B", "tok_12345_long"}};
  EXPECT_EQ(redacted(secrets, R"(session=tok_12345; "tok_12345_long" Bearer)"),
            R"(session=[redacted]; "[redacted]" Bearer)");
}

TEST(Redactor, KnowsWhatServersMakeOfAValue) {
  const SecretList secrets{{"A", "p/s \"w: 7"}};
  for (const char* form : {"p%2Fs%20%22w%3A%207", "p%2fs%20%22w%3a%207", "p/s%20%22w%3A%207",
                           "p/s \\\"w: 7", "cC9zICJ3OiA3", "cC9zICJ3OiA3=="})
    EXPECT_THAT(redacted(secrets, form), MatchesRegex("\\[redacted\\]=*")) << form;
}

TEST(Redactor, KnowsThePartsOfAValueThatIsAWholeHeader) {
  EXPECT_EQ(redacted({{"A", "Bearer tok_12345"}}, "tok_12345"), "[redacted]");
  EXPECT_EQ(redacted({{"A", "session=tok_12345; lang=en"}}, "tok_12345 en"), "[redacted] en");
  EXPECT_EQ(redacted({{"A", "Token token=\"tok_12345\""}}, "tok_12345"), "[redacted]");
  const SecretList basic{{"A", "Basic dXNlcjpodW50ZXIyMg=="}};  // user:hunter22
  EXPECT_EQ(redacted(basic, "dXNlcjpodW50ZXIyMg== user:hunter22 hunter22"),
            "[redacted] [redacted] [redacted]");
}

TEST(Redactor, LetsThroughWhatIsTooShort) {
  const SecretList secrets{{"A", "open"}, {"B", ""}, {"A", "open"}, {"C", "secret"}};
  EXPECT_EQ(redacted(secrets, "an open secret"), "an open [redacted]");
  EXPECT_EQ(variables_too_short(secrets), std::vector<std::string>{"A"});
}

TEST(Redactor, IsQuickWithATextFullOfSecrets) {
  std::string text;
  while (text.size() < 4 << 20) text += "secret";
  const auto start = std::chrono::steady_clock::now();
  const std::string clean = redacted({{"A", "secret"}}, text);
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(5));  // moved each time: minutes
  EXPECT_EQ(clean.find("secret"), std::string::npos);
  EXPECT_EQ(clean.size() % 10, 0U);
}

TEST(Redactor, CutsALineOnlyAfterwards) {
  Redactor redact;
  redact.add({{"A", "tok_12345"}});
  EXPECT_EQ(redact.line("x\ntok_12345", 8), "x [redac");
}

TEST(HttpDate, ReadsFixdateAndNothingElse) {
  EXPECT_EQ(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT")->time_since_epoch(),
            seconds(784111777));
  EXPECT_EQ(parse_http_date("Sun, 06-Nov-1994 08:49:37 GMT")->time_since_epoch(),
            seconds(784111777));
  for (const char* bad :
       {"", "soon", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nux 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 28:49:37 GMT", "Sun, 06 Nov 1994"})
    EXPECT_EQ(parse_http_date(bad), std::nullopt) << bad;
}

TEST(Url, SplitsOrigins) {
  EXPECT_EQ(split_url("HTTP://User:Pw@Host/p?q").origin(), "http://host:80");
  EXPECT_EQ(split_url("https://[::1]:8443/p").origin(), "https://[::1]:8443");
  EXPECT_EQ(split_url("http://a\\@b/").host, "a");
  EXPECT_EQ(split_url("http://host").path, "/");
  EXPECT_EQ(split_url("http://host/a/b?c=/d").path, "/a/b");
  EXPECT_EQ(split_url("nonsense").host, "");
}

TEST(CookieJar, SendsBackWhatTheHostSet) {
  CookieJar jar;
  jar.store("http://a/call", set_cookie("session=1; HttpOnly"), kNow);
  jar.store("http://a/call", set_cookie("sticky=x"), kNow);
  EXPECT_EQ(jar.header_for("http://a/grade", kNow), "session=1; sticky=x");
  jar.store("http://a/grade", set_cookie("session=2"), kNow);
  EXPECT_EQ(jar.header_for("http://a/call", kNow), "session=2; sticky=x");
  EXPECT_EQ(jar.header_for("http://b/call", kNow), "");
}

TEST(CookieJar, HonoursPathSecureAndExpiry) {
  CookieJar jar;
  jar.store("https://a/", set_cookie("p=1; Path=/deep"), kNow);
  jar.store("https://a/", set_cookie("s=1; Secure"), kNow);
  jar.store("https://a/", set_cookie("m=1; Max-Age=10; Expires=Sun, 06 Nov 1994 08:49:37 GMT"),
            kNow);
  EXPECT_EQ(jar.header_for("https://a/deeper", kNow), "s=1; m=1");
  EXPECT_EQ(jar.header_for("http://a/deep/x", kNow), "p=1; m=1");
  EXPECT_EQ(jar.header_for("http://a/deep", kNow + seconds(11)), "p=1");
  jar.store("https://a/", set_cookie("s=; Expires=Sun, 06 Nov 1994 08:49:37 GMT"), kNow);
  EXPECT_EQ(jar.header_for("https://a/", kNow), "m=1");
}

TEST(CookieJar, KeepsWhatIsToExpireInTheYear9999) {
  CookieJar jar;
  jar.store("http://a/", set_cookie("s=1; Expires=Fri, 31 Dec 9999 23:59:59 GMT"), kNow);
  EXPECT_EQ(jar.header_for("http://a/", kNow), "s=1");
}

TEST(CookieJar, DropsMalformedAndKeepsABound) {
  CookieJar jar;
  for (const char* bad : {"", "novalue", "=x", "a=\x01"})
    jar.store("http://a/", set_cookie(bad), kNow);
  jar.store("http://a/", set_cookie("big=" + std::string(10000, 'x')), kNow);
  EXPECT_EQ(jar.header_for("http://a/", kNow), "");
  for (int i = 0; i < 1000; ++i)
    jar.store("http://a/", set_cookie("c" + std::to_string(i) + "=1"), kNow);
  EXPECT_LT(jar.header_for("http://a/", kNow).size(), 1000U);
}

TEST(RetryDelay, GrowsToItsCapWithFullJitter) {
  RetryDelay backoff({milliseconds(10), milliseconds(50)});
  milliseconds longest{0};
  for (int i = 0; i < 500; ++i) {
    EXPECT_LE(backoff.draw(0), milliseconds(10));
    longest = std::max(longest, backoff.draw(40));
  }
  EXPECT_GT(longest, milliseconds(30));
  EXPECT_LE(longest, milliseconds(50));
}

TEST(RetryAfter, ReadsSecondsAndDates) {
  const auto after = [](const std::string& value, const std::string& date) {
    HttpReply reply;
    reply.headers = {{"retry-after", value}};
    if (!date.empty()) reply.headers.emplace_back("date", date);
    return retry_after(reply, std::chrono::system_clock::time_point(seconds(784111770)));
  };
  EXPECT_EQ(after("3", ""), seconds(3));
  EXPECT_EQ(after("Sun, 06 Nov 1994 08:49:37 GMT", ""), seconds(7));
  EXPECT_EQ(after("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:35 GMT"), seconds(2));
  EXPECT_EQ(after("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 09:49:35 GMT"), seconds(0));
  EXPECT_EQ(after("soon", ""), std::nullopt);
  EXPECT_EQ(after("-5", ""), seconds(0));
  EXPECT_EQ(retry_after({}, kNow), std::nullopt);
}

TEST(ToolReply, ReadsOutputAsStringOrContentList) {
  EXPECT_EQ(read_tool_reply(R"({"call_id":"call_1","output":"x"})", "call_1")->output, "x");
  EXPECT_EQ(read_tool_reply(R"({"output":"no id"})", "call_1")->output, "no id");
  EXPECT_EQ(
      read_tool_reply(
          R"({"output":[{"type":"output_text","text":"a"},{"type":"input_image"},{"type":"input_text","text":"b"}]})",
          "call_1")
          ->output,
      "ab");
}

TEST(ToolReply, ReadsExtensions) {
  const auto reply =
      read_tool_reply(R"({"output":"","reward":0.5,"done":true,"metrics":{"n":2,"s":"x"}})", "c");
  ASSERT_TRUE(reply);
  EXPECT_TRUE(reply->done);
  const std::vector<std::pair<std::string, double>> expected{{"reward", 0.5}, {"n", 2}};
  EXPECT_EQ(reply->metrics, expected);
}

TEST(ToolReply, RefusesWhatIsNotTheProtocol) {
  for (const char* bad : {"", "null", "[]", "{}", R"({"output":null})", R"({"output":3})",
                          R"({"output":["x"]})", R"({"call_id":"call_2","output":"x"})",
                          R"({"call_id":7,"output":"x"})", "{\"output\":\"\xFF\"}"})
    EXPECT_FALSE(read_tool_reply(bad, "call_1")) << bad;
  const std::string whole = R"({"call_id":"call_1","output":"text"})";
  for (std::size_t cut = 0; cut < whole.size(); ++cut)
    EXPECT_FALSE(read_tool_reply(std::string_view(whole).substr(0, cut), "call_1"));
}

std::string nested(std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(ToolReply, RefusesDeepNestingInsteadOfOverflowingTheStack) {
  EXPECT_FALSE(read_tool_reply(R"({"output":"x","metrics":)" + nested(100000) + "}", "c"));
  EXPECT_TRUE(read_tool_reply(R"({"output":"x","metrics":)" + nested(100) + "}", "c"));
  EXPECT_TRUE(read_tool_reply(R"({"output":"\"[)" + std::string(1000, '[') + "\"}", "c"));
}

TEST(Transcript, LeavesOutWhatThePolicyNestedTooDeep) {
  Trajectory t;
  Task task;
  task.item = "{}";
  t.final_text = nested(100000);
  EXPECT_THAT(grade_request_body(t, {}, task), testing::HasSubstr(R"("output_json":null)"));
  t.final_text = nested(2);
  EXPECT_THAT(grade_request_body(t, {}, task), testing::HasSubstr(R"("output_json":[[]])"));
}

TEST(ToolReply, BuildsErrorTexts) {
  EXPECT_EQ(tool_error_text("unknown_tool", "no \"x\""),
            R"({"error":{"type":"unknown_tool","message":"no \"x\""}})");
  EXPECT_EQ(tool_error_text("big", "m", 413),
            R"({"error":{"type":"big","code":413,"message":"m"}})");
}

}  // namespace
}  // namespace rollcall
