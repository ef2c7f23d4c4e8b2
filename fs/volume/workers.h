// The volume's background threads in production: one that syncs the journal on time and prepares
// segments, one that applies. The simulator calls the same steps itself.
#pragma once

#include <memory>

#include "fs/volume/volume.h"

namespace vmfs {

class VolumeWorkers {
 public:
  // Starts the threads. They stop, at a step's end, when this is destroyed, before the volume is.
  explicit VolumeWorkers(Volume& volume);
  ~VolumeWorkers();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vmfs
