// SPDX-License-Identifier: Apache-2.0
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comms/error.h"
#include "configs/problems.h"
#include "model/cpu_kernels.h"
#include "rollcall/check_command.h"
#include "rollcall/commands.h"
#include "rollcall/inspect_command.h"
#include "rollcall/model_text_commands.h"
#include "rollcall/objective_command.h"
#include "rollcall/regrade_command.h"
#include "rollcall/submit_command.h"
#include "rollcall/version.h"
#include "trainer/report.h"

namespace rollcall {
namespace {

using Action = std::function<int()>;

// A subcommand that reads a run file.
CLI::App* add_run_command(CLI::App& app, const std::string& name, const std::string& help,
                          RunArguments& run) {
  CLI::App* command = app.add_subcommand(name, help);
  command->add_option("RUN.yaml", run.run_file, "the run file")->required();
  command->add_option("--set", run.overrides, "override a key: batch.group_size=32")
      ->allow_extra_args(false);
  return command;
}

void add_training_commands(CLI::App& app, RunArguments& run, Action& action) {
  static bool roles = false, requeue = false;
  CLI::App* train = add_run_command(
      app, "train", "train; resumes by itself if the run directory holds a checkpoint", run);
  train->add_flag("--roles", roles, "print which rank does what and stop");
  train->add_flag("--requeue", requeue,
                  "in a Slurm job: put the job back into the queue if the run was stopped by its "
                  "end or by a death and can go on; do nothing if the run is done");
  train->callback(
      [&] { action = [&] { return roles ? roles_command(run) : train_command(run, requeue); }; });
  CLI::App* sft = add_run_command(app, "sft", "warm start from demonstrations", run);
  sft->callback([&] { action = [&] { return sft_command(run); }; });
}

void add_eval_command(CLI::App& app, RunArguments& run, Action& action) {
  static EvalArguments a;
  CLI::App* eval = add_run_command(
      app, "eval", "pass@k and best of n on the held-out set: a JSON line, and a table on stderr",
      run);
  eval->add_option("CKPT,--checkpoint", a.checkpoint,
                   "what to evaluate instead of model.path: a Hugging Face directory, a run's "
                   "folder, or one of its checkpoints");
  eval->add_option("--baseline", a.baseline, "a policy to compare with, task by task");
  eval->add_flag("--allow-training-rows", a.allow_training_rows,
                 "evaluate although rows of data.valid are training rows");
  eval->add_flag("--allow-differences", a.allow_differences,
                 "evaluate although the policy was trained with other tools, limits or chat");
  eval->add_option("--as", a.role)->group("");
  eval->add_option("--model-dir", a.model_dir)->group("");
  eval->callback([&] {
    action = [&] {
      a.run = run;
      return eval_command(a);
    };
  });
}

void add_preflight_command(CLI::App& app, RunArguments& run, Action& action) {
  static PreflightArguments a;
  CLI::App* preflight = add_run_command(
      app, "preflight",
      "before a run is paid for: can the policy learn from these tasks and this grader, with what "
      "batch, and in how many hours; exit code 4: no",
      run);
  preflight->add_option("--tasks", a.tasks, "training tasks to sample (64)")
      ->check(CLI::Range(1, 1000000));
  preflight->add_option("--samples", a.samples, "first rollouts of each task (32)")
      ->check(CLI::Range(2, 1000000));
  preflight
      ->add_option("--max-rollouts", a.max_rollouts,
                   "while successes are rare, rounds follow up to so many rollouts (8192)")
      ->check(CLI::Range(2, 10000000));
  preflight->add_option("--workers", a.workers, "that sample here, instead of cluster.workers")
      ->check(CLI::Range(1, 100000));
  preflight
      ->add_option("--hours", a.hours,
                   "that there are for the run: steps that grow are capped by what fits")
      ->check(CLI::Range(0.01, 100000.0));
  preflight->callback([&] {
    action = [&] {
      a.run = run;
      return preflight_command(a);
    };
  });
}

void add_submit_command(CLI::App& app, RunArguments& run, Action& action) {
  static SubmitArguments a;
  CLI::App* submit = add_run_command(app, "submit", "submit a run to Slurm", run);
  submit->add_option("--site", a.site,
                     "the site file; else $ROLLCALL_SITE, ~/.config/rollcall/site.yaml");
  submit->add_option("--sweep", a.sweeps, "one run for each value: KEY=VALUE,VALUE")
      ->allow_extra_args(false);
  submit->add_flag("--dry-run", a.dry_run, "print the batch script and submit nothing");
  submit->add_option("--chain", a.chain, "submit N jobs that follow each other; none is requeued")
      ->check(CLI::Range(1, 1000));
  submit->callback([&] {
    action = [&] {
      a.run = run;
      return run_submit(a, std::cout, std::cerr);
    };
  });
}

void add_doctor_command(CLI::App& app, RunArguments& run, Action& action) {
  static DoctorArguments a;
  CLI::App* doctor = app.add_subcommand(
      "doctor", "what works on this machine, what is missing, and what to do about it");
  doctor->add_option("RUN.yaml", run.run_file, "also what this run needs");
  doctor->add_option("--set", run.overrides, "override a key of it")->allow_extra_args(false);
  doctor->add_option("--site", a.site, "the site file, as of submit");
  doctor->add_flag("--json", a.json, "one JSON object a line");
  doctor->add_flag("--ping", a.ping)->group("");
  doctor->add_option("--read", a.probe_file)->group("");
  doctor->callback([&] {
    action = [&] {
      a.run = run;
      return doctor_command(a);
    };
  });
}

void add_export_command(CLI::App& app, Action& action) {
  static ExportArguments a;
  CLI::App* exporter = app.add_subcommand(
      "export", "a model directory or a run becomes a serving directory; re-opened and compared");
  exporter->add_option("SOURCE", a.source, "Hugging Face directory, or runs/<name>")->required();
  exporter->add_option("--out", a.out, "directory to write")->required();
  exporter->add_option("--dtype", a.dtype, "float32 or bfloat16")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  exporter->add_option("--max-shard-bytes", a.max_shard_bytes, "split larger weights into shards");
  exporter->add_option("--adapter", a.adapter, "of a model: a PEFT directory, with --merge");
  exporter->add_flag("--merge", a.merge, "make the adapter part of the weights");
  exporter->add_option("--step", a.step, "of a run: the checkpoint of this step, not the newest")
      ->check(CLI::NonNegativeNumber);
  exporter->add_flag("--adapter-only", a.adapter_only,
                     "of a run: its LoRA adapter as a PEFT directory, not the merged model");
  exporter->callback([&] { action = [] { return export_command(a); }; });
}

void add_run_reading_commands(CLI::App& app, Action& action) {
  static std::string run_dir;
  static std::int64_t row = -1;
  static bool text = false, batch = false;
  CLI::App* report = app.add_subcommand("report", "write RUN/report.html and audit.html anew");
  report->add_option("RUN", run_dir, "runs/<name>")->required();
  report->callback([&] {
    action = [&] {
      write_report(run_dir);
      return 0;
    };
  });
  CLI::App* inspect = app.add_subcommand("inspect", "read a run's journal");
  inspect->add_option("RUN", run_dir, "runs/<name>")->required();
  CLI::Option* row_option = inspect->add_option("--row", row, "show one trajectory");
  row_option->check(CLI::NonNegativeNumber);
  inspect->add_flag("--text", text, "with --row: also all of its text, as the policy saw it")
      ->needs(row_option);
  inspect->add_flag("--batch", batch, "how many rollouts each step was given, and why")
      ->excludes(row_option);
  inspect->callback([&] {
    action = [&] {
      if (batch) return run_inspect_batch(run_dir, std::cout);
      return run_inspect(run_dir, row < 0 ? std::nullopt : std::optional(row), text, std::cout);
    };
  });
}

void add_replay_command(CLI::App& app, const RunArguments& run, Action& action) {
  static ReplayArguments a;
  CLI::App* replay = app.add_subcommand(
      "replay", "redo an update of a run from its journal, and say whether it comes out the same");
  replay->add_option("RUN", a.run_dir, "runs/<name>")->required();
  replay->add_option("--step", a.step, "the update that made policy version STEP + 1")
      ->required()
      ->check(CLI::NonNegativeNumber);
  replay->add_flag("--json", a.json, "one JSON object");
  replay->callback([&] {
    action = [&] {
      a.run = run;
      return replay_command(a);
    };
  });
}

void add_regrade_command(CLI::App& app, Action& action) {
  static RegradeArguments a;
  CLI::App* regrade = app.add_subcommand(
      "regrade", "have a run's rollouts graded again, and show which conclusions change");
  regrade->add_option("RUN", a.run_dir, "runs/<name>")->required();
  regrade->add_option("--config", a.config,
                      "the run file whose grader is asked, not the run's own");
  regrade->add_option("--set", a.overrides, "override a key of it: grader.url=...")
      ->allow_extra_args(false);
  regrade->add_option("--step", a.steps, "only rollouts of step A, or of steps A..B");
  regrade->add_option("--split", a.split, "only train, only valid, or only canary")
      ->check(CLI::IsMember({"train", "valid", "canary"}));
  regrade->add_flag("--only-passed", a.only_passed, "only rollouts that passed");
  regrade->add_option("--sample", a.sample, "at most so many, evenly over the run")
      ->check(CLI::PositiveNumber);
  regrade->add_option("--name", a.name, "write RUN/regrade-NAME.json; else the time of day");
  regrade->add_flag("--json", a.json, "print that file's object instead of a text");
  regrade->callback([&] { action = [] { return regrade_command(a); }; });
}

void add_model_commands(CLI::App& app, Action& action) {
  static std::string path, jsonl;
  static LogitsArguments logits;
  CLI::App* model = app.add_subcommand("model", "what the model code computes, as JSON lines");
  model->require_subcommand(1);
  CLI::App* command =
      model->add_subcommand("logits", "logits, log-probabilities, entropies, gradients");
  command->add_option("DIR", logits.dir)->required();
  command->add_option("--adapter", logits.adapter, "PEFT directory of a LoRA adapter on DIR");
  command->add_option("--ids", logits.ids, "1,2,3")
      ->delimiter(',')
      ->required()
      ->check([](const std::string& id) { return id.empty() ? "an id is missing" : ""; });
  command->add_option("--dtype", logits.dtype, "of the weights: float32 or bfloat16")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  command->add_option("--temperature", logits.temperature);
  command->add_flag("--mask-padding", logits.mask_padding,
                    "rows past the tokenizer's last id get -inf");
  command->add_option("--grad", logits.gradients, "NAME,NAME")->delimiter(',');
  command->add_option("--greedy", logits.greedy, "ids of the arg-max continuation")
      ->check(CLI::NonNegativeNumber);
  command->callback([&] { action = [&] { return model_logits_command(logits); }; });
  const auto add_text_command = [&](const char* name, const char* help, auto run) {
    CLI::App* text = model->add_subcommand(name, help);
    text->add_option("DIR", path)->required();
    text->add_option("--jsonl", jsonl, "one request a line")->required();
    text->callback([&action, run] { action = [run] { return run(path, jsonl, std::cout); }; });
  };
  add_text_command("tokenize", "encode and decode", run_model_tokenize);
  add_text_command("render", "conversations to prompts", run_model_render);
  add_text_command("parse", "model turns to tool calls", run_model_parse);
  CLI::App* check = model->add_subcommand("check", "validate safetensors files");
  check->add_option("PATH", path)->required();
  check->callback([&] { action = [&] { return run_model_check(path, std::cout); }; });
  CLI::App* objective =
      app.add_subcommand("objective", "what the loss code computes, as JSON lines");
  objective->add_option("--jsonl", jsonl, "one request a line")->required();
  objective->callback([&] { action = [&] { return run_objective(jsonl, std::cout); }; });
}

std::vector<std::string> commands_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

// Refuses a word that stands where a command belongs and is none.
void check_command(CLI::App& app, std::span<char* const> words) {
  if (words.empty() || *words.front() == '-' || *words.front() == '\0') return;
  const std::vector<std::string> known = commands_of(app);
  if (known.empty()) return;
  const std::string word = words.front();
  if (std::find(known.begin(), known.end(), word) != known.end())
    return check_command(*app.get_subcommand(word), words.subspan(1));
  const std::vector<std::string_view> names(known.begin(), known.end());
  const std::string_view meant = nearest(word, names);
  throw input_error(app.get_name() + " has no command " + cited(word),
                    (meant.empty() ? "" : "did you mean " + std::string(meant) + "? ") +
                        "the commands are " + joined(names));
}

int run(int argc, char** argv) {
  CLI::App app("Reinforcement fine-tuning for tool-using language-model agents.", "rollcall");
  app.set_version_flag("--version", std::string("rollcall ") + kVersion);
  app.require_subcommand(1);
  RunArguments arguments;
  arguments.argc = argc;
  arguments.argv = argv;
  Action action;
  add_training_commands(app, arguments, action);
  add_eval_command(app, arguments, action);
  add_preflight_command(app, arguments, action);
  add_submit_command(app, arguments, action);
  add_export_command(app, action);
  add_run_reading_commands(app, action);
  add_replay_command(app, arguments, action);
  add_regrade_command(app, action);
  add_model_commands(app, action);
  add_doctor_command(app, arguments, action);
  check_command(app, std::span(argv, static_cast<std::size_t>(argc)).subspan(argc > 0 ? 1 : 0));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kBadInput);
  }
  return action();
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) {
  ::signal(SIGXFSZ, SIG_IGN);  // a file that grows too large is an error like a full disk
  rollcall::fix_order_of_sums();
  try {
    return rollcall::run(argc, argv);
  } catch (const rollcall::Error& error) {
    std::fprintf(stderr, "rollcall: %s\n", error.what());
    if (!error.what_to_do().empty())
      std::fprintf(stderr, "  what to do: %s\n", error.what_to_do().c_str());
    return static_cast<int>(error.exit_code());
  } catch (const std::exception& error) {
    std::fprintf(stderr,
                 "rollcall: unexpected: %s\n  this is a bug in rollcall: please report it\n",
                 error.what());
    return static_cast<int>(rollcall::ExitCode::kFailure);
  }
}
