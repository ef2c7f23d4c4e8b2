#include <set>
#include <string>

#include <doctest/doctest.h>

#include "fs/journal/recovery_table.h"

namespace vmfs {
namespace {

TEST_SUITE("journal recovery table") {
  TEST_CASE("segments: each row by its facts") {
    using enum SegmentRole;
    struct Example {
      const char* label;
      SegmentFacts facts;
      SegmentAction action;
    };
    const Example examples[] = {
        {"newer-version", {kBeyond, true, HeaderValidity::kNewerVersion}, SegmentAction::kRefuse},
        {"newer-version", {kBelow, true, HeaderValidity::kNewerVersion}, SegmentAction::kRefuse},
        {"other-volume", {kStart, true, HeaderValidity::kOtherVolume}, SegmentAction::kRefuse},
        {"other-node", {kContinued, true, HeaderValidity::kOtherNode}, SegmentAction::kRefuse},
        {"other-size", {kBeyond, true, HeaderValidity::kOtherSize}, SegmentAction::kRefuse},
        {"kept-for-peers", {kBelow, true, HeaderValidity::kValid}, SegmentAction::kUse},
        {"gone-below-start", {kBelow, false, {}}, SegmentAction::kForget},
        {"gone-below-start", {kBelow, true, HeaderValidity::kDamaged}, SegmentAction::kForget},
        {"live", {kStart, true, HeaderValidity::kValid}, SegmentAction::kUse},
        {"live", {kContinued, true, HeaderValidity::kValid}, SegmentAction::kUse},
        {"start-missing", {kStart, false, {}}, SegmentAction::kRefuse},
        {"not-ready-yet", {kContinued, false, {}}, SegmentAction::kEnd},
        {"missing-in-the-middle", {kContinued, false, {}, true}, SegmentAction::kRefuse},
        {"live-header-damaged", {kStart, true, HeaderValidity::kDamaged}, SegmentAction::kRefuse},
        {"live-header-damaged",
         {kContinued, true, HeaderValidity::kOtherNumber},
         SegmentAction::kRefuse},
        {"prepared", {kBeyond, true, HeaderValidity::kValid}, SegmentAction::kPrepared},
        {"prepared-header-damaged",
         {kBeyond, true, HeaderValidity::kDamaged},
         SegmentAction::kMakeAgain},
        {"none-prepared", {kBeyond, false, {}}, SegmentAction::kEnd},
    };
    std::set<std::string> shown;
    for (const Example& example : examples) {
      CAPTURE(example.label);
      const SegmentRow& row = decide(example.facts);
      CHECK(std::string(row.label) == example.label);
      CHECK(row.action == example.action);
      shown.insert(row.label);
    }
    for (const SegmentRow& row : segment_table()) CHECK(shown.contains(row.label));
  }

  TEST_CASE("segments: exactly one row for all facts") {
    for (int role = 0; role <= static_cast<int>(SegmentRole::kBeyond); ++role)
      for (bool present : {false, true})
        for (int header = 0; header <= static_cast<int>(HeaderValidity::kOtherNumber); ++header) {
          for (bool later : {false, true}) {
            SegmentFacts facts{SegmentRole(role), present, HeaderValidity(header), later};
            int matches = 0;
            for (const SegmentRow& row : segment_table()) matches += row.matches(facts);
            CHECK(matches == 1);
          }
        }
  }

  TEST_CASE("the end: each row by its facts") {
    struct Example {
      const char* label;
      EndFacts facts;  // start, end, sealed, reason, later claim
      EndAction action;
    };
    const Example examples[] = {
        {"ends-before-checkpoint", {100, 90, false, Validity::kNothing, 0}, EndAction::kRefuse},
        {"ends-before-checkpoint", {100, 90, false, Validity::kBadPayload, 200}, EndAction::kRefuse},
        {"damaged-in-the-middle", {100, 150, false, Validity::kBadPayload, 160}, EndAction::kRefuse},
        {"damaged-in-the-middle", {100, 150, true, Validity::kNothing, 160}, EndAction::kRefuse},
        {"complete-segment", {100, 150, true, Validity::kNothing, 150}, EndAction::kEndHere},
        {"clean-end", {100, 150, false, Validity::kNothing, 0}, EndAction::kEndHere},
        {"left-over", {100, 150, false, Validity::kNoHeader, 0}, EndAction::kEndHere},
        {"left-over", {100, 150, false, Validity::kStale, 140}, EndAction::kEndHere},
        {"torn-tail", {100, 150, false, Validity::kBadHeader, 150}, EndAction::kEndHere},
        {"torn-tail", {100, 150, false, Validity::kBadPayload, 0}, EndAction::kEndHere},
        {"torn-tail", {100, 100, false, Validity::kMisplaced, 0}, EndAction::kEndHere},
    };
    std::set<std::string> shown;
    for (const Example& example : examples) {
      CAPTURE(example.label);
      const EndRow& row = decide(example.facts);
      CHECK(std::string(row.label) == example.label);
      CHECK(row.action == example.action);
      shown.insert(row.label);
    }
    for (const EndRow& row : end_table()) CHECK(shown.contains(row.label));
  }

  TEST_CASE("the end: exactly one row for all facts") {
    for (Lsn end : {90, 100, 150})
      for (Lsn claim : {0, 120, 200})
        for (bool sealed : {false, true})
          for (int reason = 0; reason <= static_cast<int>(Validity::kStale); ++reason) {
            EndFacts facts{100, end, sealed, Validity(reason), claim};
            int matches = 0;
            for (const EndRow& row : end_table()) matches += row.matches(facts);
            CHECK(matches == 1);
          }
  }
}

}  // namespace
}  // namespace vmfs
