#include "fs/fuse/open_table.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "fs/base/log.h"
#include "fs/base/printable.h"

namespace vmfs {
namespace {

bool may_write(std::uint32_t flags) { return (flags & O_ACCMODE) != O_RDONLY; }

}  // namespace

std::uint32_t epoch_mark(const std::optional<GroupState>& group) {
  if (!group || group->history.empty()) return 0;
  return static_cast<std::uint32_t>(raw(group->history.back().epoch));
}

bool gave_away_since(const GroupState& group, std::uint32_t mark, NodeId self) {
  if (mark == 0) return false;
  const auto& history = group.history;
  std::size_t at = 0;  // an epoch that is forgotten lies before all
  for (std::size_t i = 0; i < history.size(); ++i)
    if (static_cast<std::uint32_t>(raw(history[i].epoch)) == mark) at = i;
  for (std::size_t i = at; i < history.size(); ++i) {
    const NodeId next = i + 1 < history.size() ? history[i + 1].node : group.owner;
    if (history[i].node == self && next != self) return true;
  }
  return false;
}

OpenTable::Handle& OpenTable::place(std::uint32_t index) {
  auto& chunk = chunks_[index / kChunk];
  if (chunk.load(std::memory_order_relaxed) == nullptr) {
    owned_.push_back(std::make_unique<Chunk>());
    chunk.store(owned_.back().get(), std::memory_order_release);
  }
  return (*chunk.load(std::memory_order_relaxed))[index % kChunk];
}

void OpenTable::count(Handle& handle) {
  handle.users = users_of(handle.object);
  if (!handle.direct) {
    handle.users->cached.fetch_add(1);
    if (handle.users->direct != 0) return;
    if (coherent_.size() >= kCoherentMax)
      std::erase_if(coherent_, [&](ObjectId object) { return !users_.contains(object); });
    coherent_.insert(handle.object);
  } else {
    if (handle.writable) coherent_.erase(handle.object);
    ++handle.users->direct;
  }
}

std::shared_ptr<OpenTable::Users> OpenTable::users_of(ObjectId object) {
  auto& known = users_[object];
  auto users = known.lock();
  if (!users) known = users = std::make_shared<Users>();
  return users;
}

void OpenTable::restore(Volume& volume) {
  std::lock_guard lock(mutex_);
  const std::uint32_t used = std::min(memory_.header().opens_used.load(), memory_.header().open_count);
  for (std::uint32_t index = used; index-- > 0;) {
    OpenEntry& entry = memory_.opens()[index];
    const ObjectId object{entry.object.load()};
    if (raw(object) == 0) {
      free_.push_back(index);
      continue;
    }
    Handle& handle = place(index);
    handle.object = object;
    handle.entry = &entry;
    handle.writable = may_write(entry.flags);
    if (auto group = volume.group(object);
        handle.writable && group && gave_away_since(*group, entry.epoch, volume.node()))
      entry.state.fetch_or(kOpenStale);
    handle.direct = (entry.state.load() & kOpenDirect) != 0;
    const bool has_written = (entry.state.load() & (kOpenWrote | kOpenStale)) == kOpenWrote;
    if (auto image = volume.open_image(object, handle.writable, has_written)) {
      handle.image = std::move(*image);
    } else {
      log_warning("image {} was open before the restart and cannot be opened again ({}): its users "
                  "get errors until they open it anew",
                  printable_name(volume.path_of(object)), image.error().message);
    }
    count(handle);
    if ((entry.state.load() & kOpenDrops) != 0) {
      handle.users->drop = Users::Drop::kDue;
      handle.users->drops = &entry;
    }
    by_request_.emplace(entry.opened_by, handle_of(index, entry));
    size_.fetch_add(1, std::memory_order_relaxed);
  }
}

std::optional<std::uint64_t> OpenTable::opened_by(std::uint64_t unique) const {
  auto found = by_request_.find(unique);
  if (found == by_request_.end()) return std::nullopt;
  return found->second;
}

Result<std::uint64_t> OpenTable::add(ObjectRef image, ObjectId object, std::uint32_t flags,
                                     bool owned, bool made, std::uint32_t epoch, std::uint64_t unique) {
  std::lock_guard lock(mutex_);
  const auto users = users_of(object);
  const bool first = users->cached.load() == 0;
  const bool direct = !owned || ((flags & O_DIRECT) != 0 ? first : users->direct != 0);
  if (!owned) coherent_.erase(object);
  // Not while others use them: those and who writes past them have kept them right, and a drop would harm.
  const bool drops = !direct && first && !made && !coherent_.contains(object);
  std::uint32_t index = 0;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    index = memory_.header().opens_used.load(std::memory_order_relaxed);
    if (index >= memory_.header().open_count || index / kChunk >= chunks_.size()) {
      return fail(ErrorKind::kNoSpace, ENFILE,
                  fmt::format("{} files are open at once, the most there may be", index));
    }
    memory_.header().opens_used.store(index + 1);
  }
  OpenEntry& entry = memory_.opens()[index];
  entry.generation += 1;
  entry.opened_by = unique;
  entry.flags = flags;
  entry.epoch = epoch;
  entry.state.store(direct ? kOpenDirect : drops ? kOpenDrops : 0, std::memory_order_relaxed);
  Handle& handle = place(index);
  handle = Handle{std::move(image), object, &entry, may_write(flags), direct, {}};
  count(handle);
  if (drops) {
    users->drop = Users::Drop::kDue;
    users->drops = &entry;
  }
  entry.object.store(raw(object), std::memory_order_release);
  size_.fetch_add(1, std::memory_order_relaxed);
  return handle_of(index, entry);
}

bool OpenTable::must_wait(const Handle& handle) {
  std::lock_guard lock(mutex_);
  return !handle.direct && handle.users->drop != Users::Drop::kNone;
}

bool OpenTable::await_drop(const Handle& handle, std::function<void()> ready) {
  {
    std::lock_guard lock(mutex_);
    Users& users = *handle.users;
    if (!handle.direct && users.drop != Users::Drop::kNone) {
      users.waiting.push_back(std::move(ready));
      return std::exchange(users.drop, Users::Drop::kUnderWay) == Users::Drop::kDue;
    }
  }
  ready();
  return false;
}

void OpenTable::dropped(Users& users, bool done) {
  std::vector<std::function<void()>> ready;
  {
    std::lock_guard lock(mutex_);
    ready.swap(users.waiting);
    users.drop = done ? Users::Drop::kNone : Users::Drop::kDue;
    // Before any of them is answered and writes: a daemon after this one must not drop once more then.
    if (done) std::exchange(users.drops, nullptr)->state.fetch_and(~kOpenDrops);
  }
  for (auto& run : ready) run();
}

OpenTable::Handle* OpenTable::find(std::uint64_t number) {
  const auto index = static_cast<std::uint32_t>(number);
  if (index / kChunk >= chunks_.size()) return nullptr;
  Chunk* chunk = chunks_[index / kChunk].load(std::memory_order_acquire);
  if (chunk == nullptr) return nullptr;
  Handle& handle = (*chunk)[index % kChunk];
  if (handle.entry == nullptr || handle_of(index, *handle.entry) != number ||
      handle.entry->object.load(std::memory_order_relaxed) == 0) {
    return nullptr;
  }
  return &handle;
}

void OpenTable::remove(Volume& volume, std::uint64_t number) {
  Handle closed;
  {
    std::lock_guard lock(mutex_);
    Handle* handle = find(number);
    if (handle == nullptr) return;
    closed = std::exchange(*handle, Handle{});
  }
  // The volume first: a daemon killed in between closes once more, which is what the next daemon does
  // with an entry that is still there when the release comes again.
  if (closed.image) volume.close_image(closed.image);
  closed.entry->object.store(0, std::memory_order_release);
  std::lock_guard lock(mutex_);
  free_.push_back(static_cast<std::uint32_t>(number));
  size_.fetch_sub(1, std::memory_order_relaxed);
  if (!closed.direct)
    closed.users->cached.fetch_sub(1);
  else
    --closed.users->direct;
  closed.users.reset();
  if (users_[closed.object].expired()) users_.erase(closed.object);
}

std::vector<ObjectId> OpenTable::cached() {
  std::vector<ObjectId> images;
  std::lock_guard lock(mutex_);
  const std::uint32_t used = memory_.header().opens_used.load();
  for (std::uint32_t index = 0; index < used; ++index) {
    const OpenEntry& entry = memory_.opens()[index];
    const ObjectId object{entry.object.load()};
    if (raw(object) != 0 && (entry.state.load() & kOpenDirect) == 0) images.push_back(object);
  }
  return images;
}

void OpenTable::expire_writers(ObjectId object) {
  std::lock_guard lock(mutex_);
  coherent_.erase(object);
  const std::uint32_t used = memory_.header().opens_used.load();
  for (std::uint32_t index = 0; index < used; ++index) {
    OpenEntry& entry = memory_.opens()[index];
    if (entry.object.load() == raw(object) && may_write(entry.flags)) entry.state.fetch_or(kOpenStale);
  }
}

}  // namespace vmfs
