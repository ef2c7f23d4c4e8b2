#include "fs/store/file_cache.h"

namespace vmfs {

std::shared_ptr<File> FileCache::find(ObjectId object) {
  std::lock_guard lock(mutex_);
  auto found = entries_.find(object);
  if (found == entries_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, found->second);
  return found->second->file;
}

std::shared_ptr<File> FileCache::insert(ObjectId object, std::shared_ptr<File> file) {
  std::shared_ptr<File> evicted;  // closed after the lock is released: closing may wait for the disk
  std::lock_guard lock(mutex_);
  if (auto found = entries_.find(object); found != entries_.end()) return found->second->file;
  recent_.push_front({object, file});
  entries_[object] = recent_.begin();
  if (entries_.size() > files_max_) {
    evicted = std::move(recent_.back().file);
    entries_.erase(recent_.back().object);
    recent_.pop_back();
  }
  return file;
}

void FileCache::forget(ObjectId object) {
  std::shared_ptr<File> forgotten;
  std::lock_guard lock(mutex_);
  auto found = entries_.find(object);
  if (found == entries_.end()) return;
  forgotten = std::move(found->second->file);
  recent_.erase(found->second);
  entries_.erase(found);
}

std::size_t FileCache::size() {
  std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace vmfs
