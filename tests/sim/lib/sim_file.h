// Private to the simulated disk: an open file.
#pragma once

#include "tests/sim/lib/sim_disk.h"

namespace vmfs::sim {

class SimFile : public File {
 public:
  SimFile(SimDisk& disk, InodeRef inode, std::string path, bool writable, std::uint64_t life)
      : disk_(disk),
        inode_(std::move(inode)),
        path_(std::move(path)),
        writable_(writable),
        life_(life) {}

  Result<std::size_t> read(std::span<std::byte> buffer, std::uint64_t offset, Label) override;
  Result<> write(ByteView bytes, std::uint64_t offset, Label) override;
  Result<> write_pieces(std::span<const iovec> pieces, std::uint64_t offset, Label) override;
  Result<> sync_data(Label) override;
  Result<> sync(Label) override;
  void start_writeback(std::uint64_t offset, std::uint64_t length) override;
  Result<> truncate(std::uint64_t size, Label) override;
  Result<> allocate(std::uint64_t offset, std::uint64_t length, bool keep_size, Label) override;
  Result<> punch_hole(std::uint64_t offset, std::uint64_t length, Label) override;
  Result<FileStat> stat(Label) override;
  Result<> set_attributes(const FileAttributes&, Label) override;
  Result<std::optional<std::uint64_t>> seek_data(std::uint64_t offset, Label) override;
  Result<std::optional<std::uint64_t>> seek_hole(std::uint64_t offset, Label) override;
  Result<bool> owns_blocks(std::uint64_t offset, std::uint64_t length, Label) override;
  Result<> clone_from(File& source, Label) override;

 private:
  std::optional<int> before(Operation operation, Label label);
  Result<> write_all(Bytes bytes, std::uint64_t offset, Label label);
  Result<> sync_as(Operation operation, Label label);
  void store(ByteView bytes, std::uint64_t offset);

  SimDisk& disk_;
  const InodeRef inode_;
  const std::string path_;
  const bool writable_;
  const std::uint64_t life_;
};

}  // namespace vmfs::sim
