#include "fs/fuse/invalidator.h"

#include <algorithm>

#include "fs/base/log.h"

namespace vmfs {

struct Invalidator::Shift {
  std::thread thread;
  // Guarded by mutex_. What it asks the kernel for at this moment, if anything.
  ObjectId image{}, directory{};
  bool working = false;
  bool replaced = false;  // stuck: finish what is under way, and end
  bool ended = false;
};

Invalidator::Invalidator(Kernel& kernel, ParkedTable& parked) : kernel_(kernel), parked_(parked) {
  std::lock_guard lock(mutex_);
  start_shift();
}

Invalidator::~Invalidator() {
  std::vector<std::shared_ptr<Shift>> shifts;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    shifts = shifts_;
  }
  changed_.notify_all();
  for (auto& shift : shifts)
    if (shift->thread.joinable()) shift->thread.join();
  for (Item& item : queue_)
    if (item.done) item.done();
}

void Invalidator::start_shift() {
  for (auto it = shifts_.begin(); it != shifts_.end();) {
    if ((*it)->ended && (*it)->thread.get_id() != std::this_thread::get_id()) {
      (*it)->thread.join();
      it = shifts_.erase(it);
    } else {
      ++it;
    }
  }
  shift_ = std::make_shared<Shift>();
  shifts_.push_back(shift_);
  shift_->thread = std::thread([this, shift = shift_] { run(shift); });
}

void Invalidator::enqueue(Item item) {
  queue_.push_back(std::move(item));
  changed_.notify_one();
}

void Invalidator::image(ObjectId image) {
  std::lock_guard lock(mutex_);
  if (queued_images_.insert(image).second) enqueue({Item::Kind::kImage, image, {}, {}, {}});
}

void Invalidator::pages(ObjectId image, PageRange range) {
  std::lock_guard lock(mutex_);
  enqueue({Item::Kind::kPages, image, {}, {}, range});
}

void Invalidator::attributes(ObjectId object) {
  std::lock_guard lock(mutex_);
  enqueue({Item::Kind::kAttributes, object, {}, {}, {}});
}

void Invalidator::name(ObjectId parent, const std::string& name) {
  std::lock_guard lock(mutex_);
  if (queued_names_.emplace(parent, name).second) enqueue({Item::Kind::kName, parent, name, {}, {}});
}

void Invalidator::names() {
  std::lock_guard lock(mutex_);
  if (!std::exchange(queued_all_names_, true)) enqueue({Item::Kind::kNames, {}, {}, {}, {}});
}

void Invalidator::then(std::function<void()> done) {
  std::lock_guard lock(mutex_);
  enqueue({Item::Kind::kDone, {}, {}, std::move(done), {}});
}

void Invalidator::was_parked(const ParkedRequest& request) {
  std::lock_guard lock(mutex_);
  const Shift& shift = *shift_;
  const bool sticks =
      (raw(shift.image) != 0 && raw(shift.image) == request.image) ||
      (raw(shift.directory) != 0 && (raw(shift.directory) == request.directories[0] ||
                                     raw(shift.directory) == request.directories[1]));
  if (!sticks || stopping_) return;
  // It may just be getting through; then an end of shift costs nothing either.
  if (std::count_if(shifts_.begin(), shifts_.end(), [](const auto& s) { return !s->ended; }) >=
      static_cast<std::ptrdiff_t>(kShiftsMax)) {
    log_warning("{} threads wait for the kernel to drop cached pages or names that waiting requests "
                "hold: the next ones wait for those",
                kShiftsMax);
    return;
  }
  shift_->replaced = true;
  start_shift();
}

void Invalidator::was_answered(const ParkedRequest& request) {
  std::lock_guard lock(mutex_);
  if (request.image != 0 && deferred_images_.erase(ObjectId{request.image}) != 0 &&
      queued_images_.insert(ObjectId{request.image}).second) {
    enqueue({Item::Kind::kImage, ObjectId{request.image}, {}, {}, {}});
  }
  for (std::uint64_t directory : request.directories) {
    if (directory == 0) continue;
    const ObjectId parent{directory};
    for (auto it = deferred_names_.lower_bound({parent, ""});
         it != deferred_names_.end() && it->first == parent; it = deferred_names_.erase(it)) {
      if (queued_names_.insert(*it).second) enqueue({Item::Kind::kName, parent, it->second, {}, {}});
    }
  }
}

bool Invalidator::stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
  return std::none_of(shifts_.begin(), shifts_.end(), [](const auto& shift) { return shift->working; });
}

std::size_t Invalidator::threads_waiting() const {
  std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(std::count_if(
      shifts_.begin(), shifts_.end(), [](const auto& s) { return s->replaced && !s->ended; }));
}

void Invalidator::run(const std::shared_ptr<Shift>& shift) {
  std::unique_lock lock(mutex_);
  while (!stopping_ && !shift->replaced) {
    if (queue_.empty()) {
      changed_.wait(lock);
      continue;
    }
    Item item = std::move(queue_.front());
    queue_.pop_front();
    // From here on a new request for the same thing is a new item: it may be about a newer change.
    if (item.kind == Item::Kind::kImage) queued_images_.erase(item.object);
    if (item.kind == Item::Kind::kName) queued_names_.erase({item.object, item.name});
    if (item.kind == Item::Kind::kNames) queued_all_names_ = false;
    shift->working = true;
    lock.unlock();
    process(item, *shift);
    lock.lock();
    shift->working = false;
  }
  shift->ended = true;
}

void Invalidator::process(Item& item, Shift& shift) {
  switch (item.kind) {
    case Item::Kind::kDone:
      item.done();
      break;
    case Item::Kind::kPages:
    case Item::Kind::kImage: {
      {
        std::lock_guard lock(mutex_);
        shift.image = item.object;
      }
      // In this order: a request that is parked after the look finds what we are about to do.
      const bool held = parked_.locks_pages(raw(item.object));
      if (held) {
        std::lock_guard lock(mutex_);
        deferred_images_.insert(item.object);
      }
      std::vector<PageRange> ranges{item.range};
      if (held || item.kind == Item::Kind::kImage) ranges = parked_.unlocked_pages(raw(item.object));
      for (const PageRange& range : ranges) kernel_.forget_pages(item.object, range);
      std::lock_guard lock(mutex_);
      shift.image = ObjectId{};
      break;
    }
    case Item::Kind::kName:
      forget_name(shift, item.object, item.name);
      kernel_.forget_attributes(item.object);
      break;
    case Item::Kind::kEntry:
      forget_name(shift, item.object, item.name);
      break;
    case Item::Kind::kAttributes:
      kernel_.forget_attributes(item.object);
      break;
    case Item::Kind::kNames: {
      // As items of their own, ahead of the others: what comes after this item still comes after
      // them, also if one of them sticks.
      std::vector<Item> items;
      kernel_.each_directory([&](ObjectId directory, const std::vector<std::string>& names) {
        items.push_back({Item::Kind::kAttributes, directory, {}, {}, {}});
        for (const std::string& name : names) items.push_back({Item::Kind::kEntry, directory, name, {}, {}});
      });
      std::lock_guard lock(mutex_);
      queue_.insert(queue_.begin(), std::make_move_iterator(items.begin()),
                    std::make_move_iterator(items.end()));
      break;
    }
  }
}

void Invalidator::forget_name(Shift& shift, ObjectId parent, const std::string& name) {
  {
    std::lock_guard lock(mutex_);
    shift.directory = parent;
  }
  if (parked_.locks_directory(raw(parent))) {
    {
      std::lock_guard lock(mutex_);
      deferred_names_.emplace(parent, name);
    }
    // If it was answered just now, nobody will come for what was deferred.
    if (parked_.locks_directory(raw(parent))) {
      std::lock_guard lock(mutex_);
      shift.directory = ObjectId{};
      return;
    }
    std::lock_guard lock(mutex_);
    deferred_names_.erase({parent, name});
  }
  kernel_.forget_name(parent, name);
  std::lock_guard lock(mutex_);
  shift.directory = ObjectId{};
}

}  // namespace vmfs
