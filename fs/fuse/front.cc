#include "fs/fuse/front.h"

#include <future>

#include "fs/fuse/core.h"
#include "fs/fuse/locks.h"
#include "fs/base/log.h"

namespace vmfs {

struct Front::Impl {
  std::shared_ptr<Core> core;
};

Front::Front() : impl_(std::make_unique<Impl>()) {}

Front::~Front() {
  if (impl_->core) impl_->core->close();
}

Result<std::unique_ptr<Front>> Front::start(Volume& volume, DaemonLink& link,
                                            const FrontOptions& options) {
  ConnectionParts parts;
  parts.memory = &link.memory();
  parts.descriptor = link.fuse_descriptor();
  parts.notifier = &link.notifier();
  parts.clones = link.clones();
  parts.device_major = link.memory().header().device_major;
  parts.device_minor = link.memory().header().device_minor;
  return start(volume, parts, options);
}

Result<std::unique_ptr<Front>> Front::start(Volume& volume, const ConnectionParts& parts,
                                            const FrontOptions& options) {
  std::unique_ptr<Front> front(new Front());
  front->impl_->core = std::make_shared<Core>(volume, parts, options);
  VMFS_TRY(front->impl_->core->start());
  return front;
}

Front::End Front::wait() { return impl_->core->wait(); }
Result<> Front::drain(std::int64_t patience_ns) { return impl_->core->drain(patience_ns); }
void Front::answer_no_more() { impl_->core->answer_no_more(); }

void Front::invalidate_image(ObjectId image) { impl_->core->invalidator().image(image); }
void Front::invalidate_name(ObjectId parent, const std::string& name) {
  impl_->core->invalidator().name(parent, name);
}
void Front::invalidate_names() { impl_->core->invalidator().names(); }
void Front::when_invalidated(std::function<void()> done) {
  impl_->core->invalidator().then(std::move(done));
}
void Front::wait_until_invalidated() {
  std::promise<void> done;
  when_invalidated([&] { done.set_value(); });
  done.get_future().wait();
}

void Front::expire_write_handles(ObjectId image) { impl_->core->opens().expire_writers(image); }

bool Front::holds_lock(ObjectId image) const {
  auto held = has_write_lock(impl_->core->device_major(), impl_->core->device_minor(), raw(image));
  if (held) return *held;
  // Not knowing, the safe answer is that somebody uses it.
  log_warning("{}: taking image {} for locked", held.error().message, image);
  return true;
}

bool Front::kernel_resends() const { return impl_->core->can_resend(); }
FrontStatistics Front::statistics() const { return impl_->core->statistics(); }

}  // namespace vmfs
