// What the operations have in common. Private to fs/fuse.
#pragma once

#include <string_view>

#include "fs/fuse/core.h"
#include "fs/fuse/reply.h"

namespace vmfs {

inline Core& core_of(fuse_req_t request) {
  return *static_cast<Core*>(fuse_req_userdata(request));
}

inline Caller caller_of(Core& core, fuse_req_t request) {
  const fuse_ctx* context = fuse_req_ctx(request);
  const RequestContext& current = *current_request();
  return Caller{{core.connection(), current.unique}, current.resent, context->uid, context->gid};
}

// Answers with the error, or parks the request until the group may be changed.
inline void answer_error(Core& core, fuse_req_t request, const Error& error, GroupId group) {
  if (error.kind == ErrorKind::kWouldWait)
    core.park_current(request, group);
  else
    fuse_reply_err(request, error_number(error));
}

// For operations that never wait.
inline void answer_error(fuse_req_t request, const Error& error) {
  fuse_reply_err(request, error_number(error));
}

inline void answer_entry(Core& core, fuse_req_t request, const Attributes& attributes) {
  const fuse_entry_param entry =
      entry_of(attributes, core.name_seconds(), core.attribute_seconds(attributes));
  fuse_reply_entry(request, &entry);
}

// Opens and puts into the table of opens, or finds what an earlier daemon made of this very request. `made`:
// by it, too.
Result<fuse_open_out> open_handle(Core& core, ObjectId object, std::uint32_t flags, bool made = false);
// Answers the request for that handle with `reply`, as soon as the kernel has no page of the image that is
// wrong. If nobody waits for it any more (-ENOENT), the handle is closed.
void answer_open(Core& core, fuse_req_t request, std::uint64_t handle, std::function<int(fuse_req_t)> reply);

// Fills in the operations of each part.
void add_name_operations(fuse_lowlevel_ops& operations);
void add_image_operations(fuse_lowlevel_ops& operations);
void add_attribute_operations(fuse_lowlevel_ops& operations);
void add_directory_operations(fuse_lowlevel_ops& operations);

}  // namespace vmfs
