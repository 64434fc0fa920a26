/*
 * The only C++ of the benchmark program: hands every workload of the registry to Google Benchmark, and is its
 * main().
 *
 * One iteration is one round of a workload. The number of rounds is fixed, and all threads meet at the end of
 * a round inside the timed part, so the real time of an iteration is that of its slowest thread.
 *
 *     tarn-workloads --list             name, threads, default or extra, time or memory, and what one
 * operation is tarn-workloads --benchmark_…      the options of Google Benchmark
 */
extern "C" {
#include "run.h"
#include "workload.h"
}

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstring>

namespace
{

void report_usage(benchmark::State &state, const readings &readings)
{
    const double kib = 1024;
    const process_usage &timed = readings.timed, &ended = readings.ended;

    state.counters["rss_before"] = kib * double(readings.before.rss_kib);
    state.counters["rss_after"] = kib * double(readings.after.rss_kib);
    state.counters["rss_peak"] = kib * double(readings.after.peak_rss_kib);
    if (readings.rested.rss_kib > 0)
        state.counters["rss_rested"] = kib * double(readings.rested.rss_kib);
    state.counters["minor_faults"] = double(readings.after.minor_faults - readings.before.minor_faults);
    state.counters["minor_faults_timed"] = double(ended.minor_faults - timed.minor_faults);
    state.counters["switches_timed"] = double(ended.voluntary_switches - timed.voluntary_switches +
                                              ended.involuntary_switches - timed.involuntary_switches);
    for (size_t figure = 0; figure < readings.figure_count; figure++)
        state.counters[readings.figures[figure].name] = readings.figures[figure].value;
}

void carry_out(benchmark::State &state, run *run)
{
    turn turn;

    run_start(run, &turn, state.thread_index());
    for (auto round : state) {
        (void)round;
        run_round(run, &turn);
    }
    run_stop(run, &turn);
    state.SetItemsProcessed(int64_t(turn.operations) * state.iterations());
    if (turn.thread == 0)
        report_usage(state, *run_readings(run));
}

void add(const workload &workload, const threads_choice &choice)
{
    run *run = run_create(&workload, choice.threads);

    benchmark::RegisterBenchmark(workload.name, carry_out, run)
        ->Threads(choice.threads)
        ->Iterations(workload.rounds)
        ->MeasureProcessCPUTime()
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
}

void list(const workload &workload, const threads_choice &choice)
{
    std::printf("%s\t%d\t%s\t%s\t%s\n", workload.name, choice.threads,
                choice.by_default ? "default" : "extra", workload.memory_only ? "memory" : "time",
                workload.operation);
}

template <typename Action> void for_every_row(Action action)
{
    for (auto family = workload_registry; *family != nullptr; family++)
        for (size_t index = 0; index < (*family)->count; index++) {
            const workload &workload = (*family)->workloads[index];

            for (const threads_choice &choice : workload.threads)
                if (choice.threads != 0)
                    action(workload, choice);
        }
}

} // namespace

int main(int argc, char **argv)
{
    if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
        for_every_row(list);
        return 0;
    }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 2;
    benchmark::AddCustomContext("malloc", process_malloc_provider());
    for_every_row(add);
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
