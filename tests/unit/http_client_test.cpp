// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <ctime>
#include <optional>
#include <thread>

#include "loopback_server.h"

namespace rollcall {
namespace {

using std::chrono::milliseconds;
using Way = LoopbackReply::Way;
using testing::HasSubstr;

class HttpClientTest : public testing::Test {
 protected:
  // Sends all of them side by side; the replies in the requests' order.
  std::vector<HttpReply> post(std::vector<HttpRequest> requests) {
    std::vector<HttpReply> replies(requests.size());
    for (std::size_t i = 0; i < requests.size(); ++i)
      asio::co_spawn(
          loop, client.post(std::move(requests[i])),
          [&replies, i](std::exception_ptr, HttpReply reply) { replies[i] = std::move(reply); });
    loop.restart();
    loop.run();
    return replies;
  }
  HttpReply post(HttpRequest request) {
    std::vector<HttpRequest> one;
    one.push_back(std::move(request));
    return post(std::move(one)).front();
  }
  static HttpRequest request(const std::string& url) {
    HttpRequest r;
    r.url = url;
    r.body = "{}";
    r.timeout = milliseconds(5000);
    return r;
  }

  asio::io_context loop;
  HttpClient client{loop.get_executor()};
};

TEST_F(HttpClientTest, PostsJsonAndReturnsStatusHeadersAndBody) {
  LoopbackServer server([](const LoopbackRequest&) {
    return LoopbackReply{.status = 201, .body = "hello", .headers = {{"X-Answer", " forty two "}}};
  });
  auto r = request(server.url("/call?x=1"));
  r.headers = {{"Authorization", "Bearer abc"}, {"X-Empty", ""}};
  r.body = R"({"a":1})";
  r.cookies = "a=b; c=d";
  const HttpReply reply = post(r);

  EXPECT_EQ(reply.status, 201);
  EXPECT_EQ(reply.body, "hello");
  EXPECT_EQ(*find_header(reply, "x-answer"), "forty two");
  const auto seen = server.requests().at(0);
  EXPECT_EQ(seen.method, "POST");
  EXPECT_EQ(seen.path, "/call?x=1");
  EXPECT_EQ(seen.body, r.body);
  EXPECT_EQ(seen.header("content-type"), "application/json");
  EXPECT_EQ(seen.header("authorization"), "Bearer abc");
  EXPECT_EQ(seen.header("cookie"), "a=b; c=d");
  EXPECT_EQ(seen.headers.count("x-empty"), 1U);
  EXPECT_EQ(seen.headers.count("expect"), 0U);
}

TEST_F(HttpClientTest, KeepsConnectionsAlive) {
  LoopbackServer server([](const LoopbackRequest&) { return LoopbackReply{}; });
  for (int i = 0; i < 5; ++i) EXPECT_EQ(post(request(server.url("/"))).status, 200);
  EXPECT_EQ(server.connections(), 1);
}

TEST_F(HttpClientTest, NeverSendsARequestTwiceByItself) {
  LoopbackServer server([](const LoopbackRequest& r) {
    return LoopbackReply{.way = r.path == "/close" ? Way::kClose : Way::kWhole};
  });
  EXPECT_EQ(post(request(server.url("/"))).status, 200);
  const HttpReply reply = post(request(server.url("/close")));  // on the connection that was kept
  EXPECT_EQ(reply.status, 0);
  EXPECT_THAT(reply.error, HasSubstr("closed the connection unanswered"));
  EXPECT_EQ(server.requests().size(), 2U);
}

TEST_F(HttpClientTest, RestsWhenAKeptConnectionEndsAndOpensAnother) {
  std::optional<LoopbackServer> server;
  const auto ok = [](const LoopbackRequest&) { return LoopbackReply{}; };
  server.emplace(ok);
  EXPECT_EQ(post(request(server->url("/"))).status, 200);
  server.reset();
  const auto cpu_seconds = [] { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; };
  const double before = cpu_seconds();
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_LT(cpu_seconds() - before, 0.15) << "half of the time was spent on a closed connection";
  server.emplace(ok);
  EXPECT_EQ(post(request(server->url("/"))).status, 200);
}

TEST_F(HttpClientTest, NeverSendsALargeRequestTwiceEither) {
  LoopbackServer server([](const LoopbackRequest& r) {
    return LoopbackReply{.way = r.path == "/close" ? Way::kClose : Way::kWhole};
  });
  EXPECT_EQ(post(request(server.url("/"))).status, 200);
  HttpRequest large = request(server.url("/close"));
  large.body.assign(300'000, 'x');  // libcurl sends head and body apart
  EXPECT_EQ(post(std::move(large)).status, 0);
  EXPECT_EQ(server.requests().size(), 2U);
}

TEST_F(HttpClientTest, RunsMoreRequestsAtOnceThanOneShardHolds) {
  LoopbackServer server(
      [](const LoopbackRequest& r) { return LoopbackReply{.body = r.body, .once_seen = 600}; });
  std::vector<HttpRequest> many;
  for (int i = 0; i < 600; ++i) {
    many.push_back(request(server.url("/")));
    many.back().body = std::to_string(i);
  }
  const auto replies = post(std::move(many));
  for (std::size_t i = 0; i < replies.size(); ++i)
    ASSERT_EQ(replies[i].body, std::to_string(i)) << replies[i].error;
  EXPECT_EQ(server.most_at_once(), 600);
}

TEST_F(HttpClientTest, ReportsRefusedConnection) {
  int port = 0;
  {
    port = LoopbackServer([](const LoopbackRequest&) { return LoopbackReply{}; }).port();
  }
  const HttpReply reply = post(request("http://127.0.0.1:" + std::to_string(port) + "/"));
  EXPECT_EQ(reply.status, 0);
  EXPECT_FALSE(reply.error.empty());
  EXPECT_FALSE(reply.timed_out);
}

TEST_F(HttpClientTest, ReportsTransportFaultsWithoutStatus) {
  for (const auto& [way, body] : std::vector<std::pair<Way, std::string>>{
           {Way::kClose, ""},
           {Way::kTruncate, std::string(1000, 'x')},
           {Way::kRaw, "garbage\n\n"},
           {Way::kRaw, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}}) {
    LoopbackServer server(
        [&](const LoopbackRequest&) { return LoopbackReply{.body = body, .way = way}; });
    const HttpReply reply = post(request(server.url("/")));
    EXPECT_EQ(reply.status, 0);
    EXPECT_FALSE(reply.error.empty());
  }
}

TEST_F(HttpClientTest, TimesOutOnSilentAndOnSlowServers) {
  for (const Way way : {Way::kStall, Way::kDrip}) {
    LoopbackServer server([&](const LoopbackRequest&) { return LoopbackReply{.way = way}; });
    auto r = request(server.url("/"));
    r.timeout = milliseconds(60);
    const HttpReply reply = post(r);
    EXPECT_EQ(reply.status, 0);
    EXPECT_TRUE(reply.timed_out);
  }
}

TEST_F(HttpClientTest, CutsReplyAtItsLimit) {
  LoopbackServer server(
      [](const LoopbackRequest&) { return LoopbackReply{.body = std::string(5 << 20, 'x')}; });
  auto r = request(server.url("/"));
  r.max_reply_bytes = 1000;
  const HttpReply reply = post(r);
  EXPECT_EQ(reply.status, 200);
  EXPECT_TRUE(reply.too_large);
  EXPECT_EQ(reply.body.size(), 1000U);
}

TEST_F(HttpClientTest, RefusesEndlessHeaders) {
  LoopbackServer server([](const LoopbackRequest&) {
    std::string raw = "HTTP/1.1 200 OK\r\n";
    for (int i = 0; i < 5000; ++i) raw += "X-Junk: " + std::string(90, 'j') + "\r\n";
    return LoopbackReply{.body = raw, .way = Way::kRaw};
  });
  const HttpReply reply = post(request(server.url("/")));
  EXPECT_EQ(reply.status, 0);
  EXPECT_THAT(reply.error, HasSubstr("headers are too large"));
}

TEST_F(HttpClientTest, FollowsRedirectsWithinOriginWithSameBody) {
  LoopbackServer server([](const LoopbackRequest& r) {
    if (r.path == "/a")
      return LoopbackReply{.status = 307, .body = "moved", .headers = {{"Location", "/b"}}};
    return LoopbackReply{.body = r.body};
  });
  auto r = request(server.url("/a"));
  r.body = "payload";
  const HttpReply reply = post(r);
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, "payload");
  EXPECT_EQ(server.requests().size(), 2U);
}

TEST_F(HttpClientTest, StopsAfterThreeRedirects) {
  LoopbackServer server([](const LoopbackRequest&) {
    return LoopbackReply{.status = 308, .headers = {{"Location", "/again"}}};
  });
  EXPECT_EQ(post(request(server.url("/"))).status, 308);
  EXPECT_EQ(server.requests().size(), 4U);
}

TEST_F(HttpClientTest, DoesNotFollowOtherRedirectsNorOtherOrigins) {
  LoopbackServer other([](const LoopbackRequest&) { return LoopbackReply{}; });
  for (const int status : {301, 302, 303, 307, 308}) {
    LoopbackServer server([&](const LoopbackRequest&) {
      const std::string target = status < 307 ? "/b" : other.url("/b");
      return LoopbackReply{.status = status, .headers = {{"Location", target}}};
    });
    EXPECT_EQ(post(request(server.url("/a"))).status, status);
    EXPECT_EQ(server.requests().size(), 1U);
  }
  EXPECT_TRUE(other.requests().empty());
}

// What one reader of URLs takes for the host, another takes for a password.
TEST_F(HttpClientTest, DoesNotFollowAnAddressThatOnlyLooksLikeTheOrigin) {
  LoopbackServer other([](const LoopbackRequest&) { return LoopbackReply{}; });
  for (const char* between : {"\\@", "@", "#@", "%40", "\t@", "?@", ":x@"}) {
    LoopbackServer* self = nullptr;
    LoopbackServer server([&](const LoopbackRequest& r) {
      if (r.path != "/a") return LoopbackReply{.status = 204};
      return LoopbackReply{
          .status = 307,
          .headers = {{"Location", self->url("") + between + other.url("/b").substr(7)}}};
    });
    self = &server;
    auto r = request(server.url("/a"));
    r.headers = {{"Authorization", "Bearer abc"}};
    post(r);
    EXPECT_TRUE(other.requests().empty()) << between;
  }
}

TEST_F(HttpClientTest, GivesEveryReplyAStatusOrAnError) {
  for (const char* raw :
       {"", "\r\n\r\n", "HTTP/200 OK\r\n\r\n{}", "HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 X\r\n\r\n", "HTTP/1.1 101 X\r\n\r\n", "HTTP/1.1 999 X\r\n\r\n",
        "HTTP/2 200\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 100 X\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nno gzip"}) {
    LoopbackServer server(
        [&](const LoopbackRequest&) { return LoopbackReply{.body = raw, .way = Way::kRaw}; });
    const HttpReply reply = post(request(server.url("/")));
    EXPECT_EQ(reply.status == 0, !reply.error.empty()) << raw;
  }
}

TEST_F(HttpClientTest, RefusesHeadersThatSmuggle) {
  LoopbackServer server([](const LoopbackRequest&) { return LoopbackReply{}; });
  auto r = request(server.url("/"));
  r.headers = {{"X-Key", "secret\r\nX-Other: 1"}};
  const HttpReply reply = post(r);
  EXPECT_EQ(reply.status, 0);
  EXPECT_THAT(reply.error, HasSubstr("line break"));
  EXPECT_EQ(reply.error.find("secret"), std::string::npos);
  EXPECT_TRUE(server.requests().empty());
}

TEST_F(HttpClientTest, ThrowsToCancelledCallerAndServesOthers) {
  LoopbackServer server([](const LoopbackRequest& r) {
    return LoopbackReply{.way = r.path == "/stall" ? Way::kStall : Way::kWhole};
  });
  asio::cancellation_signal stop;
  std::exception_ptr thrown;
  asio::co_spawn(loop, client.post(request(server.url("/stall"))),
                 asio::bind_cancellation_slot(
                     stop.slot(), [&](std::exception_ptr e, HttpReply) { thrown = e; }));
  loop.run_for(milliseconds(20));
  stop.emit(asio::cancellation_type::terminal);
  EXPECT_EQ(post(request(server.url("/"))).status, 200);
  EXPECT_NE(thrown, nullptr);
}

TEST(HttpClient, AnswersWhatIsInFlightWhenItCloses) {
  LoopbackServer server([](const LoopbackRequest&) { return LoopbackReply{.way = Way::kStall}; });
  asio::io_context loop;
  std::optional<HttpClient> client(loop.get_executor());
  HttpReply reply;
  HttpRequest request;
  request.url = server.url("/");
  asio::co_spawn(loop, client->post(request),
                 [&](std::exception_ptr, HttpReply r) { reply = std::move(r); });
  loop.run_for(milliseconds(20));
  client.reset();
  loop.run();
  EXPECT_THAT(reply.error, HasSubstr("closed"));
}

}  // namespace
}  // namespace rollcall
