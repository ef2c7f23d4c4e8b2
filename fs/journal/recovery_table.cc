#include "fs/journal/recovery_table.h"

#include <array>

#include "fs/base/check.h"

namespace vmfs {
namespace {

bool live(const SegmentFacts& facts) {
  return facts.role == SegmentRole::kStart || facts.role == SegmentRole::kContinued;
}

bool valid(const SegmentFacts& facts) {
  return facts.present && facts.header == HeaderValidity::kValid;
}

bool unusable(const SegmentFacts& facts) {
  return facts.present && (facts.header == HeaderValidity::kDamaged ||
                           facts.header == HeaderValidity::kOtherNumber);
}

constexpr std::array kSegmentRows{
    SegmentRow{"newer-version", SegmentAction::kRefuse,
               [](const SegmentFacts& f) {
                 return f.present && f.header == HeaderValidity::kNewerVersion;
               }},
    SegmentRow{"other-volume", SegmentAction::kRefuse,
               [](const SegmentFacts& f) {
                 return f.present && f.header == HeaderValidity::kOtherVolume;
               }},
    SegmentRow{"other-node", SegmentAction::kRefuse,
               [](const SegmentFacts& f) {
                 return f.present && f.header == HeaderValidity::kOtherNode;
               }},
    SegmentRow{"other-size", SegmentAction::kRefuse,
               [](const SegmentFacts& f) {
                 return f.present && f.header == HeaderValidity::kOtherSize;
               }},
    SegmentRow{"kept-for-peers", SegmentAction::kUse,
               [](const SegmentFacts& f) { return f.role == SegmentRole::kBelow && valid(f); }},
    // The store has what was in it. A peer that still wanted it is brought up to date by a copy.
    SegmentRow{"gone-below-start", SegmentAction::kForget,
               [](const SegmentFacts& f) {
                 return f.role == SegmentRole::kBelow && (!f.present || unusable(f));
               }},
    SegmentRow{"live", SegmentAction::kUse,
               [](const SegmentFacts& f) { return live(f) && valid(f); }},
    SegmentRow{"start-missing", SegmentAction::kRefuse,
               [](const SegmentFacts& f) {
                 return f.role == SegmentRole::kStart && !f.present;
               }},
    // Segments get their names in order, each durably: this one was there once.
    SegmentRow{"missing-in-the-middle", SegmentAction::kRefuse,
               [](const SegmentFacts& f) {
                 return f.role == SegmentRole::kContinued && !f.present && f.later_present;
               }},
    // A segment is sealed although the next is not ready yet when the journal is full.
    SegmentRow{"not-ready-yet", SegmentAction::kEnd,
               [](const SegmentFacts& f) {
                 return f.role == SegmentRole::kContinued && !f.present && !f.later_present;
               }},
    // A header is durable before the file gets its name: this one was whole once.
    SegmentRow{"live-header-damaged", SegmentAction::kRefuse,
               [](const SegmentFacts& f) { return live(f) && unusable(f); }},
    SegmentRow{"prepared", SegmentAction::kPrepared,
               [](const SegmentFacts& f) { return f.role == SegmentRole::kBeyond && valid(f); }},
    SegmentRow{"prepared-header-damaged", SegmentAction::kMakeAgain,
               [](const SegmentFacts& f) { return f.role == SegmentRole::kBeyond && unusable(f); }},
    SegmentRow{"none-prepared", SegmentAction::kEnd,
               [](const SegmentFacts& f) {
                 return f.role == SegmentRole::kBeyond && !f.present;
               }},
};

bool whole_so_far(const EndFacts& facts) {
  return facts.end >= facts.start && facts.later_claim <= facts.end;
}

constexpr std::array kEndRows{
    // The checkpoint knew the log to be durable up to there.
    EndRow{"ends-before-checkpoint", EndAction::kRefuse,
           [](const EndFacts& f) { return f.end < f.start; }},
    EndRow{"damaged-in-the-middle", EndAction::kRefuse,
           [](const EndFacts& f) { return f.end >= f.start && f.later_claim > f.end; }},
    EndRow{"complete-segment", EndAction::kEndHere,
           [](const EndFacts& f) { return whole_so_far(f) && f.sealed; }},
    EndRow{"clean-end", EndAction::kEndHere,
           [](const EndFacts& f) {
             return whole_so_far(f) && !f.sealed && f.reason == Validity::kNothing;
           }},
    // What an earlier use of the file, or a generation that was cut off, has left.
    EndRow{"left-over", EndAction::kEndHere,
           [](const EndFacts& f) {
             return whole_so_far(f) && !f.sealed &&
                    (f.reason == Validity::kNoHeader || f.reason == Validity::kStale ||
                     f.reason == Validity::kValid);
           }},
    EndRow{"torn-tail", EndAction::kEndHere,
           [](const EndFacts& f) {
             return whole_so_far(f) && !f.sealed &&
                    (f.reason == Validity::kBadHeader || f.reason == Validity::kBadPayload ||
                     f.reason == Validity::kMisplaced);
           }},
};

template <class Rows, class Facts>
const auto& only_match(const Rows& rows, const Facts& facts) {
  const typename Rows::value_type* match = nullptr;
  for (const auto& row : rows) {
    if (!row.matches(facts)) continue;
    CHECK_INVARIANT(!match, "recovery: both {} and {} match", match->label, row.label);
    match = &row;
  }
  CHECK_INVARIANT(match, "recovery: no row matches");
  return *match;
}

}  // namespace

std::span<const SegmentRow> segment_table() { return kSegmentRows; }
std::span<const EndRow> end_table() { return kEndRows; }
const SegmentRow& decide(const SegmentFacts& facts) {
  return only_match(kSegmentRows, facts);
}
const EndRow& decide(const EndFacts& facts) { return only_match(kEndRows, facts); }

}  // namespace vmfs
