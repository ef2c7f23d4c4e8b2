// The scenarios' entry points; see scenario_list.cc for what they are.
#pragma once

#include <cstdint>

namespace vmfs::sim {

void run_journal_scenario(std::uint64_t seed);
void run_failed_sync_scenario(std::uint64_t seed);
void run_volume_scenario(std::uint64_t seed);
void run_names_scenario(std::uint64_t seed);
void run_failing_scenario(std::uint64_t seed);
void run_full_scenario(std::uint64_t seed);
void run_cluster_scenario(std::uint64_t seed);
void run_failover_scenario(std::uint64_t seed);
void run_administration_scenario(std::uint64_t seed);
void run_split_scenario(std::uint64_t seed);
void run_slow_line_scenario(std::uint64_t seed);

}  // namespace vmfs::sim
