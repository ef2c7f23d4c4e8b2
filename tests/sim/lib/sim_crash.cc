// The simulated disk's memory and forgetting: what syncs confirm, and what a crash leaves.
#include <algorithm>
#include <cerrno>
#include <limits>
#include <map>
#include <set>

#include "fs/base/check.h"
#include "tests/sim/lib/sim_metadata.h"

namespace vmfs::sim {

using Kind = SimDisk::MetadataChange::Kind;

namespace {

void cut_durable(Inode& inode, std::uint64_t from, std::uint64_t to,
                 const std::optional<std::uint64_t>& size) {
  inode.durable.pages.punch(from, to);
  if (size) inode.durable.stat.size = *size;
}

// One write reaches the medium: whole, or, torn, some of its sectors.
void write_durable(Inode& inode, const PendingWrite& write, Random* torn) {
  std::uint64_t written_end = 0;
  for (std::uint64_t at = 0; at < write.bytes.size(); at += kSector) {
    if (torn && torn->one_in(2)) continue;
    const std::uint64_t size = std::min<std::uint64_t>(kSector, write.bytes.size() - at);
    inode.durable.pages.write(write.offset + at, ByteView(write.bytes).subspan(at, size));
    written_end = write.offset + at + size;
  }
  written_end = std::min(written_end, write.size_after);
  inode.durable.stat.size = std::max(inode.durable.stat.size, written_end);
}

// Kept, torn or lost.
void maybe_write_durable(Inode& inode, const PendingWrite& write, unsigned percent_kept,
                         Random& random) {
  if (random.percent(percent_kept))
    write_durable(inode, write, nullptr);
  else if (percent_kept > 0 && random.one_in(3))
    write_durable(inode, write, &random);
}

// These stay in order among themselves: no file system comes to hold a directory inside itself.
bool moves_directory(const SimDisk::MetadataChange& change) {
  return change.kind == Kind::kNames && change.named &&
         change.named->type == FileType::kDirectory && !change.created;
}

unsigned choose_percent(Random& random) {
  static constexpr unsigned kChoices[] = {0, 10, 50, 90, 100};
  return kChoices[random.below(5)];
}

}  // namespace

void SimDisk::note_write(Inode& inode, std::uint64_t offset, std::uint64_t end) {
  PendingWrite write;
  write.order = next_order_++;
  write.size_after = end;
  // A page that had lost its dirtiness is written whole again.
  const bool whole_first = inode.stale.contains(offset / kPage);
  const bool whole_last = inode.stale.contains((end - 1) / kPage);
  write.offset = offset / (whole_first ? kPage : kSector) * (whole_first ? kPage : kSector);
  const std::uint64_t unit = whole_last ? kPage : kSector;
  write.bytes.resize((end + unit - 1) / unit * unit - write.offset);
  inode.live.pages.read(write.offset, write.bytes);
  inode.pending.push_back(std::move(write));
  for (std::uint64_t page = offset / kPage; page * kPage < end; ++page) {
    inode.dirty.insert(page);
    inode.stale.erase(page);
  }
}

void SimDisk::change_content(const InodeRef& inode, std::uint64_t from, std::uint64_t to,
                             std::optional<std::uint64_t> size) {
  inode->live.pages.punch(from, to);
  if (size) inode->live.stat.size = *size;
  inode->live.stat.mtime_ns = now();
  // Whole pages are gone and with them what was to be written there; those at the edges have zeros
  // now.
  const std::uint64_t first = (from + kPage - 1) / kPage, last = to / kPage;
  for (auto* pages : {&inode->dirty, &inode->stale})
    if (first < last) pages->erase(pages->lower_bound(first), pages->lower_bound(last));
  for (std::uint64_t edge : {from, to})
    if (edge % kPage != 0 && inode->live.pages.map().contains(edge / kPage))
      inode->dirty.insert(edge / kPage), inode->stale.erase(edge / kPage);
  MetadataChange change;
  change.kind = Kind::kContent;
  change.touched = {inode};
  change.from = from;
  change.to = to;
  change.apply = [file = inode.get(), from, to, size] { cut_durable(*file, from, to, size); };
  log_change(std::move(change));
}

void SimDisk::clone_content(const InodeRef& target, const InodeRef& source) {
  target->live.pages = source->live.pages;
  target->live.stat.size = source->live.stat.size;
  target->dirty.clear();
  target->stale.clear();
  MetadataChange change;
  change.kind = Kind::kContent;
  change.touched = {target};
  change.to = std::numeric_limits<std::uint64_t>::max();
  // What the clone shares was on the medium when it was made.
  change.apply = [file = target.get(), pages = source->durable.pages,
                  size = source->durable.stat.size] {
    file->durable.pages = pages;
    file->durable.stat.size = size;
  };
  log_change(std::move(change));
}

void SimDisk::log_change(MetadataChange change) {
  change.order = next_order_++;
  log_.push_back(std::move(change));
}

void SimDisk::write_back_some(Inode& inode, std::uint64_t order, unsigned percent_kept) {
  std::size_t done = 0;
  for (; done < inode.pending.size() && inode.pending[done].order < order; ++done)
    maybe_write_durable(inode, inode.pending[done], percent_kept, random_);
  inode.pending.erase(inode.pending.begin(),
                      inode.pending.begin() + static_cast<std::ptrdiff_t>(done));
}

void SimDisk::write_back(Inode& inode) {
  for (std::uint64_t page : inode.dirty) inode.durable.pages.copy_page(inode.live.pages, page);
  inode.durable.stat.size = inode.live.stat.size;
  inode.dirty.clear();
  inode.pending.clear();
}

void SimDisk::fail_write_back(Inode& inode) {
  write_back_some(inode, next_order_, choose_percent(random_));
  inode.stale.insert(inode.dirty.begin(), inode.dirty.end());
  inode.dirty.clear();
}

void SimDisk::commit_where(const std::function<bool(const MetadataChange&)>& chosen) {
  std::vector<MetadataChange> left;
  for (MetadataChange& change : log_) {
    if (!chosen(change)) {
      left.push_back(std::move(change));
      continue;
    }
    // Older writes of that file have either reached the medium by now or do not matter any more to
    // it.
    if (change.kind == Kind::kContent)
      write_back_some(*change.touched.front(), change.order, choose_percent(random_));
    change.apply();
  }
  log_ = std::move(left);
}

void SimDisk::commit_metadata(const InodeRef& inode, bool attributes) {
  auto covered = [&](const MetadataChange& change) {
    return change.touches(inode) && (attributes || change.kind == Kind::kContent);
  };
  if (options_.metadata_order == MetadataOrder::kGlobal) {
    // The file system's own journal is flushed up to the last change of this inode.
    std::uint64_t last = 0;
    for (const MetadataChange& change : log_)
      if (covered(change)) last = change.order;
    if (inode->type == FileType::kDirectory) last = next_order_;
    if (last != 0) commit_where([&](const MetadataChange& change) { return change.order <= last; });
    return;
  }
  if (inode->type != FileType::kDirectory) {
    commit_where([&](const MetadataChange& change) {
      return change.kind != Kind::kNames && covered(change);
    });
    return;
  }
  // The directory's changes, and for those that concern another directory too, what came before
  // there; that directory's own name as well, or what was moved into it would be nowhere.
  std::set<InodeRef> directories{inode}, with_attributes{inode};
  std::set<std::uint64_t> orders;
  bool moves = false;
  for (auto change = log_.rbegin(); change != log_.rend(); ++change) {
    if (change->kind != Kind::kNames) continue;
    if (!(moves && moves_directory(*change)) && !directories.contains(change->named) &&
        std::none_of(change->touched.begin(), change->touched.end(),
                     [&](const InodeRef& one) { return directories.contains(one); }))
      continue;
    moves = moves || moves_directory(*change);
    orders.insert(change->order);
    directories.insert(change->touched.begin(), change->touched.end());
    if (change->created) with_attributes.insert(change->created);
  }
  for (const MetadataChange& change : log_)
    if (change.kind == Kind::kAttributes && with_attributes.contains(change.touched.front()))
      orders.insert(change.order);
  commit_where([&](const MetadataChange& change) { return orders.contains(change.order); });
}

void SimDisk::stop() {
  std::lock_guard guard(mutex_);
  stopped_ = true;
}

void SimDisk::stop_at_change(std::uint64_t n) {
  std::lock_guard guard(mutex_);
  stop_in_ = n;
}

bool SimDisk::stopped() const {
  std::lock_guard guard(mutex_);
  return stopped_;
}

void SimDisk::forget_process() {
  ++life_;
  locks_.clear();
  stopped_ = false;
  stop_in_ = 0;
  std::erase_if(inodes_, [](const auto& weak) { return weak.expired(); });
}

void SimDisk::restart() {
  if (std::unique_lock guard(mutex_); random_.one_in(2)) {
    guard.unlock();
    evict();
  }
  std::lock_guard guard(mutex_);
  forget_process();
}

void SimDisk::evict() {
  std::lock_guard guard(mutex_);
  for (const auto& weak : inodes_) {
    InodeRef inode = weak.lock();
    if (!inode) continue;
    for (std::uint64_t page : inode->stale) inode->live.pages.copy_page(inode->durable.pages, page);
    inode->stale.clear();
  }
}

void SimDisk::lose_power() {
  std::lock_guard guard(mutex_);
  // Which changes of metadata survive: a prefix, of all or per directory and file.
  std::set<std::uint64_t> kept;
  const unsigned percent = choose_percent(random_);
  if (options_.metadata_order == MetadataOrder::kGlobal) {
    std::size_t count = percent == 100 ? log_.size()
                        : percent == 0 ? 0
                                       : random_.below(log_.size() + 1);
    for (std::size_t i = 0; i < count; ++i) kept.insert(log_[i].order);
  } else {
    std::set<Inode*> ended;
    bool moves_ended = false;
    for (const MetadataChange& change : log_) {
      bool lost = !random_.percent(percent == 0 ? 0 : 50 + percent / 2);
      lost = lost || (moves_ended && moves_directory(change));
      for (const InodeRef& one : change.touched) lost = lost || ended.contains(one.get());
      if (lost) {
        moves_ended = moves_ended || moves_directory(change);
        for (const InodeRef& one : change.touched) ended.insert(one.get());
        // Nothing is moved into a directory that is not there.
        if (change.created) ended.insert(change.created.get());
      } else {
        kept.insert(change.order);
      }
    }
    // A new inode reaches the medium with all that it had by then: a file system that logs an entry logs
    // the inode that it names and the directory that it is in, extended attributes included.
    std::set<InodeRef> fresh;
    std::map<InodeRef, std::vector<std::uint64_t>> attributes;
    for (const MetadataChange& change : log_) {
      if (change.created) fresh.insert(change.created);
      if (change.kind == Kind::kAttributes)
        attributes[change.touched.front()].push_back(change.order);
      if (change.kind != Kind::kNames || !kept.contains(change.order)) continue;
      std::vector<InodeRef> brought = change.touched;
      if (change.named) brought.push_back(change.named);
      for (const InodeRef& one : brought)
        if (fresh.contains(one)) kept.insert(attributes[one].begin(), attributes[one].end());
    }
  }

  // Everything in the order in which it was done.
  struct Step {
    std::uint64_t order;
    const MetadataChange* change;
    Inode* inode;
    const PendingWrite* write;
    unsigned percent;
  };
  std::vector<Step> steps;
  for (const MetadataChange& change : log_)
    steps.push_back({change.order, &change, nullptr, nullptr, 0});
  std::vector<InodeRef> all;
  for (const auto& weak : inodes_) {
    InodeRef inode = weak.lock();
    if (!inode) continue;
    all.push_back(inode);
    const unsigned percent_kept = choose_percent(random_);
    for (const PendingWrite& write : inode->pending)
      steps.push_back({write.order, nullptr, inode.get(), &write, percent_kept});
  }
  std::sort(steps.begin(), steps.end(),
            [](const Step& a, const Step& b) { return a.order < b.order; });
  struct Blocked {
    Inode* inode;
    std::uint64_t from, to;
  };
  std::vector<Blocked> blocked;  // later writes there needed a change that is lost
  for (const Step& step : steps) {
    if (step.change) {
      if (kept.contains(step.order))
        step.change->apply();
      else if (step.change->kind == Kind::kContent && step.change->from < step.change->to)
        blocked.push_back({step.change->touched.front().get(), step.change->from, step.change->to});
      continue;
    }
    const std::uint64_t end = step.write->offset + step.write->bytes.size();
    const bool impossible = std::any_of(blocked.begin(), blocked.end(), [&](const Blocked& b) {
      return b.inode == step.inode && step.write->offset < b.to && end > b.from;
    });
    if (!impossible) maybe_write_durable(*step.inode, *step.write, step.percent, random_);
  }
  log_.clear();
  for (const InodeRef& inode : all) {
    inode->pending.clear();
    inode->dirty.clear();
    inode->stale.clear();
    inode->live = inode->durable;
  }
  forget_process();
}

void SimDisk::fail_calls(std::string label, std::optional<Operation> operation, std::uint64_t n,
                         int number, bool always) {
  std::lock_guard guard(mutex_);
  rules_.push_back({std::move(label), operation, n, number, always});
}

void SimDisk::heal() {
  std::lock_guard guard(mutex_);
  rules_.clear();
}

void SimDisk::set_hook(std::function<std::optional<int>(const DiskCall&)> hook) {
  std::lock_guard guard(mutex_);
  hook_ = std::move(hook);
}

void SimDisk::set_files(std::uint64_t files_max, std::uint64_t file_size_max) {
  std::lock_guard guard(mutex_);
  options_.files_max = files_max;
  options_.file_size_max = file_size_max;
}

void SimDisk::set_capacity(std::uint64_t bytes) {
  std::lock_guard guard(mutex_);
  options_.capacity = bytes;
}

bool SimDisk::flip_bit(const std::string& path, std::uint64_t offset, unsigned bit) {
  std::lock_guard guard(mutex_);
  Result<InodeRef> inode = find(path, "sim.flip");
  if (!inode || offset >= (*inode)->live.stat.size) return false;
  for (InodeState* state : {&(*inode)->live, &(*inode)->durable}) {
    std::byte value[1];
    state->pages.read(offset, value);
    value[0] ^= std::byte{1} << (bit % 8);
    state->pages.write(offset, value);
  }
  return true;
}

std::uint64_t SimDisk::calls() const {
  std::lock_guard guard(mutex_);
  return calls_;
}

std::uint64_t SimDisk::changing_calls() const {
  std::lock_guard guard(mutex_);
  return changing_calls_;
}

std::uint64_t SimDisk::failures() const {
  std::lock_guard guard(mutex_);
  return failures_;
}

Result<Bytes> SimDisk::durable_content(const std::string& path) {
  std::lock_guard guard(mutex_);
  InodeRef at = root_;
  for (std::size_t start = 0; start < path.size();) {
    std::size_t slash = std::min(path.find('/', start), path.size());
    auto entry = at->durable.entries.find(path.substr(start, slash - start));
    if (entry == at->durable.entries.end()) return refuse(ENOENT, path, "sim.durable");
    at = entry->second;
    start = slash + 1;
  }
  Bytes content(at->durable.stat.size);
  at->durable.pages.read(0, content);
  return content;
}

}  // namespace vmfs::sim
