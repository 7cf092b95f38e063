// SPDX-License-Identifier: Apache-2.0
// tokenizer_benchmark TOKENIZER_JSON DOCUMENTS IDS: encodes the documents (texts, each ended by a
// NUL) on one thread and writes the ids to IDS (int32, each document's ended by -1). Then, for each
// line on standard input, encodes them again and prints the seconds of processor time.
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "comms/error.h"
#include "model/tokenizer.h"

namespace rollcall {
namespace {

std::string read_file(const char* path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw input_error(std::string(path) + " cannot be read");
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string_view> documents_of(std::string_view text) {
  std::vector<std::string_view> documents;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\0', begin);
    documents.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return documents;
}

void write_ids(const char* path, const std::vector<std::vector<std::int32_t>>& ids) {
  std::ofstream out(path, std::ios::binary);
  const std::int32_t end = -1;
  for (const auto& document : ids) {
    out.write(reinterpret_cast<const char*>(document.data()),
              static_cast<std::streamsize>(document.size() * sizeof(std::int32_t)));
    out.write(reinterpret_cast<const char*>(&end), sizeof(end));
  }
}

int run(char** arguments) {
  const Tokenizer tokenizer(arguments[1]);
  const std::string text = read_file(arguments[2]);
  const auto documents = documents_of(text);
  std::vector<std::vector<std::int32_t>> ids(documents.size());
  const auto encode = [&] {
    for (std::size_t i = 0; i < documents.size(); ++i) {
      ids[i] = tokenizer.encode(documents[i], true);
    }
  };
  encode();
  write_ids(arguments[3], ids);
  std::printf("ready\n");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    const std::clock_t begin = std::clock();
    encode();
    std::printf("%.6f\n", static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace rollcall

int main(int count, char** arguments) {
  if (count != 4) {
    std::fprintf(stderr, "usage: tokenizer_benchmark TOKENIZER_JSON DOCUMENTS IDS\n");
    return 2;
  }
  try {
    return rollcall::run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
