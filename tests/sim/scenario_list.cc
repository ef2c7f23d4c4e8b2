#include "tests/sim/scenario_list.h"

#include "fs/base/mistakes.h"
#include "tests/sim/lib/scenario.h"

namespace vmfs::sim {

const std::vector<Scenario>& scenarios() {
  static const std::vector<Scenario> list = {
      {"journal", "several writers on one journal; deaths, power losses, failing calls",
       run_journal_scenario, 2},
      {"failed-syncs", "the journal's syncs fail, and then the power", run_failed_sync_scenario, 1},
      {"volume", "one node: deaths and power losses at any disk call", run_volume_scenario, 3},
      {"names", "the same, with mostly creates, renames and removals", run_names_scenario, 2},
      {"failing-disk", "the same, with failing syncs and writes", run_failing_scenario, 2},
      {"full-disk", "the same, on a disk that fills up", run_full_scenario, 1},
      {"cluster", "two nodes: cuts, deaths, power losses, failing and full disks", run_cluster_scenario,
       3},
      {"failover", "the same, and one is taken over by force while it is dead",
       run_failover_scenario, 3},
      {"administration", "two nodes: promotions, demotions, unmounts, long absences, among deaths and cuts",
       run_administration_scenario, 2},
      {"split", "both sides of a split brain go on, and a person chooses one", run_split_scenario, 2},
      {"slow-line", "an asynchronous peer on a line that is slower than the writer",
       run_slow_line_scenario, 1},
  };
  return list;
}

const std::vector<KnownMistake>& known_mistakes() {
  static const std::vector<KnownMistake> list = {
      {"acknowledge-early", "acknowledge a record before an earlier one is written",
       &mistakes.acknowledge_early, "journal"},
      {"acknowledge-early", "the same", &mistakes.acknowledge_early, "cluster"},
      {"retry-failed-sync", "sync again after a failed sync, and believe it",
       &mistakes.retry_failed_sync, "failed-syncs"},
      {"one-epoch-twice", "give two records one (epoch, seq) after an unclean stop",
       &mistakes.one_epoch_twice, "volume"},
      {"rename-by-path", "redo a rename by its path instead of by its object",
       &mistakes.rename_by_path, "names"},
      {"apply-before-durable", "carry records into the store before they are durable",
       &mistakes.apply_before_durable, "volume"},
      {"apply-before-durable", "the same", &mistakes.apply_before_durable, "cluster"},
  };
  return list;
}

}  // namespace vmfs::sim
