#include "tests/sim/lib/seed_runner.h"

#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>

namespace vmfs::sim {
namespace {

using Clock = std::chrono::steady_clock;

// A seed that takes longer hangs: of the processor, which a busy machine does not change; of real time, for one that
// waits for what never comes.
constexpr unsigned kBusySecondsMax = 30;
constexpr unsigned kSecondsMax = 300;

// Of what runs from here on; SIGPROF and SIGALRM end the process.
void limit_time() {
  itimerval busy{};
  busy.it_value.tv_sec = kBusySecondsMax;
  if (::setitimer(ITIMER_PROF, &busy, nullptr) != 0) std::perror("sim: setitimer");
  ::alarm(kSecondsMax);
}

}  // namespace

// What a child process leaves behind, however it ends.
struct SeedRunner::Shared {
  std::uint64_t seed = 0;  // under work
  std::uint64_t done = 0;  // seeds that ended, of all children with this place
  bool failed = false;     // `seed` failed with `what`
  char what[4000] = {};
};

struct SeedRunner::Job {
  Shared& shared;
  std::uint64_t next;  // seed to go on from
  pid_t child = 0;     // 0: it has nothing to do any more
};

struct SeedRunner::Plan {
  std::uint64_t end;  // the seed behind the last one
  Clock::time_point until;
  bool due(std::uint64_t seed) const { return seed < end && Clock::now() < until; }
};

SeedRunner::SeedRunner(unsigned jobs)
    : jobs_(std::max(jobs, 1u)),
      shared_(static_cast<Shared*>(::mmap(nullptr, jobs_ * sizeof(Shared), PROT_READ | PROT_WRITE,
                                          MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
  if (shared_ != MAP_FAILED) return;
  std::perror("sim: mmap");
  std::exit(2);
}

SeedRunner::~SeedRunner() { ::munmap(shared_, jobs_ * sizeof(Shared)); }

void SeedRunner::start(Job& job, const Scenario& scenario, const Plan& plan) {
  Shared& shared = job.shared;
  shared.failed = false;
  shared.seed = job.next;
  std::fflush(nullptr);
  job.child = ::fork();
  if (job.child < 0) {
    std::perror("sim: fork");
    std::exit(2);
  }
  if (job.child != 0) return;
  for (std::uint64_t seed = job.next; plan.due(seed); seed += jobs_) {
    shared.seed = seed;
    if (!verbose) limit_time();
    try {
      scenario.run(seed);
    } catch (const SimFailure& failure) {
      std::snprintf(shared.what, sizeof shared.what, "%s", failure.what.c_str());
      shared.failed = true;
      ::_exit(1);
    }
    ++shared.done;
  }
  ::_exit(0);
}

namespace {

// Nothing: the child ended because nothing was left to do.
std::optional<std::string> why_ended(int status, bool failed, const char* what) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return std::nullopt;
  if (failed) return what;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
    return fmt::format("hung: no end after {} seconds", kSecondsMax);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF)
    return fmt::format("hung: no end after {} seconds of the processor", kBusySecondsMax);
  if (WIFSIGNALED(status)) return fmt::format("died: {}", ::strsignal(WTERMSIG(status)));
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

}  // namespace

Outcome SeedRunner::run(const Scenario& scenario, std::uint64_t first, std::uint64_t count, double seconds,
                        std::size_t failures_max) {
  Outcome outcome;
  const auto start_time = Clock::now();
  const auto patience = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  const Plan plan{count != 0 ? first + count : ~std::uint64_t{0},
                  count != 0 ? Clock::time_point::max() : start_time + patience};
  std::vector<Job> jobs;
  for (unsigned i = 0; i < jobs_; ++i) {
    jobs.push_back({*new (shared_ + i) Shared, first + i});
    if (plan.due(jobs.back().next)) start(jobs.back(), scenario, plan);
  }
  const auto runs = [](const Job& job) { return job.child != 0; };
  while (std::any_of(jobs.begin(), jobs.end(), runs)) {
    int status = 0;
    const pid_t ended = ::waitpid(-1, &status, 0);
    auto job = std::find_if(jobs.begin(), jobs.end(), [&](const Job& each) { return ended > 0 && each.child == ended; });
    if (job == jobs.end()) continue;
    job->child = 0;
    // Of those that are ended below nothing more is to be learned.
    if (outcome.failures.size() >= failures_max) continue;
    auto why = why_ended(status, job->shared.failed, job->shared.what);
    if (!why) continue;
    outcome.failures.push_back({job->shared.seed, *why});
    job->next = job->shared.seed + jobs_;
    if (outcome.failures.size() >= failures_max) {
      for (const Job& each : jobs)
        if (each.child != 0) ::kill(each.child, SIGKILL);
    } else if (plan.due(job->next)) {
      start(*job, scenario, plan);
    }
  }
  std::sort(outcome.failures.begin(), outcome.failures.end(),
            [](const Failure& a, const Failure& b) { return a.seed < b.seed; });
  for (const Job& job : jobs) outcome.seeds += job.shared.done;
  outcome.seeds += outcome.failures.size();
  outcome.seconds = std::chrono::duration<double>(Clock::now() - start_time).count();
  return outcome;
}

}  // namespace vmfs::sim
