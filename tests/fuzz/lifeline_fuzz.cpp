// SPDX-License-Identifier: Apache-2.0
// What somebody writes into the port where the ranks of a run report: with an odd first byte it
// knows the token.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "comms/lifeline.h"
#include "tests/fuzz/fuzz.h"

namespace rollcall {
namespace {

struct Address {
  std::string token;
  int port = 0;
};

Address address_of(const LifelineHub& hub) {
  const std::string& text = hub.address();
  const std::size_t colon = text.find(':');
  return {text.substr(0, colon), std::atoi(text.c_str() + colon + 1)};
}

// Closing it resets it: an end that both sides agree on keeps its port for a minute, and the ports
// would run out.
int connect_to(int port) {
  const int made = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);  // libFuzzer has an alarm
  const linger reset{1, 0};
  ::setsockopt(made, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  if (::connect(made, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 &&
      errno != EINPROGRESS) {
    std::perror("connect");
    std::abort();
  }
  pollfd ready{made, POLLOUT, 0};
  while (::poll(&ready, 1, -1) != 1) {
  }
  return made;
}

}  // namespace
}  // namespace rollcall

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  static LifelineHub hub(true);
  static const Address address = address_of(hub);
  if (size == 0) return 0;
  const bool known = data[0] % 2 == 1;
  std::string bytes = known ? "hello " + address.token + " 3\n" : "";
  bytes.append(text_of(data + 1, size - 1));
  const int connection = connect_to(address.port);
  ::send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  std::size_t ends = hub.poll().size();
  ::close(connection);
  do ends += hub.poll().size();
  while (known && ends == 0);
  if (ends != (known ? 1U : 0U) || hub.any_rank()) __builtin_trap();
  return 0;
}
