// The scenarios' entry points; see scenario_list.cc for what they are.
#pragma once

#include <cstdint>

namespace vmfs::sim {

void run_journal_scenario(std::uint64_t seed);

}  // namespace vmfs::sim
