// What a thread knows about the parked request that it runs, and about the gate that the last call
// found closed.
#pragma once

#include <optional>

#include "fs/base/ids.h"
#include "fs/base/result.h"

namespace vmfs {

struct Refusal {
  GroupId group{};
  std::optional<Error> error;

  // Set while a retry runs that Volume::refuse() woke.
  static thread_local Refusal current;
  // The group whose gate made the last call on this thread return kWouldWait; none: something else.
  static thread_local GroupId waits_for;
  // How many wakes of gates there had been then.
  static thread_local std::uint64_t asked_at;
};

}  // namespace vmfs
