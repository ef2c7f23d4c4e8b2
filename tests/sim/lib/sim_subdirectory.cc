#include "tests/sim/lib/sim_disk.h"

namespace vmfs::sim {
namespace {

class Subdirectory : public Disk {
 public:
  Subdirectory(SimDisk& disk, std::string path) : disk_(disk), path_(std::move(path)) {}

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode, Label label) override {
    return disk_.open(at(path), mode, label);
  }
  Result<> make_directory(const std::string& path, Label label) override {
    return disk_.make_directory(at(path), label);
  }
  Result<> remove_directory(const std::string& path, Label label) override {
    return disk_.remove_directory(at(path), label);
  }
  Result<> remove(const std::string& path, Label label) override {
    return disk_.remove(at(path), label);
  }
  Result<> rename(const std::string& from, const std::string& to, bool replace,
                  Label label) override {
    return disk_.rename(at(from), at(to), replace, label);
  }
  Result<> make_symlink(const std::string& path, const std::string& target, Label label) override {
    return disk_.make_symlink(at(path), target, label);
  }
  Result<std::string> read_symlink(const std::string& path, Label label) override {
    return disk_.read_symlink(at(path), label);
  }
  Result<std::vector<DirectoryEntry>> list(const std::string& path, Label label) override {
    return disk_.list(at(path), label);
  }
  Result<FileStat> stat(const std::string& path, Label label) override {
    return disk_.stat(at(path), label);
  }
  Result<> set_attributes(const std::string& path, const FileAttributes& set,
                          Label label) override {
    return disk_.set_attributes(at(path), set, label);
  }
  Result<> set_tag(const std::string& path, std::string_view name, ByteView value,
                   Label label) override {
    return disk_.set_tag(at(path), name, value, label);
  }
  Result<Bytes> get_tag(const std::string& path, std::string_view name, Label label) override {
    return disk_.get_tag(at(path), name, label);
  }
  Result<> sync_directory(const std::string& path, Label label) override {
    return disk_.sync_directory(at(path), label);
  }
  Result<DiskSpace> space(Label label) override { return disk_.space(label); }
  Result<std::unique_ptr<DiskLock>> lock(const std::string& path, Label label) override {
    return disk_.lock(at(path), label);
  }
  std::string display(const std::string& path) const override { return disk_.display(at(path)); }

 private:
  std::string at(const std::string& path) const {
    return path.empty() ? path_ : path_ + "/" + path;
  }

  SimDisk& disk_;
  const std::string path_;
};

}  // namespace

std::unique_ptr<Disk> SimDisk::subdirectory(const std::string& path) {
  return std::make_unique<Subdirectory>(*this, path);
}

}  // namespace vmfs::sim
