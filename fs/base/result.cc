#include "fs/base/result.h"

#include <cerrno>

namespace vmfs {

ErrorKind kind_of_errno(int number) {
  switch (number) {
    case ENOSPC:
    case EDQUOT:
      return ErrorKind::kNoSpace;
    case ENOENT:
    case ENODATA:
      return ErrorKind::kNotFound;
    case EEXIST:
    case ENOTEMPTY:
      return ErrorKind::kExists;
    case EINVAL:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case EFBIG:
      return ErrorKind::kInvalid;
    case EOPNOTSUPP:
    case ENOTTY:
    case EXDEV:
      return ErrorKind::kUnsupported;
    case EBUSY:
    case ETXTBSY:
      return ErrorKind::kBusy;
    case EROFS:
      return ErrorKind::kReadOnly;
    default:
      return ErrorKind::kIo;
  }
}

}  // namespace vmfs
