#include "tests/sim/lib/invariants.h"

#include <algorithm>

#include "tests/sim/lib/scenario.h"

namespace vmfs::sim {

void RecordNames::note(const RecordHeader& header) {
  if (header.seq == 0) return;
  // Base records bear the source's position, and do not advance it.
  if (header.type == RecordType::kBaseBegin || header.type == RecordType::kBaseData ||
      header.type == RecordType::kBaseEnd)
    return;
  const Content content{header.type, header.offset, header.extent, header.payload_hash,
                        header.wall_ns};
  auto [entry, added] = names_.try_emplace({header.group, header.epoch, header.seq}, content);
  SIM_CHECK(added || entry->second == content,
            "invariant 3: group {:016x} has two records with epoch {:016x} seq {}: types {} and {}",
            header.group, header.epoch, header.seq, static_cast<int>(entry->second.type),
            static_cast<int>(header.type));
  if (header.unique == 0) return;
  const std::tuple place{header.group, header.epoch, header.seq};
  auto [request, first] = requests_.try_emplace(
      {header.connection, header.unique, header.type, header.offset}, place);
  SIM_CHECK(first || request->second == place,
            "request {} of connection {:016x} was carried out twice: as seq {} and as seq {}, type {}",
            header.unique, header.connection, std::get<2>(request->second), header.seq,
            static_cast<int>(header.type));
}

void VolumeInvariants::check_new_records() {
  Journal& journal = volume_.journal();
  if (!reader_) reader_ = std::make_unique<RecordReader>(journal, 0);
  for (;;) {
    auto next = reader_->next(journal.written_lsn());
    if (!next && next.error().kind == ErrorKind::kNotFound) {  // recycled meanwhile
      reader_ = std::make_unique<RecordReader>(journal, 0);
      last_.clear();
      continue;
    }
    SIM_CHECK(next.has_value(), "reading the journal: {}", next.error().message);
    if (!*next) return;
    const RecordHeader& header = (*next)->header;
    names_.note(header);
    if (on_record_)
      on_record_(header, (*next)->payload, header.lsn + record_size(header.payload_size));
    if (header.seq == 0 ||
        (header.type >= RecordType::kBaseBegin && header.type <= RecordType::kBaseEnd))
      continue;
    const Position here{EpochId{header.epoch}, header.seq};
    auto [last, first] = last_.try_emplace(header.group, here);
    if (!first && last->second.epoch == here.epoch)
      SIM_CHECK(here.seq == last->second.seq + 1, "group {:016x}: record {} follows {}",
                header.group, here.seq, last->second.seq);
    last->second = here;
  }
}

void VolumeInvariants::check_journal() const {
  Journal& journal = volume_.journal();
  SIM_CHECK(journal.durable_lsn() <= journal.written_lsn(), "durable {} written {}",
            journal.durable_lsn(), journal.written_lsn());
  SIM_CHECK(journal.written_lsn() <= journal.reserved_lsn(), "written {} reserved {}",
            journal.written_lsn(), journal.reserved_lsn());
  SIM_CHECK(journal.oldest_lsn() <= journal.durable_lsn(), "oldest {} durable {}",
            journal.oldest_lsn(), journal.durable_lsn());
  SIM_CHECK(journal.bytes_used() <= journal.bytes_max(), "{} bytes of {}", journal.bytes_used(),
            journal.bytes_max());
}

void VolumeInvariants::check_histories() const {
  for (const GroupState& group : volume_.groups()) {
    if (group.history.empty()) continue;
    for (std::size_t i = 1; i < group.history.size(); ++i)
      SIM_CHECK(group.history[i].parent.epoch == group.history[i - 1].epoch,
                "group {}: epoch {} does not follow {}", group.id, group.history[i].epoch,
                group.history[i - 1].epoch);
  }
}

namespace {

std::string store_path(const ModelState& state, ObjectId object) {
  std::string path;
  for (auto at = state.find(object); at != state.end(); at = state.find(at->second.parent))
    path = "/" + at->second.name + path;
  return "images" + path;
}

}  // namespace

void VolumeInvariants::check_store(SimDisk& store, const ModelState& now,
                                   const std::vector<Lsn>& ends) const {
  const Lsn durable = volume_.journal().durable_lsn();
  for (const auto& [id, object] : now) {
    if (object.type != FileType::kRegular) continue;
    auto content = read_whole_file(store, store_path(now, id), "sim.check");
    if (!content) continue;  // a rename is being redone, or a fault
    for (std::uint64_t i = 0; (i + 1) * kCell <= content->size(); ++i) {
      auto mark = read_mark(content->data() + i * kCell, i);
      SIM_CHECK(mark, "invariant 1: the store has bytes in \"{}\" cell {} that nobody wrote",
                object.name, i);
      SIM_CHECK(
          *mark == 0 || (*mark < ends.size() && ends[*mark] <= durable),
          "invariant 2: the store has change {} in \"{}\", which ends at {} and is not durable "
          "(the journal is up to {})",
          *mark, object.name, *mark < ends.size() ? ends[*mark] : 0, durable);
    }
  }
}

void check_plain_files(SimDisk& store, const ModelState& expected) {
  for (const auto& [id, object] : expected) {
    const std::string path = store_path(expected, id);
    auto stat = store.stat(path, "sim.check");
    SIM_CHECK(stat && stat->type == object.type, "after a clean unmount {} is not there", path);
    if (object.type != FileType::kRegular) continue;
    auto content = read_whole_file(store, path, "sim.check");
    SIM_CHECK(content.has_value(), "{}", content.error().message);
    SIM_CHECK(content->size() == object.cells.size() * kCell,
              "after a clean unmount {} has {} bytes, expected {}", path, content->size(),
              object.cells.size() * kCell);
    for (std::uint64_t i = 0; i < object.cells.size(); ++i) {
      auto mark = read_mark(content->data() + i * kCell, i);
      SIM_CHECK(mark && *mark == object.cells[i],
                "after a clean unmount {} cell {} is not of change {}", path, i, object.cells[i]);
    }
  }
}

}  // namespace vmfs::sim
