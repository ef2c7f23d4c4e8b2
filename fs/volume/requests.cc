// Requests that the kernel sends again after the daemon died: answered from their records.
#include <algorithm>

#include "fs/volume/impl.h"

namespace vmfs {

namespace {
bool has(const std::vector<std::uint64_t>& sorted, std::uint64_t unique) {
  return std::binary_search(sorted.begin(), sorted.end(), unique);
}
}  // namespace

void Volume::Impl::remember_request(const RequestId& request) {
  const std::uint64_t number = recent_next_.fetch_add(1, std::memory_order_relaxed);
  if (number % (kRecentRequests / 2) == 0 && unanswered_now_) [[unlikely]] {
    const std::vector<std::uint64_t> unanswered = unanswered_now_();
    std::lock_guard lock(answers_mutex_);
    keep_unanswered(unanswered);
  }
  recent_requests_[number % kRecentRequests].store(request.unique, std::memory_order_relaxed);
  if (connection_.load(std::memory_order_relaxed) != raw(request.connection)) [[unlikely]]
    connection_.store(raw(request.connection), std::memory_order_relaxed);
}

void Volume::Impl::remember_creation(const RequestId& request, ObjectId object) {
  if (request.unique == 0) return;
  std::lock_guard lock(answers_mutex_);
  recent_creations_.push_back({request, 0, object});
  if (recent_creations_.size() > kRecentRequests) recent_creations_.pop_front();
}

std::optional<AnsweredRequest> Volume::Impl::answer_to(const Caller& caller) {
  if (!caller.resent || caller.request.unique == 0) return {};
  std::lock_guard lock(answers_mutex_);
  auto found = answers_.find(caller.request.unique);
  if (found == answers_.end() || !(found->second.request == caller.request)) return {};
  return found->second;
}

// A request may wait for its answer (for a slow peer, say) while any number of others change something. So
// every half of the list of recent changes, those that are still unanswered are taken out of it. Both halves
// are looked at: a thread may have been given its place long before it writes there.
void Volume::Impl::keep_unanswered(const std::vector<std::uint64_t>& unanswered) {
  std::erase_if(kept_, [&](const auto& entry) { return !has(unanswered, entry.first); });
  const ConnectionId connection{connection_.load()};
  for (const auto& recent : recent_requests_) {
    const std::uint64_t unique = recent.load(std::memory_order_relaxed);
    if (unique != 0 && has(unanswered, unique))
      kept_.try_emplace(unique, AnsweredRequest{{connection, unique}, 0, ObjectId{}});
  }
  for (const AnsweredRequest& creation : recent_creations_)
    if (auto found = kept_.find(creation.request.unique); found != kept_.end()) found->second = creation;
}

// The answers that must outlive their records: of requests whose answer the kernel has not got. It is
// asked for all recent ones, also for those whose record is replayed anyway.
std::vector<AnsweredRequest> Volume::Impl::answers_to_keep() {
  if (!unanswered_now_) return {};
  const std::vector<std::uint64_t> unanswered = unanswered_now_();
  std::lock_guard lock(answers_mutex_);
  keep_unanswered(unanswered);
  std::vector<AnsweredRequest> list;
  for (const auto& [unique, answer] : kept_) list.push_back(answer);
  for (const auto& [unique, answer] : answers_)
    if (!kept_.contains(unique) && has(unanswered, unique)) list.push_back(answer);
  return list;
}

// A replayed record may be the answer to one of the requests that are still open. Tables of sealed
// segments do not say which connection it came from: the record does.
Result<> Volume::Impl::find_answer(Lsn lsn, const SealEntry& record) {
  RecordHeader header;
  VMFS_ASSIGN(bool there, journal_->read_payload(lsn, {reinterpret_cast<std::byte*>(&header),
                                                       sizeof header}));
  if (!there || header.lsn != lsn || header.connection != connection_.load()) return {};
  AnsweredRequest answer{{ConnectionId{header.connection}, record.unique}, 0, ObjectId{}};
  if (record.type == RecordType::kCreate) {
    VMFS_ASSIGN(Bytes payload, payload_of(lsn, record));
    VMFS_ASSIGN(Create change, decode<Create>(payload));
    answer.object = change.object;
  }
  answers_[record.unique] = answer;
  return {};
}

}  // namespace vmfs
