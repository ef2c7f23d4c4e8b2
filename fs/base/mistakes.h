// Known mistakes that a test can switch on, one at a time, to show that it would find them. Never set
// outside tests; set before threads start.
#pragma once

namespace vmfs {

struct Mistakes {
  bool acknowledge_early = false;     // acknowledge a record before an earlier one is written
  bool one_epoch_twice = false;       // give two records one (epoch, seq) after an unclean stop
  bool retry_failed_sync = false;     // sync again after a failed sync, and believe it
  bool rename_by_path = false;        // redo a rename by its path instead of by its object
  bool apply_before_durable = false;  // carry records into the store before they are durable
};

inline Mistakes mistakes;

}  // namespace vmfs
