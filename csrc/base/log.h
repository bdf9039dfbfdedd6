// One-line logging to stderr, chosen by FLASHPOINT_LOG: a comma-separated list of capture, break, miss, hit,
// native, store or all. FLASHPOINT_DUMP=graph,guards prints what a recording produced. torch's names
// graph_breaks, recompiles, guards and graph_code mean the same in FLASHPOINT_LOG and TORCH_LOGS. Read once
// per process.
#pragma once

#include <string>

namespace flashpoint {

enum class LogKind { kCapture, kBreak, kMiss, kHit, kNative, kStore, kDumpGraph, kDumpGuards };

bool log_enabled(LogKind kind);
void log_line(const std::string& text);

}  // namespace flashpoint
