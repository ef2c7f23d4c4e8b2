// Operating errors are values: what failed, with which errno, and on what.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace vmfs {

// What a caller may want to tell apart. The errno a guest sees comes from `Error::number`.
enum class ErrorKind {
  kIo,           // the disk refused (EIO and kin); `number` is what the system call said
  kCorrupt,      // bytes were read that fail their checksum or cannot be what they claim
  kNoSpace,      // the store's file system, or a configured limit, is full
  kNotFound,     // no such name, object or file
  kExists,       // the name is taken
  kInvalid,      // the request itself makes no sense (EINVAL, ENOTDIR, EISDIR, ENAMETOOLONG, ...)
  kUnsupported,  // refused for good (hard links, xattrs, ...)
  kBusy,         // somebody else is using it
  kReadOnly,     // this node may not change it now
  kWouldWait,    // not now: park the request and retry when told (see Volume::park)
  kProtocol,     // a peer sent what no peer may send
  kRefused,      // a decision: wrong volume, wrong version, diverged, no quorum, ...
};

// What the errno of a failed call on a file means.
ErrorKind kind_of_errno(int number);

// An operating error. Building one with an empty message allocates nothing.
struct Error {
  ErrorKind kind = ErrorKind::kIo;
  int number = 0;       // errno, never 0
  std::string message;  // names the object and the evidence; for a person; may be empty
};

template <class T = void>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(ErrorKind kind, int number, std::string message = {}) {
  return tl::unexpected<Error>(Error{kind, number, std::move(message)});
}

// Passes an error of one Result on as that of another.
inline tl::unexpected<Error> pass(Error&& error) { return tl::unexpected<Error>(std::move(error)); }
inline tl::unexpected<Error> pass(const Error& error) { return tl::unexpected<Error>(error); }

}  // namespace vmfs

// Return the error of `expression` (a Result) from the enclosing function, if it has one.
#define VMFS_TRY(expression)                                        \
  do {                                                              \
    if (auto vmfs_try_ = (expression); !vmfs_try_) [[unlikely]]     \
      return ::vmfs::pass(std::move(vmfs_try_.error()));            \
  } while (0)

#define VMFS_CONCAT_(a, b) a##b
#define VMFS_CONCAT(a, b) VMFS_CONCAT_(a, b)
// `VMFS_ASSIGN(auto x, f());`: bind the value of a Result or return its error.
#define VMFS_ASSIGN(declaration, expression) \
  VMFS_ASSIGN_(VMFS_CONCAT(vmfs_result_, __LINE__), declaration, expression)
#define VMFS_ASSIGN_(name, declaration, expression)                        \
  auto name = (expression);                                                \
  if (!name) [[unlikely]] return ::vmfs::pass(std::move(name.error()));    \
  declaration = std::move(*name)
