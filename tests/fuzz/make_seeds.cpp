// SPDX-License-Identifier: Apache-2.0
// make_seeds CORPUS SOURCE: what the fuzz targets whose input is no file of the golden data begin
// with.
#include "comms/link_messages.h"
#include "comms/wire.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/journal_samples.h"
#include "trainer/checkpoint.h"
#include "trainer/result.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;  // texts with NUL bytes

std::string bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The seeds of one target; each begins with a byte that names its kind.
class Seeds {
 public:
  explicit Seeds(fs::path folder) : folder_(std::move(folder)) { fs::create_directories(folder_); }
  void add(char kind, const std::string& bytes) { add(std::string(1, kind) + bytes); }
  void add(const std::string& bytes) {
    write_input(folder_ / ("seed-made-" + std::to_string(number_++)), bytes);
  }

 private:
  fs::path folder_;
  int number_ = 0;
};

void wire(Seeds seeds) {
  seeds.add(0, encode(sample_trajectory(3, 8)));
  seeds.add(1, encode(Assignment{.step = 3, .group = 7, .seed = 5}));
  seeds.add(2, encode(Hello{"host/boot", 17}));
  seeds.add(3,
            encode(Welcome{
                .parameter_bytes = 64, .readers = 2, .shared_memory = true, .address = {"/x", 9}}));
  seeds.add(4, encode(WeightsBegin{3, 4}));
  seeds.add(5, encode(Failure{ExitCode::kBadInput, "what", "to do"}));
  seeds.add(6, encode(TurnRequest{1, 5, {1, 2}, {3}, {16, {0}, 8}}));
  seeds.add(7, encode(TurnReply{1, {{4, 5}, {-1, -2}, {0, 1}, 7, StopReason::kContextFull}}));
  seeds.add(8, encode(WeightsLoaded{3, 0.5}));
  seeds.add(9, encode_number(8));
}

void checkpoint(Seeds seeds) {
  const TempFolder folder;
  TrainState state{.step = 1, .sampler = "{}", .spec = "{}"};
  state.lora = LoraOptions{4, 8, {"q_proj"}, false};
  const std::vector<float> floats{1, 2, 3, 4};
  state.policy = {0, floats, floats, floats};
  const auto saved = save_checkpoint(folder.path(), state, 1);
  seeds.add(0, bytes_of(saved / "MANIFEST.json"));
  seeds.add(1, bytes_of(saved / "state.json"));
  seeds.add(2, bytes_of(saved / "state.safetensors"));
}

void result(Seeds seeds) {
  const TempFolder folder;
  write_result(folder.path(), {.status = RunStatus::kStopped,
                               .before = Evaluation{.pass_at_1 = 0.5, .tasks = 3},
                               .after = Evaluation{},
                               .message = "stopped"});
  seeds.add(bytes_of(folder.path() / "result.json"));
}

void http_reply(Seeds seeds) {
  seeds.add(
      0,
      R"({"type":"function_call_output","call_id":"call_1","output":"4","done":true,"reward":1,"metrics":{"a":2}})");
  seeds.add(0, R"({"output":[{"type":"output_text","text":"4"}]})");
  seeds.add(
      1,
      R"({"score":0.5,"sub_rewards":{"a":1},"gates":{"g":true},"flags":["hacking"],"explanation":"e","metrics_list":[{"name":"m","value":1}]})");
  seeds.add(1, R"({"error":{"code":"busy","message":[[1]],"retryable":true},"mask_sample":true})");
  seeds.add(2, "a=b; Path=/a; Max-Age=10; Expires=Fri, 31 Dec 9999 23:59:59 GMT; Secure\nc=d");
  seeds.add(3, "Sun, 06 Nov 1994 08:49:37 GMT\nSun, 06 Nov 1994 08:49:30 GMT");
  seeds.add(3, "120");
  seeds.add(4, "hunter22 tok_12345 dXNlcjpodW50ZXIyMg== \xff");
  seeds.add(5, R"({"answer":[1,{"b":2}]})");
  seeds.add(6, "Sun, 06-Nov-1994 08:49:37 GMT");
  seeds.add(7, "HTTPS://user:word@[::1]:8443/a/b?c#d");
}

void http_client(Seeds seeds) {
  const std::string body = R"({"output":"4"})";
  seeds.add("HTTP/1.1 200 OK\r\nContent-Length: 14\r\nSet-Cookie: a=b; Path=/\r\n\r\n" + body);
  seeds.add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n" + body +
            "\r\n0\r\nT: x\r\n\r\n");
  seeds.add("HTTP/1.1 307 X\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n");
  seeds.add(
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 429 X\r\nRetry-After: 1\r\nDate: Sun, 06 Nov 1994 "
      "08:49:37 GMT\r\n\r\n");
  seeds.add(
      "HTTP/1.1 200 OK\r\nContent-Encoding: "
      "gzip\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b\x04\x00\x43\xbe\xb7\xe8"
      "\x01\x00\x00\x00"s);
}

void lifeline(Seeds seeds) {
  for (const char* lines :
       {"ready\nleft 0\n", "failed 2 no such file\n", "ready\n", "hello token 1\n", "left\n\n\n"}) {
    seeds.add(0, lines);
    seeds.add(1, lines);
  }
}

void files(const fs::path& corpus, const fs::path& source) {
  Seeds run(corpus / "run_file_fuzz"), adapter(corpus / "adapter_fuzz"),
      data(corpus / "dataset_fuzz"), journal(corpus / "journal_fuzz");
  const std::string example = bytes_of(source / "configs/example.yaml");
  run.add(example);
  run.add(bytes_of(source / "examples/ledger/run.yaml") +
          "\0batch.group_size=4\0tools.0.timeout=3s"s);
  const auto peft = source / "tests/golden/adapters/qwen2-lora";
  adapter.add(0, bytes_of(peft / "adapter_config.json"));
  adapter.add(1, bytes_of(peft / "adapter_model.safetensors"));
  data.add(
      R"({"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"reference":1.5})");
  data.add(
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]},{"role":"assistant","content":"","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"x"},{"role":"assistant","content":"y"}]})");
  for (const char kind : {1, 0, 4}) journal.add(kind, "\xff\x00\x10\x00\x00\x01\xff"s);
}

}  // namespace
}  // namespace rollcall

int main(int, char** argv) {
  using namespace rollcall;
  const std::filesystem::path corpus = argv[1];
  wire(Seeds(corpus / "wire_fuzz"));
  checkpoint(Seeds(corpus / "checkpoint_fuzz"));
  result(Seeds(corpus / "result_fuzz"));
  http_reply(Seeds(corpus / "http_reply_fuzz"));
  http_client(Seeds(corpus / "http_client_fuzz"));
  lifeline(Seeds(corpus / "lifeline_fuzz"));
  files(corpus, argv[2]);
}
