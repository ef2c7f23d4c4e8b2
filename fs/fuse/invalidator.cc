#include "fs/fuse/invalidator.h"

#include <algorithm>

#include "fs/base/log.h"

namespace vmfs {

struct Invalidator::Shift {
  std::thread thread;
  Item item;  // its object, name and range are guarded by mutex_
  // Guarded by mutex_. What it asks the kernel for at this moment, if anything.
  ObjectId image{}, directory{};
  PageRange pages;  // of that image
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
      (raw(shift.image) != 0 && raw(shift.image) == request.image && shift.pages.meets(request.pages())) ||
      (raw(shift.directory) != 0 && request.locks_directory(raw(shift.directory)));
  if (!sticks || stopping_) return;
  // It may just be getting through; then an end of shift costs nothing either.
  if (std::count_if(shifts_.begin(), shifts_.end(), [](const auto& s) { return !s->ended; }) >=
      static_cast<std::ptrdiff_t>(kShiftsMax)) {
    log_warning("{} threads wait for the kernel to drop cached pages or names that waiting requests "
                "hold: the next ones wait for those",
                kShiftsMax);
    return;
  }
  // What comes next in the queue counts on what this shift had begun, of which the request may hold little:
  // all of it but that is done by the next shift.
  shift_->replaced = true;
  queue_.push_front({shift.item.kind, shift.item.object, shift.item.name, {}, shift.item.range});
  start_shift();
}

void Invalidator::was_answered(const ParkedRequest& request) {
  std::lock_guard lock(mutex_);
  if (auto found = deferred_pages_.find(ObjectId{request.image}); found != deferred_pages_.end()) {
    // What other parked requests hold of it is put off once more.
    std::erase_if(found->second, [&](const auto& deferred) {
      const PageRange range = PageRange::between(deferred.first, deferred.second);
      if (!range.meets(request.pages())) return false;
      enqueue({Item::Kind::kPages, ObjectId{request.image}, {}, {}, range});
      return true;
    });
    if (found->second.empty()) deferred_pages_.erase(found);
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
    shift->item = std::move(item);
    lock.unlock();
    process(*shift);
    lock.lock();
  }
  shift->ended = true;
}

void Invalidator::process(Shift& shift) {
  Item& item = shift.item;
  switch (item.kind) {
    case Item::Kind::kDone:
      item.done();
      break;
    case Item::Kind::kPages:
    case Item::Kind::kImage:
      forget_pages(shift);
      break;
    case Item::Kind::kName:
      forget_name(shift);
      kernel_.forget_attributes(item.object);
      break;
    case Item::Kind::kEntry:
      forget_name(shift);
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

// The look at the parked requests and the note of what is about to be asked are one, under mutex_: a request
// that is parked later finds the note, and one that is answered later finds what was put off.
void Invalidator::forget_pages(Shift& shift) {
  Item& item = shift.item;
  std::unique_lock lock(mutex_);
  const std::uint64_t end = item.range.end();
  for (std::uint64_t at = item.range.offset; at < end && !shift.replaced && !stopping_;) {
    item.range = PageRange::between(at, end);
    const std::vector<PageRange> locked = parked_.locked_pages(raw(item.object), item.range);
    if (!locked.empty() && locked.front().offset <= at) {
      const std::uint64_t next = std::min(end, locked.front().end());
      defer(item.object, PageRange::between(at, next));
      at = next;
      continue;
    }
    const std::uint64_t next = locked.empty() ? end : std::min(end, locked.front().offset);
    shift.image = item.object;
    shift.pages = PageRange::between(at, next);
    const PageRange asked = shift.pages;
    lock.unlock();
    kernel_.forget_pages(item.object, asked);
    lock.lock();
    shift.image = ObjectId{};
    at = next;
  }
}

void Invalidator::defer(ObjectId image, PageRange range) {
  std::uint64_t begin = range.offset, end = range.end();
  auto& ranges = deferred_pages_[image];
  auto it = ranges.upper_bound(begin);
  if (it != ranges.begin() && std::prev(it)->second >= begin) --it;
  for (; it != ranges.end() && it->first <= end; it = ranges.erase(it)) {
    begin = std::min(begin, it->first);
    end = std::max(end, it->second);
  }
  ranges.emplace(begin, end);
}

void Invalidator::forget_name(Shift& shift) {
  const ObjectId parent = shift.item.object;
  {
    std::lock_guard lock(mutex_);
    if (parked_.locks_directory(raw(parent))) {
      deferred_names_.emplace(parent, shift.item.name);
      return;
    }
    shift.directory = parent;
  }
  kernel_.forget_name(parent, shift.item.name);
  std::lock_guard lock(mutex_);
  shift.directory = ObjectId{};
}

}  // namespace vmfs
