// The kernel sends a request only after the answers to those that it depends on: a RELEASE after everything that the
// handle was used for, say. That orders what threads do to a handle, without a lock of ours. The thread sanitizer
// cannot see it, so it is told; in other builds this is nothing.
#pragma once

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace vmfs::kernel_order {

#ifdef __SANITIZE_THREAD__
inline char order;
inline void before_answer() { __tsan_release(&order); }
inline void after_request() { __tsan_acquire(&order); }
#else
inline void before_answer() {}
inline void after_request() {}
#endif

}  // namespace vmfs::kernel_order
