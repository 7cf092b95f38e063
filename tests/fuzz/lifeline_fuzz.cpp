// SPDX-License-Identifier: Apache-2.0
// What somebody writes into the port where the ranks of a run report: with an odd first byte it
// knows the token.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

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

int connect_to(int port) {
  const int made = ::socket(AF_INET, SOCK_STREAM, 0);
  const linger at_once{1, 0};  // or the ports would run out
  ::setsockopt(made, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  if (::connect(made, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) std::abort();
  return made;
}

// True once the other side has closed the connection.
bool closed(int connection) {
  char byte = 0;
  const ssize_t got = ::recv(connection, &byte, 1, MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN);
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
  ::shutdown(connection, SHUT_WR);
  std::size_t ends = 0;
  while (!closed(connection)) ends += hub.poll().size();
  if (ends != (known ? 1U : 0U) || hub.any_rank()) __builtin_trap();
  ::close(connection);
  return 0;
}
