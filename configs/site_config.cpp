// SPDX-License-Identifier: Apache-2.0
#include "configs/site_config.h"

#include <optional>

#include "comms/error.h"
#include "slurm/sweep.h"

namespace rollcall {
namespace {

constexpr Range kTimeLimit{60e3, 365 * 24 * 3600e3};  // milliseconds

using Texts = std::vector<std::string>;
using Variables = std::vector<std::pair<std::string, std::string>>;
using ReadText = std::function<std::optional<std::string>(ReadContext&, const YamlNode&,
                                                          const std::string& path)>;

std::optional<std::string> read_word(ReadContext& context, const YamlNode& node,
                                     const std::string& path) {
  auto text = context.read_line(node, path);
  if (!text) return {};
  try {
    require_plain(*text, "");
    return text;
  } catch (const Error&) {
    context.problem(
        node, path,
        "expected a word without blanks, quotes, $, # and backslash, found " + cited(*text));
    return {};
  }
}

// An option of sbatch, written out as it is.
std::optional<std::string> read_directive(ReadContext& context, const YamlNode& node,
                                          const std::string& path) {
  const auto text = context.read_line(node, path);
  if (text && text->starts_with("--array"))
    context.problem(node, path, "jobs of an array need settings of their own: use --sweep");
  if (!text || text->starts_with("-")) return text;
  context.problem(
      node, path,
      "expected an option of sbatch, such as --constraint=icelake, found " + cited(*text));
  return {};
}

std::optional<std::string> read_shell_line(ReadContext& context, const YamlNode& node,
                                           const std::string& path) {
  return context.read_line(node, path);
}

template <typename S>
Field<S> word(std::string_view key, std::string S::*member, std::string_view meaning) {
  return value_field(key, member, "word", meaning, read_word, format_text);
}

template <typename S>
Field<S> list(std::string_view key, Texts S::*member, std::string type, ReadText read_entry,
              std::string_view meaning) {
  return value_field(
      key, member, "list of " + std::move(type), meaning,
      [read_entry](ReadContext& c, const YamlNode& n, const std::string& p) {
        return c.read_list(n, p, [&](const YamlNode& item, const std::string& place) {
          return read_entry(c, item, place);
        });
      },
      [](const Texts& values) {
        std::string out;
        for (const std::string& value : values)
          out += (out.empty() ? "" : ", ") + format_text(value);
        return "[" + out + "]";
      });
}

bool is_variable_name(std::string_view name) {
  return !name.empty() && std::isdigit(static_cast<unsigned char>(name.front())) == 0 &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
}

// A number is text here: every variable's value is.
std::optional<std::string> read_variable(ReadContext& context, const YamlEntry& entry,
                                         const std::string& path) {
  if (!is_variable_name(entry.key)) {
    context.problem(entry.value, path, cited(entry.key) + " is no name of a variable");
    return {};
  }
  YamlNode value = entry.value;
  value.plain = false;
  return context.read_line(value, path);
}

std::optional<Variables> read_variables(ReadContext& context, const YamlNode& node,
                                        const std::string& path) {
  if (!context.check_section(node, path)) return {};
  Variables variables;
  for (const YamlEntry& entry : node.entries)
    if (auto value = read_variable(context, entry, child_path(path, entry.key)))
      variables.emplace_back(entry.key, *std::move(value));
  return variables;
}

std::string write_variables(const Variables& variables) {
  std::string out;
  for (const auto& [name, value] : variables)
    out += (out.empty() ? "" : ", ") + name + ": " + format_text(value);
  return "{" + out + "}";
}

std::vector<Field<ContainerOptions>> container_fields() {
  using O = ContainerOptions;
  return {
      word("image", &O::image, "an Apptainer image; empty: none"),
      list("binds", &O::binds, "words", read_word, "each HOST or HOST:INSIDE"),
      word("program", &O::program, "rollcall inside the image, `rollcall` unless said otherwise"),
  };
}

void cross_check(const SiteOptions& site, ReadContext& context) {
  if (!site.container.image.empty() && site.nodes > 1)
    context.problem("container",
                    "works on one node: an mpirun inside a container starts nothing on others");
}

}  // namespace

std::vector<Field<SiteOptions>> site_fields() {
  using O = SiteOptions;
  return {
      word("partition", &O::partition, "Empty: the cluster's default, here and in the next two."),
      word("account", &O::account, "Who pays."),
      word("qos", &O::qos, "Quality of service."),
      duration("time", &O::time, kTimeLimit, "Limit of one job."),
      integer("nodes", &O::nodes, kFromOne,
              "Hosts; the ranks fill one after the other, learners first."),
      integer("cpus_per_rank", &O::cpus_per_rank, {1, 1e5},
              "Cores. A worker computes on one, a learner on those of the ranks on its host."),
      size("memory_per_rank", &O::memory_per_rank, {0, 1e15}, "0: the cluster's default."),
      integer(
          "gpus_per_learner", &O::gpus_per_learner, {0, 1e3},
          "On several nodes each has to have those of one node's learners, though only workers run "
          "there: the nodes of an allocation are alike."),
      flag("requeue", &O::requeue,
           "A job that reached its limit or lost a node puts itself back in the queue. `false` "
           "where that is not allowed: `--chain N`."),
      list("modules", &O::modules, "words", read_word, "Loaded with `module load`."),
      list("setup", &O::setup, "shell lines", read_shell_line,
           "Run after that, as they are. If one fails, so does the job."),
      value_field("environment", &O::environment, "section of variable: text",
                  "Exported as it is, for example `OMPI_MCA_btl_tcp_if_include: eth0`.",
                  read_variables, write_variables),
      section("container", &O::container, container_fields(),
              "Where rollcall runs inside an image; on one node only."),
      list("extra", &O::extra, "options of sbatch", read_directive,
           "Further #SBATCH lines, such as `--constraint=icelake`."),
  };
}

SiteOptions parse_site_options(const std::string& text, const std::filesystem::path& file) {
  Problems problems;
  YamlNode root;
  if (!parse_yaml(text, 0, problems, root)) problems.throw_if_any(file.string());
  SiteOptions site;
  std::map<std::string, std::string> as_written;
  const EnvironmentLookup nothing = [](const std::string&) { return std::nullopt; };
  ReadContext context(file.parent_path(), nothing, problems, as_written);
  read_section(context, root, "", site_fields(), site);
  cross_check(site, context);
  problems.throw_if_any(file.string());
  return site;
}

SiteOptions read_site_options(const std::filesystem::path& file) {
  return parse_site_options(read_yaml_file(file, "site file"), file);
}

}  // namespace rollcall
