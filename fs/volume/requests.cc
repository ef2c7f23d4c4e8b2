// Requests that the kernel sends again after the daemon died: answered from their records.
#include "fs/volume/impl.h"

namespace vmfs {

void Volume::Impl::remember_request(const RequestId& request) {
  std::uint64_t place = recent_next_.fetch_add(1, std::memory_order_relaxed) % kRecentRequests;
  recent_requests_[place].store(request.unique, std::memory_order_relaxed);
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

// The answers that must outlive their records: of requests whose answer the kernel has not got. It is
// asked for all recent ones, also for those whose record is replayed anyway.
std::vector<AnsweredRequest> Volume::Impl::answers_to_keep() {
  std::unordered_map<std::uint64_t, AnsweredRequest> kept;
  if (!still_unanswered_) return {};
  ConnectionId connection{connection_.load()};
  for (const auto& recent : recent_requests_) {
    std::uint64_t unique = recent.load(std::memory_order_relaxed);
    if (unique != 0 && still_unanswered_(unique))
      kept[unique] = {{connection, unique}, 0, ObjectId{}};
  }
  std::lock_guard lock(answers_mutex_);
  for (const auto& [unique, answer] : answers_)
    if (still_unanswered_(unique)) kept[unique] = answer;
  for (const AnsweredRequest& creation : recent_creations_)
    if (kept.contains(creation.request.unique)) kept[creation.request.unique] = creation;
  std::vector<AnsweredRequest> list;
  for (auto& [unique, answer] : kept) list.push_back(answer);
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
