#include "tests/sim/scenario_list.h"

#include "fs/base/mistakes.h"
#include "tests/sim/lib/scenario.h"

namespace vmfs::sim {

const std::vector<Scenario>& scenarios() {
  static const std::vector<Scenario> list = {
      {"journal", "several writers on one journal; deaths, power losses, failing calls",
       run_journal_scenario, 2},
  };
  return list;
}

const std::vector<KnownMistake>& known_mistakes() {
  static const std::vector<KnownMistake> list = {
      {"acknowledge-early", "acknowledge a record before an earlier one is written",
       &mistakes.acknowledge_early, "journal"},
      {"retry-failed-sync", "sync again after a failed sync, and believe it",
       &mistakes.retry_failed_sync, "journal"},
  };
  return list;
}

}  // namespace vmfs::sim
