// A client of one volume: does random changes, remembers them in a History, and knows what it must
// read.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fs/volume/volume.h"
#include "tests/sim/lib/sim_random.h"
#include "tests/sim/lib/volume_model.h"

namespace vmfs::sim {

struct ClientLimits {
  std::size_t objects_max = 12;
  std::uint64_t cells_max = 2048;       // of an image: 512 KiB
  std::uint64_t write_cells_max = 256;  // 64 KiB
  unsigned names_percent = 15;          // of the operations that change names
};

class VolumeClient {
 public:
  enum class Outcome {
    kDone,
    kRefused,  // certainly not done
    kUnknown,  // the node failed under it: done or not
  };
  VolumeClient(Random random, ClientLimits limits) : random_(random), limits_(limits) {}

  // A new life of the volume; handles of an earlier one are forgotten.
  void attach(Volume* volume);
  // failed: whether the node may have failed, asked after an operation that returned an error.
  Outcome change(const std::function<bool()>& failed);
  void check_some_read();
  // Flushes an image or the name space. Nothing: it failed. Then, if the node still stood when it
  // answered, that group's changes are promised: flushed().
  std::optional<GroupId> flush();
  void flushed(GroupId group) { history_.flushed(group); }
  void all_flushed() { history_.all_flushed(); }
  // Everything that the volume holds, by its names.
  ModelState observe();
  std::string settle(bool all);
  // Lets go of all images, as a clean unmount does.
  void close_all();

  const History& history() const { return history_; }
  const std::vector<Lsn>& change_ends() const { return ends_; }

 private:
  struct Handle {
    ObjectRef image;
    bool wrote = false;
  };
  ObjectId pick(FileType type, bool or_root);
  std::string fresh_name();
  Handle* open(ObjectId object);
  void close(ObjectId object);
  Change plan_names();
  Change plan_data();
  Result<ObjectId> perform(const Change& change);
  void observe_directory(ObjectId directory, ModelState& out);

  Random random_;
  const ClientLimits limits_;
  Volume* volume_ = nullptr;
  std::map<ObjectId, Handle> handles_;
  History history_;
  ChangeNumber next_ = 1;
  std::vector<Lsn> ends_{0};  // by change number
};

}  // namespace vmfs::sim
