// What the command line and replication ask about the volume as a whole.
#include <algorithm>

#include "fs/base/log.h"
#include "fs/volume/impl.h"

namespace vmfs {

void Volume::Impl::problem(const std::string& subject, const std::string& text) {
  std::lock_guard lock(problems_mutex_);
  std::string& now = problems_[subject];
  if (now == text) return;
  now = text;
  any_problem_.store(true);
  log_error("{}", text);
}

void Volume::Impl::no_problem(const std::string& subject) {
  if (!any_problem_.load(std::memory_order_relaxed)) return;
  std::lock_guard lock(problems_mutex_);
  if (problems_.erase(subject) == 0) return;
  log_notice("it works again: {}", subject);
  any_problem_.store(!problems_.empty());
}

std::vector<std::string> Volume::problems() {
  std::vector<std::string> all;
  if (Journal::State state = impl_->journal_->state(); state.failed || !state.message.empty())
    all.push_back(state.message +
                  (state.failed ? "" : "\nfree space where the journal is, or check its disk; it is tried again:  "
                                       "df, dmesg"));
  std::lock_guard lock(impl_->problems_mutex_);
  for (const auto& [subject, text] : impl_->problems_) all.push_back(text);
  return all;
}

Lsn Volume::stored_lsn() const { return impl_->stored_replay_from_.load(); }

VolumeUsage Volume::usage() {
  Impl& v = *impl_;
  VolumeUsage usage;
  usage.journal_used = v.journal_->bytes_used();
  usage.journal_max = v.journal_->bytes_max();
  usage.unapplied_bytes = v.unapplied_bytes();
  usage.index_memory = v.index_memory_->load();
  {
    std::shared_lock lock(v.names_mutex_);
    for (const auto& [id, inode] : v.tree_.objects()) usage.images += inode->image != nullptr;
  }
  if (auto space = v.store_->space()) usage.store = *space;
  return usage;
}

void Volume::set_peer(const PeerState& peer) {
  {
    std::lock_guard lock(impl_->peers_mutex_);
    auto known = std::find_if(impl_->peers_.begin(), impl_->peers_.end(),
                              [&](const PeerState& each) { return each.id == peer.id; });
    if (known != impl_->peers_.end())
      *known = peer;
    else
      impl_->peers_.push_back(peer);
  }
  impl_->limit_writes();
}

void Volume::remove_peer(NodeId peer) {
  {
    std::lock_guard lock(impl_->peers_mutex_);
    std::erase_if(impl_->peers_, [&](const PeerState& known) { return known.id == peer; });
  }
  impl_->limit_writes();
  impl_->wanted_.release.store(true);
  impl_->want_apply();
}

std::vector<PeerState> Volume::peers() {
  std::lock_guard lock(impl_->peers_mutex_);
  return impl_->peers_;
}

}  // namespace vmfs
