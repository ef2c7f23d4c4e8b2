// What the kernel is told: errors, attributes, answers in the kernel's own form where the library's
// lacks a field.
#pragma once

#include <cstdint>

#include "fs/base/result.h"
#include "fs/fuse/kernel.h"
#include "fs/volume/volume.h"

namespace vmfs {

// The one place where an error becomes an errno: at the guest's edge.
int error_number(const Error& error);

// The kernel's form of attributes, and the library's.
fuse_attr kernel_attributes(const Attributes& attributes);
struct stat stat_of(const Attributes& attributes);

// An entry that is there.
fuse_entry_param entry_of(const Attributes& attributes, double name_seconds,
                          double attribute_seconds);

fuse_open_out open_answer(std::uint64_t handle, bool direct);
fuse_entry_out entry_answer(const Attributes& attributes, double name_seconds,
                            double attribute_seconds);

std::uint32_t file_type_bits(FileType type);

}  // namespace vmfs
