// A file that is some bytes and cannot be changed: what a decoder reads that wants a File.
#pragma once

#include <algorithm>
#include <cstring>

#include "fs/seam/disk.h"

namespace vmfs::fuzz {

class MemoryFile : public File {
 public:
  explicit MemoryFile(Bytes bytes) : bytes_(std::move(bytes)) {}
  Result<std::size_t> read(std::span<std::byte> buffer, std::uint64_t offset, Label) override {
    if (offset >= bytes_.size()) return std::size_t{0};
    std::size_t size = std::min<std::size_t>(buffer.size(), bytes_.size() - offset);
    std::memcpy(buffer.data(), bytes_.data() + offset, size);
    return size;
  }
  Result<FileStat> stat(Label) override {
    FileStat stat;
    stat.size = bytes_.size();
    return stat;
  }
  Result<> write(ByteView, std::uint64_t, Label) override { return refuse(); }
  Result<> write_pieces(std::span<const iovec>, std::uint64_t, Label) override { return refuse(); }
  Result<> sync_data(Label) override { return refuse(); }
  Result<> sync(Label) override { return refuse(); }
  void start_writeback(std::uint64_t, std::uint64_t) override {}
  Result<> truncate(std::uint64_t, Label) override { return refuse(); }
  Result<> allocate(std::uint64_t, std::uint64_t, bool, Label) override { return refuse(); }
  Result<> punch_hole(std::uint64_t, std::uint64_t, Label) override { return refuse(); }
  Result<> set_attributes(const FileAttributes&, Label) override { return refuse(); }
  Result<std::optional<std::uint64_t>> seek_data(std::uint64_t, Label) override { return refuse(); }
  Result<std::optional<std::uint64_t>> seek_hole(std::uint64_t, Label) override { return refuse(); }
  Result<bool> owns_blocks(std::uint64_t, std::uint64_t, Label) override { return refuse(); }
  Result<> clone_from(File&, Label) override { return refuse(); }

 private:
  static tl::unexpected<Error> refuse() { return fail(ErrorKind::kReadOnly, 30); }
  Bytes bytes_;
};

}  // namespace vmfs::fuzz
