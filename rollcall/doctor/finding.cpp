// SPDX-License-Identifier: Apache-2.0
#include "rollcall/doctor/finding.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

namespace rollcall {
namespace {

constexpr std::array<const char*, 4> kNames = {"ok", "warning", "missing", "failed"};

const char* name_of(Health health) { return kNames[static_cast<std::size_t>(health)]; }

}  // namespace

std::string finding_text(const Finding& finding) {
  std::string text =
      fmt::format("{:<16} {:<8} {}\n", finding.what, name_of(finding.health), finding.detail);
  if (!finding.remedy.empty() && finding.health != Health::kOk)
    text += fmt::format("{:<16} {:<8}   -> {}\n", "", "", finding.remedy);
  return text;
}

std::string finding_json(const Finding& finding) {
  return nlohmann::ordered_json{{"what", finding.what},
                                {"state", name_of(finding.health)},
                                {"detail", finding.detail},
                                {"remedy", finding.health == Health::kOk ? "" : finding.remedy}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<Finding> parse_finding(std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("state")) return std::nullopt;
  for (std::size_t i = 0; i < kNames.size(); ++i)
    if (json["state"] == kNames[i])
      return Finding{json.value("what", ""), static_cast<Health>(i), json.value("detail", ""),
                     json.value("remedy", "")};
  return std::nullopt;
}

}  // namespace rollcall
