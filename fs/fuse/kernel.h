// The two headers that describe FUSE, the library's and the kernel's, and what Debian 12's copies of
// them do not know yet.
#pragma once

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 314
#endif
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>

#include <cstdint>

namespace vmfs {

// Since protocol 7.40, Linux 6.9: the kernel sends every request again that was read and not
// answered, with this bit set in its unique; the answer must carry it too.
inline constexpr std::uint64_t kUniqueResend = 1ull << 63;
inline constexpr std::int32_t kNotifyResend = 7;  // FUSE_NOTIFY_RESEND
// Flags of INIT beyond the first 32.
inline constexpr std::uint64_t kInitExtended = 1ull << 30;        // FUSE_INIT_EXT
inline constexpr std::uint64_t kInitDirectIoAllowMmap = 1ull << 36;  // FUSE_DIRECT_IO_ALLOW_MMAP
inline constexpr std::uint64_t kInitHasResend = 1ull << 39;       // FUSE_HAS_RESEND

// What a kernel's INIT request (header and body) offers; 0 if it is too short to be one.
std::uint64_t init_flags(const void* message, std::size_t size);

}  // namespace vmfs
