// What the volume asks of whoever replicates it. Implemented by net/; a volume without peers has none.
// (fs/ knows no network: this is the one opening through which it is told.)
#pragma once

#include <functional>

#include "fs/base/ids.h"
#include "fs/base/result.h"

namespace vmfs {

// Whether this node may change a group now, and if not, why not.
enum class Gate : std::uint8_t {
  kOpen,          // owner: changes go ahead
  kSecondary,     // another node owns it, or nobody does: ask for the token first
  kSuspended,     // owned here before a stop, but not yet settled with the peers
  kReleasing,     // being handed over
  kFrozen,        // owned here; a peer is lost and the configuration says: freeze
  kInconsistent,  // a base copy is under way
  kSplit,         // diverged; a person must choose. The owner of each side may go on changing it: this
                  // gate is for the side that does not own it
};

class ReplicationHooks {
 public:
  virtual ~ReplicationHooks() = default;

  // A change of `group` was asked for while its gate is not open. Returns what to tell the client:
  // kWouldWait parks the request until Volume::reopen(group) or Volume::refuse(group) is called (the
  // token has been asked for); anything else is the answer (EROFS, EBUSY, EIO). Any thread.
  virtual Error may_not_change(GroupId group, Gate gate) = 0;

  // Records below `lsn` are written here. Called after commits by any thread; must be cheap (an atomic
  // store; a wake-up only if enough has gathered).
  virtual void written(Lsn lsn) = 0;

  // A flush was appended, ending at `lsn`: `done` is called, from any thread, maybe before this
  // returns, once what the mode demands of the peers holds for everything below `lsn` (or the peer was
  // counted lost and the new epochs are durable). The local sync goes on meanwhile.
  virtual void await_peers(GroupId group, Lsn lsn, std::function<void(Result<>)> done) = 0;

  // Whether the writer should slow down: what is not yet shipped has reached its bound (kWouldWait
  // is then returned for writes; Volume::resume_writes() wakes them).
  virtual bool backlog_full() = 0;
};

}  // namespace vmfs
