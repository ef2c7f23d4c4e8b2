// vmfs recover, vmfs inspect
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "cli/inspect.h"
#include "cli/recover.h"
#include "fs/base/digits.h"
#include "fs/base/printable.h"

namespace vmfs {

namespace {

struct OfflineArguments {
  std::string store, until, file;
  InspectOptions inspect;
};

// Decimal, or hexadecimal with 0x, as messages and `inspect` print it.
Result<Lsn> parse_lsn(std::string_view text) {
  std::string_view digits = text;
  int base = 10;
  if (digits.starts_with("0x")) {
    digits.remove_prefix(2);
    base = 16;
  }
  Lsn lsn = 0;
  if (!parse_digits(digits, lsn, base))
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("\"{}\" is not an LSN: give the number that the error message names, as "
                            "0x4000120 or in decimal digits",
                            text));
  return lsn;
}

Result<> run_recover(const OfflineArguments& arguments) {
  std::optional<Lsn> until;
  if (!arguments.until.empty()) {
    VMFS_ASSIGN(until, parse_lsn(arguments.until));
  }
  VMFS_ASSIGN(RecoverySummary summary, recover_store(arguments.store, until));
  if (!summary.cut_directory.empty())
    fmt::print("what came after LSN {:#x} was cut off and is kept in {}\n", *until, summary.cut_directory);
  fmt::print("{} is up to date: {} images, nothing left in the journal to apply\n",
             summary.images_directory, summary.images);
  for (const std::string& problem : summary.problems) fmt::print("note: {}\n", printable(problem));
  return {};
}

Result<> run_inspect(const OfflineArguments& arguments) {
  return inspect_file(arguments.file, arguments.inspect,
                      [](std::string_view line) { fmt::print("{}\n", printable(line)); });
}

}  // namespace

void add_offline_commands(CommandLine& line) {
  auto arguments = std::make_shared<OfflineArguments>();
  line.add("recover", "Bring an unmounted store up to its journal: its images are then plain files")
      .required("STORE", arguments->store, "the store, not mounted")
      .optional("--until", arguments->until,
                "LSN: cut the journal off there, when its middle is damaged; what is cut is kept")
      .runs([arguments] { return report(run_recover(*arguments)); });

  line.add("inspect", "Print any file that vmfs writes, read-only")
      .required("FILE", arguments->file,
                "a segment, state, vmfs.toml, image, journal, store, or whatever else is in one")
      .flag("--records", arguments->inspect.records, "list each record of a segment")
      .flag("--payloads", arguments->inspect.payloads, "and the first bytes of each payload")
      .runs([arguments] { return report(run_inspect(*arguments)); });
}

}  // namespace vmfs
