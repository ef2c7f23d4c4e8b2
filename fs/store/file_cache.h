// The images' files that are kept open: a bounded number, the longest unused closed first.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "fs/base/ids.h"
#include "fs/seam/disk.h"

namespace vmfs {

// Thread-safe. A file that somebody still holds stays open when it is forgotten here.
class FileCache {
 public:
  explicit FileCache(std::size_t files_max) : files_max_(files_max) {}

  // Null if it is not here.
  std::shared_ptr<File> find(ObjectId object);
  // Two threads may have opened the same file: what was here first is returned to both.
  std::shared_ptr<File> insert(ObjectId object, std::shared_ptr<File> file);
  // For an object that is deleted: a later find() must not give its file.
  void forget(ObjectId object);
  std::size_t size();

 private:
  struct Entry {
    ObjectId object{};
    std::shared_ptr<File> file;
  };

  const std::size_t files_max_;
  std::mutex mutex_;
  std::list<Entry> recent_;  // guarded by mutex_; the latest used first
  std::unordered_map<ObjectId, std::list<Entry>::iterator> entries_;  // guarded by mutex_
};

}  // namespace vmfs
